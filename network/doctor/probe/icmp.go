package probe

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443) messages, by subnet.Family.
var (
	echoRequest  = [2]byte{8, 128}
	echoReply    = [2]byte{0, 129}
	unreachable  = [2]byte{3, 1}
	timeExceeded = [2]byte{11, 3}
)

const (
	fragmentationNeeded = 4 // code of unreachable, IPv4
	packetTooBig        = 2 // type, IPv6
	icmpHeader          = 8 // bytes
)

// header returns the length of an IP header without options, in bytes.
func header(f subnet.Family) int { return [...]int{subnet.IPv4: 20, subnet.IPv6: 40}[f] }

// encodeEcho returns an echo request for an IP packet of size bytes, header included. The kernel fills in the ICMPv6
// checksum (RFC 3542, section 3.1).
func encodeEcho(f subnet.Family, id, seq uint16, size int) []byte {
	b := make([]byte, max(icmpHeader, size-header(f)))
	b[0] = echoRequest[f]
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	if f == subnet.IPv4 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum returns the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// kind classifies a message.
type kind int

const (
	other kind = iota
	request
	reply
	refused // destination unreachable
	tooBig  // packet too big, or fragmentation needed
	expired // time exceeded
)

// message is an ICMP message. Of an error, id and seq are those of the quoted packet.
type message struct {
	kind    kind
	id, seq uint16 // of the echo request or reply
	reason  string // of destination unreachable
	mtu     int    // of tooBig, in bytes
	// The destination of the quoted packet, if that is UDP.
	udp  uint16
	dest netip.Addr
}

// decode parses an ICMP message, without the IP header. It may be truncated.
func decode(f subnet.Family, b []byte) (m message) {
	if len(b) < icmpHeader {
		return m
	}
	switch code := b[1]; b[0] {
	case echoRequest[f], echoReply[f]:
		m.kind = request
		if b[0] == echoReply[f] {
			m.kind = reply
		}
		m.id, m.seq = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		return m
	case unreachable[f]:
		m.kind, m.reason = refused, reason(f, code)
		if f == subnet.IPv4 && code == fragmentationNeeded {
			m.kind, m.mtu = tooBig, int(binary.BigEndian.Uint16(b[6:]))
		}
	case timeExceeded[f]:
		m.kind = expired
	default:
		if f == subnet.IPv4 || b[0] != packetTooBig {
			return m
		}
		m.kind, m.mtu = tooBig, int(binary.BigEndian.Uint32(b[4:]))
	}
	m.quote(f, b[icmpHeader:])
	return m
}

// quote parses the packet that an error quotes.
func (m *message) quote(f subnet.Family, b []byte) {
	p, ok := decodeIP(b)
	if !ok || p.family != f || len(p.payload) < icmpHeader {
		return
	}
	switch p.protocol {
	case unix.IPPROTO_UDP:
		m.udp, m.dest = binary.BigEndian.Uint16(p.payload[2:]), p.to
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if p.payload[0] == echoRequest[f] {
			m.id, m.seq = binary.BigEndian.Uint16(p.payload[4:]), binary.BigEndian.Uint16(p.payload[6:])
		}
	}
}

// packet is an IP packet.
type packet struct {
	family   subnet.Family
	from, to netip.Addr
	protocol byte
	payload  []byte
}

// decodeIP parses an IP packet, which may be truncated.
func decodeIP(b []byte) (p packet, ok bool) {
	switch {
	case len(b) >= header(subnet.IPv4) && b[0]>>4 == 4:
		length := int(b[0]&0xf) * 4
		if length < header(subnet.IPv4) || len(b) < length {
			return p, false
		}
		p = packet{family: subnet.IPv4, protocol: b[9], payload: b[length:]}
		p.from, p.to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= header(subnet.IPv6) && b[0]>>4 == 6:
		p = packet{family: subnet.IPv6, protocol: b[6], payload: b[header(subnet.IPv6):]}
		p.from, p.to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return p, false
	}
	return p, true
}

// PortUnreachable is the reason in [Echo] for a closed UDP port.
const PortUnreachable = "port unreachable"

// reason names the code of a destination unreachable message.
func reason(f subnet.Family, code byte) string {
	names := [2]map[byte]string{
		{0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: PortUnreachable,
			9: "network prohibited", 10: "host prohibited", 13: "administratively prohibited"},
		{0: "no route", 1: "administratively prohibited", 3: "address unreachable", 4: PortUnreachable,
			5: "source address prohibited", 6: "route rejected"},
	}
	if name := names[f][code]; name != "" {
		return name
	}
	return "unreachable"
}
