package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// sockets are the raw sockets of one family (raw(7)). The hop limit is a socket option, so there are two. Every raw
// socket receives all ICMP messages, so only the normal one is read.
type sockets struct {
	normal *net.IPConn
	oneHop *net.IPConn // hop limit of one
}

// openSockets opens the sockets of a family.
func openSockets(ctx context.Context, f subnet.Family) (s sockets, err error) {
	if s.normal, err = listen(ctx, f, 0); err == nil {
		s.oneHop, err = listen(ctx, f, 1)
	}
	if err != nil {
		s.close()
		return s, err
	}
	return s, nil
}

func (s sockets) close() {
	for _, c := range []*net.IPConn{s.normal, s.oneHop} {
		if c != nil {
			c.Close()
		}
	}
}

// listen opens a socket that does not fragment. IP_PMTUDISC_PROBE also ignores the path MTU that the kernel has learnt
// (ip(7)). hops is the hop limit; 0: the default.
func listen(ctx context.Context, f subnet.Family, hops int) (*net.IPConn, error) {
	set := func(fd uintptr) (err error) {
		option := func(level, name, value int) {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), level, name, value)
			}
		}
		if f == subnet.IPv4 {
			option(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		} else {
			option(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			option(unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
		}
		if hops > 0 && f == subnet.IPv4 {
			option(unix.IPPROTO_IP, unix.IP_TTL, hops)
		} else if hops > 0 {
			option(unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops)
		}
		return err
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if controlErr := raw.Control(func(fd uintptr) { err = set(fd) }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	unspecified := [...]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[f]
	conn, err := config.ListenPacket(ctx, [...]string{"ip4:icmp", "ip6:ipv6-icmp"}[f], unspecified.String())
	if err != nil {
		return nil, fmt.Errorf("raw socket for %s: %w", f, err)
	}
	return conn.(*net.IPConn), nil // the type for a network of "ip"
}

// receive calls report for each message that arrives, until the socket is closed.
func receive(f subnet.Family, conn *net.IPConn, report func(f subnet.Family, from netip.Addr, m message)) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFromIP(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error that is pending at the socket; the message itself is received as well
		}
		if a, ok := netip.AddrFromSlice(from.IP); ok {
			report(f, a.Unmap(), decode(f, b[:n]))
		}
	}
}
