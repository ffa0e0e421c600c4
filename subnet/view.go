package subnet

import (
	"net/netip"

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
// is no longer, there. The leases hold the families only that the config enables: nothing else in them was checked. They
// are shared and must not be changed.
type Change struct {
	Key           string
	Before, After *Lease
}

// View is one node's picture of all leases, and the one place that decides which of them count. Fed with a [Store]'s
// events, it tells what changed among the valid peers. A bad record is quarantined with its reason and touches nothing
// else.
//
// A lease holds its subnets if it is well formed, fits the network config, and overlaps no older lease that holds
// its own. Of what only one lease may have, such as a MAC address, the oldest that holds its subnets keeps it; see
// [ErrDuplicate]. Every node comes to the same judgement on both, in whatever order it learns of the leases. A lease is
// let in if no other keeps what it has and this node can use it, see [Rules]. A change costs O(1) in the number of leases,
// plus what it changes for others.
//
// What is remembered of a record is bounded, and its value is not kept.
//
// A View is not safe for concurrent use.
type View struct {
	rules      *Rules // nil until the config is known: nobody is let in
	entries    map[string]*entry
	bad        map[*entry]error        // of those whose record alone is malformed: hardly any, as a rule
	bySubnet   [2]bart.Table[[]*entry] // all entries whose key is well formed, by subnet; who holds it comes first
	byThing    index[string]           // entries that hold their subnets, by their things; who keeps it comes first
	byPublicIP index[netip.Addr]       // peers, as last told
	strays     int                     // entries whose key is malformed
	uncounted  int                     // about how many more there are, since the latest snapshot
	dirty      []*entry                // to be judged anew, each once
	revision   int64
	synced     bool   // a whole snapshot has been seen
	listing    bool   // a snapshot has begun and not ended
	listed     int64  // the revision of the latest snapshot
	stage      uint32 // counts snapshots; an entry of an older stage is not in the latest one
}

// NewView returns an empty view without rules.
func NewView() *View {
	return &View{entries: map[string]*entry{}, bad: map[*entry]error{}}
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
		v.listing, v.listed, v.uncounted = true, e.Revision, 0
	}
	for _, r := range e.Put {
		v.put(r)
	}
	for _, key := range e.Deleted {
		if old := v.entries[ShortKey(key)]; old != nil {
			v.remove(old)
		} else if _, err := ParseKey(key); err != nil && v.uncounted > 0 {
			v.uncounted--
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

// Get returns the record kept under key. The error says why it is not let in. ok is false for a record that is not
// there, and for one of those that are only counted; see [View.Len].
func (v *View) Get(key string) (m Member, ok bool, why error) {
	e := v.entries[ShortKey(key)]
	if e == nil {
		return Member{}, false, nil
	}
	return e.member(*e.Lease), true, e.why
}

// Len returns how many leases are let in, our own included, and how many records are not. Of keys that are no lease's,
// the first 4096 are remembered; the rest are only counted.
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

// Peers calls yield with every peer as the caller was last told of it, until it returns false.
func (v *View) Peers(yield func(Member) bool) {
	for _, e := range v.entries {
		if e.shown != nil && !yield(e.member(*e.shown)) {
			return
		}
	}
}

// Shared is what the store knows of a peer, with its lease as all share it: it must not be changed, and nobody changes it.
type Shared struct {
	*Lease
	Key                        string
	Created, Modified, LeaseID int64
}

// SharedPeers is [View.Peers] without copies of the leases. What it yields stays as it is, whatever becomes of the view.
func (v *View) SharedPeers(yield func(Shared) bool) {
	for _, e := range v.entries {
		if e.shown != nil && !yield(Shared{Lease: e.shown, Key: e.Key, Created: e.Created, Modified: e.Modified, LeaseID: e.LeaseID}) {
			return
		}
	}
}

// Record returns the record that the store has, as far as this node looks at it. Its value is appended to b.
func (s Shared) Record(b []byte) (Record, error) {
	value, err := s.AppendValue(b)
	return Record{Key: s.Key, Value: value, Created: s.Created, Modified: s.Modified, LeaseID: s.LeaseID}, err
}

// Quarantined calls yield with every record that is remembered and not let in, and why, until it returns false. A key far
// longer than a lease's is cut.
func (v *View) Quarantined(yield func(key string, why error) bool) {
	for key, e := range v.entries {
		if e.why != nil && !yield(key, e.why) {
			return
		}
	}
}
