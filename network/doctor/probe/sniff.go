package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Bytes in front of the packet in a VXLAN packet (RFC 7348, section 5).
const (
	udpHeader      = 8
	vxlanHeader    = 8
	ethernetHeader = 14
	inVXLAN        = udpHeader + vxlanHeader + ethernetHeader
)

// capture is one of our echo requests, or its answer, on an interface.
type capture struct {
	family   subnet.Family
	seq      uint16
	outgoing bool
	kind     kind
	outer    netip.Addr // the source of the VXLAN packet around it; not valid if there is none
	link     string
}

// sniffer is a packet socket (packet(7)) that captures ICMP on all interfaces, plain and inside VXLAN. Its filter
// keeps all other traffic in the kernel.
type sniffer struct {
	fd   int
	port uint16
	id   uint16
}

func newSniffer(port, id uint16) (*sniffer, error) {
	// Protocol 0 first: no packet must arrive before the filter is attached.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	code := filterProgram(port)
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return &sniffer{fd, port, id}, nil
}

// snapLen is how many bytes of a packet are captured: outer and inner headers, an ICMP error and the packet that it
// quotes.
const snapLen = 256

// filterProgram is a classic BPF filter (Documentation/networking/filter.rst). It accepts ICMP, plain or inside UDP to
// the VXLAN port. A packet starts with its IP header.
func filterProgram(port uint16) []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		loadH  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		loadX  = unix.BPF_LD | unix.BPF_B | unix.BPF_IND
		loadHX = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		length = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH // 4 * the low half of a byte
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		and    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		result = unix.BPF_RET | unix.BPF_K
	)
	v6 := uint32(header(subnet.IPv6))
	return []unix.SockFilter{
		0:  {Code: load, K: 0},
		1:  {Code: and, K: 0xf0},
		2:  {Code: equal, Jt: 2, K: 0x40}, // to 5
		3:  {Code: equal, Jt: 9, K: 0x60}, // to 13
		4:  {Code: result, K: 0},
		5:  {Code: load, K: 9},
		6:  {Code: equal, Jt: 14, K: unix.IPPROTO_ICMP}, // to 21
		7:  {Code: equal, Jf: 12, K: unix.IPPROTO_UDP},  // else to 20
		8:  {Code: length, K: 0},
		9:  {Code: loadHX, K: 2},                  // the port it goes to
		10: {Code: equal, Jf: 9, K: uint32(port)}, // else to 20
		11: {Code: loadX, K: inVXLAN + 9},
		12: {Code: equal, Jt: 8, Jf: 7, K: unix.IPPROTO_ICMP}, // to 21, else to 20
		13: {Code: load, K: 6},
		14: {Code: equal, Jt: 6, K: unix.IPPROTO_ICMPV6}, // to 21
		15: {Code: equal, Jf: 4, K: unix.IPPROTO_UDP},    // else to 20
		16: {Code: loadH, K: v6 + 2},
		17: {Code: equal, Jf: 2, K: uint32(port)}, // else to 20
		18: {Code: load, K: v6 + inVXLAN + 6},
		19: {Code: equal, Jt: 1, K: unix.IPPROTO_ICMPV6}, // to 21
		20: {Code: result, K: 0},
		21: {Code: result, K: snapLen},
	}
}

// run calls report for each capture until ctx ends, and closes the socket.
func (s *sniffer) run(ctx context.Context, report func(capture)) error {
	file := os.NewFile(uintptr(s.fd), "packet socket")
	stop := context.AfterFunc(ctx, func() { file.Close() })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	names := map[int]string{}
	b := make([]byte, snapLen)
	for {
		n, from := 0, unix.Sockaddr(nil)
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, readErr = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(readErr, unix.EAGAIN)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err = errors.Join(err, readErr); errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.EINTR) {
			continue // an interface went down
		} else if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		at, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		for _, one := range findEcho(b[:n], s.port, s.id) {
			if names[at.Ifindex] == "" {
				if i, err := net.InterfaceByIndex(at.Ifindex); err == nil {
					names[at.Ifindex] = i.Name
				}
			}
			one.outgoing, one.link = at.Pkttype == unix.PACKET_OUTGOING, names[at.Ifindex]
			report(one)
		}
	}
}

// findEcho finds an echo request with our identifier in a packet, or an answer to one.
func findEcho(b []byte, port, id uint16) []capture {
	p, ok := decodeIP(b)
	var outer netip.Addr
	if ok && p.protocol == unix.IPPROTO_UDP && len(p.payload) > inVXLAN &&
		binary.BigEndian.Uint16(p.payload[2:]) == port {
		outer = p.from
		p, ok = decodeIP(p.payload[inVXLAN:])
	}
	if !ok || p.protocol != [...]byte{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}[p.family] {
		return nil
	}
	m := decode(p.family, p.payload)
	if m.kind == other || m.id != id {
		return nil
	}
	return []capture{{family: p.family, seq: m.seq, kind: m.kind, outer: outer}}
}
