package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Tables of nf_tables, of family inet.
const (
	filterTable  = "selvage"      // selvage's rules, if iptables is not what has them
	vtepTable    = "selvage-vtep" // selvage's as well: lets in VXLAN packets from peers only
	foreignTable = "foreign"      // somebody else's
)

// onNFT calls fn with a connection to the node's nf_tables.
func (h *host) onNFT(fn func(*nftables.Conn) error) error {
	err := h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		return fn(c)
	})
	if err != nil {
		return fmt.Errorf("%s: nf_tables: %w", h.Name(), err)
	}
	return nil
}

// nftTable is what there is of a table.
type nftTable struct {
	*nftables.Table
	flags  uint32
	sets   []*nftables.Set
	chains []*nftables.Chain
}

// readTable reads a table without what is in its chains and sets. The error is [unix.ENOENT] if there is none.
func readTable(c *nftables.Conn, name string) (t nftTable, err error) {
	if t.Table, err = c.ListTableOfFamily(name, nftables.TableFamilyINet); err != nil {
		return t, fmt.Errorf("read the table %s: %w", name, err)
	}
	// The library gives the number in the other order of bytes, and puts it into what it sends.
	t.flags, t.Flags = t.Flags, 0
	if t.sets, err = c.GetSets(t.Table); err != nil {
		return t, fmt.Errorf("read the sets of %s: %w", name, err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return t, fmt.Errorf("read the chains of %s: %w", name, err)
	}
	for _, x := range chains {
		if x.Table.Name == name {
			t.chains = append(t.chains, x)
		}
	}
	return t, nil
}

// elements are what is in the sets of a table, by the set's name.
type elements map[string][]string

// dumpTable writes a table a thing a line, but for what is in the sets that are not named by a line: those of peers. It may be
// called at any time: what cannot be read because it changes right now is said in a line.
func (h *host) dumpTable(name string) (lines []string, peers elements, err error) {
	err = h.onNFT(func(c *nftables.Conn) error {
		t, err := readTable(c, name)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err == nil {
			lines, peers, err = t.dump(c)
		}
		if err != nil {
			lines = append(lines, "nft "+name+" cannot be read: "+err.Error())
		}
		return nil
	})
	return lines, peers, err
}

func (t nftTable) dump(c *nftables.Conn) (lines []string, peers elements, err error) {
	add := func(format string, args ...any) {
		lines = append(lines, "nft "+t.Name+" "+fmt.Sprintf(format, args...))
	}
	add("flags %d", t.flags)
	peers = elements{}
	slices.SortFunc(t.sets, func(a, b *nftables.Set) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range t.sets {
		held, err := c.GetSetElements(s)
		if err != nil {
			return lines, peers, fmt.Errorf("read the set %s: %w", s.Name, err)
		}
		var keys []string
		for _, e := range held {
			keys = append(keys, fmt.Sprintf("%x end %t", e.Key, e.IntervalEnd))
		}
		slices.Sort(keys)
		if peersSet(s.Name) {
			peers[s.Name], keys = keys, nil
		}
		add("set %s of %s interval %t: %s", s.Name, s.KeyType.Name, s.Interval, strings.Join(keys, ", "))
	}
	slices.SortFunc(t.chains, func(a, b *nftables.Chain) int { return strings.Compare(a.Name, b.Name) })
	for _, x := range t.chains {
		add("chain %s %s", x.Name, baseOf(x))
		rules, err := c.GetRules(t.Table, x)
		if err != nil {
			return lines, peers, fmt.Errorf("read the rules of %s: %w", x.Name, err)
		}
		for _, r := range rules {
			text, err := ruleText(r)
			if err != nil {
				return lines, peers, err
			}
			add("rule of %s: %s", x.Name, text)
		}
	}
	return lines, peers, nil
}

// peersSet reports whether a set holds what leases say.
func peersSet(name string) bool { return strings.HasPrefix(name, "peers-") }

// baseOf says where a chain is hooked in, and what happens at its end.
func baseOf(x *nftables.Chain) string {
	if x.Hooknum == nil || x.Priority == nil || x.Policy == nil {
		return "without a hook"
	}
	return fmt.Sprintf("%s hook %d priority %d policy %d", x.Type, *x.Hooknum, *x.Priority, *x.Policy)
}

// ruleText writes a rule without its number and its counters.
func ruleText(r *nftables.Rule) (string, error) {
	text := fmt.Sprintf("comment %q", r.UserData)
	for _, e := range r.Exprs {
		if _, counts := e.(*expr.Counter); counts {
			e = &expr.Counter{}
		}
		b, err := json.Marshal(e)
		if err != nil {
			return "", fmt.Errorf("write the rule %d: %w", r.Handle, err)
		}
		text += fmt.Sprintf(" %T%s", e, b)
	}
	return text, nil
}

// checkPeers says who is let in and ought not to be, or is not and ought to be.
func (h *host) checkPeers(have elements) (p problems) {
	want := elements{}
	for _, f := range both() {
		want["peers-"+strings.ToLower(f.String())] = nil
	}
	for _, l := range h.plan.leases {
		if l.NodeName == h.Name() {
			continue
		}
		for _, f := range h.families {
			name := "peers-" + strings.ToLower(f.String())
			want[name] = append(want[name], fmt.Sprintf("%x end false", l.Endpoints[f].PublicIP.AsSlice()))
		}
	}
	for i, name := range slices.Sorted(maps.Keys(want)) { // ipv4 is first
		slices.Sort(want[name])
		p[i] = append(p[i], compare("VTEP filter, "+name, want[name], have[name])...)
	}
	return p
}

// plantTable makes, or makes again, a table of somebody else's.
func (h *host) plantTable() error {
	return h.onNFT(func(c *nftables.Conn) error {
		t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: foreignTable})
		c.FlushTable(t)
		// With a number of our own: the library counts in a variable that all goroutines share.
		blocked := &nftables.Set{Table: t, ID: 1, Name: "peers-of-theirs", KeyType: nftables.TypeIPAddr}
		if err := c.AddSet(blocked, []nftables.SetElement{{Key: netip.MustParseAddr("203.0.113.66").AsSlice()}}); err != nil {
			return err
		}
		chain := c.AddChain(&nftables.Chain{Table: t, Name: "forward", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: stranger(), UserData: []byte("theirs")})
		return c.Flush()
	})
}

// stranger is a rule that drops what comes from an address that nobody has.
func stranger() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4, DestRegister: unix.NFT_REG_1}, // the source
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: netip.MustParseAddr("203.0.113.99").AsSlice()},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}
