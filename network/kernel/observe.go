package kernel

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// message is one rtnetlink message: from a dump or a notification.
type message struct {
	typ   uint16
	flags uint16 // of its header
	data  []byte
}

// observe takes the content of a message into the tables, if it concerns them. It reports whether more may have
// changed than the message says: the kernel does not notify of everything.
func (k *Kernel) observe(m message) (reread bool) {
	k.routingStale = k.routingStale || mayChangeRouting(m)
	switch m.typ {
	case unix.RTM_NEWLINK:
		if x, ok := decodeLink(m.data); ok {
			return k.newLink(x)
		}
		k.bridgePort(m.data)
	case unix.RTM_DELLINK:
		if x, ok := decodeLink(m.data); ok {
			return k.delLink(x)
		}
		k.bridgePort(m.data)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if x, ok := decodeAddress(m.data); ok {
			return k.address(x, m.typ == unix.RTM_NEWADDR)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if x, ok := decodeNeighbour(m.data); ok {
			k.neighbour(x, m.typ == unix.RTM_NEWNEIGH)
		}
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		k.nexthop(m.data, m.typ == unix.RTM_NEWNEXTHOP)
	case unix.RTM_NEWROUTE:
		k.defaultRoute(m.data)
		if x, ok := k.decodeRoute(m.data); ok {
			k.newRoute(x, m.flags)
		}
	case unix.RTM_DELROUTE:
		k.defaultRoute(m.data)
		if x, ok := k.decodeRoute(m.data); ok {
			return k.delRoute(x)
		}
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		k.netconf(m.data)
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		k.queuesStale = true
	}
	return false
}

// mayChangeRouting reports whether a message may change how the kernel routes packets.
func mayChangeRouting(m message) bool {
	switch m.typ {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return fixedEntry(m.data)
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF: // see netconf
		return false
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		return false
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return len(m.data) > 0 && m.data[0] == unix.AF_UNSPEC // else a bridge's port
	}
	return true
}

func (k *Kernel) newLink(m linkMessage) (reread bool) {
	t := k.tables
	before, known := k.links[m.index]
	_, fresh := k.fresh[m.index]
	fresh = fresh || !known
	if known && before != m.name {
		// Renamed: all objects on it have the new name now, and the kernel does not report them again.
		if k.isForeign(before) && k.isForeign(m.name) {
			t.ForeignRoutesMoved(before, m.name)
		} else {
			t.LinkGone(before)
			reread = true
		}
		k.tendedGone(before)
	} else if !known {
		k.settingsStale(m.name) // they were reported before the device was (inetdev_init in net/ipv4/devinet.c)
	}
	if m.name == k.uplink || k.links[m.index] == k.uplink {
		k.uplinkStale = true
		t.RetryOn(k.uplink)
	}
	k.named(m.index, m.name)
	if fresh && !m.link.Up {
		k.fresh[m.index] = struct{}{}
	}
	last := t.Links.Get(m.name)
	k.complete(&m)
	if last.Wanted || t.Ownership().OwnsAlias(m.link.Alias) {
		t.Links.Observe(m.name, m.link)
	} else {
		t.Links.ObserveGone(m.name)
	}
	k.noteWireGuard(m.name)
	k.tendedAdded(m)
	k.observeTended(m)
	// A device that went down lost its IPv4 routes and its neighbours without a notification; one that came up may have
	// been down in between.
	switch {
	case fresh: // since it was created, or moved here, nothing has disappeared
		k.unfinished[m.name] = struct{}{}
	case !m.link.Up && k.isForeign(m.name):
		k.foreignDown(m.name)
	case !m.link.Up || last.Present && !last.Have.Up:
		k.suspect(m.name)
	}
	return reread
}

// suspect notes that objects on a device may have disappeared without a notification.
func (k *Kernel) suspect(name string) {
	if k.isForeign(name) {
		if k.tables.CarriesRoutes(name) {
			k.foreign.devices[name] = struct{}{}
		}
		return
	}
	if k.tables.OwnsLink(name) || k.tables.CarriesRoutes(name) || k.tables.Bridges.Get(name).Wanted {
		k.suspects[name] = struct{}{}
	}
}

// complete adds to a message what the tables want of the device and the message lacks.
func (k *Kernel) complete(m *linkMessage) {
	if k.servesWireGuard(m.name, m.link) {
		m.link.Kind = network.KindWireGuard
	}
	if m.master != 0 {
		m.link.Master = cmp.Or(k.links[m.master], fmt.Sprintf("if%d", m.master))
	}
	if k.tables.Links.Get(m.name).Want.TxChecksum != network.AsItIs {
		m.link.TxChecksum = k.readTxChecksum(m.name)
	}
}

func (k *Kernel) delLink(m linkMessage) (reread bool) {
	if k.links[m.index] != m.name {
		return false // another device has its name by now
	}
	k.unnamed(m.index)
	maps.DeleteFunc(k.near, func(a nearAddress, _ struct{}) bool { return a.index == m.index })
	k.uplinkStale = k.uplinkStale || m.name == k.uplink
	k.tables.LinkGone(m.name)
	k.tendedGone(m.name)
	return false
}

func (k *Kernel) address(m addressMessage, there bool) (reread bool) {
	name := k.links[m.index]
	if !k.tables.OwnsLink(name) {
		k.noteNear(m, there)
		k.uplinkStale = k.uplinkStale || name == k.uplink || k.uplink == ""
		if there {
			k.tables.RetryOn(name) // its gateways may be reachable by now
		}
		// Routes with that address as their source, and all routes of a device that lost its last address, disappear
		// without a notification.
		if !there {
			k.suspect(name)
		}
		if !k.tables.Tends(name) {
			return false
		}
	}
	key := network.AddressKey{Link: name, Prefix: m.prefix}
	if there {
		k.tables.Addresses.Observe(key, network.Address{Duplicate: m.duplicate})
		// Our devices get a link-local address only if they lost IPv6 and got it back, for instance after an MTU that
		// was too small. The kernel does not notify of the settings that were reset (addrconf_notify in
		// net/ipv6/addrconf.c).
		return m.prefix.Addr().IsLinkLocalUnicast() && k.tables.OwnsLink(name)
	}
	k.tables.Addresses.ObserveGone(key)
	k.suspect(name)
	return false
}

func (k *Kernel) neighbour(m neighbourMessage, there bool) {
	name := k.links[m.index]
	if !k.tables.OwnsLink(name) {
		// A permanent neighbour on a pods' bridge shadows the pod with that address.
		key := network.NeighbourKey{Link: name, IP: m.ip}
		if m.family != unix.AF_BRIDGE && k.tables.Bridges.Get(name).Wanted {
			if there && m.permanent {
				k.tables.Neighbours.Observe(key, network.Neighbour{MAC: m.mac, Permanent: true})
			} else {
				k.tables.Neighbours.ObserveGone(key)
			}
		}
		return
	}
	if m.family == unix.AF_BRIDGE {
		// Before Linux 6.13, each change is reported twice: by the VXLAN driver, always with the remote (vxlan_fdb_info
		// in drivers/net/vxlan/vxlan_core.c), and without it by rtnl_fdb_notify in net/core/rtnetlink.c.
		if m.bare {
			return
		}
		t, key := k.tables.FDB, network.FDBKey{Link: name, MAC: m.mac}
		// Learned entries that no owner wants are ignored: there can be many.
		if there && (m.permanent || t.Get(key).Wanted) {
			t.Observe(key, network.FDB{Remote: m.ip, Permanent: m.permanent, Odd: m.odd})
		} else {
			t.ObserveGone(key)
		}
		return
	}
	t, key := k.tables.Neighbours, network.NeighbourKey{Link: name, IP: m.ip}
	if there && (m.permanent || t.Get(key).Wanted) {
		t.Observe(key, network.Neighbour{MAC: m.mac, Permanent: m.permanent})
	} else {
		t.ObserveGone(key)
	}
}

// nexthop observes a nexthop object. The kernel deletes the routes that use a deleted one without a notification.
func (k *Kernel) nexthop(b []byte, there bool) {
	m, ok := decodeNexthop(b)
	if !ok {
		return
	}
	m.nexthop.Link = k.links[m.index]
	t := k.tables.Nexthops
	// A group has to be known by the time its ID is desired: it cannot be replaced, only deleted.
	if there && (t.Get(m.id).Wanted || k.tables.OwnsNexthop(m.id, m.nexthop) || m.nexthop.Odd) {
		t.Observe(m.id, m.nexthop)
		return
	}
	t.ObserveGone(m.id)
	if !there {
		k.lostNexthops[m.id] = struct{}{}
	}
}

// loseRoutes removes the routes of deleted nexthop objects from the tables, for all objects at once, as it walks all
// routes.
func (k *Kernel) loseRoutes() {
	if len(k.lostNexthops) > 0 {
		k.tables.NexthopsGone(k.lostNexthops)
		clear(k.lostNexthops)
	}
}

// decodeRoute decodes a route and reports whether it concerns us.
func (k *Kernel) decodeRoute(b []byte) (routeMessage, bool) {
	m, ok := decodeRoute(b)
	if !ok {
		return m, false
	}
	m.route.Link = k.links[m.index]
	if m.route.Nexthop != 0 {
		// The object's number is enough: the kernel copies the rest from the object, or leaves it out
		// (net.ipv4.nexthop_compat_mode).
		m.route.Gateway, m.route.OnLink = netip.Addr{}, false
		if n := k.tables.Nexthops.Get(m.route.Nexthop); n.Present {
			m.route.Link = n.Have.Link
		}
	}
	ours := m.route.Protocol == network.RouteProtocol && k.tables.Ownership().OwnsPrefix(m.key.Prefix)
	if ours || k.tables.Routes.Get(m.key).Wanted || k.tables.OwnsLink(m.route.Link) {
		return m, true
	}
	// A connected route under a key that a lease may want later: it has to be known by then, as replacing it would do
	// harm. Each interface with IPv6, such as a pod's veth, has one to fe80::/64. No lease wants that key, and to
	// observe it would make the interface a suspect when it goes.
	p, metric := m.key.Prefix, m.key.Metric
	return m, m.route.Protocol == unix.RTPROT_KERNEL && !p.Addr().IsLinkLocalUnicast() &&
		(metric == network.DefaultMetric(p) || metric == network.ConnectedMetric(p)) || k.inOverlay(p)
}

// inOverlay reports whether a prefix is part of one of the overlay's networks.
func (k *Kernel) inOverlay(p netip.Prefix) bool {
	holds := func(n netip.Prefix) bool { return n.Bits() <= p.Bits() && n.Contains(p.Addr()) }
	return slices.ContainsFunc(k.networks, holds)
}

// defaultRoute notes that a default route of the main table was added or deleted: rtm_dst_len is 0.
func (k *Kernel) defaultRoute(b []byte) {
	if len(b) >= unix.SizeofRtMsg && b[1] == 0 && b[4] == unix.RT_TABLE_MAIN {
		k.uplinkStale = true
	}
}

// newRoute observes a notification. There can be several routes under one key; the kernel uses the first.
func (k *Kernel) newRoute(m routeMessage, flags uint16) {
	t := k.tables.Routes
	old := t.Get(m.key)
	have := old.Have
	have.Others = 0
	switch {
	case !old.Present || have == m.route || flags&unix.NLM_F_REPLACE != 0:
		m.route.Others = old.Have.Others
		t.Observe(m.key, m.route)
	case flags&unix.NLM_F_APPEND != 0:
		old.Have.Others = network.MoreOthers(old.Have.Others)
		t.Observe(m.key, old.Have)
	default: // prepended
		m.route.Others = network.MoreOthers(old.Have.Others)
		t.Observe(m.key, m.route)
	}
}

func (k *Kernel) delRoute(m routeMessage) (reread bool) {
	t := k.tables.Routes
	old := t.Get(m.key)
	if !old.Present {
		return false
	}
	if old.Have == m.route { // the only one
		t.ObserveGone(m.key)
		return false
	}
	if k.tables.IsForeignRoute(m.key) {
		k.foreignDeleted(m, old.Have)
		return false
	}
	return true // the kernel does not say which one is first now
}
