package network

import (
	"fmt"
	"strings"
)

// Commands returns the state as the commands of iproute2, and of nft for VTEPs, that would make it, in the order in which it is made: for
// people to read, and for tests to compare.
func (s State) Commands() []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, x := range s.VTEPs {
		say("nft add element inet selvage-vtep peers-%s { %s }", choose(x.Key.Is4(), "ipv4", "ipv6"), x.Key)
	}
	for _, x := range s.Links {
		l := x.Value
		say("ip link add %s address %s mtu %d type %s id %d local %s dstport %d %slearning%s", x.Key, l.MAC, l.MTU,
			l.Kind, l.VNI, l.Local, l.Port, unless(l.Learning, "no"), when(l.GBP, " gbp"))
		say("ip link set %s alias %s addrgenmode %s %s", x.Key, l.Alias, choose(l.AddrGen, "eui64", "none"), choose(l.Up, "up", "down"))
		if l.TxChecksum != AsItIs {
			say("ethtool -K %s tx-checksum-ip-generic %s", x.Key, choose(l.TxChecksum == On, "on", "off"))
		}
	}
	for _, x := range s.Addresses {
		say("ip address add %s dev %s", x.Key.Prefix, x.Key.Link)
	}
	for _, x := range s.FDB {
		say("bridge fdb replace %s dev %s dst %s self%s", x.Key.MAC, x.Key.Link, x.Value.Remote, when(x.Value.Permanent, " permanent"))
	}
	for _, x := range s.Neighbours {
		say("ip neighbour replace %s lladdr %s dev %s%s", x.Key.IP, x.Value.MAC, x.Key.Link, when(x.Value.Permanent, " nud permanent"))
	}
	for _, x := range s.Nexthops {
		say("ip nexthop replace id %d via %s dev %s%s proto %d", x.Key, x.Value.Gateway, x.Value.Link, when(x.Value.OnLink, " onlink"), x.Value.Protocol)
	}
	for _, x := range s.Routes {
		r := x.Value
		if r.Nexthop != 0 {
			say("ip route replace %s nhid %d proto %d", x.Key, r.Nexthop, r.Protocol)
			continue
		}
		say("ip route replace %s%s%s%s%s proto %d", when(r.Type == Blackhole, "blackhole "), x.Key, when(r.Gateway.IsValid(), " via "+r.Gateway.String()),
			when(r.Link != "", " dev "+r.Link), when(r.OnLink, " onlink"), r.Protocol)
	}
	for _, x := range s.Sysctls {
		say("sysctl -w %s=%s", strings.ReplaceAll(x.Key, "/", "."), x.Value)
	}
	return out
}

func choose(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func when(b bool, text string) string { return choose(b, text, "") }

func unless(b bool, text string) string { return choose(b, "", text) }
