package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Policy is the desired state of the packet filter. The zero value desires no rules: to ensure it removes those of an
// earlier policy.
type Policy struct {
	Networks []netip.Prefix // the overlay's networks, of every family; a family without one gets no rules
	Own      []netip.Prefix // this node's subnets: traffic to them keeps its source

	Forward     bool // accept forwarded traffic from and to the networks
	Masquerade  bool // masquerade traffic that enters or leaves the networks
	RandomFully bool // masquerade with fully random source ports, if iptables supports it (1.6.2 and later)

	// Tag is that of the network's scope, see network.Scope: it is in the names of table and chains. Former are tags of
	// earlier runs, whose rules are removed once the current ones are set.
	Tag    string
	Former []string

	// NFTables is EnableNFTables of the network config. If it is not set (nil), the [Keeper] chooses.
	NFTables *bool
	// Devices are the devices by which traffic of other nodes arrives, Bridges those of this node's pods, as far as
	// they are known. They serve to find rules that drop this traffic.
	Devices, Bridges []string
}

// Names of our chains in the default scope, as in iptables -S. Those of other scopes have the scope's tag at the end;
// with it they stay below the limit of 28 characters (XT_EXTENSION_MAXNAMELEN).
const (
	ForwardChain    = "SELVAGE-FWD"     // in the table filter, jumped to from FORWARD
	MasqueradeChain = "SELVAGE-POSTRTG" // in the table nat, jumped to from POSTROUTING
)

// table is our desired part of one table of one family. Rules are written as iptables -S prints them, without the
// leading "-A CHAIN ", so that desired and actual rules compare as text. That fixes the order of the options (source,
// destination, matches in the order given, comment, target); prefixes are masked and comments quoted.
type table struct {
	name   string   // as for iptables -t
	parent string   // the built-in chain that calls our chain
	chain  string   // our own chain
	jump   string   // the rule in parent
	rules  []string // of chain; empty: neither chain nor jump is desired
	// networks are those whose packets must reach the jump.
	networks []netip.Prefix
}

// validate reports prefixes that cannot be used in a rule.
func (p Policy) validate() error {
	for _, n := range slices.Concat(p.Networks, p.Own) {
		switch {
		case !n.IsValid():
			return errors.New("packet filter policy: a network is not set")
		case n != n.Masked():
			return fmt.Errorf("packet filter policy: %s has host bits set, want %s", n, n.Masked())
		}
	}
	return nil
}

// tables returns the desired tables of family f. It always returns both: a table without rules is to be cleared.
func (p Policy) tables(f subnet.Family) []table {
	networks, own := inFamily(f, p.Networks), inFamily(f, p.Own)
	forward, masquerade := network.Tagged(ForwardChain, p.Tag), network.Tagged(MasqueradeChain, p.Tag)
	filter := table{
		name: "filter", parent: "FORWARD", chain: forward, jump: rule("", "forwarding", forward),
	}
	nat := table{
		name: "nat", parent: "POSTROUTING", chain: masquerade, jump: rule("", "masquerade", masquerade),
	}
	if len(networks) == 0 {
		return []table{filter, nat}
	}
	if p.Forward {
		filter.rules, filter.networks = forwardRules(networks), networks
	}
	if p.Masquerade {
		nat.rules = masqueradeRules(networks, own, multicast(f), p.RandomFully)
	}
	return []table{filter, nat}
}

func forwardRules(networks []netip.Prefix) (rules []string) {
	for _, n := range networks {
		rules = append(rules,
			rule("-s "+n.String(), "from the overlay", "ACCEPT"),
			rule("-d "+n.String(), "to the overlay", "ACCEPT"))
	}
	return rules
}

func masqueradeRules(networks, own []netip.Prefix, multicast netip.Prefix, randomFully bool) []string {
	masquerade := "MASQUERADE"
	if randomFully {
		// Otherwise two connections that choose a port at the same moment can choose the same one, and the second is
		// dropped when its conntrack entry is confirmed.
		masquerade += " --random-fully"
	}
	rules := []string{
		// KUBE-POSTROUTING masquerades packets with this mark, perhaps after us. If we did it first, its rule and the
		// options of that rule would never apply.
		rule("-m mark --mark 0x4000/0x4000", "left to kube-proxy", "RETURN"),
	}
	// The rules for every pair of networks come before any rule that masquerades: a match takes only one negated
	// prefix, so "from outside all networks" can only be expressed by returning for the inside first.
	for _, from := range networks {
		for _, to := range networks {
			rules = append(rules, rule(fmt.Sprintf("-s %s -d %s", from, to), "inside the overlay", "RETURN"))
		}
	}
	for _, o := range own {
		// Replies of our own pods pass through this node whatever the source, and the pods see the client's address.
		rules = append(rules, rule("-d "+o.String(), "to a pod of this node", "RETURN"))
	}
	for _, n := range networks {
		// A multicast packet has no replies, and receivers distinguish senders by source.
		rules = append(rules, rule(fmt.Sprintf("-s %s ! -d %s", n, multicast), "leaves the overlay", masquerade))
	}
	for _, n := range networks {
		// Without it, a pod on another node would reply through that node's uplink, past the connection tracking here.
		rules = append(rules,
			rule(fmt.Sprintf("! -s %s -d %s", n, n), "enters the overlay, so that replies return here", masquerade))
	}
	return rules
}

// rule composes a rule of matches ("" for none), a comment that names the program, and a target.
func rule(matches, comment, target string) string {
	if matches != "" {
		matches += " "
	}
	return fmt.Sprintf("%s-m comment --comment \"selvage: %s\" -j %s", matches, comment, target)
}

// inFamily returns the prefixes of family f, each once, in the order given.
func inFamily(f subnet.Family, prefixes []netip.Prefix) (in []netip.Prefix) {
	for _, p := range prefixes {
		if subnet.FamilyOf(p.Addr()) == f && !slices.Contains(in, p) {
			in = append(in, p)
		}
	}
	return in
}

// multicast returns the family's multicast range: RFC 5771 and RFC 4291, section 2.7.
func multicast(f subnet.Family) netip.Prefix {
	return [...]netip.Prefix{
		subnet.IPv4: netip.MustParsePrefix("224.0.0.0/4"),
		subnet.IPv6: netip.MustParsePrefix("ff00::/8"),
	}[f]
}
