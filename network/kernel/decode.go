package kernel

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// The decoders read in place: the library's typed lists would allocate for each of 15,000 entries. Message layouts are
// those of include/uapi/linux/{rtnetlink,if_link,neighbour}.h.

// attributes iterates over the netlink attributes in b, and stops at a malformed one.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofRtAttr || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:length]) {
				return
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}

func attrString(b []byte) string { return unix.ByteSliceToString(b) }

func attrUint32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func attrAddr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func attrMAC(b []byte) (m network.MAC) {
	if len(b) == len(m) {
		copy(m[:], b)
	}
	return m
}

// linkMessage is the content of an RTM_NEWLINK or RTM_DELLINK.
type linkMessage struct {
	index   int32
	name    string
	link    network.Link
	master  int32        // index of the device that it is enslaved to; 0: none
	promisc bool         // IFF_PROMISC
	noARP   bool         // IFF_NOARP
	port    network.Port // what a bridge says of it as its port
	stp     bool         // of a bridge
	vlans   bool         // of a bridge: it filters them
	// settings is the IFLA_INFO_DATA of the message, valid as long as that is.
	settings []byte
}

func decodeLink(b []byte) (m linkMessage, ok bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC { // AF_BRIDGE: a bridge's port, not the device
		return m, false
	}
	m.index = int32(binary.NativeEndian.Uint32(b[4:]))
	flags := binary.NativeEndian.Uint32(b[8:])
	m.link.Up, m.promisc = flags&unix.IFF_UP != 0, flags&unix.IFF_PROMISC != 0
	m.noARP = flags&unix.IFF_NOARP != 0
	for typ, data := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			m.name = attrString(data)
		case unix.IFLA_ADDRESS:
			m.link.MAC = attrMAC(data)
		case unix.IFLA_MTU:
			m.link.MTU = int(attrUint32(data))
		case unix.IFLA_IFALIAS:
			m.link.Alias = attrString(data)
		case unix.IFLA_MASTER:
			m.master = int32(attrUint32(data))
		case unix.IFLA_LINKINFO:
			var port []byte
			if m.link.Kind, m.settings, port = decodeLinkInfo(data); port != nil {
				m.port = decodePort(port, flags&unix.IFF_LOWER_UP != 0)
			}
			if kind := kindNamed(m.link.Kind); kind != nil {
				m.link.Settings = kind.decode(m.settings)
			}
			if m.link.Kind == network.KindBridge {
				m.stp, m.vlans = decodeBridge(m.settings)
			}
		case unix.IFLA_AF_SPEC:
			m.link.AddrGen = decodeAddrGen(data)
		}
	}
	return m, m.name != ""
}

// decodeLinkInfo returns the kind of a device, its IFLA_INFO_DATA, in which the settings of the kind are, and its
// IFLA_INFO_SLAVE_DATA if it is a port of a bridge.
func decodeLinkInfo(b []byte) (kind string, settings, port []byte) {
	ofBridge := false
	for typ, data := range attributes(b) {
		switch typ {
		case unix.IFLA_INFO_KIND:
			kind = attrString(data)
		case unix.IFLA_INFO_DATA:
			settings = data
		case nl.IFLA_INFO_SLAVE_KIND:
			ofBridge = attrString(data) == network.KindBridge
		case nl.IFLA_INFO_SLAVE_DATA: // follows the kind
			if ofBridge {
				port = data
			}
		}
	}
	return kind, settings, port
}

// decodeAddrGen reports whether the kernel generates a link-local address for the device. Without IPv6 it does not.
func decodeAddrGen(b []byte) bool {
	for family, inet6 := range attributes(b) {
		if family != unix.AF_INET6 {
			continue
		}
		for typ, data := range attributes(inet6) {
			if typ == unix.IFLA_INET6_ADDR_GEN_MODE {
				return len(data) > 0 && data[0] != nl.IN6_ADDR_GEN_MODE_NONE
			}
		}
	}
	return false
}

// addressMessage is the content of an RTM_NEWADDR or RTM_DELADDR.
type addressMessage struct {
	index     int32
	prefix    netip.Prefix
	duplicate bool // IFA_F_DADFAILED
}

func decodeAddress(b []byte) (m addressMessage, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return m, false
	}
	length := int(b[1])
	m.index = int32(binary.NativeEndian.Uint32(b[4:]))
	var address, local netip.Addr
	for typ, data := range attributes(b[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_ADDRESS: // the peer's, on a point-to-point link
			address = attrAddr(data)
		case unix.IFA_LOCAL:
			local = attrAddr(data)
		}
	}
	if local.IsValid() {
		address = local
	}
	m.prefix = netip.PrefixFrom(address, length)
	m.duplicate = b[0] == unix.AF_INET6 && b[2]&unix.IFA_F_DADFAILED != 0
	return m, m.prefix.IsValid()
}

// neighbourMessage is the content of an RTM_NEWNEIGH or RTM_DELNEIGH, of a neighbour or an FDB entry.
type neighbourMessage struct {
	family    uint8 // AF_BRIDGE: an FDB entry
	index     int32
	ip        netip.Addr // an FDB entry's remote
	mac       network.MAC
	state     uint16 // NUD_*
	permanent bool
	odd       bool
	bare      bool // an FDB entry without a remote and without a nexthop object
}

func decodeNeighbour(b []byte) (m neighbourMessage, ok bool) {
	if len(b) < unix.SizeofNdMsg {
		return m, false
	}
	m.family = b[0]
	m.index = int32(binary.NativeEndian.Uint32(b[4:]))
	state := binary.NativeEndian.Uint16(b[8:])
	m.state, m.permanent = state, state&unix.NUD_PERMANENT != 0
	if b[10]&unix.NTF_PROXY != 0 || state == unix.NUD_NOARP && m.family != unix.AF_BRIDGE {
		return m, false // a proxy entry, or the kernel's own for a multicast address
	}
	m.bare = m.family == unix.AF_BRIDGE
	for typ, data := range attributes(b[unix.SizeofNdMsg:]) {
		switch typ {
		case unix.NDA_DST:
			m.ip, m.bare = attrAddr(data), false
		case ndaNHID:
			m.bare = false
		case unix.NDA_LLADDR:
			m.mac = attrMAC(data)
		case unix.NDA_MASTER:
			if m.family == unix.AF_BRIDGE {
				return m, false // the bridge's table, not the device's own
			}
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX:
			m.odd = true
		}
	}
	return m, m.family == unix.AF_BRIDGE || m.ip.IsValid()
}

// fixedEntry reports whether a neighbour message is about an entry in a bridge's FDB that the kernel did not learn.
func fixedEntry(b []byte) bool {
	return len(b) >= unix.SizeofNdMsg && b[0] == unix.AF_BRIDGE && b[10]&unix.NTF_SELF == 0 &&
		binary.NativeEndian.Uint16(b[8:])&(unix.NUD_NOARP|unix.NUD_PERMANENT) != 0
}

// nexthopMessage is the content of an RTM_NEWNEXTHOP or RTM_DELNEXTHOP.
type nexthopMessage struct {
	id      network.NexthopID
	index   int32
	nexthop network.Nexthop
}

func decodeNexthop(b []byte) (m nexthopMessage, ok bool) {
	if len(b) < sizeofNhMsg {
		return m, false
	}
	m.nexthop.Protocol = b[2]
	m.nexthop.OnLink = binary.NativeEndian.Uint32(b[4:])&unix.RTNH_F_ONLINK != 0
	for typ, data := range attributes(b[sizeofNhMsg:]) {
		switch typ {
		case unix.NHA_ID:
			m.id = network.NexthopID(attrUint32(data))
		case unix.NHA_OIF:
			m.index = int32(attrUint32(data))
		case unix.NHA_GATEWAY:
			m.nexthop.Gateway = attrAddr(data)
		case unix.NHA_GROUP, unix.NHA_BLACKHOLE, unix.NHA_ENCAP_TYPE, nhaFDB:
			m.nexthop.Odd = true
		}
	}
	return m, m.id != 0
}

// routeMessage is the content of an RTM_NEWROUTE or RTM_DELROUTE.
type routeMessage struct {
	key   network.RouteKey
	index int32 // of the device; 0 if there is none or more than one
	route network.Route
}

func decodeRoute(b []byte) (m routeMessage, ok bool) {
	if len(b) < unix.SizeofRtMsg {
		return m, false
	}
	family, length, srcLen, tos := b[0], int(b[1]), b[2], b[3]
	table := uint32(b[4])
	m.route.Protocol, m.route.Type = b[5], b[7]
	flags := binary.NativeEndian.Uint32(b[8:])
	m.route.OnLink = flags&unix.RTNH_F_ONLINK != 0
	var dst netip.Addr
	switch family {
	case unix.AF_INET:
		dst = netip.IPv4Unspecified()
	case unix.AF_INET6:
		dst = netip.IPv6Unspecified()
	default:
		return m, false
	}
	for typ, data := range attributes(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_TABLE:
			table = attrUint32(data)
		case unix.RTA_DST:
			dst = attrAddr(data)
		case unix.RTA_OIF:
			m.index = int32(attrUint32(data))
		case unix.RTA_GATEWAY:
			m.route.Gateway = attrAddr(data)
		case rtaNHID:
			m.route.Nexthop = network.NexthopID(attrUint32(data))
		case unix.RTA_PRIORITY:
			m.key.Metric = attrUint32(data)
		}
	}
	switch m.route.Type {
	case network.Blackhole, network.Unreachable, network.Prohibit, network.Throw:
		m.index = 0 // IPv6 reports lo, which means nothing
	}
	m.key.Prefix = netip.PrefixFrom(dst, length)
	ok = table == unix.RT_TABLE_MAIN && tos == 0 && srcLen == 0 && flags&unix.RTM_F_CLONED == 0
	return m, ok && m.key.Prefix.IsValid()
}
