package fastpath

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// frame is a packet to make. The zero value of an optional field stands for what is usual.
type frame struct {
	source, destination [6]byte
	from, to            netip.AddrPort
	protocol            uint8 // optional: UDP
	flags               uint8 // of TCP; optional: ACK
	tos, ttl            uint8 // optional: 64
	id, fragment        uint16
	options             []byte // of IP
	noSum               bool   // UDP without a checksum
	payload             []byte
}

// fold is the Internet checksum of what adds up to a sum.
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
	from, to := f.from.Addr().As4(), f.to.Addr().As4()

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
		pseudo := append(append(from[:], to[:]...), 0, f.protocol)
		sum := uint32(len(l4)) + uint32(^checksum(0, pseudo))
		binary.BigEndian.PutUint16(l4[at:], checksum(sum, l4))
	}

	ip := []byte{0x40 | byte(5+len(f.options)/4), f.tos}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(f.options)+len(l4)))
	ip = binary.BigEndian.AppendUint16(ip, f.id)
	ip = binary.BigEndian.AppendUint16(ip, f.fragment)
	ip = append(ip, f.ttl, f.protocol, 0, 0)
	ip = append(append(append(ip, from[:]...), to[:]...), f.options...)
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))

	b := append(append(f.destination[:], f.source[:]...), 0x08, 0x00)
	return append(append(b, ip...), l4...)
}

// vxlan is an inner frame with the headers of VXLAN before it, but for the outer Ethernet header.
type outer struct {
	source, destination [6]byte
	from, to            netip.Addr
	vni                 uint32
	tos                 uint8
	sum                 uint16 // of UDP
}

func (o outer) bytes(inner []byte) []byte {
	vxlan := append([]byte{8, 0, 0, 0}, byte(o.vni>>16), byte(o.vni>>8), byte(o.vni), 0)
	f := frame{
		source: o.source, destination: o.destination, tos: o.tos, noSum: true,
		from: netip.AddrPortFrom(o.from, 40000), to: netip.AddrPortFrom(o.to, 8472), payload: append(vxlan, inner...),
	}
	b := f.bytes()
	binary.BigEndian.PutUint16(b[40:], o.sum)
	return b
}
