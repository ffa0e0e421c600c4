package blocking

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/subnet"
)

// Tunnel is the packets of a tunnel between this node and another one, in one direction.
type Tunnel struct {
	From, To netip.Addr
	Port     uint16 // the UDP destination port
	Device   string // that they arrive on, or leave by
	Leaving  bool
}

// Discard is a rule, or the policy of a chain, that drops packets of a tunnel.
type Discard struct {
	Table, Chain string // of the base chain, as in [Drop]
	Legacy       bool
	Family       subnet.Family
	By           string // the rule, with its chain if it is another one; empty: the policy
	Sure         bool   // none of the packets pass; else some may not, or it is unknown
	Command      string // a shell command that accepts the packets
}

// Discards returns what drops the packets of a tunnel, or [ErrChanged]: the rules and policies that drop all of them.
// If there are none, it returns those that may drop some. skip names our own tables of family inet.
func (r *Ruleset) Discards(t Tunnel, skip ...string) (all []Discard, err error) {
	r.err = nil
	p := Packets{From: single(t.From), To: single(t.To), Port: t.Port}
	w := way{device: t.Device}
	if t.Leaving {
		p.Out, w.netdev, w.legacy = []string{t.Device}, *nftables.ChainHookEgress, []string{"OUTPUT", "POSTROUTING"}
		w.nft = []nftables.ChainHook{*nftables.ChainHookOutput, *nftables.ChainHookPostrouting}
	} else {
		p.In, w.netdev, w.legacy = []string{t.Device}, *nftables.ChainHookIngress, []string{"PREROUTING", "INPUT"}
		w.nft = []nftables.ChainHook{*nftables.ChainHookPrerouting, *nftables.ChainHookInput}
	}
	f := subnet.FamilyOf(t.From)
	for _, b := range r.bases(f, w, skip) {
		result := walk(p, b.chain, 0, b.rules)
		d := Discard{Table: b.table, Chain: b.chain, Legacy: b.legacy, Family: f}
		d.Sure = !result.accepted && (!result.through || !b.accepts)
		d.Command = d.command(t.Port)
		if result.through && !b.accepts {
			all = append(all, d)
		}
		for _, x := range result.drops {
			if d.By = x.by; x.chain != b.chain {
				d.By += " of chain " + x.chain
			}
			all = append(all, d)
		}
	}
	if slices.ContainsFunc(all, func(d Discard) bool { return d.Sure }) {
		all = slices.DeleteFunc(all, func(d Discard) bool { return !d.Sure })
	}
	slices.SortStableFunc(all, func(a, b Discard) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Chain, b.Chain))
	})
	if err := r.unchanged(); err != nil {
		return nil, err
	}
	return all, nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// String names the rule or policy, in the words of the program that shows it.
func (d Discard) String() string {
	return place(d.Table, d.Chain, d.Legacy, d.Family) + ": " + cmp.Or(d.By, "policy drop")
}

// command returns a command that accepts UDP packets to a port at the beginning of the chain.
func (d Discard) command(port uint16) string {
	_, table, _ := strings.Cut(d.Table, " ")
	iptables := strings.HasPrefix(d.Table, "ip ") || strings.HasPrefix(d.Table, "ip6 ")
	builtin := iptables && d.Chain == strings.ToUpper(d.Chain)
	program := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[d.Family]
	switch {
	case table == "firewalld" && !d.Legacy:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/udp; firewall-cmd --reload", port)
	case d.Legacy:
		program, table = program+"-legacy", d.Table
	case !builtin:
		return fmt.Sprintf("nft insert rule %s %s udp dport %d accept", d.Table, d.Chain, port)
	}
	if table != "filter" {
		program += " -t " + table
	}
	return fmt.Sprintf("%s -I %s -p udp --dport %d -j ACCEPT", program, d.Chain, port)
}
