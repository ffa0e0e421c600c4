package policy

import (
	"reflect"

	"github.com/selvage-net/selvage/subnet"
)

// pending is what differs from the table that the caller has: levels, so that what was changed and changed back is no
// change.
type pending struct {
	sets     map[string]Set    // that the caller has
	chains   map[string]*Chain // that the caller has
	elements map[string]map[Element]int8
	touched  map[string]bool // chains and sets that may have been created, changed or removed
}

func newPending() pending {
	return pending{
		sets: map[string]Set{}, chains: map[string]*Chain{}, elements: map[string]map[Element]int8{},
		touched: map[string]bool{},
	}
}

// toggle adds an element to a set or removes it: sign is 1 or -1.
func (p *pending) toggle(set string, e Element, sign int8) {
	delta := p.elements[set]
	if delta == nil {
		delta = map[Element]int8{}
		p.elements[set] = delta
	}
	if delta[e] += sign; delta[e] == 0 {
		delete(delta, e)
	}
}

// Changes returns what has changed since the last call. The first changes are those from an empty table.
func (c *Compiler) Changes() Changes {
	p := &c.pending
	ch := Changes{Sets: map[string]SetChange{}, Chains: map[string]*Chain{}}
	for name := range p.elements {
		p.touched[name] = true
	}
	for name := range p.touched {
		if change, ok := p.setChange(name, c.sets[name]); ok {
			ch.Sets[name] = change
		}
		if chain, changed := p.chainChange(name, c.chains[name]); changed {
			ch.Chains[name] = chain
		}
	}
	// To clear a map takes time in proportion to the most that it ever held.
	p.elements, p.touched = map[string]map[Element]int8{}, map[string]bool{}
	return ch
}

func (p *pending) setChange(name string, s *set) (change SetChange, ok bool) {
	had, has := p.sets[name]
	switch {
	case s == nil && !has:
		return change, false
	case s == nil:
		delete(p.sets, name)
		return SetChange{Set: had, Removed: true}, true
	}
	p.sets[name] = s.Set
	change = SetChange{Set: s.Set, Created: !has}
	for e, sign := range p.elements[name] {
		if sign > 0 {
			change.Add = append(change.Add, e)
		} else {
			change.Remove = append(change.Remove, e)
		}
	}
	return change, change.Created || len(change.Add)+len(change.Remove) > 0
}

func (p *pending) chainChange(name string, ch *chain) (changed *Chain, ok bool) {
	had := p.chains[name]
	switch {
	case ch == nil && had == nil:
		return nil, false
	case ch == nil:
		delete(p.chains, name)
		return nil, true
	case had != nil && had.Comment == ch.Comment && reflect.DeepEqual(had.Rules, ch.Rules):
		return nil, false
	}
	now := ch.Chain
	p.chains[name] = &now
	return &now, true
}

// Table returns the whole table. It does not matter which changes were taken.
func (c *Compiler) Table() Table {
	t := NewTable()
	for name, s := range c.sets {
		t.Sets[name] = s.Set
		t.Elements[name] = map[Element]bool{}
		for _, e := range s.ranges {
			t.Elements[name][e] = true
		}
	}
	for name, ch := range c.chains {
		now := ch.Chain
		t.Chains[name] = &now
	}
	for _, p := range c.pods {
		for _, f := range subnet.Families() {
			c.contributions(p, f, func(set string, e Element) { t.Elements[set][e] = true })
		}
	}
	return t
}
