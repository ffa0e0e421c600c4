package network

import (
	"net/netip"
	"slices"
)

// Tables is everything selvage programs on one node, by kind.
type Tables struct {
	VTEPs      *Table[netip.Addr, VTEP]
	Links      *Table[string, Link]
	Addresses  *Table[AddressKey, Address]
	FDB        *Table[FDBKey, FDB]
	Neighbours *Table[NeighbourKey, Neighbour]
	Nexthops   *Table[NexthopID, Nexthop]
	Routes     *Table[RouteKey, Route]
	Sysctls    *Table[string, Sysctl]

	routesOn map[string]int32    // how many of the routes there lead out of each device
	routesBy map[NexthopID]int32 // how many go by each nexthop object
	owned    map[string]struct{} // devices for which OwnsLink held when the tables of what hangs on them were last told
	author   string

	foreign      map[RouteKey]struct{} // routes there that are somebody else's
	shadows      []Shadow              // of them: see Shadows
	shadowsStale bool
}

// protocolKernel is RTPROT_KERNEL: a route that the kernel made by itself for an address on an interface.
const protocolKernel = 2

// NewTables returns empty tables that know what is selvage's own:
//
//   - a device that carries our ifalias;
//   - on a device of ours, whatever it is called: addresses (but for link-local ones, which others may need), permanent
//     FDB entries and neighbours, and routes that the kernel did not make by itself;
//   - elsewhere, routes and nexthop objects with our protocol number;
//   - what the VTEP filter lets in, whose table is ours as a whole.
//
// Nothing else is ever removed.
func NewTables() *Tables {
	t := &Tables{owned: map[string]struct{}{}, routesOn: map[string]int32{}, routesBy: map[NexthopID]int32{}, foreign: map[RouteKey]struct{}{}}
	t.VTEPs = NewTable(func(netip.Addr, VTEP) bool { return true })
	t.Links = NewTable(func(_ string, l Link) bool { return l.Alias == Alias })
	t.Links.changed = t.linkChanged
	t.Addresses = NewTable(func(k AddressKey, _ Address) bool {
		return t.OwnsLink(k.Link) && !k.Prefix.Addr().IsLinkLocalUnicast()
	})
	t.FDB = NewTable(func(k FDBKey, v FDB) bool { return v.Permanent && t.OwnsLink(k.Link) })
	t.Neighbours = NewTable(func(k NeighbourKey, v Neighbour) bool { return v.Permanent && t.OwnsLink(k.Link) })
	t.Nexthops = NewTable(func(_ NexthopID, v Nexthop) bool { return v.Protocol == RouteProtocol })
	t.Routes = NewTable(func(_ RouteKey, v Route) bool {
		return v.Protocol == RouteProtocol || v.Protocol != protocolKernel && t.OwnsLink(v.Link)
	})
	t.Routes.seen = t.routeSeen
	t.Routes.changed = t.routeChanged
	t.Sysctls = NewTable(func(string, Sysctl) bool { return false }) // a setting stays when nobody wants it any more
	t.Links.author, t.Addresses.author, t.FDB.author = &t.author, &t.author, &t.author
	t.Neighbours.author, t.Nexthops.author, t.Routes.author = &t.author, &t.author, &t.author
	return t
}

// OwnsLink reports whether the device of that name is selvage's own: it carries our ifalias, or it is wanted and is what
// is wanted in all that cannot be changed on a live device (so that flannel's device is taken over), or it is wanted and
// there is none yet.
func (t *Tables) OwnsLink(name string) bool {
	c := t.Links.Get(name)
	if !c.Present {
		return c.Wanted
	}
	return c.Have.Alias == Alias || c.Wanted && c.Have.SameDevice(c.Want)
}

// linkChanged makes a device that becomes ours, or ceases to be, count for what was seen on it before.
func (t *Tables) linkChanged(name string) {
	_, before := t.owned[name]
	now := t.OwnsLink(name)
	if now == before {
		return
	}
	if now {
		t.owned[name] = struct{}{}
	} else {
		delete(t.owned, name)
	}
	t.Addresses.recheck()
	t.FDB.recheck()
	t.Neighbours.recheck()
	t.Routes.recheck()
}

// canCarry reports whether there is, as far as we know, a device of that name to hang something on. One that we want has
// to be the right one first, since we put nothing on somebody else's of the same name, and up, since one that is down
// takes no routes. Of devices that we do not make nothing is known here, so the kernel has the say.
func (t *Tables) canCarry(name string) bool {
	c := t.Links.Get(name)
	return !c.Wanted || c.Present && c.Have.SameDevice(c.Want) && (c.Have.Up || !c.Want.Up)
}

// FDBGone says that a device's forwarding database is empty.
func (t *Tables) FDBGone(link string) {
	t.FDB.cascadeGone(func(k FDBKey, _ FDB) bool { return k.Link == link })
}

// NexthopsGone says that nexthop objects have gone, and with them the routes that went by them. What has come in their
// place meanwhile is not touched.
func (t *Tables) NexthopsGone(ids map[NexthopID]struct{}) {
	used := false
	for id := range ids {
		used = used || t.routesBy[id] > 0
	}
	if !used {
		return // as after our own deletions
	}
	t.Routes.cascadeGone(func(_ RouteKey, v Route) bool {
		_, gone := ids[v.Nexthop]
		return gone
	})
}

// hasNexthop reports whether the nexthop object that a route is to go by is there.
func (t *Tables) hasNexthop(r Route) bool { return r.Nexthop == 0 || t.Nexthops.Get(r.Nexthop).Present }

// routeSeen counts what the routes there are hang on.
func (t *Tables) routeSeen(before, now Route) {
	count(t.routesOn, before.Link, now.Link)
	count(t.routesBy, before.Nexthop, now.Nexthop)
}

// count takes before off and adds now; the zero value does not count.
func count[K comparable](of map[K]int32, before, now K) {
	var none K
	if before != none {
		if of[before]--; of[before] == 0 {
			delete(of, before)
		}
	}
	if now != none {
		of[now]++
	}
}

// CarriesRoutes reports whether one of the routes there leads out of the device of that name.
func (t *Tables) CarriesRoutes(name string) bool { return t.routesOn[name] > 0 }

// RoutesOn reports whether routes there lead out of the device of that name: over IPv4, over IPv6.
func (t *Tables) RoutesOn(name string) (families [2]bool) {
	if !t.CarriesRoutes(name) {
		return families
	}
	for k, c := range t.Routes.cells {
		if c.is(present) && c.have().Link == name {
			if k.Prefix.Addr().Is4() {
				families[0] = true
			} else {
				families[1] = true
			}
			if families[0] && families[1] {
				break
			}
		}
	}
	return families
}

// Replace says that o asks for next now, where it asked for last before. What is in both is not touched.
func (t *Tables) Replace(o Owner, last, next State) {
	owner := &o // one for all
	replace(t.VTEPs, owner, last.VTEPs, next.VTEPs)
	replace(t.Links, owner, last.Links, next.Links)
	replace(t.Addresses, owner, last.Addresses, next.Addresses)
	replace(t.FDB, owner, last.FDB, next.FDB)
	replace(t.Neighbours, owner, last.Neighbours, next.Neighbours)
	replace(t.Nexthops, owner, last.Nexthops, next.Nexthops)
	replace(t.Routes, owner, last.Routes, next.Routes)
	replace(t.Sysctls, owner, last.Sysctls, next.Sysctls)
}

// Grow makes room, where there is nothing yet, for n owners who want as many things as like has.
func (t *Tables) Grow(n int, like State) {
	t.VTEPs.grow(n * len(like.VTEPs))
	t.FDB.grow(n * len(like.FDB))
	t.Neighbours.grow(n * len(like.Neighbours))
	t.Nexthops.grow(n * len(like.Nexthops))
	t.Routes.grow(n * len(like.Routes))
}

func replace[K, V comparable](t *Table[K, V], o *Owner, last, next []Item[K, V]) {
	for _, x := range next {
		t.want(o, x.Key, x.Value)
	}
	for _, x := range last {
		if !slices.ContainsFunc(next, func(y Item[K, V]) bool { return y.Key == x.Key }) {
			t.Unwant(o.Name, x.Key)
		}
	}
}

// Count is how many objects of one kind there are of each sort.
type Count struct {
	Wanted   int
	Present  int // as they are wanted; or selvage's own, and wanted by nobody
	Pending  int // wanted, and not there or not so
	Unwanted int // selvage's own, and wanted by nobody: they are to go, see [Reconciler.KeepUnwanted]
}

// Counts counts by kind: "vtep", "link", "address", "fdb", "neighbour", "nexthop", "route" and "sysctl".
func (t *Tables) Counts() map[string]Count {
	return map[string]Count{
		"vtep":      t.VTEPs.Counts(),
		"link":      t.Links.Counts(),
		"address":   t.Addresses.Counts(),
		"fdb":       t.FDB.Counts(),
		"neighbour": t.Neighbours.Counts(),
		"nexthop":   t.Nexthops.Counts(),
		"route":     t.Routes.Counts(),
		"sysctl":    t.Sysctls.Counts(),
	}
}

// Attribute says who does what is observed from now on, in words for people; empty: nobody knows. A repair of it will say so.
func (t *Tables) Attribute(who string) { t.author = who }

// Pending is how many objects differ, of all kinds: those that are wanted, and those that are to go.
func (t *Tables) Pending() int {
	return len(t.VTEPs.dirty) + len(t.Links.dirty) + len(t.Addresses.dirty) + len(t.FDB.dirty) + len(t.Neighbours.dirty) + len(t.Nexthops.dirty) +
		len(t.Routes.dirty) + len(t.Sysctls.dirty)
}

// RetryOn says that something about a device has changed, an address has come for instance: what could not be set on it
// may be possible now. It is for devices that are not ours; of ours it is known what they can carry.
func (t *Tables) RetryOn(name string) {
	t.Routes.retrySoonWhere(func(_ RouteKey, v Route) bool { return v.Link == name })
}

// LinkGone says that a device does not exist any more, and with it all that hung on it: the kernel reports the device
// only.
func (t *Tables) LinkGone(name string) {
	t.Links.ObserveGone(name)
	t.Addresses.cascadeGone(func(k AddressKey, _ Address) bool { return k.Link == name })
	t.FDB.cascadeGone(func(k FDBKey, _ FDB) bool { return k.Link == name })
	t.Neighbours.cascadeGone(func(k NeighbourKey, _ Neighbour) bool { return k.Link == name })
	t.Nexthops.cascadeGone(func(_ NexthopID, v Nexthop) bool { return v.Link == name })
	t.Routes.cascadeGone(func(_ RouteKey, v Route) bool { return v.Link == name })
}
