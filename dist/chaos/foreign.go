package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// firewall returns the rules of somebody else, as a firewall and Docker have them, by family. What nobody accepts is dropped,
// so that selvage's rules are missed by the pods when they are gone.
// With nftables selvage cannot make good what somebody else drops, and nobody does.
func (h *host) firewall(f subnet.Family) string {
	rules := [...]string{foreignRulesIPv4, foreignRulesIPv6}[f]
	if h.nftables {
		rules = strings.Replace(rules, ":FORWARD DROP", ":FORWARD ACCEPT", 1)
	}
	return rules
}

const foreignRulesIPv6 = `*filter
:FORWARD DROP [0:0]
:FOREIGN - [0:0]
-A INPUT -s fd00:113::66/128 -j DROP
-A FORWARD -j FOREIGN
-A FOREIGN -s fd00:113::77/128 -j REJECT --reject-with icmp6-port-unreachable
-A FOREIGN -i docker0 -o docker0 -j ACCEPT
COMMIT
*nat
:FOREIGN-NAT - [0:0]
-A POSTROUTING -s fd00:17::/64 ! -o docker0 -j MASQUERADE
-A PREROUTING -d fd00:113::1/128 -j FOREIGN-NAT
-A FOREIGN-NAT -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:17::2]:80
COMMIT
`

const foreignRulesIPv4 = `*filter
:FORWARD DROP [0:0]
:FOREIGN - [0:0]
-A INPUT -s 203.0.113.66/32 -j DROP
-A FORWARD -j FOREIGN
-A FOREIGN -s 203.0.113.77/32 -j REJECT --reject-with icmp-port-unreachable
-A FOREIGN -i docker0 -o docker0 -j ACCEPT
COMMIT
*nat
:FOREIGN-NAT - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A PREROUTING -d 203.0.113.1/32 -j FOREIGN-NAT
-A FOREIGN-NAT -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
`

// foreignVXLAN is somebody else's VXLAN device.
const foreignVXLAN = "vxlan42"

// plantForeign puts onto a node what others may have there.
func (h *host) plantForeign(ctx context.Context) error {
	mac := func(last byte) net.HardwareAddr { return net.HardwareAddr{2, 0xf0, 0, 0, 0, last} }
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "docker0", mac(1)
	docker := &netlink.Bridge{LinkAttrs: attrs}
	attrs.Name, attrs.HardwareAddr = foreignVXLAN, mac(2)
	other := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 42, Port: 4789, Learning: true}
	if err := errors.Join(h.nl.LinkAdd(docker), h.nl.LinkAdd(other), h.nl.LinkSetUp(docker), h.nl.LinkSetUp(other)); err != nil {
		return fmt.Errorf("add foreign devices: %w", err)
	}
	neigh := func(l netlink.Link, family int, flags int, ip string, m net.HardwareAddr) error {
		return h.nl.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, Family: family, Flags: flags,
			State: unix.NUD_PERMANENT, HardwareAddr: m, IP: netip.MustParseAddr(ip).AsSlice()})
	}
	route := func(r netlink.Route) error { return h.nl.RouteAdd(&r) }
	to := func(s string) *net.IPNet { return ipNet(netip.MustParsePrefix(s)) }
	err := errors.Join(
		h.nl.AddrAdd(docker, &netlink.Addr{IPNet: to("172.17.0.1/16")}),
		h.nl.AddrAdd(other, &netlink.Addr{IPNet: to("192.168.42.1/24")}),
		h.nl.AddrAdd(other, &netlink.Addr{IPNet: to("fd00:42::1/64"), Flags: unix.IFA_F_NODAD}),
		neigh(other, unix.AF_INET6, 0, "fd00:42::7", mac(7)),
		route(netlink.Route{Dst: to("fd00:113::/64"), Gw: net.ParseIP("fd00:42::7"), LinkIndex: other.Index, Priority: 100}),
		route(netlink.Route{Dst: to("fd00:5::/32"), Type: unix.RTN_UNREACHABLE, Priority: 4000}),
		neigh(docker, unix.AF_INET, 0, "172.17.0.5", mac(5)),
		neigh(docker, unix.AF_INET6, 0, "fd00:17::5", mac(5)),
		neigh(other, unix.AF_INET, 0, "192.168.42.7", mac(7)),
		neigh(other, unix.AF_BRIDGE, unix.NTF_SELF, "172.31.0.200", mac(7)),
		neigh(other, unix.AF_BRIDGE, unix.NTF_SELF, "172.31.0.201", mac(8)),
		route(netlink.Route{Dst: to("203.0.113.0/24"), Gw: net.IPv4(172, 17, 0, 9)}),
		route(netlink.Route{Dst: to("192.0.2.0/24"), Gw: net.IPv4(192, 168, 42, 7), LinkIndex: other.Index, Priority: 100}),
		route(netlink.Route{Dst: to("198.18.0.0/15"), Type: unix.RTN_BLACKHOLE}),
		route(netlink.Route{Dst: to("203.0.113.128/25"), Gw: net.IPv4(172, 17, 0, 8), Table: 100}),
		// Next to the overlay, and around it: somebody's aggregate.
		route(netlink.Route{Dst: to("10.0.0.0/8"), Type: unix.RTN_UNREACHABLE, Priority: 4000}),
		func() error {
			rule := netlink.NewRule()
			rule.Priority, rule.Table, rule.Src = 1000, 100, to("203.0.113.0/24")
			return h.nl.RuleAdd(rule)
		}(),
	)
	if err != nil {
		return fmt.Errorf("add foreign addresses, neighbours and routes: %w", err)
	}
	if err := h.plantNexthops(); err != nil {
		return err
	}
	for _, f := range subnet.Families() {
		if err := h.restoreRules(ctx, f, h.firewall(f), "-w", "--noflush"); err != nil {
			return err
		}
	}
	return h.plantTable()
}

// foreign dumps all that is on a node and not selvage's, a line a thing, sorted. It leaves out what comes and goes by
// itself: learned neighbours, counters, ages, interface indexes, whether a carrier is there, and the routes of subnets'
// anycast addresses (RFC 4291, section 2.6.1), which come and go with addresses and forwarding, and which no pod uses.
// The rules have been read, see allRules.
func (h *host) foreign(rules []string) ([]string, error) {
	links, err := again(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	names := map[int]string{}
	var dump []string
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		if ourDevice(a.Name) {
			continue
		}
		line := fmt.Sprintf("link %s %s mtu %d mac %s alias %q up %t", a.Name, l.Type(), a.MTU, a.HardwareAddr, a.Alias, a.Flags&net.FlagUp != 0)
		if v, ok := l.(*netlink.Vxlan); ok {
			line += fmt.Sprintf(" id %d port %d learning %t", v.VxlanId, v.Port, v.Learning)
		}
		dump = append(dump, line)
	}
	for _, part := range []func(map[int]string) ([]string, error){h.foreignAddrs, h.foreignNeighs, h.foreignRoutes, h.dumpNexthops} {
		lines, err := part(names)
		if err != nil {
			return nil, err
		}
		dump = append(dump, lines...)
	}
	slices.Sort(dump)
	return append(dump, rules...), nil
}

func (h *host) foreignAddrs(names map[int]string) (dump []string, err error) {
	addrs, err := again(func() ([]netlink.Addr, error) { return h.nl.AddrList(nil, netlink.FAMILY_ALL) })
	for _, a := range addrs {
		if name := names[a.LinkIndex]; !ourDevice(name) {
			dump = append(dump, fmt.Sprintf("address %s %s scope %d", name, a.IPNet, a.Scope))
		}
	}
	return dump, err
}

func (h *host) foreignNeighs(names map[int]string) (dump []string, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		neighs, err := again(func() ([]netlink.Neigh, error) { return h.nl.NeighList(0, family) })
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range neighs {
			if name := names[n.LinkIndex]; !ourDevice(name) && n.State&unix.NUD_PERMANENT != 0 {
				dump = append(dump, fmt.Sprintf("neighbour %s family %d %s %s flags %d vlan %d", name, family, n.IP, n.HardwareAddr, n.Flags, n.Vlan))
			}
		}
	}
	return dump, nil
}

func (h *host) foreignRoutes(names map[int]string) (dump []string, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		routes, err := again(func() ([]netlink.Route, error) {
			return h.nl.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			name := names[r.LinkIndex]
			if ourDevice(name) || r.Protocol == routeProtocol || r.Type == unix.RTN_ANYCAST {
				continue
			}
			dump = append(dump, fmt.Sprintf("route %s via %s dev %s table %d protocol %d scope %d type %d metric %d "+
				"src %s onlink %t", prefixOf(r.Dst), r.Gw, name, r.Table, r.Protocol, r.Scope, r.Type, r.Priority,
				r.Src, r.Flags&int(netlink.FLAG_ONLINK) != 0))
		}
		rules, err := again(func() ([]netlink.Rule, error) { return h.nl.RuleList(family) })
		if err != nil {
			return nil, fmt.Errorf("list routing rules: %w", err)
		}
		for _, r := range rules {
			dump = append(dump, fmt.Sprintf("rule family %d %s", family, r))
		}
	}
	return dump, nil
}

// compare returns the differences of two dumps, each with what they are dumps of in front; nil if there is none.
func compare(what string, before, after []string) []string {
	if slices.Equal(before, after) {
		return nil
	}
	var problems []string
	for _, l := range before {
		if !slices.Contains(after, l) {
			problems = append(problems, what+", gone: "+l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			problems = append(problems, what+", new: "+l)
		}
	}
	if problems == nil {
		problems = []string{what + ": in another order:\n" + strings.Join(after, "\n")}
	}
	return problems
}
