package uplink

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// Snapshot is the state of a network namespace's interfaces at one moment.
type Snapshot struct {
	Links    []Link         // sorted by index
	Defaults []DefaultRoute // of the main routing table, in the kernel's order
	Reach    Reach          // route to Options.CanReach; zero if that is not set
}

// Link is a network interface.
type Link struct {
	Index        int
	Name         string
	AltNames     []string // alternative names (ip link property)
	MTU          int      // bytes
	HardwareAddr string   // colon-separated hex; empty for a link without one, such as a tunnel
	Kind         string   // as in ip -d link: "device", "bridge", "vxlan"
	Up           bool     // administratively
	Loopback     bool
	Addrs        []Addr // in the kernel's order: for IPv4, the primary address of a subnet first
}

// Addr is an address of a link.
type Addr struct {
	Prefix netip.Prefix // the address, and the length of its subnet
	OnLink netip.Prefix // reached without a gateway: the address's subnet, or the peer of a point-to-point link
	Flags  Flags
}

// Flags are the properties of an address. Zero is a global, permanent, primary address.
type Flags uint8

// The flags, by the kernel's IFA_F_* and, for NotGlobal, scope.
const (
	Tentative  Flags = 1 << iota // duplicate address detection is running (RFC 4862)
	DADFailed                    // another host has the address
	Deprecated                   // its preferred lifetime is over: not for new connections
	Temporary                    // a privacy address, valid for some days (RFC 8981)
	Secondary                    // not the first of its IPv4 subnet
	NotGlobal                    // of host or link scope
	Dynamic                      // an IPv6 address without a subnet, and with a lifetime: DHCPv6 assigns these
)

// DefaultRoute is one next hop of a default route.
type DefaultRoute struct {
	Family  subnet.Family
	Link    int        // index
	Metric  int        // lower takes precedence
	Gateway netip.Addr // invalid if there is none
	Source  netip.Addr // the route's preferred source address; invalid if none
}

// Reach is the kernel's answer to a route lookup for Dest.
type Reach struct {
	Dest    netip.Addr
	Link    int        // index; 0: there is no route
	Source  netip.Addr // source address of packets to Dest; may be invalid
	Problem string     // why there is no route
}

// named returns the link with a name or alternative name.
func (s Snapshot) named(name string) (Link, bool) {
	return s.find(func(l Link) bool { return l.Name == name || slices.Contains(l.AltNames, name) })
}

func (s Snapshot) byIndex(index int) (Link, bool) {
	return s.find(func(l Link) bool { return l.Index == index })
}

// withAddr returns the first link that has address a. A link that is up takes precedence over one that is down.
func (s Snapshot) withAddr(a netip.Addr) (Link, bool) {
	if l, ok := s.find(func(l Link) bool { return l.Up && l.has(a) }); ok {
		return l, true
	}
	return s.find(func(l Link) bool { return l.has(a) })
}

func (s Snapshot) find(is func(Link) bool) (Link, bool) {
	if i := slices.IndexFunc(s.Links, is); i >= 0 {
		return s.Links[i], true
	}
	return Link{}, false
}

// defaults returns the default routes of a family, best first.
func (s Snapshot) defaults(f subnet.Family) []DefaultRoute {
	var routes []DefaultRoute
	for _, r := range s.Defaults {
		if r.Family == f {
			routes = append(routes, r)
		}
	}
	slices.SortStableFunc(routes, func(a, b DefaultRoute) int { return cmp.Compare(a.Metric, b.Metric) })
	return routes
}

// inventory lists the interfaces for an error: "eth0 (192.0.2.5/24), wlan0 (down, no address)". It omits the IPv6
// link-local addresses, which every link has.
func (s Snapshot) inventory() string {
	var items []string
	for _, l := range s.Links {
		if l.Loopback {
			continue
		}
		var about []string
		if !l.Up {
			about = append(about, "down")
		}
		described := len(about)
		for _, a := range l.Addrs {
			if ip := a.Prefix.Addr(); ip.Is4() || !ip.IsLinkLocalUnicast() {
				about = append(about, a.Prefix.String())
			}
		}
		if len(about) == described {
			about = append(about, "no address")
		}
		items = append(items, l.Name+" ("+strings.Join(about, ", ")+")")
	}
	if len(items) == 0 {
		return "none but loopback"
	}
	return strings.Join(items, ", ")
}

func (l Link) has(a netip.Addr) bool {
	return slices.ContainsFunc(l.Addrs, func(x Addr) bool { return x.Prefix.Addr() == a })
}

// onLink returns the prefixes of family f that the link reaches without a gateway, sorted, without duplicates.
// Link-local ones count if local, the address in use, is of that kind.
func (l Link) onLink(f subnet.Family, local netip.Addr) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, a := range l.Addrs {
		p := a.OnLink
		if p.IsValid() && subnet.FamilyOf(p.Addr()) == f && a.Flags&DADFailed == 0 &&
			(local.IsLinkLocalUnicast() || !p.Addr().IsLinkLocalUnicast()) {
			prefixes = append(prefixes, p.Masked())
		}
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}
