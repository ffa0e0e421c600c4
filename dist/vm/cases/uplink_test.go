package cases

import (
	"fmt"
	"os"
	"strings"
	"testing"

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
