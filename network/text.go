package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Commands returns the state as the commands of iproute2, and of nft for VTEPs, that would make it, in the order of
// [Kinds]: for people to read, and for tests to compare.
func (s State) Commands() (commands []string) {
	for _, k := range NewTables().kinds {
		commands = append(commands, k.commands(&s)...)
	}
	return commands
}

func (t *Tables) vtepCommand(a netip.Addr, _ VTEP) string {
	return fmt.Sprintf("nft add element inet %s peers-%s { %s }",
		t.ownership.Scope.Name("selvage-vtep"), choose(a.Is4(), "ipv4", "ipv6"), a)
}

// linkCommand returns several commands, one a line.
func linkCommand(name string, l Link) string {
	text := fmt.Sprintf("ip link add %s%s mtu %d type %s",
		name, when(l.MAC != MAC{}, " address "+l.MAC.String()), l.MTU, l.Kind)
	if l.Settings != nil {
		text += " " + l.Settings.Args()
	}
	text += fmt.Sprintf("\nip link set %s%s alias %s addrgenmode %s %s",
		name, when(l.Master != "", " master "+l.Master), l.Alias,
		choose(l.AddrGen, "eui64", "none"), choose(l.Up, "up", "down"))
	if l.TxChecksum != AsItIs {
		text += fmt.Sprintf("\nethtool -K %s tx-checksum-ip-generic %s", name, choose(l.TxChecksum == On, "on", "off"))
	}
	return text
}

// bridgeCommand returns several commands, one a line.
func bridgeCommand(name string, b Bridge) string {
	return fmt.Sprintf("ip link add %s%s type %s%s%s\nip link set %s %s%s%s%s", name, mtu(b.MTU), b.Kind,
		when(b.STP, " stp_state 1"), when(b.VLANFiltering, " vlan_filtering 1"),
		name, choose(b.Up, "up", "down"), choose(b.Master == "", " nomaster", " master "+b.Master),
		when(b.Promisc, " promisc on"), when(b.NoARP, " arp off"))
}

// portCommand returns one command, or two for a port of a bridge.
func portCommand(name string, p Port) string {
	text := fmt.Sprintf("ip link set %s %s%s%s%s", name, choose(p.Up, "up", "down"),
		choose(p.Master == "", " nomaster", " master "+p.Master), mtu(p.MTU), when(p.NoARP, " arp off"))
	if p.Master != "" {
		text += fmt.Sprintf("\nbridge link set dev %s hairpin %s isolated %s learning %s flood %s%s state %s", name,
			onOff(p.Hairpin), onOff(p.Isolated), onOff(p.Learning), onOff(p.Flood), when(p.Locked, " locked on"),
			choose(p.Blocked, "blocking", "forwarding"))
	}
	return text
}

func mtu(bytes int) string { return when(bytes != 0, fmt.Sprintf(" mtu %d", bytes)) }

func onOff(b bool) string { return choose(b, "on", "off") }

func addressCommand(k AddressKey, v Address) string {
	return fmt.Sprintf("ip address add %s dev %s%s", k.Prefix, k.Link, when(v.Duplicate, " # dadfailed"))
}

func fdbCommand(k FDBKey, v FDB) string {
	return fmt.Sprintf("bridge fdb replace %s dev %s dst %s self%s", k.MAC, k.Link, v.Remote,
		when(v.Permanent, " permanent"))
}

func neighbourCommand(k NeighbourKey, v Neighbour) string {
	return fmt.Sprintf("ip neighbour replace %s lladdr %s dev %s%s", k.IP, v.MAC, k.Link,
		when(v.Permanent, " nud permanent"))
}

func nexthopCommand(id NexthopID, v Nexthop) string {
	return fmt.Sprintf("ip nexthop replace id %d via %s dev %s%s proto %d", id, v.Gateway, v.Link,
		when(v.OnLink, " onlink"), v.Protocol)
}

func routeCommand(k RouteKey, r Route) string {
	if r.Nexthop != 0 {
		return fmt.Sprintf("ip route replace %s nhid %d proto %d", k, r.Nexthop, r.Protocol)
	}
	return fmt.Sprintf("ip route replace %s%s%s%s%s proto %d", routeType(r.Type), k,
		when(r.Gateway.IsValid(), " via "+r.Gateway.String()), when(r.Link != "", " dev "+r.Link),
		when(r.OnLink, " onlink"), r.Protocol)
}

// routeType returns the type of a route with a space behind it; nothing for a unicast route.
func routeType(t uint8) string {
	switch t {
	case Blackhole:
		return "blackhole "
	case Unreachable:
		return "unreachable "
	case Prohibit:
		return "prohibit "
	case Throw:
		return "throw "
	}
	return ""
}

func sysctlCommand(path string, v Sysctl) string {
	return fmt.Sprintf("sysctl -w %s=%s", strings.ReplaceAll(path, "/", "."), v)
}

func choose(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func when(b bool, text string) string { return choose(b, text, "") }

func unless(b bool, text string) string { return choose(b, "", text) }
