package cases

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/dist/migration"
	"github.com/selvage-net/selvage/subnet"
)

const psk = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="

// withFlannel makes a lab of which some nodes run a real flanneld with WireGuard, and the others selvaged. All pods reach
// each other.
func withFlannel(t *testing.T, nodes int, f []subnet.Family, mode string, flannel ...int) (*cluster, []*migration.Flanneld) {
	t.Helper()
	return besideFlannel(t, nodes, f, fmt.Sprintf(`{"Type":"wireguard","PSK":"%s","Mode":"%s"}`, psk, mode), flannel...)
}

// besideFlannel is the same with any backend.
func besideFlannel(t *testing.T, nodes int, f []subnet.Family, backend string, flannel ...int) (
	*cluster, []*migration.Flanneld) {
	t.Helper()
	c := newCluster(t, lab.Options{Nodes: nodes, Families: f})
	for _, i := range flannel {
		n := c.Nodes()[i]
		c.must(n.Stop(c.ctx))
		c.run(n.Endpoint, bin+"/selvaged cleanup")
	}
	c.configure(f, backend)
	daemons := make([]*migration.Flanneld, nodes)
	for _, i := range flannel {
		daemons[i] = c.startFlannel(c.Nodes()[i])
	}
	for _, n := range c.Nodes() {
		c.must(n.WaitReady(c.ctx))
		testctx.Eventually(t, func() string {
			if _, err := n.Subnet(); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	c.addPods()
	c.converged()
	return c, daemons
}

func (c *cluster) startFlannel(n *lab.Node) *migration.Flanneld {
	c.t.Helper()
	program, err := filepath.Abs(filepath.Join(bin, "flanneld"))
	c.must(err)
	f := migration.StartFlannel(c.ctx, program, n,
		"-etcd-endpoints="+strings.Join(c.Etcd().Endpoints(), ","), "-iface=eth0", "-ip-masq")
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("flanneld on %s:\n%s", n.Name(), f.Printed())
		}
	})
	return f
}

// converged waits until all pods reach each other.
func (c *cluster) converged() {
	c.t.Helper()
	for _, from := range c.pods {
		for _, to := range c.pods {
			if from == to {
				continue
			}
			c.reaches(from, to)
		}
	}
	c.probe()
}

// reaches waits until a pod reaches another in all families. A probe that gets no answer ends after two seconds, which are
// long here: time passes as instructions do.
func (c *cluster) reaches(from, to *lab.Pod) {
	c.t.Helper()
	testctx.Eventually(c.t, func() string {
		short, cancel := context.WithTimeout(c.ctx, 2*time.Second)
		defer cancel()
		for _, r := range c.ProbeShared(short, from.Endpoint, to.Endpoint) {
			if r.Err != nil {
				return fmt.Sprintf("%s to %s, %s: %v", r.From, r.To, r.Family, r.Err)
			}
		}
		return ""
	})
}

// device reads a WireGuard device of a node.
func (c *cluster) device(n *lab.Node, name string) (d *wgtypes.Device) {
	c.t.Helper()
	c.on(n, func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		d, err = client.Device(name)
		return err
	})
	return d
}

// TestFlannelMixed: with half of the nodes a real flanneld, pods reach each other, and a restart of selvaged loses nothing.
func TestFlannelMixed(t *testing.T) {
	c, _ := withFlannel(t, 4, families(subnet.IPv4, subnet.IPv6), "auto", 2, 3)
	ours := c.Nodes()[0]
	c.healthy(3, c.Nodes()[:2]...)
	stops := []func() lab.StreamReport{c.stream(c.pods[0], c.pods[2]), c.stream(c.pods[3], c.pods[0])}
	c.must(ours.Restart(c.ctx))
	c.must(ours.WaitReady(c.ctx))
	c.healthy(3, ours)
	for _, stop := range stops {
		if r := stop(); r.Lost > 0 {
			t.Errorf("a restart of selvaged among flannel's nodes: %s, want none lost", r)
		}
	}
	c.probe()
}

// TestFlannelRestart measures what a restart of flannel loses, which makes its device anew. A sender's session is that with
// the old device, until WireGuard tries a handshake because nothing is answered: after 15 seconds (Keepalive-Timeout and
// Rekey-Timeout), unless the new device begins one.
func TestFlannelRestart(t *testing.T) {
	for _, keepalive := range []int{0, 25} {
		t.Run(fmt.Sprint(keepalive), func(t *testing.T) {
			c, flannel := besideFlannel(t, 2, families(subnet.IPv4),
				fmt.Sprintf(`{"Type":"wireguard","PSK":"%s","PersistentKeepaliveInterval":%d}`, psk, keepalive), 1)
			theirs := c.Nodes()[1]
			stop := c.streamEvery(c.pods[0], c.pods[1], outageEvery)
			key := c.device(theirs, "flannel-wg").PublicKey
			c.must(flannel[1].Stop())
			c.startFlannel(theirs)
			c.reaches(c.pods[0], c.pods[1])
			t.Logf("measured: PersistentKeepaliveInterval %d, a restart of flannel, from a node of selvage's: %s", keepalive, stop())
			if now := c.device(theirs, "flannel-wg").PublicKey; now != key {
				t.Errorf("flannel's key was %s, and is %s after a restart", key, now)
			}
			c.healthy(1, c.Nodes()[0])
		})
	}
}

// TestFlannelTakeover takes a node over from flannel, and gives it back, among nodes of both: its key stays the same. Killed,
// flannel leaves its device, and nothing is lost.
func TestFlannelTakeover(t *testing.T) {
	f := families(subnet.IPv4, subnet.IPv6)
	for _, killed := range []bool{true, false} {
		t.Run(map[bool]string{true: "killed", false: "stopped"}[killed], func(t *testing.T) {
			c, flannel := withFlannel(t, 3, f, "separate", 0, 1)
			n := c.Nodes()[0]
			before, err := n.Subnet()
			c.must(err)
			key := c.device(n, "flannel-wg").PublicKey
			every := streamEvery
			if !killed {
				every = outageEvery
			}
			stops := []func() lab.StreamReport{
				c.streamEvery(c.pods[0], c.pods[1], every), c.streamEvery(c.pods[2], c.pods[0], every),
			}
			if killed {
				c.must(flannel[0].Kill())
			} else {
				c.must(flannel[0].Stop())
			}
			c.must(n.Start())
			c.must(n.WaitReady(c.ctx))
			c.healthy(2, n)
			c.converged()
			for i, stop := range stops {
				r := stop()
				t.Logf("measured: flannel %s, a takeover, %s: %s", map[bool]string{true: "killed", false: "stopped"}[killed],
					[]string{"to a node of flannel's", "from a node of selvage's"}[i], r)
				if killed && r.Lost > 0 {
					t.Errorf("%s, want none lost", r)
				}
			}
			if now := c.device(n, "flannel-wg"); now.PublicKey != key {
				t.Errorf("the node's key was %s, and is %s", key, now.PublicKey)
			}
			if after, err := n.Subnet(); err != nil || after.Subnets != before.Subnets {
				t.Errorf("the node's subnets were %s, and are %s, %v", before.Subnets, after.Subnets, err)
			}

			stop := c.streamEvery(c.pods[1], c.pods[0], outageEvery)
			c.must(n.Stop(c.ctx))
			c.run(n.Endpoint, bin+"/selvaged cleanup --rules")
			c.startFlannel(n)
			c.reaches(c.pods[1], c.pods[0]) // flannel makes its device anew
			c.converged()
			t.Logf("measured: the way back to flannel: %s", stop())
			c.healthy(2, c.Nodes()[2])
		})
	}
}

// TestFlannelNewKey: a node of flannel's comes back with another key, as after a boot, which empties /run. The node of
// selvage's has one peer for it, and reaches it.
func TestFlannelNewKey(t *testing.T) {
	c, flannel := withFlannel(t, 2, families(subnet.IPv4), "separate", 1)
	theirs := c.Nodes()[1]
	key := c.device(theirs, "flannel-wg").PublicKey
	c.must(flannel[1].Stop())
	c.on(theirs, func() error { return os.Remove("/run/flannel/wgkey") })
	c.startFlannel(theirs)
	testctx.Eventually(t, func() string {
		d := c.device(c.Nodes()[0], "flannel-wg")
		if len(d.Peers) != 1 || d.Peers[0].PublicKey == key {
			return fmt.Sprintf("peers %+v, want one with another key than %s", d.Peers, key)
		}
		return ""
	})
	c.converged()
	c.healthy(1, c.Nodes()[0])
}
