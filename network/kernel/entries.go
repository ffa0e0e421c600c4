package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// Address gives a device an address, or takes it away.
func (k *Kernel) Address(key network.AddressKey, c network.Change[network.Address]) error {
	index, err := k.index(key.Link)
	if err != nil {
		return goneOr(c.Wanted, err)
	}
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: key.Link, Index: index}}
	addr := &netlink.Addr{IPNet: ipNet(key.Prefix)}
	if key.Prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody else can have it; detection would only delay
	}
	if c.Wanted {
		if err := k.handle.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", key, err)
		}
		return nil
	}
	if err := k.handle.AddrDel(link, addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete address %s: %w", key, err)
	}
	return nil
}

// FDB sets or removes an entry in a VXLAN device's forwarding database.
func (k *Kernel) FDB(key network.FDBKey, c network.Change[network.FDB]) error {
	index, err := k.index(key.Link)
	if err != nil {
		return goneOr(c.Wanted, err)
	}
	entry := &netlink.Neigh{
		LinkIndex: index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr(key.MAC[:]),
		IP:           netip.IPv4Unspecified().AsSlice(), // in a deletion: whatever the remote is
	}
	if !c.Wanted || c.Present && c.Have.Odd {
		// To replace leaves a port, VNI or interface of its own as it was.
		if err := k.handle.NeighDel(entry); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete FDB entry %s: %w", key, err)
		}
	}
	if !c.Wanted {
		return nil
	}
	entry.IP = c.Want.Remote.AsSlice()
	if err := k.handle.NeighSet(entry); err != nil {
		return fmt.Errorf("set FDB entry %s dst %s: %w", key, c.Want.Remote, err)
	}
	return nil
}

// Neighbour sets or removes an ARP or ND entry.
func (k *Kernel) Neighbour(key network.NeighbourKey, c network.Change[network.Neighbour]) error {
	index, err := k.index(key.Link)
	if err != nil {
		return goneOr(c.Wanted, err)
	}
	entry := &netlink.Neigh{
		LinkIndex: index, Family: familyOf(key.IP), State: unix.NUD_PERMANENT, IP: key.IP.AsSlice(),
		HardwareAddr: net.HardwareAddr(c.Want.MAC[:]),
	}
	if !c.Wanted {
		if err := k.handle.NeighDel(entry); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete neighbour %s: %w", key, err)
		}
		return nil
	}
	if err := k.handle.NeighSet(entry); err != nil {
		if errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("set neighbour %s: %w; the neighbour table is full: raise net.%s.neigh.default.gc_thresh3", key, err, sysctlFamily(key.IP))
		}
		return fmt.Errorf("set neighbour %s lladdr %s: %w", key, c.Want.MAC, err)
	}
	return nil
}

// Route sets or removes a route in the main table. Other routes under the same key are removed: the kernel would use
// whichever is first. A route that the kernel made by itself is not touched ([network.ErrForeign]): it means that an
// interface of this node holds that very subnet.
func (k *Kernel) Route(key network.RouteKey, c network.Change[network.Route]) error {
	if !c.Wanted {
		return k.deleteRoute(key, c.Have)
	}
	if c.Present && c.Have.Protocol == unix.RTPROT_KERNEL && !k.tables.OwnsLink(c.Have.Link) {
		return fmt.Errorf("route %s: an address of device %s holds this subnet: %w; remove the address or the device", key, c.Have.Link, network.ErrForeign)
	}
	route, err := k.route(key, c.Want)
	if err != nil {
		return err
	}
	if c.Present && c.Have.Others > 0 {
		// Replace changes the first of several, and fails with EEXIST if what is wanted stands further behind.
		if err := k.deleteRoutes(key, func(r netlink.Route) bool { return r.Protocol != unix.RTPROT_KERNEL }); err != nil {
			return err
		}
	}
	if err := k.handle.RouteReplace(route); err != nil {
		return fmt.Errorf("set route %s via %s dev %s: %w", key, c.Want.Gateway, c.Want.Link, err)
	}
	return nil
}

// deleteRoute removes the one route that is described.
func (k *Kernel) deleteRoute(key network.RouteKey, have network.Route) error {
	route, err := k.route(key, have)
	if err != nil {
		return nil // its device is gone, and the route with it
	}
	route.Scope = netlink.SCOPE_NOWHERE // whatever scope it has
	if err := k.handle.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route %s: %w", key, err)
	}
	return nil
}

func (k *Kernel) route(key network.RouteKey, r network.Route) (*netlink.Route, error) {
	route := &netlink.Route{
		Dst: ipNet(key.Prefix), Table: unix.RT_TABLE_MAIN, Priority: int(key.Metric),
		Protocol: netlink.RouteProtocol(r.Protocol), Type: int(r.Type), Family: familyOf(key.Prefix.Addr()),
	}
	if r.Gateway.IsValid() {
		route.Gw = r.Gateway.AsSlice()
	}
	if r.OnLink {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	if r.Link != "" {
		index, err := k.index(r.Link)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", key, err)
		}
		route.LinkIndex = index
	}
	return route, nil
}

// deleteRoutes removes the routes under a key that which picks.
func (k *Kernel) deleteRoutes(key network.RouteKey, which func(netlink.Route) bool) error {
	filter := &netlink.Route{Dst: ipNet(key.Prefix), Table: unix.RT_TABLE_MAIN}
	routes, err := k.handle.RouteListFiltered(familyOf(key.Prefix.Addr()), filter, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
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

// goneOr is for an entry whose device does not exist: gone is what an unwanted one should be.
func goneOr(wanted bool, err error) error {
	if !wanted {
		return nil
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func familyOf(a netip.Addr) int {
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
