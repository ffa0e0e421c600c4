package fastpath

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// frame is a packet to make, of IPv4 or IPv6 as its addresses are. The zero value of an optional field stands for what
// is usual.
type frame struct {
	source, destination [6]byte
	from, to            netip.AddrPort
	protocol            uint8 // optional: UDP
	flags               uint8 // of TCP; optional: ACK
	tos, ttl            uint8 // TTL optional: 64
	label               uint32
	id, fragment        uint16
	options             []byte // of IPv4; of IPv6, destination options
	noSum               bool   // UDP without a checksum
	payload             []byte
}

// ipLength is the length of an IP header without options, of an address's family.
func ipLength(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

// etherType is that of an address's family, as a frame has it.
func etherType(a netip.Addr) []byte {
	if a.Is4() {
		return []byte{0x08, 0x00}
	}
	return []byte{0x86, 0xdd}
}

// checksum is the Internet checksum of what adds up to a sum.
func checksum(sum uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// bytes is the frame as it is sent.
func (f frame) bytes() []byte {
	if f.protocol == 0 {
		f.protocol = unix.IPPROTO_UDP
	}
	if f.ttl == 0 {
		f.ttl = 64
	}
	if f.flags == 0 {
		f.flags = 0x10
	}
	from, to := f.from.Addr().AsSlice(), f.to.Addr().AsSlice()

	var l4 []byte
	l4 = binary.BigEndian.AppendUint16(l4, f.from.Port())
	l4 = binary.BigEndian.AppendUint16(l4, f.to.Port())
	at := 6
	switch f.protocol {
	case unix.IPPROTO_UDP:
		l4 = binary.BigEndian.AppendUint16(l4, uint16(8+len(f.payload)))
		l4 = append(l4, 0, 0)
	case unix.IPPROTO_TCP:
		l4 = append(l4, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, f.flags, 0xff, 0xff, 0, 0, 0, 0)
		at = 16
	}
	l4 = append(l4, f.payload...)
	if f.protocol != unix.IPPROTO_UDP || !f.noSum {
		pseudo := append(append(append([]byte{}, from...), to...), 0, f.protocol)
		sum := uint32(len(l4)) + uint32(^checksum(0, pseudo))
		binary.BigEndian.PutUint16(l4[at:], checksum(sum, l4))
	}

	b := append(append(f.destination[:], f.source[:]...), etherType(f.from.Addr())...)
	if f.from.Addr().Is4() {
		return append(append(b, f.ipv4(len(l4))...), l4...)
	}
	return append(append(b, f.ipv6(len(l4))...), l4...)
}

func (f frame) ipv4(length int) []byte {
	ip := []byte{0x40 | byte(5+len(f.options)/4), f.tos}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(f.options)+length))
	ip = binary.BigEndian.AppendUint16(ip, f.id)
	ip = binary.BigEndian.AppendUint16(ip, f.fragment)
	ip = append(ip, f.ttl, f.protocol, 0, 0)
	ip = append(append(append(ip, f.from.Addr().AsSlice()...), f.to.Addr().AsSlice()...), f.options...)
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	return ip
}

func (f frame) ipv6(length int) []byte {
	next, extensions := f.protocol, []byte{}
	if len(f.options) > 0 { // of 4 bytes
		extensions = append([]byte{next, 0, 1, 2, 0, 0}, 1, 0)
		next = unix.IPPROTO_DSTOPTS
	}
	if f.fragment&0x3fff != 0 {
		offset := f.fragment&0x1fff<<3 | f.fragment>>13&1
		extensions = append([]byte{next, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 1}, extensions...)
		next = unix.IPPROTO_FRAGMENT
	}
	ip := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(f.tos)<<20|f.label)
	ip = binary.BigEndian.AppendUint16(ip, uint16(len(extensions)+length))
	ip = append(ip, next, f.ttl)
	return append(append(append(ip, f.from.Addr().AsSlice()...), f.to.Addr().AsSlice()...), extensions...)
}

// outer are the headers of VXLAN before an inner frame.
type outer struct {
	source, destination [6]byte
	from, to            netip.Addr
	vni                 uint32
	tos                 uint8
	sum                 *uint16 // of UDP; nil: none over IPv4, the right one over IPv6
}

// vxlanLength is the length of all headers before an inner packet, over an underlay of an address's family.
func vxlanLength(underlay netip.Addr) int { return 14 + ipLength(underlay) + 8 + 8 + 14 }

func (o outer) bytes(inner []byte) []byte {
	vxlan := append([]byte{8, 0, 0, 0}, byte(o.vni>>16), byte(o.vni>>8), byte(o.vni), 0)
	f := frame{
		source: o.source, destination: o.destination, tos: o.tos, noSum: o.from.Is4(),
		from: netip.AddrPortFrom(o.from, 40000), to: netip.AddrPortFrom(o.to, 8472), payload: append(vxlan, inner...),
	}
	b := f.bytes()
	if o.sum != nil {
		binary.BigEndian.PutUint16(b[14+ipLength(o.from)+6:], *o.sum)
	}
	return b
}

// consistent reports whether the checksums of a packet are right: the errors in them add up to nothing.
func consistent(ip []byte) bool {
	header, addresses, protocol := 40, 8, ip[6]
	var errors uint32
	if ip[0]>>4 == 4 {
		header, addresses, protocol = 20, 12, ip[9]
		errors = uint32(^checksum(0, ip[:20]))
	}
	pseudo := append(bytes.Clone(ip[addresses:header]), 0, protocol)
	errors += uint32(len(ip)-header) + uint32(^checksum(0, pseudo))
	return checksum(errors, ip[header:]) == 0
}
