package nft

import (
	"maps"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// plan is what has to be changed. The zero value changes nothing. A transaction makes the changes in the order of the
// fields: rules and elements that refer to chains and sets are deleted before these, and added after them.
type plan struct {
	recreate bool     // the whole table
	flush    []string // chains whose rules to delete
	empty    []string // sets of which to remove all elements
	remove   []elementChange
	sets     []string // to delete
	chains   []string // to delete
	// newChains are to be created, or to get their policy back.
	newChains []Chain
	newSets   []Set
	add       []elementChange
	rules     []Chain // whose rules to add

	changed []elementChange // sets with any change, and all their elements in normal form
}

// elementChange is a change to the elements of a set.
type elementChange struct {
	set      Set
	elements []Element
}

func (p plan) isEmpty() bool {
	return !p.recreate && len(p.flush)+len(p.empty)+len(p.remove)+len(p.sets)+len(p.chains)+len(p.newChains)+
		len(p.newSets)+len(p.add)+len(p.rules) == 0
}

// external reports whether an external set has to be created, and whether rules are replaced.
func (p plan) external() (created, rules bool) {
	return slices.ContainsFunc(p.newSets, func(s Set) bool { return s.External }), len(p.rules) > 0
}

// makePlan compares the actual table with the desired content. The whole table is ours, so foreign objects in it are
// a difference too. A base chain that is in sync is not touched, whatever else changes: while a base chain is
// registered or unregistered, the kernel drops packets that wait in an NFQUEUE (nf_queue_nf_hook_drop in
// net/netfilter/nf_queue.c).
func makePlan(want Content, have *actual) (p plan) {
	if have.flags != 0 || !have.exists {
		p.recreate = true
		have = &actual{}
	}
	recreate := p.recreate
	if p.compare(want, have, false) {
		// What replaces a set or a chain has its name, so that nothing may refer to the old one: delete all references.
		p = plan{recreate: recreate}
		p.compare(want, have, true)
	}
	return p
}

// compare plans all changes, and reports whether a set or a chain has to be replaced. If so, it is called again with
// replaced, which replaces all rules and the elements of all maps.
func (p *plan) compare(want Content, have *actual, replaced bool) (replaces bool) {
	found := 0
	for _, c := range want.Chains {
		h := have.chains[c.Name]
		if h != nil {
			found++
		}
		switch {
		case h == nil:
			p.newChains = append(p.newChains, c)
		case h.hook != c.hook():
			replaces = true
			p.chains, p.newChains = append(p.chains, c.Name), append(p.newChains, c)
		case h.hook.base && h.policy != nftables.ChainPolicyAccept:
			p.newChains = append(p.newChains, c)
		}
		if h != nil && !replaced && h.same(c.Rules) {
			continue
		}
		if h != nil && len(h.rules)+len(h.set) > 0 {
			p.flush = append(p.flush, c.Name)
		}
		if len(c.Rules) > 0 {
			p.rules = append(p.rules, c)
		}
	}
	if found != len(have.chains) {
		for _, name := range extra(have.chains, want.Chains, func(c Chain) string { return c.Name }) {
			p.flush, p.chains = append(p.flush, name), append(p.chains, name)
		}
	}
	found = 0
	for _, s := range want.Sets {
		h := have.sets[s.Name]
		if h != nil {
			found++
		}
		switch {
		case h == nil:
			p.newSet(s)
		case h.definition != s.definition(), replaced && s.Verdicts:
			replaces = replaces || h.definition != s.definition()
			p.removeSet(s.Name, h)
			p.newSet(s)
		case !s.External && !h.known(s):
			p.changeSet(s, h)
		}
	}
	if found != len(have.sets) {
		for _, name := range extra(have.sets, want.Sets, func(s Set) string { return s.Name }) {
			p.removeSet(name, have.sets[name])
		}
	}
	return replaces
}

// extra returns the names that the actual table has and the desired one lacks, in order.
func extra[A, W any](have map[string]A, want []W, name func(W) string) (names []string) {
	wanted := make(map[string]bool, len(want))
	for _, w := range want {
		wanted[name(w)] = true
	}
	for _, n := range slices.Sorted(maps.Keys(have)) {
		if !wanted[n] {
			names = append(names, n)
		}
	}
	return names
}

func (p *plan) newSet(s Set) {
	p.newSets = append(p.newSets, s)
	if list := normal(s.elements()); !s.External && (len(list) > 0 || s.List != nil) {
		p.add = append(p.add, elementChange{s, list})
		p.changed = append(p.changed, elementChange{s, list})
	}
}

// changeSet changes the elements of a set to the desired ones.
func (p *plan) changeSet(s Set, h *actualSet) {
	list, add, remove, known := h.difference(s)
	switch {
	case !known:
		p.empty = append(p.empty, s.Name)
		add = list
	case len(add)+len(remove) == 0:
		h.set(s, list)
		return
	case s.Interval && !s.ranges():
		// A range may begin or end inside of another one, which the kernel rejects even if that one is removed in the
		// same transaction (nft_rbtree_insert). Such sets are small: replace all.
		p.empty = append(p.empty, s.Name)
		add = list
	case len(remove) > 0:
		p.remove = append(p.remove, elementChange{s, remove})
	}
	if len(add) > 0 {
		p.add = append(p.add, elementChange{s, add})
	}
	p.changed = append(p.changed, elementChange{s, list})
}

// difference returns the desired elements of a set in normal form, and what has to be added and removed. known is false
// if the elements that the set has are not known.
func (s *actualSet) difference(want Set) (list, add, remove []Element, known bool) {
	if want.List != nil && want.List == s.list {
		add, remove, known = want.List.since(s.version)
		return want.List.elements, add, remove, known
	}
	list = normal(want.elements())
	if s.list != nil {
		return list, nil, nil, false
	}
	add, remove = difference(list, s.elements)
	return list, add, remove, true
}

// removeSet deletes a set. The elements of a map refer to chains, and are deleted before.
func (p *plan) removeSet(name string, h *actualSet) {
	switch flags := h.definition.flags; {
	case flags&unix.NFT_SET_ANONYMOUS != 0: // the kernel deletes it with the rule that it belongs to
		return
	case flags&unix.NFT_SET_MAP != 0:
		p.empty = append(p.empty, name)
	}
	p.sets = append(p.sets, name)
}

// record collects the changes of the plan, and elements to add to external sets.
func (p plan) record(t *Transaction, want Content, external SetElements) {
	if p.recreate {
		t.remove()
		t.addTable()
	}
	for _, name := range p.flush {
		t.Flush(name)
	}
	for _, name := range p.empty {
		t.Empty(name)
	}
	for _, c := range p.remove {
		t.Remove(c.set, c.elements)
	}
	for _, name := range p.sets {
		t.RemoveSet(name)
	}
	for _, name := range p.chains {
		t.RemoveChain(name)
	}
	for _, c := range p.newChains {
		t.AddChain(c)
	}
	for _, s := range p.newSets {
		t.AddSet(s)
	}
	for _, c := range p.add {
		t.Add(c.set, c.elements)
	}
	for _, s := range want.Sets {
		if s.External {
			t.Add(s, external[s.Name])
		}
	}
	for _, c := range p.rules {
		t.Append(c.Name, c.Rules...)
	}
}
