package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestSecretIsHidden: no way of formatting a secret, or what has one, shows it.
func TestSecretIsHidden(t *testing.T) {
	const text = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="
	s, err := ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	raw := string(s[:])
	values := []any{s, &s, WireGuard{PrivateKey: s}, Peer{PresharedKey: s}, []Secret{s}, Change[Peer]{Want: Peer{PresharedKey: s}}}
	var shown strings.Builder
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&shown, verb, v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(b)
	}
	shown.WriteString(wireGuardCommand("flannel-wg", WireGuard{PrivateKey: s}) + peerCommand(PeerKey{}, Peer{PresharedKey: s}) + s.String())
	for _, secret := range []string{text, raw, fmt.Sprintf("%x", raw), fmt.Sprint([]byte(raw)), "112 108 101"} {
		if strings.Contains(shown.String(), secret) {
			t.Errorf("%q is shown:\n%s", secret, &shown)
		}
	}
	for _, bad := range []string{text[:40], text + "AAAA", "secret text that is no base64", ""} {
		if _, err := ParseSecret(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v, want an error without it", bad, err)
		}
	}
}

// wireGuardTables are tables with a device and a peer with a prefix, in sync.
func wireGuardTables(key PublicKey, prefix netip.Prefix) (*Tables, State) {
	t := NewTables()
	s := State{
		Links:      []Item[string, Link]{{"flannel-wg", Link{Kind: KindWireGuard, Up: true, Alias: Alias}}},
		WireGuards: []Item[string, WireGuard]{{"flannel-wg", WireGuard{Port: 51820}}},
		Peers:      []Item[PeerKey, Peer]{{PeerKey{"flannel-wg", key}, Peer{Endpoint: netip.MustParseAddrPort("192.0.2.7:51820")}}},
		AllowedIPs: []Item[AllowedIPKey, PublicKey]{{AllowedIPKey{"flannel-wg", prefix}, key}},
	}
	t.Replace(Owner{Name: "a", Age: 1}, State{}, s)
	t.Links.Observe("flannel-wg", s.Links[0].Value)
	t.WireGuards.Observe("flannel-wg", s.WireGuards[0].Value)
	t.Peers.Observe(s.Peers[0].Key, s.Peers[0].Value)
	t.AllowedIPs.Observe(s.AllowedIPs[0].Key, key)
	return t, s
}

// TestWireGuardKinds: a prefix of a withdrawn lease goes to the peer of a live one, what is not desired is removed, and
// what is on a device is gone with it.
func TestWireGuardKinds(t *testing.T) {
	prefix := netip.MustParsePrefix("10.5.29.0/24")
	old, fresh := PublicKey{1}, PublicKey{2}
	tables, s := wireGuardTables(old, prefix)
	if n := tables.Pending(); n != 0 {
		t.Fatalf("%d pending: %v", n, tables.Unwanted())
	}
	tables.Replace(Owner{Name: "a", Grace: true}, s, s)
	next := State{
		Peers:      []Item[PeerKey, Peer]{{PeerKey{"flannel-wg", fresh}, Peer{}}},
		AllowedIPs: []Item[AllowedIPKey, PublicKey]{{AllowedIPKey{"flannel-wg", prefix}, fresh}},
	}
	tables.Replace(Owner{Name: "b", Age: 9}, State{}, next)
	if c := tables.AllowedIPs.Get(s.AllowedIPs[0].Key); c.Want != fresh || c.Have != old {
		t.Errorf("allowed IP %+v, want it to move to the live lease's peer", c)
	}
	var order []string
	tables.Peers.ApplyEach(func(k PeerKey, c Change[Peer]) error {
		order = append(order, fmt.Sprintf("peer %d %t", k.PublicKey[0], c.Wanted))
		return nil
	})
	tables.AllowedIPs.ApplyEach(func(_ AllowedIPKey, c Change[PublicKey]) error {
		order = append(order, fmt.Sprintf("prefix to %d", c.Want[0]))
		return nil
	})
	r := Reconciler{Tables: tables}
	r.Pass(time.Now())
	tables.Replace(Owner{Name: "a"}, s, State{Links: s.Links, WireGuards: s.WireGuards})
	r.Pass(time.Now())
	if got, want := strings.Join(order, ", "), "peer 2 true, prefix to 2, peer 1 false"; got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
	tables.LinkGone("flannel-wg")
	if tables.Peers.Get(next.Peers[0].Key).Present || tables.AllowedIPs.Get(s.AllowedIPs[0].Key).Present || tables.WireGuards.Get("flannel-wg").Present {
		t.Error("something is left of a device that is gone")
	}
	tables.Peers.Observe(PeerKey{"wg0", old}, Peer{})
	if got := tables.Unwanted(); len(got) != 0 {
		t.Errorf("%v are to be removed, and are on another program's device", got)
	}
}

// TestRoaming: a peer that has moved is left where it is, an endpoint that another process has set is not.
func TestRoaming(t *testing.T) {
	k := PeerKey{"flannel-wg", PublicKey{1}}
	want, moved, other := netip.MustParseAddrPort("192.0.2.7:51820"), netip.MustParseAddrPort("198.51.100.1:4000"), netip.MustParseAddrPort("203.0.113.1:9")
	start := time.Unix(1_000_000, 0)
	const none = 0
	type read struct {
		after          float64 // seconds since the first one
		at             netip.AddrPort
		received, sent uint64
		handshake      time.Duration // before the read, in seconds
		want           netip.AddrPort
		doubted        bool
	}
	for _, tt := range []struct {
		name   string
		silent bool // it cannot be asked
		reads  []read
	}{
		{"moved, and answers", false, []read{
			{0, want, 10, 10, 1, want, false}, {1, moved, 20, 10, 1, want, true}, {1.25, moved, 20, 20, 1, want, true},
			{1.5, moved, 30, 20, 1, want, false}, {20, moved, 30, 30, 1, want, false}, {24, moved, 30, 40, 1, want, false},
			{25.5, moved, 30, 40, 1, want, true}, {26, moved, 40, 50, 1, want, false}, {27, moved, 40, 60, 1, want, false},
			{33, moved, 40, 60, 1, want, true}, {34, moved, 40, 60, 1, want, true}, {35, moved, 40, 60, 1, moved, false},
		}},
		{"moved, and nothing is sent", false, []read{
			{0, want, 10, 10, 1, want, false}, {1, moved, 20, 10, 1, want, true}, {1.5, moved, 30, 20, 1, want, false},
			{300, moved, 30, 20, 1, want, false},
		}},
		{"set by another process", false, []read{
			{0, want, 10, 10, 1, want, false}, {1, other, 10, 20, 1, other, false}, {2, other, 10, 20, 1, other, false},
		}},
		{"set while it sent", false, []read{
			{0, want, 10, 10, 1, want, false}, {1, other, 20, 10, 1, want, true}, {2, other, 20, 20, 1, want, true},
			{2.75, other, 20, 30, 1, other, false},
		}},
		{"set while it sent, again and again", false, []read{
			{0, want, 10, 10, 1, want, false}, {1, other, 20, 10, 1, want, true}, {1.9, moved, 30, 20, 1, want, true},
			{2.1, moved, 30, 20, 1, want, true}, {2.8, moved, 30, 20, 1, want, true}, {3.5, moved, 30, 30, 1, moved, false},
		}},
		{"set while it sent, and cannot be asked", true, []read{
			{0, want, 10, 10, 1, want, false}, {1, other, 20, 10, 1, want, true}, {2, other, 20, 20, 1, want, true},
			{12, other, 20, 30, 1, want, true}, {18, other, 20, 40, 1, other, false},
		}},
		{"repaired, and moved again", false, []read{
			{0, want, 10, 10, 1, want, false}, {1, other, 10, 10, 1, other, false}, {2, want, 10, 10, 1, want, false},
			{3, moved, 30, 10, 1, want, true}, {3.5, moved, 40, 10, 1, want, false},
		}},
		{"answers where it was not expected", false, []read{
			{0, want, 10, 10, 1, want, false}, {1, moved, 10, 20, 1, moved, false}, {2, moved, 30, 20, 1, want, true},
			{2.5, moved, 40, 20, 1, want, false},
		}},
		{"at a start, in a session", false, []read{
			{0, moved, 10, 10, 100, want, true}, {0.5, moved, 20, 10, 100, want, false},
		}},
		{"at a start, in a session, set by another process", false, []read{
			{0, moved, 10, 10, 100, want, true}, {1.75, moved, 10, 20, 100, moved, false},
		}},
		{"at a start, without a session", false, []read{
			{0, moved, 10, 10, 200, moved, false}, {1, moved, 10, 10, 201, moved, false},
		}},
		{"back", false, []read{
			{0, moved, 10, 10, 1, want, true}, {0.5, moved, 20, 10, 1, want, false}, {1, want, 30, 10, 1, want, false},
			{2, moved, 30, 20, 1, moved, false},
		}},
		{"no endpoint", false, []read{{0, netip.AddrPort{}, none, none, none, netip.AddrPort{}, false}}},
	} {
		var r Roaming
		for i, x := range tt.reads {
			now := start.Add(time.Duration(x.after * float64(time.Second)))
			h := Heard{Endpoint: x.at, Received: x.received, Sent: x.sent}
			if x.handshake != none {
				h.Handshake = now.Add(-x.handshake * time.Second)
			}
			r.Mark()
			if got := r.Endpoint(k, want, h, now); got != x.want {
				t.Errorf("%s: read %d: %s, want %s", tt.name, i, got, x.want)
			}
			r.Sweep()
			doubted := r.Doubted()
			if (len(doubted) == 1 && doubted[0] == k) != x.doubted {
				t.Errorf("%s: read %d: %v are doubted, want that it is: %t", tt.name, i, doubted, x.doubted)
			}
			if len(doubted) > 0 && !tt.silent {
				r.Asked(k, now)
			}
		}
		r.Mark()
		r.Sweep()
		if len(r.last) != 0 {
			t.Errorf("%s: a peer that is gone is remembered", tt.name)
		}
	}
}

// TestRoamingLease: a lease with another endpoint is obeyed at once by a peer that has not moved, however much is received
// from it; one that has moved is asked whether it is still there.
func TestRoamingLease(t *testing.T) {
	k := PeerKey{"flannel-wg", PublicKey{1}}
	first, next, moved := netip.MustParseAddrPort("192.0.2.7:51820"), netip.MustParseAddrPort("192.0.2.8:51820"), netip.MustParseAddrPort("198.51.100.1:4000")
	for _, tt := range []struct {
		name    string
		at      netip.AddrPort // where the device sends to
		got     netip.AddrPort // after the lease's change
		doubted int
		after   netip.AddrPort // in the end, since it does not answer
	}{
		{"not moved", first, first, 0, first},
		{"moved", moved, next, 1, moved},
	} {
		var r Roaming
		now, handshake := time.Unix(1_000_000, 0), time.Unix(1_000_000, 0)
		read := func(after time.Duration, want netip.AddrPort, received uint64) netip.AddrPort {
			now = now.Add(after)
			r.Mark()
			e := r.Endpoint(k, want, Heard{Endpoint: tt.at, Handshake: handshake, Received: received, Sent: received}, now)
			r.Sweep()
			for _, k := range r.Doubted() {
				r.Asked(k, now)
			}
			return e
		}
		read(0, first, 10)
		read(time.Second/2, first, 20)
		if got := read(time.Second/2, next, 30); got != tt.got || len(r.Doubted()) != tt.doubted {
			t.Errorf("%s: %s and %v doubted, want %s and %d", tt.name, got, r.Doubted(), tt.got, tt.doubted)
		}
		if got := read(answerTime+1, next, 30); got != tt.after {
			t.Errorf("%s: %s in the end, want %s", tt.name, got, tt.after)
		}
	}
}

// TestSession: a session says since when packets are not answered, and when the last ones were received.
func TestSession(t *testing.T) {
	k, other := PeerKey{"flannel-wg", PublicKey{1}}, PeerKey{"flannel-wg", PublicKey{2}}
	var r Roaming
	at := func(second int) time.Time { return time.Unix(int64(1_000_000+second), 0) }
	for i, x := range []struct {
		received, sent uint64
		since, last    int // seconds; 0: never
	}{
		{500, 500, 0, 0}, // before the daemon's start
		{500, 500, 0, 0},
		{500, 600, 3, 0},
		{500, 700, 3, 0},
		{600, 800, 0, 5},
		{600, 800, 0, 5},
		{600, 900, 7, 5},
	} {
		now := at(i + 1)
		r.Mark()
		r.Endpoint(k, netip.AddrPort{}, Heard{Received: x.received, Sent: x.sent}, now)
		r.Sweep()
		want := Session{Heard: Heard{Received: x.received, Sent: x.sent}}
		if x.since != 0 {
			want.UnansweredSince = at(x.since)
		}
		if x.last != 0 {
			want.LastReceived = at(x.last)
		}
		if s, ok := r.Session(k); !ok || s != want {
			t.Errorf("read %d: %+v, %t, want %+v", i, s, ok, want)
		}
	}
	if s, ok := r.Session(other); ok {
		t.Errorf("%+v of a peer that is not there", s)
	}
}
