package nft

import "github.com/google/nftables"

// actual is the table in the kernel, without the elements of external sets.
type actual struct {
	table    *nftables.Table // nil: it does not exist
	sets     map[string]definition
	chains   map[string]*nftables.Chain
	rules    map[string][]*nftables.Rule // by chain
	elements map[string][]Element        // of sets that are not external
	// unreadable is why the rest of the table could not be read. Such a table differs from any desired content.
	unreadable error
}

// plan is what has to be changed. The zero value changes nothing.
type plan struct {
	recreate bool // the whole table
	rules    bool // replace all rules
	refill   []Set
}

func (p plan) empty() bool { return !p.recreate && !p.rules && len(p.refill) == 0 }

// makePlan compares the actual table with the desired content. The whole table is ours, so foreign objects in it are a
// difference too.
func makePlan(want Content, have actual) (p plan) {
	switch {
	case have.table == nil, have.unreadable != nil,
		have.table.Flags != 0, // dormant, or owned by a process
		len(have.sets) != len(want.Sets) || len(have.chains) != len(want.Chains):
		return plan{recreate: true}
	}
	for _, s := range want.Sets {
		if have.sets[s.Name] != s.definition() {
			return plan{recreate: true}
		}
		if !s.External && !equal(s.Elements, have.elements[s.Name]) {
			p.refill = append(p.refill, s)
		}
	}
	for _, c := range want.Chains {
		if !c.same(have.chains[c.Name]) {
			return plan{recreate: true}
		}
		p.rules = p.rules || !sameRules(c.Rules, have.rules[c.Name])
	}
	return p
}

func sameRules(want []Rule, have []*nftables.Rule) bool {
	if len(want) != len(have) {
		return false
	}
	for i, w := range want {
		if !w.same(have[i]) {
			return false
		}
	}
	return true
}
