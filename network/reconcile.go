package network

import (
	"fmt"
	"slices"
	"time"
)

// Reconciler brings the kernel in sync with the tables' desired state.
type Reconciler struct {
	Tables *Tables
	// KeepUnwanted holds back all removals: until every lease is known, what no owner wants yet may be desired.
	KeepUnwanted bool
	// PeersUnknown holds back the routes that end packets, of [LastMetric]: until the routes to the peers are set,
	// which take precedence over them, packets go by another program's, such as flannel's one route to all peers.
	PeersUnknown bool
	// Drain, if not nil, takes the kernel's notifications up to now into the tables. Our own changes cause
	// notifications too, and thousands of them would otherwise wait for the end of the pass.
	Drain func()

	pass pass // the one being made; kept, so that an idle pass allocates nothing
	busy busy
}

// Pass applies what differs and is due: first everything that is desired, each kind resting on the ones before it,
// then, in reverse order, the removals. So a new path is in place before the old one is removed.
//
// A pass costs O(what differs). A change that fails stays pending and is tried again later; it does not stop the
// others.
func (r *Reconciler) Pass(now time.Time) Result {
	r.pass = pass{now: now, busy: r.busy}
	p := &r.pass
	r.Tables.peersUnknown = r.PeersUnknown
	for _, k := range r.Tables.kinds {
		r.drain(p)
		k.set(p)
	}
	if !r.KeepUnwanted {
		for _, k := range slices.Backward(r.Tables.kinds) {
			k.remove(p)
		}
	}
	for _, k := range r.Tables.kinds {
		k.expireRetries(now)
	}
	result := p.Result
	r.busy, r.pass = p.busy, pass{}
	return result
}

// drainFrom is the number of changes in a pass from which on draining pays.
const drainFrom = 1000

func (r *Reconciler) drain(p *pass) {
	if r.Drain != nil && p.Set >= drainFrom {
		r.Drain()
	}
}

// set makes the kernel hold what is desired. An object waits until all it rests on is there.
func (t *Table[K, V]) set(p *pass) {
	if t.kind.before != nil {
		t.kind.before(p)
	}
	t.setWhere(p, func(K) bool { return true })
}

// setWhere does the same for the keys that where selects.
func (t *Table[K, V]) setWhere(p *pass, where func(K) bool) {
	t.attempt(p, func(k K, c Change[V]) bool { return c.Wanted && where(k) && t.isReady(k, c.Want) })
}

// remove removes what is selvage's own, desired by no owner and used by no other object.
func (t *Table[K, V]) remove(p *pass) {
	t.attempt(p, func(k K, c Change[V]) bool { return !c.Wanted && !t.isUsed(k, c.Have) })
}

// attempt makes, in batches, the changes that which picks, of those that are due.
func (t *Table[K, V]) attempt(p *pass, which func(K, Change[V]) bool) {
	var batch []Update[K, V]
	calm := p.busy.calmAt(t.kind.late)
	flush := func() {
		if len(batch) == 0 {
			return
		}
		t.apply(batch)
		for _, u := range batch {
			t.applied(p, u)
		}
		batch = batch[:0]
	}
	t.Pending(func(k K, c Change[V]) bool {
		if !which(k, c) {
			return true
		}
		at, due := t.due(k, p.now)
		if t.kind.late > 0 && p.now.Before(calm) {
			at, due = calm, false
		}
		if !due {
			p.retryAt(at)
			return true
		}
		// Decide before the change whether it is a repair: the change may reveal that a device is gone.
		batch = append(batch, Update[K, V]{Key: k, Change: c, repair: t.cells[k].is(settled), by: t.changedBy[k]})
		if len(batch) == batchSize {
			flush()
		}
		return true
	})
	flush()
}

// applied records the outcome of an update in the table and the result.
func (t *Table[K, V]) applied(p *pass, u Update[K, V]) {
	k, c := u.Key, u.Change
	t.tried(k, p.now, c.Wanted && !u.repair, u.Err)
	switch {
	case u.Err != nil:
		p.Failures = append(p.Failures, Failure{Kind: t.kind.name, Key: fmt.Sprint(k), Err: u.Err})
		at, _ := t.due(k, p.now)
		p.retryAt(at)
		return
	case c.Wanted:
		t.Observe(k, c.Want)
		p.Set++
		if t.kind.wasSet != nil {
			t.kind.wasSet(p, k, c.Want)
		}
	default:
		t.ObserveGone(k)
		p.Removed++
	}
	if !t.kind.optional {
		p.busy.at(p.now)
	}
	if u.repair {
		p.repaired(t.kind.name, k, c.Present, u.by)
	}
	if t.inConflict(k) {
		f := Conflict{Kind: t.kind.name, Key: fmt.Sprint(k), Want: "nothing", Have: "nothing", By: u.by}
		if c.Wanted {
			f.Want = fmt.Sprintf("%+v", c.Want)
		}
		if c.Present {
			f.Have = fmt.Sprintf("%+v", c.Have)
		}
		p.Conflicts = append(p.Conflicts, f)
	}
}
