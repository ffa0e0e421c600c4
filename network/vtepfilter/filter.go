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

// Table is the name of our table, of family inet, in the default scope: see network.Scope.
const Table = "selvage-vtep"

var (
	// ErrUnsupported means that this kernel has no nf_tables, lacks a part of it, or denies access to it.
	ErrUnsupported = nft.ErrUnsupported
	// ErrMissing means that the table, or a part of it, does not exist: call [Filter.Ensure].
	ErrMissing = errors.New("the VTEP filter's table is missing or incomplete")
)

// Filter keeps the table in the network namespace in which [Open] was called. Its methods are not safe for concurrent
// use, except [Filter.Watch], which runs beside them.
type Filter struct {
	table *nft.Table
	want  *Config // of the last Ensure; nil before
}

// Open connects to nf_tables for the table of a name, or returns [ErrUnsupported]. It changes nothing.
func Open(table string) (*Filter, error) {
	t, err := nft.Open(table)
	if err != nil {
		return nil, err
	}
	return &Filter{table: t}, nil
}

// Close closes the socket. The kernel keeps the table.
func (f *Filter) Close() error { return f.table.Close() }

// Watch calls changed whenever another process has changed the table, until ctx ends. It skips changes made by this
// Filter, so that a repair does not cause another read.
//
// Watch calls ready once, when it misses no event from then on.
func (f *Filter) Watch(ctx context.Context, ready, changed func()) error {
	return f.table.Watch(ctx, ready, changed)
}

// Ensure brings the table in sync with c, in one transaction, and reports whether it changed anything. It removes
// foreign objects from the table and keeps the peers in its sets.
//
// Whenever Ensure replaces rules, it adds the given peers in the same transaction, so that the rules never drop packets
// from one of them. It iterates over peers only in that case; nil is none. The caller must know all leases before its
// first call.
func (f *Filter) Ensure(c Config, peers iter.Seq[netip.Addr]) (changed bool, err error) {
	if err := c.validate(); err != nil {
		return false, err
	}
	c.Networks, c.Allow, c.Devices = slices.Clone(c.Networks), slices.Clone(c.Allow), slices.Clone(c.Devices)
	f.want = &c
	changed, err = f.table.Ensure(c.content(), func(recreated bool) (nft.SetElements, error) {
		elements := nft.SetElements{}
		if recreated {
			present, err := f.present()
			if err != nil {
				return nil, err
			}
			add(elements, slices.Values(present))
		}
		if peers != nil {
			add(elements, peers)
		}
		return elements, nil
	})
	if err != nil {
		return changed, fmt.Errorf("VTEP filter: %w", err)
	}
	return changed, nil
}

// Read returns the peers in the sets, sorted, and whether the rest of the table is in sync with the last Ensure. If it
// is not, call Ensure before Apply.
//
// While the kernel resizes a set's hash table, just after thousands of peers were added or removed, a listing can lack
// a peer (nft_rhash_walk restarts, and skips as many as it has listed). Adding a peer twice is harmless.
func (f *Filter) Read() (present []netip.Addr, inSync bool, err error) {
	var want Config
	if f.want != nil {
		want = *f.want
	}
	exists, inSync, err := f.table.Check(want.content())
	if err == nil && exists {
		present, err = f.present()
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the VTEP filter: %w", err)
	}
	return present, inSync && f.want != nil, nil
}

// Remove deletes the table and everything in it. A missing table is not an error.
func (f *Filter) Remove() error {
	f.want = nil
	if err := f.table.Remove(); err != nil {
		return fmt.Errorf("remove the VTEP filter: %w", err)
	}
	return nil
}

// Dropped counts the packets that were dropped since the rules were last set.
type Dropped struct {
	Strangers uint64 // to this node, from a source that is not a peer
	Pods      uint64 // VXLAN packets that were to leave the overlay
}

// Dropped reads the counters of the filter.
func (f *Filter) Dropped() (d Dropped, err error) {
	var inward, outward error
	d.Strangers, inward = f.table.CountPackets(arrivedChain)
	d.Pods, outward = f.table.CountPackets(leavingChain)
	if err := errors.Join(inward, outward); err != nil {
		return Dropped{}, fmt.Errorf("read the VTEP filter's counters: %w", err)
	}
	return d, nil
}

// missing reports whether an error means that the table or a part of it does not exist.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// Exists reports whether the table exists, with whatever content.
func (f *Filter) Exists() (bool, error) {
	exists, _, err := f.table.Check(nft.Content{})
	return exists, err
}
