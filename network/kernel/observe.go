package kernel

import (
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

// observe takes what a message says into the tables, if it concerns them. It reports whether more may have changed than
// the message says: the kernel does not tell everything.
func (k *Kernel) observe(m message) (reread bool) {
	switch m.typ {
	case unix.RTM_NEWLINK:
		if x, ok := decodeLink(m.data); ok {
			return k.newLink(x)
		}
	case unix.RTM_DELLINK:
		if x, ok := decodeLink(m.data); ok {
			return k.delLink(x)
		}
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
		k.readSysctls() // which setting of which device it was would take as much to find out
	}
	return false
}

func (k *Kernel) newLink(m linkMessage) (reread bool) {
	t := k.tables
	if before, known := k.links[m.index]; known && before != m.name {
		// Renamed: all that hung on it hangs on the new name now, and is not reported again.
		t.LinkGone(before)
		reread = true
	}
	if m.name == k.uplink || k.links[m.index] == k.uplink {
		k.uplinkStale = true
		t.RetryOn(k.uplink)
	}
	k.named(m.index, m.name)
	before := t.Links.Get(m.name)
	k.complete(&m)
	if before.Wanted || m.link.Alias == network.Alias {
		t.Links.Observe(m.name, m.link)
	} else {
		t.Links.ObserveGone(m.name)
	}
	// A device that went down lost its IPv4 routes and its neighbours without a word; one that came up may have been
	// down in between.
	if !m.link.Up || before.Present && !before.Have.Up {
		k.suspect(m.name)
	}
	return reread
}

// suspect notes that what hangs on a device may not be there any more, unreported.
func (k *Kernel) suspect(name string) {
	if k.tables.OwnsLink(name) || k.tables.CarriesRoutes(name) {
		k.suspects[name] = struct{}{}
	}
}

// complete adds to what a message says of a device what is wanted of it and not said there.
func (k *Kernel) complete(m *linkMessage) {
	if k.tables.Links.Get(m.name).Want.TxChecksum != network.AsItIs {
		m.link.TxChecksum = k.readTxChecksum(m.name)
	}
}

func (k *Kernel) delLink(m linkMessage) (reread bool) {
	if k.links[m.index] != m.name {
		return false // its name is another device's by now
	}
	k.unnamed(m.index)
	k.uplinkStale = k.uplinkStale || m.name == k.uplink
	k.tables.LinkGone(m.name)
	return false
}

func (k *Kernel) address(m addressMessage, there bool) (reread bool) {
	name := k.links[m.index]
	if !k.tables.OwnsLink(name) {
		k.uplinkStale = k.uplinkStale || name == k.uplink || k.uplink == ""
		if there {
			k.tables.RetryOn(name) // its gateways may be within reach by now
		}
		// Routes with that address as their source, and all of a device that lost its last one, vanish unreported.
		if !there {
			k.suspect(name)
		}
		return false
	}
	key := network.AddressKey{Link: name, Prefix: m.prefix}
	if there {
		k.tables.Addresses.Observe(key, network.Address{})
		// The kernel gives our devices no link-local address, unless they lost IPv6 and got it anew: with an MTU that was too
		// small for a while, for instance. Of the settings that went with it, it tells nothing (addrconf_notify in
		// net/ipv6/addrconf.c).
		return m.prefix.Addr().IsLinkLocalUnicast()
	}
	k.tables.Addresses.ObserveGone(key)
	k.suspect(name)
	return false
}

func (k *Kernel) neighbour(m neighbourMessage, there bool) {
	name := k.links[m.index]
	if !k.tables.OwnsLink(name) {
		return
	}
	if m.family == unix.AF_BRIDGE {
		t, key := k.tables.FDB, network.FDBKey{Link: name, MAC: m.mac}
		// What was learned and nobody wants is the kernel's own affair, and there can be a lot of it.
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

// nexthop takes in a nexthop object. Routes that go by one that is gone are gone too, and nobody says so.
func (k *Kernel) nexthop(b []byte, there bool) {
	m, ok := decodeNexthop(b)
	if !ok {
		return
	}
	m.nexthop.Link = k.links[m.index]
	t := k.tables.Nexthops
	// A group in a slot that comes to be wanted cannot be replaced, only deleted, so it has to be known by then.
	if there && (t.Get(m.id).Wanted || m.nexthop.Protocol == network.RouteProtocol || m.nexthop.Odd) {
		t.Observe(m.id, m.nexthop)
		return
	}
	t.ObserveGone(m.id)
	if !there {
		k.lostNexthops[m.id] = struct{}{}
	}
}

// loseRoutes takes the routes that went by nexthop objects that are gone out of the tables: all at once, since that walks
// them all.
func (k *Kernel) loseRoutes() {
	if len(k.lostNexthops) > 0 {
		k.tables.NexthopsGone(k.lostNexthops)
		clear(k.lostNexthops)
	}
}

// decodeRoute decodes a route and says whether it concerns us.
func (k *Kernel) decodeRoute(b []byte) (routeMessage, bool) {
	m, ok := decodeRoute(b)
	if !ok {
		return m, false
	}
	m.route.Link = k.links[m.index]
	if m.route.Nexthop != 0 {
		// What the message says beyond the object's number is taken from the object, and may be left out
		// (net.ipv4.nexthop_compat_mode).
		m.route.Gateway, m.route.OnLink = netip.Addr{}, false
		if n := k.tables.Nexthops.Get(m.route.Nexthop); n.Present {
			m.route.Link = n.Have.Link
		}
	}
	if m.route.Protocol == network.RouteProtocol || k.tables.Routes.Get(m.key).Wanted || k.tables.OwnsLink(m.route.Link) {
		return m, true
	}
	// A connected route in a place that a lease may come to want: to replace it would do harm, so it has to be known by then.
	return m, m.route.Protocol == unix.RTPROT_KERNEL &&
		(m.key.Metric == network.DefaultMetric(m.key.Prefix) || m.key.Metric == network.ConnectedMetric(m.key.Prefix)) ||
		k.inOverlay(m.key.Prefix)
}

// inOverlay reports whether a prefix is, or may be, a part of another node's subnet.
func (k *Kernel) inOverlay(p netip.Prefix) bool {
	covers := func(n netip.Prefix) bool { return n.Bits() <= p.Bits() && n.Contains(p.Addr()) }
	return slices.ContainsFunc(k.networks, covers) && !slices.ContainsFunc(k.own[:], covers)
}

// defaultRoute notes that a default route came or went: rtm_dst_len is 0.
func (k *Kernel) defaultRoute(b []byte) {
	if len(b) >= unix.SizeofRtMsg && b[1] == 0 {
		k.uplinkStale = true
	}
}

// newRoute takes in a notification. Under one key there can be several routes; the first one is used.
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
		old.Have.Others++
		t.Observe(m.key, old.Have)
	default: // put before the one that was there
		m.route.Others = old.Have.Others + 1
		t.Observe(m.key, m.route)
	}
}

func (k *Kernel) delRoute(m routeMessage) (reread bool) {
	t := k.tables.Routes
	old := t.Get(m.key)
	if !old.Present {
		return false
	}
	if old.Have == m.route { // and there is no other
		t.ObserveGone(m.key)
		return false
	}
	return true // which one is the first now is not said
}
