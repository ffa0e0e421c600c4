package network

import (
	"slices"
	"time"
)

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
	dirty map[K]struct{} // keys that differ
	most  int            // how many dirty has held since it was made
	// paced holds the keys that are repaired again and again, or cannot be: they are not tried before their time.
	paced map[K]*pace
	// changedBy says of keys that were right, and differ now, who did that, as far as it was told: see [Tables.ToldBy].
	changedBy map[K]string
	toldBy    *string // who does what is observed now
	ours      func(K, V) bool
	// changed, if set, is called after every change on either side of a key; seen, after what is there has changed, with
	// what was there and what is. The zero value stands for nothing.
	changed func(K)
	seen    func(before, now V)
	round   uint32    // of Mark and Sweep
	counts  Count     // but for Pending
	calmed  time.Time // when calmDown last looked
}

type cell[V comparable] struct {
	claim   claim[V] // the best
	others  []claim[V]
	have    V
	round   uint32
	wanted  bool
	present bool
	settled bool // has been as wanted before: to differ now means that somebody changed it
	counted tally
}

// tally is as what a cell is counted.
type tally struct{ wanted, present, unwanted bool }

type claim[V comparable] struct {
	owner Owner
	value V
}

// NewTable returns an empty table. ours says whether an object that nobody wants is selvage's own and has to go.
func NewTable[K comparable, V comparable](ours func(K, V) bool) *Table[K, V] {
	return &Table[K, V]{cells: map[K]*cell[V]{}, dirty: map[K]struct{}{}, paced: map[K]*pace{}, ours: ours}
}

func (t *Table[K, V]) cell(k K) *cell[V] {
	c := t.cells[k]
	if c == nil {
		c = &cell[V]{}
		t.cells[k] = c
	}
	return c
}

// update brings the set of differing keys up to date with c, and drops a cell that says nothing.
func (t *Table[K, V]) update(k K, c *cell[V]) {
	differs := false
	switch {
	case c.wanted:
		differs = !c.present || c.have != c.claim.value
		t.blame(k, differs && c.settled)
		c.settled = c.settled || !differs
	case c.present:
		differs = t.ours(k, c.have)
		t.blame(k, false)
		c.settled = false
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
	if t.changed != nil {
		t.changed(k)
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
	case changed && t.toldBy != nil && *t.toldBy != "":
		if t.changedBy == nil {
			t.changedBy = map[K]string{}
		}
		t.changedBy[k] = *t.toldBy
	}
}

// recheck asks again whether what is there and wanted by nobody is ours, after the answer has changed.
func (t *Table[K, V]) recheck() {
	for k, c := range t.cells {
		if c.present && !c.wanted {
			t.update(k, c)
		}
	}
}

// Want says that o asks for v under k. What o asked for there before is replaced.
func (t *Table[K, V]) Want(o Owner, k K, v V) {
	c := t.cell(k)
	before, wanted := c.claim.value, c.wanted
	c.drop(o.Name)
	c.add(claim[V]{o, v})
	if !wanted || c.claim.value != before {
		t.anew(k, c)
	}
	t.update(k, c)
}

// anew says that another value is wanted under k than before, or one at all: the difference is of our own making, and whatever pace
// was kept for the last one says nothing about this one.
func (t *Table[K, V]) anew(k K, c *cell[V]) {
	c.settled = false
	delete(t.paced, k)
}

// Unwant takes back what the owner of that name asked for under k, if anything.
func (t *Table[K, V]) Unwant(owner string, k K) {
	c := t.cells[k]
	if c == nil {
		return
	}
	before := c.claim.value
	c.drop(owner)
	if c.wanted && c.claim.value != before {
		t.anew(k, c)
	}
	t.update(k, c)
}

func (c *cell[V]) add(n claim[V]) {
	if !c.wanted {
		c.claim, c.wanted = n, true
		return
	}
	if n.owner.before(c.claim.owner) {
		c.claim, n = n, c.claim
	}
	c.others = append(c.others, n)
}

func (c *cell[V]) drop(owner string) {
	c.others = slices.DeleteFunc(c.others, func(x claim[V]) bool { return x.owner.Name == owner })
	if !c.wanted || c.claim.owner.Name != owner {
		return
	}
	if len(c.others) == 0 {
		c.claim, c.wanted = claim[V]{}, false
		return
	}
	best := 0
	for i, x := range c.others {
		if x.owner.before(c.others[best].owner) {
			best = i
		}
	}
	c.claim = c.others[best]
	c.others = slices.Delete(c.others, best, best+1)
}

// Observe says that the kernel holds v under k.
func (t *Table[K, V]) Observe(k K, v V) {
	c := t.cell(k)
	if !c.present || c.have != v {
		t.stirred(k)
		if t.seen != nil {
			t.seen(c.have, v)
		}
	}
	c.have, c.present, c.round = v, true, t.round
	t.update(k, c)
}

// ObserveGone says that the kernel holds nothing under k.
func (t *Table[K, V]) ObserveGone(k K) {
	c := t.cells[k]
	if c == nil || !c.present {
		return
	}
	t.stirred(k)
	var none V
	if t.seen != nil {
		t.seen(c.have, none)
	}
	c.have, c.present = none, false
	t.update(k, c)
}

// wentAlong says that what where picks of what is there vanished with something it hung on. Nobody changed it for its
// own sake, so to make it again is no repair.
func (t *Table[K, V]) wentAlong(where func(K, V) bool) {
	for k, c := range t.cells {
		if c.present && where(k, c.have) {
			c.settled = false
			t.ObserveGone(k)
		}
	}
}

// Mark begins a full read: after it everything there is gets observed, and then [Table.Sweep] is called.
func (t *Table[K, V]) Mark() { t.round++ }

// Sweep ends a full read: what where picks and was not observed since [Table.Mark] is gone.
func (t *Table[K, V]) Sweep(where func(K) bool) {
	for k, c := range t.cells {
		if c.present && c.round != t.round && where(k) {
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

func (c *cell[V]) change() Change[V] {
	return Change[V]{Want: c.claim.value, Have: c.have, Wanted: c.wanted, Present: c.present}
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
		for _, x := range c.others {
			if !yield(k, x.owner) {
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
	now := tally{wanted: c.wanted, present: c.wanted && !differs, unwanted: !c.wanted && differs}
	t.counts.Wanted += one(now.wanted) - one(c.counted.wanted)
	t.counts.Present += one(now.present || now.unwanted) - one(c.counted.present || c.counted.unwanted)
	t.counts.Unwanted += one(now.unwanted) - one(c.counted.unwanted)
	c.counted = now
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// PendingCount is how many keys differ.
func (t *Table[K, V]) PendingCount() int { return len(t.dirty) }
