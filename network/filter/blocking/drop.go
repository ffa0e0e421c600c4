package blocking

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// Drop is a chain in which none of the overlay's new connections pass.
type Drop struct {
	Table   string // "ip filter", or "filter" of the legacy iptables
	Chain   string
	Family  subnet.Family
	Legacy  bool
	Network netip.Prefix
	// Arriving are packets to this node's pods, Leaving are packets from them.
	Arriving, Leaving bool
	By                []string // the rules that drop, with their chain if it is another one; none: the policy
	Commands          []string // shell commands that accept the packets
}

// Overridable reports whether an accepting rule that iptables puts first in the chain would let the packets pass.
func (d Drop) Overridable() bool {
	return d.Chain == "FORWARD" && (d.Table == "ip filter" || d.Table == "ip6 filter")
}

// String describes the chain in one sentence, without what to do about it: see Commands.
func (d Drop) String() string {
	what := d.Network.String()
	switch {
	case !d.Leaving:
		what = "packets from " + what + " to this node's pods"
	case !d.Arriving:
		what = "packets from this node's pods to " + what
	}
	where := place(d.Table, d.Chain, d.Legacy, d.Family)
	if len(d.By) == 0 {
		return fmt.Sprintf("%s: policy drop, and no rule in it accepts %s", where, what)
	}
	verb := " drops "
	if len(d.By) > 1 {
		verb = " drop "
	}
	return where + ": " + strings.Join(d.By, " and ") + verb + what
}

// place names a chain.
func place(table, chain string, legacy bool, f subnet.Family) string {
	where := "table " + table + ", chain " + chain
	if legacy {
		where = fmt.Sprintf("legacy %s, %s", [...]string{"iptables", "ip6tables"}[f], where)
	}
	return where
}

// Advice says what to do about the chain.
func (d Drop) Advice() string {
	text := strings.Join(d.Commands, "; ")
	if d.Overridable() && !d.Legacy {
		text += "; or install iptables and leave EnableNFTables unset, so that selvage adds the rule"
	}
	return text
}

// Report describes the chain and says what to do about it, in one line for a log.
func (d Drop) Report() string { return d.String() + "; add: " + d.Advice() }

// commands returns the commands that accept the packets of d where it drops them.
func commands(d Drop, has func(family, chain string) bool) []string {
	family, table, _ := strings.Cut(d.Table, " ")
	program, chain := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[d.Family], "FORWARD"
	switch {
	case table == "firewalld" && !d.Legacy:
		return []string{
			fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-source=%s", d.Network),
			"firewall-cmd --reload",
		}
	case d.Legacy:
		program += "-legacy"
	case !d.Overridable():
		ip := [...]string{subnet.IPv4: "ip", subnet.IPv6: "ip6"}[d.Family]
		return []string{
			fmt.Sprintf("nft insert rule %s %s %s saddr %s accept", d.Table, d.Chain, ip, d.Network),
			fmt.Sprintf("nft insert rule %s %s %s daddr %s accept", d.Table, d.Chain, ip, d.Network),
		}
	case has(family, "DOCKER-USER"):
		chain = "DOCKER-USER" // which Docker leaves to others
	}
	return []string{
		fmt.Sprintf("%s -I %s -s %s -j ACCEPT", program, chain, d.Network),
		fmt.Sprintf("%s -I %s -d %s -j ACCEPT", program, chain, d.Network),
	}
}
