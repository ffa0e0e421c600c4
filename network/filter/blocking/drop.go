package blocking

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// Drop is a chain that lets none of the overlay's new connections pass.
type Drop struct {
	Table   string // "ip filter", or "filter" of the legacy iptables
	Chain   string
	Family  subnet.Family
	Legacy  bool
	Network netip.Prefix
	// Which packets: those to this node's pods, those from them.
	Arriving, Leaving bool
	By                []string // the rules that do it, each with the chain it is in if that is another; none: the policy
	advice            string
}

// Undoable reports whether a rule that accepts, put first in the chain by iptables, would let the packets pass.
func (d Drop) Undoable() bool {
	return d.Chain == "FORWARD" && (d.Table == "ip filter" || d.Table == "ip6 filter")
}

// String says it in a sentence, with what to do.
func (d Drop) String() string {
	what := d.Network.String()
	switch {
	case !d.Leaving:
		what = "packets from " + what + " to this node's pods"
	case !d.Arriving:
		what = "packets from this node's pods to " + what
	}
	where := "table " + d.Table + ", chain " + d.Chain
	if d.Legacy {
		where = fmt.Sprintf("legacy %s, %s", [...]string{"iptables", "ip6tables"}[d.Family], where)
	}
	if len(d.By) == 0 {
		return fmt.Sprintf("%s: policy drop, and no rule in it accepts %s; %s", where, what, d.advice)
	}
	does := " drops "
	if len(d.By) > 1 {
		does = " drop "
	}
	return where + ": " + strings.Join(d.By, " and ") + does + what + "; " + d.advice
}

// advice says what to put where, for who has no better idea.
func advice(d Drop, has func(family, chain string) bool) string {
	family, table, _ := strings.Cut(d.Table, " ")
	program := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[d.Family]
	switch {
	case d.Legacy:
		program += "-legacy"
		return fmt.Sprintf("add: %s -I FORWARD -s %s -j ACCEPT; %s -I FORWARD -d %s -j ACCEPT", program, d.Network, program, d.Network)
	case d.Undoable():
		chain := "FORWARD"
		if has(family, "DOCKER-USER") {
			chain = "DOCKER-USER" // which Docker leaves to others
		}
		return fmt.Sprintf("add: %s -I %s -s %s -j ACCEPT; %s -I %s -d %s -j ACCEPT; or have iptables installed and EnableNFTables not set, so that selvage does it",
			program, chain, d.Network, program, chain, d.Network)
	case table == "firewalld":
		return fmt.Sprintf("add: firewall-cmd --permanent --zone=trusted --add-source=%s; firewall-cmd --reload", d.Network)
	}
	ip := [...]string{subnet.IPv4: "ip", subnet.IPv6: "ip6"}[d.Family]
	return fmt.Sprintf("add: nft insert rule %s %s %s saddr %s accept; nft insert rule %s %s %s daddr %s accept",
		d.Table, d.Chain, ip, d.Network, d.Table, d.Chain, ip, d.Network)
}
