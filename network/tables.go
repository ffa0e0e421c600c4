package network

import (
	"net/netip"
	"strings"
)

// Tables is everything selvage programs on one node, by kind.
type Tables struct {
	VTEPs      *Table[netip.Addr, VTEP]
	Links      *Table[string, Link]
	Bridges    *Table[string, Bridge] // of pods; never removed
	Ports      *Table[string, Port]   // of pods; never removed
	WireGuards *Table[string, WireGuard]
	Peers      *Table[PeerKey, Peer]
	AllowedIPs *Table[AllowedIPKey, PublicKey]
	Addresses  *Table[AddressKey, Address]
	FDB        *Table[FDBKey, FDB]
	Neighbours *Table[NeighbourKey, Neighbour]
	Nexthops   *Table[NexthopID, Nexthop]
	Routes     *Table[RouteKey, Route]
	Sysctls    *Table[string, Sysctl]
	FastPeers  *Table[netip.Prefix, FastPeer]
	Programs   *Table[ProgramKey, Program] // of the fast path

	kinds     []objects // the same, in the order in which they are set
	ownership Ownership
	owned     map[string]struct{} // devices that are selvage's own, as last taken into the tables of what is on them
	author    string              // the process that makes the changes observed now

	changes uint64 // see Changes
	moves   uint64 // see Moves

	last, next State // the arguments of Replace; kept while it runs, so that it does not allocate them

	routesBy map[NexthopID]int32 // number of actual routes by each nexthop object

	foreign    foreignRoutes
	ownSubnets [2]netip.Prefix // see OwnSubnets

	peersUnknown bool // see Reconciler.PeersUnknown
}

// protocolKernel is RTPROT_KERNEL: a route that the kernel made by itself for an address on an interface.
const protocolKernel = 2

// NewTables returns empty tables that know what is selvage's own:
//
//   - a device that carries our ifalias, that of the network that the daemon keeps;
//   - on a device of ours, whatever it is called: addresses (but for link-local ones, which others may need), permanent
//     FDB entries and neighbours, peers, routes that the kernel did not make by itself, and nexthop objects with our
//     protocol number;
//   - elsewhere, routes and nexthop objects with our protocol number, inside the overlay's networks;
//   - what the VTEP filter accepts: its table is ours as a whole;
//   - the programs of the fast path, and what they know.
//
// What pods depend on is the CNI plugins': it is repaired while it is desired, and stays when it is not.
//
// Nothing else is ever removed. [Tables.Own] names the network; until then it is the default one.
func NewTables() *Tables {
	t := &Tables{
		owned:    map[string]struct{}{},
		routesBy: map[NexthopID]int32{},
		foreign:  newForeignRoutes(),
	}
	t.addKinds()
	return t
}

// addKinds makes the list of kinds.
func (t *Tables) addKinds() {
	t.VTEPs = add(t, kind[netip.Addr, VTEP]{ // first: the peer may be sending already
		name:    "vtep",
		items:   func(s *State) []Item[netip.Addr, VTEP] { return s.VTEPs },
		command: t.vtepCommand,
		ours:    func(netip.Addr, VTEP) bool { return true },
	})
	t.Links = add(t, kind[string, Link]{
		name:    "link",
		items:   func(s *State) []Item[string, Link] { return s.Links },
		command: linkCommand,
		ours:    func(_ string, l Link) bool { return t.ownership.OwnsAlias(l.Alias) },
		used:    t.mayBeRenamed,
		changed: t.linkChanged,
	})
	t.addOwnSide()
	t.addWireGuard()
	t.Addresses = add(t, kind[AddressKey, Address]{
		name:    "address",
		items:   func(s *State) []Item[AddressKey, Address] { return s.Addresses },
		command: addressCommand,
		ours: func(k AddressKey, _ Address) bool {
			return t.OwnsLink(k.Link) && !k.Prefix.Addr().IsLinkLocalUnicast()
		},
		link:   func(k AddressKey, _ Address) string { return k.Link },
		before: t.enableIPv6,
	})
	t.FDB = add(t, kind[FDBKey, FDB]{
		name:    "fdb",
		items:   func(s *State) []Item[FDBKey, FDB] { return s.FDB },
		command: fdbCommand,
		ours:    func(k FDBKey, v FDB) bool { return v.Permanent && t.OwnsLink(k.Link) },
		link:    func(k FDBKey, _ FDB) string { return k.Link },
	})
	t.Neighbours = add(t, kind[NeighbourKey, Neighbour]{
		name:    "neighbour",
		items:   func(s *State) []Item[NeighbourKey, Neighbour] { return s.Neighbours },
		command: neighbourCommand,
		ours:    func(k NeighbourKey, v Neighbour) bool { return v.Permanent && t.OwnsLink(k.Link) },
		link:    func(k NeighbourKey, _ Neighbour) string { return k.Link },
	})
	t.Nexthops = add(t, kind[NexthopID, Nexthop]{
		name:    "nexthop",
		items:   func(s *State) []Item[NexthopID, Nexthop] { return s.Nexthops },
		command: nexthopCommand,
		ours:    t.OwnsNexthop,
		link:    func(_ NexthopID, v Nexthop) string { return v.Link },
		// Routes may still go by it that could not be changed or removed: the kernel would remove them with it,
		// unreported.
		used: func(id NexthopID) bool { return t.routesBy[id] > 0 },
	})
	t.Routes = add(t, kind[RouteKey, Route]{
		name:    "route",
		items:   func(s *State) []Item[RouteKey, Route] { return s.Routes },
		command: routeCommand,
		ours: func(k RouteKey, v Route) bool {
			return v.Protocol == RouteProtocol && t.ownership.OwnsPrefix(k.Prefix) ||
				v.Protocol != protocolKernel && t.OwnsLink(v.Link)
		},
		link:     func(_ RouteKey, v Route) string { return v.Link },
		nexthop:  func(_ RouteKey, v Route) NexthopID { return v.Nexthop },
		before:   t.setPaths,
		ready:    func(k RouteKey) bool { return k.Metric != LastMetric || !t.peersUnknown },
		few:      t.fewRoutesOn,
		changed:  t.routeChanged,
		claimed:  t.routeClaimed,
		observed: t.routeObserved,
	})
	t.Sysctls = add(t, kind[string, Sysctl]{ // never removed: a setting stays when no owner wants it any more
		name:    "sysctl",
		items:   func(s *State) []Item[string, Sysctl] { return s.Sysctls },
		command: sysctlCommand,
		before:  t.setAcceptRA,
		ready:   func(path string) bool { return t.forwardingReady(path) && t.settingReady(path) },
		wasSet:  func(p *pass, path string, v Sysctl) { p.Sysctls = append(p.Sysctls, path+"="+string(v)) },
	})
	t.addFastPath()
}

// Own says what belongs to the daemon. What is in the tables already is judged again; objects that were ignored until
// then have to be read.
func (t *Tables) Own(o Ownership) {
	t.ownership = o
	clear(t.owned)
	for name := range t.Links.cells {
		if t.OwnsLink(name) {
			t.owned[name] = struct{}{}
		}
	}
	t.Links.recheck()
	for _, k := range t.kinds {
		k.ownershipChanged()
	}
}

// Ownership returns what [Tables.Own] set.
func (t *Tables) Ownership() Ownership { return t.ownership }

// OwnsLink reports whether the device of that name is the network's own: it carries our ifalias; or it is desired and
// agrees with what is desired in all that cannot be changed on a live device (so flannel's device is taken over), and
// no other network's; or it is desired and there is none yet.
func (t *Tables) OwnsLink(name string) bool {
	c := t.Links.Get(name)
	if !c.Present {
		return c.Wanted
	}
	return t.ownership.OwnsAlias(c.Have.Alias) || c.Wanted && c.Have.SameDevice(c.Want) && !t.others(c.Have)
}

// OwnsNexthop reports whether a nexthop object is ours: with our protocol number, out of a device of ours, or as
// [Ownership.OwnsNexthop] says.
func (t *Tables) OwnsNexthop(id NexthopID, v Nexthop) bool {
	return v.Protocol == RouteProtocol && (t.OwnsLink(v.Link) || t.ownership.OwnsNexthop(id))
}

// others reports whether a device belongs to another network of selvage.
func (t *Tables) others(l Link) bool {
	_, is := t.ownership.Other(l.Alias)
	return is
}

// linkChanged checks again what was observed on a device when the device becomes ours, or ceases to be.
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
	for _, k := range t.kinds {
		k.ownershipChanged()
	}
}

// linkReady reports whether objects can be set on the device of that name, as far as we know. One that we want has to
// be the right one first, since we put nothing on a foreign device of the same name, and up, since one that is down
// takes no routes. Nothing is known here of devices that we do not make, so the kernel decides.
func (t *Tables) linkReady(name string) bool {
	c := t.Links.Get(name)
	return (!c.Wanted || c.Present && c.Have.SameDevice(c.Want) && !t.others(c.Have) && (c.Have.Up || !c.Want.Up)) &&
		t.tendedReady(name)
}

// nexthopReady reports whether objects can go by a nexthop object; 0 stands for none.
func (t *Tables) nexthopReady(id NexthopID) bool { return id == 0 || t.Nexthops.Get(id).Present }

// setPaths sets the routes that lead somewhere before those that end packets.
func (t *Tables) setPaths(p *pass) {
	t.Routes.setWhere(p, func(k RouteKey) bool { return k.Metric != LastMetric })
}

// enableIPv6 sets the settings without which a device takes neither IPv6 addresses nor routes.
func (t *Tables) enableIPv6(p *pass) {
	t.Sysctls.setWhere(p, func(path string) bool { return strings.HasSuffix(path, disableIPv6) })
}

// The ends of the paths of two settings.
const (
	acceptRA    = "/accept_ra"
	disableIPv6 = "/disable_ipv6"
)

// setAcceptRA sets accept_ra before forwarding: with accept_ra=1 the kernel drops a default route learnt from a
// router when it begins to forward IPv6 (addrconf_fixup_forwarding in net/ipv6/addrconf.c).
func (t *Tables) setAcceptRA(p *pass) {
	t.Sysctls.setWhere(p, func(path string) bool { return strings.HasSuffix(path, acceptRA) })
}

// forwardingReady has IPv6's other settings wait for accept_ra.
func (t *Tables) forwardingReady(path string) bool {
	if !strings.HasPrefix(path, "net/ipv6/") ||
		strings.HasSuffix(path, acceptRA) || strings.HasSuffix(path, disableIPv6) {
		return true
	}
	for other := range t.Sysctls.dirty {
		if strings.HasSuffix(other, acceptRA) {
			return false
		}
	}
	return true
}

// mayBeRenamed reports whether a device that no owner wants may be a desired one that lost its name: it gets its name
// back, with all that is on it, when that is due.
func (t *Tables) mayBeRenamed(name string) bool {
	have := t.Links.Get(name).Have
	for other := range t.Links.dirty {
		if c := t.Links.Get(other); c.Wanted && !c.Present && have.SameDevice(c.Want) {
			return true
		}
	}
	return false
}

// Changes grows whenever something in the tables may have changed, or may be due earlier than before: while it stays
// the same, a pass has nothing new to do.
func (t *Tables) Changes() uint64 { return t.changes }

// Moves grows after every change of an actual object: one that a pass has made, and one of another process that was
// observed.
func (t *Tables) Moves() uint64 { return t.moves }

// Replace replaces o's desired state last by next. Objects in both are not touched.
func (t *Tables) Replace(o Owner, last, next State) {
	owner := &o // shared by all its objects
	t.last, t.next = last, next
	for _, k := range t.kinds {
		k.replace(owner, &t.last, &t.next)
	}
	t.last, t.next = State{}, State{}
}

// Grow makes room, in empty tables, for n owners who want as many objects as like has.
func (t *Tables) Grow(n int, like State) {
	for _, k := range t.kinds {
		k.grow(n, &like)
	}
}

// Attribute names the process that makes the changes observed from now on, for people; empty: unknown. Repairs name
// it.
func (t *Tables) Attribute(who string) { t.author = who }

// RetryOn records that something about a device has changed, such as a new address: what could not be set on it may
// be possible now. It is for devices that are not ours; of ours it is known when they are ready.
func (t *Tables) RetryOn(link string) {
	for _, k := range t.kinds {
		k.retryOn(link)
	}
}

// LinkGone records that a device does not exist any more, nor anything on it: the kernel notifies of the device only.
func (t *Tables) LinkGone(name string) {
	t.Links.ObserveGone(name)
	t.Bridges.ObserveGone(name)
	t.Ports.ObserveGone(name)
	for _, k := range t.kinds {
		k.linkGone(name)
	}
}

// FDBGone records that a device's forwarding database is empty.
func (t *Tables) FDBGone(link string) { t.FDB.linkGone(link) }

// NexthopsGone records that nexthop objects are gone, and with them what went by them. Objects that have replaced
// those meanwhile are not touched.
func (t *Tables) NexthopsGone(ids map[NexthopID]struct{}) {
	for id := range ids {
		if t.routesBy[id] > 0 { // else nothing is affected, as after our own deletions
			for _, k := range t.kinds {
				k.nexthopsGone(ids)
			}
			return
		}
	}
}

// routeObserved counts the actual routes by their nexthop objects.
func (t *Tables) routeObserved(before, now Route) { count(t.routesBy, before.Nexthop, now.Nexthop) }

// fewRoutesOn returns the keys of the routes out of a device, if they are all foreign.
func (t *Tables) fewRoutesOn(link string) (keys map[RouteKey]struct{}, ok bool) {
	keys = t.foreign.on[link]
	return keys, len(keys) == t.Routes.countOn(link)
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

// CarriesRoutes reports whether an actual route leads out of the device of that name.
func (t *Tables) CarriesRoutes(name string) bool { return t.Routes.countOn(name) > 0 }

// RoutesOn reports whether actual routes lead out of the device of that name: IPv4 routes, IPv6 routes. It walks the
// routes until it has found one of each family, so it is for the network's own devices and the uplink.
func (t *Tables) RoutesOn(name string) (families [2]bool) {
	if keys, few := t.fewRoutesOn(name); few {
		for k := range keys {
			families[k.family()] = true
		}
		return families
	}
	for k, c := range t.Routes.cells {
		if c.is(present) && c.have().Link == name {
			families[k.family()] = true
			if families[0] && families[1] {
				break
			}
		}
	}
	return families
}

// family is 0 for IPv4 and 1 for IPv6.
func (k RouteKey) family() int {
	if k.Prefix.Addr().Is4() {
		return 0
	}
	return 1
}
