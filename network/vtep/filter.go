package vtep

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// Table is the name of our table, of family inet.
const Table = "selvage-vtep"

// attempts bounds how often something is tried again because somebody else changed the ruleset at the same time.
const attempts = 5

// Filter keeps the table in the network namespace in which [Open] was called. Its methods are for one goroutine, but for
// [Filter.Watch], which runs beside them.
type Filter struct {
	conn   *nftables.Conn
	socket *netlink.Conn // of conn
	table  *nftables.Table
	want   *Config // as of the last Ensure; nil before

	patience time.Duration
}

// Open returns a Filter, or [ErrUnsupported]. It changes nothing yet.
func Open() (*Filter, error) {
	conn, socket, err := open()
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", explain(err))
	}
	f := &Filter{conn: conn, socket: socket, table: &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}, patience: patience}
	if err := f.probe(); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the packet filter: %w", err), f.Close())
	}
	return f, nil
}

// Close gives the socket back. The table stays.
func (f *Filter) Close() error { return f.conn.CloseLasting() }

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
	if peers == nil {
		peers = slices.Values[[]netip.Addr](nil)
	}
	for n := 0; ; n++ {
		have, err := f.read()
		if err != nil {
			return changed, fmt.Errorf("read the VTEP filter: %w", err)
		}
		p := makePlan(c, have)
		switch {
		case p.nothing():
			return changed, nil
		case n == attempts && have.broken != nil:
			return changed, fmt.Errorf("read the VTEP filter: %w", have.broken)
		case n == attempts:
			return changed, errors.New("the table " + Table + " does not stay as it is set: find the other program that changes it")
		}
		err = f.carryOut(c, p, peers)
		switch {
		case err == nil:
			changed = true
		case p.whole:
			return changed, fmt.Errorf("set the VTEP filter: %w", explainWhole(err))
		case !errors.Is(err, fs.ErrNotExist): // else somebody deleted what we had just read
			return changed, fmt.Errorf("set the VTEP filter: %w", explain(err))
		}
	}
}

// read reads the table, but for the peers.
func (f *Filter) read() (r reading, err error) {
	err = f.ask(func() (err error) { r.table, err = f.conn.ListTableOfFamily(Table, f.table.Family); return err })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return reading{}, nil
	case err != nil:
		return reading{}, explain(err)
	}
	r.broken = f.ask(func() error { return f.readTable(&r) })
	if r.broken != nil {
		return r, nil
	}
	r.elements = map[string][]element{}
	for _, s := range (Config{}).sets() {
		if !s.filled {
			continue
		}
		if r.elements[s.name], err = f.elements(s.name); err != nil {
			return r, err
		}
	}
	return r, nil
}

// readTable reads what is in the table but for elements. The library's errors tell no more than that it failed.
func (f *Filter) readTable(r *reading) error {
	sets, err := f.conn.GetSets(f.table)
	if err != nil {
		return err
	}
	chains, err := f.conn.ListChainsOfTableFamily(f.table.Family)
	if err != nil {
		return err
	}
	r.sets, r.chains, r.rules = map[string]definition{}, map[string]*nftables.Chain{}, map[string][]*nftables.Rule{}
	for _, s := range sets {
		r.sets[s.Name] = definitionOf(s)
	}
	for _, c := range chains {
		if c.Table.Name != Table {
			continue
		}
		r.chains[c.Name] = c
		if r.rules[c.Name], err = f.conn.GetRules(f.table, c); err != nil {
			return err
		}
	}
	return nil
}

// carryOut makes what is planned, in one transaction.
func (f *Filter) carryOut(c Config, p plan, peers iter.Seq[netip.Addr]) error {
	t := transaction{conn: f.conn, table: f.table}
	if p.whole {
		kept, err := f.present()
		if err != nil {
			return err
		}
		t.again(c)
		t.addPeers(slices.Values(kept))
		p.refill = slices.DeleteFunc(c.sets(), func(s set) bool { return !s.filled })
	}
	for _, s := range p.refill {
		t.refill(s)
	}
	if p.whole || p.rules {
		t.addPeers(peers)
		t.setRules(c.chains())
	}
	return f.commit(&t)
}

// Read returns the peers in the sets, in order, and whether the rest of the table is as the last Ensure was to make it.
// Where ok is false, it is for Ensure to go first.
//
// While the kernel makes a set's hash table larger or smaller, just after thousands came or went, it can leave one out
// (nft_rhash_walk starts anew and skips as many as it had given). To add that one again does no harm.
func (f *Filter) Read() (present []netip.Addr, ok bool, err error) {
	have, err := f.read()
	if err != nil {
		return nil, false, fmt.Errorf("read the VTEP filter: %w", err)
	}
	if have.table == nil {
		return nil, false, nil
	}
	if present, err = f.present(); err != nil {
		return nil, false, fmt.Errorf("read the VTEP filter: %w", err)
	}
	return present, f.want != nil && makePlan(*f.want, have).nothing(), nil
}

// Remove deletes the table with all that is in it; that there is none is no error.
func (f *Filter) Remove() error {
	f.want = nil
	err := f.ask(func() error {
		f.conn.AddTable(f.table) // so that there is something to delete
		f.conn.DelTable(f.table)
		return f.conn.Flush()
	})
	if err != nil {
		return fmt.Errorf("remove the VTEP filter: %w", explain(err))
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
	for chain, n := range map[string]*uint64{arrivedChain: &d.Strangers, leavingChain: &d.Pods} {
		var rules []*nftables.Rule
		err := f.ask(func() (err error) {
			rules, err = f.conn.GetRules(f.table, &nftables.Chain{Name: chain})
			return err
		})
		if err != nil {
			return Dropped{}, fmt.Errorf("read the VTEP filter's counters: %w", err)
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if counter, ok := e.(*expr.Counter); ok {
					*n += counter.Packets
				}
			}
		}
	}
	return d, nil
}
