package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// tables runs iptables, or ip6tables, where do leads to. The words 4:… and 6:… are for one family only, without that mark.
func tables(t *testing.T, do func(func() error) error, f subnet.Family, rule string) {
	t.Helper()
	program := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[f]
	err := do(func() error {
		out, err := exec.Command(program, append([]string{"--wait"}, strings.Fields(rule)...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", program, rule, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inserted has a rule inserted into a chain, and returns what deletes it.
func inserted(t *testing.T, do func(func() error) error, f subnet.Family, chain, rule string) (undo func()) {
	t.Helper()
	tables(t, do, f, "-I "+chain+" "+rule)
	return func() { t.Helper(); tables(t, do, f, "-D "+chain+" "+rule) }
}

// wrongChecksums has a node send VXLAN packets whose UDP checksum is wrong: what the kernel begins with is changed, and it
// does the rest itself as the interface is told not to.
func wrongChecksums() error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	if err := e.Change("eth0", map[string]bool{"tx-checksum-ip-generic": false}); err != nil {
		return err
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "broken", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "out", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityLast,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{8472 >> 8, 8472 & 0xff}},
		&expr.Immediate{Register: 1, Data: []byte{0xde, 0xad}},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 6, Len: 2},
	}})
	return conn.Flush()
}

// noVXLAN is a policy rule by which the kernel sends no VXLAN packets.
func noVXLAN() *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Priority, r.Type = unix.AF_INET, 100, nl.FR_ACT_UNREACHABLE
	r.IPProto, r.Dport = unix.IPPROTO_UDP, netlink.NewRulePortRange(8472, 8472)
	return r
}

const vxlanPort = "-p udp --dport 8472 "

// TestDoctorPaths harms the ways to other nodes, each in another manner, and doctor tells them apart.
func TestDoctorPaths(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 11, Segments: 2, Families: families[:], Config: clinic(`{"Type":"vxlan"}`)})
	ctx := testctx.New(t)
	p := admit(t, l, l.Nodes()[0])
	p.healthy()
	node := func(i int) *lab.Node { return l.Nodes()[i-1] }
	for _, f := range families {
		at := func(i int) string { return node(i).Addr(f).String() }
		for _, rule := range []string{
			"-d " + at(2) + " " + vxlanPort + "-j DROP",
			"-s " + at(2) + " " + vxlanPort + "-j DROP",
			"-d " + at(4) + " " + vxlanPort + "-j DROP",
			"-s " + at(6) + " " + vxlanPort + "-j DROP",
			"-d " + at(8) + " " + vxlanPort + "-m length --length 1401: -j DROP",
			"-d " + at(10) + " " + vxlanPort + "-j REJECT --reject-with " + [...]string{"icmp-admin-prohibited", "icmp6-adm-prohibited"}[f],
		} {
			t.Cleanup(inserted(t, here, f, "FORWARD", rule))
		}
		// Echo only: without the rest of ICMPv6 there are no neighbours.
		echo := [...]string{"-p icmp --icmp-type echo-request", "-p icmpv6 --icmpv6-type echo-request"}[f]
		inserted(t, node(9).Do, f, "INPUT", "-i eth0 "+echo+" -j DROP")
		inserted(t, node(11).Do, f, "INPUT", "-i flannel+ "+echo+" -j DROP")
	}
	p.must(node(3).Do(func() error { return setLink("eth0", netlink.LinkSetDown) }))
	p.must(node(5).Do(wrongChecksums))
	p.must(node(7).Stop(ctx))
	p.must(node(7).DeleteRoutes(p.Node))
	for _, f := range families {
		p.must(p.Do(func() error { return forgetNeighbour(node(3).Addr(f)) })) // which else is taken for known for half a minute
	}
	p.lease("10.5.250.0-24", "198.51.100.2", "0e:00:00:00:00:50")
	p.lease("10.5.251.0-24", "198.51.100.9", "0e:00:00:00:00:51")

	named := func(i int) string {
		return fmt.Sprintf("node%d (%s, %s)", i, node(i).Addr(subnet.IPv4), node(i).Addr(subnet.IPv6))
	}
	peers := func(evidence, advice string) symptom { return symptom{"peers", failure, evidence, advice} }
	p.finds(
		peers("VXLAN packets (UDP port 8472) to "+named(2)+", "+named(4)+" are lost, or dropped there, though the underlay works",
			"allow UDP port 8472 from this node to there, in firewalls and security groups on the way and there; there, selvaged doctor"),
		peers("VXLAN packets of this node reach "+named(6)+", "+named(7)+", and none come back",
			"allow UDP port 8472 from there to this node, in firewalls and security groups on the way; there, selvaged peers shows whether it knows this node"),
		peers(fmt.Sprintf("large packets to node8 (%s) are lost: pods send up to 1430 bytes, and up to 1350 get through, 1400 on the underlay", node(8).Addr(subnet.IPv4)),
			`let the underlay carry 1480 bytes; or set "MTU": 1400 in Backend of the network config, /coreos.com/network/config in etcd, and restart the pods`),
		peers(fmt.Sprintf("large packets to node8 (%s) are lost: pods send up to 1430 bytes, and up to 1330 get through, 1400 on the underlay", node(8).Addr(subnet.IPv6)),
			`let the underlay carry 1500 bytes; or set "MTU": 1400 in Backend of the network config, /coreos.com/network/config in etcd, and restart the pods`),
		peers(fmt.Sprintf("172.31.0.1, on the way to node10 (%s), refuses VXLAN packets: administratively prohibited", node(10).Addr(subnet.IPv4)), "allow UDP port 8472 there"),
		peers(fmt.Sprintf("fd00:31::1, on the way to node10 (%s), refuses VXLAN packets: administratively prohibited", node(10).Addr(subnet.IPv6)), "allow UDP port 8472 there"),
		peers("UDP packets from "+named(5)+" arrive with wrong checksums, and the kernel drops them",
			"start selvaged there with --vxlan-tx-checksum=off; or ethtool -K its uplink tx off"),
		peers("no host on the link answers for the address of "+named(3)+": it is down, or disconnected",
			"check that it is up and connected; if it is gone for good, selvaged release --etcd-endpoints=http://172.31.0.1:2379 "+ownSubnet(t, node(3)).String()),
		peers("UDP port 8472 is closed at 10.5.250.0-24 (198.51.100.2), though the underlay works: there is no VXLAN device",
			"there: systemctl start selvaged; selvaged status"),
		peers("no answer from 10.5.251.0-24 (198.51.100.9), neither in the overlay nor on the underlay: it is down, or disconnected",
			"check that it is up and connected; if it is gone for good, selvaged release --etcd-endpoints=http://172.31.0.1:2379 10.5.251.0/24"),
		symptom{"peers", passes, "ICMP echo to " + named(9) + " is filtered on the underlay, which does no harm: the overlay works", ""},
		symptom{"peers", passes, "ICMP echo to " + named(11) + " is filtered in the overlay, which does no harm: packets pass in both directions", ""},
	)
}

// TestDoctorHereAndOnTheWay harms what all ways have in common: this node's end, and the router.
func TestDoctorHereAndOnTheWay(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Segments: 2, Families: families[:], Config: clinic(`{"Type":"vxlan"}`)})
	p, far := admit(t, l, l.Nodes()[0]), l.Nodes()[1]
	p.healthy()
	var undo []func()
	heal := func() {
		for _, u := range undo {
			u()
		}
		undo = nil
	}
	everywhere := func(do func(func() error) error, chain, rule string) func() {
		return func() {
			for _, f := range families {
				undo = append(undo, inserted(p.t, do, f, chain, rule))
			}
		}
	}
	named := fmt.Sprintf("node2 (%s, %s)", far.Addr(subnet.IPv4), far.Addr(subnet.IPv6))
	first, first6 := fmt.Sprintf("node2 (%s)", far.Addr(subnet.IPv4)), fmt.Sprintf("node2 (%s)", far.Addr(subnet.IPv6))
	p.treat([]ailment{
		{"this node lets no VXLAN in", everywhere(p.Do, "INPUT", vxlanPort+"-j DROP"), heal,
			[]symptom{
				{"peers", failure, "packets of " + first + " arrive on eth0, and this node's packet filter drops them: table ip filter, chain INPUT: rule 1",
					"iptables -I INPUT -p udp --dport 8472 -j ACCEPT"},
				{"peers", failure, "packets of " + first6 + " arrive on eth0, and this node's packet filter drops them: table ip6 filter, chain INPUT: rule 1",
					"ip6tables -I INPUT -p udp --dport 8472 -j ACCEPT"},
			}},
		{"this node lets no VXLAN out", everywhere(p.Do, "OUTPUT", vxlanPort+"-j DROP"), heal,
			[]symptom{
				{"peers", failure, "no VXLAN packet to " + first + " leaves this node; its packet filter drops them: table ip filter, chain OUTPUT: rule 1",
					"iptables -I OUTPUT -p udp --dport 8472 -j ACCEPT"},
				{"peers", failure, "no VXLAN packet to " + first6 + " leaves this node; its packet filter drops them: table ip6 filter, chain OUTPUT: rule 1",
					"ip6tables -I OUTPUT -p udp --dport 8472 -j ACCEPT"},
			}},
		{"this node lets no ICMP in", everywhere(p.Do, "INPUT", "-i flannel+ -p all -m conntrack --ctstate RELATED,ESTABLISHED -j DROP"), heal,
			one("peers", passes, "ICMP echo to "+named+" is filtered in the overlay, which does no harm", "")},
		{"a router takes less", func() { p.must(setLink("underlay1", mtu(1400))) }, func() { p.must(setLink("underlay1", mtu(1500))) },
			one("peers", warns, fmt.Sprintf("packets of full size to %s are fragmented, which is slow: 172.31.0.1 on the way takes at most 1400 bytes, and they have 1480", first),
				`let the underlay carry 1480 bytes; or set "MTU": 1400 in Backend of the network config, /coreos.com/network/config in etcd, and restart the pods`)},
		{"a policy rule about VXLAN packets alone", func() { p.must(p.Do(func() error { return netlink.RuleAdd(noVXLAN()) })) },
			func() { p.must(p.Do(func() error { return netlink.RuleDel(noVXLAN()) })) },
			one("peers", failure, "this node has no route to "+first+" on the underlay", "ip route add PREFIX via GATEWAY dev eth0; ip rule; ip route show table all")},
		{"another way back", func() { p.secondUplink(far, true) }, func() { p.secondUplink(far, false) },
			one("peers", failure, "packets of "+first+" arrive on eth1, while this node sends to it by another interface, and the strict reverse path filter (rp_filter) drops them",
				"sysctl -w net.ipv4.conf.eth1.rp_filter=2, and find what sets it to 1; or use one path on the underlay")},
		{"the other node is behind NAT", func() {
			undo = append(undo, inserted(p.t, here, subnet.IPv4, "POSTROUTING", fmt.Sprintf("-t nat -s %s %s-j SNAT --to-source 203.0.113.2", far.Addr(subnet.IPv4), vxlanPort)))
		}, func() {},
			one("peers", failure, "packets of "+first+" arrive from 203.0.113.2, which no lease has as its public IP, as behind NAT; the VTEP filter drops them",
				"start selvaged there with --public-ip=203.0.113.2; or here with --vtep-allow=203.0.113.2/32")},
	})
	heal()
}

// TestDoctorWithoutTunnel does the same where packets go without a tunnel: the nodes have no device to be asked at.
func TestDoctorWithoutTunnel(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 4, Families: families[:], Config: clinic(`{"Type":"host-gw"}`)})
	p := admit(t, l, l.Nodes()[0])
	p.healthy()
	small, down, shut := l.Nodes()[1], l.Nodes()[2], l.Nodes()[3]
	for _, f := range families {
		inserted(t, small.Do, f, "PREROUTING", "-t mangle -i eth0 -m length --length 1401: -j DROP")
		file, err := shut.Subnet()
		p.must(err)
		inserted(t, shut.Do, f, "PREROUTING", fmt.Sprintf("-t mangle -d %s -j DROP", file.Subnets[f].Masked()))
	}
	p.must(down.Do(func() error { return setLink("eth0", netlink.LinkSetDown) }))
	for _, f := range families {
		p.must(p.Do(func() error { return forgetNeighbour(down.Addr(f)) }))
	}
	named := func(n *lab.Node) string {
		return fmt.Sprintf("%s (%s, %s)", n.Name(), n.Addr(subnet.IPv4), n.Addr(subnet.IPv6))
	}
	p.finds(
		symptom{"peers", failure, "large packets to " + named(small) + " are lost: pods send up to 1500 bytes, and up to 1400 get through",
			"let the underlay carry 1500 bytes; or ip link set eth0 mtu 1400 on every node"},
		symptom{"peers", failure, "no host on the link answers for the address of " + named(down),
			"check that it is up and connected; if it is gone for good, selvaged release --etcd-endpoints=http://172.31.0.1:2379 " + ownSubnet(t, down).String()},
		symptom{"peers", warns, "no answer for the pods of " + named(shut) + ", though the underlay works: it does not forward, or has no pods yet, with --ip-blackhole-route",
			"there: selvaged doctor"},
	)
}

// forgetNeighbour deletes what is known of a neighbour on the uplink.
func forgetNeighbour(a netip.Addr) error {
	return setLink("eth0", func(l netlink.Link) error {
		return netlink.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: a.AsSlice()})
	})
}

func mtu(n int) func(netlink.Link) error {
	return func(l netlink.Link) error { return netlink.LinkSetMTU(l, n) }
}

func setLink(name string, change func(netlink.Link) error) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return change(l)
}

// secondUplink has the router send what comes from another segment to the node by an interface of its own, or no more. The node
// checks sources there strictly.
func (p *patient) secondUplink(far *lab.Node, on bool) {
	p.t.Helper()
	const table = 100
	back := netlink.NewRule()
	back.IifName, back.Table, back.Priority = "underlay1", table, 1000
	if !on {
		p.must(errors.Join(netlink.RuleDel(back), setLink("second", netlink.LinkDel)))
		return
	}
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: "second"})
	veth.PeerName = "eth1"
	ns, err := p.netns()
	p.must(err)
	defer unix.Close(ns)
	veth.PeerNamespace = netlink.NsFd(ns)
	p.must(netlink.LinkAdd(veth))
	p.link("eth1", func(l netlink.Link) error {
		return errors.Join(netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("172.31.200.11/24"))}), netlink.LinkSetUp(l))
	})
	p.write("/proc/sys/net/ipv4/conf/eth1/rp_filter", "1")
	p.must(setLink("second", func(l netlink.Link) error {
		return errors.Join(
			netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("172.31.200.1/24"))}), netlink.LinkSetUp(l),
			netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Table: table, Gw: net.IPv4(172, 31, 200, 11), Dst: ipNet(netip.PrefixFrom(p.Addr(subnet.IPv4), 32))}),
			netlink.RuleAdd(back))
	}))
}

// netns opens the node's network namespace.
func (p *patient) netns() (fd int, err error) {
	err = p.Do(func() (err error) {
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}
