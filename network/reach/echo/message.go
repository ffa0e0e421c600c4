package echo

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443) messages, in the order of the families: IPv4, IPv6.
const (
	request4, request6         = 8, 128
	reply4, reply6             = 0, 129
	unreachable4, unreachable6 = 3, 1
	exceeded4, exceeded6       = 11, 3
)

const (
	icmpHeader = 8 // bytes
	header4    = 20
	header6    = 40
)

// encode returns an echo request without data. The kernel fills in the ICMPv6 checksum (RFC 3542, section 3.1).
func encode(f subnet.Family, id, seq uint16) []byte {
	b := make([]byte, icmpHeader)
	b[0] = [...]byte{request4, request6}[f]
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	if f == subnet.IPv4 { // RFC 1071; type is the high byte of the first word, the others are id and seq
		sum := uint32(request4)<<8 + uint32(id) + uint32(seq)
		sum = sum>>16 + sum&0xffff
		sum += sum >> 16
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	}
	return b
}

// decode returns the identifier and the sequence number of the echo request that an ICMP message answers: a reply, or
// an error that quotes the request. ok is false for any other message.
func decode(f subnet.Family, b []byte) (id, seq uint16, ok bool) {
	if len(b) < icmpHeader {
		return 0, 0, false
	}
	switch b[0] {
	case [...]byte{reply4, reply6}[f]:
	case [...]byte{unreachable4, unreachable6}[f], [...]byte{exceeded4, exceeded6}[f]:
		if b = quoted(f, b[icmpHeader:]); b == nil || b[0] != [...]byte{request4, request6}[f] {
			return 0, 0, false
		}
	default:
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), true
}

// quoted returns the ICMP message in a packet, which may be truncated; nil if there is none.
func quoted(f subnet.Family, packet []byte) []byte {
	length, protocol := header6, 6 // of the header, and where it has the protocol
	if f == subnet.IPv4 {
		if len(packet) < header4 {
			return nil
		}
		length, protocol = int(packet[0]&0xf)*4, 9
	}
	icmp := [...]byte{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}[f]
	if len(packet) < length+icmpHeader || packet[protocol] != icmp {
		return nil
	}
	return packet[length:]
}

// filter is a classic BPF program (Documentation/networking/filter.rst) that accepts replies with an identifier, and
// errors that quote ICMP: other programs' ICMP does not wake the daemon. On a raw socket, a packet starts with its IPv4
// header, or with its ICMPv6 header.
func filter(f subnet.Family, id uint16) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_B | unix.BPF_IND
		loadH  = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		start4 = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH // X = 4 * the low half of a byte
		start6 = unix.BPF_LDX | unix.BPF_IMM
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		result = unix.BPF_RET | unix.BPF_K
	)
	start, reply, protocol, icmp := unix.SockFilter{Code: start4}, uint32(reply4), uint32(9), uint32(unix.IPPROTO_ICMP)
	if f == subnet.IPv6 {
		start, reply, protocol, icmp = unix.SockFilter{Code: start6}, reply6, 6, unix.IPPROTO_ICMPV6
	}
	return []unix.SockFilter{
		start,
		{Code: load, K: 0},
		{Code: equal, Jf: 2, K: reply}, // else to the quoted packet
		{Code: loadH, K: 4},
		{Code: equal, Jt: 2, Jf: 3, K: uint32(id)},
		{Code: load, K: icmpHeader + protocol},
		{Code: equal, Jf: 1, K: icmp},
		{Code: result, K: 1 << 16},
		{Code: result, K: 0},
	}
}
