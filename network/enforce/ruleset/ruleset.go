package ruleset

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
)

// Options are what all tables have in common.
type Options struct {
	// Reject answers to the sender of a denied packet: a reset of TCP, else "administratively prohibited" of ICMP.
	Reject bool
	// LogGroup is the group to which denied packets are logged; 0: none.
	LogGroup uint16
}

// Ruleset is the policies' table. It is not safe for concurrent use.
type Ruleset struct {
	options Options
	sets    map[string]nft.Set
	chains  map[string]nft.Chain
	names   [2][]string         // of sets and chains, sorted; nil: not known
	calls   map[string][]string // which chains a chain jumps to
	denies  map[string][]string // which sets a chain looks up to do anything but allow
	cuts    [2][]nft.Element    // by family
	content *nft.Content        // that was returned last; nil: it has changed other than in elements of lists
}

// New returns the ruleset of an empty table.
func New(o Options) *Ruleset {
	return &Ruleset{
		options: o, sets: map[string]nft.Set{}, chains: map[string]nft.Chain{},
		calls: map[string][]string{}, denies: map[string][]string{},
	}
}

// Empty reports whether no policy selects a pod of this node. Then no table is needed.
func (r *Ruleset) Empty() bool { return len(r.chains) == 0 }

// Apply applies what a compiler changed. Its cost depends on what changes in sets, and on the size of chains. It
// returns the addresses whose connections may have been allowed before and be denied now, in any order, some several
// times.
func (r *Ruleset) Apply(c policy.Changes) (concerned []netip.Addr) {
	concerned = r.concerned(c)
	if len(c.Chains) > 0 {
		r.content = nil
	}
	for name, s := range c.Sets {
		if s.Removed {
			delete(r.sets, name)
			r.names[0], r.content = nil, nil
			continue
		}
		set := r.sets[name]
		if s.Created {
			set = newSet(s.Set)
			r.names[0], r.content = nil, nil
		}
		add, remove := elements(s.Set, s.Add), elements(s.Set, s.Remove)
		switch {
		case set.List != nil:
			set.List.Change(add, remove)
		case s.Created: // a set of ranges never changes
			set.Elements = add
		}
		r.sets[name] = set
	}
	for name, ch := range c.Chains {
		if ch == nil {
			delete(r.chains, name)
			delete(r.calls, name)
			delete(r.denies, name)
			r.names[1] = nil
			continue
		}
		r.note(ch)
		if _, known := r.chains[name]; !known {
			r.names[1] = nil
		}
		r.chains[name] = nft.Chain{Name: name, Rules: r.options.rules(ch)}
	}
	return concerned
}

// Content returns the table. Lists of rules that have not changed are the same ones in memory as before, by which
// [nft.Mirror] recognizes them. Those of elements are changed by the next Apply.
func (r *Ruleset) Content() nft.Content {
	if r.content == nil {
		c := r.assemble()
		r.content = &c
	}
	return *r.content
}

func (r *Ruleset) assemble() nft.Content {
	if r.names[0] == nil {
		r.names[0] = slices.Sorted(maps.Keys(r.sets))
	}
	if r.names[1] == nil {
		r.names[1] = slices.Sorted(maps.Keys(r.chains))
	}
	c := nft.Content{Sets: make([]nft.Set, 0, len(r.sets)), Chains: make([]nft.Chain, 0, len(r.chains)+3)}
	for _, name := range r.names[0] {
		c.Sets = append(c.Sets, r.sets[name])
	}
	cuts, cutting := r.cutting()
	c.Sets = append(c.Sets, cuts...)
	c.Chains = append(c.Chains, r.options.baseChains(cutting)...)
	for _, name := range r.names[1] {
		c.Chains = append(c.Chains, r.chains[name])
	}
	return c
}

// Size returns the numbers of sets, of their elements, and of chains.
func (r *Ruleset) Size() (sets, elements, chains int) {
	for _, s := range r.sets {
		elements += len(s.Elements)
		if s.List != nil {
			elements += len(s.List.Elements())
		}
	}
	return len(r.sets), elements, len(r.chains)
}

// newSet returns an empty set.
func newSet(s policy.Set) nft.Set {
	f := nft.Families()[s.Family]
	x := nft.Set{Name: s.Name, Key: f.Key, Comment: s.Comment, List: &nft.List{}}
	switch s.Type {
	case policy.Addresses:
	case policy.Ranges:
		x.Interval, x.List = true, nil
	case policy.Endpoints:
		x.Key = f.KeyWithPort()
	case policy.Loops:
		x.Key = f.KeyOfPair()
	case policy.Dispatch:
		x.Verdicts = true
	}
	return x
}

// elements returns elements of a set in the order of their keys. A range is two, of which the second ends it, but for a
// range up to the last address.
func elements(s policy.Set, list []policy.Element) []nft.Element {
	if len(list) == 0 {
		return nil
	}
	all := make([]nft.Element, 0, len(list))
	for _, e := range list {
		address := e.Addr.AsSlice()
		x := nft.Element{Key: string(address)}
		switch s.Type {
		case policy.Addresses:
		case policy.Ranges:
			if end := e.Last.Next(); end.IsValid() {
				all = append(all, nft.Element{Key: string(end.AsSlice()), End: true})
			}
		case policy.Endpoints:
			x.Key = endpoint(e.Addr, e.Protocol, e.Port)
		case policy.Loops:
			x.Key = nft.Key(address, address)
		case policy.Dispatch:
			x.Verdict = expr.Verdict{Kind: expr.VerdictJump, Chain: e.Chain}
		}
		all = append(all, x)
	}
	slices.SortFunc(all, compare)
	return all
}

func endpoint(a netip.Addr, p policy.Protocol, port uint16) string {
	return nft.Key(a.AsSlice(), []byte{byte(p)}, binary.BigEndian.AppendUint16(nil, port))
}

func compare(a, b nft.Element) int { return strings.Compare(a.Key, b.Key) }

// Names of chains that no policy's chain has: those of package policy have a slash or an underscore.
const (
	egressChain  = "egress"
	ingressChain = "ingress"
	rejectChain  = "reject"
)

// priority is that of the base chains: after other programs' filters.
const priority = 10

// base returns a base chain of the forward hook.
func base(name string, priority nftables.ChainPriority, rules ...nft.Rule) nft.Chain {
	return nft.Chain{
		Name: name, Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward,
		Priority: nftables.ChainPriorityRef(priority), Rules: rules,
	}
}
