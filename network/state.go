package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// RouteProtocol is the protocol number on the routes selvage makes (rtm_protocol, include/uapi/linux/rtnetlink.h). The
// known numbers are listed in iproute2's etc/iproute2/rt_protos; this one is free.
const RouteProtocol = 83

// MAC is an Ethernet address.
type MAC [6]byte

// ParseMAC reads the form aa:bb:cc:dd:ee:ff.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if len(s) != 17 {
		return m, fmt.Errorf("%q is not a MAC address such as 72:30:36:d0:8b:68", s)
	}
	for i := range m {
		hi, ok1 := unhex(s[3*i])
		lo, ok2 := unhex(s[3*i+1])
		if !ok1 || !ok2 || i < 5 && s[3*i+2] != ':' {
			return MAC{}, fmt.Errorf("%q is not a MAC address such as 72:30:36:d0:8b:68", s)
		}
		m[i] = hi<<4 | lo
	}
	return m, nil
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// String returns the form aa:bb:cc:dd:ee:ff.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	text := [17]byte{}
	for i, b := range m {
		text[3*i], text[3*i+1] = digits[b>>4], digits[b&15]
		if i > 0 {
			text[3*i-1] = ':'
		}
	}
	return string(text[:])
}

// IsUnicast reports whether m can be the address of one device: not zero, and not a group address.
func (m MAC) IsUnicast() bool { return m != MAC{} && m[0]&1 == 0 }

// LinkLocal returns the IPv6 link-local address with m as its interface identifier (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// AddressKey names an address on a device.
type AddressKey struct {
	Link   string
	Prefix netip.Prefix
}

// Address is the state of an address.
type Address struct {
	// Duplicate: another host on the link has this IPv6 address, as duplicate address detection found (RFC 4862,
	// IFA_F_DADFAILED). The kernel neither uses nor answers for it, and does not try again.
	Duplicate bool
}

// FDBKey names an entry of a VXLAN device's forwarding database.
type FDBKey struct {
	Link string
	MAC  MAC
}

// FDB is where frames for a MAC address are sent.
type FDB struct {
	Remote    netip.Addr // underlay address of the peer
	Permanent bool       // NUD_PERMANENT: not learned, does not age
	Odd       bool       // has a port, VNI or interface of its own, which selvage never gives it
}

// NeighbourKey names an ARP or ND entry.
type NeighbourKey struct {
	Link string
	IP   netip.Addr
}

// Neighbour is the value of an ARP or ND entry.
type Neighbour struct {
	MAC       MAC
	Permanent bool // NUD_PERMANENT
}

// NexthopID is the number of a nexthop object (Linux 5.3); 0 stands for none. If the number is desired, any other
// object that has it is replaced.
type NexthopID uint32

// NexthopIDOf returns the number of the nexthop object that stands for an IPv4 gateway: the address itself, as a
// number. Other programs, and the kernel, number theirs from 1 on, and so do not come near.
func NexthopIDOf(gateway netip.Addr) NexthopID {
	b := gateway.As4()
	return NexthopID(binary.BigEndian.Uint32(b[:]))
}

// Nexthop is the value of a nexthop object.
type Nexthop struct {
	Link     string
	Gateway  netip.Addr
	OnLink   bool
	Protocol uint8 // rtm_protocol, as in [Route]
	Odd      bool  // a group, a blackhole or the like, which selvage never makes
}

// RouteKey identifies a route in the kernel. All routes are in the main table with TOS 0.
type RouteKey struct {
	Prefix netip.Prefix
	Metric uint32 // as read back: IPv6 turns 0 into 1024
}

// Route is the first route under a key.
type Route struct {
	Link     string     // name of the device; empty for blackhole and the like
	Nexthop  NexthopID  // the nexthop object it goes by, which then holds the gateway; Gateway and OnLink are zero
	OnLink   bool       // the gateway needs no route of its own
	Protocol uint8      // rtm_protocol
	Type     uint8      // rtm_type: Unicast, Blackhole, or another
	Others   uint8      // number of further routes under the same key, behind this one; 255: at least as many
	Gateway  netip.Addr // invalid if there is none
}

// Types of routes: RTN_UNICAST and so on (include/uapi/linux/rtnetlink.h).
const (
	Unicast     = 1
	Blackhole   = 6
	Unreachable = 7
	Prohibit    = 8
	Throw       = 9
)

// Protocols of routes that others make.
const (
	ProtocolKernel = protocolKernel // the kernel, for an address on an interface
	ProtocolBoot   = 3              // ip route and CNI plugins, unless they set another (RTPROT_BOOT)
)

// LastMetric is the metric of a route over which every other route to the same prefix takes precedence.
const LastMetric = 1<<32 - 1

// VTEP is a peer's tunnel endpoint, for the filter that accepts VXLAN packets from peers only. Its key is the peer's
// underlay address; it has no value.
type VTEP struct{}

// Item is one object: its key and its value.
type Item[K comparable, V comparable] struct {
	Key   K
	Value V
}

// Sysctl is the value of a kernel setting, without the line's end: "1". Its key is the path below /proc/sys, such as
// "net/ipv4/ip_forward".
type Sysctl string

// State is a set of kernel objects, by kind. It is a value: who receives one does not change it.
type State struct {
	VTEPs      []Item[netip.Addr, VTEP]
	Links      []Item[string, Link]
	Bridges    []Item[string, Bridge]
	Ports      []Item[string, Port]
	WireGuards []Item[string, WireGuard]
	Peers      []Item[PeerKey, Peer]
	AllowedIPs []Item[AllowedIPKey, PublicKey]
	Addresses  []Item[AddressKey, Address]
	FDB        []Item[FDBKey, FDB]
	Neighbours []Item[NeighbourKey, Neighbour]
	Nexthops   []Item[NexthopID, Nexthop]
	Routes     []Item[RouteKey, Route]
	Sysctls    []Item[string, Sysctl]
	FastPeers  []Item[netip.Prefix, FastPeer]
	Programs   []Item[ProgramKey, Program]
}

// Via adds the nexthop object for a route's gateway to the state, and returns the route that goes by it.
//
// The kernel stores the attributes of IPv4 routes in a hash table whose key leaves out the gateway (fib_info_hashfn_1
// in net/ipv4/fib_semantics.c). So all routes out of one device share a bucket, and adding one takes time in proportion
// to their number. Routes by nexthop objects are distinguished by the object's number.
func (s *State) Via(r Route) Route {
	id := NexthopIDOf(r.Gateway)
	s.Nexthops = append(s.Nexthops, Item[NexthopID, Nexthop]{
		Key: id, Value: Nexthop{Link: r.Link, Gateway: r.Gateway, OnLink: r.OnLink, Protocol: r.Protocol},
	})
	r.Nexthop, r.Gateway, r.OnLink = id, netip.Addr{}, false
	return r
}

// DefaultMetric is the metric that a route gets, in effect, when it is added with none.
func DefaultMetric(p netip.Prefix) uint32 {
	if p.Addr().Is4() {
		return 0
	}
	return 1024 // IP6_RT_PRIO_USER, include/net/ip6_route.h
}

// MoreOthers returns n further routes and one more, see [Route.Others].
func MoreOthers(n uint8) uint8 { return n + min(1, ^n) }

// ConnectedMetric is the metric of the route that the kernel adds by itself for an address on an interface.
func ConnectedMetric(p netip.Prefix) uint32 {
	if p.Addr().Is4() {
		return 0
	}
	return 256 // IP6_RT_PRIO_ADDRCONF, include/net/ip6_route.h
}

// String returns "10.5.29.0/24" or, with a metric of its own, "10.5.29.0/24 metric 7".
func (k RouteKey) String() string {
	if k.Metric == DefaultMetric(k.Prefix) {
		return k.Prefix.String()
	}
	return fmt.Sprintf("%s metric %d", k.Prefix, k.Metric)
}

// String returns the form "10.5.29.0/32 dev flannel.1".
func (k AddressKey) String() string { return fmt.Sprintf("%s dev %s", k.Prefix, k.Link) }

// String returns the form "72:30:36:d0:8b:68 dev flannel.1".
func (k FDBKey) String() string { return fmt.Sprintf("%s dev %s", k.MAC, k.Link) }

// String returns the form "10.5.29.0 dev flannel.1".
func (k NeighbourKey) String() string { return fmt.Sprintf("%s dev %s", k.IP, k.Link) }
