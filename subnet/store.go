package subnet

import (
	"context"
	"errors"
)

// Errors of a [Store]. They are matched with errors.Is; what is returned says more.
var (
	// ErrTaken means that a claim came too late: another node holds a key of this subnet, or the key changed since it
	// was read. The caller looks again and picks again.
	ErrTaken = errors.New("subnet is taken")
	// ErrLost means that a lease that was held is not ours any more: its key was deleted or changed by somebody else, or
	// its time ran out while the store could not be reached.
	ErrLost = errors.New("lease is lost")
	// ErrFull means that a range has no free subnet left.
	ErrFull = errors.New("no free subnet")
)

// Record is one lease key as a store holds it, undecoded: a store carries records and judges nothing, so that a bad one
// reaches the single place that validates ([View]) and can be named there.
type Record struct {
	Key      string // below <prefix>/subnets/, for example "10.5.29.0-24"
	Value    []byte
	Created  int64 // store revision that created the key; older keys win over newer ones
	Modified int64 // store revision of the last change
	LeaseID  int64 // etcd lease the key hangs on; 0: a reservation, which never expires
}

// EventType says how the records of an [Event] are to be read.
type EventType uint8

const (
	// Page is a part of a snapshot: what Put holds exists at Revision.
	Page EventType = iota
	// Synced ends a snapshot, all of whose events carry its one Revision: keys known to the watcher that none of its
	// Pages named do not exist at Revision. A snapshot can come at any time (compaction, a lost watch, a store that went
	// back in time).
	Synced
	// Changed is one step after a snapshot. Put and Deleted are in effect at Revision; a key is in at most one of them.
	Changed
)

// Event is what a store tells its watcher. Events come one after the other, each once, in the order of their revisions.
type Event struct {
	Type     EventType
	Revision int64 // the store's revision that the watcher has seen everything of, once the event is applied
	// ConfigSet says that this event speaks of the network config: Config is its JSON, or nil if the key does not
	// exist. A snapshot speaks of it in its Synced event, always.
	ConfigSet bool
	Config    []byte
	Put       []Record
	Deleted   []string // keys, as in Record.Key
	// Cluster, of a Synced event, is the store's own id of itself; 0 if it has none. A store that was wiped may keep it.
	Cluster uint64
	// Regressed, of a Synced event, says that the snapshot is of another history than what was told before: the store was
	// wiped, or restored from a backup. Then a peer that is missing has not gone: it may only not be back yet, and it comes
	// back as soon as it has noticed.
	Regressed bool
}

// Store keeps the leases of a cluster. Implementations are safe for concurrent use. What each must do is spelled out as
// tests in subnet/storetest.
type Store interface {
	// Watch tells changed everything there is and then everything that changes, until ctx ends (it returns nil) or
	// changed returns an error (it returns that). It deals with every fault of the store itself: an outage, a
	// compaction or a cancelled watch ends in a new snapshot. The callback runs on one goroutine at a time and may
	// block; the record slices are its own.
	Watch(ctx context.Context, changed func(Event) error) error

	// Claim writes want under its key, atomically. With have nil it creates: it fails with ErrTaken if any key of the
	// same leading subnet exists (10.5.29.0-24 and 10.5.29.0-24&fd00::-64 are two keys of one subnet). With have set it
	// takes over that record, which must be unchanged since it was read, else ErrTaken; value and key may both differ.
	// A record that already says what is wanted is not written again. A reservation stays one. The result is the
	// record as it now is.
	//
	// A claim is final only once the caller's own Watch has passed the result's Modified revision with no older
	// overlapping lease in sight: a store cannot compare what keys mean.
	Claim(ctx context.Context, have *Record, want Lease) (Record, error)

	// Hold keeps a claimed record alive until ctx ends (it returns nil) or the lease is lost (ErrLost). Each lease that
	// arrives on changed is written in place of the last, if the record is still ours. Renewals cause no events at
	// watchers. A reservation has nothing to renew.
	Hold(ctx context.Context, held Record, changed <-chan Lease) error

	// Release deletes a claimed record if it is still unchanged. One that is gone already is no error; one that was
	// changed by somebody else is ErrLost and stays.
	Release(ctx context.Context, held Record) error
}
