package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// Address adds an address to a device, or removes it. One that is a duplicate is removed first: to replace it leaves
// the mark (inet6_addr_modify in net/ipv6/addrconf.c).
func (k *Kernel) Address(key network.AddressKey, c network.Change[network.Address]) error {
	index, err := k.index(key.Link)
	if err != nil {
		return goneOr(c.Wanted, err)
	}
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: key.Link, Index: index}}
	addr := &netlink.Addr{IPNet: ipNet(key.Prefix)}
	if key.Prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // it is this node's, whoever else has it; detection would only delay
	}
	duplicate := c.Wanted && c.Present && c.Have.Duplicate
	if duplicate || !c.Wanted {
		err = k.handle.AddrDel(link, addr)
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete address %s: %w", key, err)
		}
	}
	if c.Wanted {
		if err := k.handle.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", key, err)
		}
	}
	if duplicate {
		k.tended.duplicates[key] = time.Now()
	}
	return nil
}

// FDB sets or removes entries in VXLAN devices' forwarding databases.
func (k *Kernel) FDB(batch []network.Update[network.FDBKey, network.FDB]) {
	for i := range batch {
		u := &batch[i]
		index, err := k.index(u.Key.Link)
		if err != nil {
			u.Err = goneOr(u.Change.Wanted, err)
			continue
		}
		entry := neighbourEntry{family: unix.AF_BRIDGE, flags: unix.NTF_SELF, index: index, mac: u.Key.MAC}
		// To replace leaves a port, VNI or interface of its own as it was.
		if !u.Change.Wanted || u.Change.Present && u.Change.Have.Odd {
			k.batch.add(encodeNeighbour(k.batch.buf, unix.RTM_DELNEIGH, entry), func(err error) {
				u.Err = unlessGone("delete FDB entry", u.Key, err)
			})
		}
		if u.Change.Wanted {
			entry.ip = u.Change.Want.Remote
			k.batch.add(encodeNeighbour(k.batch.buf, unix.RTM_NEWNEIGH, entry), func(err error) {
				u.Err = fmt.Errorf("set FDB entry %s dst %s: %w", u.Key, u.Change.Want.Remote, err)
			})
		}
	}
	k.batch.send()
}

// Neighbours sets or removes ARP or ND entries.
func (k *Kernel) Neighbours(batch []network.Update[network.NeighbourKey, network.Neighbour]) {
	for i := range batch {
		u := &batch[i]
		index, err := k.index(u.Key.Link)
		if err != nil {
			u.Err = goneOr(u.Change.Wanted, err)
			continue
		}
		entry := neighbourEntry{family: familyOf(u.Key.IP), index: index, ip: u.Key.IP, mac: u.Change.Want.MAC}
		if !u.Change.Wanted {
			k.batch.add(encodeNeighbour(k.batch.buf, unix.RTM_DELNEIGH, entry), func(err error) {
				u.Err = unlessGone("delete neighbour", u.Key, err)
			})
			continue
		}
		k.batch.add(encodeNeighbour(k.batch.buf, unix.RTM_NEWNEIGH, entry), func(err error) {
			u.Err = fmt.Errorf("set neighbour %s lladdr %s: %w", u.Key, u.Change.Want.MAC, err)
			if errors.Is(err, unix.ENOBUFS) {
				u.Err = fmt.Errorf("%w; the neighbour table is full: raise net.%s.neigh.default.gc_thresh3",
					u.Err, sysctlFamily(u.Key.IP))
			}
		})
	}
	k.batch.send()
}

// Nexthops sets or removes nexthop objects.
func (k *Kernel) Nexthops(batch []network.Update[network.NexthopID, network.Nexthop]) {
	for i := range batch {
		u := &batch[i]
		// A group cannot become a single next hop.
		if !u.Change.Wanted || u.Change.Present && u.Change.Have.Odd {
			k.batch.add(encodeNexthopDeletion(k.batch.buf, u.Key), func(err error) {
				u.Err = unlessGone("delete nexthop", u.Key, err)
			})
		}
		if !u.Change.Wanted {
			continue
		}
		index, err := k.index(u.Change.Want.Link)
		if err != nil {
			u.Err = fmt.Errorf("nexthop %d: %w", u.Key, err)
			continue
		}
		k.batch.add(encodeNexthop(k.batch.buf, u.Key, index, u.Change.Want), func(err error) {
			u.Err = fmt.Errorf("set nexthop %d via %s dev %s: %w",
				u.Key, u.Change.Want.Gateway, u.Change.Want.Link, err)
		})
	}
	k.batch.send()
}

// Routes sets or removes routes in the main table. Other routes under the same key are deleted, since the kernel would
// use the first one. A route that the kernel made for an address is left alone ([network.ErrForeign]): an interface of
// this node holds that subnet.
func (k *Kernel) Routes(batch []network.Update[network.RouteKey, network.Route]) {
	for i := range batch {
		u := &batch[i]
		u.Err = k.route(u)
	}
	k.batch.send()
	for i := range batch {
		u := &batch[i]
		onLink6 := u.Change.Wanted && u.Change.Want.OnLink && u.Key.Prefix.Addr().Is6()
		if onLink6 && errors.Is(u.Err, unix.EINVAL) {
			u.Err = k.routeOverGateway(u)
		}
	}
}

// routeOverGateway sets an IPv6 route that the kernel has refused. The kernel refuses an on-link gateway that another
// device leads to (ip6_route_check_nh_onlink in net/ipv6/route.c), and a wider foreign route, such as fd00::/8 to a
// router, does that. Once our own route exists, the lookup finds it; until then it finds a route to the gateway alone,
// which is deleted again.
func (k *Kernel) routeOverGateway(u *network.Update[network.RouteKey, network.Route]) error {
	want := u.Change.Want
	index, err := k.index(want.Link)
	if err != nil {
		return fmt.Errorf("route %s: %w", u.Key, err)
	}
	gateway := netip.PrefixFrom(want.Gateway, want.Gateway.BitLen())
	key := network.RouteKey{Prefix: gateway, Metric: network.DefaultMetric(gateway)}
	direct := network.Route{Link: want.Link, Protocol: want.Protocol, Type: want.Type}
	var failed error
	// If this one fails, the next one reports why.
	k.batch.add(encodeRoute(k.batch.buf, unix.RTM_NEWROUTE, key, direct, index), func(error) {})
	k.batch.add(encodeRoute(k.batch.buf, unix.RTM_NEWROUTE, u.Key, want, index), func(err error) {
		failed = fmt.Errorf("set route %s via %s dev %s: %w", u.Key, want.Gateway, want.Link, err)
	})
	k.batch.add(encodeRoute(k.batch.buf, unix.RTM_DELROUTE, key, direct, index), func(err error) {
		failed = errors.Join(failed, unlessGone("delete route", key, err))
	})
	k.batch.send()
	return failed
}

// route adds the requests for one update to the batch.
func (k *Kernel) route(u *network.Update[network.RouteKey, network.Route]) error {
	c := u.Change
	if !c.Wanted {
		index, err := k.index(c.Have.Link)
		if err != nil && c.Have.Link != "" {
			return nil // its device does not exist any more, and so neither does the route
		}
		k.batch.add(encodeRoute(k.batch.buf, unix.RTM_DELROUTE, u.Key, c.Have, index), func(err error) {
			u.Err = unlessGone("delete route", u.Key, err)
		})
		return nil
	}
	if c.Present && c.Have.Protocol == unix.RTPROT_KERNEL && c.Have.Link != c.Want.Link &&
		!k.tables.OwnsLink(c.Have.Link) {
		return fmt.Errorf("route %s: an address of device %s holds this subnet: %w; remove the address or the device",
			u.Key, c.Have.Link, network.ErrForeign)
	}
	index := 0
	if c.Want.Link != "" {
		var err error
		if index, err = k.index(c.Want.Link); err != nil {
			return fmt.Errorf("route %s: %w", u.Key, err)
		}
	}
	if c.Present && c.Have.Others > 0 {
		// Replace changes the first of several routes, and fails with EEXIST if the desired one is a later one.
		err := k.deleteRoutes(u.Key, func(r netlink.Route) bool { return r.Protocol != unix.RTPROT_KERNEL })
		if err != nil {
			return err
		}
		if c.Want.Protocol == unix.RTPROT_KERNEL {
			if other := k.heldToo(u.Key, index); other != "" {
				return fmt.Errorf("route %s: an address of device %s holds this subnet, too: %w; "+
					"remove the address or the device", u.Key, other, network.ErrForeign)
			}
		}
	}
	request := encodeRoute(k.batch.buf, unix.RTM_NEWROUTE, u.Key, c.Want, index)
	if c.Want.Protocol == unix.RTPROT_KERNEL {
		request = k.withSource(request, len(k.batch.buf), u.Key.Prefix, c.Want.Link)
	}
	k.batch.add(request, func(err error) {
		u.Err = fmt.Errorf("set route %s %s: %w", u.Key, routeTarget(c.Want), err)
	})
	return nil
}

// routeTarget says where a route leads, in the ip command's syntax.
func routeTarget(r network.Route) string {
	switch {
	case r.Type == network.Blackhole:
		return "blackhole"
	case r.Nexthop != 0:
		return fmt.Sprintf("nhid %d dev %s", r.Nexthop, r.Link)
	case !r.Gateway.IsValid():
		return "dev " + r.Link
	default:
		return fmt.Sprintf("via %s dev %s", r.Gateway, r.Link)
	}
}

// deleteRoutes deletes the routes under a key that which selects.
func (k *Kernel) deleteRoutes(key network.RouteKey, which func(netlink.Route) bool) error {
	filter := &netlink.Route{Dst: ipNet(key.Prefix), Table: unix.RT_TABLE_MAIN}
	mask := netlink.RT_FILTER_DST | netlink.RT_FILTER_TABLE
	routes, err := k.handle.RouteListFiltered(int(familyOf(key.Prefix.Addr())), filter, mask)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list routes to %s: %w", key.Prefix, err)
	}
	for _, r := range routes {
		if uint32(r.Priority) != key.Metric || r.Tos != 0 || !which(r) {
			continue
		}
		if err := k.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete route %s: %w", key, err)
		}
	}
	return nil
}

// unlessGone is the error of a deletion: none if the object or its device does not exist.
func unlessGone(what string, key any, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("%s %v: %w", what, key, err)
}

// goneOr is the error for an entry whose device does not exist: none if the entry is to be removed.
func goneOr(wanted bool, err error) error {
	if !wanted {
		return nil
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sysctlFamily(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}
