package nft

import "github.com/google/nftables"

// reading is what is in the kernel, but for the elements of sets that are not the content's.
type reading struct {
	table    *nftables.Table // nil: there is none
	sets     map[string]definition
	chains   map[string]*nftables.Chain
	rules    map[string][]*nftables.Rule // by chain
	elements map[string][]Element        // of the sets that the content fills
	// broken is why the table could not be read any further; what cannot be read is not as it is to be.
	broken error
}

// plan is what has to be done. The zero value is nothing.
type plan struct {
	whole  bool // the table has to be made anew
	rules  bool // the rules have to be
	refill []Set
}

func (p plan) nothing() bool { return !p.whole && !p.rules && len(p.refill) == 0 }

// makePlan compares what is there with what is wanted. The table is ours with all that is in it: what does not belong
// there makes it differ too.
func makePlan(want Content, have reading) (p plan) {
	switch {
	case have.table == nil, have.broken != nil,
		have.table.Flags != 0, // it is asleep ("dormant"), or some program's own
		len(have.sets) != len(want.Sets) || len(have.chains) != len(want.Chains):
		return plan{whole: true}
	}
	for _, s := range want.Sets {
		if have.sets[s.Name] != s.definition() {
			return plan{whole: true}
		}
		if !s.Others && !equal(s.Elements, have.elements[s.Name]) {
			p.refill = append(p.refill, s)
		}
	}
	for _, c := range want.Chains {
		if !c.same(have.chains[c.Name]) {
			return plan{whole: true}
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
