package cases

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// tagged gives a node an interface for VLAN 7 on its uplink, with addresses of its own.
func (c *cluster) tagged(n *lab.Node, number int) {
	c.t.Helper()
	c.run(n.Endpoint, "ip link add link eth0 name eth0.7 type vlan id 7")
	c.run(n.Endpoint, fmt.Sprintf("ip address add 10.77.0.%d/24 dev eth0.7", number))
	c.run(n.Endpoint, fmt.Sprintf("ip address add fd77::%d/64 dev eth0.7 nodad", number))
	c.run(n.Endpoint, "ip link set eth0.7 up")
}

// restartOn has a node's daemon use another uplink from now on.
func (c *cluster) restartOn(n *lab.Node, args ...string) {
	c.t.Helper()
	c.must(n.Stop(c.ctx))
	n.SetDaemonArgs(args...)
	c.must(n.Start())
}

// TestVLANUplink: an interface for a VLAN is the uplink. Deleted and made again, it is used again.
func TestVLANUplink(t *testing.T) {
	for _, backend := range []string{"vxlan", "wireguard", "host-gw"} {
		t.Run(backend, func(t *testing.T) {
			f := families(subnet.IPv4, subnet.IPv6)
			c := newCluster(t, lab.Options{Nodes: 2, Families: f})
			for i, n := range c.Nodes() {
				c.tagged(n, 11+i)
				c.restartOn(n, "--iface=eth0.7")
			}
			c.begin(f, `{"Type":"`+backend+`"}`)
			c.probe()
			c.healthy(1, c.Nodes()...)
			n := c.Nodes()[0]
			c.run(n.Endpoint, "ip link delete eth0.7")
			testctx.Eventually(t, func() string {
				s, err := n.Status(c.ctx)
				if err != nil || len(s.Problems) == 0 {
					return fmt.Sprintf("a problem that names the uplink: %+v, %v", s.Problems, err)
				}
				return ""
			})
			c.tagged(n, 11)
			c.healthy(1, c.Nodes()...)
			c.probe()
		})
	}
}

// bond puts the uplink of a node, and a second interface on the same underlay, into the bond bond0, which takes over the
// addresses and the default routes.
func (c *cluster) bond(n *lab.Node) {
	c.t.Helper()
	underlay, err := netlink.LinkByName("underlay0")
	c.must(err)
	var ns *os.File
	c.on(n, func() (err error) { ns, err = os.Open("/proc/thread-self/ns/net"); return err })
	defer ns.Close()
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: n.Name() + "b", MasterIndex: underlay.Attrs().Index})
	veth.PeerName, veth.PeerNamespace = "eth1", netlink.NsFd(ns.Fd())
	c.must(errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth)))
	c.t.Cleanup(func() { _ = netlink.LinkDel(veth) }) // it may have gone with the node
	var addrs []netlink.Addr
	var routes []netlink.Route
	c.on(n, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			a, err := netlink.AddrList(eth0, family)
			if err != nil {
				return err
			}
			r, err := netlink.RouteList(eth0, family)
			if err != nil {
				return err
			}
			addrs, routes = append(addrs, a...), append(routes, r...)
		}
		return nil
	})
	c.run(n.Endpoint, "ip link add bond0 type bond mode active-backup miimon 50")
	c.run(n.Endpoint, "ip address flush dev eth0")
	for _, port := range []string{"eth0", "eth1"} {
		c.run(n.Endpoint, "ip link set "+port+" down")
		c.run(n.Endpoint, "ip link set "+port+" master bond0")
	}
	c.run(n.Endpoint, "ip link set bond0 up")
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			c.run(n.Endpoint, "ip address add "+a.IPNet.String()+" dev bond0 nodad")
		}
	}
	for _, r := range routes {
		if r.Gw != nil {
			c.run(n.Endpoint, fmt.Sprintf("ip route add default via %s", r.Gw))
		}
	}
}

// TestBondUplink: a bond of two interfaces is the uplink. When the active one loses its carrier, the other takes over, and
// selvaged has nothing to do.
func TestBondUplink(t *testing.T) {
	for _, backend := range []string{"vxlan", "wireguard"} {
		t.Run(backend, func(t *testing.T) {
			f := families(subnet.IPv4, subnet.IPv6)
			c := newCluster(t, lab.Options{Nodes: 2, Families: f})
			for _, n := range c.Nodes() {
				c.must(n.Stop(c.ctx))
				c.bond(n)
				c.restartOn(n, "--iface=bond0")
			}
			c.begin(f, `{"Type":"`+backend+`"}`)
			c.converged()
			stop := c.stream(c.pods[0], c.pods[1])
			n := c.Nodes()[0]
			for _, port := range []string{n.Name(), n.Name() + "b"} { // the ends of eth0 and of eth1
				link, err := netlink.LinkByName(port)
				c.must(err)
				c.must(netlink.LinkSetDown(link))
				active := "eth1"
				if port != n.Name() {
					active = "eth0"
				}
				testctx.Eventually(t, func() string {
					text, err := n.ReadFile("/sys/class/net/bond0/bonding/active_slave")
					if err != nil || strings.TrimSpace(string(text)) != active {
						return fmt.Sprintf("the active interface is %q, %v, want %s", text, err, active)
					}
					return ""
				})
				c.converged() // the bridge between the nodes has to learn the way, whatever the overlay does
				c.must(netlink.LinkSetUp(link))
				time.Sleep(200 * time.Millisecond) // four times the interval at which the bond looks
			}
			r := stop()
			t.Logf("measured: %s, two changes of the active interface: %s", backend, r)
			c.healthy(1, c.Nodes()...)
			c.probe()
		})
	}
}

// TestVRFUplink: the underlay is in a VRF, and the way to etcd is not. The kernel looks the outer packets up outside of the
// VRF, so the status names a route that is wrong. With a route there, and sockets that accept packets from VRFs, pods reach
// each other.
func TestVRFUplink(t *testing.T) {
	for _, backend := range []string{"vxlan", "wireguard"} {
		t.Run(backend, func(t *testing.T) {
			f := families(subnet.IPv4)
			c := newCluster(t, lab.Options{Nodes: 2, Families: f})
			for i, n := range c.Nodes() {
				c.tagged(n, 11+i)
				c.run(n.Endpoint, "ip link add under type vrf table 77")
				c.run(n.Endpoint, "ip link set under up")
				c.run(n.Endpoint, "ip link set eth0.7 master under")
				c.restartOn(n, "--iface=eth0.7")
			}
			c.begin(f, `{"Type":"`+backend+`"}`)
			for _, n := range c.Nodes() {
				testctx.Eventually(t, func() string {
					const want = "leave by eth0 via 172.31.0.1, and not by the uplink eth0.7"
					if s, err := n.Status(c.ctx); err != nil || !strings.Contains(fmt.Sprint(s.Problems), want) {
						return fmt.Sprintf("%q: %+v, %v", want, s.Problems, err)
					}
					return ""
				})
			}
			for _, n := range c.Nodes() {
				c.run(n.Endpoint, "ip route add 10.77.0.0/24 dev eth0.7")
				c.on(n, func() error { return os.WriteFile("/proc/sys/net/ipv4/udp_l3mdev_accept", []byte("1"), 0o644) })
			}
			c.converged()
			c.healthy(1, c.Nodes()...)
		})
	}
}
