package network

import "time"

// Owner has objects in the desired state: a lease, or the node itself.
type Owner struct {
	Name  string // unique
	Grace bool   // the lease was withdrawn and is in its grace period: any live claim takes precedence
	Age   int64  // the store revision that created the lease: the lower one takes precedence
}

// before reports whether o's claim takes precedence over p's.
func (o Owner) before(p Owner) bool {
	if o.Grace != p.Grace {
		return !o.Grace
	}
	if o.Age != p.Age {
		return o.Age < p.Age
	}
	return o.Name < p.Name
}

// Change is the difference under one key.
type Change[V comparable] struct {
	Want, Have      V    // each is meaningful only if its flag is set
	Wanted, Present bool // the flags of Want and Have; at least one is set
}

// Table holds the desired and the actual objects of one kind, and the keys that differ.
//
// Several owners may want one key. The claim that takes precedence counts (see [Owner]), and losing an owner never
// removes an object that another owner still wants. An object that no owner wants differs only if it is selvage's own.
//
// A change on either side costs O(1), and [Table.Pending] walks only the keys that differ. A Table is not safe for
// concurrent use.
type Table[K comparable, V comparable] struct {
	cells map[K]*cell[V]
	spare []cell[V]
	dirty map[K]struct{} // keys that differ
	most  int            // how many dirty has held since it was made
	// retries holds the keys that failed or were repaired: they are not tried again before their backoff ends.
	retries map[K]*retry
	failed  map[K]struct{} // the keys in retries whose last attempt failed
	// changedBy names the processes that changed the keys that were in sync and differ now, where they are known: see
	// [Tables.Attribute].
	changedBy map[K]string
	on        map[string]int32 // number of actual objects on each device
	tables    *Tables          // that it is one of; nil in tests
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
		cells: map[K]*cell[V]{}, dirty: map[K]struct{}{}, retries: map[K]*retry{}, failed: map[K]struct{}{},
		kind: k, apply: cannotApply[K, V], on: map[string]int32{},
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

// mostSpare is the number of cells allocated at once: alone, each takes up to a quarter more. Cells allocated together
// are freed together.
const mostSpare = 16

// grow makes room for the keys of so many owners, in an empty table: to grow as they come costs twice as much.
func (t *Table[K, V]) grow(owners int, like *State) {
	n := owners * len(t.kind.items(like))
	if len(t.cells) == 0 && n > fewDirty {
		t.cells, t.dirty, t.most = make(map[K]*cell[V], n), make(map[K]struct{}, n), n
	}
}

// update brings the set of differing keys up to date with c, and deletes an empty cell.
func (t *Table[K, V]) update(k K, c *cell[V]) {
	t.noteChange()
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

// noteChange counts for [Tables.Changes].
func (t *Table[K, V]) noteChange() {
	if t.tables != nil {
		t.tables.changes++
	}
}

// noteMove counts for [Tables.Moves].
func (t *Table[K, V]) noteMove() {
	if t.tables != nil {
		t.tables.moves++
	}
}

// fewDirty is the size up to which the set of keys that differ is kept when it is empty.
const fewDirty = 128

// shrink replaces the set of keys that differ when it is empty after it was large: a map never gets smaller, and
// iterating over it costs what it once held, so that one change would cost more where there are more leases.
func (t *Table[K, V]) shrink() {
	if len(t.dirty) == 0 && t.most > fewDirty {
		t.dirty, t.most = map[K]struct{}{}, 0
	}
}

// blame records which process changed a key that was in sync, if known, until the key is in sync again.
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

// recheck decides again which objects that no owner wants are selvage's own.
func (t *Table[K, V]) recheck() {
	for k, c := range t.cells {
		if c.is(present) && !c.wanted() {
			t.update(k, c)
		}
	}
}

// Want records that o wants v under k. It replaces o's previous desired state under k.
func (t *Table[K, V]) Want(o Owner, k K, v V) { t.want(&o, k, v) }

// want does the same for an owner that all its claims share; it must not change.
func (t *Table[K, V]) want(o *Owner, k K, v V) {
	c := t.cell(k)
	before, wanted := c.want(), c.wanted()
	c.drop(o.Name)
	c.add(claim[V]{o, v})
	if !wanted || c.value != before {
		t.reset(k, c)
	}
	t.update(k, c)
	t.claimed()
}

// claimed reports a change of what is desired.
func (t *Table[K, V]) claimed() {
	if t.kind.claimed != nil {
		t.kind.claimed()
	}
}

// reset records that another value is desired under k than before. The difference is of our own making, and the backoff
// of the last value does not apply to this one.
func (t *Table[K, V]) reset(k K, c *cell[V]) {
	c.mark(settled, false)
	t.forget(k)
}

// Unwant withdraws the claim that the owner of that name has on k, if any.
func (t *Table[K, V]) Unwant(owner string, k K) {
	c := t.cells[k]
	if c == nil {
		return
	}
	before := c.want()
	c.drop(owner)
	if c.wanted() && c.value != before {
		t.reset(k, c)
	}
	t.update(k, c)
	t.claimed()
}

// Observe records that the kernel holds v under k.
func (t *Table[K, V]) Observe(k K, v V) {
	c := t.cell(k)
	if have := c.have(); !c.is(present) || have != v {
		t.noteMove()
		t.retrySoon(k)
		if t.kind.observed != nil {
			t.kind.observed(have, v)
		}
		if c.is(present) {
			t.countLink(k, &have, &v)
		} else {
			t.countLink(k, nil, &v)
		}
		c.observe(v, true)
	}
	c.round = t.round
	t.update(k, c)
}

// ObserveGone records that the kernel holds nothing under k.
func (t *Table[K, V]) ObserveGone(k K) {
	c := t.cells[k]
	if c == nil || !c.is(present) {
		return
	}
	t.noteMove()
	t.retrySoon(k)
	var none V
	if t.kind.observed != nil {
		t.kind.observed(c.have(), none)
	}
	have := c.have()
	t.countLink(k, &have, nil)
	c.observe(none, false)
	t.update(k, c)
}

// cascadeGone records that the actual objects that where picks vanished with something they rested on. No other process
// changed them, so setting them again is no repair.
func (t *Table[K, V]) cascadeGone(where func(K, V) bool) {
	for k, c := range t.cells {
		if c.is(present) && where(k, c.have()) {
			c.mark(settled, false)
			t.ObserveGone(k)
		}
	}
}

// Mark begins a full read: every actual object is then observed, and [Table.Sweep] ends it.
func (t *Table[K, V]) Mark() { t.round++ }

// Sweep ends a full read: objects that where picks and that were not observed since [Table.Mark] are gone.
func (t *Table[K, V]) Sweep(where func(K) bool) {
	for k, c := range t.cells {
		if c.is(present) && c.round != t.round && where(k) {
			t.ObserveGone(k)
		}
	}
}

// Get returns the desired and the actual object under k.
func (t *Table[K, V]) Get(k K) Change[V] {
	if c := t.cells[k]; c != nil {
		return c.change()
	}
	return Change[V]{}
}

// All calls yield with every key that is desired or present, in no order, until it returns false.
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

// Losers calls yield with every claim over which another claim on its key takes precedence.
func (t *Table[K, V]) Losers(yield func(K, Owner) bool) {
	for k, c := range t.cells {
		for _, x := range c.others() {
			if !yield(k, *x.owner) {
				return
			}
		}
	}
}

// Counts counts keys, in O(1). Foreign objects are not counted, even in the place of a desired one.
func (t *Table[K, V]) Counts() Count {
	c := t.counts
	c.Pending, c.Optional = len(t.dirty)-c.Unwanted, t.kind.optional
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

// PendingCount returns the number of keys that differ.
func (t *Table[K, V]) PendingCount() int { return len(t.dirty) }
