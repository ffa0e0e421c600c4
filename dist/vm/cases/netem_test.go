package cases

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// selvaged runs a command of the daemon's on a node and returns what it prints, also if it fails.
func (c *cluster) selvaged(n *lab.Node, args ...string) string {
	c.t.Helper()
	var out, problems strings.Builder
	argv := append([]string{bin + "/selvaged"}, args...)
	err := n.Exec(c.ctx, argv, lab.Stdio{Out: &out, Err: &problems})
	if out.Len() == 0 {
		c.t.Fatalf("%v: %v: %s", argv, err, problems.String())
	}
	return out.String()
}

// impair has what both nodes send on their uplinks go through netem.
func (c *cluster) impair(netem string) {
	c.t.Helper()
	for _, n := range c.Nodes() {
		c.run(n.Endpoint, "tc qdisc replace dev eth0 root netem "+netem)
	}
}

// streamFor sends a stream for so long, and returns its report.
func (c *cluster) streamFor(d time.Duration) lab.StreamReport {
	c.t.Helper()
	stop := c.stream(c.pods[0], c.pods[1])
	time.Sleep(d) // what is measured is a rate
	return stop()
}

// TestBadUplink: with loss and delay on the uplinks, the overlay loses what the underlay does and no more. Daemons stay
// ready and warn, and doctor takes no path for broken and says that the underlay loses packets. Reordering and a low rate
// lose nothing.
func TestBadUplink(t *testing.T) {
	for _, backend := range []string{"vxlan", "wireguard"} {
		t.Run(backend, func(t *testing.T) {
			f := families(subnet.IPv4)
			c := newCluster(t, lab.Options{Nodes: 2, Families: f, DaemonArgs: []string{"--peer-probe-interval=1s"}})
			c.begin(f, `{"Type":"`+backend+`"}`)
			c.probe()
			c.impair("delay 100ms loss 5%")
			r := c.streamFor(5 * time.Second)
			t.Logf("measured: %s, 5 %% loss and 100 ms delay each way: %s", backend, r)
			if part := float64(r.Lost) / float64(r.Sent); part < 0.05 || part > 0.2 { // 1 - 0.95²: 9.75 %
				t.Errorf("%s lost of %d sent: want what the underlay loses, some 10 %%", r, r.Sent)
			}
			n := c.lossy()
			out := c.selvaged(n, "doctor", "--check", "peers")
			t.Logf("measured: doctor: %s", strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
			for _, want := range []string{"1 of 1 probed paths to other nodes carry packets of all sizes",
				"warning  peers: packets of 1 of 1 probed nodes over IPv4 are lost on the underlay", "0 failures, 1 warning"} {
				if !strings.Contains(out, want) {
					t.Errorf("doctor says:\n%s\nwant %q", out, want)
				}
			}
			// The daemon, which renews its lease over the same uplink, stays ready.
			c.must(n.Restart(c.ctx))
			c.must(n.WaitReady(c.ctx))

			c.impair("delay 20ms reorder 25% 50%")
			if r := c.streamFor(2 * time.Second); r.Lost > 0 {
				t.Errorf("reordering: %s, want none lost", r)
			}
			c.probe()
			c.impair("rate 5mbit")
			for _, r := range c.ProbeShared(c.ctx, c.pods[0].Endpoint, c.pods[1].Endpoint) {
				if r.Err != nil {
					t.Errorf("at 5 Mbit/s: %v", r.Err)
				}
			}
			for _, n := range c.Nodes() {
				c.run(n.Endpoint, "tc qdisc delete dev eth0 root")
			}
			c.probe()
			for _, n := range c.Nodes() { // the loss is over once 32 probes in a row were answered
				c.slowly(func() string {
					s, err := n.Status(c.ctx)
					if err != nil || s.State != status.Ready || len(s.Problems) > 0 {
						return fmt.Sprintf("%s: %s, %+v, %v, want no problem", n.Name(), s.State, s.Problems, err)
					}
					return ""
				})
			}
		})
	}
}

// lossy waits until a node has the warning that packets are lost, and returns it. It is ready all the same.
func (c *cluster) lossy() (found *lab.Node) {
	c.t.Helper()
	c.slowly(func() string {
		for _, n := range c.Nodes() {
			s, err := n.Status(c.ctx)
			if err != nil {
				return err.Error()
			}
			for _, p := range s.Problems {
				if p.Code == status.PacketLoss && s.State == status.Ready {
					found = n
					return ""
				}
			}
		}
		return "no node has a warning of lost packets"
	})
	return found
}
