package subnet

import (
	"errors"
	"net/netip"
)

// entry is what a [View] keeps of a record.
type entry struct {
	*Lease  // the decoded record, of a malformed one its subnets alone; replaced and never changed
	Name    string
	Order   int64
	Version int64
	LeaseID int64
	why     error  // why it is rejected; nil: it is accepted
	shown   *Lease // the peer as last returned to the caller; nil: none
	things  things // what only one lease may have and this one claims
	stage   uint32
	holds   bool // it holds its subnets, whether or not this node can use it
	keeps   bool // it keeps its things; false if there are none
	gone    bool
	dirty   bool // in View.dirty
}

// errNew marks an entry that has not been judged yet.
var errNew = errors.New("not judged yet")

// record returns the record that l, which is a part of e's lease or all of it, stands for.
func (v *View) record(e *entry, l *Lease) Record {
	return Record{Lease: *l, Name: e.Name, Bad: v.bad[e], Order: e.Order, Version: e.Version, LeaseID: e.LeaseID}
}

// put takes in a record. It compares the lease even if order and version are the known ones: after a wipe of the store
// they can come again with another lease.
func (v *View) put(r Record) {
	bad := r.Bad
	if bad == nil {
		bad = r.Lease.check()
	}
	if bad != nil {
		r.Lease, bad = r.Lease.subnetsAlone(), short(bad)
	}
	name := ShortName(r.Name)
	e := v.entries[name]
	switch {
	case e == nil && r.stray() && v.strays >= maxStrays:
		if v.listing || r.Order == r.Version {
			v.uncounted++
		}
		return
	case e == nil:
		e = &entry{Name: name, Lease: r.Lease.copy(), why: errNew}
		v.entries[name] = e
		v.list(e)
	case !e.sameSubnets(&r.Lease):
		v.unlist(e)
		e.Lease = r.Lease.copy()
		v.list(e)
	default:
		if e.Order != r.Order {
			v.markAround(e) // its precedence changes
		}
		if r.Lease != *e.Lease {
			e.Lease = r.Lease.copy()
		}
	}
	e.Order, e.Version, e.LeaseID, e.stage = r.Order, r.Version, r.LeaseID, v.stage
	if bad != nil {
		v.bad[e] = bad
	} else {
		delete(v.bad, e)
	}
	v.mark(e)
}

// list enters e under its subnets. A malformed record occupies its subnets too.
func (v *View) list(e *entry) {
	if e.stray() {
		v.strays++
	}
	for _, f := range Families() {
		if e.Has(f) {
			v.bySubnet[f].Modify(e.Endpoints[f].Subnet, func(at []*entry, _ bool) ([]*entry, bool) {
				return append(at, e), false
			})
		}
	}
}

// unlist undoes list. What depended on e is judged again, and e holds and keeps nothing until it is judged itself.
func (v *View) unlist(e *entry) {
	v.markAround(e)
	v.disclaim(e)
	e.holds = false
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

// remove drops e.
func (v *View) remove(e *entry) {
	delete(v.entries, e.Name)
	delete(v.bad, e)
	e.gone = true
	v.mark(e)
	v.unlist(e)
	v.expose(e, nil)
}

// stray reports whether l has no subnet, as what is left of a record under a malformed key.
func (l *Lease) stray() bool { return !l.Has(IPv4) && !l.Has(IPv6) }

// sameSubnets reports whether two leases have the same subnets.
func (l *Lease) sameSubnets(x *Lease) bool {
	return l.Endpoints[IPv4].Subnet == x.Endpoints[IPv4].Subnet && l.Endpoints[IPv6].Subnet == x.Endpoints[IPv6].Subnet
}

// subnetsAlone returns those of l's subnets that are well formed, and nothing else of it.
func (l *Lease) subnetsAlone() (part Lease) {
	for _, f := range Families() {
		if p := l.Endpoints[f].Subnet; checkSubnet(f, p) == nil {
			part.Endpoints[f].Subnet = p
		}
	}
	return part
}

func (l *Lease) copy() *Lease { x := *l; return &x }

// mark has e judged again. Before there are rules no entry is judged, and the first rules mark all of them.
func (v *View) mark(e *entry) {
	if v.rules != nil && !e.dirty {
		e.dirty = true
		v.dirty = append(v.dirty, e)
	}
}

// markAround has everything judged again that may depend on e: what overlaps it if it holds its subnets, and what
// shares a thing with it if it keeps that. Nothing depends on an entry that does neither.
func (v *View) markAround(e *entry) {
	if e.holds {
		v.markOverlapping(e)
	}
	if e.keeps {
		v.markSharing(e)
	}
}

// markOverlapping has everything that overlaps e judged again.
func (v *View) markOverlapping(e *entry) {
	v.overlapping(e, func(at []*entry) bool {
		for _, x := range at {
			if x != e {
				v.mark(x)
			}
		}
		return true
	})
	v.markExposed(e)
}

// overlapping calls yield with the entries, subnet by subnet, that share an address with e, until it returns false; e
// is one of them. Families that the config does not enable do not count; while there is no config, all do.
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

// overlappingPrefix calls yield with the entries of every subnet that shares an address with p, until it returns false,
// and reports whether it never did.
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
