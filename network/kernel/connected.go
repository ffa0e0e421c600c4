package kernel

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// withSource adds to the request at start the source of a route that the kernel makes for an address: the address, by
// which the kernel finds the route when the address is removed (fib_del_ifaddr in net/ipv4/fib_frontend.c).
func (k *Kernel) withSource(request []byte, start int, subnet netip.Prefix, link string) []byte {
	source := k.sourceOn(link, subnet)
	if !source.IsValid() {
		return request
	}
	return end(attributeAddr(request, unix.RTA_PREFSRC, source), start)
}

// sourceOn returns the IPv4 address of a device in a subnet.
func (k *Kernel) sourceOn(link string, subnet netip.Prefix) (source netip.Addr) {
	if !subnet.Addr().Is4() {
		return source
	}
	for key, c := range k.tables.Addresses.All {
		if c.Present && c.Wanted && key.Link == link && key.Prefix.Masked() == subnet {
			return key.Prefix.Addr()
		}
	}
	return source
}

// heldToo returns the name of another device whose address has made a route under a key; empty: none.
func (k *Kernel) heldToo(key network.RouteKey, index int) string {
	filter := &netlink.Route{Dst: ipNet(key.Prefix), Table: unix.RT_TABLE_MAIN}
	mask := netlink.RT_FILTER_DST | netlink.RT_FILTER_TABLE
	routes, err := k.handle.RouteListFiltered(int(familyOf(key.Prefix.Addr())), filter, mask)
	if err != nil {
		return ""
	}
	for _, r := range routes {
		if r.LinkIndex != index && uint32(r.Priority) == key.Metric && r.Protocol == unix.RTPROT_KERNEL {
			return k.links[int32(r.LinkIndex)]
		}
	}
	return ""
}
