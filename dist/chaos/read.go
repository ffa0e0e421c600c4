package chaos

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
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
// is in it or not. Of other families than the given ones it may be anything: with thousands of leases it takes long.
func (r *reader) read(p peers, families []subnet.Family) (entries, error) {
	have := newEntries(2*len(p.subnets) + 8)
	links, err := again(r.LinkList)
	if err != nil {
		return have, fmt.Errorf("list devices: %w", err)
	}
	found := devices{of: map[int]subnet.Family{}, names: make(map[int]string, len(links))}
	for _, l := range links {
		a := l.Attrs()
		found.names[a.Index] = a.Name
		v, isVXLAN := l.(*netlink.Vxlan)
		family, named := familyOn(a.Name)
		if !named && a.Alias != network.Alias && !(isVXLAN && v.VxlanId == vni && v.Port == port) {
			continue
		}
		if !named && isVXLAN && addrOf(v.SrcAddr).Is6() {
			family = subnet.IPv6
		}
		e := entry{family: family, kind: "device", link: a.Name}
		copy(e.mac[:], a.HardwareAddr) // a WireGuard device has none
		up := a.Flags&net.FlagUp != 0
		if isVXLAN {
			e.ip = addrOf(v.SrcAddr)
			e.detail = attributes(l.Type(), v.VxlanId, v.Port, a.MTU, a.Alias, up, v.Learning, v.VtepDevIndex)
		} else {
			e.detail = attributes(typeOf(l), 0, 0, a.MTU, a.Alias, up, false, 0)
		}
		have.add(e)
		if !named {
			continue
		}
		found.of[a.Index] = family
		if !slices.Contains(families, family) {
			continue
		}
		addrs, err := again(func() ([]netlink.Addr, error) { return r.AddrList(l, netlink.FAMILY_ALL) })
		if gone(err) != nil {
			return have, fmt.Errorf("list addresses: %w", err)
		}
		for _, addr := range addrs {
			if !addr.IP.IsLinkLocalUnicast() { // whoever adds one may need it
				have.add(entry{family: family, kind: "address", link: a.Name, prefix: prefixOf(addr.IPNet)})
			}
		}
		for _, af := range []uint8{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
			if err := r.readNeighbours(af, a.Index, family, have); err != nil {
				return have, err
			}
		}
	}
	through, err := r.readNexthops(found, p, have)
	if err != nil {
		return have, err
	}
	for _, f := range families {
		if err := r.readRoutes(f, found, through, p, have); err != nil {
			return have, err
		}
	}
	return have, nil
}

// devices are all there are, by index.
type devices struct {
	names map[int]string
	of    map[int]subnet.Family // those of the overlay
}

func (d devices) ours(index int) bool {
	_, is := d.of[index]
	return is
}

// readNexthops adds the nexthop objects, and returns which of the overlay's devices objects lead out of.
func (r *reader) readNexthops(found devices, p peers, have entries) (through map[uint32]int, err error) {
	through = make(map[uint32]int, len(p.nexthops))
	err = r.eachNexthop(func(n nexthop) {
		if found.ours(n.link) {
			through[n.id] = n.link
		}
		if n.protocol != routeProtocol && !p.nexthops[n.id] {
			return
		}
		e := entry{family: familyOfMessage(n.family), kind: "nexthop", id: n.id, ip: n.gateway, link: found.names[through[n.id]]}
		if odd := n.odd(); odd != "" || n.protocol != routeProtocol || n.family != unix.AF_INET || !n.onLink {
			e.detail = fmt.Sprintf("protocol %d family %d onlink %t %s", n.protocol, n.family, n.onLink, odd)
		}
		have.add(e)
	})
	return through, err
}

// readNeighbours adds what of a device's FDB, ARP or ND entries is permanent. What is not is the kernel's own affair.
func (r *reader) readNeighbours(af uint8, index int, of subnet.Family, have entries) error {
	request := make(message, unix.SizeofNdMsg)
	request[0] = af
	var parts []nl.NetlinkRequestData
	if af == unix.AF_BRIDGE { // which of the two says for which device depends on the family
		binary.NativeEndian.PutUint32(request[4:], uint32(index))
	} else {
		parts = append(parts, nl.NewRtAttr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index))))
	}
	return r.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, request, parts, func(m message) {
		state := binary.NativeEndian.Uint16(m[8:])
		if m[0] != af || int(binary.NativeEndian.Uint32(m[4:])) != index || state&unix.NUD_PERMANENT == 0 {
			return
		}
		e := entry{family: of, kind: "neighbour", link: deviceOf(of)}
		if af == unix.AF_BRIDGE {
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

// readRoutes adds the routes out of the overlay's devices, themselves or through a nexthop object, those to peers' subnets and
// those of selvage's protocol.
func (r *reader) readRoutes(f subnet.Family, found devices, through map[uint32]int, p peers, have entries) error {
	request := make(message, unix.SizeofRtMsg)
	request[0], request[4] = netlinkFamily(f), unix.RT_TABLE_MAIN
	return r.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, request, nil, func(m message) {
		bits, tos, table, protocol, typ := m[1], m[3], m[4], m[5], m[7]
		if m[0] != netlinkFamily(f) || table != unix.RT_TABLE_MAIN {
			return
		}
		onLink := binary.NativeEndian.Uint32(m[8:])&unix.RTNH_F_ONLINK != 0
		e := entry{family: f, kind: "route"}
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
		if protocol == unix.RTPROT_KERNEL && !p.subnets[e.prefix] {
			return // goes with an address, which is looked at itself
		}
		if isBackstop(typ, protocol, metric) {
			have.add(entry{family: f, kind: "backstop", prefix: e.prefix})
			return
		}
		link := int(out)
		if e.id != 0 {
			link = through[e.id]
		}
		e.link = found.names[link]
		if !found.ours(link) && !p.subnets[e.prefix] && protocol != routeProtocol {
			return
		}
		if e.id != 0 {
			// What else it says is taken from the object, or left out (net.ipv4.nexthop_compat_mode).
			e.ip, onLink = netip.Addr{}, true
		}
		wantOnLink := found.ours(link) && (e.ip.IsValid() || e.id != 0) // a route into WireGuard has no gateway
		if typ != unix.RTN_UNICAST || protocol != routeProtocol || onLink != wantOnLink || metric != metricOf(f) ||
			tos != 0 || paths {
			e.detail = fmt.Sprintf("type %d protocol %d onlink %t metric %d tos %d several paths %t",
				typ, protocol, onLink, metric, tos, paths)
		}
		have.add(e)
	})
}
