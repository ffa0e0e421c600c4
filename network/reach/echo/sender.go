package echo

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet"
)

// Sender sends echo requests on a device that the routes may not lead to (packet(7)). Answers come by any way, to a
// [Socket].
type Sender struct{ fd int }

// OpenSender opens a sender in the network namespace of the calling thread.
func OpenSender() (*Sender, error) {
	const receivesNothing = 0
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, receivesNothing)
	if err != nil {
		return nil, errno.Explain(errno.RawSocket, fmt.Errorf("packet socket: %w", err))
	}
	return &Sender{fd}, nil
}

// Close closes the sender.
func (s *Sender) Close() { _ = unix.Close(s.fd) } // it holds no data

// Send sends a request whose answer answers reports. link is the index of a device whose neighbours have no link-layer
// addresses, from an address of this host, and hops the hop limit.
func (s *Sender) Send(answers *Socket, link int, from, to netip.Addr, hops uint8, seq uint16) error {
	return s.send(answers.id, link, from, to, hops, seq)
}

// Provoke sends a request as Send does, whose answer is not reported. It is for what the device itself counts.
func (s *Sender) Provoke(link int, from, to netip.Addr, hops uint8) error {
	return s.send(0, link, from, to, hops, 0)
}

func (s *Sender) send(id uint16, link int, from, to netip.Addr, hops uint8, seq uint16) error {
	f := subnet.FamilyOf(to)
	etherType := [...]uint16{unix.ETH_P_IP, unix.ETH_P_IPV6}[f]
	at := &unix.SockaddrLinklayer{
		Ifindex:  link,
		Protocol: binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, etherType)),
	}
	return unix.Sendto(s.fd, packet(f, id, from, to, hops, seq), 0, at)
}

// packet returns an echo request with its IP header: RFC 791, section 3.1; RFC 8200, section 3.
func packet(f subnet.Family, id uint16, from, to netip.Addr, hops uint8, seq uint16) []byte {
	message := encode(f, id, seq)
	addresses := append(from.AsSlice(), to.AsSlice()...)
	if f == subnet.IPv4 {
		header := append(
			[]byte{0x45, 0, 0, header4 + icmpHeader, 0, 0, 0, 0, hops, unix.IPPROTO_ICMP, 0, 0}, addresses...)
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		return append(header, message...)
	}
	pseudo := append(addresses, 0, 0, 0, icmpHeader, 0, 0, 0, unix.IPPROTO_ICMPV6) // RFC 8200, section 8.1
	binary.BigEndian.PutUint16(message[2:], checksum(append(pseudo, message...)))
	header := append([]byte{0x60, 0, 0, 0, 0, icmpHeader, unix.IPPROTO_ICMPV6, hops}, addresses...)
	return append(header, message...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	return ^uint16(sum)
}
