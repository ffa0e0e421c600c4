package chaos

import (
	"encoding/binary"
	"errors"
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

// read returns all that the namespace holds of the overlay: the device, under whatever name, and what stands in its place;
// what is on it; and every route in the main table that leads out of it, to a peer's subnet, or is selvage's. It may be
// called at any time: an object that comes or goes meanwhile is in it or not.
func (r *reader) read(peers map[netip.Prefix]bool) (entries, error) {
	have := make(entries, 3*len(peers)+8)
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
			have.add(entry{kind: "address", link: device, prefix: prefixOf(a.IPNet)})
		}
		for _, family := range []uint8{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
			if err := r.readNeighbours(family, index, have); err != nil {
				return nil, err
			}
		}
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := r.readRoutes(family, index, peers, have); err != nil {
			return nil, err
		}
	}
	return have, nil
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

// readRoutes adds the routes out of the device with the given index, those to peers' subnets and those of selvage's
// protocol.
func (r *reader) readRoutes(family uint8, index int, peers map[netip.Prefix]bool, have entries) error {
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
			}
		})
		if int(out) != index && !peers[e.prefix] && protocol != network.RouteProtocol {
			return
		}
		if int(out) == index {
			e.link = device
		}
		if typ != unix.RTN_UNICAST || protocol != network.RouteProtocol || !onLink || metric != 0 || tos != 0 || paths {
			e.detail = fmt.Sprintf("type %d protocol %d onlink %t metric %d tos %d several paths %t", typ, protocol, onLink, metric, tos, paths)
		}
		have.add(e)
	})
}

// message is the payload of an rtnetlink message: a header that depends on the kind, then attributes.
type message []byte

// Len and Serialize make a message a part of a request.
func (m message) Len() int          { return len(m) }
func (m message) Serialize() []byte { return m }

// attributes calls f with each attribute behind a header of the given length: rtnetlink(7).
func (m message) attributes(header int, f func(typ uint16, value []byte)) {
	for b := m[header:]; len(b) >= unix.SizeofRtAttr; {
		length, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		f(typ&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:length])
		b = b[min(len(b), (length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
}

// dump asks for all objects of a kind.
func (r *reader) dump(request, answer int, header message, parts []nl.NetlinkRequestData, f func(message)) error {
	q := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	q.Sockets = r.sockets
	q.AddData(header)
	for _, p := range parts {
		q.AddData(p)
	}
	err := q.ExecuteIter(unix.NETLINK_ROUTE, uint16(answer), func(data []byte) bool {
		f(data)
		return true
	})
	switch {
	case errors.Is(err, nl.ErrDumpInterrupted), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil // something comes or goes right now: it is read again
	case err != nil:
		return fmt.Errorf("dump (rtnetlink request %d): %w", request, err)
	}
	return nil
}

// readAttempts bounds how often a dump is repeated that a change interrupted.
const readAttempts = 20

// again calls list until no change interrupts it. What is read while others write may still be of no single moment.
func again[T any](list func() ([]T, error)) (all []T, err error) {
	for range readAttempts {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, nil
}

// gone takes an error that says a device has vanished since it was listed for what it is.
func gone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// addrOf is an address from netlink; IPv4 never comes mapped into IPv6.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// prefixOf is a prefix from netlink. A default route comes as nil, or with length 0.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

// ipNet is the inverse of prefixOf.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
