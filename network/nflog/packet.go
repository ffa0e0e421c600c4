package nflog

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Packet is a logged packet.
type Packet struct {
	Prefix  string // of the rule
	In, Out uint32 // indexes of the devices, 0 for none: a bridge for its ports
	// Protocol is that above IP, unix.IPPROTO_…. The ports are 0 if it has none, or in a fragment after the first.
	Protocol            uint8
	Source, Destination netip.AddrPort
}

// Attributes of a message about a packet.
const (
	attrPrefix  = 10 // NFULA_PREFIX
	attrPayload = 9  // NFULA_PAYLOAD
	attrIn      = 4  // NFULA_IFINDEX_INDEV
	attrOut     = 5  // NFULA_IFINDEX_OUTDEV
)

// decode decodes the attributes of a message about a packet.
func decode(b []byte) (p Packet, ok bool) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return p, false
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		switch d.Type() {
		case attrPrefix:
			p.Prefix = strings.TrimRight(d.String(), "\x00")
		case attrIn:
			p.In = d.Uint32()
		case attrOut:
			p.Out = d.Uint32()
		case attrPayload:
			ok = p.decodeIP(d.Bytes())
		}
	}
	return p, ok && d.Err() == nil
}

// decodeIP decodes the start of an IP packet, of either version.
func (p *Packet) decodeIP(b []byte) (ok bool) {
	const sizeof4, sizeof6 = 20, 40
	var source, destination netip.Addr
	fragment := false // other than the first
	switch {
	case len(b) >= sizeof4 && b[0]>>4 == 4:
		source, _ = netip.AddrFromSlice(b[12:16])
		destination, _ = netip.AddrFromSlice(b[16:20])
		p.Protocol = b[9]
		fragment = binary.BigEndian.Uint16(b[6:])&0x1fff != 0
		b = b[min(len(b), int(b[0]&0xf)*4):]
	case len(b) >= sizeof6 && b[0]>>4 == 6:
		source, _ = netip.AddrFromSlice(b[8:24])
		destination, _ = netip.AddrFromSlice(b[24:40])
		p.Protocol, fragment, b = skipExtensions(b[6], b[sizeof6:])
	default:
		return false
	}
	var ports [2]uint16
	switch p.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP:
		if len(b) >= 4 && !fragment {
			ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
		}
	}
	p.Source, p.Destination = netip.AddrPortFrom(source, ports[0]), netip.AddrPortFrom(destination, ports[1])
	return true
}

// skipExtensions skips the extension headers of an IPv6 packet (RFC 8200, section 4).
func skipExtensions(next uint8, b []byte) (protocol uint8, fragment bool, rest []byte) {
	for len(b) >= 8 {
		length := 8 + int(b[1])*8
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
		case unix.IPPROTO_FRAGMENT:
			length = 8
			fragment = fragment || binary.BigEndian.Uint16(b[2:])&^7 != 0
		default:
			return next, fragment, b
		}
		next, b = b[0], b[min(len(b), length):]
	}
	return next, fragment, b
}
