package lab

import (
	"net"
	"net/netip"
)

// ipNet is a prefix in the form that netlink takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the inverse of ipNet. Netlink says nil for a default route, which comes back as the invalid prefix.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

// addrOf is an address from netlink or the net package; IPv4 never comes back mapped into IPv6.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// addrsOf drops the prefix lengths.
func addrsOf(prefixes [2]netip.Prefix) (addrs [2]netip.Addr) {
	for f, p := range prefixes {
		addrs[f] = p.Addr()
	}
	return addrs
}
