package cases

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// moves waits until the status of nodes says of their backend what ok wants.
func (c *cluster) moves(what string, nodes []*lab.Node, ok func(status.Backend) bool) {
	c.t.Helper()
	for _, n := range nodes {
		c.slowly(func() string {
			s, err := n.Status(c.ctx)
			if err != nil || s.Backend == nil || !ok(*s.Backend) {
				return fmt.Sprintf("%s: %s: %+v, problems %+v, %v", what, n.Name(), s.Backend, s.Problems, err)
			}
			return ""
		})
	}
}

// TestFlannelMove: a network whose nodes are half flannel's moves from VXLAN to WireGuard and back. flannel has one backend,
// that of its start. Until it is restarted, nothing is lost, and the nodes of selvage's encrypt what they send to each
// other, which loses nothing ever. What restarts of flannel lose is measured.
func TestFlannelMove(t *testing.T) {
	const vxlan = `{"Type":"vxlan"}`
	f := families(subnet.IPv4)
	c, flannel := besideFlannel(t, 4, f, vxlan, 2, 3)
	ours := c.Nodes()[:2]
	const every = outageEvery
	among := c.streamEvery(c.pods[0], c.pods[1], every)
	for _, x := range []struct {
		name    string
		backend string
		left    string                    // the device of the backend that is left
		move    func(status.Backend) bool // before flannel is restarted
		after   func(status.Backend) bool
	}{
		{"wireguard", `{"Type":"wireguard","PSK":"` + psk + `"}`, "flannel.1",
			func(b status.Backend) bool {
				return b.Encrypted != nil && *b.Encrypted == 1 && b.Move != nil && len(b.Move.Waiting) == 2
			},
			func(b status.Backend) bool { return b.Encrypted != nil && *b.Encrypted == 3 && b.Move == nil }},
		{"vxlan", vxlan, "flannel-wg",
			func(b status.Backend) bool { return b.Type == "vxlan" && b.Move != nil },
			func(b status.Backend) bool { return b.Encrypted == nil && b.Move == nil }},
	} {
		stops := []func() lab.StreamReport{
			c.streamEvery(c.pods[0], c.pods[2], every), c.streamEvery(c.pods[3], c.pods[1], every),
		}
		c.configure(f, x.backend)
		c.moves("the network config has "+x.name, ours, x.move)
		for _, stop := range stops {
			if r := stop(); r.Lost > 0 {
				t.Errorf("%s, before flannel is restarted: %s, want none lost", x.name, r)
			}
		}
		stops = []func() lab.StreamReport{
			c.streamEvery(c.pods[0], c.pods[2], every), c.streamEvery(c.pods[3], c.pods[1], every),
		}
		for i := 2; i < 4; i++ {
			c.must(flannel[i].Stop())
			// flannel.1 and its routes stay, which are longer than the new route to the network; flannel-wg is removed.
			c.on(c.Nodes()[i], func() error {
				link, err := netlink.LinkByName(x.left)
				if err != nil {
					return nil
				}
				return netlink.LinkDel(link)
			})
			flannel[i] = c.startFlannel(c.Nodes()[i])
		}
		c.moves("flannel was restarted", ours, x.after)
		c.converged()
		for i, stop := range stops {
			t.Logf("measured: to %s, flannel restarted, %s: %s", x.name,
				[]string{"from a node of selvage's to one of flannel's", "from a node of flannel's to one of selvage's"}[i], stop())
		}
	}
	if r := among(); r.Lost > 0 {
		t.Errorf("between the nodes of selvage's: %s, want none lost", r)
	}
}
