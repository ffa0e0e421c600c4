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

// Overlay is whose packets are to pass.
type Overlay struct {
	Networks []netip.Prefix // the overlay's networks, of every family
	Own      []netip.Prefix // this node's subnets
	Devices  []string       // by which packets come in from other nodes, and go out to them; nil: nobody knows
	Bridges  []string       // by which they go out to this node's pods, and come in from them; nil: nobody knows
}

// Ruleset is all that may drop what is forwarded. Rules are read when they are needed.
type Ruleset struct {
	Chains []nft.ChainInfo                   // all there are in nf_tables
	Legacy map[subnet.Family][]xtables.Table // what the legacy iptables has

	conn       *nft.Conn
	generation uint32
	asleep     map[nft.TableInfo]bool
	rules      map[place][]rule
	sets       map[place]set
	known      map[place]bool // tables whose sets were listed
	err        error          // the first
}

// place is a chain, a set, or a table if it has no name.
type place struct {
	family      nftables.TableFamily
	table, name string
}

// Read reads what there is in the network namespace of the calling thread. Without a connection, where there is no nf_tables,
// that is the legacy iptables alone.
func Read(c *nft.Conn) (r *Ruleset, err error) {
	r = &Ruleset{
		conn: c, Legacy: map[subnet.Family][]xtables.Table{},
		asleep: map[nft.TableInfo]bool{}, rules: map[place][]rule{}, sets: map[place]set{}, known: map[place]bool{},
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
			r.asleep[t] = true
		}
	}
	return r, err
}

// ErrMoved means that somebody changed nf_tables while it was read, so that what was read may never have been together.
var ErrMoved = errors.New("the packet filter changed while it was read")

// Find returns who drops all new connections of the overlay between this node's pods and others, or [ErrMoved]. skip names chains and tables
// that are ours: calls of such chains in tables of iptables are passed over, and so are the tables, of family inet.
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
		for _, b := range r.bases(f, skip) {
			d := Drop{Table: b.table, Chain: b.chain, Family: f, Legacy: b.legacy, Network: network}
			d.Arriving = d.meets(arriving, b)
			d.Leaving = d.meets(leaving, b)
			if d.Arriving || d.Leaving {
				d.advice = advice(d, r.has)
				all = append(all, d)
			}
		}
	}
	slices.SortFunc(all, func(a, b Drop) int {
		return cmp.Or(strings.Compare(a.Table, b.Table), strings.Compare(a.Chain, b.Chain), a.Network.Compare(b.Network))
	})
	if r.conn != nil && r.err == nil {
		now, err := r.conn.Generation()
		if r.note(err); err == nil && now != r.generation {
			r.err = ErrMoved
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return all, nil
}

// meets lets packets go through a chain and reports whether none of them comes out of it. It notes by which rule.
func (d *Drop) meets(p Packets, b base) bool {
	fate := walk(p, b.chain, 0, b.rules)
	if fate.accepted || fate.through && b.accepts {
		return false
	}
	if fate.through {
		return true // then it is the policy
	}
	by := fate.by
	if fate.chain != b.chain {
		by += " of chain " + fate.chain
	}
	if !slices.Contains(d.By, by) {
		d.By = append(d.By, by)
	}
	return true
}

// base is a chain that the kernel calls.
type base struct {
	table, chain string
	legacy       bool
	accepts      bool
	rules        func(chain string) ([]rule, bool)
}

// bases are the chains through which packets of a family go when they are forwarded.
func (r *Ruleset) bases(f subnet.Family, skip []string) (all []base) {
	ip := [...]nftables.TableFamily{subnet.IPv4: nftables.TableFamilyIPv4, subnet.IPv6: nftables.TableFamilyIPv6}[f]
	without := func(list func(chain string) ([]rule, bool)) func(chain string) ([]rule, bool) {
		return func(chain string) ([]rule, bool) {
			rules, known := list(chain)
			return slices.DeleteFunc(slices.Clone(rules), func(x rule) bool { return x.To != "" && slices.Contains(skip, x.To) }), known
		}
	}
	for _, c := range r.Chains {
		if !c.Base || c.Hook != *nftables.ChainHookForward || c.Family != ip && c.Family != nftables.TableFamilyINet ||
			c.Family == nftables.TableFamilyINet && slices.Contains(skip, c.Table) || r.asleep[nft.TableInfo{Family: c.Family, Name: c.Table, Dormant: true}] {
			continue
		}
		all = append(all, base{
			table: familyName(c.Family) + " " + c.Table, chain: c.Name, accepts: c.Policy == nftables.ChainPolicyAccept,
			rules: without(func(chain string) ([]rule, bool) { return r.rulesOf(place{c.Family, c.Table, chain}) }),
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
			if c.Builtin && c.Name == "FORWARD" {
				all = append(all, base{table: t.Name, chain: c.Name, legacy: true, accepts: c.Accepts, rules: without(rules)})
			}
		}
	}
	return all
}

func familyName(f nftables.TableFamily) string {
	return map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet"}[f]
}

// rulesOf reads a chain once.
func (r *Ruleset) rulesOf(at place) ([]rule, bool) {
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
		rules[i] = fromNFTables(at.family, x.Exprs, func(name string) (set, bool) { return r.set(place{at.family, at.table, name}) })
	}
	r.rules[at] = number(rules)
	return rules, true
}

// set reads a set once.
func (r *Ruleset) set(at place) (set, bool) {
	table := place{at.family, at.table, ""}
	if !r.known[table] {
		r.known[table] = true
		infos, err := r.conn.Sets(at.family, at.table)
		r.note(err)
		for _, x := range infos {
			r.sets[place{at.family, at.table, x.Name}] = set{Flags: x.Flags, Length: x.Length}
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
		return familyName(c.Family) == family && c.Table == "filter" && c.Name == chain
	})
}
