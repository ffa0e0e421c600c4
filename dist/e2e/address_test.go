package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// publicIPs are what the router maps to the node of that number, from 0.
func publicIPs(node int) [2]netip.Addr {
	return [2]netip.Addr{
		subnet.IPv4: netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", node+1)), // TEST-NET-3, RFC 5737
		subnet.IPv6: netip.MustParseAddr(fmt.Sprintf("2001:db8:113::%d", node+1)),
	}
}

// TestPublicIP: nodes behind a router that maps a public address to each. The nodes do not have them, but tell each other of
// them by --public-ip, and packets come from them. They are not on anybody's link, so DirectRouting leaves them alone.
func TestPublicIP(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Segments: 2, Families: families[:], Config: "-"})
	ctx := testctx.New(t)
	for i, n := range l.Nodes() {
		public := publicIPs(i)
		for _, f := range families {
			mapAddress(ctx, t, public[f], n.Addr(f))
		}
		n.SetDaemonArgs("--iface=eth0", "--public-ip="+public[subnet.IPv4].String(), "--public-ipv6="+public[subnet.IPv6].String())
		if err := n.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Etcd().PutConfig(ctx, lab.NetworkConfig(families[:], `{"Type":"vxlan","DirectRouting":true}`, lab.NodesChoose)); err != nil {
		t.Fatal(err)
	}
	waitTunnels(ctx, t, l)
	expectPublicIPs(ctx, t, l, publicIPs)
	probeAll(ctx, t, l, podOnEach(ctx, t, l))
}

// waitTunnels waits until all nodes are ready and reach each other by tunnels: a lab that was made without a config has not.
func waitTunnels(ctx context.Context, t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	waitPaths(ctx, t, l, func(_, _ *lab.Node) bool { return false })
}

// mapAddress has the router do NAT one to one, for what is of the tunnel.
func mapAddress(ctx context.Context, t *testing.T, public, node netip.Addr) {
	t.Helper()
	program := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[subnet.FamilyOf(node)]
	run := func(args string) error {
		out, err := exec.CommandContext(context.WithoutCancel(ctx), program, strings.Fields("--wait -t nat "+args)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %s: %w: %s", program, args, err, out)
		}
		return err
	}
	for _, rule := range []string{
		fmt.Sprintf("PREROUTING -d %s -j DNAT --to-destination %s", public, node),
		fmt.Sprintf("POSTROUTING -s %s -p udp --dport 8472 -j SNAT --to-source %s", node, public),
	} {
		if err := run("-A " + rule); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := run("-D " + rule); err != nil {
				t.Error(err)
			}
		})
	}
}

// expectPublicIPs checks what the leases say.
func expectPublicIPs(ctx context.Context, t *testing.T, l *lab.Lab, want func(node int) [2]netip.Addr) {
	t.Helper()
	leases, err := l.Etcd().Leases(ctx)
	if err != nil || len(leases) != len(l.Nodes()) {
		t.Fatalf("leases %v, %v, want %d", leases, err, len(l.Nodes()))
	}
	for i, lease := range leases {
		for _, f := range l.Families() {
			if got := lease.Endpoints[f].PublicIP; got != want(i)[f] {
				t.Errorf("%s has the public IP %s, want %s", lease.NodeName, got, want(i)[f])
			}
		}
	}
}

// TestUplinkChosen: nodes whose default route leads elsewhere, to where no other node is, find the uplink by an address that
// it leads to, or by an expression for its own address; the log says which it is, why, and what it is not.
func TestUplinkChosen(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 3, Families: families[:], Config: "-"})
	ctx := testctx.New(t)
	args := []string{"--iface-can-reach=172.31.0.1", `--iface-regex=^172\.31\.0\.`, ""}
	for i, n := range l.Nodes() {
		wan := [2]string{subnet.IPv4: fmt.Sprintf("192.0.2.%d/24", i+1), subnet.IPv6: fmt.Sprintf("2001:db8::%d/64", i+1)}
		if err := addWAN(n, wan); err != nil {
			t.Fatal(err)
		}
		n.SetDaemonArgs(strings.Fields(args[i])...)
		if err := n.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Etcd().PutConfig(ctx, lab.NetworkConfig(families[:], "", lab.NodesChoose)); err != nil {
		t.Fatal(err)
	}
	waitTunnels(ctx, t, l)
	for i, want := range [][]string{
		{"uplink: it leads to --iface-can-reach=172.31.0.1", "uplink=eth0", "wan0 is not selected by --iface-can-reach=172.31.0.1"},
		{`uplink: --iface-regex=^172\\.31\\.0\\.`, "uplink=eth0", "wan0 is not selected by"},
		{"uplink: it has the IPv4 default route", "uplink=wan0", "eth0 has lower precedence by the default route"},
	} {
		for _, text := range want {
			waitSays(ctx, t, l.Nodes()[i], text)
		}
	}
	expectPublicIPs(ctx, t, l, func(node int) [2]netip.Addr {
		if node == 2 {
			return [2]netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("2001:db8::3")}
		}
		return [2]netip.Addr{l.Nodes()[node].Addr(subnet.IPv4), l.Nodes()[node].Addr(subnet.IPv6)}
	})
	pods := podOnEach(ctx, t, l)
	probeAll(ctx, t, l, pods[:2])
}

// addWAN gives a node an interface with default routes that go before those of eth0, which stay.
func addWAN(n *lab.Node, addrs [2]string) error {
	return n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "wan0"
		wan := &netlink.Bridge{LinkAttrs: attrs}
		if err := errors.Join(netlink.LinkAdd(wan), netlink.LinkSetUp(wan)); err != nil {
			return err
		}
		for _, text := range addrs {
			addr, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if err := errors.Join(netlink.AddrAdd(wan, addr), demoteDefaults()); err != nil {
				return fmt.Errorf("%s: wan0: %s: %w", n.Name(), text, err)
			}
			gateway := addr.IPNet.IP.Mask(addr.Mask)
			gateway[len(gateway)-1] = 254
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: wan.Index, Gw: gateway, Priority: 5}); err != nil {
				return fmt.Errorf("%s: default route by %s: %w", n.Name(), gateway, err)
			}
		}
		return nil
	})
}

// demoteDefaults has all others go before the IPv4 default route there is: its metric is 0, which nothing beats. That of IPv6
// is 1024 where none is given.
func demoteDefaults() error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	for _, r := range routes {
		if ones, _ := r.Dst.Mask.Size(); ones == 0 && r.Priority == 0 {
			demoted := r
			demoted.Priority = 1024
			err = errors.Join(err, netlink.RouteAdd(&demoted), netlink.RouteDel(&r))
		}
	}
	return err
}
