package kernel

import (
	"errors"
	"maps"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// readAttempts limits how often an interrupted dump is repeated.
const readAttempts = 5

// Read is the full resync: it reads all objects into the tables. It takes time proportional to their number; it is for
// the start, after lost notifications, and for every resync interval.
func (k *Kernel) Read() error { return repeated(k.read) }

// repeated repeats a read that changes interrupted, a few times. Objects that still change then are reported too:
// notifications correct what the last read got wrong.
func repeated(read func() error) (err error) {
	for range readAttempts {
		if err = read(); !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
}

func (k *Kernel) read() error {
	if err := k.readLinks(); err != nil {
		return err
	}
	t := k.tables
	t.Addresses.Mark()
	clear(k.near)
	t.FDB.Mark()
	t.Neighbours.Mark()
	t.Nexthops.Mark()
	t.Routes.Mark()
	err := k.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, k.observeDumped, &zeros{unix.SizeofIfAddrmsg})
	for index, name := range k.links {
		if err == nil && (t.OwnsLink(name) || t.Bridges.Get(name).Wanted) {
			err = k.readNeighbours(index)
		}
	}
	if err == nil && k.nexthops { // before the routes that use them
		err = k.readNexthops(func(data []byte) { k.nexthop(data, true) })
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err == nil {
			err = k.readRoutes(family)
		}
	}
	if err != nil {
		return err // nothing is swept: unseen objects may exist
	}
	k.overlayStale, k.wireGuards.stale = false, true
	k.readSysctls()
	t.Addresses.Sweep(func(network.AddressKey) bool { return true })
	t.FDB.Sweep(func(network.FDBKey) bool { return true })
	t.Neighbours.Sweep(func(network.NeighbourKey) bool { return true })
	t.Nexthops.Sweep(func(network.NexthopID) bool { return true })
	t.Routes.Sweep(func(network.RouteKey) bool { return true })
	return nil
}

// readSuspects reads only the objects on suspected devices: with thousands of leases in two families, a full resync
// takes longer than the repair. Notifications have reported which devices exist.
func (k *Kernel) readSuspects() error {
	t := k.tables
	var families [2]bool // with routes out of one of them
	for name := range k.suspects {
		for i, there := range t.RoutesOn(name) {
			families[i] = families[i] || there
		}
	}
	return repeated(func() error {
		t.Addresses.Mark()
		t.FDB.Mark()
		t.Neighbours.Mark()
		t.Nexthops.Mark()
		t.Routes.Mark()
		err := k.readLinksOf(k.suspects)
		if err == nil {
			err = k.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, k.observeDumped, &zeros{unix.SizeofIfAddrmsg})
		}
		for name := range k.suspects {
			if index, there := k.byName[name]; err == nil && there && (t.OwnsLink(name) || t.Bridges.Get(name).Wanted) {
				err = k.readNeighbours(index)
			}
		}
		if err == nil && families[0] && k.nexthops {
			err = k.readNexthops(func(data []byte) { k.nexthop(data, true) })
		}
		for i, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			if err == nil && families[i] {
				err = k.readRoutes(family)
			}
		}
		if err != nil {
			return err
		}
		k.readSysctls()
		suspected := func(name string) bool { _, is := k.suspects[name]; return is }
		t.Addresses.Sweep(func(network.AddressKey) bool { return true })
		t.FDB.Sweep(func(key network.FDBKey) bool { return suspected(key.Link) })
		t.Neighbours.Sweep(func(key network.NeighbourKey) bool { return suspected(key.Link) })
		t.Nexthops.Sweep(func(network.NexthopID) bool { return families[0] && k.nexthops })
		t.Routes.Sweep(func(key network.RouteKey) bool { return families[familyIndex(key.Prefix.Addr())] })
		return nil
	})
}

// readLinksOf reads devices by name: the kernel does not notify of changes to one that is down (netdev_state_change in
// net/core/dev.c). The names of devices come from notifications.
func (k *Kernel) readLinksOf(names map[string]struct{}) error {
	return k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, func(_ uint16, data []byte) {
		m, ok := decodeLink(data)
		if _, asked := names[m.name]; !ok || !asked || k.links[m.index] != m.name {
			return
		}
		k.complete(&m)
		if k.tables.Links.Get(m.name).Wanted || k.tables.Ownership().OwnsAlias(m.link.Alias) {
			k.tables.Links.Observe(m.name, m.link)
		}
		k.observeTended(m)
	}, nl.NewIfInfomsg(unix.AF_UNSPEC))
}

// readUnfinished reads the devices that were reported as they were while they were being made, unless the last report
// has them as desired. A device takes several changes, and the kernel notifies of each: the reports of the last ones
// may not have arrived yet, and the device is not as an earlier one says.
func (k *Kernel) readUnfinished() error {
	for name := range k.unfinished {
		if c := k.tables.Links.Get(name); c.Wanted && (!c.Present || c.Have != c.Want) {
			return repeated(func() error { return k.readLinksOf(k.unfinished) })
		}
	}
	return nil
}

// familyIndex is 0 for IPv4 and 1 for IPv6.
func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (k *Kernel) observeDumped(typ uint16, data []byte) { k.observe(message{typ: typ, data: data}) }

func (k *Kernel) readLinks() error {
	t := k.tables
	t.Links.Mark()
	t.Bridges.Mark()
	t.Ports.Mark()
	before, beforeByName := k.links, k.byName
	var tended []linkMessage
	k.links, k.byName = make(map[int32]string, len(before)), make(map[string]int32, len(before))
	clear(k.fresh)
	err := k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, func(_ uint16, data []byte) {
		m, ok := decodeLink(data)
		if !ok {
			return
		}
		k.named(m.index, m.name)
		k.complete(&m)
		if t.Links.Get(m.name).Wanted || k.tables.Ownership().OwnsAlias(m.link.Alias) {
			t.Links.Observe(m.name, m.link)
		}
		k.tendedAdded(m)
		if t.Tends(m.name) {
			tended = append(tended, m)
		}
	}, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		k.links, k.byName = before, beforeByName
		return err
	}
	k.uplinkStale = true       // earlier notifications may be outdated
	for _, m := range tended { // the name of its master is known by now
		k.noteMAC(m)
		k.observeTended(m)
	}
	k.tended.stale = true
	maps.DeleteFunc(k.tended.veths, func(index, _ int32) bool { return k.links[index] == "" })
	t.Links.Sweep(func(string) bool { return true })
	t.Bridges.Sweep(func(string) bool { return true })
	t.Ports.Sweep(func(string) bool { return true })
	return nil
}

// readNeighbours reads one device's ARP, ND and forwarding tables.
func (k *Kernel) readNeighbours(index int32) error {
	request := &neighbourRequest{family: unix.AF_UNSPEC}
	filter := nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index)))
	if err := k.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, k.observeDumped, request, filter); err != nil {
		return err
	}
	request = &neighbourRequest{family: unix.AF_BRIDGE, index: index}
	return k.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, k.observeDumped, request)
}

// readNexthops calls f with each nexthop object.
func (k *Kernel) readNexthops(f func(data []byte)) error {
	each := func(_ uint16, data []byte) { f(data) }
	return k.dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, each, &zeros{sizeofNhMsg})
}

// readRoutes reads one family's main table. Of several routes under one key the kernel dumps the first one first.
func (k *Kernel) readRoutes(family uint8) error {
	seen := map[network.RouteKey]network.Route{} // only of keys with more than one route
	var last routeMessage
	return k.dumpRoutes(family, unix.RTPROT_UNSPEC, func(m routeMessage) {
		if m.key == last.key { // dumps are ordered by key
			first, again := seen[m.key]
			if !again {
				first = last.route
			}
			first.Others = network.MoreOthers(first.Others)
			seen[m.key] = first
			m.route = first
		} else {
			last = m
		}
		k.tables.Routes.Observe(m.key, m.route)
	})
}

// UnicastRoutes calls f with the payload of the message of each unicast route in one family's main table, and with more
// of them before Linux 4.20. The payload is valid only during the call.
func (k *Kernel) UnicastRoutes(family uint8, f func(message []byte)) error {
	request := nl.NewRtMsg()
	request.Family, request.Table, request.Type, request.Scope, request.Protocol =
		family, unix.RT_TABLE_MAIN, unix.RTN_UNICAST, 0, 0
	err := k.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, func(_ uint16, data []byte) { f(data) }, request)
	if errors.Is(err, unix.ENOENT) {
		return nil // the table is created with its first route
	}
	return err
}

// zeros is a message header of length bytes that requests all objects.
type zeros struct{ length int }

func (z *zeros) Len() int          { return z.length }
func (z *zeros) Serialize() []byte { return make([]byte, z.length) }

// neighbourRequest is a struct ndmsg that requests a family and, for AF_BRIDGE, one device.
type neighbourRequest struct {
	family uint8
	index  int32
}

func (*neighbourRequest) Len() int { return unix.SizeofNdMsg }

func (r *neighbourRequest) Serialize() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = r.family
	nl.NativeEndian().PutUint32(b[4:], uint32(r.index))
	return b
}
