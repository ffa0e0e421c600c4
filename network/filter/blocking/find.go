package blocking

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/filter/xtables"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// Overlay describes the traffic to look for.
type Overlay struct {
	Networks []netip.Prefix // the overlay's networks, of every family
	Own      []netip.Prefix // this node's subnets
	Devices  []string       // devices that lead to other nodes; nil: unknown
	Bridges  []string       // devices that lead to this node's pods; nil: unknown
}

// Ruleset is the forwarding rules of the kernel. Rules and sets are read when they are needed.
type Ruleset struct {
	Chains []nft.ChainInfo                   // all chains of nf_tables
	Legacy map[subnet.Family][]xtables.Table // the tables of the legacy iptables

	conn       *nft.Conn
	generation uint32
	dormant    map[nft.TableInfo]bool
	rules      map[ref][]rule
	sets       map[ref]set
	listed     map[ref]bool // tables whose sets were listed
	err        error        // the first
}

// ref refers to a chain or a set, or to a table if it has no name.
type ref struct {
	family      nftables.TableFamily
	table, name string
}

// Read reads the chains in the network namespace of the calling thread. c is nil if there is no nf_tables; then Read
// reads only the legacy iptables.
func Read(c *nft.Conn) (r *Ruleset, err error) {
	r = &Ruleset{
		conn: c, Legacy: map[subnet.Family][]xtables.Table{},
		dormant: map[nft.TableInfo]bool{}, rules: map[ref][]rule{}, sets: map[ref]set{}, listed: map[ref]bool{},
	}
	for _, f := range subnet.Families() {
		if r.Legacy[f], err = xtables.Read(f); err != nil {
			return nil, err
		}
	}
	if c == nil {
		return r, nil
	}
	if r.generation, err = c.Generation(); err != nil {
		return nil, err
	}
	if r.Chains, err = c.Chains(); err != nil {
		return nil, err
	}
	tables, err := c.Tables()
	for _, t := range tables {
		if t.Dormant {
			r.dormant[t] = true
		}
	}
	return r, err
}

// ErrChanged means that nf_tables changed while it was read, so that the result may be inconsistent.
var ErrChanged = errors.New("the packet filter changed while it was read: try again")

// Find returns the chains that drop all new connections between this node's pods and those of other nodes, or
// [ErrChanged]. skip names our own objects: tables of family inet, and chains whose jumps in tables of iptables are
// ignored.
func (r *Ruleset) Find(o Overlay, skip ...string) (all []Drop, err error) {
	r.err = nil
	for _, network := range o.Networks {
		f := subnet.FamilyOf(network.Addr())
		i := slices.IndexFunc(o.Own, func(p netip.Prefix) bool { return subnet.FamilyOf(p.Addr()) == f })
		if i < 0 {
			continue
		}
		arriving := Packets{From: network, To: o.Own[i], In: o.Devices, Out: o.Bridges, NotOut: o.Devices}
		leaving := Packets{From: o.Own[i], To: network, In: o.Bridges, NotIn: o.Devices, Out: o.Devices}
		for _, b := range r.bases(f, forwarded, skip) {
			d := Drop{Table: b.table, Chain: b.chain, Family: f, Legacy: b.legacy, Network: network}
			d.Arriving = d.blocks(arriving, b)
			d.Leaving = d.blocks(leaving, b)
			if d.Arriving || d.Leaving {
				d.Commands = commands(d, r.has)
				all = append(all, d)
			}
		}
	}
	slices.SortFunc(all, func(a, b Drop) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Chain, b.Chain),
			a.Network.Compare(b.Network))
	})
	if err := r.unchanged(); err != nil {
		return nil, err
	}
	return all, nil
}

// unchanged returns why what was read cannot be relied on; nil: it can.
func (r *Ruleset) unchanged() error {
	if r.conn != nil && r.err == nil {
		now, err := r.conn.Generation()
		if r.note(err); err == nil && now != r.generation {
			r.err = ErrChanged
		}
	}
	return r.err
}

// blocks reports whether a chain lets none of the packets pass, and records the rule in d.By.
func (d *Drop) blocks(p Packets, b base) bool {
	result := walk(p, b.chain, 0, b.rules)
	if result.accepted || result.through && b.accepts {
		return false
	}
	if result.through {
		return true // by the policy
	}
	by := result.by
	if result.chain != b.chain {
		by += " of chain " + result.chain
	}
	if !slices.Contains(d.By, by) {
		d.By = append(d.By, by)
	}
	return true
}

// base is a base chain: one that the kernel calls at a hook.
type base struct {
	table, chain string
	legacy       bool
	accepts      bool
	rules        func(chain string) ([]rule, bool)
}

// way is the hooks that packets pass.
type way struct {
	nft    []nftables.ChainHook // of the families ip, ip6 and inet
	legacy []string             // built-in chains
	// Hooks of one device, empty: none. Those of the family inet have the number 5, NF_INET_INGRESS.
	device string
	netdev nftables.ChainHook
}

// forwarded is the way of the packets that a node forwards.
var forwarded = way{nft: []nftables.ChainHook{*nftables.ChainHookForward}, legacy: []string{"FORWARD"}}

// passes reports whether packets on this way traverse a chain of nf_tables.
func (w way) passes(c nft.ChainInfo) bool {
	const inetIngress = 5
	onDevice := w.device != "" && slices.Contains(strings.Fields(c.Devices), w.device)
	switch {
	case c.Family == nftables.TableFamilyNetdev:
		return onDevice && c.Hook == w.netdev
	case c.Family == nftables.TableFamilyINet && c.Hook == inetIngress:
		return onDevice && w.netdev == *nftables.ChainHookIngress
	}
	return slices.Contains(w.nft, c.Hook)
}

// bases returns the base chains that packets of a family traverse.
func (r *Ruleset) bases(f subnet.Family, w way, skip []string) (all []base) {
	ip := [...]nftables.TableFamily{subnet.IPv4: nftables.TableFamilyIPv4, subnet.IPv6: nftables.TableFamilyIPv6}[f]
	without := func(list func(chain string) ([]rule, bool)) func(chain string) ([]rule, bool) {
		return func(chain string) ([]rule, bool) {
			rules, known := list(chain)
			return slices.DeleteFunc(slices.Clone(rules), func(x rule) bool {
				return x.To != "" && slices.Contains(skip, x.To)
			}), known
		}
	}
	for _, c := range r.Chains {
		inet, netdev := c.Family == nftables.TableFamilyINet, c.Family == nftables.TableFamilyNetdev
		if !c.Base || !w.passes(c) || c.Family != ip && !inet && !netdev ||
			inet && slices.Contains(skip, c.Table) ||
			r.dormant[nft.TableInfo{Family: c.Family, Name: c.Table, Dormant: true}] {
			continue
		}
		all = append(all, base{
			table: nft.FamilyName(c.Family) + " " + c.Table, chain: c.Name,
			accepts: c.Policy == nftables.ChainPolicyAccept,
			rules:   without(func(chain string) ([]rule, bool) { return r.rulesOf(ref{c.Family, c.Table, chain}) }),
		})
	}
	for _, t := range r.Legacy[f] {
		rules := func(chain string) (list []rule, known bool) {
			i := slices.IndexFunc(t.Chains, func(c xtables.Chain) bool { return c.Name == chain })
			if i < 0 {
				return nil, false
			}
			for _, x := range t.Chains[i].Rules {
				list = append(list, fromLegacy(x))
			}
			return number(list), true
		}
		for _, c := range t.Chains {
			if c.Builtin && slices.Contains(w.legacy, c.Name) {
				all = append(all, base{table: t.Name, chain: c.Name, legacy: true, accepts: c.Accepts,
					rules: without(rules)})
			}
		}
	}
	return all
}

// rulesOf reads a chain, once.
func (r *Ruleset) rulesOf(at ref) ([]rule, bool) {
	if rules, ok := r.rules[at]; ok {
		return rules, true
	}
	infos, err := r.conn.Rules(at.family, at.table, at.name)
	if err != nil {
		r.note(err)
		return nil, false
	}
	rules := make([]rule, len(infos))
	for i, x := range infos {
		rules[i] = fromNFTables(at.family, x.Exprs, func(name string) (set, bool) {
			return r.set(ref{at.family, at.table, name})
		})
	}
	r.rules[at] = number(rules)
	return rules, true
}

// set reads a set, once.
func (r *Ruleset) set(at ref) (set, bool) {
	table := ref{at.family, at.table, ""}
	if !r.listed[table] {
		r.listed[table] = true
		infos, err := r.conn.Sets(at.family, at.table)
		r.note(err)
		for _, x := range infos {
			r.sets[ref{at.family, at.table, x.Name}] = set{Flags: x.Flags, Length: x.Length}
		}
	}
	s, ok := r.sets[at]
	if !ok {
		return set{}, false
	}
	if s.Elements == nil {
		list, err := r.conn.Elements(at.family, at.table, at.name)
		if err != nil {
			r.note(err)
			return set{}, false
		}
		s.Elements = append([]nft.Element{}, list...)
		r.sets[at] = s
	}
	return s, true
}

func (r *Ruleset) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

// has reports whether a table of iptables on nf_tables has a chain.
func (r *Ruleset) has(family, chain string) bool {
	return slices.ContainsFunc(r.Chains, func(c nft.ChainInfo) bool {
		return nft.FamilyName(c.Family) == family && c.Table == "filter" && c.Name == chain
	})
}
