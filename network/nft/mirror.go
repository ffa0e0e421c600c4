package nft

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"
)

// Mirror keeps a large table in sync. Unlike [Table.Ensure] it remembers what its last transaction left in the kernel,
// and reads again only what another process changed since. That needs [Mirror.Watch] to run; while it does not, each
// [Mirror.Ensure] reads everything.
//
// Its methods are not safe for concurrent use, except Watch and Resync, which run beside Ensure. The table has no
// external sets.
type Mirror struct {
	table *Table
	have  *actual // nil: not known

	mu       sync.Mutex
	watching bool
	stale    stale
}

// stale is what another process may have changed.
type stale struct {
	all    bool            // everything
	shape  bool            // which chains and sets there are
	rules  map[string]bool // of these chains
	values map[string]bool // the elements of these sets
}

// Mirror returns a mirror of the table. A table has at most one.
func (t *Table) Mirror() *Mirror { return &Mirror{table: t, stale: newStale(true)} }

func newStale(all bool) stale {
	return stale{all: all, rules: map[string]bool{}, values: map[string]bool{}}
}

// Watch takes note of external changes to the table and calls changed after each, until ctx ends. Call Ensure then.
//
// Watch calls ready once, when it misses no event from then on.
func (m *Mirror) Watch(ctx context.Context, ready, changed func()) error {
	set := func(watching bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.watching, m.stale.all = watching, true
	}
	defer set(false)
	return Watch(ctx, func() { set(true); ready() }, func() { set(true); changed() }, func(events []Event) {
		if m.note(events) {
			changed()
		}
	})
}

// note reports whether events concern the table, and takes note of what to read again.
func (m *Mirror) note(events []Event) (concerned bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range events {
		if !m.table.Concerns(e) {
			continue
		}
		concerned = true
		switch e.Type {
		case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
			m.stale.rules[e.Chain] = true
		case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
			m.stale.values[e.Set] = true
		case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET:
			m.stale.values[e.Set], m.stale.shape = true, true
		default:
			m.stale.shape = true
		}
	}
	return concerned
}

// Resync makes the next Ensure read the whole table.
func (m *Mirror) Resync() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale.all = true
}

// Ensure brings the table in sync with the desired content, in one transaction, and reports whether it changed
// anything. It removes everything else from the table.
//
// Its time depends on the number of sets and chains, and on the size of those that differ from the last Ensure.
// Ensure keeps the lists of elements and rules, so the caller must not change them; a list that is passed again is
// recognized by its address, without a look at its items. Elements that are sorted by their keys need not be copied. Of
// a [List], only what has changed counts.
func (m *Mirror) Ensure(want Content) (changed bool, err error) {
	var known *actual
	read := func() (have *actual, err error) {
		known, err = m.read(want)
		return known, err
	}
	changed, err = m.table.ensure(want, nil, read, (*actual).apply)
	if err != nil {
		return changed, err // we know nothing now, and read everything next time
	}
	m.have = known
	return changed, nil
}

// read brings what we know of the kernel up to date. We know nothing until Ensure has finished.
func (m *Mirror) read(want Content) (known *actual, err error) {
	m.mu.Lock()
	s := m.stale
	m.stale = newStale(!m.watching)
	m.mu.Unlock()
	known, m.have = m.have, nil
	t := m.table
	switch {
	case known == nil || s.all:
		return t.readAll(want)
	case s.shape:
		shape, err := t.Conn.read(t.family, t.name)
		if err != nil {
			return nil, err
		}
		for name, x := range shape.sets {
			if k := known.sets[name]; k != nil && k.definition == x.definition && !s.values[name] {
				x.elements, x.equal, x.list, x.version = k.elements, k.equal, k.list, k.version
			} else {
				s.values[name] = true
			}
		}
		known = shape
	default:
		for name := range s.rules {
			x := known.chains[name]
			if x == nil {
				continue
			}
			if x.rules, err = t.Rules(t.family, t.name, name); err != nil {
				return nil, err
			}
			x.set = nil
		}
	}
	return known, t.readElements(known, want, func(set string) bool { return s.values[set] })
}
