package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// TestDoctorLoss: where packets are lost, but not all, the node warns and stays ready, and doctor says whether they are lost
// on the underlay.
func TestDoctorLoss(t *testing.T) {
	l := start(t, lab.Options{
		Nodes: 2, Families: []subnet.Family{subnet.IPv4}, DaemonArgs: []string{"--peer-probe-interval=1s"},
	})
	p := admit(t, l, l.Nodes()[0])
	other := l.Nodes()[1]
	const look = "look for errors and drops on both nodes: ip -s -s link show "
	for _, x := range []struct{ in, where, advice string }{
		{"", "on the underlay", look + "eth0; and between them: cables, switches, limits of the rate"},
		{"-i flannel.1 ", "in the overlay, and not on the underlay", look + "flannel.1; rules of the packet filter that limit " +
			"a rate; a full table of connections, which the kernel logs (dmesg)"},
	} {
		// Before the hop limit is looked at: a probe with a limit of one is answered otherwise.
		heal := inserted(t, other.Do, subnet.IPv4, "PREROUTING -t raw",
			x.in+"-p icmp --icmp-type echo-request -m statistic --mode random --probability 0.2 -j DROP")
		testctx.Eventually(t, func() string {
			s, err := p.Status(t.Context())
			loss := func(p status.Problem) bool { return p.Code == status.PacketLoss && p.Warning }
			if err != nil || s.State != status.Ready || !slices.ContainsFunc(s.Problems, loss) {
				return fmt.Sprintf("a warning of lost packets: %s, %+v, %v", s.State, s.Problems, err)
			}
			return ""
		})
		p.finds(one("peers", warns, "packets of 1 of 1 probed nodes over IPv4 are lost "+x.where+": node2 (172.31.0.12): ", x.advice)...)
		heal()
	}
}
