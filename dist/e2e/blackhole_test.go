package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// TestBlackholeRoute: with --ip-blackhole-route, packets for an address of the node's subnet that no pod has end at the node,
// and do not go to the default gateway; pods, which have the connected route of their bridge, are reached.
func TestBlackholeRoute(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Families: families[:], DaemonArgs: []string{"--ip-blackhole-route"}})
	ctx := testctx.New(t)
	node, peer := l.Nodes()[0], l.Nodes()[1]
	sender, err := l.AddPod(ctx, peer, "")
	if err != nil {
		t.Fatal(err)
	}
	var leaks []*leak
	for _, f := range families {
		leaks = append(leaks, newLeak(t, node, f))
	}
	round := 0
	expect := func(when string, leaking bool) {
		t.Helper()
		round++
		for _, leak := range leaks {
			leak.expect(ctx, t, fmt.Sprintf("%s, round %d", when, round), sender.Endpoint, leaking)
		}
	}

	expect("without any pod", false) // there is no bridge yet
	pod, err := l.AddPod(ctx, node, "")
	if err != nil {
		t.Fatal(err)
	}
	probeAll(ctx, t, l, []*lab.Endpoint{pod.Endpoint, sender.Endpoint})
	expect("with a pod", false)
	if err := node.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	waitForReady(ctx, t, node)
	probeAll(ctx, t, l, []*lab.Endpoint{pod.Endpoint, sender.Endpoint})
	if err := l.DelPod(ctx, pod); err != nil {
		t.Fatal(err)
	}
	if err := deleteLink(node, "cni0"); err != nil {
		t.Fatal(err)
	}
	expect("without the bridge", false)

	if pod, err = l.AddPod(ctx, node, ""); err != nil {
		t.Fatal(err)
	}
	probeAll(ctx, t, l, []*lab.Endpoint{pod.Endpoint, sender.Endpoint})
	if err := errors.Join(l.DelPod(ctx, pod), deleteLink(node, "cni0")); err != nil {
		t.Fatal(err)
	}
	// Somebody deletes the routes: the daemon puts them back. Without it, what is tested here shows.
	deleteBlackholes(t, node)
	waitFor(ctx, t, "the routes", func() error { return hasBlackholes(node, len(families)) })
	expect("after the routes were deleted", false)
	node.Kill()
	deleteBlackholes(t, node)
	expect("without the routes", true)
}

// leak is an address of a node's subnet that no pod has. The router behind the default gateway has it, to tell what comes
// there.
type leak struct {
	to   netip.AddrPort
	node netip.Addr // which has the subnet, on the overlay
	got  *sink
}

// newLeak gives the router the last address but one of the node's subnet, and listens there.
func newLeak(t *testing.T, n *lab.Node, f subnet.Family) *leak {
	t.Helper()
	file, err := n.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	bytes := file.Subnets[f].Addr().AsSlice()
	bytes[len(bytes)-1] = 254
	addr, _ := netip.AddrFromSlice(bytes)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrAdd(lo, address); err != nil {
		t.Fatalf("add %s to the router: %v", addr, err)
	}
	t.Cleanup(func() {
		if err := netlink.AddrDel(lo, address); err != nil {
			t.Error(err)
		}
	})
	return &leak{node: file.Subnets[f].Masked().Addr(), to: netip.AddrPortFrom(addr, sinkPort), got: listenAt(t, here, addr)}
}

// expect sends to the address from a pod elsewhere.
func (l *leak) expect(ctx context.Context, t *testing.T, when string, sender *lab.Endpoint, leaking bool) {
	t.Helper()
	if err := sendTo(sender, l.to, when); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if leaking {
		waitFor(ctx, t, when, func() error {
			if l.got.count(when) == 0 {
				return errors.New("nothing has come to the default gateway: the test cannot tell what does")
			}
			return nil
		})
		return
	}
	// The node has dealt with the datagram when it has answered what was sent after it.
	if err := refused(ctx, sender, netip.AddrPortFrom(l.node, l.to.Port())); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if l.got.count(when) > 0 {
		t.Errorf("%s: what was for %s, which no pod has, went to the default gateway", when, l.to)
	}
}

// refused makes a round trip to a port that nobody listens at.
func refused(ctx context.Context, from *lab.Endpoint, to netip.AddrPort) error {
	return from.Do(func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil
		}
		if err == nil {
			err = errors.Join(fmt.Errorf("somebody listens at %s", to), conn.Close())
		}
		return err
	})
}

// sendTo sends one datagram.
func sendTo(from *lab.Endpoint, to netip.AddrPort, payload string) error {
	return from.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte(payload))
		return errors.Join(err, conn.Close())
	})
}

func deleteLink(n *lab.Node, name string) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
}

// blackholes are a node's blackhole routes that are ours.
func blackholes(n *lab.Node) (routes []netlink.Route, err error) {
	err = n.Do(func() error {
		routes, err = netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Type: unix.RTN_BLACKHOLE, Protocol: network.RouteProtocol},
			netlink.RT_FILTER_TYPE|netlink.RT_FILTER_PROTOCOL)
		return err
	})
	return routes, err
}

func hasBlackholes(n *lab.Node, want int) error {
	routes, err := blackholes(n)
	if err == nil && len(routes) != want {
		err = fmt.Errorf("%s has the blackhole routes %v, want %d", n.Name(), routes, want)
	}
	return err
}

func deleteBlackholes(t *testing.T, n *lab.Node) {
	t.Helper()
	routes, err := blackholes(n)
	if err != nil || len(routes) == 0 {
		t.Fatalf("%s: blackhole routes %v, %v", n.Name(), routes, err)
	}
	err = n.Do(func() (err error) {
		for _, r := range routes {
			err = errors.Join(err, netlink.RouteDel(&r))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
