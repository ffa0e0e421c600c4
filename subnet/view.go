package subnet

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// Member is a lease together with what the store knows of it. Members are comparable.
type Member struct {
	Lease
	Key      string
	Created  int64 // store revision that created the key: of two overlapping leases the older one counts
	Modified int64 // store revision of the last change
	LeaseID  int64 // 0: a reservation
}

// Change is one difference in the set of peers that a [View] lets in. Before or After is nil where the peer was not, or
// is no longer, there. The leases hold the families only that the config enables: nothing else in them was checked.
type Change struct {
	Key           string
	Before, After *Lease
}

// View is one node's picture of all leases, and the one place that decides which of them count. Fed with a [Store]'s
// events, it tells what changed among the valid peers. A bad record is quarantined with its reason and touches nothing
// else.
//
// A lease holds its subnets if it is well formed, fits the network config, and overlaps no older lease that holds
// its own. Every node comes to the same judgement on that, in whatever order it learns of the leases. A lease is let in
// if it holds its subnets and this node can use it, see [Rules]. A change costs O(1) in the number of leases.
//
// A View is not safe for concurrent use.
type View struct {
	rules    *Rules // nil until the config is known: nobody is let in
	entries  map[string]*entry
	bySubnet [2]bart.Table[[]*entry] // all entries whose key is well formed, by subnet
	dirty    []*entry                // to be judged anew, each once
	revision int64
	synced   bool   // a whole snapshot has been seen
	listing  bool   // a snapshot has begun and not ended
	listed   int64  // the revision of the latest snapshot
	stage    uint32 // counts snapshots; an entry of an older stage is not in the latest one
}

type entry struct {
	Member
	bad   error // the record alone is malformed
	holds bool  // it holds its subnets, whether or not this node can use it
	why   error // not let in, and why; nil: let in
	stage uint32
	shown *Lease // the peer as last told to the caller; nil if not
	gone  bool
	dirty bool // in View.dirty
}

// NewView returns an empty view without rules.
func NewView() *View {
	return &View{entries: map[string]*entry{}}
}

// Revision is the store's revision that the view has seen everything of.
func (v *View) Revision() int64 { return v.revision }

// Synced reports whether a whole snapshot has been seen.
func (v *View) Synced() bool { return v.synced }

// Apply takes in one event of the store and returns what it changes among the peers. Between Page and Synced nothing
// changes: a snapshot takes effect as a whole.
func (v *View) Apply(e Event) []Change {
	if e.Type != Changed && (!v.listing || e.Revision != v.listed) {
		// A snapshot begins. One at another revision that was not finished counts for nothing: what it named may be
		// gone by now.
		v.stage++
		v.listing, v.listed = true, e.Revision
	}
	for _, r := range e.Put {
		v.put(r)
	}
	for _, key := range e.Deleted {
		if old := v.entries[key]; old != nil {
			v.remove(old)
		}
	}
	if e.Type == Page {
		return nil // and Revision stays: nothing is known yet of the keys on later pages
	}
	if e.Type == Synced {
		for _, old := range v.entries {
			if old.stage != v.stage {
				v.remove(old)
			}
		}
		v.synced, v.listing = true, false
	}
	v.revision = e.Revision
	return v.judge()
}

// SetRules replaces the rules, judges every lease anew and returns what that changes. In the middle of a snapshot it
// changes nothing yet.
func (v *View) SetRules(r Rules) []Change {
	v.rules = &r
	for _, e := range v.entries {
		v.mark(e)
	}
	return v.judge()
}

// Get returns the record kept under key. The error says why it is not let in.
func (v *View) Get(key string) (m Member, ok bool, why error) {
	e := v.entries[key]
	if e == nil {
		return Member{}, false, nil
	}
	return e.Member, true, e.why
}

// Len returns how many leases are let in, our own included, and how many are not.
func (v *View) Len() (valid, quarantined int) {
	for _, e := range v.entries {
		if e.why == nil {
			valid++
		} else {
			quarantined++
		}
	}
	return valid, quarantined
}

// Peers calls yield with every peer as the caller was last told of it, until it returns false.
func (v *View) Peers(yield func(Member) bool) {
	for _, e := range v.entries {
		if e.shown == nil {
			continue
		}
		m := e.Member
		m.Lease = *e.shown
		if !yield(m) {
			return
		}
	}
}

// Quarantined calls yield with every record that is not let in, and why, until it returns false.
func (v *View) Quarantined(yield func(key string, why error) bool) {
	for key, e := range v.entries {
		if e.why != nil && !yield(key, e.why) {
			return
		}
	}
}

// put takes in a record. It looks at the value even if the revisions are those it knows: after a wipe of the store they
// can come again with another value.
func (v *View) put(r Record) {
	e := v.entries[r.Key]
	if e == nil {
		e = &entry{Member: Member{Key: r.Key}, why: errNew}
		v.entries[r.Key] = e
		v.index(e)
	} else if e.Created != r.Created {
		v.markAround(e) // its age changes, and so whom it goes before
	}
	e.Created, e.Modified, e.LeaseID, e.stage = r.Created, r.Modified, r.LeaseID, v.stage
	lease, err := ParseLease(r.Key, r.Value)
	if err != nil {
		lease = e.subnetsOnly()
	}
	e.Lease, e.bad = lease, err
	v.mark(e)
}

// subnetsOnly is what the key alone says.
func (e *entry) subnetsOnly() (l Lease) {
	for f := range e.Endpoints {
		l.Endpoints[f].Subnet = e.Endpoints[f].Subnet
	}
	return l
}

// errNew marks an entry that has not been judged yet.
var errNew = errors.New("not looked at yet")

// index enters e under the subnets of its key. A key never changes its subnets, whatever its value says, and one with a
// bad value still occupies them: nobody can create it again.
func (v *View) index(e *entry) {
	subnets, err := ParseKey(e.Key)
	if err != nil {
		return
	}
	for _, f := range Families() {
		e.Endpoints[f].Subnet = subnets[f]
		if e.Has(f) {
			v.bySubnet[f].Modify(subnets[f], func(at []*entry, _ bool) ([]*entry, bool) { return append(at, e), false })
		}
	}
}

func (v *View) remove(e *entry) {
	delete(v.entries, e.Key)
	e.gone = true
	v.unindex(e)
	v.markAround(e)
	v.mark(e)
}

// unindex takes e out of the subnet index.
func (v *View) unindex(e *entry) {
	for _, f := range Families() {
		if !e.Has(f) {
			continue
		}
		v.bySubnet[f].Modify(e.Endpoints[f].Subnet, func(at []*entry, _ bool) ([]*entry, bool) {
			at = slices.DeleteFunc(at, func(x *entry) bool { return x == e })
			return at, len(at) == 0
		})
	}
}

// mark has e judged anew.
func (v *View) mark(e *entry) {
	if !e.dirty {
		e.dirty = true
		v.dirty = append(v.dirty, e)
	}
}

// markAround has everything that overlaps e judged anew.
func (v *View) markAround(e *entry) {
	v.overlapping(e, func(x *entry) bool { v.mark(x); return true })
}

// overlapping calls yield with every other entry that shares an address with e, until it returns false. Families that
// the config does not enable do not count; while there is no config, all do.
func (v *View) overlapping(e *entry, yield func(*entry) bool) {
	for _, f := range Families() {
		if !e.Has(f) || v.rules != nil && !v.rules.Config.Ranges[f].Enabled() {
			continue
		}
		if !v.overlappingPrefix(f, e.Endpoints[f].Subnet, func(x *entry) bool { return x == e || yield(x) }) {
			return
		}
	}
}

// overlappingPrefix calls yield with every entry that shares an address with p, and reports whether it was let finish.
func (v *View) overlappingPrefix(f Family, p netip.Prefix, yield func(*entry) bool) bool {
	t := &v.bySubnet[f]
	for _, at := range t.Supernets(p) { // p itself included
		for _, x := range at {
			if !yield(x) {
				return false
			}
		}
	}
	for q, at := range t.Subnets(p) { // p itself included
		if q == p {
			continue
		}
		for _, x := range at {
			if !yield(x) {
				return false
			}
		}
	}
	return true
}
