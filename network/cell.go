package network

import "slices"

// cell is what a [Table] stores for one key. There are tens of thousands of cells, and nearly all have one claim and
// are in sync. So the value is stored once, and anything further in an object of its own.
type cell[V comparable] struct {
	value V        // what the winning claim wants; without a claim, the actual value
	owner *Owner   // who made the winning claim; nil: no claim
	rest  *rest[V] // nil as a rule
	round uint32   // of Mark and Sweep
	marks marks
}

// rest is what a cell stores if it has several claims or is not in sync.
type rest[V comparable] struct {
	differs bool // the actual value is have, and not the desired one
	have    V
	others  []claim[V] // over which the winning one takes precedence
}

// claim is what an owner wants.
type claim[V comparable] struct {
	owner *Owner
	value V
}

// marks are the flags of a cell.
type marks uint8

const (
	present marks = 1 << iota // the kernel holds something
	settled                   // has been in sync: if it differs now, another process changed it

	// How the cell is counted, see [Table.Counts].
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

// want is what the winning claim wants; the zero value if there is none.
func (c *cell[V]) want() (v V) {
	if c.wanted() {
		v = c.value
	}
	return v
}

// have is the actual value; the zero value if there is none.
func (c *cell[V]) have() (v V) {
	switch {
	case !c.is(present):
		return v
	case c.rest != nil && c.rest.differs:
		return c.rest.have
	}
	return c.value
}

// others are the claims over which the winning one takes precedence.
func (c *cell[V]) others() []claim[V] {
	if c.rest == nil {
		return nil
	}
	return c.rest.others
}

// differs reports whether the actual object is not the desired one.
func (c *cell[V]) differs() bool { return !c.is(present) || c.rest != nil && c.rest.differs }

// observe sets the actual value, if there is one.
func (c *cell[V]) observe(v V, there bool) { c.set(claim[V]{c.owner, c.want()}, c.others(), v, there) }

// set sets all of a cell: the winning claim, whose owner is nil if there is none, the others, and the actual value.
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

// add adds the claim of an owner that has none here.
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

// drop withdraws an owner's claim, if it has one.
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

// oldest finds the claim that takes precedence over the others; -1 if there are none.
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
