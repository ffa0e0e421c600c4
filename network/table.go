package network

import "time"

// Owner is who wants an object: a lease, or the node itself.
type Owner struct {
	Name  string // tells owners apart
	Grace bool   // the lease is gone and its entries only kept for a while: any live claim goes first
	Age   int64  // the lower, the earlier it goes; the store revision that created the lease
}

// before reports whether o's claim goes before p's.
func (o Owner) before(p Owner) bool {
	if o.Grace != p.Grace {
		return !o.Grace
	}
	if o.Age != p.Age {
		return o.Age < p.Age
	}
	return o.Name < p.Name
}

// Change is what has to be done about one key. Want is meaningful if Wanted, Have if Present; at least one is.
type Change[V comparable] struct {
	Want, Have      V
	Wanted, Present bool
}

// Table holds one kind of kernel object: who wants what, what the kernel has, and which keys differ.
//
// Several owners may want one key; the best claim counts (see [Owner]) and losing an owner never removes what another
// still wants. What is present and wanted by nobody differs only if it is ours, as the table was told how to tell.
//
// A change on either side costs O(1), and [Table.Pending] walks only the keys that differ. A Table is not safe for
// concurrent use.
type Table[K comparable, V comparable] struct {
	cells map[K]*cell[V]
	spare []cell[V]
	dirty map[K]struct{} // keys that differ
	most  int            // how many dirty has held since it was made
	// paced holds the keys that are repaired again and again, or cannot be: they are not tried before their time.
	retries map[K]*retry
	// changedBy says of keys that were right, and differ now, who did that, as far as it was told: see [Tables.Attribute].
	changedBy map[K]string
	tables    *Tables // that it is one of; nil in tests
	kind      kind[K, V]
	apply     func([]Update[K, V]) // changes the kernel, see ApplyBatch
	round     uint32               // of Mark and Sweep
	counts    Count                // but for Pending
	expired   time.Time            // when expireRetries last looked
}

// newTable returns an empty table of a kind.
func newTable[K, V comparable](k kind[K, V]) *Table[K, V] {
	if k.ours == nil {
		k.ours = func(K, V) bool { return false }
	}
	return &Table[K, V]{
		cells: map[K]*cell[V]{}, dirty: map[K]struct{}{}, retries: map[K]*retry{}, kind: k, apply: cannotApply[K, V],
	}
}

func (t *Table[K, V]) cell(k K) *cell[V] {
	c := t.cells[k]
	if c == nil {
		if len(t.spare) == 0 {
			t.spare = make([]cell[V], min(max(len(t.cells)/8, 1), mostSpare))
		}
		c = &t.spare[0]
		t.spare = t.spare[1:]
		t.cells[k] = c
	}
	return c
}

// mostSpare is how many cells are allocated at once: alone, each takes up to a quarter more. What is allocated together is freed
// together.
const mostSpare = 16

// grow makes room for the keys of so many owners, in an empty table: to grow as they come costs twice as much.
func (t *Table[K, V]) grow(owners int, like *State) {
	n := owners * len(t.kind.items(like))
	if len(t.cells) == 0 && n > fewDirty {
		t.cells, t.dirty, t.most = make(map[K]*cell[V], n), make(map[K]struct{}, n), n
	}
}

// update brings the set of differing keys up to date with c, and drops a cell that says nothing.
func (t *Table[K, V]) update(k K, c *cell[V]) {
	differs := false
	switch {
	case c.wanted():
		differs = c.differs()
		t.blame(k, differs && c.is(settled))
		c.mark(settled, c.is(settled) || !differs)
	case c.is(present):
		differs = t.kind.ours(k, c.value)
		t.blame(k, false)
		c.mark(settled, false)
	default:
		t.blame(k, false)
		delete(t.cells, k)
	}
	t.count(c, differs)
	if differs {
		t.dirty[k] = struct{}{}
		t.most = max(t.most, len(t.dirty))
	} else {
		delete(t.dirty, k)
		t.shrink()
	}
	if t.kind.changed != nil {
		t.kind.changed(k)
	}
}

// fewDirty is how large the set of keys that differ may stay when it is empty.
const fewDirty = 128

// shrink makes the set of keys that differ anew when it is empty after it was large: a map never gets smaller, and to go
// through it costs what it once held, so that one change would cost more where there are more leases.
func (t *Table[K, V]) shrink() {
	if len(t.dirty) == 0 && t.most > fewDirty {
		t.dirty, t.most = map[K]struct{}{}, 0
	}
}

// blame notes who has changed what was right, if that was told, and forgets it once it is right again.
func (t *Table[K, V]) blame(k K, changed bool) {
	switch {
	case !changed && len(t.changedBy) > 0:
		delete(t.changedBy, k)
	case changed && t.tables != nil && t.tables.author != "":
		if t.changedBy == nil {
			t.changedBy = map[K]string{}
		}
		t.changedBy[k] = t.tables.author
	}
}

// recheck asks again whether what is there and wanted by nobody is ours, after the answer has changed.
func (t *Table[K, V]) recheck() {
	for k, c := range t.cells {
		if c.is(present) && !c.wanted() {
			t.update(k, c)
		}
	}
}

// Want says that o asks for v under k. What o asked for there before is replaced.
func (t *Table[K, V]) Want(o Owner, k K, v V) { t.want(&o, k, v) }

// want does the same for an owner that is shared among what it asks for, and not to be changed.
func (t *Table[K, V]) want(o *Owner, k K, v V) {
	c := t.cell(k)
	before, wanted := c.want(), c.wanted()
	c.drop(o.Name)
	c.add(claim[V]{o, v})
	if !wanted || c.value != before {
		t.anew(k, c)
	}
	t.update(k, c)
}

// anew says that another value is wanted under k than before, or one at all: the difference is of our own making, and whatever pace
// was kept for the last one says nothing about this one.
func (t *Table[K, V]) anew(k K, c *cell[V]) {
	c.mark(settled, false)
	delete(t.retries, k)
}

// Unwant takes back what the owner of that name asked for under k, if anything.
func (t *Table[K, V]) Unwant(owner string, k K) {
	c := t.cells[k]
	if c == nil {
		return
	}
	before := c.want()
	c.drop(owner)
	if c.wanted() && c.value != before {
		t.anew(k, c)
	}
	t.update(k, c)
}

// Observe says that the kernel holds v under k.
func (t *Table[K, V]) Observe(k K, v V) {
	c := t.cell(k)
	if have := c.have(); !c.is(present) || have != v {
		t.retrySoon(k)
		if t.kind.observed != nil {
			t.kind.observed(have, v)
		}
		c.observe(v, true)
	}
	c.round = t.round
	t.update(k, c)
}

// ObserveGone says that the kernel holds nothing under k.
func (t *Table[K, V]) ObserveGone(k K) {
	c := t.cells[k]
	if c == nil || !c.is(present) {
		return
	}
	t.retrySoon(k)
	var none V
	if t.kind.observed != nil {
		t.kind.observed(c.have(), none)
	}
	c.observe(none, false)
	t.update(k, c)
}

// cascadeGone says that what where picks of what is there vanished with something it hung on. Nobody changed it for its
// own sake, so to make it again is no repair.
func (t *Table[K, V]) cascadeGone(where func(K, V) bool) {
	for k, c := range t.cells {
		if c.is(present) && where(k, c.have()) {
			c.mark(settled, false)
			t.ObserveGone(k)
		}
	}
}

// Mark begins a full read: after it everything there is gets observed, and then [Table.Sweep] is called.
func (t *Table[K, V]) Mark() { t.round++ }

// Sweep ends a full read: what where picks and was not observed since [Table.Mark] is gone.
func (t *Table[K, V]) Sweep(where func(K) bool) {
	for k, c := range t.cells {
		if c.is(present) && c.round != t.round && where(k) {
			t.ObserveGone(k)
		}
	}
}

// Get returns what is wanted and what is there under k.
func (t *Table[K, V]) Get(k K) Change[V] {
	if c := t.cells[k]; c != nil {
		return c.change()
	}
	return Change[V]{}
}

// All calls yield with every key that is wanted or present, in no order, until it returns false.
func (t *Table[K, V]) All(yield func(K, Change[V]) bool) {
	for k, c := range t.cells {
		if !yield(k, c.change()) {
			return
		}
	}
}

// Pending calls yield with every key that differs, in no order, until it returns false. yield may change the table.
func (t *Table[K, V]) Pending(yield func(K, Change[V]) bool) {
	for k := range t.dirty {
		if !yield(k, t.cells[k].change()) {
			return
		}
	}
}

// Losers calls yield with every claim that has to give way to a better one under its key.
func (t *Table[K, V]) Losers(yield func(K, Owner) bool) {
	for k, c := range t.cells {
		for _, x := range c.others() {
			if !yield(k, *x.owner) {
				return
			}
		}
	}
}

// Counts counts keys; it costs nothing. What is there and somebody else's, be it in the place of what is wanted, is not counted.
func (t *Table[K, V]) Counts() Count {
	c := t.counts
	c.Pending = len(t.dirty) - c.Unwanted
	return c
}

// count brings the counts up to date with c.
func (t *Table[K, V]) count(c *cell[V], differs bool) {
	unwanted := !c.wanted() && differs
	there := unwanted || c.wanted() && !differs
	t.counts.Wanted += one(c.wanted()) - one(c.is(countedWanted))
	t.counts.Present += one(there) - one(c.is(countedPresent))
	t.counts.Unwanted += one(unwanted) - one(c.is(countedUnwanted))
	c.mark(countedWanted, c.wanted())
	c.mark(countedPresent, there)
	c.mark(countedUnwanted, unwanted)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// PendingCount is how many keys differ.
func (t *Table[K, V]) PendingCount() int { return len(t.dirty) }
