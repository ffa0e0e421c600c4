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
	// perTransaction is how many addresses change in one transaction: of IPv6 and to remove, 230 KB, which fits where a
	// daemon without privileges has the kernel's default send buffer doubled.
	perTransaction = 4096
	// refusals bounds how many transactions may fail in one Apply: for each the kernel waits until no packet can meet what
	// it has to undo, some 15 ms. Twelve find one bad address among 4,096.
	refusals = 32
)

// ApplyError says which addresses could not be added or removed, and why; with the others it was done.
type ApplyError struct{ Failed map[netip.Addr]error }

// Error names one of them.
func (e *ApplyError) Error() string {
	for _, a := range slices.SortedFunc(maps.Keys(e.Failed), netip.Addr.Compare) {
		return fmt.Sprintf("VTEP filter: %d peers not set, %s among them: %v", len(e.Failed), a, e.Failed[a])
	}
	return "VTEP filter: nothing failed"
}

// Unwrap returns the reasons, for errors.Is.
func (e *ApplyError) Unwrap() []error {
	var reasons []error
	for _, err := range e.Failed {
		reasons = append(reasons, err)
	}
	return reasons
}

// Apply adds and removes peers. To add who is there and to remove who is not is no error; who is in both lists stays. What
// fails does not keep the rest from being done: see [ApplyError]. [ErrGone] is the reason of all if there is no table.
//
// It costs one transaction for up to 4,096 addresses, and O(1) for one of them, however many there are.
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

// Update makes the changes of a batch as [network.Reconciler] hands it out, and sets the Err of each.
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

// apply is one Apply at work.
type apply struct {
	filter  *Filter
	remove  map[netip.Addr]bool // whether to remove it or to add it, by address
	failed  map[netip.Addr]error
	refused int
}

// change makes some of the changes. The kernel makes all of them or none and does not say which it cannot make, so if they
// fail, it is tried with either half.
func (a *apply) change(peers []netip.Addr) {
	err := a.commit(peers)
	switch {
	case err == nil:
		return
	case gone(err):
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	a.refused++
	general := errors.Is(err, ErrGone) || errors.Is(err, ErrUnsupported) || errors.Is(err, os.ErrDeadlineExceeded)
	if len(peers) == 1 || general || a.refused >= refusals {
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
	out, in := nft.Also{}, nft.Also{}
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
