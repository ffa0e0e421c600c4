package kernel

import (
	"errors"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// This file has what is done about devices and routes that are not ours. A container host adds and removes thousands of
// devices, and a router has 100,000 routes, so one notification of them must not cause a read of them all.

// foreign is what has to be read again.
type foreign struct {
	devices map[string]struct{}           // lost an address, and perhaps routes with it
	routes  map[network.RouteKey]struct{} // the first route under the key was deleted, and there are more
}

func newForeign() foreign {
	return foreign{devices: map[string]struct{}{}, routes: map[network.RouteKey]struct{}{}}
}

func (f *foreign) clear() {
	clear(f.devices)
	clear(f.routes)
}

// isForeign reports whether a device is neither ours nor one that the overlay or pods depend on.
func (k *Kernel) isForeign(name string) bool {
	_, named := k.tended.names[name]
	return !named && name != k.uplink && k.tables.OnlyForeign(name)
}

// foreignDown notes that a foreign device is down: the kernel has removed its routes, those of IPv4 without a
// notification (fib_disable_ip in net/ipv4/fib_frontend.c).
func (k *Kernel) foreignDown(name string) {
	for key, have := range k.tables.ForeignRoutes(name) {
		k.foreignFirstGone(key, have)
	}
}

// foreignDeleted notes that a foreign route was deleted, where the first one under its key is another one, or there are
// more.
func (k *Kernel) foreignDeleted(m routeMessage, have network.Route) {
	first := have
	first.Others = 0
	switch {
	case first == m.route:
		k.foreignFirstGone(m.key, have)
	case have.Others > 0 && have.Others < 255: // else it is not known how many there are
		have.Others--
		k.tables.Routes.Observe(m.key, have)
	}
}

// foreignFirstGone notes that the first route under a key is gone. If there are more, the kernel does not say which one
// is first now.
func (k *Kernel) foreignFirstGone(key network.RouteKey, have network.Route) {
	if have.Others > 0 {
		k.foreign.routes[key] = struct{}{}
		return
	}
	k.tables.Routes.ObserveGone(key)
}

// readForeign reads what notifications have left open. The kernel selects the routes, of which there are few.
func (k *Kernel) readForeign() error {
	defer k.foreign.clear()
	for name := range k.foreign.devices {
		var families [2]bool
		for key, have := range k.tables.ForeignRoutes(name) {
			// The kernel reports the removal of its own routes (fib_del_ifaddr in net/ipv4/fib_frontend.c).
			if have.Protocol != unix.RTPROT_KERNEL {
				families[familyIndex(key.Prefix.Addr())] = true
			}
		}
		for i, family := range bothFamilies {
			if index, there := k.byName[name]; there && families[i] {
				if err := k.readForeignDevice(family, name, index); err != nil {
					return err
				}
			}
		}
	}
	for _, family := range bothFamilies {
		keys := map[network.RouteKey]struct{}{}
		protocol := uint8(unix.RTPROT_KERNEL)
		for key := range k.foreign.routes {
			if familyOf(key.Prefix.Addr()) == family {
				keys[key] = struct{}{}
				if k.inOverlay(key.Prefix) { // else only those of the kernel are observed
					protocol = unix.RTPROT_UNSPEC
				}
			}
		}
		if err := k.readForeignKeys(family, protocol, keys); err != nil {
			return err
		}
	}
	return nil
}

var bothFamilies = [...]uint8{unix.AF_INET, unix.AF_INET6}

// readForeignDevice finds out which of the foreign routes out of a device are gone.
func (k *Kernel) readForeignDevice(family uint8, name string, index int32) error {
	var there map[network.RouteKey]struct{}
	err := repeated(func() error {
		there = map[network.RouteKey]struct{}{}
		oif := nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index)))
		return k.dumpRoutes(family, unix.RTPROT_UNSPEC, func(m routeMessage) {
			if m.index == index { // before Linux 4.20 the kernel sends all
				there[m.key] = struct{}{}
			}
		}, oif)
	})
	if err != nil {
		return err
	}
	for key, have := range k.tables.ForeignRoutes(name) {
		if _, is := there[key]; !is && familyOf(key.Prefix.Addr()) == family {
			k.foreignFirstGone(key, have)
		}
	}
	return nil
}

// readForeignKeys reads the routes under some keys; protocol is that of all of them, or 0.
func (k *Kernel) readForeignKeys(family, protocol uint8, keys map[network.RouteKey]struct{}) error {
	if len(keys) == 0 {
		return nil
	}
	var found map[network.RouteKey]network.Route
	err := repeated(func() error {
		found = map[network.RouteKey]network.Route{}
		return k.dumpRoutes(family, protocol, func(m routeMessage) {
			if _, asked := keys[m.key]; !asked {
				return
			}
			if first, again := found[m.key]; again {
				first.Others = network.MoreOthers(first.Others)
				m.route = first
			}
			found[m.key] = m.route
		})
	})
	if err != nil {
		return err
	}
	for key := range keys {
		if route, there := found[key]; there {
			k.tables.Routes.Observe(key, route)
		} else {
			k.tables.Routes.ObserveGone(key)
		}
	}
	return nil
}

// dumpRoutes calls f with each route of the main table that concerns us, of one protocol unless that is 0.
func (k *Kernel) dumpRoutes(family, protocol uint8, f func(routeMessage), more ...nl.NetlinkRequestData) error {
	request := nl.NewRtMsg()
	request.Family, request.Table, request.Protocol = family, unix.RT_TABLE_MAIN, protocol
	request.Scope, request.Type = 0, 0
	err := k.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, func(_ uint16, data []byte) {
		if m, ok := k.decodeRoute(data); ok {
			f(m)
		}
	}, append([]nl.NetlinkRequestData{request}, more...)...)
	if errors.Is(err, unix.ENOENT) {
		return nil // the table is created with its first route
	}
	return err
}
