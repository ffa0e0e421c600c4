package network

import "slices"

// cell is what a [Table] keeps of one key. There are tens of thousands of them, and of nearly all the kernel holds just what
// the one claim there is asks for. So that is kept once, and what goes beyond it in an object of its own.
type cell[V comparable] struct {
	value V        // what the best claim asks for; of what nobody wants, what is there
	owner *Owner   // whose the best claim is; nil: nobody wants it
	rest  *rest[V] // nil as a rule
	round uint32   // of Mark and Sweep
	marks marks
}

// rest is what a cell holds beyond the rule.
type rest[V comparable] struct {
	differs bool // what is there is have, and not what is wanted
	have    V
	others  []claim[V] // that have to give way to the best
}

// claim is what somebody asks for.
type claim[V comparable] struct {
	owner *Owner
	value V
}

// marks is what is true of a cell.
type marks uint8

const (
	present marks = 1 << iota // the kernel holds something
	settled                   // has been as wanted before: to differ now means that somebody changed it

	// As what the cell is counted, see [Table.Counts].
	countedWanted
	countedPresent
	countedUnwanted
)

func (c *cell[V]) is(m marks) bool { return c.marks&m != 0 }

func (c *cell[V]) mark(m marks, is bool) {
	if is {
		c.marks |= m
	} else {
		c.marks &^= m
	}
}

func (c *cell[V]) wanted() bool { return c.owner != nil }

// want is what the best claim asks for; the zero value if there is none.
func (c *cell[V]) want() (v V) {
	if c.wanted() {
		v = c.value
	}
	return v
}

// have is what is there; the zero value if nothing is.
func (c *cell[V]) have() (v V) {
	switch {
	case !c.is(present):
		return v
	case c.rest != nil && c.rest.differs:
		return c.rest.have
	}
	return c.value
}

// others are the claims that have to give way to the best one.
func (c *cell[V]) others() []claim[V] {
	if c.rest == nil {
		return nil
	}
	return c.rest.others
}

// differs reports whether what is there is not what is wanted.
func (c *cell[V]) differs() bool { return !c.is(present) || c.rest != nil && c.rest.differs }

// observe says what is there, if anything.
func (c *cell[V]) observe(v V, there bool) { c.set(claim[V]{c.owner, c.want()}, c.others(), v, there) }

// set says all of a cell: the best claim, whose owner is nil if there is none, the others, and what is there.
func (c *cell[V]) set(best claim[V], others []claim[V], have V, there bool) {
	c.owner, c.value = best.owner, best.value
	c.mark(present, there)
	differs := there && c.wanted() && have != best.value
	switch {
	case differs || len(others) > 0:
		r := rest[V]{differs: differs, others: others}
		if differs {
			r.have = have
		}
		if c.rest == nil {
			c.rest = &r
		} else {
			*c.rest = r
		}
	default:
		c.rest = nil
	}
	if there && !c.wanted() {
		c.value = have
	}
}

// add takes in a claim, of an owner that has none here.
func (c *cell[V]) add(n claim[V]) {
	best, others := claim[V]{c.owner, c.value}, c.others()
	switch {
	case !c.wanted():
		best = n
	case n.owner.before(*best.owner):
		best, others = n, append(others, best)
	default:
		others = append(others, n)
	}
	c.set(best, others, c.have(), c.is(present))
}

// drop takes an owner's claim back, if it has one.
func (c *cell[V]) drop(owner string) {
	if !c.wanted() {
		return
	}
	best := claim[V]{c.owner, c.value}
	others := slices.DeleteFunc(c.others(), func(x claim[V]) bool { return x.owner.Name == owner })
	if best.owner.Name == owner {
		best = claim[V]{}
		if i := oldest(others); i >= 0 {
			best = others[i]
			others = slices.Delete(others, i, i+1)
		}
	}
	c.set(best, others, c.have(), c.is(present))
}

// oldest finds the best of some claims; -1 if there are none.
func oldest[V comparable](claims []claim[V]) int {
	best := -1
	for i, x := range claims {
		if best < 0 || x.owner.before(*claims[best].owner) {
			best = i
		}
	}
	return best
}

func (c *cell[V]) change() Change[V] {
	return Change[V]{Want: c.want(), Have: c.have(), Wanted: c.wanted(), Present: c.is(present)}
}
