package subnet

import (
	"errors"
	"net/netip"
)

// entry is what a [View] remembers of a record.
type entry struct {
	*Lease   // what the record says, or its key alone if the value is bad; replaced and never changed
	Key      string
	Created  int64
	Modified int64
	LeaseID  int64
	why      error  // not let in, and why; nil: let in
	shown    *Lease // the peer as last told to the caller; nil if not
	things   things // what only one lease may have and this one claims
	stage    uint32
	holds    bool // it holds its subnets, whether or not this node can use it
	keeps    bool // it keeps its things; false if there are none
	gone     bool
	dirty    bool // in View.dirty
}

// errNew marks an entry that has not been judged yet.
var errNew = errors.New("not looked at yet")

func (e *entry) member(l Lease) Member {
	return Member{Lease: l, Key: e.Key, Created: e.Created, Modified: e.Modified, LeaseID: e.LeaseID}
}

// put takes in a record. It looks at the value even if the revisions are those it knows: after a wipe of the store they
// can come again with another value.
func (v *View) put(r Record) {
	l, bad := ParseLease(r.Key, r.Value)
	key := ShortKey(r.Key)
	e := v.entries[key]
	switch {
	case e == nil && l.stray() && v.strays == maxStrays:
		if v.listing || r.Created == r.Modified {
			v.uncounted++
		}
		return
	case e == nil:
		e = v.enter(key, l)
	case e.Created != r.Created:
		v.markAround(e) // its age changes, and so whom it goes before
	}
	e.Created, e.Modified, e.LeaseID, e.stage = r.Created, r.Modified, r.LeaseID, v.stage
	if l != *e.Lease {
		e.Lease = l.copy()
	}
	if bad != nil {
		v.bad[e] = bad
	} else {
		delete(v.bad, e)
	}
	v.mark(e)
}

// enter makes an entry for a new key, under the subnets that it names. A key never changes its subnets, whatever its
// value says, and one with a bad value still occupies them: nobody can create it again.
func (v *View) enter(key string, l Lease) *entry {
	e := &entry{Key: key, Lease: l.copy(), why: errNew}
	v.entries[key] = e
	if l.stray() {
		v.strays++
	}
	for _, f := range Families() {
		if l.Has(f) {
			v.bySubnet[f].Modify(l.Endpoints[f].Subnet, func(at []*entry, _ bool) ([]*entry, bool) { return append(at, e), false })
		}
	}
	return e
}

// stray reports whether l is what came of a key that is no lease's.
func (l Lease) stray() bool { return !l.Has(IPv4) && !l.Has(IPv6) }

func (l Lease) copy() *Lease { return &l }

func (v *View) remove(e *entry) {
	delete(v.entries, e.Key)
	delete(v.bad, e)
	e.gone = true
	v.mark(e)
	v.markAround(e)
	v.disclaim(e)
	if e.stray() {
		v.strays--
	}
	for _, f := range Families() {
		if e.Has(f) {
			v.bySubnet[f].Modify(e.Endpoints[f].Subnet, func(at []*entry, _ bool) ([]*entry, bool) {
				at = without(at, e)
				return at, len(at) == 0
			})
		}
	}
}

// mark has e judged anew. Before there are rules nobody is judged, and the first ones mark everybody.
func (v *View) mark(e *entry) {
	if v.rules != nil && !e.dirty {
		e.dirty = true
		v.dirty = append(v.dirty, e)
	}
}

// markAround has everything judged anew that may hang on e: what overlaps it if it holds its subnets, and what shares
// a thing with it if it keeps that. Nothing hangs on an entry that has neither.
func (v *View) markAround(e *entry) {
	if e.holds {
		v.markOverlapping(e)
	}
	if e.keeps {
		v.markSharing(e)
	}
}

// markOverlapping has everything that overlaps e judged anew.
func (v *View) markOverlapping(e *entry) {
	v.overlapping(e, func(at []*entry) bool {
		for _, x := range at {
			if x != e {
				v.mark(x)
			}
		}
		return true
	})
}

// overlapping calls yield with the entries, subnet by subnet, that share an address with e, until it returns false; e is
// one of them. Families that the config does not enable do not count; while there is no config, all do.
func (v *View) overlapping(e *entry, yield func(at []*entry) bool) {
	for _, f := range Families() {
		if !e.Has(f) || v.rules != nil && !v.rules.Config.Ranges[f].Enabled() {
			continue
		}
		if !v.overlappingPrefix(f, e.Endpoints[f].Subnet, yield) {
			return
		}
	}
}

// overlappingPrefix calls yield with the entries of every subnet that shares an address with p, and reports whether it
// was let finish.
func (v *View) overlappingPrefix(f Family, p netip.Prefix, yield func(at []*entry) bool) bool {
	t := &v.bySubnet[f]
	for _, at := range t.Supernets(p) { // p itself included
		if !yield(at) {
			return false
		}
	}
	for q, at := range t.Subnets(p) { // p itself included
		if q != p && !yield(at) {
			return false
		}
	}
	return true
}
