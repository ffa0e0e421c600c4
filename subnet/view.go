package subnet

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// Change is one difference in the set of peers that a [View] accepts. Before or After is nil where the peer was not, or
// is no longer, accepted. The leases hold only the families that the config enables: nothing else in them was checked.
// They are shared and must not be changed.
type Change struct {
	Name          string // of the record
	Before, After *Lease
}

// View is one node's picture of all leases, and the one place that decides which of them count. It is fed with a
// [Store]'s events, and returns what changes among the valid peers. A bad record is quarantined with its reason and
// affects nothing else.
//
// A lease holds its subnets if it is well formed, fits the network config, and overlaps no older lease that holds its
// own; two records of one subnet both exist here. Of what only one lease may have, such as a MAC address, the oldest
// that holds its subnets keeps it; see [ErrDuplicate]. Every node comes to the same judgement on both, in whatever
// order it learns of the leases. A lease is accepted if no other keeps what it has and this node can use it, see
// [Rules]. A change costs O(1) in the number of leases, plus what it changes for others.
//
// What is kept of a record is bounded.
//
// A View is not safe for concurrent use.
type View struct {
	rules      *Rules                  // nil until the config is known: no lease is accepted
	entries    map[string]*entry       // by name
	bad        map[*entry]error        // why a record is malformed: few, as a rule
	bySubnet   [2]bart.Table[[]*entry] // all entries that have subnets, by subnet; the holder comes first
	byThing    index[string]           // entries that hold their subnets, by their things; the keeper comes first
	byPublicIP index[netip.Addr]       // peers, as last returned
	byExposed  [2]bart.Table[[]*entry] // entries whose public IP is inside Network, by that address
	exposed    map[*entry][2]netip.Addr
	strays     int      // entries without a subnet
	uncounted  int      // about how many more there are, since the latest snapshot
	dirty      []*entry // to be judged again, each once
	revision   int64
	synced     bool   // a whole snapshot has been seen
	listing    bool   // a snapshot has begun and not ended
	listed     int64  // the revision of the latest snapshot
	stage      uint32 // counts snapshots; an entry of an older stage is not in the latest one
}

// NewView returns an empty view without rules.
func NewView() *View {
	return &View{entries: map[string]*entry{}, bad: map[*entry]error{}, exposed: map[*entry][2]netip.Addr{}}
}

// Revision is the revision of the store up to which the view has seen everything.
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
		v.listing, v.listed, v.uncounted = true, e.Revision, 0
	}
	for _, r := range e.Put {
		v.put(r)
	}
	for _, name := range e.Deleted {
		if old := v.entries[ShortName(name)]; old != nil {
			v.remove(old)
		} else if _, err := parseKey(name); err != nil && v.uncounted > 0 { // a key alone cannot be a stray
			v.uncounted--
		}
	}
	if e.Type == Page {
		return nil // and Revision stays: nothing is known yet of what is on later pages
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

// SetRules replaces the rules, judges every lease again and returns what that changes. In the middle of a snapshot it
// changes nothing yet.
func (v *View) SetRules(r Rules) []Change {
	v.rules = &r
	for _, e := range v.entries {
		v.mark(e)
	}
	return v.judge()
}

// Get returns the record of a name. The error says why it is rejected. ok is false for a record that does not exist,
// and for one of those that are only counted; see [View.Len].
func (v *View) Get(name string) (r Record, ok bool, why error) {
	e := v.entries[ShortName(name)]
	if e == nil {
		return Record{}, false, nil
	}
	return v.record(e, e.Lease), true, e.why
}

// Len returns how many leases are accepted, our own included, and how many records are rejected. Of records without a
// subnet, the first 4096 are kept; the rest are only counted, more or less.
func (v *View) Len() (valid, quarantined int) {
	for _, e := range v.entries {
		if e.why == nil {
			valid++
		} else {
			quarantined++
		}
	}
	return valid, quarantined + v.uncounted
}

// Peers calls yield with every accepted peer, as the caller last learned of it, until it returns false.
func (v *View) Peers(yield func(Record) bool) {
	for _, e := range v.entries {
		if e.shown != nil && !yield(v.record(e, e.shown)) {
			return
		}
	}
}

// PeerLease is a peer with its lease as all share it: it must not be changed.
type PeerLease struct {
	*Lease
	Name                    string
	Order, Version, LeaseID int64
}

// Record returns p as a record of its own.
func (p PeerLease) Record() Record {
	return Record{Lease: *p.Lease, Name: p.Name, Order: p.Order, Version: p.Version, LeaseID: p.LeaseID}
}

// PeerLeases is [View.Peers] without copies of the leases. What it yields stays as it is, whatever the view learns
// later.
func (v *View) PeerLeases(yield func(PeerLease) bool) {
	for _, e := range v.entries {
		if e.shown != nil && !yield(PeerLease{e.shown, e.Name, e.Order, e.Version, e.LeaseID}) {
			return
		}
	}
}

// Quarantined calls yield with the name of every record that is kept and rejected, and why, until it returns false. A
// name that is too long is shortened, see [ShortName].
func (v *View) Quarantined(yield func(name string, why error) bool) {
	for name, e := range v.entries {
		if e.why != nil && !yield(name, e.why) {
			return
		}
	}
}
