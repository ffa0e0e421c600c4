package vtepfilter

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/nft"
)

const (
	// perTransaction bounds the addresses in one transaction. To remove so many IPv6 addresses takes 230 KB, which fits
	// into twice the kernel's default send buffer, the limit of a daemon without privileges.
	perTransaction = 4096
	// maxFailures bounds the transactions that may fail in one Apply. For each the kernel waits an RCU grace period
	// before it undoes the changes, some 15 ms. Twelve find one bad address among 4,096.
	maxFailures = 32
)

// ApplyError holds the addresses that could not be added or removed, and why. All others were.
type ApplyError struct{ Failed map[netip.Addr]error }

// Error names the first address, in order.
func (e *ApplyError) Error() string {
	for _, a := range slices.SortedFunc(maps.Keys(e.Failed), netip.Addr.Compare) {
		return fmt.Sprintf("VTEP filter: %d peers not set, such as %s: %v", len(e.Failed), a, e.Failed[a])
	}
	return "VTEP filter: nothing failed"
}

// Unwrap returns the causes, for errors.Is.
func (e *ApplyError) Unwrap() []error {
	var causes []error
	for _, err := range e.Failed {
		causes = append(causes, err)
	}
	return causes
}

// Apply adds and removes peers. It is no error to add a present peer or to remove an absent one. A peer in both lists
// is added. A failure does not keep the other changes from being made: see [ApplyError]. If there is no table, all fail
// with [ErrMissing].
//
// Apply takes one transaction for up to 4,096 addresses. The cost of an address does not depend on the number of peers.
func (f *Filter) Apply(add, remove []netip.Addr) error {
	a := apply{filter: f, failed: map[netip.Addr]error{}, remove: map[netip.Addr]bool{}}
	var changes []netip.Addr
	for i, peer := range slices.Concat(add, remove) {
		if err := checkPeer(peer); err != nil {
			a.failed[peer] = err
			continue
		}
		if _, known := a.remove[peer]; !known {
			a.remove[peer] = i >= len(add)
			changes = append(changes, peer)
		}
	}
	for part := range slices.Chunk(changes, perTransaction) {
		a.change(part)
	}
	if len(a.failed) > 0 {
		return &ApplyError{a.failed}
	}
	return nil
}

// Update applies a batch of a [network.Reconciler] and sets the Err of each change.
func Update[V comparable](f *Filter, batch []network.Update[netip.Addr, V]) {
	var add, remove []netip.Addr
	for _, u := range batch {
		if u.Change.Wanted {
			add = append(add, u.Key)
		} else {
			remove = append(remove, u.Key)
		}
	}
	e, failed := errors.AsType[*ApplyError](f.Apply(add, remove))
	for i := range batch {
		u := &batch[i]
		if u.Err = nil; failed {
			u.Err = e.Failed[u.Key]
		}
	}
}

// apply is the state of one Apply.
type apply struct {
	filter   *Filter
	remove   map[netip.Addr]bool // true: remove the address; false: add it
	failed   map[netip.Addr]error
	failures int // of transactions
}

// change makes some of the changes. The kernel makes all of them or none, and does not say which of them failed, so
// change retries each half.
func (a *apply) change(peers []netip.Addr) {
	err := a.commit(peers)
	switch {
	case err == nil:
		return
	case missing(err):
		err = fmt.Errorf("%w: %w", ErrMissing, err)
	}
	a.failures++
	general := errors.Is(err, ErrMissing) || errors.Is(err, ErrUnsupported) || errors.Is(err, os.ErrDeadlineExceeded)
	if len(peers) == 1 || general || a.failures >= maxFailures {
		for _, p := range peers {
			a.failed[p] = err
		}
		return
	}
	half := len(peers) / 2
	a.change(peers[:half])
	a.change(peers[half:])
}

func (a *apply) commit(peers []netip.Addr) error {
	some := func(remove bool) iter.Seq[netip.Addr] {
		return func(yield func(netip.Addr) bool) {
			for _, p := range peers {
				if a.remove[p] == remove && !yield(p) {
					return
				}
			}
		}
	}
	out, in := nft.SetElements{}, nft.SetElements{}
	add(out, some(true))
	add(in, some(false))
	return a.filter.table.Change(func(t *nft.Transaction) {
		for _, f := range nft.Families() {
			t.Delete(peersOf(f), out[peersSet(f)])
		}
		for _, f := range nft.Families() {
			t.Add(peersOf(f), in[peersSet(f)])
		}
	})
}
