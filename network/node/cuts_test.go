package node

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/pods"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/attachment"
)

// cutNode is a dual-stack node with a peer and two pods on a bridge, and a third one that has ended, whose tables have
// all that is desired.
func cutNode(t *testing.T, delegate string) *node {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(dualStack))
	if err != nil {
		t.Fatal(err)
	}
	made, err := newBackend(c, desiredUnderlay(c))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{tables: network.NewTables(), backend: made, view: subnet.NewView(), subnets: ownSubnets(c)}
	n.PeerGrace = time.Minute
	n.view.SetRules(subnet.Rules{Config: c, InstanceID: "own"})
	n.device = ownState(made, c, network.Scope{}, "eth0", n.subnets, true, func(string) string { return "" })
	n.tables.Replace(nodeOwner(), network.State{}, n.device)
	l, err := subnet.ParseLease("10.5.29.0-24&fd00:5:0:1d::-64", []byte(`{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7","BackendType":"vxlan",`+
		`"BackendData":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"},"BackendV6Data":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:69"}}`))
	if err != nil {
		t.Fatal(err)
	}
	n.view.Apply(subnet.Event{Type: subnet.Synced, Revision: 1, ConfigSet: true, Put: []subnet.Record{{Name: "peer", Lease: l, Version: 1}}})
	if _, ok, why := n.view.Get("peer"); !ok || why != nil {
		t.Fatal(ok, why)
	}
	peer := peerState(made, &l)
	n.tables.Replace(network.Owner{Name: "peer"}, network.State{}, peer)
	o := &n.ownSide
	o.node = pods.Node{Networks: networks(c), Own: n.subnets, Families: [2]bool{true, true}, HasLink: func(name string) bool { return name != "veth4" },
		LinkLocal: func(string, netip.Addr) bool { return false }}
	for i := range 3 {
		p, err := pods.Parse(attachment.Record{
			Key: attachment.Key{Network: "cbr0", Container: fmt.Sprint("c", i+2), Interface: "eth0"}, Delegate: delegate, Config: []byte(`{"isGateway":true}`),
			Result: fmt.Appendf(nil, `{"interfaces":[{"name":"veth%d","mac":"0e:00:00:00:00:08"},{"name":"eth0","sandbox":"x","mac":"0e:00:00:00:00:07"}],"ips":[`+
				`{"address":"10.5.1.%[1]d/24","gateway":"10.5.1.1"},{"address":"fd00:5:0:1::%[1]d/64","gateway":"fd00:5:0:1::1"}]}`, i+2),
		})
		if err != nil {
			t.Fatal(err)
		}
		o.pods = append(o.pods, p)
	}
	o.state = pods.Desired(o.pods, o.node)
	o.begun = map[string]time.Time{}
	n.tables.Replace(podsOwner(), network.State{}, o.state)
	for _, s := range []network.State{n.device, peer, o.state} {
		observeState(n.tables, s)
	}
	if kind, key := n.tables.Lacks(o.state); kind != "" {
		t.Fatal(kind, key)
	}
	return n
}

func observeState(t *network.Tables, s network.State) {
	observeItems(t.VTEPs, s.VTEPs)
	observeItems(t.Links, s.Links)
	observeItems(t.Bridges, s.Bridges)
	observeItems(t.Ports, s.Ports)
	observeItems(t.Addresses, s.Addresses)
	observeItems(t.FDB, s.FDB)
	observeItems(t.Neighbours, s.Neighbours)
	observeItems(t.Nexthops, s.Nexthops)
	observeItems(t.Routes, s.Routes)
	observeItems(t.Sysctls, s.Sysctls)
}

func observeItems[K, V comparable](t *network.Table[K, V], items []network.Item[K, V]) {
	for _, x := range items {
		t.Observe(x.Key, x.Value)
	}
}

// change observes an object otherwise than it is desired.
func change[K, V comparable](t *network.Table[K, V], k K, f func(*V)) {
	v := t.Get(k).Have
	f(&v)
	t.Observe(k, v)
}

// TestEntryCuts: which objects that are out of sync cut the traffic of which families.
func TestEntryCuts(t *testing.T) {
	const both, none, v4, v6 = "IPv4 IPv6", "", "IPv4", "IPv6"
	prefix := netip.MustParsePrefix
	type tables = *network.Tables
	device := func(f func(*network.Link)) func(tables) {
		return func(t tables) { change(t.Links, "flannel.1", f) }
	}
	bridge := func(f func(*network.Bridge)) func(tables) {
		return func(t tables) { change(t.Bridges, "cni0", f) }
	}
	vxlan := func(f func(*network.VXLAN)) func(tables) {
		return device(func(l *network.Link) {
			v := l.Settings.(network.VXLAN)
			f(&v)
			l.Settings = v
		})
	}
	ports := func(f func(*network.Port), names ...string) func(tables) {
		return func(t tables) {
			for _, name := range names {
				change(t.Ports, name, f)
			}
		}
	}
	gone := func(link, address string) func(tables) {
		return func(t tables) { t.Addresses.ObserveGone(network.AddressKey{Link: link, Prefix: prefix(address)}) }
	}
	sysctl := func(path string) func(tables) {
		return func(t tables) { t.Sysctls.Observe("net/"+path, "9") }
	}
	for _, x := range []struct {
		name, delegate, want string
		change               func(tables)
	}{
		{"nothing", "bridge", none, func(tables) {}},
		{"device gone", "bridge", v4, func(t tables) { t.LinkGone("flannel.1") }},
		{"device down", "bridge", v4, device(func(l *network.Link) { l.Up = false })},
		{"another MAC address", "bridge", v4, device(func(l *network.Link) { l.MAC[5]++ })},
		{"a dummy in its place", "bridge", v4, device(func(l *network.Link) { l.Kind, l.Settings = "dummy", nil })},
		{"another VNI", "bridge", v4, vxlan(func(v *network.VXLAN) { v.VNI++ })},
		{"another port", "bridge", v4, vxlan(func(v *network.VXLAN) { v.Port++ })},
		{"another local address", "bridge", v4, vxlan(func(v *network.VXLAN) { v.Local = netip.MustParseAddr("192.0.2.99") })},
		{"learning", "bridge", none, vxlan(func(v *network.VXLAN) { v.Learning = true })},
		{"MTU", "bridge", none, device(func(l *network.Link) { l.MTU = 1280 })},
		{"a peer's route", "bridge", v6, func(t tables) {
			p := prefix("fd00:5:0:1d::/64")
			t.Routes.ObserveGone(network.RouteKey{Prefix: p, Metric: network.DefaultMetric(p)})
		}},
		{"a peer's neighbour", "bridge", v4, func(t tables) {
			t.Neighbours.ObserveGone(network.NeighbourKey{Link: "flannel.1", IP: netip.MustParseAddr("10.5.29.0")})
		}},
		{"forwarding", "bridge", v6, sysctl("ipv6/conf/all/forwarding")},
		{"forwarding of a device", "bridge", v4, sysctl("ipv4/conf/flannel.1/forwarding")},

		{"bridge gone", "bridge", both, func(t tables) { t.LinkGone("cni0") }},
		{"bridge down", "bridge", both, bridge(func(b *network.Bridge) { b.Up = false })},
		{"bridge enslaved", "bridge", both, bridge(func(b *network.Bridge) { b.Master = "vrf0" })},
		{"bridge MTU", "bridge", none, bridge(func(b *network.Bridge) { b.MTU = 1280 })},
		{"gateway", "bridge", v4, gone("cni0", "10.5.1.1/24")},
		{"gateway of IPv6", "bridge", v6, gone("cni0", "fd00:5:0:1::1/64")},
		{"connected route", "bridge", v4, func(t tables) { t.Routes.ObserveGone(network.RouteKey{Prefix: prefix("10.5.1.0/24")}) }},
		{"forwarding of the bridge", "bridge", v4, sysctl("ipv4/conf/cni0/forwarding")},
		{"IPv6 disabled", "bridge", v6, sysctl("ipv6/conf/cni0/disable_ipv6")},
		{"one port down", "bridge", none, ports(func(p *network.Port) { p.Up = false }, "veth2")},
		{"all ports down", "bridge", both, ports(func(p *network.Port) { p.Up = false }, "veth2", "veth3")},
		{"all ports moved", "bridge", both, ports(func(p *network.Port) { p.Master = "br9" }, "veth2", "veth3")},
		{"all ports locked", "bridge", both, ports(func(p *network.Port) { p.Locked = true }, "veth2", "veth3")},
		{"all ports blocked", "bridge", both, ports(func(p *network.Port) { p.Blocked = true }, "veth2", "veth3")},
		{"hairpin of all ports", "bridge", none, ports(func(p *network.Port) { p.Hairpin = true }, "veth2", "veth3")},
		{"a fault for each pod", "ptp", v4, func(t tables) {
			change(t.Ports, "veth2", func(p *network.Port) { p.Up = false })
			gone("veth3", "10.5.1.1/32")(t)
		}},
		{"the route of one pod", "ptp", none, func(t tables) { t.Routes.ObserveGone(network.RouteKey{Prefix: prefix("10.5.1.2/32")}) }},
		{"the routes of all pods", "ptp", v4, func(t tables) {
			for _, p := range []string{"10.5.1.2/32", "10.5.1.3/32"} {
				t.Routes.ObserveGone(network.RouteKey{Prefix: prefix(p)})
			}
		}},
	} {
		n := cutNode(t, x.delegate)
		x.change(n.tables)
		if got := strings.Join(n.entryCuts(), " "); got != x.want {
			t.Errorf("%s: cuts %q, want %q", x.name, got, x.want)
		}
	}
}

// TestPodCuts: pods that are cut by something else than the entries count, too; and a pod that has ended does not.
func TestPodCuts(t *testing.T) {
	n := cutNode(t, "bridge")
	first, second := n.ownSide.pods[0], n.ownSide.pods[1]
	a := second.Prefixes[0].Addr()
	n.ownSide.begun[string(status.NeighbourShadowed)+neighbourKey(second, a).String()] = time.Now()
	if got := n.podCuts(); got != (podCuts{}) {
		t.Errorf("one pod: %+v", got)
	}
	change(n.tables.Ports, first.Port, func(p *network.Port) { p.Up = false })
	if got, want := n.podCuts(), (podCuts{all: [2]bool{true, false}, entries: [2]bool{true, true}}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	n.ownSide.begun[string(status.PodDetached)+second.Key.String()] = time.Now()
	if got := n.podCuts(); got.all != [2]bool{true, true} {
		t.Errorf("the link of the second pod is gone: %+v", got)
	}
}

// TestLeaseCuts: without a lease that other nodes accept, traffic is cut once these no longer retain its entries.
func TestLeaseCuts(t *testing.T) {
	n, now := cutNode(t, "bridge"), time.Now()
	for _, x := range []struct {
		ready bool
		ago   time.Duration
		want  []string
	}{{true, time.Second, nil}, {true, 2 * time.Minute, []string{"IPv4", "IPv6"}}, {false, 2 * time.Minute, nil}} {
		n.publisher.ready = x.ready
		if got := n.leaseCuts(now.Add(-x.ago), now); !slices.Equal(got, x.want) {
			t.Errorf("ready %v, for %v: %v, want %v", x.ready, x.ago, got, x.want)
		}
	}
}

// TestOwnSideCuts: another fault for each of a node's pods cuts the traffic as one for all of them does.
func TestOwnSideCuts(t *testing.T) {
	n := startPodNode(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, `{"isDefaultGateway":true}`)
	a, b := n.add(t, "a"), n.add(t, "b")
	n.whole(t, 2)
	expect := func(what string, cut []string, codes ...status.Reason) {
		t.Helper()
		eventually(t, what, func() error {
			s := n.now(t)
			for _, code := range codes {
				named := func(p status.Problem) bool { return p.Code == code && slices.Equal(p.Cuts, cut) }
				if !slices.ContainsFunc(s.Problems, named) {
					return fmt.Errorf("problems %+v, want %s that cuts %v", s.Problems, code, cut)
				}
			}
			if !slices.Equal(s.Cut, cut) {
				return fmt.Errorf("cut %v, want %v: %+v", s.Cut, cut, s.Problems)
			}
			return nil
		})
	}
	route := &netlink.Route{Dst: ipNetOf(a.addr[0].String() + "/32"), Type: unix.RTN_BLACKHOLE}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	expect("a foreign route to one pod", nil, status.RouteShadowed)
	neighbour := &netlink.Neigh{LinkIndex: link(t, "cni0").Attrs().Index, IP: b.addr[0].AsSlice(), State: unix.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	if err := netlink.NeighSet(neighbour); err != nil {
		t.Fatal(err)
	}
	expect("a foreign neighbour for the other one", []string{"IPv4"}, status.RouteShadowed, status.NeighbourShadowed)
	if err := netlink.RouteDel(route); err != nil {
		t.Fatal(err)
	}
	expect("one pod is reachable again", nil, status.NeighbourShadowed)
}
