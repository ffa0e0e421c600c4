package vtepfilter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network/nft"
)

// Table is the name of our table, of family inet.
const Table = "selvage-vtep"

var (
	// ErrUnsupported means that this kernel has no nf_tables, or lacks a part of it, or does not let us use it.
	ErrUnsupported = nft.ErrUnsupported
	// ErrGone means that the table is not there, or not whole: [Filter.Ensure] makes it.
	ErrGone = errors.New("the table " + Table + " is gone")
)

// Filter keeps the table in the network namespace in which [Open] was called. Its methods are for one goroutine, but for
// [Filter.Watch], which runs beside them.
type Filter struct {
	table *nft.Table
	want  *Config // as of the last Ensure; nil before
}

// Open returns a Filter, or [ErrUnsupported]. It changes nothing yet.
func Open() (*Filter, error) {
	t, err := nft.Open(Table)
	if err != nil {
		return nil, err
	}
	return &Filter{table: t}, nil
}

// Close gives the socket back. The table stays.
func (f *Filter) Close() error { return f.table.Close() }

// Watch calls changed whenever the kernel tells that somebody else has changed something in our table, until ctx ends.
// Changes made by this Filter are told too and passed over, so that to repair something does not lead to looking again.
//
// ready is called once, when from then on nothing is missed.
func (f *Filter) Watch(ctx context.Context, ready, changed func()) error {
	return f.table.Watch(ctx, ready, changed)
}

// Ensure makes the table what c wants, in one transaction, and reports whether anything had to be changed. All that is in
// the way in that table goes; the peers in its sets stay.
//
// Whenever rules are set anew, the given peers are put into the sets in the same transaction, so that at no moment rules
// drop what comes from one of them: they are those that the caller wants by then, and are asked for only in that case; nil
// is none. The caller begins to call when it knows all leases, not before.
func (f *Filter) Ensure(c Config, peers iter.Seq[netip.Addr]) (changed bool, err error) {
	if err := c.validate(); err != nil {
		return false, err
	}
	c.Networks, c.Allow, c.Devices = slices.Clone(c.Networks), slices.Clone(c.Allow), slices.Clone(c.Devices)
	f.want = &c
	changed, err = f.table.Ensure(c.content(), func(whole bool) (nft.Also, error) {
		also := nft.Also{}
		if whole {
			kept, err := f.present()
			if err != nil {
				return nil, err
			}
			add(also, slices.Values(kept))
		}
		if peers != nil {
			add(also, peers)
		}
		return also, nil
	})
	if err != nil {
		return changed, fmt.Errorf("VTEP filter: %w", err)
	}
	return changed, nil
}

// Read returns the peers in the sets, in order, and whether the rest of the table is as the last Ensure was to make it.
// Where ok is false, it is for Ensure to go first.
//
// While the kernel makes a set's hash table larger or smaller, just after thousands came or went, it can leave one out
// (nft_rhash_walk starts anew and skips as many as it had given). To add that one again does no harm.
func (f *Filter) Read() (present []netip.Addr, ok bool, err error) {
	var want Config
	if f.want != nil {
		want = *f.want
	}
	there, ok, err := f.table.Holds(want.content())
	if err == nil && there {
		present, err = f.present()
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the VTEP filter: %w", err)
	}
	return present, ok && f.want != nil, nil
}

// Remove deletes the table with all that is in it; that there is none is no error.
func (f *Filter) Remove() error {
	f.want = nil
	if err := f.table.Remove(); err != nil {
		return fmt.Errorf("remove the VTEP filter: %w", err)
	}
	return nil
}

// Dropped is how many packets were dropped since the rules were set last.
type Dropped struct {
	Strangers uint64 // to this node, from who is no peer
	Pods      uint64 // out of the overlay
}

// Dropped reads the counters.
func (f *Filter) Dropped() (d Dropped, err error) {
	var inward, outward error
	d.Strangers, inward = f.table.Counted(arrivedChain)
	d.Pods, outward = f.table.Counted(leavingChain)
	if err := errors.Join(inward, outward); err != nil {
		return Dropped{}, fmt.Errorf("read the VTEP filter's counters: %w", err)
	}
	return d, nil
}

// gone tells an error that means that the table is not whole.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// There reports whether the table exists, in whatever form.
func (f *Filter) There() (bool, error) {
	there, _, err := f.table.Holds(nft.Content{})
	return there, err
}
