package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
)

// TestLoss: peers that lose the daemon's probes are a warning with figures, which says where packets are lost as far as
// that is certain.
func TestLoss(t *testing.T) {
	loss := func(lost int) probe.Loss { return probe.Loss{Sent: 100, Lost: lost, MaxRTT: 201 * time.Millisecond} }
	for _, x := range []struct {
		name, text, advice string
		losses             probe.Losses
	}{
		{"on the underlay", "packets of 1 of 2 probed nodes over IPv4 are lost on the underlay: node2 (192.0.2.2): " +
			"4 of the latest 32 probes (12 %), now 9 of 100 on the underlay, now 11 of 100 in the overlay, round trips of 201ms",
			"show eth0", probe.Losses{Underlay: loss(9), Overlay: loss(11)}},
		{"in the overlay", "lost in the overlay, and not on the underlay", "show flannel.1", probe.Losses{Underlay: loss(0), Overlay: loss(5)}},
		{"more in the overlay, which may be chance", "lost, though hardly any now", "again", probe.Losses{Underlay: loss(1), Overlay: loss(9)}},
		{"nothing now", "lost, though hardly any now", "again", probe.Losses{Underlay: loss(0), Overlay: loss(0)}},
		{"an underlay that filters echo requests", "over IPv4 are lost: node2", "ping", probe.Losses{Underlay: loss(100), Overlay: loss(9)}},
		{"without an overlay device", "lost on the underlay", "show eth0", probe.Losses{Underlay: loss(9)}},
		{"not measured", "over IPv4 are lost: node2 (192.0.2.2): 4 of the latest 32 probes (12 %), round trips of 200ms", "ping", probe.Losses{}},
	} {
		f := healthy()
		f.Status.Probes = []status.Probes{{Family: "IPv4", Reachable: 2, Peers: []status.ProbedPeer{
			{Key: "10.5.2.0-24", State: status.Reachable, Recent: 32, Lost: 4, Lossy: true, RTT: 200 * time.Millisecond},
			{Key: "10.5.3.0-24", State: status.Reachable, Recent: 32, Lost: 1},
		}}}
		f.Status.Problems = []status.Problem{{Topic: "loss", Code: status.PacketLoss, Warning: true, Text: "the daemon's words", Since: now}}
		f.Losses = map[probedPath]probe.Losses{{"IPv4", "10.5.2.0-24"}: x.losses}
		var found []Finding
		for _, finding := range judge(f, Options{}.selects) {
			if finding.Level != Pass {
				found = append(found, finding)
			}
		}
		if len(found) != 1 || found[0].Level != Warning || found[0].Check != peersCheck ||
			!strings.Contains(found[0].Evidence, x.text) || !strings.Contains(found[0].Advice, x.advice) {
			t.Errorf("%s: %+v, want one warning with %q, %q", x.name, found, x.text, x.advice)
		}
	}
}

// TestLossyPeersFirst: peers that do not answer, and then those that lose packets, are probed before others.
func TestLossyPeersFirst(t *testing.T) {
	f := healthy()
	f.Status.Probes = []status.Probes{{Family: "IPv4", Peers: []status.ProbedPeer{{Key: "10.5.8.0-24", Lossy: true}, {Key: "10.5.9.0-24"}}}}
	f.Peers = nil
	for i := range 20 {
		f.Peers = append(f.Peers, peer("node"+string(rune('a'+i)), i+2))
	}
	f.Peers[4].Reach = []status.Reach{{State: status.Unreachable}}
	targets, err := f.targets(Options{Sample: 2})
	keys := map[string]bool{}
	for _, x := range targets {
		keys[x.Key] = true
	}
	if err != nil || len(keys) != 2 || !keys["10.5.6.0-24"] || !keys["10.5.8.0-24"] {
		t.Errorf("%v, %v, want the peers 6 and 8", keys, err)
	}
}
