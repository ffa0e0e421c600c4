package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// rotate runs selvaged rotate-key on a node, and returns the new public key.
func (c *cluster) rotate(t *testing.T, n *lab.Node, args ...string) (key string) {
	t.Helper()
	out, err := n.Output(c.ctx, append([]string{"../../bin/selvaged", "rotate-key"}, args...)...)
	if err != nil {
		t.Fatalf("rotate-key: %v\n%s", err, out)
	}
	_, key, ok := strings.Cut(string(out), "the new public key is ")
	if key, _, _ = strings.Cut(key, "\n"); !ok {
		t.Fatalf("rotate-key has printed %s", out)
	}
	return key
}

// publicKey is that of a device.
func (c *cluster) publicKey(t *testing.T, n *lab.Node, device string) string {
	t.Helper()
	d, err := c.device(n, device)
	if err != nil {
		t.Fatal(err)
	}
	return d.PublicKey.String()
}

// rotated waits until no node changes its key, and no second device is left; then all nodes know a node by a key.
func (c *cluster) rotated(t *testing.T, n *lab.Node, key string, devices ...string) {
	t.Helper()
	for _, x := range c.Nodes() {
		c.state(t, x, func(b status.Backend) bool { return b.Rotation == nil })
		for _, name := range devices {
			testctx.Eventually(t, func() (left string) {
				c.do(t, x, func() error {
					_, err := netlink.LinkByName(name + "-2")
					if err == nil {
						left = x.Name() + " has " + name + "-2"
					}
					return nil
				})
				return left
			})
			d, err := c.device(x, name)
			if err != nil || len(d.Peers) != len(c.Nodes())-1 {
				t.Fatalf("%s: %+v, %v, want a peer for each node", x.Name(), d, err)
			}
			if x == n {
				if got := d.PublicKey.String(); got != key {
					t.Errorf("%s: %s has the key %s, want %s", x.Name(), name, got, key)
				}
				continue
			}
			known := false
			for _, p := range d.Peers {
				known = known || p.PublicKey.String() == key
			}
			if !known {
				t.Errorf("%s: %s has no peer %s: %+v", x.Name(), name, key, d.Peers)
			}
		}
	}
	c.do(t, n, func() error {
		if _, err := os.Stat("/var/lib/selvage/key-rotation.secret"); err == nil {
			t.Error("the file with both keys is left")
		}
		return nil
	})
}

// TestRotate: a node changes its key while packets are sent, and none is lost, nor can one be read on the underlay. A
// restarted daemon has the new key.
func TestRotate(t *testing.T) {
	for _, x := range []struct {
		name     string
		families []subnet.Family
		backend  string
		devices  []string
		o        lab.Options
	}{
		{"IPv4", families(subnet.IPv4), wireguardBackend, []string{"flannel-wg"}, lab.Options{}},
		{"dual stack in Kubernetes", families(subnet.IPv4, subnet.IPv6), `{"Type":"wireguard"}`,
			[]string{"flannel-wg", "flannel-wg-v6"}, lab.Options{Store: subnet.StoreKubernetes}},
		{"dual stack, one device", families(subnet.IPv4, subnet.IPv6), `{"Type":"wireguard","Mode":"ipv4"}`,
			[]string{"flannel-wg"}, lab.Options{}},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.o.Families = x.families
			c := open(t, x.o)
			c.begin(t, x.backend)
			c.probe(t)
			n := c.Nodes()[0]
			before := c.publicKey(t, n, x.devices[0])
			plain := c.capture(t)
			c.mark(t)
			stop := c.stream(t)
			key := c.rotate(t, n)
			if key == before {
				t.Fatal("the key is the same")
			}
			c.rotated(t, n, key, x.devices...)
			stop()
			c.probe(t)
			for _, n := range c.Nodes() {
				c.examine(t, n)
			}
			if p := plain.plain.Load(); p > 0 {
				t.Errorf("%d packets on the underlay can be read", p)
			}
			if err := errors.Join(n.Restart(c.ctx), n.WaitReady(c.ctx)); err != nil {
				t.Fatal(err)
			}
			c.rotated(t, n, key, x.devices...)
			c.probe(t)
		})
	}
}

// TestRotateBoth: two nodes change their keys at the same time, and another change is asked for meanwhile.
func TestRotateBoth(t *testing.T) {
	c := open(t, lab.Options{})
	c.begin(t, wireguardBackend)
	c.probe(t)
	stop := c.stream(t)
	keys := map[*lab.Node]string{}
	for _, n := range c.Nodes() {
		keys[n] = c.rotate(t, n, "--wait=false")
		if again := c.rotate(t, n, "--wait=false"); again != keys[n] {
			t.Errorf("another key, %s, is made while it changes to %s", again, keys[n])
		}
	}
	for _, n := range c.Nodes() {
		testctx.Eventually(t, func() string {
			s, err := n.Status(c.ctx)
			if err != nil || s.Backend == nil || s.Backend.Rotation != nil {
				return fmt.Sprintf("%v, %+v", err, s.Backend)
			}
			return ""
		})
	}
	for _, n := range c.Nodes() {
		c.rotated(t, n, keys[n], "flannel-wg")
	}
	stop()
	c.probe(t)
}

// TestRotateKilled: the daemons of both nodes are killed and started in every stage of a change, and no packet is lost.
func TestRotateKilled(t *testing.T) {
	for _, killed := range []int{0, 1} {
		t.Run([]string{"the node", "a peer"}[killed], func(t *testing.T) {
			c := open(t, lab.Options{})
			c.begin(t, wireguardBackend)
			c.probe(t)
			stop := c.stream(t)
			n, victim := c.Nodes()[0], c.Nodes()[killed]
			key := c.rotate(t, n, "--wait=false")
			stages := []string{"requested", "offered", "left", "returning", "ending"}
			for i := range stages { // it may have gone on while the daemon was being started
				c.state(t, n, func(b status.Backend) bool {
					return b.Rotation == nil || slices.Index(stages, b.Rotation.Stage) >= i
				})
				victim.Kill()
				if err := errors.Join(victim.Start(), victim.WaitReady(c.ctx)); err != nil {
					t.Fatal(err)
				}
			}
			c.rotated(t, n, key, "flannel-wg")
			stop()
			c.probe(t)
		})
	}
}

// TestRotateWaits: a node whose daemon does not run keeps the change waiting, in which it is reached as before; so does a
// node whose second port is blocked. With --force they are left behind, and reached once they know the new key.
func TestRotateWaits(t *testing.T) {
	c := open(t, lab.Options{})
	c.begin(t, wireguardBackend)
	c.probe(t)
	n, other := c.Nodes()[0], c.Nodes()[1]
	stop := c.stream(t)
	other.Kill()
	key := c.rotate(t, n, "--wait=false")
	waits := func() {
		t.Helper()
		c.state(t, n, func(b status.Backend) bool {
			return b.Rotation != nil && b.Rotation.Stage == "offered" && len(b.Rotation.Waiting) == 1 &&
				strings.Contains(fmt.Sprint(b.Rotation.Waiting[0].Why), "not answered by flannel-wg-2")
		})
	}
	waits()
	c.probe(t)
	block := func(command string) {
		t.Helper()
		if out, err := other.Output(c.ctx, strings.Fields(command)...); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	block("iptables -I INPUT -p udp --dport 51822 -j DROP")
	block("iptables -I OUTPUT -p udp --dport 51822 -j DROP")
	if err := errors.Join(other.Start(), other.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	c.state(t, other, func(b status.Backend) bool { return b.Rotation != nil && b.Rotation.Peers == 1 })
	waits()
	c.probe(t)
	stop()
	c.rotate(t, n, "--force")
	c.rotated(t, n, key, "flannel-wg")
	c.recover(t)
}
