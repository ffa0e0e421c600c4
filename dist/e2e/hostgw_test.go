package e2e

import (
	"context"
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// hostGateway is a network config of both families without a tunnel.
func hostGateway() string {
	families := subnet.Families()
	return lab.NetworkConfig(families[:], `{"Type":"host-gw"}`, lab.NodesChoose)
}

// TestHostGatewayUplinkFlaps sets an uplink down and up. The kernel drops what leads out of it, and of IPv6 the addresses as
// well; whoever manages the host puts back the addresses and the default routes. The rest is the daemon's.
func TestHostGatewayUplinkFlaps(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 3, Families: families[:], Config: hostGateway()})
	ctx := testctx.New(t)
	node := l.Nodes()[0]
	pods := podOnEach(ctx, t, l)
	probeAll(ctx, t, l, pods)
	for _, down := range []string{"down and up at once", "down for a while"} {
		kept := uplinkOf(t, node)
		if err := onUplink(node, netlink.LinkSetDown); err != nil {
			t.Fatal(err)
		}
		if err := directTo(node, l.Nodes()[1]); err == nil {
			t.Fatalf("%s: the routes are still there, so the test tests nothing", down)
		}
		if down == "down for a while" {
			waitFor(ctx, t, down, func() error { return says(node, "eth0 is down") })
		}
		if err := onUplink(node, netlink.LinkSetUp); err != nil {
			t.Fatal(err)
		}
		kept.putBack(t, node)
		for _, peer := range l.PeersOf(node) {
			waitFor(ctx, t, down, func() error { return errors.Join(directTo(node, peer), directTo(peer, node)) })
		}
		probeAll(ctx, t, l, pods)
	}
}

// directTo checks that a node reaches another's subnets by the other's underlay addresses.
func directTo(n, to *lab.Node) error {
	return routesBy(n, to, to.Addr(subnet.IPv4).String(), to.Addr(subnet.IPv6).String())
}

// uplink is what an operator has configured on a node's uplink.
type uplink struct {
	addrs    []netlink.Addr
	defaults []netlink.Route
}

func uplinkOf(t *testing.T, n *lab.Node) (u uplink) {
	t.Helper()
	err := onUplink(n, func(eth0 netlink.Link) (err error) {
		if u.addrs, err = netlink.AddrList(eth0, netlink.FAMILY_V6); err != nil {
			return err
		}
		routes, err := netlink.RouteList(eth0, netlink.FAMILY_ALL)
		for _, r := range routes {
			if ones, _ := r.Dst.Mask.Size(); ones == 0 && r.Gw != nil {
				u.defaults = append(u.defaults, r)
			}
		}
		return err
	})
	if err != nil || len(u.defaults) != 2 {
		t.Fatalf("%s: default routes %v, %v, want two", n.Name(), u.defaults, err)
	}
	return u
}

// putBack adds what is missing.
func (u uplink) putBack(t *testing.T, n *lab.Node) {
	t.Helper()
	err := onUplink(n, func(eth0 netlink.Link) (err error) {
		for _, a := range u.addrs {
			err = errors.Join(err, netlink.AddrReplace(eth0, &a))
		}
		for _, r := range u.defaults {
			err = errors.Join(err, netlink.RouteReplace(&r))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHostGatewayBehindRouter: nodes on another segment cannot be reached without a tunnel. They are named in the log, and
// the others are reached.
func TestHostGatewayBehindRouter(t *testing.T) {
	families := subnet.Families()
	// Without a config first: a lab with one waits until every node reaches every other.
	l := start(t, lab.Options{Nodes: 3, Segments: 2, Families: families[:], Config: "-"})
	ctx := testctx.New(t)
	if err := l.Etcd().PutConfig(ctx, hostGateway()); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes() {
		waitForReady(ctx, t, n)
	}
	a, b, c := l.Nodes()[0], l.Nodes()[1], l.Nodes()[2]
	waitFor(ctx, t, "the routes on one segment", func() error { return errors.Join(directTo(a, c), directTo(c, a)) })
	pods := podOnEach(ctx, t, l)
	probeAll(ctx, t, l, []*lab.Endpoint{pods[0], pods[2]})
	for _, pair := range [][2]*lab.Node{{a, b}, {b, a}, {b, c}, {c, b}} {
		n, peer := pair[0], pair[1]
		waitFor(ctx, t, "the log", func() error { return says(n, "not on-link on eth0") })
		waitFor(ctx, t, "the log", func() error { return says(n, peer.Addr(subnet.IPv4).String()) })
		if err := directTo(n, peer); err == nil {
			t.Errorf("%s has routes to %s", n.Name(), peer.Name())
		}
	}
	if wrong, err := l.WrongPaths(func(from, to *lab.Node) bool { return true }); err != nil || len(wrong) != 4*len(families) {
		t.Errorf("paths %q, %v, want %d that are missing", wrong, err, 4*len(families))
	}
	short, cancel := context.WithTimeout(ctx, longEnough(ctx, t, l, pods[0], pods[2]))
	defer cancel()
	if r := l.Probe(short, pods[0], pods[1]); r.Err == nil {
		t.Errorf("a pod behind the router is reached: %+v", r)
	}
}
