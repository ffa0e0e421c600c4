package network

import (
	"fmt"
	"maps"
	"net/netip"
)

// How the fake kernel applies changes.

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
	vni := vxlanOf(l).VNI
	return l.Kind == KindVXLAN && (l.Alias == Alias || l.Alias == "" && (vni == 1 || vni == 2))
}

func (f *fakeKernel) Link(name string, c Change[Link]) (effects LinkEffects, err error) {
	if err := f.called("link", name, c.Wanted); err != nil {
		return effects, err
	}
	have, there := f.links[name]
	if !c.Wanted {
		if there && have.Alias != Alias {
			return effects, f.foreign()
		}
		f.delLink(name)
		effects.Deleted = true
		return effects, nil
	}
	if there && !have.SameDevice(c.Want) {
		if have.Alias != Alias {
			return effects, ErrForeign // to want the name is no fault, and how to find out
		}
		f.delLink(name)
		effects.Deleted, there = true, false
	}
	for other, l := range f.links {
		have, want := vxlanOf(l), vxlanOf(c.Want)
		if other == name || l.Kind != KindVXLAN || have.VNI != want.VNI || have.Port != want.Port {
			continue
		}
		if l.Alias != Alias || !l.SameDevice(c.Want) || there {
			return effects, errExists
		}
		f.rename(other, name)
		effects.RenamedFrom = other
	}
	f.putLink(name, c.Want)
	return effects, nil
}

// rename takes all that hangs on a device along to its new name. To find out what that is takes a full read.
func (f *fakeKernel) rename(from, to string) {
	f.links[to] = f.links[from]
	delete(f.links, from)
	rekey(f.addresses, func(k *AddressKey) bool { return rename(&k.Link, from, to) })
	rekey(f.fdb, func(k *FDBKey) bool { return rename(&k.Link, from, to) })
	rekey(f.neighbours, func(k *NeighbourKey) bool { return rename(&k.Link, from, to) })
	for k, v := range f.nexthops {
		if rename(&v.Link, from, to) {
			f.nexthops[k] = v
		}
	}
	for k, v := range f.routes {
		if rename(&v.Link, from, to) {
			f.routes[k] = v
		}
	}
	f.distrust()
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

// leadsOut says whether a route can lead out of a device.
func (f *fakeKernel) leadsOut(name string) error {
	switch l, there := f.links[name]; {
	case !there:
		return errNoDevice
	case !l.Up:
		return errDown
	case l.Kind == "vxlan" && !isOurs(l):
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
	apply(f, f.addresses, f.tables.Addresses, k, c)
	return nil
}

// batched makes the changes of a batch.
func batched[K, V comparable](f *fakeKernel, kind string, batch []Update[K, V], change func(K, Change[V]) error) {
	f.batches = append(f.batches, fmt.Sprint(kind, " ", len(batch)))
	for i := range batch {
		u := &batch[i]
		if u.Err = f.called(kind, u.Key, u.Change.Wanted); u.Err == nil {
			u.Err = change(u.Key, u.Change)
		}
	}
}

func (f *fakeKernel) VTEPs(batch []Update[netip.Addr, VTEP]) {
	batched(f, "vtep", batch, func(k netip.Addr, c Change[VTEP]) error {
		apply(f, f.vteps, f.tables.VTEPs, k, c)
		return nil
	})
}

func (f *fakeKernel) FDB(batch []Update[FDBKey, FDB]) { batched(f, "fdb", batch, f.changeFDB) }

func (f *fakeKernel) changeFDB(k FDBKey, c Change[FDB]) error {
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
	apply(f, f.fdb, f.tables.FDB, k, c)
	return nil
}

func (f *fakeKernel) Neighbours(batch []Update[NeighbourKey, Neighbour]) {
	batched(f, "neighbour", batch, f.changeNeighbour)
}

func (f *fakeKernel) changeNeighbour(k NeighbourKey, c Change[Neighbour]) error {
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
	apply(f, f.neighbours, f.tables.Neighbours, k, c)
	return nil
}

func (f *fakeKernel) Nexthops(batch []Update[NexthopID, Nexthop]) {
	batched(f, "nexthop", batch, f.changeNexthop)
}

func (f *fakeKernel) changeNexthop(k NexthopID, c Change[Nexthop]) error {
	have, there := f.nexthops[k]
	if !c.Wanted {
		if there && have.Protocol != RouteProtocol {
			return f.foreign()
		}
		f.delNexthop(k)
		return nil
	}
	if c.Present && c.Have.Odd {
		f.delNexthop(k)
	} else if there && have.Odd {
		return errGroup
	}
	if err := f.leadsOut(c.Want.Link); err != nil {
		return err
	}
	f.putNexthop(k, c.Want)
	return nil
}

func (f *fakeKernel) Routes(batch []Update[RouteKey, Route]) {
	batched(f, "route", batch, f.changeRoute)
}

func (f *fakeKernel) changeRoute(k RouteKey, c Change[Route]) error {
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
		apply(f, f.routes, f.tables.Routes, k, c)
		return nil
	}
	if c.Want.Nexthop != 0 {
		n, there := f.nexthops[c.Want.Nexthop]
		if !there {
			return errNoNexthop
		}
		c.Want.Link = n.Link // who asks has no say in that
	} else if err := f.leadsOut(c.Want.Link); err != nil {
		return err
	}
	apply(f, f.routes, f.tables.Routes, k, c)
	return nil
}

func apply[K, V comparable](f *fakeKernel, m map[K]V, t *Table[K, V], k K, c Change[V]) {
	if c.Wanted {
		put(f, m, t, k, c.Want)
	} else {
		del(f, m, t, k)
	}
}

func (f *fakeKernel) Sysctl(path string, c Change[Sysctl]) error {
	f.sysctls = append(f.sysctls, path)
	return nil
}
