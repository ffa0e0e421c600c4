package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// ErrForeign means that something stands in the place of what is wanted that is not selvage's and may not be touched.
var ErrForeign = errors.New("in use by something that is not selvage's")

// Kernel changes the real thing. Each method makes the object under the key as the change wants it, or removes it if it
// is not wanted. Each is idempotent: to set what is set, or to remove what is gone, is no error.
//
// No method changes the tables: the [Reconciler] does, from what the methods return. What the kernel notifies of in the
// meantime is taken in after the pass.
type Kernel interface {
	Devices
	Entries
	Sysctl(path string, c Change[Sysctl]) error
	// VTEPs has the filter let peers in, or no more. Where there is no such filter it does nothing.
	VTEPs([]Update[netip.Addr, VTEP])
}

// Devices is the part of a [Kernel] that is about devices.
type Devices interface {
	// Link returns the effects of the change on other objects. They count even if there is an error: a device may have
	// been deleted that could not be made anew.
	Link(name string, c Change[Link]) (LinkEffects, error)
	Address(k AddressKey, c Change[Address]) error
}

// LinkEffects is what a change of a device did to the objects on it: the kernel notifies of the device only.
type LinkEffects struct {
	Deleted     bool   // the device was deleted, for good or to make it anew: all objects on it are gone
	RenamedFrom string // the device had this name before: all objects on it have moved to the new name; empty: no change
	FDBFlushed  bool   // its forwarding database is empty
}

// Entries is the part of a [Kernel] that is about what leads to peers. There can be thousands, so they come in batches;
// each update is made in its turn, and its Err set if it could not be.
type Entries interface {
	FDB([]Update[FDBKey, FDB])
	Neighbours([]Update[NeighbourKey, Neighbour])
	Nexthops([]Update[NexthopID, Nexthop])
	Routes([]Update[RouteKey, Route])
}

// Update is one change to make in a batch.
type Update[K, V comparable] struct {
	Key    K
	Change Change[V]
	Err    error // why it could not be made

	repair bool   // it has been right before
	by     string // and who changed it
}

// batchSize is how many updates a [Kernel] is given at once. More is not faster, and what waits takes memory.
const batchSize = 128

// Result is what one pass did.
type Result struct {
	Set, Removed int
	Repaired     int      // of Set: had been right before and were changed by somebody else
	Repairs      []Repair // of Repaired: the first of each kind and cause, and how many
	Sysctls      []string // those of Set, as "net/ipv4/ip_forward=1": they are the whole node's and not only ours
	Failures     []Failure
	Conflicts    []Conflict
	// Retry is when the next attempt at what is still pending is due; zero if there is nothing to wait for.
	Retry time.Time
}

// Failure is one change that could not be made.
type Failure struct {
	Kind string // as in [Tables.Counts]
	Key  string
	Err  error
}

// Repair is a number of objects of one kind that were set right.
type Repair struct {
	Kind  string // as in [Tables.Counts]
	Cause string // "missing": somebody had removed it; "changed"
	Key   string // of the first
	Count int
	By    string // who had changed it, see [Tables.Attribute]; empty: not known, or several
}

// Conflict is a key that somebody else keeps changing back. It is set right as before, only with growing pauses.
type Conflict struct {
	Kind, Key  string // as in [Failure]
	Want, Have string // ours and theirs, as Go prints the values; "nothing" for an object that is not to be there, or is not
	By         string // who changed it last, as in [Repair]
}

// Reconciler makes a kernel hold what the tables want.
type Reconciler struct {
	Tables *Tables
	Kernel Kernel
	// KeepUnwanted holds back all removals: as long as not every lease is known, what nobody wants yet may be wanted.
	KeepUnwanted bool
	// Drain, if not nil, takes what the kernel has told meanwhile into the tables. Our own changes are told too, and thousands of
	// them would otherwise wait for the end of the pass.
	Drain func()
}

// Pass applies what differs and is due: first everything that is to be there, each kind resting on the one before it,
// then, the other way round, what is to go. So a new path is in before the old one is taken away.
//
// A pass costs O(what differs). A change that fails stays pending and is tried again later; it stops nothing else.
func (r *Reconciler) Pass(now time.Time) Result {
	p := pass{now: now}
	t := r.Tables
	set(&p, "vtep", t.VTEPs, r.Kernel.VTEPs, nil) // first: the peer may be sending already
	set(&p, "link", t.Links, each(t.Links, r.link), nil)
	r.setSysctls(&p, givesIPv6)
	set(&p, "address", t.Addresses, each(t.Addresses, r.Kernel.Address), func(k AddressKey, _ Address) bool { return t.canCarry(k.Link) })
	set(&p, "fdb", t.FDB, r.Kernel.FDB, func(k FDBKey, _ FDB) bool { return t.canCarry(k.Link) })
	r.drain(&p)
	set(&p, "neighbour", t.Neighbours, r.Kernel.Neighbours, func(k NeighbourKey, _ Neighbour) bool { return t.canCarry(k.Link) })
	r.drain(&p)
	set(&p, "nexthop", t.Nexthops, r.Kernel.Nexthops, func(_ NexthopID, v Nexthop) bool { return t.canCarry(v.Link) })
	r.drain(&p)
	set(&p, "route", t.Routes, r.Kernel.Routes, func(_ RouteKey, v Route) bool { return t.canCarry(v.Link) && t.hasNexthop(v) })
	r.setForwarding(&p)
	if !r.KeepUnwanted {
		remove(&p, "route", t.Routes, r.Kernel.Routes)
		r.removeNexthops(&p)
		remove(&p, "neighbour", t.Neighbours, r.Kernel.Neighbours)
		remove(&p, "fdb", t.FDB, r.Kernel.FDB)
		remove(&p, "address", t.Addresses, each(t.Addresses, r.Kernel.Address))
		remove(&p, "link", t.Links, each(t.Links, r.link))
		remove(&p, "vtep", t.VTEPs, r.Kernel.VTEPs)
	}
	t.VTEPs.expireRetries(now)
	t.Links.expireRetries(now)
	t.Addresses.expireRetries(now)
	t.FDB.expireRetries(now)
	t.Neighbours.expireRetries(now)
	t.Nexthops.expireRetries(now)
	t.Routes.expireRetries(now)
	t.Sysctls.expireRetries(now)
	return p.Result
}

// manySet is from how many changes in a pass on it is worth to drain.
const manySet = 1000

func (r *Reconciler) drain(p *pass) {
	if r.Drain != nil && p.Set >= manySet {
		r.Drain()
	}
}

// link makes or removes a device, and takes the effects on the objects on it into the tables.
func (r *Reconciler) link(name string, c Change[Link]) error {
	effects, err := r.Kernel.Link(name, c)
	if effects.Deleted {
		r.Tables.LinkGone(name)
	}
	if effects.RenamedFrom != "" {
		r.Tables.LinkGone(effects.RenamedFrom)
	}
	if effects.FDBFlushed {
		r.Tables.FDBGone(name)
	}
	return err
}

// removeNexthops keeps those that routes still go by, because these could not be changed or removed: the kernel would take
// them along, and tell nobody.
func (r *Reconciler) removeNexthops(p *pass) {
	t := r.Tables
	attempt(p, "nexthop", t.Nexthops, r.Kernel.Nexthops, func(id NexthopID, c Change[Nexthop]) bool {
		return !c.Wanted && t.routesBy[id] == 0
	})
}

// givesIPv6 picks the settings without which a device takes neither IPv6 addresses nor routes.
func givesIPv6(path string) bool { return strings.HasSuffix(path, "/disable_ipv6") }

// setForwarding sets accept_ra before forwarding: with accept_ra=1 the kernel drops a default route learnt from a router
// when it begins to forward IPv6 (addrconf_fixup_forwarding in net/ipv6/addrconf.c).
func (r *Reconciler) setForwarding(p *pass) {
	waits := false
	r.setSysctls(p, func(path string) bool { return strings.HasSuffix(path, "/accept_ra") })
	r.Tables.Sysctls.Pending(func(path string, _ Change[Sysctl]) bool {
		waits = waits || strings.HasSuffix(path, "/accept_ra")
		return true
	})
	r.setSysctls(p, func(path string) bool { return !waits || !strings.HasPrefix(path, "net/ipv6/") })
}

// setSysctls sets those that which picks.
func (r *Reconciler) setSysctls(p *pass, which func(path string) bool) {
	apply := func(path string, c Change[Sysctl]) error {
		err := r.Kernel.Sysctl(path, c)
		if err == nil {
			p.Sysctls = append(p.Sysctls, fmt.Sprintf("%s=%s", path, c.Want))
		}
		return err
	}
	set(p, "sysctl", r.Tables.Sysctls, each(r.Tables.Sysctls, apply), func(path string, _ Sysctl) bool { return which(path) })
}

type pass struct {
	Result
	now time.Time
}

// each makes the changes of a batch one by one, each as the table asks for it by then: to make one can show more.
func each[K, V comparable](t *Table[K, V], apply func(K, Change[V]) error) func([]Update[K, V]) {
	return func(batch []Update[K, V]) {
		for i := range batch {
			u := &batch[i]
			u.Change = t.Get(u.Key)
			u.Err = apply(u.Key, u.Change)
		}
	}
}

// set makes what is wanted. ready says whether what an object rests on is there; if not, the object waits for it.
func set[K, V comparable](p *pass, kind string, t *Table[K, V], apply func([]Update[K, V]), ready func(K, V) bool) {
	attempt(p, kind, t, apply, func(k K, c Change[V]) bool { return c.Wanted && (ready == nil || ready(k, c.Want)) })
}

// remove takes away what is ours and wanted by nobody.
func remove[K, V comparable](p *pass, kind string, t *Table[K, V], apply func([]Update[K, V])) {
	attempt(p, kind, t, apply, func(_ K, c Change[V]) bool { return !c.Wanted })
}

// attempt makes, in batches, the changes that which picks, of those that are due.
func attempt[K, V comparable](p *pass, kind string, t *Table[K, V], apply func([]Update[K, V]), which func(K, Change[V]) bool) {
	var batch []Update[K, V]
	flush := func() {
		if len(batch) == 0 {
			return
		}
		apply(batch)
		for _, u := range batch {
			tried(p, kind, t, u)
		}
		batch = batch[:0]
	}
	t.Pending(func(k K, c Change[V]) bool {
		if !which(k, c) {
			return true
		}
		if at, due := t.due(k, p.now); !due {
			p.retryAt(at)
			return true
		}
		// Whether it is a repair is asked before it is made: to make it may show that a device is gone.
		batch = append(batch, Update[K, V]{Key: k, Change: c, repair: t.cells[k].is(settled), by: t.changedBy[k]})
		if len(batch) == batchSize {
			flush()
		}
		return true
	})
	flush()
}

// tried notes what came of an update.
func tried[K, V comparable](p *pass, kind string, t *Table[K, V], u Update[K, V]) {
	k, c := u.Key, u.Change
	t.tried(k, p.now, c.Wanted && !u.repair, u.Err)
	switch {
	case u.Err != nil:
		p.Failures = append(p.Failures, Failure{Kind: kind, Key: fmt.Sprint(k), Err: u.Err})
		at, _ := t.due(k, p.now)
		p.retryAt(at)
		return
	case c.Wanted:
		t.Observe(k, c.Want)
		p.Set++
	default:
		t.ObserveGone(k)
		p.Removed++
	}
	if u.repair {
		p.repaired(kind, k, c.Present, u.by)
	}
	if t.inConflict(k) {
		f := Conflict{Kind: kind, Key: fmt.Sprint(k), Want: "nothing", Have: "nothing", By: u.by}
		if c.Wanted {
			f.Want = fmt.Sprintf("%+v", c.Want)
		}
		if c.Present {
			f.Have = fmt.Sprintf("%+v", c.Have)
		}
		p.Conflicts = append(p.Conflicts, f)
	}
}

func (p *pass) repaired(kind string, key any, present bool, by string) {
	p.Repaired++
	cause := "missing"
	if present {
		cause = "changed"
	}
	for i := range p.Repairs {
		if r := &p.Repairs[i]; r.Kind == kind && r.Cause == cause {
			if r.Count++; r.By != by {
				r.By = ""
			}
			return
		}
	}
	p.Repairs = append(p.Repairs, Repair{Kind: kind, Cause: cause, Key: fmt.Sprint(key), Count: 1, By: by})
}

func (p *pass) retryAt(at time.Time) {
	if p.Retry.IsZero() || at.Before(p.Retry) {
		p.Retry = at
	}
}

// String returns "10.5.29.0/24" or, with a metric of its own, "10.5.29.0/24 metric 7".
func (k RouteKey) String() string {
	if k.Metric == DefaultMetric(k.Prefix) {
		return k.Prefix.String()
	}
	return fmt.Sprintf("%s metric %d", k.Prefix, k.Metric)
}

// String returns the form "10.5.29.0/32 dev flannel.1".
func (k AddressKey) String() string { return fmt.Sprintf("%s dev %s", k.Prefix, k.Link) }

// String returns the form "72:30:36:d0:8b:68 dev flannel.1".
func (k FDBKey) String() string { return fmt.Sprintf("%s dev %s", k.MAC, k.Link) }

// String returns the form "10.5.29.0 dev flannel.1".
func (k NeighbourKey) String() string { return fmt.Sprintf("%s dev %s", k.IP, k.Link) }
