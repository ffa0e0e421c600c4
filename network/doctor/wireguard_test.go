package doctor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// TestWireGuard: peers that answer, or that nothing is sent to, are no finding; others are, with the likely cause.
func TestWireGuard(t *testing.T) {
	endpoint := netip.MustParseAddrPort("192.0.2.2:51820")
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		name             string
		s                status.Session
		level            Level
		evidence, advice string
	}{
		{"in use", status.Session{Handshake: ago(time.Minute), Received: 900, Sent: 900, LastReceived: ago(time.Second)}, Pass, "of 1 leaves", ""},
		{"not used for an hour", status.Session{Handshake: ago(time.Hour), Received: 900, Sent: 900, LastReceived: ago(time.Hour)}, Pass, "", ""},
		{"never used", status.Session{}, Pass, "", ""},
		{"a handshake that has begun", status.Session{Sent: 148, UnansweredSince: ago(5 * time.Second)}, Pass, "", ""},
		{"in use since before the daemon", status.Session{Handshake: ago(time.Minute), Received: 900, Sent: 900}, Pass, "", ""},
		{"handshakes that crossed", status.Session{Received: 240, Sent: 240, LastReceived: ago(time.Second)}, Pass, "", ""},
		{"a session that has just ended", status.Session{Handshake: ago(181 * time.Second), Received: 9000, Sent: 900, LastReceived: ago(2 * time.Second)}, Pass, "", ""},
		{"a blocked port", status.Session{Sent: 1480, UnansweredSince: ago(time.Minute)}, Failure,
			"handshakes to node2 (192.0.2.2:51820, flannel-wg) are not answered, for 1m0s: nothing has ever come", "allow UDP port 51820"},
		{"blocked later", status.Session{Handshake: ago(time.Minute), Received: 900, Sent: 1900, UnansweredSince: ago(30 * time.Second), LastReceived: ago(40 * time.Second)},
			Failure, "get no answer, for 30s", "allow UDP port 51820"},
		{"blocked for long", status.Session{Handshake: ago(time.Hour), Received: 900, Sent: 9000, UnansweredSince: ago(time.Hour), LastReceived: ago(time.Hour)},
			Failure, "get no answer, for 1h0m0s", "another clock or key"},
		{"another preshared key", status.Session{Received: 444, Sent: 1480, LastReceived: ago(4 * time.Second)}, Failure,
			"arrive, but no handshake is completed: the preshared keys", "Backend.PSK"},
		{"another preshared key since a while", status.Session{Handshake: ago(time.Hour), Received: 9000, Sent: 9000, LastReceived: ago(4 * time.Second)},
			Failure, "no handshake is completed", "Backend.PSK"},
		{"a clock that was set back", status.Session{Handshake: now.Add(time.Hour), Received: 900, Sent: 900, LastReceived: ago(time.Second)}, Failure,
			"this node's clock is 1h0m0s behind its last WireGuard handshake: node2", "correct this node's clock"},
	} {
		f := healthy()
		tt.s.Device, tt.s.Endpoint = "flannel-wg", endpoint
		f.Peers[0].Sessions = []status.Session{tt.s}
		all := judge(f, func(check string) bool { return check == "wireguard" })
		if len(all) != 1 || all[0].Level != tt.level || !strings.Contains(all[0].Evidence, tt.evidence) ||
			!strings.Contains(all[0].Advice, tt.advice) {
			t.Errorf("%s: %+v, want %s %q, advice %q", tt.name, all, tt.level, tt.evidence, tt.advice)
		}
	}
	if all := judge(healthy(), func(check string) bool { return check == "wireguard" }); all != nil {
		t.Errorf("%+v without WireGuard", all)
	}
}
