package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

var (
	errNoDevice  = errors.New("no such device")
	errDown      = errors.New("network is down")
	errExists    = errors.New("file exists")
	errNoNexthop = errors.New("nexthop id does not exist")
	errGroup     = errors.New("cannot replace a nexthop group with a nexthop")
)

// fakeKernel keeps state as the real one does: nothing can hang on a device or a nexthop object that is not there, what
// hangs on one goes with it, VNI and port exist once, some things happen without a notification. It refuses what package
// kernel refuses, and notes in touched whatever it was asked to do to foreign objects.
type fakeKernel struct {
	tables     *Tables
	vteps      map[netip.Addr]VTEP
	links      map[string]Link
	addresses  map[AddressKey]Address
	fdb        map[FDBKey]FDB
	neighbours map[NeighbourKey]Neighbour
	nexthops   map[NexthopID]Nexthop
	routes     map[RouteKey]Route // of one that goes by a nexthop object, the device is that object's

	lost map[NexthopID]struct{} // told to be gone, and their routes are to follow

	notifications []func() (reread bool)            // not yet taken in
	calls         []string                          // "+route 10.5.29.0/24" for set, "-route 10.5.29.0/24" for removed
	batches       []string                          // "route 128" for a call with so many
	refuse        func(kind string, k string) error // a fault, if any
	touched       []string
	sysctls       []string // set, in order
}

func newFakeKernel(t *Tables) *fakeKernel {
	f := &fakeKernel{
		lost:       map[NexthopID]struct{}{},
		vteps:      map[netip.Addr]VTEP{},
		links:      map[string]Link{},
		addresses:  map[AddressKey]Address{},
		fdb:        map[FDBKey]FDB{},
		neighbours: map[NeighbourKey]Neighbour{},
		nexthops:   map[NexthopID]Nexthop{},
		routes:     map[RouteKey]Route{},
	}
	f.serve(t)
	return f
}

// serve has the fake kernel feed and obey tables.
func (f *fakeKernel) serve(t *Tables) {
	f.tables = t
	t.VTEPs.ApplyBatch(f.VTEPs)
	t.ApplyLinks(f.Link)
	t.Addresses.ApplyEach(f.Address)
	t.FDB.ApplyBatch(f.FDB)
	t.Neighbours.ApplyBatch(f.Neighbours)
	t.Nexthops.ApplyBatch(f.Nexthops)
	t.Routes.ApplyBatch(f.Routes)
	t.Sysctls.ApplyEach(f.Sysctl)
}

// clone copies what there is.
func (f *fakeKernel) clone() *fakeKernel {
	return &fakeKernel{
		vteps:      maps.Clone(f.vteps),
		links:      maps.Clone(f.links),
		addresses:  maps.Clone(f.addresses),
		fdb:        maps.Clone(f.fdb),
		neighbours: maps.Clone(f.neighbours),
		nexthops:   maps.Clone(f.nexthops),
		routes:     maps.Clone(f.routes),
	}
}

// tell notifies of something.
func (f *fakeKernel) tell(what func()) {
	f.notifications = append(f.notifications, func() bool { what(); return false })
}

// distrust notifies of something that takes a full read to know.
func (f *fakeKernel) distrust() {
	f.notifications = append(f.notifications, func() bool { return true })
}

// put and del change one object, whoever does it, and notify of it.
func put[K, V comparable](f *fakeKernel, m map[K]V, t *Table[K, V], k K, v V) {
	m[k] = v
	f.tell(func() { t.Observe(k, v) })
}

func del[K, V comparable](f *fakeKernel, m map[K]V, t *Table[K, V], k K) {
	if _, there := m[k]; there {
		delete(m, k)
		f.tell(func() { t.ObserveGone(k) })
	}
}

func (f *fakeKernel) putLink(name string, l Link) {
	was := f.links[name]
	put(f, f.links, f.tables.Links, name, l)
	if was.Up && !l.Up { // a device that is set down loses its routes and nexthop objects, and nobody is told
		f.dropRoutes(name)
		f.distrust()
	}
}

// dropRoutes drops the routes out of a device and the nexthop objects on it.
func (f *fakeKernel) dropRoutes(link string) {
	maps.DeleteFunc(f.nexthops, func(_ NexthopID, v Nexthop) bool { return v.Link == link })
	maps.DeleteFunc(f.routes, func(_ RouteKey, v Route) bool { return v.Link == link })
}

// delLink deletes a device and what hangs on it. Only the device is reported.
func (f *fakeKernel) delLink(name string) {
	if _, there := f.links[name]; !there {
		return
	}
	delete(f.links, name)
	maps.DeleteFunc(f.addresses, func(k AddressKey, _ Address) bool { return k.Link == name })
	maps.DeleteFunc(f.fdb, func(k FDBKey, _ FDB) bool { return k.Link == name })
	maps.DeleteFunc(f.neighbours, func(k NeighbourKey, _ Neighbour) bool { return k.Link == name })
	f.dropRoutes(name)
	f.tell(func() { f.tables.LinkGone(name) })
}

// putNexthop sets a nexthop object, whoever does it. The routes that go by it are reported too, as they now are
// (net.ipv4.nexthop_compat_mode).
func (f *fakeKernel) putNexthop(id NexthopID, v Nexthop) {
	put(f, f.nexthops, f.tables.Nexthops, id, v)
	for k, r := range f.routes {
		if r.Nexthop == id {
			r.Link = v.Link
			put(f, f.routes, f.tables.Routes, k, r)
		}
	}
}

// delNexthop deletes a nexthop object and the routes that go by it. Only the object is reported.
func (f *fakeKernel) delNexthop(id NexthopID) {
	if _, there := f.nexthops[id]; !there {
		return
	}
	delete(f.nexthops, id)
	maps.DeleteFunc(f.routes, func(_ RouteKey, v Route) bool { return v.Nexthop == id })
	f.notifications = append(f.notifications, func() (reread bool) {
		f.tables.Nexthops.ObserveGone(id)
		f.lost[id] = struct{}{}
		return false
	})
}

// notify lets the tables take in what happened.
func (f *fakeKernel) notify() {
	reread := false
	for _, n := range f.notifications {
		reread = n() || reread
	}
	f.notifications = nil
	f.tables.NexthopsGone(f.lost)
	clear(f.lost)
	if reread {
		f.read()
	}
}

// read is a full read.
func (f *fakeKernel) read() {
	f.notifications = nil
	readAll(f.tables.VTEPs, f.vteps)
	readAll(f.tables.Links, f.links)
	readAll(f.tables.Addresses, f.addresses)
	readAll(f.tables.FDB, f.fdb)
	readAll(f.tables.Neighbours, f.neighbours)
	readAll(f.tables.Nexthops, f.nexthops)
	readAll(f.tables.Routes, f.routes)
}

func readAll[K, V comparable](t *Table[K, V], m map[K]V) {
	t.Mark()
	for k, v := range m {
		t.Observe(k, v)
	}
	t.Sweep(func(K) bool { return true })
}

// takeCalls returns the calls since it was last called, those of one kind next to each other in alphabetical order: the
// tables walk one kind in no order.
func (f *fakeKernel) takeCalls() []string {
	calls := f.calls
	f.calls = nil
	kind := func(s string) string {
		for i := range s {
			if s[i] == ' ' {
				return s[:i]
			}
		}
		return s
	}
	for i := 0; i < len(calls); {
		j := i
		for j < len(calls) && kind(calls[j]) == kind(calls[i]) {
			j++
		}
		slices.Sort(calls[i:j])
		i = j
	}
	return calls
}

// dump is everything there is, as text.
func (f *fakeKernel) dump() []string {
	var s []string
	s = append(s, dumpOf("vtep", f.vteps)...)
	s = append(s, dumpOf("link", f.links)...)
	s = append(s, dumpOf("address", f.addresses)...)
	s = append(s, dumpOf("fdb", f.fdb)...)
	s = append(s, dumpOf("neighbour", f.neighbours)...)
	s = append(s, dumpOf("nexthop", f.nexthops)...)
	return append(s, dumpOf("route", f.routes)...)
}

func dumpOf[K comparable, V any](kind string, m map[K]V) []string {
	var s []string
	for k, v := range m {
		s = append(s, fmt.Sprintf("%s %v: %+v", kind, k, v))
	}
	slices.Sort(s)
	return s
}
