package uplink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// readAttempts bounds the retries of a listing that a concurrent change interrupted.
const readAttempts = 5

// Namespace is a network namespace to read.
type Namespace interface {
	Handle() *netlink.Handle
	// UnicastRoutes calls f with the payload of an RTM_NEWROUTE for each unicast route of the main table of a family
	// (AF_INET or AF_INET6); old kernels add other routes. The payload is valid only during the call.
	UnicastRoutes(family uint8, f func(message []byte)) error
}

// Read takes a snapshot of a network namespace, with the route lookup that o needs.
func Read(n Namespace, o Options) (Snapshot, error) {
	var s Snapshot
	h := n.Handle()
	links, err := retryInterrupted(h.LinkList)
	if err != nil {
		return s, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := retryInterrupted(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return s, fmt.Errorf("list addresses: %w", err)
	}
	s.Links = decodeLinks(links, addrs)
	for _, f := range subnet.Families() {
		routes, err := retryInterrupted(func() ([]netlink.Route, error) { return defaultRoutes(n, f) })
		if err != nil {
			return s, fmt.Errorf("list %s default routes: %w", f, err)
		}
		for _, r := range routes {
			if !hidesNexthop(r) || resolveDefault(h, f, &r) {
				s.Defaults = append(s.Defaults, decodeDefault(f, r)...)
			}
		}
	}
	if o.CanReach.IsValid() {
		s.Reach = reach(h, o.CanReach)
	}
	return s, nil
}

// defaultRoutes lists the default routes of the main table. The kernel cannot select routes by their prefix: the
// others, 100,000 on a router, are skipped before they are decoded.
func defaultRoutes(n Namespace, f subnet.Family) (routes []netlink.Route, err error) {
	err = n.UnicastRoutes(uint8(netlinkFamily(f)), func(b []byte) {
		if len(b) >= unix.SizeofRtMsg && b[1] == 0 && b[4] == unix.RT_TABLE_MAIN {
			routes = append(routes, decodeRoute(slices.Clone(b)))
		}
	})
	return routes, err
}

// decodeRoute decodes what is needed of a default route.
func decodeRoute(b []byte) netlink.Route {
	m := nl.DeserializeRtMsg(b)
	r := netlink.Route{Type: int(m.Type)}
	attributes, _ := nl.ParseRouteAttr(b[unix.SizeofRtMsg:]) // a kernel sends no malformed messages
	for _, a := range attributes {
		switch a.Attr.Type {
		case unix.RTA_OIF:
			r.LinkIndex = int(nl.NativeEndian().Uint32(a.Value))
		case unix.RTA_PRIORITY:
			r.Priority = int(nl.NativeEndian().Uint32(a.Value))
		case unix.RTA_GATEWAY:
			r.Gw = a.Value
		case unix.RTA_PREFSRC:
			r.Src = a.Value
		case unix.RTA_MULTIPATH:
			r.MultiPath = decodeHops(a.Value)
		}
	}
	return r
}

// decodeHops decodes the next hops of a route: a list of struct rtnexthop, each with attributes.
func decodeHops(b []byte) (hops []*netlink.NexthopInfo) {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(nl.NativeEndian().Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			break
		}
		hop := &netlink.NexthopInfo{LinkIndex: int(nl.NativeEndian().Uint32(b[4:]))}
		attributes, _ := nl.ParseRouteAttr(b[unix.SizeofRtNexthop:length])
		for _, a := range attributes {
			if a.Attr.Type == unix.RTA_GATEWAY {
				hop.Gw = a.Value
			}
		}
		hops = append(hops, hop)
		b = b[min(len(b), (length+3)&^3):]
	}
	return hops
}

// retryInterrupted repeats a listing that a change in the kernel interrupted, and that may be inconsistent.
func retryInterrupted[T any](list func() ([]T, error)) (items []T, err error) {
	for range readAttempts {
		if items, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return items, err
}

func decodeLinks(links []netlink.Link, addrs []netlink.Addr) []Link {
	of := make(map[int][]Addr, len(links))
	for _, a := range addrs {
		if addr, ok := decodeAddr(a); ok {
			of[a.LinkIndex] = append(of[a.LinkIndex], addr)
		}
	}
	decoded := make([]Link, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		decoded = append(decoded, Link{
			Index:        a.Index,
			Name:         a.Name,
			AltNames:     a.AltNames,
			MTU:          a.MTU,
			HardwareAddr: a.HardwareAddr.String(),
			Kind:         l.Type(),
			Up:           a.Flags&net.FlagUp != 0,
			Loopback:     a.Flags&net.FlagLoopback != 0,
			Addrs:        of[a.Index],
		})
	}
	slices.SortFunc(decoded, func(a, b Link) int { return a.Index - b.Index })
	return decoded
}

func decodeAddr(a netlink.Addr) (Addr, bool) {
	prefix, ok := decodePrefix(a.IPNet)
	if !ok {
		return Addr{}, false
	}
	addr := Addr{Prefix: prefix, OnLink: prefix.Masked()}
	if peer, ok := decodePrefix(a.Peer); ok {
		addr.OnLink = peer.Masked()
	}
	// One bit means "temporary" for IPv6 and "secondary" for IPv4 (linux/if_addr.h).
	secondary := Secondary
	if subnet.FamilyOf(prefix.Addr()) == subnet.IPv6 {
		secondary = Temporary
	}
	for bit, flag := range map[int]Flags{
		unix.IFA_F_TENTATIVE:  Tentative,
		unix.IFA_F_DADFAILED:  DADFailed,
		unix.IFA_F_DEPRECATED: Deprecated,
		unix.IFA_F_SECONDARY:  secondary,
	} {
		if a.Flags&bit != 0 {
			addr.Flags |= flag
		}
	}
	if secondary == Temporary && prefix.IsSingleIP() && a.Flags&unix.IFA_F_PERMANENT == 0 {
		addr.Flags |= Dynamic
	}
	// An address of scope link or narrower is not valid beyond the link; scope site and the operator's own scopes are.
	if a.Scope >= unix.RT_SCOPE_LINK {
		addr.Flags |= NotGlobal
	}
	return addr, true
}

// decodeDefault returns one route for each next hop of a default route. It skips the unreachable default route that the
// kernel keeps at the end of its IPv6 table.
func decodeDefault(f subnet.Family, r netlink.Route) []DefaultRoute {
	if r.Type != unix.RTN_UNICAST {
		return nil
	}
	route := DefaultRoute{
		Family: f, Link: r.LinkIndex, Metric: r.Priority, Gateway: decodeIP(r.Gw), Source: decodeIP(r.Src),
	}
	if len(r.MultiPath) == 0 {
		return []DefaultRoute{route}
	}
	var routes []DefaultRoute
	for _, hop := range r.MultiPath {
		route.Link, route.Gateway = hop.LinkIndex, decodeIP(hop.Gw)
		routes = append(routes, route)
	}
	return routes
}

// hidesNexthop reports whether a route does not say where it leads: the kernel lists one that uses a nexthop object
// only with that object's id where net.ipv4.nexthop_compat_mode is 0, and the library does not read the id.
func hidesNexthop(r netlink.Route) bool {
	return r.Type == unix.RTN_UNICAST && r.LinkIndex == 0 && len(r.MultiPath) == 0
}

// resolveDefault fills in where such a default route leads, by a lookup of an address that only it matches. With
// several of them it is the one of the lowest metric that counts, and the lookup answers for that. It reports whether
// the lookup found the route.
func resolveDefault(h *netlink.Handle, f subnet.Family, r *netlink.Route) bool {
	examples := [...][]string{ // for documentation (RFC 5737, RFC 3849): hardly any network has a route to one
		subnet.IPv4: {"192.0.2.1", "198.51.100.1", "203.0.113.1"}, subnet.IPv6: {"2001:db8::1", "3fff::1"},
	}[f]
	for _, text := range examples {
		dest := net.ParseIP(text)
		match, err := h.RouteGetWithOptions(dest, &netlink.RouteGetOptions{FIBMatch: true})
		if err != nil || len(match) == 0 || match[0].Dst != nil && !match[0].Dst.IP.IsUnspecified() {
			continue
		}
		if way, err := h.RouteGet(dest); err == nil && len(way) > 0 {
			r.LinkIndex, r.Gw, r.Src = way[0].LinkIndex, way[0].Gw, way[0].Src
			return true
		}
	}
	return false
}

// reach looks up the kernel's route to dest. The absence of a route is a result too.
func reach(h *netlink.Handle, dest netip.Addr) Reach {
	r := Reach{Dest: dest}
	routes, err := h.RouteGet(net.IP(dest.AsSlice()))
	switch {
	case err != nil:
		r.Problem = err.Error()
	case len(routes) == 0:
		r.Problem = "no route"
	default:
		r.Link, r.Source = routes[0].LinkIndex, decodeIP(routes[0].Src)
	}
	return r
}

func netlinkFamily(f subnet.Family) int {
	return [...]int{subnet.IPv4: netlink.FAMILY_V4, subnet.IPv6: netlink.FAMILY_V6}[f]
}

// decodeIP returns the zero Addr for a nil address.
func decodeIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func decodePrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ones, _ := n.Mask.Size()
	p := netip.PrefixFrom(decodeIP(n.IP), ones)
	return p, p.IsValid()
}
