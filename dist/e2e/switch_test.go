package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestDirectRoutingSwitched switches DirectRouting on and off under a running overlay: on one segment the nodes change to
// routes without a tunnel and back, across segments nothing changes, and no probe between pods is lost.
//
// The nodes do not change at the same moment, so packets come by one way and their answers go by another. With a strict reverse
// path filter, which some distributions set and this test too, a node would drop those packets: it is loosened on all nodes before
// the first one sends directly.
func TestDirectRoutingSwitched(t *testing.T) {
	families := subnet.Families()
	config := func(direct bool) string {
		return lab.NetworkConfig(families[:], fmt.Sprintf(`{"Type":"vxlan","DirectRouting":%t}`, direct), lab.NodesChoose)
	}
	l := start(t, lab.Options{Nodes: 3, Segments: 2, Families: families[:], Config: config(false)})
	ctx := testctx.New(t)
	pods := podOnEach(ctx, t, l)
	for _, n := range l.Nodes() {
		for _, link := range []string{"all", "eth0", "flannel.1"} {
			if err := setSysctl(n, "net/ipv4/conf/"+link+"/rp_filter", "1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	probeAll(ctx, t, l, pods)
	end := streamAll(ctx, t, l, pods)
	for _, direct := range []bool{true, false, true, false} {
		if err := l.Etcd().PutConfig(ctx, config(direct)); err != nil {
			t.Fatal(err)
		}
		waitPaths(ctx, t, l, func(from, to *lab.Node) bool { return direct && l.OneSegment(from, to) })
		probeAll(ctx, t, l, pods)
	}
	end()
}

// waitPaths waits until nodes reach each other without a tunnel where direct says so, and only there.
func waitPaths(ctx context.Context, t *testing.T, l *lab.Lab, direct func(from, to *lab.Node) bool) {
	t.Helper()
	waitFor(ctx, t, "the paths", func() error {
		wrong, err := l.WrongPaths(direct)
		if err == nil && len(wrong) > 0 {
			err = errors.New(strings.Join(wrong, "; "))
		}
		return err
	})
}

// streamAll streams between all endpoints, see stream.
func streamAll(ctx context.Context, t *testing.T, l *lab.Lab, endpoints []*lab.Endpoint) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var ends []func()
	for _, from := range endpoints {
		for _, to := range endpoints {
			if from != to {
				ends = append(ends, stream(ctx, t, l, from, to))
			}
		}
	}
	return func() {
		cancel() // all at once: each waits for its last answers
		for _, end := range ends {
			end()
		}
	}
}

func setSysctl(n *lab.Node, path, value string) error {
	err := n.Do(func() error { return os.WriteFile("/proc/sys/"+path, []byte(value), 0o644) })
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	return nil
}

// TestUplinkPrefixChanged: the netmask of a node's uplink changes, so that a peer is not on its link any more but behind the
// router; that peer is reached by the tunnel then, and directly again when it is on the link. The peer itself sends directly
// all the while.
//
// No probe is lost: the kernel does not look at the gateways of routes again when an address goes, as long as another one
// of the family is there.
func TestUplinkPrefixChanged(t *testing.T) {
	families := subnet.Families()
	config := lab.NetworkConfig(families[:], `{"Type":"vxlan","DirectRouting":true}`, lab.NodesChoose)
	l := start(t, lab.Options{Nodes: 3, Families: families[:], Config: config})
	ctx := testctx.New(t)
	node, near, far := l.Nodes()[0], l.Nodes()[1], l.Nodes()[2]
	whole := [2]netip.Prefix{subnet.IPv4: netip.PrefixFrom(node.Addr(subnet.IPv4), 24), subnet.IPv6: netip.PrefixFrom(node.Addr(subnet.IPv6), 64)}
	half := [2]netip.Prefix{subnet.IPv4: netip.PrefixFrom(node.Addr(subnet.IPv4), 25), subnet.IPv6: netip.PrefixFrom(node.Addr(subnet.IPv6), 120)}
	// Else the second address of a subnet goes with the first.
	if err := setSysctl(far, "net/ipv4/conf/eth0/promote_secondaries", "1"); err != nil {
		t.Fatal(err)
	}
	for f, addr := range []string{subnet.IPv4: "172.31.0.200/24", subnet.IPv6: "fd00:31::1:200/64"} {
		// The far one gets an address that the half does not hold.
		old := netip.PrefixFrom(far.Addr(subnet.Family(f)), whole[f].Bits())
		if err := errors.Join(addOnUplink(far, netip.MustParsePrefix(addr)), delFromUplink(far, old)); err != nil {
			t.Fatal(err)
		}
	}
	allDirect := func(from, to *lab.Node) bool { return true }
	waitFor(ctx, t, "the far node's new address", func() error {
		return errors.Join(routesBy(node, far, "172.31.0.200", "fd00:31::1:200"), routesBy(near, far, "172.31.0.200", "fd00:31::1:200"))
	})
	waitPaths(ctx, t, l, allDirect)
	pods := podOnEach(ctx, t, l)
	probeAll(ctx, t, l, pods)
	end := streamAll(ctx, t, l, pods)
	for range 2 {
		readdress(t, node, whole, half)
		waitPaths(ctx, t, l, func(from, to *lab.Node) bool { return from != node || to != far })
		probeAll(ctx, t, l, pods)
		readdress(t, node, half, whole)
		waitPaths(ctx, t, l, allDirect)
		probeAll(ctx, t, l, pods)
	}
	end()
}

// readdress gives a node's uplink other lengths of the addresses that it has. An IPv4 address can have both for a moment;
// one of IPv6 cannot, so it goes and comes back.
func readdress(t *testing.T, n *lab.Node, from, to [2]netip.Prefix) {
	t.Helper()
	err := errors.Join(
		addOnUplink(n, to[subnet.IPv4]), delFromUplink(n, from[subnet.IPv4]),
		delFromUplink(n, from[subnet.IPv6]), addOnUplink(n, to[subnet.IPv6]))
	if err != nil {
		t.Fatal(err)
	}
}

func addOnUplink(n *lab.Node, p netip.Prefix) error {
	return onUplink(n, func(eth0 netlink.Link) error { return netlink.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(p)}) })
}

func delFromUplink(n *lab.Node, p netip.Prefix) error {
	return onUplink(n, func(eth0 netlink.Link) error { return netlink.AddrDel(eth0, &netlink.Addr{IPNet: ipNet(p)}) })
}

func onUplink(n *lab.Node, do func(eth0 netlink.Link) error) error {
	err := n.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return do(eth0)
	})
	if err != nil {
		return fmt.Errorf("%s: eth0: %w", n.Name(), err)
	}
	return nil
}

// routesBy checks that a node's routes to another's subnets go by those gateways.
func routesBy(n, to *lab.Node, gateways ...string) error {
	file, err := to.Subnet()
	if err != nil {
		return err
	}
	return n.Do(func() error {
		for f, gateway := range gateways {
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: ipNet(file.Subnets[f].Masked())}, netlink.RT_FILTER_DST)
			if err != nil {
				return err
			}
			if len(routes) != 1 || routes[0].Gw.String() != gateway {
				return fmt.Errorf("%s has %v to %s, want one via %s", n.Name(), routes, file.Subnets[f].Masked(), gateway)
			}
		}
		return nil
	})
}
