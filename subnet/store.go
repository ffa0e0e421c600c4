package subnet

import (
	"context"
	"errors"
)

// Errors of a [Store]. They are matched with errors.Is; what is returned says more.
var (
	// ErrTaken means that a claim came too late: another node holds the subnet, or the record changed since it was
	// read. The caller waits for the view to show it, and chooses again.
	ErrTaken = errors.New("subnet is taken")
	// ErrLost means that a lease that was held is not ours any more: another process deleted or changed its record, or
	// it expired while the store could not be reached.
	ErrLost = errors.New("lease is lost")
	// ErrRewritten means, beside ErrLost, that the record still exists and another process has written it.
	ErrRewritten = errors.New("another process wrote the record")
	// ErrFull means that a range has no free subnet left.
	ErrFull = errors.New("no free subnet")
	// ErrNotAllocated means that a store that allocates (see [Allocator]) has not given this node its subnets yet. The
	// caller waits and claims again.
	ErrNotAllocated = errors.New("no subnet is allocated to this node yet")
)

// Record is one node's lease as a store holds it, with what the store knows of it. A store decodes records and judges
// none: a malformed one is handed on with the reason in Bad, so that it can be named where all are judged, in [View].
// Records are comparable.
type Record struct {
	Lease // of a malformed record, the subnets that it occupies and nothing else

	// Name is the record's identity in the store: two records of one name replace each other, and two of different
	// names exist side by side, whatever subnets they are for. In etcd it is the key below <prefix>/subnets/, such as
	// "10.5.29.0-24"; in Kubernetes, the name of the Node.
	Name string
	// Bad is why the record is malformed; nil: it is not. See [DecodeRecord].
	Bad error
	// Order says whose claim is older, of records that have something that only one may have: the lower one, and of
	// equal ones the one whose name sorts first. All nodes see the same value. In etcd it is the create revision.
	Order int64
	// Version is the store's revision of the record's last change. Claim compares it, and a watcher whose
	// [Event.Revision] has reached it has seen the record. In etcd it is the modification revision. A record can come
	// again with the same Version if the store has found out only then that it is malformed.
	Version int64
	// LeaseID is the store's own lease that the record ends with unless that is renewed. 0: the record never expires.
	// It is a reservation that an operator made, or its store knows no expiry.
	LeaseID int64
}

// DecodeRecord decodes a key and a value in flannel's format, see [ParseLease]. Name is the key.
func DecodeRecord(key string, value []byte) Record {
	r := Record{Name: key}
	r.Lease, r.Bad = ParseLease(key, value)
	return r
}

// EventType says what the records of an [Event] mean.
type EventType uint8

const (
	// Page is a part of a snapshot: what is in Put exists at Revision.
	Page EventType = iota
	// Synced ends a snapshot, all of whose events carry its one Revision: records known to the watcher that were on
	// none of its Pages do not exist at Revision. A snapshot can come at any time (compaction, a lost watch, a store
	// that went back in time).
	Synced
	// Changed is one step after a snapshot. Put and Deleted are in effect at Revision; a name is in at most one of
	// them.
	Changed
)

// Event is one step of what a store's watcher learns. Events come one after the other, each once, in the order of their
// revisions.
type Event struct {
	Type     EventType
	Revision int64 // once the event is applied, the watcher has seen everything up to this revision of the store
	// ConfigSet says that the event carries the network config: Config is its JSON, or nil if there is none. Every
	// Synced event carries it.
	ConfigSet bool
	Config    []byte
	Put       []Record
	Deleted   []string // names, as in Record.Name
	// Own, of a Page event before the first snapshot, says that the store has read what it has of this node alone: its
	// record is in Put if there is one, Config is known, and so is what a [NodeAdviser] and an [Allocator] return. The
	// node can be set up with that, and claim, while the store reads the snapshot, of which the record is a part once
	// more. Not every store has it.
	Own bool
	// Cluster, of a Synced event, is the store's own id of itself; 0 if it has none. A store that was wiped may keep
	// it.
	Cluster uint64
	// Regressed, of a Synced event, says that the snapshot is of another history than what came before: the store was
	// wiped or restored from a backup. A peer that is missing may then only not have claimed its lease again yet.
	Regressed bool
}

// Store keeps the leases of a cluster. Implementations are safe for concurrent use. The contract is spelled out as
// tests in subnet/storetest; what a store may be able to do besides is an interface each, beginning with
// [HealthReporter].
type Store interface {
	// Watch calls changed with a snapshot of everything and then with every change, until ctx ends (it returns nil) or
	// changed returns an error (it returns that). It handles every fault of the store itself: an outage, a compaction
	// or a cancelled watch ends in a new snapshot. The callback runs on one goroutine at a time and may block; the
	// slices of records are its own.
	Watch(ctx context.Context, changed func(Event) error) error

	// Claim writes want as this node's record, atomically. With have nil it creates one: it fails with ErrTaken if a
	// record of the same leading subnet exists (in etcd, 10.5.29.0-24 and 10.5.29.0-24&fd00::-64 are two keys of one
	// subnet). With have set it takes over that record, which must still have that Version, else ErrTaken; lease and
	// name may both change. A record that already says so is not written again. A reservation stays one.
	// The result is the record as it now is.
	//
	// A store that allocates (see [Allocator]) ignores have, and the subnets of want: it writes the rest to this node's
	// own record, and returns that with the subnets it has been given. It fails with ErrNotAllocated if it has not been
	// given one yet in a family in which want has a public IP.
	//
	// A claim is final only once the caller's own Watch has passed the result's Version with no older overlapping lease
	// in the view: a store does not compare subnets.
	Claim(ctx context.Context, have *Record, want Lease) (Record, error)

	// Hold keeps a claimed record alive until ctx ends (it returns nil) or the lease is lost (ErrLost). Each lease that
	// arrives on changed replaces the last one, if the record is still ours. Renewals cause no events at watchers. A
	// record that never expires has nothing to renew. Hold answers a [Challenger].
	Hold(ctx context.Context, held Record, changed <-chan Lease) error

	// Release gives a claimed record back if it is still unchanged: it is deleted, or in a store that allocates it
	// stops being a lease. One that is gone already is no error; one that another process changed stays, and the error
	// is ErrLost.
	Release(ctx context.Context, held Record) error
}
