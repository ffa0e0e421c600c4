package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/subnet"
)

// Policy is what the packet filter is wanted to do. The zero value wants nothing, so that ensuring it removes what an
// earlier policy put there.
type Policy struct {
	Networks []netip.Prefix // the overlay's networks, of every family; a family without one gets no rules
	Own      []netip.Prefix // this node's subnets: what is sent to them keeps its source

	Forward     bool // accept what is forwarded from and to the networks
	Masquerade  bool // masquerade what leaves the networks and what enters them from elsewhere
	RandomFully bool // masquerade with fully random source ports, where iptables can (1.6.2 and later)

	// NFTables is what the network config says of it (EnableNFTables): nil if nothing, then the [Keeper] chooses.
	NFTables *bool
	// Devices are those by which packets come in from other nodes, Bridges those by which they go out to this node's pods, as
	// far as they are known: who drops them is found by that.
	Devices, Bridges []string
}

// Names of our chains, as they show in iptables -S.
const (
	ForwardChain    = "SELVAGE-FWD"     // in the table filter, jumped to from FORWARD
	MasqueradeChain = "SELVAGE-POSTRTG" // in the table nat, jumped to from POSTROUTING
)

// table is what one table of one family is wanted to hold of ours. Rules are written as iptables -S prints them, less the
// leading "-A CHAIN ", so that what is wanted and what is there compare as text. That fixes the order of the options
// (source, destination, matches in the order given, comment, target) and has prefixes masked and comments quoted.
type table struct {
	name   string   // as for iptables -t
	parent string   // the built-in chain that we are called from
	chain  string   // our own chain
	jump   string   // the rule in parent
	rules  []string // what chain holds; empty: neither chain nor jump is to be there
	// networks are those whose packets have to come to the jump.
	networks []netip.Prefix
}

// validate reports prefixes that no rule could be made of.
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

// tables returns what p wants of family f. Both tables are always named: one without rules is one to be cleared.
func (p Policy) tables(f subnet.Family) []table {
	networks, own := inFamily(f, p.Networks), inFamily(f, p.Own)
	filter := table{name: "filter", parent: "FORWARD", chain: ForwardChain, jump: rule("", "forwarding", ForwardChain)}
	nat := table{name: "nat", parent: "POSTROUTING", chain: MasqueradeChain, jump: rule("", "masquerade", MasqueradeChain)}
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
		// KUBE-POSTROUTING masquerades what it marked, perhaps after us. Were we to do it first, its own rule, and the
		// options of that rule, would never apply.
		rule("-m mark --mark 0x4000/0x4000", "left to kube-proxy", "RETURN"),
	}
	// Every pair of networks comes before any rule that masquerades: a match takes one negated prefix only, so "from
	// outside of all our networks" can be said just by having dealt with the inside before.
	for _, from := range networks {
		for _, to := range networks {
			rules = append(rules, rule(fmt.Sprintf("-s %s -d %s", from, to), "inside the overlay", "RETURN"))
		}
	}
	for _, o := range own {
		// Replies from our own pods pass through us whatever the source, and the pods get to see who is calling.
		rules = append(rules, rule("-d "+o.String(), "to a pod of this node", "RETURN"))
	}
	for _, n := range networks {
		// A multicast packet has no replies, and its group is told apart by source.
		rules = append(rules, rule(fmt.Sprintf("-s %s ! -d %s", n, multicast), "leaves the overlay", masquerade))
	}
	for _, n := range networks {
		// A pod on another node would send its reply out of that node's uplink, past the connection tracking here.
		rules = append(rules, rule(fmt.Sprintf("! -s %s -d %s", n, n), "enters the overlay, so that replies return here", masquerade))
	}
	return rules
}

// rule puts a rule together: matches ("" for none), a comment that tells an operator whose it is, the target.
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

// multicast is the family's multicast range: RFC 5771 and RFC 4291, section 2.7.
func multicast(f subnet.Family) netip.Prefix {
	return [...]netip.Prefix{
		subnet.IPv4: netip.MustParsePrefix("224.0.0.0/4"),
		subnet.IPv6: netip.MustParsePrefix("ff00::/8"),
	}[f]
}
