package vtep

import (
	"bytes"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// reading is what is in the kernel, but for the peers.
type reading struct {
	table    *nftables.Table // nil: there is none
	sets     map[string]definition
	chains   map[string]*nftables.Chain
	rules    map[string][]*nftables.Rule // by chain
	elements map[string][]element        // of the sets that the configuration fills
	// broken is why the table could not be read any further; what cannot be read is not as it is to be.
	broken error
}

// plan is what has to be done. The zero value is nothing.
type plan struct {
	whole  bool // the table has to be made anew
	rules  bool // the rules have to be
	refill []set
}

func (p plan) nothing() bool { return !p.whole && !p.rules && len(p.refill) == 0 }

// makePlan compares what is there with what is wanted. The table is ours with all that is in it: what does not belong
// there makes it differ too.
func makePlan(c Config, have reading) (p plan) {
	sets, chains := c.sets(), c.chains()
	switch {
	case have.table == nil, have.broken != nil,
		have.table.Flags != 0, // it is asleep ("dormant"), or some program's own
		len(have.sets) != len(sets) || len(have.chains) != len(chains):
		return plan{whole: true}
	}
	for _, s := range sets {
		if have.sets[s.name] != s.definition() {
			return plan{whole: true}
		}
		if s.filled && !equal(s.elements, have.elements[s.name]) {
			p.refill = append(p.refill, s)
		}
	}
	for _, x := range chains {
		if !sameChain(x.in(have.table), have.chains[x.name]) {
			return plan{whole: true}
		}
		p.rules = p.rules || !sameRules(x.rules, have.rules[x.name])
	}
	return p
}

func sameChain(want, have *nftables.Chain) bool {
	return have != nil && want.Type == have.Type && same(want.Hooknum, have.Hooknum) && same(want.Priority, have.Priority) && same(want.Policy, have.Policy)
}

func same[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func sameRules(want []rule, have []*nftables.Rule) bool {
	if len(want) != len(have) {
		return false
	}
	for i, w := range want {
		if !bytes.Equal(w.userData(), have[i].UserData) || !reflect.DeepEqual(w.exprs, uncounted(have[i].Exprs)) {
			return false
		}
	}
	return true
}

// uncounted returns the expressions with their counters at zero.
func uncounted(exprs []expr.Any) []expr.Any {
	out := make([]expr.Any, len(exprs))
	for i, e := range exprs {
		if _, ok := e.(*expr.Counter); ok {
			e = &expr.Counter{}
		}
		out[i] = e
	}
	return out
}
