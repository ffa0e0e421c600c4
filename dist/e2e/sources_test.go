package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// sources says who sees which source address. "Here" is the node in question, which is also the one by which the outside
// reaches pods; "there" is another. What a node shows to a pod that is there, be it of its own or masqueraded, is the address
// of the interface that the packet leaves by: "exit", the overlay's device, or without a tunnel the uplink.
func sources() []struct{ from, to, seen string } {
	return []struct{ from, to, seen string }{
		{"pod", "pod here", "pod"},
		{"pod", "pod there", "pod"},
		{"pod", "node here", "pod"},
		{"pod", "node there", "uplink"},
		{"pod", "outside", "uplink"},
		{"node", "pod here", "bridge"},
		{"node", "pod there", "exit"},
		{"node", "node there", "uplink"},
		{"node", "outside", "uplink"},
		{"outside", "pod here", "outside"},
		{"outside", "pod there", "exit"},
		{"outside", "node here", "outside"},
	}
}

// TestSources: who sees which source address, with each packet filter, with a tunnel and without, over both families. TestFilterSwitched
// has the same table for each packet filter with a tunnel. With nftables there is an iptables too: for kube-proxy, not for us.
func TestSources(t *testing.T) {
	for _, tt := range []struct {
		filter  lab.Filter
		backend string
	}{
		{lab.Filter{Name: "iptables-nft", IPTables: "nft", NFTables: lab.NFTablesOff}, "vxlan"},
		{lab.Filter{Name: "iptables-legacy", IPTables: "legacy", NFTables: lab.NFTablesOff}, "host-gw"},
		{lab.Filter{Name: "nftables", IPTables: "nft", NFTables: lab.NFTablesOn}, "host-gw"},
	} {
		t.Run(tt.filter.Name+" "+tt.backend, func(t *testing.T) {
			families := subnet.Families()
			l := start(t, lab.Options{
				Nodes: 2, Families: families[:], IPTables: tt.filter.IPTables,
				Config: lab.NetworkConfig(families[:], fmt.Sprintf(`{"Type":%q}`, tt.backend), tt.filter.NFTables),
			})
			ctx := testctx.New(t)
			s := newScene(ctx, t, l)
			for _, f := range families {
				t.Run(f.String(), func(t *testing.T) {
					s.family, s.exits = f, [2]netip.Addr{tunnel(t, s.node, f), tunnel(t, s.other, f)}
					if tt.backend == "host-gw" {
						s.exits = [2]netip.Addr{s.node.Addr(f), s.other.Addr(f)}
					}
					s.expectSources(ctx, t)
					s.expectMarksLeft(ctx, t)
					s.expectMulticastKept(ctx, t)
					s.expectServices(ctx, t)
				})
			}
		})
	}
}

// scene is a lab in which all that the table of sources speaks of is there.
type scene struct {
	lab             *lab.Lab
	node, other     *lab.Node
	pod, here, away *lab.Endpoint // the last one is on the other node
	family          subnet.Family
	exits           [2]netip.Addr // of node and other, see sources
}

// newScene adds the pods, and has the router send what is for the overlay to the node.
func newScene(ctx context.Context, t *testing.T, l *lab.Lab) *scene {
	s := &scene{lab: l, node: l.Nodes()[0], other: l.Nodes()[1]}
	for _, p := range []struct {
		pod **lab.Endpoint
		on  *lab.Node
	}{{&s.pod, s.node}, {&s.here, s.node}, {&s.away, s.other}} {
		added, err := l.AddPod(ctx, p.on, "")
		if err != nil {
			t.Fatal(err)
		}
		*p.pod = added.Endpoint
	}
	file, err := s.node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range l.Families() {
		to := file.Networks[f][0]
		// It goes with the lab's bridge.
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: s.node.Addr(f).AsSlice()}); err != nil {
			t.Fatalf("route %s by %s: %v", to, s.node.Name(), err)
		}
	}
	return s
}

// bridge is the address of a node's bridge for pods, which is their gateway; tunnel that of its overlay device.
func bridge(t *testing.T, n *lab.Node, f subnet.Family) netip.Addr { return gateway(t, n, f).Addr() }
func tunnel(t *testing.T, n *lab.Node, f subnet.Family) netip.Addr {
	return gateway(t, n, f).Masked().Addr()
}

func gateway(t *testing.T, n *lab.Node, f subnet.Family) netip.Prefix {
	t.Helper()
	file, err := n.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	return file.Subnets[f]
}

// endpoint is who is meant by a name in the table.
func (s *scene) endpoint(name string) *lab.Endpoint {
	return map[string]*lab.Endpoint{
		"pod": s.pod, "pod here": s.here, "pod there": s.away,
		"node": s.node.Endpoint, "node here": s.node.Endpoint, "node there": s.other.Endpoint,
		"outside": s.lab.Outside(),
	}[name]
}

// address is which address is meant by a name in the table.
func (s *scene) address(t *testing.T, name string) netip.Addr {
	switch name {
	case "uplink":
		return s.node.Addr(s.family)
	case "bridge":
		return bridge(t, s.node, s.family)
	case "exit":
		return s.exits[0]
	case "exit there":
		return s.exits[1]
	default:
		return s.endpoint(name).Addr(s.family)
	}
}

func (s *scene) expectSources(ctx context.Context, t *testing.T) {
	for _, row := range sources() {
		s.expectSeen(ctx, t, row.from+" -> "+row.to, s.endpoint(row.from), lab.Sender{}, s.endpoint(row.to).Echo(s.family), row.seen)
	}
}

func (s *scene) expectSeen(ctx context.Context, t *testing.T, what string, from *lab.Endpoint, sender lab.Sender, to netip.AddrPort, want string) {
	t.Helper()
	seen, err := from.SourceSeen(ctx, sender, to)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	} else if seen != s.address(t, want) {
		t.Errorf("%s: %s sees %s, want %s (%s)", what, to, seen, s.address(t, want), want)
	}
}

// expectMarksLeft: what kube-proxy has marked is its own to masquerade, whatever other bits of the mark are set. The mark is
// one of the node's own packets with an address of the overlay, as those have that its host-network pods and agents bind.
func (s *scene) expectMarksLeft(ctx context.Context, t *testing.T) {
	for _, row := range []struct {
		mark int
		seen string
	}{
		{0, "uplink"}, {0x4000, "bridge"}, {0xc000, "bridge"}, {0x4001, "bridge"}, {0x8000, "uplink"}, {0xbfff, "uplink"},
	} {
		sender := lab.Sender{From: bridge(t, s.node, s.family), Mark: row.mark}
		s.expectSeen(ctx, t, fmt.Sprintf("marked %#x", row.mark), s.node.Endpoint, sender, s.lab.Outside().Echo(s.family), row.seen)
	}
}
