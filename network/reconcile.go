package network

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrForeign means that something stands in the place of what is wanted that is not selvage's and may not be touched.
var ErrForeign = errors.New("in use by something that is not selvage's")

// Kernel changes the real thing, one object at a time. Each method makes the object under the key as the change wants
// it, or removes it if it is not wanted. Each is idempotent: to set what is set, or to remove what is gone, is no error.
//
// A method does not touch the tables, with one exception: Link calls [Tables.LinkGone] if it makes a device anew or
// renames one, since what hung on it hangs there no more. What the kernel reports in the meantime is for after the pass.
type Kernel interface {
	Devices
	Entries
	Sysctl(path string, c Change[Sysctl]) error
}

// Devices is the part of a [Kernel] that is about devices.
type Devices interface {
	Link(name string, c Change[Link]) error
	Address(k AddressKey, c Change[Address]) error
}

// Entries is the part of a [Kernel] that is about what leads to peers.
type Entries interface {
	FDB(k FDBKey, c Change[FDB]) error
	Neighbour(k NeighbourKey, c Change[Neighbour]) error
	Route(k RouteKey, c Change[Route]) error
}

// Result is what one pass did.
type Result struct {
	Set, Removed int
	Repaired     int      // of Set: had been right before and were changed by somebody else
	Sysctls      []string // those of Set, as "net/ipv4/ip_forward=1": they are the whole node's and not only ours
	Failures     []Failure
	Fights       []Fight
	// Retry is when the next attempt at what is still pending is due; zero if there is nothing to wait for.
	Retry time.Time
}

// Failure is one change that could not be made.
type Failure struct {
	Kind string // as in [Tables.Counts]
	Key  string
	Err  error
}

// Fight is a key that somebody else keeps changing back. It is set right as before, only with growing pauses.
type Fight struct {
	Kind, Key  string // as in [Failure]
	Want, Have string // ours and theirs, as Go prints the values; "nothing" for an object that is not to be there, or is not
}

// Reconciler makes a kernel hold what the tables want.
type Reconciler struct {
	Tables *Tables
	Kernel Kernel
	// KeepUnwanted holds back all removals: as long as not every lease is known, what nobody wants yet may be wanted.
	KeepUnwanted bool
}

// Pass applies what differs and is due: first everything that is to be there, each kind resting on the one before it,
// then, the other way round, what is to go. So a new path is in before the old one is taken away.
//
// A pass costs O(what differs). A change that fails stays pending and is tried again later; it stops nothing else.
func (r *Reconciler) Pass(now time.Time) Result {
	p := pass{now: now}
	t := r.Tables
	set(&p, "link", t.Links, r.Kernel.Link, nil)
	set(&p, "address", t.Addresses, r.Kernel.Address, func(k AddressKey, _ Address) bool { return t.canCarry(k.Link) })
	set(&p, "fdb", t.FDB, r.Kernel.FDB, func(k FDBKey, _ FDB) bool { return t.canCarry(k.Link) })
	set(&p, "neighbour", t.Neighbours, r.Kernel.Neighbour, func(k NeighbourKey, _ Neighbour) bool { return t.canCarry(k.Link) })
	set(&p, "route", t.Routes, r.Kernel.Route, func(_ RouteKey, v Route) bool { return t.canCarry(v.Link) })
	r.setSysctls(&p)
	if !r.KeepUnwanted {
		remove(&p, "route", t.Routes, r.Kernel.Route)
		remove(&p, "neighbour", t.Neighbours, r.Kernel.Neighbour)
		remove(&p, "fdb", t.FDB, r.Kernel.FDB)
		remove(&p, "address", t.Addresses, r.Kernel.Address)
		remove(&p, "link", t.Links, func(name string, c Change[Link]) error {
			if err := r.Kernel.Link(name, c); err != nil {
				return err
			}
			t.LinkGone(name)
			return nil
		})
	}
	t.Links.calmDown(now)
	t.Addresses.calmDown(now)
	t.FDB.calmDown(now)
	t.Neighbours.calmDown(now)
	t.Routes.calmDown(now)
	t.Sysctls.calmDown(now)
	return p.Result
}

// setSysctls sets accept_ra before forwarding: with accept_ra=1 the kernel drops a default route learnt from a router
// when it begins to forward IPv6 (addrconf_fixup_forwarding in net/ipv6/addrconf.c).
func (r *Reconciler) setSysctls(p *pass) {
	waits := false
	apply := func(path string, c Change[Sysctl]) error {
		err := r.Kernel.Sysctl(path, c)
		if err == nil {
			p.Sysctls = append(p.Sysctls, fmt.Sprintf("%s=%s", path, c.Want))
		}
		return err
	}
	set(p, "sysctl", r.Tables.Sysctls, apply, func(path string, _ Sysctl) bool { return strings.HasSuffix(path, "/accept_ra") })
	r.Tables.Sysctls.Pending(func(path string, _ Change[Sysctl]) bool {
		waits = waits || strings.HasSuffix(path, "/accept_ra")
		return true
	})
	set(p, "sysctl", r.Tables.Sysctls, apply, func(path string, _ Sysctl) bool {
		return !waits || !strings.HasPrefix(path, "net/ipv6/")
	})
}

type pass struct {
	Result
	now time.Time
}

// set makes what is wanted. ready says whether what an object rests on is there; if not, the object waits for it.
func set[K, V comparable](p *pass, kind string, t *Table[K, V], apply func(K, Change[V]) error, ready func(K, V) bool) {
	t.Pending(func(k K, c Change[V]) bool {
		if c.Wanted && (ready == nil || ready(k, c.Want)) && attempt(p, kind, t, k, c, apply) {
			t.Observe(k, c.Want)
			p.Set++
		}
		return true
	})
}

// remove takes away what is ours and wanted by nobody.
func remove[K, V comparable](p *pass, kind string, t *Table[K, V], apply func(K, Change[V]) error) {
	t.Pending(func(k K, c Change[V]) bool {
		if !c.Wanted && attempt(p, kind, t, k, c, apply) {
			t.ObserveGone(k)
			p.Removed++
		}
		return true
	})
}

func attempt[K, V comparable](p *pass, kind string, t *Table[K, V], k K, c Change[V], apply func(K, Change[V]) error) bool {
	at, due := t.due(k, p.now)
	if !due {
		p.retryAt(at)
		return false
	}
	repair := t.cells[k].settled // before apply, which may find a device gone and say so
	err := apply(k, c)
	t.tried(k, p.now, c.Wanted && !repair, err)
	if err != nil {
		p.Failures = append(p.Failures, Failure{Kind: kind, Key: fmt.Sprint(k), Err: err})
		at, _ := t.due(k, p.now)
		p.retryAt(at)
		return false
	}
	if repair {
		p.Repaired++
	}
	if t.fought(k) {
		f := Fight{Kind: kind, Key: fmt.Sprint(k), Want: "nothing", Have: "nothing"}
		if c.Wanted {
			f.Want = fmt.Sprintf("%+v", c.Want)
		}
		if c.Present {
			f.Have = fmt.Sprintf("%+v", c.Have)
		}
		p.Fights = append(p.Fights, f)
	}
	return true
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
