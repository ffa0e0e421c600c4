// Package echo sends ICMP echo requests and receives the answers: one raw socket for all peers of a family. It needs
// CAP_NET_RAW.
package echo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet"
)

// Socket is a raw socket (raw(7)) of one family.
type Socket struct {
	family subnet.Family
	conn   *net.IPConn
	id     uint16
}

// Open opens a socket in the network namespace of the calling thread.
func Open(ctx context.Context, f subnet.Family) (*Socket, error) {
	s := &Socket{family: f, id: uint16(rand.Uint32())}
	program := filter(f, s.id)
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if f == subnet.IPv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	set := func(fd uintptr) error {
		if err := unix.SetsockoptInt(int(fd), level, option, 1); err != nil {
			return err
		}
		return unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if controlErr := raw.Control(func(fd uintptr) { err = set(fd) }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	network, unspecified := "ip4:icmp", netip.IPv4Unspecified()
	if f == subnet.IPv6 {
		network, unspecified = "ip6:ipv6-icmp", netip.IPv6Unspecified()
	}
	conn, err := config.ListenPacket(ctx, network, unspecified.String())
	if err != nil {
		return nil, errno.Explain(errno.RawSocket, fmt.Errorf("raw socket for %s: %w", f, err))
	}
	s.conn = conn.(*net.IPConn) // the type for a network of "ip"
	return s, nil
}

// Close closes the socket, which ends Receive.
func (s *Socket) Close() { _ = s.conn.Close() } // it holds no data

// Send sends an echo request. hops is its hop limit; 0: the default. The kernel chooses the source: the address of the
// device that the request leaves by.
func (s *Socket) Send(to netip.Addr, hops int, seq uint16) error {
	var control []byte
	if hops > 0 {
		level, option := int32(unix.IPPROTO_IP), int32(unix.IP_TTL)
		if s.family == subnet.IPv6 {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT
		}
		control = controlMessage(level, option, int32(hops))
	}
	_, _, err := s.conn.WriteMsgIP(encode(s.family, s.id, seq), control, &net.IPAddr{IP: to.AsSlice()})
	var number syscall.Errno
	if errors.As(err, &number) {
		return number // without the addresses
	}
	return err
}

// controlMessage returns a control message with a number (cmsg(3)).
func controlMessage(level, option, value int32) []byte {
	b := make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(value))))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, option
	h.SetLen(unix.CmsgLen(int(unsafe.Sizeof(value))))
	*(*int32)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = value
	return b
}

// Receive calls report for each answer to a request until the socket is closed. from is the host that answered. Besides
// the target that can be a router that reports an error. link is the index of the interface that the answer came by.
func (s *Socket) Receive(report func(seq uint16, from netip.Addr, link int)) {
	b, control := make([]byte, 1<<10), make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for {
		n, length, _, from, err := s.conn.ReadMsgIP(b, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error that is pending at the socket; the message itself is received as well
		}
		message := b[:n]
		if s.family == subnet.IPv4 { // it starts with its IP header: raw(7)
			message = withoutHeader(message)
		}
		id, seq, ok := decode(s.family, message)
		if a, valid := netip.AddrFromSlice(from.IP); ok && valid && id == s.id {
			report(seq, a.Unmap(), linkOf(control[:length]))
		}
	}
}

// withoutHeader returns an IPv4 packet without its header; nil if it is shorter than that.
func withoutHeader(packet []byte) []byte {
	if len(packet) == 0 {
		return nil
	}
	return packet[min(len(packet), int(packet[0]&0xf)*4):]
}

// linkOf returns the index of the interface that a packet came by, from its control messages (ip(7), ipv6(7)); 0: there
// is none.
func linkOf(control []byte) int {
	all, _ := unix.ParseSocketControlMessage(control) // the kernel's own
	for _, m := range all {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO &&
			len(m.Data) >= unix.SizeofInet4Pktinfo:
			return int(binary.NativeEndian.Uint32(m.Data))
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO &&
			len(m.Data) >= unix.SizeofInet6Pktinfo:
			return int(binary.NativeEndian.Uint32(m.Data[16:]))
		}
	}
	return 0
}
