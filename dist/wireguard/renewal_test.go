package main

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// initiator returns the source of the first message that begins a handshake over IPv4 (section 5.4.2 of WireGuard's
// paper) among Ethernet frames.
func initiator(frames [][]byte) (from netip.Addr, ok bool) {
	const ethernet, header, udp, initiationLength, initiationType = 14, 20, 8, 148, 1
	for _, f := range frames {
		if len(f) < ethernet+header+udp+initiationLength || binary.BigEndian.Uint16(f[12:]) != unix.ETH_P_IP {
			continue
		}
		p := f[ethernet:]
		if p[0] != 0x45 || p[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(p[24:]) != udp+initiationLength ||
			p[header+udp] != initiationType {
			continue
		}
		return netip.AddrFrom4([4]byte(p[12:])), true
	}
	return from, false
}

// TestSessionRenewed: a node that has repaired what a peer's session depends on begins a handshake, although it has nothing
// to send. The peer would do so after 15 seconds, and what it sends until then would be lost.
func TestSessionRenewed(t *testing.T) {
	c := open(t, lab.Options{Families: families(subnet.IPv4), DaemonArgs: []string{"--peer-probe-interval=0"}})
	c.begin(t, `{"Type":"wireguard"}`)
	n, peer := c.Nodes()[0], c.Nodes()[1]
	c.probe(t)
	key := newKey(t)
	own, err := c.device(peer, "flannel-wg")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []struct {
		name   string
		inject func()
	}{
		{"device deleted", func() {
			c.do(t, n, func() error {
				link, err := netlink.LinkByName("flannel-wg")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			})
		}},
		// wireguard-go begins a handshake by itself then.
		{"private key changed", func() { c.configure(t, n, "flannel-wg", wgtypes.Config{PrivateKey: &key}) }},
		{"peer removed", func() {
			c.configure(t, n, "flannel-wg", wgtypes.Config{
				Peers: []wgtypes.PeerConfig{{PublicKey: own.PublicKey, Remove: true}},
			})
		}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(c.ctx)
			done := make(chan error, 1)
			go func() {
				_, err := c.Stream(ctx, c.pods[1].Endpoint, c.pods[0].Endpoint, streamEvery)
				done <- err
			}()
			repaired := repairs(t, c, n)
			stop := c.underlay(t)
			fault.inject()
			testctx.Eventually(t, func() string {
				if repairs(t, c, n) == repaired {
					return "nothing is repaired"
				}
				return ""
			})
			testctx.Eventually(t, func() string {
				if r := c.Probe(c.ctx, c.pods[1].Endpoint, c.pods[0].Endpoint); r.Err != nil {
					return r.Err.Error()
				}
				return ""
			})
			if from, ok := initiator(stop()); !ok || from != n.Addr(subnet.IPv4) {
				t.Errorf("a handshake was begun: %t, by %s, want %s", ok, from, n.Addr(subnet.IPv4))
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	c.state(t, n, func(b status.Backend) bool { return b.Type == "wireguard" })
}

// repairs is how much a node has repaired.
func repairs(t *testing.T, c *cluster, n *lab.Node) int {
	t.Helper()
	s, err := n.Status(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s.Repairs.Total
}
