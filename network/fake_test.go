package network

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

var (
	errNoDevice = errors.New("no such device")
	errDown     = errors.New("network is down")
	errExists   = errors.New("file exists")
)

// fakeKernel keeps state as the real one does: nothing can hang on a device that is not there, what hangs on a device
// goes with it, VNI and port exist once, some things happen without a notification. It refuses what a careful Kernel
// refuses, and notes in touched whatever it was asked to do to somebody else's things.
type fakeKernel struct {
	sysctls []string // set, in order

	tables     *Tables
	links      map[string]Link
	addresses  map[AddressKey]Address
	fdb        map[FDBKey]FDB
	neighbours map[NeighbourKey]Neighbour
	routes     map[RouteKey]Route

	notifications []func()                          // not yet taken in
	calls         []string                          // "+route 10.5.29.0/24" for set, "-route 10.5.29.0/24" for removed
	refuse        func(kind string, k string) error // a fault, if any
	touched       []string
}

func newFakeKernel(t *Tables) *fakeKernel {
	return &fakeKernel{
		tables:     t,
		links:      map[string]Link{},
		addresses:  map[AddressKey]Address{},
		fdb:        map[FDBKey]FDB{},
		neighbours: map[NeighbourKey]Neighbour{},
		routes:     map[RouteKey]Route{},
	}
}

// put and del change one object, whoever does it, and notify of it.
func put[K, V comparable](f *fakeKernel, m map[K]V, t *Table[K, V], k K, v V) {
	m[k] = v
	f.notifications = append(f.notifications, func() { t.Observe(k, v) })
}

func del[K, V comparable](f *fakeKernel, m map[K]V, t *Table[K, V], k K) {
	if _, there := m[k]; there {
		delete(m, k)
		f.notifications = append(f.notifications, func() { t.ObserveGone(k) })
	}
}

func (f *fakeKernel) putLink(name string, l Link) {
	was := f.links[name]
	put(f, f.links, f.tables.Links, name, l)
	if was.Up && !l.Up { // a device that is set down loses its routes, and nobody is told
		maps.DeleteFunc(f.routes, func(_ RouteKey, v Route) bool { return v.Link == name })
		f.notifications = append(f.notifications, f.readRoutes)
	}
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
	maps.DeleteFunc(f.routes, func(_ RouteKey, v Route) bool { return v.Link == name })
	f.notifications = append(f.notifications, func() { f.tables.LinkGone(name) })
}

// notify lets the tables take in what happened.
func (f *fakeKernel) notify() {
	for _, n := range f.notifications {
		n()
	}
	f.notifications = nil
}

// read is a full read.
func (f *fakeKernel) read() {
	f.notifications = nil
	readAll(f.tables.Links, f.links)
	readAll(f.tables.Addresses, f.addresses)
	readAll(f.tables.FDB, f.fdb)
	readAll(f.tables.Neighbours, f.neighbours)
	f.readRoutes()
}

func (f *fakeKernel) readRoutes() { readAll(f.tables.Routes, f.routes) }

func readAll[K, V comparable](t *Table[K, V], m map[K]V) {
	t.Mark()
	for k, v := range m {
		t.Observe(k, v)
	}
	t.Sweep(func(K) bool { return true })
}

// called notes a call and returns the fault that is set for it.
func (f *fakeKernel) called(kind string, k any, wanted bool) error {
	sign := "-"
	if wanted {
		sign = "+"
	}
	f.calls = append(f.calls, fmt.Sprintf("%s%s %v", sign, kind, k))
	if f.refuse != nil {
		return f.refuse(kind, fmt.Sprint(k))
	}
	return nil
}

// foreign notes that the last call was for something of somebody else's.
func (f *fakeKernel) foreign() error {
	f.touched = append(f.touched, f.calls[len(f.calls)-1])
	return ErrForeign
}

// isOurs says whether a device is selvage's, or one of flannel's that selvage may take over. VNI 1 and 2 are the overlay's.
func isOurs(l Link) bool {
	return l.Kind == "vxlan" && (l.Alias == Alias || l.Alias == "" && (l.VNI == 1 || l.VNI == 2))
}

func (f *fakeKernel) Link(name string, c Change[Link]) error {
	if err := f.called("link", name, c.Wanted); err != nil {
		return err
	}
	have, there := f.links[name]
	if !c.Wanted {
		if there && have.Alias != Alias {
			return f.foreign()
		}
		f.delLink(name)
		return nil
	}
	if there && !have.SameDevice(c.Want) {
		if have.Alias != Alias {
			return ErrForeign // to want the name is no fault, and how to find out
		}
		f.delLink(name)
		f.tables.LinkGone(name)
		there = false
	}
	for other, l := range f.links {
		if other == name || l.Kind != "vxlan" || l.VNI != c.Want.VNI || l.Port != c.Want.Port {
			continue
		}
		if l.Alias != Alias || !l.SameDevice(c.Want) || there {
			return errExists
		}
		f.rename(other, name)
	}
	f.putLink(name, c.Want)
	return nil
}

// rename takes all that hangs on a device along to its new name. To find out what that is takes a full read.
func (f *fakeKernel) rename(from, to string) {
	f.links[to] = f.links[from]
	delete(f.links, from)
	rekey(f.addresses, func(k *AddressKey) bool { return rename(&k.Link, from, to) })
	rekey(f.fdb, func(k *FDBKey) bool { return rename(&k.Link, from, to) })
	rekey(f.neighbours, func(k *NeighbourKey) bool { return rename(&k.Link, from, to) })
	for k, v := range f.routes {
		if rename(&v.Link, from, to) {
			f.routes[k] = v
		}
	}
	f.tables.LinkGone(from)
	f.notifications = append(f.notifications, f.read)
}

func rename(name *string, from, to string) bool {
	if *name != from {
		return false
	}
	*name = to
	return true
}

// rekey moves the objects whose keys change does change.
func rekey[K comparable, V any](m map[K]V, change func(*K) bool) {
	for k, v := range maps.Clone(m) {
		if was := k; change(&k) {
			delete(m, was)
			m[k] = v
		}
	}
}

// onLink says whether something can be put on a device.
func (f *fakeKernel) onLink(name string) error {
	l, there := f.links[name]
	switch {
	case !there:
		return errNoDevice
	case !isOurs(l):
		return f.foreign()
	}
	return nil
}

func (f *fakeKernel) Address(k AddressKey, c Change[Address]) error {
	if err := f.called("address", k, c.Wanted); err != nil {
		return err
	}
	if _, there := f.addresses[k]; !there && !c.Wanted {
		return nil
	}
	if err := f.onLink(k.Link); err != nil {
		return err
	}
	if k.Prefix.Addr().IsLinkLocalUnicast() {
		return f.foreign()
	}
	return apply(f, f.addresses, f.tables.Addresses, k, c)
}

func (f *fakeKernel) FDB(k FDBKey, c Change[FDB]) error {
	if err := f.called("fdb", k, c.Wanted); err != nil {
		return err
	}
	have, there := f.fdb[k]
	if !there && !c.Wanted {
		return nil
	}
	if err := f.onLink(k.Link); err != nil {
		return err
	}
	if !c.Wanted && !have.Permanent {
		return f.foreign()
	}
	return apply(f, f.fdb, f.tables.FDB, k, c)
}

func (f *fakeKernel) Neighbour(k NeighbourKey, c Change[Neighbour]) error {
	if err := f.called("neighbour", k, c.Wanted); err != nil {
		return err
	}
	have, there := f.neighbours[k]
	if !there && !c.Wanted {
		return nil
	}
	if err := f.onLink(k.Link); err != nil {
		return err
	}
	if !c.Wanted && !have.Permanent {
		return f.foreign()
	}
	return apply(f, f.neighbours, f.tables.Neighbours, k, c)
}

func (f *fakeKernel) Route(k RouteKey, c Change[Route]) error {
	if err := f.called("route", k, c.Wanted); err != nil {
		return err
	}
	have, there := f.routes[k]
	if there && have.Protocol == protocolKernel {
		if !c.Wanted {
			return f.foreign()
		}
		return ErrForeign // a bridge that still holds a subnet which has become a peer's
	}
	if !c.Wanted {
		if there && have.Protocol != RouteProtocol && !isOurs(f.links[have.Link]) {
			return f.foreign()
		}
		return apply(f, f.routes, f.tables.Routes, k, c)
	}
	switch l, there := f.links[c.Want.Link]; {
	case !there:
		return errNoDevice
	case !l.Up:
		return errDown
	case l.Kind == "vxlan" && !isOurs(l):
		return f.foreign()
	}
	return apply(f, f.routes, f.tables.Routes, k, c)
}

func apply[K, V comparable](f *fakeKernel, m map[K]V, t *Table[K, V], k K, c Change[V]) error {
	if c.Wanted {
		put(f, m, t, k, c.Want)
	} else {
		del(f, m, t, k)
	}
	return nil
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
	s = append(s, dumpOf("link", f.links)...)
	s = append(s, dumpOf("address", f.addresses)...)
	s = append(s, dumpOf("fdb", f.fdb)...)
	s = append(s, dumpOf("neighbour", f.neighbours)...)
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

func (f *fakeKernel) Sysctl(path string, c Change[Sysctl]) error {
	f.sysctls = append(f.sysctls, path)
	return nil
}
