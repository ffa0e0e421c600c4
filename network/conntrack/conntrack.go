package conntrack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
)

// Messages, attributes and flags of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	msgNew    = unix.NFNL_SUBSYS_CTNETLINK << 8   // IPCTNL_MSG_CT_NEW
	msgGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig   = 1
	ctaTupleReply  = 2
	ctaProtoinfo   = 4
	ctaID          = 12
	ctaZone        = 18
	ctaFilter      = 25
	ctaTupleIP     = 1
	ctaTupleProto  = 2
	ctaIPv4Source  = 1
	ctaProtoNumber = 1
	ctaSourcePort  = 2
	ctaDestPort    = 3

	ctaProtoinfoTCP     = 1
	ctaTCPFlagsOriginal = 4
	ctaTCPFlagsReply    = 5
	beLiberal           = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL of nf_conntrack_tcp.h

	filterSource = 1 // CTA_FILTER_F_CTA_IP_SRC in net/netfilter/nf_internals.h
)

const replyTimeout = 5 * time.Second // bounds the wait for a reply that the kernel queued before the request returned

// Flow is one entry: a connection, or what looks like one.
type Flow struct {
	// Source and Destination are those of the first packet, before any translation. Ports are 0 for protocols without.
	Source, Destination netip.AddrPort
	// ReplySource and ReplyDestination are those of packets that answer. After a translation of destinations, such as
	// that of a Kubernetes Service, ReplySource is the endpoint.
	ReplySource, ReplyDestination netip.AddrPort
	Protocol                      uint8 // unix.IPPROTO_…
	// Liberal: packets of the TCP connection are valid also if they are outside of the window that was seen.
	Liberal bool

	tuple, id, zone []byte // as the kernel encodes them
}

// Conn is a connection to connection tracking in one network namespace. Its methods are not safe for concurrent use.
type Conn struct{ socket *netlink.Conn }

// Dial connects in the network namespace of the calling thread.
func Dial() (*Conn, error) {
	socket, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: 32 << 10})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &Conn{socket}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.socket.Close() }

// Of lists the entries in which an address is the source of the first packet or of the answers: those of connections
// from a pod, and to a pod, with or without a translation in between.
func (c *Conn) Of(a netip.Addr) (flows []Flow, err error) {
	tuples := []uint16{ctaTupleOrig, ctaTupleReply}
	if a.Is6() {
		// For IPv6 the kernel's filter selects all entries but those that are asked for: it takes the result of
		// ipv6_addr_cmp, which is 0 for equal addresses, for a boolean (ctnetlink_filter_match_tuple, 5.8 to 6.18).
		tuples = []uint16{unfiltered}
	}
	for _, tuple := range tuples {
		found, err := c.list(a, tuple)
		if err != nil {
			return nil, fmt.Errorf("list the connections of %s: %w", a, err)
		}
		for _, f := range found {
			from, to := f.Source.Addr() == a, f.ReplySource.Addr() == a
			switch tuple {
			case ctaTupleOrig:
				to = false
			case ctaTupleReply:
				from, to = false, to && !from // else it was found before
			}
			if from || to {
				flows = append(flows, f)
			}
		}
	}
	return flows, nil
}

// OfAny lists the entries in which any of some addresses is the source of the first packet or of the answers. It walks
// once over all entries: see [Conn.Of] for few addresses. The kernel looks at each bucket of its table for a list,
// which is 15 ms for the 262,144 of a node with much memory, so that both families are one list.
func (c *Conn) OfAny(addresses map[netip.Addr]bool) (flows []Flow, err error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	var family netip.Addr // an address of the only one, or none
	for a := range addresses {
		if family.IsValid() && family.BitLen() != a.BitLen() {
			family = netip.Addr{}
			break
		}
		family = a
	}
	err = c.each(family, nil, func(message []byte) {
		if f, ok := decode(message); ok && (addresses[f.Source.Addr()] || addresses[f.ReplySource.Addr()]) {
			flows = append(flows, f)
		}
	}, func(message []byte) bool { return mentions(message, addresses) })
	if err != nil {
		return nil, fmt.Errorf("list the connections: %w", err)
	}
	return flows, nil
}

// mentions reports whether a source in an entry is one of the addresses. It decodes no more than that.
func mentions(message []byte, addresses map[netip.Addr]bool) (found bool) {
	if len(message) < sizeofNfgenmsg {
		return false
	}
	walk(message[sizeofNfgenmsg:], func(typ uint16, tuple []byte) {
		if typ != ctaTupleOrig && typ != ctaTupleReply {
			return
		}
		walk(tuple, func(typ uint16, ip []byte) {
			if typ != ctaTupleIP {
				return
			}
			walk(ip, func(typ uint16, value []byte) {
				if a, ok := netip.AddrFromSlice(value); ok && typ%2 == 1 && addresses[a] { // 1 and 3 are sources
					found = true
				}
			})
		})
	})
	return found
}

// walk calls each for the attributes in b, without an allocation.
func walk(b []byte, each func(typ uint16, value []byte)) {
	const typeMask = 1<<14 - 1 // NLA_TYPE_MASK
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&typeMask, b[unix.SizeofNlAttr:length])
		b = b[min(len(b), (length+3)&^3):]
	}
}

// each calls handle for the entries of an address's family that pass a test, or of all families if there is no address.
// The kernel leaves out what does not match the attributes, if it can.
func (c *Conn) each(a netip.Addr, attrs []byte, handle func(message []byte), passes func(message []byte) bool) error {
	if err := c.socket.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	_, err := c.socket.Send(request(msgGet, netlink.Dump, a, attrs))
	if err != nil {
		return explain(err)
	}
	for m, err := range c.socket.ReceiveIter() {
		if err != nil {
			return explain(err)
		}
		if passes(m.Data) {
			handle(m.Data)
		}
	}
	return nil
}

const unfiltered = 0

// list lists the entries with a source in one direction, at least: a kernel before 5.8 ignores the filter.
func (c *Conn) list(a netip.Addr, tuple uint16) (flows []Flow, err error) {
	e := netlink.NewAttributeEncoder()
	if tuple != unfiltered {
		e.Nested(tuple, func(e *netlink.AttributeEncoder) error {
			e.Nested(ctaTupleIP, func(e *netlink.AttributeEncoder) error {
				e.Bytes(ctaIPv4Source, a.AsSlice())
				return nil
			})
			return nil
		})
		e.Nested(ctaFilter, func(e *netlink.AttributeEncoder) error {
			e.Uint32(tuple, filterSource) // CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS: the tuples' numbers
			return nil
		})
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, err
	}
	raw := a.AsSlice()
	return flows, c.each(a, attrs, func(message []byte) {
		if f, ok := decode(message); ok {
			flows = append(flows, f)
		}
	}, func(message []byte) bool { return bytes.Contains(message, raw) }) // most of an unfiltered list is not decoded
}

// Delete deletes an entry, if it is still there. Its id does not always tell it from another one with the same
// addresses and ports: the kernel computes the id from these and from the place in memory (nf_ct_get_id).
func (c *Conn) Delete(f Flow) error {
	if err := c.change(msgDelete, f, netlink.Attribute{Type: ctaID, Data: f.id}); err != nil {
		return fmt.Errorf("delete the connection of %s to %s: %w", f.Source, f.Destination, err)
	}
	return nil
}

// Tolerate makes a TCP connection [Flow.Liberal], if its entry is still there. While packets of a connection are not
// tracked, it leaves the window that the kernel knows, and all packets after that are invalid (tcp_in_window in
// net/netfilter/nf_conntrack_proto_tcp.c).
func (c *Conn) Tolerate(f Flow) error {
	e := netlink.NewAttributeEncoder()
	e.Nested(ctaProtoinfoTCP, func(e *netlink.AttributeEncoder) error {
		flags := []byte{beLiberal, beLiberal} // struct nf_ct_tcp_flags: the value, and which bits it is about
		e.Bytes(ctaTCPFlagsOriginal, flags)
		e.Bytes(ctaTCPFlagsReply, flags)
		return nil
	})
	info, err := e.Encode()
	if err == nil {
		err = c.change(msgNew, f, netlink.Attribute{Type: ctaProtoinfo | unix.NLA_F_NESTED, Data: info})
	}
	if err != nil {
		return fmt.Errorf("tolerate packets outside of the window of %s to %s: %w", f.Source, f.Destination, err)
	}
	return nil
}

// change sends a message about an entry. That the entry does not exist is no error.
func (c *Conn) change(typ netlink.HeaderType, f Flow, what netlink.Attribute) error {
	list := []netlink.Attribute{{Type: ctaTupleOrig | unix.NLA_F_NESTED, Data: f.tuple}, what}
	if f.zone != nil {
		list = append(list, netlink.Attribute{Type: ctaZone, Data: f.zone})
	}
	attrs, err := netlink.MarshalAttributes(list)
	if err != nil {
		return err
	}
	if err := c.socket.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	_, err = c.socket.Execute(request(typ, netlink.Acknowledge, f.Source.Addr(), attrs))
	if err = explain(err); errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// request returns a message about entries of an address's family, or of all families if there is no address.
func request(typ netlink.HeaderType, flags netlink.HeaderFlags, a netip.Addr, attrs []byte) netlink.Message {
	family := byte(unix.AF_UNSPEC)
	switch {
	case a.Is4():
		family = unix.AF_INET
	case a.Is6():
		family = unix.AF_INET6
	}
	return netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | flags},
		Data:   append([]byte{family, 0, 0, 0}, attrs...), // struct nfgenmsg
	}
}

const sizeofNfgenmsg = 4

func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		err = errno.With(err, "connection tracking needs the capability NET_ADMIN")
	}
	return err
}

// decode decodes an entry.
func decode(message []byte) (f Flow, ok bool) {
	if len(message) < sizeofNfgenmsg {
		return f, false
	}
	d, err := netlink.NewAttributeDecoder(message[sizeofNfgenmsg:])
	if err != nil {
		return f, false
	}
	for d.Next() {
		switch d.Type() {
		case ctaTupleOrig:
			f.tuple = d.Bytes()
			f.Source, f.Destination, f.Protocol = decodeTuple(f.tuple)
		case ctaTupleReply:
			f.ReplySource, f.ReplyDestination, _ = decodeTuple(d.Bytes())
		case ctaProtoinfo:
			f.Liberal = liberal(d.Bytes())
		case ctaID:
			f.id = d.Bytes()
		case ctaZone:
			f.zone = d.Bytes()
		}
	}
	return f, d.Err() == nil && f.Source.IsValid() && f.ReplySource.IsValid() && len(f.id) == 4
}

// liberal reports whether both directions of a TCP connection are liberal.
func liberal(info []byte) bool {
	directions := 0
	nested(info, func(typ uint16, b []byte) {
		if typ != ctaProtoinfoTCP {
			return
		}
		nested(b, func(field uint16, value []byte) {
			flags := field == ctaTCPFlagsOriginal || field == ctaTCPFlagsReply
			if flags && len(value) > 0 && value[0]&beLiberal != 0 {
				directions++
			}
		})
	})
	return directions == 2
}

func decodeTuple(b []byte) (source, destination netip.AddrPort, protocol uint8) {
	var addrs [2]netip.Addr
	var ports [2]uint16
	nested(b, func(typ uint16, b []byte) {
		nested(b, func(field uint16, value []byte) {
			a, isAddr := netip.AddrFromSlice(value)
			switch {
			case typ == ctaTupleIP && isAddr: // 1 and 2 are the source and destination of IPv4, 3 and 4 those of IPv6
				addrs[(field+1)%2] = a
			case typ == ctaTupleProto && field == ctaProtoNumber && len(value) == 1:
				protocol = value[0]
			case typ == ctaTupleProto && (field == ctaSourcePort || field == ctaDestPort) && len(value) == 2:
				ports[field-ctaSourcePort] = binary.BigEndian.Uint16(value)
			}
		})
	})
	return netip.AddrPortFrom(addrs[0], ports[0]), netip.AddrPortFrom(addrs[1], ports[1]), protocol
}

// nested calls each for the attributes in b.
func nested(b []byte, each func(typ uint16, value []byte)) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return
	}
	for d.Next() {
		each(d.Type(), d.Bytes())
	}
}
