package subnet

import "net/netip"

// Family is an IP family. The families of an overlay differ in data only (prefix, overhead, device name), so code takes
// a Family or indexes by it and never branches into two copies.
type Family uint8

// The two families, usable as indices.
const (
	IPv4 Family = iota
	IPv6
)

// Families lists the families in the order in which keys, files and rules name them.
func Families() [2]Family { return [2]Family{IPv4, IPv6} }

// FamilyOf returns the family of a, which must be valid. An IPv4-mapped IPv6 address counts as IPv6.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Bits is the length of an address in bits: 32 or 128.
func (f Family) Bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// Gateway returns the address that a node itself has in its subnet, the first after the network's, with the subnet's
// length: 10.5.29.1/24 for 10.5.29.0/24.
func Gateway(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits())
}
