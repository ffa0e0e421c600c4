package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	plain := vxlan()
	other := Link{Kind: KindVXLAN, MTU: 1430, MAC: mac("02:00:00:00:00:09"), Alias: Alias, AddrGen: true, Settings: VXLAN{
		VNI: 7, Port: 4789, Local: netip.MustParseAddr("2001:db8::1"), Learning: true, GBP: true}}
	p := peerState(device, prefix("10.5.29.0/24"), mac("72:30:36:d0:8b:68"), netip.MustParseAddr("192.0.2.7"))
	p.Links = []Item[string, Link]{{device, plain}, {"flannel-v6.7", other}}
	p.Addresses = nodeState(device, plain).Addresses
	p.VTEPs = []Item[netip.Addr, VTEP]{{Key: netip.MustParseAddr("192.0.2.7")}, {Key: netip.MustParseAddr("2001:db8::7")}}
	p.FDB = append(p.FDB, Item[FDBKey, FDB]{FDBKey{device, MAC{2}}, FDB{Remote: netip.MustParseAddr("192.0.2.8")}})
	p.Neighbours = append(p.Neighbours, Item[NeighbourKey, Neighbour]{NeighbourKey{device, netip.MustParseAddr("fd00::")}, Neighbour{MAC: MAC{2}}})
	p.Routes = append(p.Routes,
		Item[RouteKey, Route]{RouteKey{Prefix: prefix("10.5.30.0/24"), Metric: 5}, Route{Link: "eth0", Gateway: netip.MustParseAddr("192.0.2.8"), Protocol: RouteProtocol}},
		Item[RouteKey, Route]{RouteKey{Prefix: prefix("10.5.31.0/24")}, Route{Link: "eth0", Protocol: RouteProtocol}})
	direct := Route{Link: "eth0", Gateway: netip.MustParseAddr("192.0.2.9"), Protocol: RouteProtocol}
	p.Routes = append(p.Routes,
		Item[RouteKey, Route]{RouteKey{Prefix: prefix("10.5.32.0/24")}, p.Via(direct)},
		Item[RouteKey, Route]{RouteKey{Prefix: prefix("10.5.33.0/24"), Metric: 5}, p.Via(peer(1).Routes[0].Value)})
	p.Routes = append(p.Routes,
		Item[RouteKey, Route]{RouteKey{Prefix: prefix("10.5.34.0/24")}, Route{Type: Blackhole, Protocol: RouteProtocol}},
		Item[RouteKey, Route]{RouteKey{Prefix: prefix("10.5.35.0/24")}, Route{Type: Throw, Protocol: RouteProtocol}})
	p.Bridges = []Item[string, Bridge]{
		{"cni0", Bridge{Kind: KindBridge, MTU: 1450, Up: true, Promisc: true}},
		{"cni1", Bridge{Kind: KindBridge, Master: "bond0", NoARP: true, STP: true, VLANFiltering: true}},
	}
	p.Ports = []Item[string, Port]{
		{"veth1", Port{Master: "cni0", MTU: 1450, Up: true, Hairpin: true, Learning: true, Flood: true}},
		{"veth2", Port{Master: "cni0", Isolated: true, Locked: true, Blocked: true}},
		{"veth3", Port{Up: true, NoARP: true}},
	}
	p.Sysctls = []Item[string, Sysctl]{{"net/ipv4/ip_forward", "1"}}
	p.FastPeers = []Item[netip.Prefix, FastPeer]{
		{prefix("10.5.29.0/24"), FastPeer{Address: netip.MustParseAddr("192.0.2.7"), MAC: mac("72:30:36:d0:8b:68")}},
		{prefix("10.5.32.0/24"), FastPeer{Address: netip.MustParseAddr("192.0.2.9"), Direct: true}}}
	p.Programs = []Item[ProgramKey, Program]{
		{ProgramKey{"veth1", "from_pod"}, InForce()}, {ProgramKey{"eth0", "from_underlay"}, Program{}}}
	want := []string{
		"nft add element inet selvage-vtep peers-ipv4 { 192.0.2.7 }",
		"nft add element inet selvage-vtep peers-ipv6 { 2001:db8::7 }",
		"ip link add flannel.1 address 02:00:00:00:00:01 mtu 1450 type vxlan id 1 local 192.0.2.1 dstport 8472 nolearning",
		"ip link set flannel.1 alias selvage addrgenmode none up",
		"ip link add flannel-v6.7 address 02:00:00:00:00:09 mtu 1430 type vxlan id 7 local 2001:db8::1 dstport 4789 learning gbp",
		"ip link set flannel-v6.7 alias selvage addrgenmode eui64 down",
		"ip link add cni0 mtu 1450 type bridge",
		"ip link set cni0 up nomaster promisc on",
		"ip link add cni1 type bridge stp_state 1 vlan_filtering 1",
		"ip link set cni1 down master bond0 arp off",
		"ip link set veth1 up master cni0 mtu 1450",
		"bridge link set dev veth1 hairpin on isolated off learning on flood on state forwarding",
		"ip link set veth2 down master cni0",
		"bridge link set dev veth2 hairpin off isolated on learning off flood off locked on state blocking",
		"ip link set veth3 up nomaster arp off",
		"ip address add 10.5.0.0/32 dev flannel.1",
		"bridge fdb replace 72:30:36:d0:8b:68 dev flannel.1 dst 192.0.2.7 self permanent",
		"bridge fdb replace 02:00:00:00:00:00 dev flannel.1 dst 192.0.2.8 self",
		"ip neighbour replace 10.5.29.0 lladdr 72:30:36:d0:8b:68 dev flannel.1 nud permanent",
		"ip neighbour replace fd00:: lladdr 02:00:00:00:00:00 dev flannel.1",
		"ip nexthop replace id 3221225993 via 192.0.2.9 dev eth0 proto 83",
		"ip nexthop replace id 171966465 via 10.64.0.1 dev flannel.1 onlink proto 83",
		"ip route replace 10.5.29.0/24 via 10.5.29.0 dev flannel.1 onlink proto 83",
		"ip route replace 10.5.30.0/24 metric 5 via 192.0.2.8 dev eth0 proto 83",
		"ip route replace 10.5.31.0/24 dev eth0 proto 83",
		"ip route replace 10.5.32.0/24 nhid 3221225993 proto 83",
		"ip route replace 10.5.33.0/24 metric 5 nhid 171966465 proto 83",
		"ip route replace blackhole 10.5.34.0/24 proto 83",
		"ip route replace throw 10.5.35.0/24 proto 83",
		"sysctl -w net.ipv4.ip_forward=1",
		"# fast path: subnet 10.5.29.0/24 dst 192.0.2.7 lladdr 72:30:36:d0:8b:68",
		"# fast path: subnet 10.5.32.0/24 dst 192.0.2.9 direct",
		"# fast path: program from_pod dev veth1",
		"# fast path: program from_underlay dev eth0 of an earlier run not pinned not last",
	}
	if got := p.Commands(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := (State{}).Commands(); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}
