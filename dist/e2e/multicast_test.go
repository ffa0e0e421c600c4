package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// group is a multicast group of more than link scope.
func group(f subnet.Family) netip.AddrPort {
	return netip.MustParseAddrPort([...]string{subnet.IPv4: "239.83.1.1:9001", subnet.IPv6: "[ff05::8301]:9001"}[f])
}

// expectMulticastKept has the node route multicast from its pods to the uplink: what a pod sends to a group arrives with the
// pod's address, by which members tell senders apart.
func (s *scene) expectMulticastKept(ctx context.Context, t *testing.T) {
	to := group(s.family)
	received := make(chan netip.AddrPort, 16)
	link, err := net.InterfaceByName("underlay0")
	if err != nil {
		t.Fatal(err)
	}
	member, err := net.ListenMulticastUDP("udp", link, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64)
		for {
			_, from, err := member.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			select {
			case received <- from:
			default:
			}
		}
	}()
	defer func() { member.Close(); <-done }()

	router, err := s.routeMulticast(to.Addr())
	if err != nil {
		t.Fatalf("route multicast: %v", err)
	}
	defer router.Close()
	waitFor(ctx, t, "a multicast packet", func() error {
		if err := s.sendMulticast(to); err != nil {
			return err
		}
		select {
		case from := <-received:
			if got := from.Addr().Unmap(); got != s.pod.Addr(s.family) {
				t.Errorf("multicast of a pod: the group sees %s, want the pod's own %s", got, s.pod.Addr(s.family))
			}
			return nil
		default:
			return errors.New("none has arrived")
		}
	})
}

// sendMulticast sends one datagram that may pass a few routers.
func (s *scene) sendMulticast(to netip.AddrPort) error {
	return s.pod.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		const hops = 4
		level, option := unix.IPPROTO_IP, unix.IP_MULTICAST_TTL
		if s.family == subnet.IPv6 {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS
		}
		var setErr error
		if err := raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), level, option, hops) }); err != nil || setErr != nil {
			return errors.Join(err, setErr)
		}
		_, err = conn.Write([]byte("to the group"))
		return err
	})
}

// The kernel's interface for multicast routing daemons (linux/mroute.h, linux/mroute6.h); the numbers are the same for both
// families.
const (
	mrtInit, mrtAddVIF, mrtAddMFC = 200, 202, 204
	vifByIndex                    = 8
)

// routeMulticast has the node's kernel pass on what the pod sends to the group, from the pods' bridge to the uplink, until
// the socket is closed.
func (s *scene) routeMulticast(to netip.Addr) (socket *os.File, err error) {
	err = s.node.Do(func() error {
		domain, protocol, level := unix.AF_INET, unix.IPPROTO_IGMP, unix.IPPROTO_IP
		if s.family == subnet.IPv6 {
			domain, protocol, level = unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.IPPROTO_IPV6
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		socket = os.NewFile(uintptr(fd), "multicast routing")
		set := func(option int, value []byte) error {
			return os.NewSyscallError(fmt.Sprintf("setsockopt %d", option), unix.SetsockoptString(fd, level, option, string(value)))
		}
		if err := set(mrtInit, binary.NativeEndian.AppendUint32(nil, 1)); err != nil {
			return err
		}
		for i, name := range []string{"cni0", "eth0"} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := set(mrtAddVIF, vif(s.family, uint16(i), link.Attrs().Index)); err != nil {
				return err
			}
		}
		return set(mrtAddMFC, mfc(s.pod.Addr(s.family), to))
	})
	if err != nil && socket != nil {
		socket.Close()
	}
	return socket, err
}

// vif is struct vifctl or struct mif6ctl: interface number i of the router.
func vif(f subnet.Family, i uint16, index int) []byte {
	b := binary.NativeEndian.AppendUint16(nil, i)
	if f == subnet.IPv4 {
		const threshold = 1
		b = append(b, vifByIndex, threshold, 0, 0, 0, 0)
		return append(binary.NativeEndian.AppendUint32(b, uint32(index)), 0, 0, 0, 0)
	}
	b = append(b, 0, 1)
	b = append(binary.NativeEndian.AppendUint16(b, uint16(index)), 0, 0)
	return append(b, 0, 0, 0, 0)
}

// mfc is struct mfcctl or struct mf6cctl: from interface 0 to interface 1.
func mfc(from, to netip.Addr) []byte {
	if from.Is4() {
		ttls := [32]byte{1: 1}
		return slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, 0}, ttls[:], make([]byte, 2+4*4))
	}
	address := func(a netip.Addr) []byte { // struct sockaddr_in6
		b := binary.NativeEndian.AppendUint16(nil, syscall.AF_INET6)
		return slices.Concat(b, make([]byte, 6), a.AsSlice(), make([]byte, 4))
	}
	set := binary.NativeEndian.AppendUint32(nil, 1<<1)
	return bytes.Join([][]byte{address(from), address(to), {0, 0, 0, 0}, set, make([]byte, 7*4)}, nil)
}
