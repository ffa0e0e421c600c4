package probe

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// outbound returns a function that sends an echo request through a target's tunnel from the underlay address, and one
// that closes its packet socket. A raw socket does not do: packets into the overlay from an address outside are
// masqueraded.
func (p *Prober) outbound(t Target) (send func(seq uint16, size int) error, end func(), err error) {
	from := p.options.Local[t.Family]
	if !from.IsValid() {
		return nil, nil, fmt.Errorf("no %s address on the underlay", t.Family)
	}
	link, err := netlink.LinkByName(t.Link)
	if err != nil {
		return nil, nil, err
	}
	to, err := neighbour(link.Attrs().Index, t.Overlay)
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // 0: it receives nothing
	if err != nil {
		return nil, nil, err
	}
	etherType := [...]uint16{subnet.IPv4: unix.ETH_P_IP, subnet.IPv6: unix.ETH_P_IPV6}[t.Family]
	at := &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Halen: uint8(len(to)), Protocol: networkOrder(etherType)}
	copy(at.Addr[:], to)
	send = func(seq uint16, size int) error {
		return unix.Sendto(fd, encodePacket(from, t.Overlay, p.id, seq, size), 0, at)
	}
	return send, func() { unix.Close(fd) }, nil
}

// neighbour finds the MAC address of a neighbour on a link.
func neighbour(link int, a netip.Addr) (net.HardwareAddr, error) {
	family := [...]int{subnet.IPv4: unix.AF_INET, subnet.IPv6: unix.AF_INET6}[subnet.FamilyOf(a)]
	all, err := netlink.NeighList(link, family)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if b, ok := netip.AddrFromSlice(n.IP); ok && b.Unmap() == a && len(n.HardwareAddr) == 6 {
			return n.HardwareAddr, nil
		}
	}
	return nil, fmt.Errorf("no neighbour entry for %s", a)
}

func networkOrder(x uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, x))
}

// encodePacket returns an IP packet of size bytes with an echo request.
func encodePacket(from, to netip.Addr, id, seq uint16, size int) []byte {
	const hops = 64
	f := subnet.FamilyOf(to)
	echo := encodeEcho(f, id, seq, size)
	var b []byte
	if f == subnet.IPv4 {
		b = binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(header(f)+len(echo)))
		b = append(b, 0, 0, 0x40, 0, hops, unix.IPPROTO_ICMP, 0, 0) // 0x40: don't fragment (DF)
		b = append(append(b, from.AsSlice()...), to.AsSlice()...)
		binary.BigEndian.PutUint16(b[10:], checksum(b))
		return append(b, echo...)
	}
	pseudo := append(append([]byte{}, from.AsSlice()...), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(echo)))
	pseudo = append(append(pseudo, 0, 0, 0, unix.IPPROTO_ICMPV6), echo...)
	binary.BigEndian.PutUint16(echo[2:], checksum(pseudo))
	b = binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(echo)))
	b = append(b, unix.IPPROTO_ICMPV6, hops)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	return append(b, echo...)
}
