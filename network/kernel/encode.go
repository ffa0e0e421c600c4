package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// The encoders append one request each to a buffer, for [batch]: the library's allocations for a request cost more time
// than the kernel needs to execute it. Message layouts are those of include/uapi/linux/{rtnetlink,neighbour,nexthop}.h.

const (
	sizeofNhMsg = 8 // struct nhmsg
	// Constants that golang.org/x/sys/unix lacks.
	rtaNHID = 30 // RTA_NH_ID
	ndaNHID = 13 // NDA_NH_ID
	nhaFDB  = 11 // NHA_FDB
)

// begin appends the header of a request; end fills in its length.
func begin(b []byte, typ, flags uint16) ([]byte, int) {
	start := len(b)
	b = binary.NativeEndian.AppendUint32(b, 0) // length
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, 0) // sequence number
	return binary.NativeEndian.AppendUint32(b, 0), start
}

func end(b []byte, start int) []byte {
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// attribute appends a netlink attribute, padded to four bytes.
func attribute(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func attributeUint32(b []byte, typ uint16, v uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, unix.SizeofRtAttr+4)
	b = binary.NativeEndian.AppendUint16(b, typ)
	return binary.NativeEndian.AppendUint32(b, v)
}

func attributeAddr(b []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return attribute(b, typ, v[:])
	}
	v := a.As16()
	return attribute(b, typ, v[:])
}

// neighbourEntry is an ARP, ND or FDB entry.
type neighbourEntry struct {
	family uint8
	flags  uint8
	index  int
	ip     netip.Addr
	mac    network.MAC
}

// encodeNeighbour appends a request to set a permanent entry (RTM_NEWNEIGH) or to delete one (RTM_DELNEIGH).
func encodeNeighbour(b []byte, typ uint16, e neighbourEntry) []byte {
	var flags uint16
	if typ == unix.RTM_NEWNEIGH {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	b, start := begin(b, typ, flags)
	b = append(b, e.family, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(e.index))
	b = binary.NativeEndian.AppendUint16(b, unix.NUD_PERMANENT)
	b = append(b, e.flags, 0)
	if e.ip.IsValid() { // none: deletes an FDB entry whatever its remote is
		b = attributeAddr(b, unix.NDA_DST, e.ip)
	}
	if e.mac != (network.MAC{}) {
		b = attribute(b, unix.NDA_LLADDR, e.mac[:])
	}
	return end(b, start)
}

// encodeNexthop appends a request to set a nexthop object (RTM_NEWNEXTHOP).
func encodeNexthop(b []byte, id network.NexthopID, index int, v network.Nexthop) []byte {
	b, start := begin(b, unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	b = append(b, familyOf(v.Gateway), unix.RT_SCOPE_UNIVERSE, v.Protocol, 0)
	b = binary.NativeEndian.AppendUint32(b, onLinkFlag(v.OnLink))
	b = attributeUint32(b, unix.NHA_ID, uint32(id))
	b = attributeUint32(b, unix.NHA_OIF, uint32(index))
	b = attributeAddr(b, unix.NHA_GATEWAY, v.Gateway)
	return end(b, start)
}

// encodeNexthopDeletion appends a request to delete a nexthop object, and with it the routes that use it.
func encodeNexthopDeletion(b []byte, id network.NexthopID) []byte {
	b, start := begin(b, unix.RTM_DELNEXTHOP, 0)
	b = append(b, make([]byte, sizeofNhMsg)...)
	return end(attributeUint32(b, unix.NHA_ID, uint32(id)), start)
}

// encodeRoute appends a request to set a route in the main table (RTM_NEWROUTE), or to delete the one that matches
// (RTM_DELROUTE). index is that of its device, or 0.
func encodeRoute(b []byte, typ uint16, key network.RouteKey, r network.Route, index int) []byte {
	flags, scope := uint16(0), uint8(unix.RT_SCOPE_NOWHERE) // a deletion matches any scope
	if typ == unix.RTM_NEWROUTE {
		flags, scope = unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.RT_SCOPE_UNIVERSE
		if r.Nexthop == 0 && !r.Gateway.IsValid() && r.Type == unix.RTN_UNICAST {
			scope = unix.RT_SCOPE_LINK
		}
	}
	b, start := begin(b, typ, flags)
	b = append(b, familyOf(key.Prefix.Addr()), uint8(key.Prefix.Bits()), 0, 0)
	b = append(b, unix.RT_TABLE_MAIN, r.Protocol, scope, r.Type)
	b = binary.NativeEndian.AppendUint32(b, onLinkFlag(r.OnLink))
	b = attributeAddr(b, unix.RTA_DST, key.Prefix.Addr())
	if key.Metric != 0 {
		b = attributeUint32(b, unix.RTA_PRIORITY, key.Metric)
	}
	if r.Nexthop != 0 {
		return end(attributeUint32(b, rtaNHID, uint32(r.Nexthop)), start)
	}
	if r.Gateway.IsValid() {
		b = attributeAddr(b, unix.RTA_GATEWAY, r.Gateway)
	}
	if index != 0 {
		b = attributeUint32(b, unix.RTA_OIF, uint32(index))
	}
	return end(b, start)
}

func onLinkFlag(onLink bool) uint32 {
	if onLink {
		return unix.RTNH_F_ONLINK
	}
	return 0
}
