package chaos

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// reader reads a network namespace. It decodes the large tables itself: with 15,000 entries the library's lists take so
// much of a core that they would slow down what they are to measure.
type reader struct {
	*netlink.Handle
	sockets map[int]*nl.SocketHandle
}

// newReader returns a reader of the calling thread's network namespace, usable from any goroutine: a socket belongs to the
// namespace in which it was opened.
func newReader() (*reader, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, err
	}
	// The kernel then dumps only what was asked for, where it can (Linux 4.20).
	_ = unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &reader{handle, map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}}, nil
}

func (r *reader) close() {
	r.Close()
	r.sockets[unix.NETLINK_ROUTE].Close()
}

// peers is what is looked at whatever it says, since it is to lead to a peer.
type peers struct {
	subnets  map[netip.Prefix]bool
	nexthops map[uint32]bool
}

// read returns all that the namespace holds of the overlay: the device, under whatever name, and what stands in its place;
// what is on it; every route in the main table that leads out of it, to a peer's subnet, or is selvage's; and every nexthop
// object that is selvage's or has a peer's number. It may be called at any time: an object that comes or goes meanwhile
// is in it or not.
func (r *reader) read(p peers) (entries, error) {
	have := make(entries, 4*len(p.subnets)+8)
	links, err := again(r.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	index := -1
	for _, l := range links {
		a := l.Attrs()
		v, isVXLAN := l.(*netlink.Vxlan)
		if a.Name != device && a.Alias != network.Alias && !(isVXLAN && v.VxlanId == vni && v.Port == port) {
			continue
		}
		e := entry{kind: "device", link: a.Name, mac: network.MAC(a.HardwareAddr)}
		up := a.Flags&net.FlagUp != 0
		if isVXLAN {
			e.ip = addrOf(v.SrcAddr)
			e.detail = attributes(l.Type(), v.VxlanId, v.Port, a.MTU, a.Alias, up, v.Learning, v.VtepDevIndex)
		} else {
			e.detail = attributes(l.Type(), 0, 0, a.MTU, a.Alias, up, false, 0)
		}
		have.add(e)
		if a.Name != device {
			continue
		}
		index = a.Index
		addrs, err := again(func() ([]netlink.Addr, error) { return r.AddrList(l, netlink.FAMILY_ALL) })
		if gone(err) != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() { // whoever adds one may need it
				have.add(entry{kind: "address", link: device, prefix: prefixOf(a.IPNet)})
			}
		}
		for _, family := range []uint8{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
			if err := r.readNeighbours(family, index, have); err != nil {
				return nil, err
			}
		}
	}
	through, err := r.readNexthops(index, p, have)
	if err != nil {
		return nil, err
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := r.readRoutes(family, index, through, p, have); err != nil {
			return nil, err
		}
	}
	return have, nil
}

// readNexthops adds the nexthop objects, and returns the numbers of those that lead out of the device with the given index.
func (r *reader) readNexthops(index int, p peers, have entries) (through map[uint32]bool, err error) {
	through = make(map[uint32]bool, len(p.nexthops))
	err = r.eachNexthop(func(n nexthop) {
		if n.link == index {
			through[n.id] = true
		}
		if n.protocol != routeProtocol && !p.nexthops[n.id] {
			return
		}
		e := entry{kind: "nexthop", id: n.id, ip: n.gateway}
		if n.link == index {
			e.link = device
		}
		if odd := n.odd(); odd != "" || n.protocol != routeProtocol || n.family != unix.AF_INET || !n.onLink {
			e.detail = fmt.Sprintf("protocol %d family %d onlink %t %s", n.protocol, n.family, n.onLink, odd)
		}
		have.add(e)
	})
	return through, err
}

// readNeighbours adds what of a device's FDB, ARP or ND entries is permanent. What is not is the kernel's own affair.
func (r *reader) readNeighbours(family uint8, index int, have entries) error {
	request := make(message, unix.SizeofNdMsg)
	request[0] = family
	var parts []nl.NetlinkRequestData
	if family == unix.AF_BRIDGE { // which of the two says for which device depends on the family
		binary.NativeEndian.PutUint32(request[4:], uint32(index))
	} else {
		parts = append(parts, nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index))))
	}
	return r.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, request, parts, func(m message) {
		state := binary.NativeEndian.Uint16(m[8:])
		if m[0] != family || int(binary.NativeEndian.Uint32(m[4:])) != index || state&unix.NUD_PERMANENT == 0 {
			return
		}
		e := entry{kind: "neighbour", link: device}
		if family == unix.AF_BRIDGE {
			e.kind = "fdb"
		}
		m.attributes(unix.SizeofNdMsg, func(typ uint16, value []byte) {
			switch typ {
			case unix.NDA_DST:
				e.ip, _ = netip.AddrFromSlice(value)
			case unix.NDA_LLADDR:
				copy(e.mac[:], value)
			case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX:
				e.detail = "with a port, VNI or interface of its own"
			}
		})
		have.add(e)
	})
}

// readRoutes adds the routes out of the device with the given index, itself or through a nexthop object, those to peers'
// subnets and those of selvage's protocol.
func (r *reader) readRoutes(family uint8, index int, through map[uint32]bool, p peers, have entries) error {
	request := make(message, unix.SizeofRtMsg)
	request[0], request[4] = family, unix.RT_TABLE_MAIN
	return r.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, request, nil, func(m message) {
		bits, tos, table, protocol, typ := m[1], m[3], m[4], m[5], m[7]
		if m[0] != family || table != unix.RT_TABLE_MAIN {
			return
		}
		onLink := binary.NativeEndian.Uint32(m[8:])&unix.RTNH_F_ONLINK != 0
		e := entry{kind: "route"}
		var out, metric uint32
		paths := false
		m.attributes(unix.SizeofRtMsg, func(typ uint16, value []byte) {
			switch typ {
			case unix.RTA_DST:
				a, _ := netip.AddrFromSlice(value)
				e.prefix = netip.PrefixFrom(a, int(bits))
			case unix.RTA_GATEWAY:
				e.ip, _ = netip.AddrFromSlice(value)
			case unix.RTA_OIF:
				out = binary.NativeEndian.Uint32(value)
			case unix.RTA_PRIORITY:
				metric = binary.NativeEndian.Uint32(value)
			case unix.RTA_MULTIPATH:
				paths = true
			case rtaNHID:
				e.id = binary.NativeEndian.Uint32(value)
			}
		})
		if protocol == unix.RTPROT_KERNEL && e.prefix.Addr().IsLinkLocalUnicast() {
			return // goes with such an address, see read
		}
		ours := int(out) == index || through[e.id]
		if !ours && !p.subnets[e.prefix] && protocol != routeProtocol {
			return
		}
		if ours {
			e.link = device
		}
		if e.id != 0 {
			// What else it says is taken from the object, or left out (net.ipv4.nexthop_compat_mode).
			e.ip, onLink = netip.Addr{}, true
		}
		if typ != unix.RTN_UNICAST || protocol != routeProtocol || !onLink || metric != 0 || tos != 0 || paths {
			e.detail = fmt.Sprintf("type %d protocol %d onlink %t metric %d tos %d several paths %t", typ, protocol, onLink, metric, tos, paths)
		}
		have.add(e)
	})
}
