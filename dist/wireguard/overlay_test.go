package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// testOverlay checks a mode: pods reach each other, and nothing of what they send can be read on the underlay.
func testOverlay(t *testing.T, families []subnet.Family, backend string, devices ...string) {
	t.Helper()
	c := newCluster(t, families, backend)
	stop := c.underlay(t)
	c.probe(t)
	packets := stop()
	tunnelled := 0
	for _, p := range packets {
		for _, pod := range c.pods {
			for _, f := range families {
				if strings.Contains(string(p), string(pod.Addr(f).AsSlice())) {
					t.Fatalf("a packet on the underlay has the address %s of a pod: % x", pod.Addr(f), p)
				}
			}
		}
		if len(p) > 200 {
			tunnelled++
		}
	}
	if tunnelled < 20 { // of the 64 KiB that each probe exchanges over TCP
		t.Errorf("%d large packets on the underlay, want those of the probes", tunnelled)
	}
	for _, n := range c.Nodes() {
		c.examine(t, n)
		s, err := n.Status(c.ctx)
		if err != nil || s.Backend == nil || s.Backend.Encrypted == nil || *s.Backend.Encrypted != 1 {
			t.Errorf("%s: status %+v, %v, want one peer encrypted", n.Name(), s.Backend, err)
		}
		for _, name := range devices {
			d, err := c.device(n, name)
			if err != nil || len(d.Peers) != 1 {
				t.Fatalf("%s: %+v, %v, want one peer", n.Name(), d, err)
			}
		}
		for _, d := range s.Backend.Devices {
			if u := d.UserSpace; usesKernel() != (u == nil) || u != nil && (!u.Ours || u.PID <= 0) {
				t.Errorf("%s: %s is served by %+v, want a process of selvage's, or the kernel if that has WireGuard", n.Name(),
					d.Name, u)
			}
		}
	}
}

// examine fails the test if doctor finds something wrong with a node.
func (c *cluster) examine(t *testing.T, n *lab.Node) {
	t.Helper()
	out, err := n.Output(c.ctx, "../../bin/selvaged", "doctor", "--check", "device,entries,kernel,forwarding,filter,routes,peers")
	if err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

func families(f ...subnet.Family) []subnet.Family { return f }

func TestIPv4(t *testing.T) {
	testOverlay(t, families(subnet.IPv4), `{"Type":"wireguard","PSK":"`+psk+`"}`, "flannel-wg")
}

func TestIPv6(t *testing.T) {
	testOverlay(t, families(subnet.IPv6), `{"Type":"wireguard"}`, "flannel-wg-v6")
}

func TestDualSeparate(t *testing.T) {
	testOverlay(t, families(subnet.IPv4, subnet.IPv6), `{"Type":"wireguard"}`, "flannel-wg", "flannel-wg-v6")
}

func TestDualOneDevice(t *testing.T) {
	for _, mode := range []string{"auto", "ipv4", "ipv6"} {
		t.Run(mode, func(t *testing.T) {
			testOverlay(t, families(subnet.IPv4, subnet.IPv6),
				`{"Type":"wireguard","Mode":"`+mode+`","PersistentKeepaliveInterval":25}`, "flannel-wg")
		})
	}
}

// TestNoWireGuard: on a kernel without WireGuard, without the option and without a program, one error says what is wrong
// and what to do; a program that is started later is used. A kernel with WireGuard needs no program.
func TestNoWireGuard(t *testing.T) {
	c := openForeign(t, lab.Options{})
	ctx, l := c.ctx, c.Lab
	const backend = `{"Type":"wireguard"}`
	c.configureNetwork(t, backend)
	if !kernelHasWireGuard(t, l.Nodes()[0]) {
		n := l.Nodes()[0]
		const text = "this kernel has no WireGuard"
		testctx.Eventually(t, func() string {
			s, err := n.Status(ctx)
			if err != nil {
				return err.Error()
			}
			if p := fmt.Sprint(s.Problems); !strings.Contains(p, text) || !strings.Contains(p, "modprobe wireguard") ||
				!strings.Contains(p, "--wireguard-userspace") {
				return fmt.Sprintf("%q is not among the problems: %s", text, p)
			}
			return ""
		})
		logged(t, n, text)
		for _, n := range l.Nodes() {
			c.serve(t, n, "flannel-wg")
		}
	}
	c.begin(t, backend)
	c.probe(t)
}

// kernelHasWireGuard tries to make a device on a node.
func kernelHasWireGuard(t *testing.T, n *lab.Node) (has bool) {
	t.Helper()
	err := n.Do(func() error {
		link := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "try"}}
		err := netlink.LinkAdd(link)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err == nil {
			has, err = true, netlink.LinkDel(link)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return has
}
