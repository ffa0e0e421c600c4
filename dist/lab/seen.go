package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Sender is how [Endpoint.SourceSeen] sends. The zero value leaves all of it to the kernel.
type Sender struct {
	From netip.Addr // the source address
	Mark int        // that the packets carry (SO_MARK, socket(7)), until they leave the network namespace
}

// Echo is where the endpoint's echo server listens, for those who send by other means than a probe.
func (e *Endpoint) Echo(f subnet.Family) netip.AddrPort {
	return netip.AddrPortFrom(e.addrs[f], EchoPort)
}

// SourceSeen sends to an echo server, or to what leads to one, over UDP and TCP, and returns the source address that it saw.
// Unlike [Lab.Probe] it judges nothing.
func (e *Endpoint) SourceSeen(ctx context.Context, s Sender, to netip.AddrPort) (seen netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(ctx, TestPatience)
	defer cancel()
	port := senderPort()
	udp := s.dialer(&net.UDPAddr{IP: s.From.AsSlice(), Port: port})
	if _, seen, err = probeUDP(ctx, udp, e.do, to, numberSize); err != nil {
		return seen, fmt.Errorf("%s -> %s: UDP: %w", e.name, to, err)
	}
	tcp, err := probeTCP(ctx, s.dialer(&net.TCPAddr{IP: s.From.AsSlice(), Port: port}), e.do, to)
	if err != nil {
		return seen, fmt.Errorf("%s -> %s: TCP: %w", e.name, to, err)
	}
	if tcp != seen {
		return seen, fmt.Errorf("%s -> %s: the source address seen is %s with UDP and %s with TCP", e.name, to, seen, tcp)
	}
	return seen, nil
}

// senderPorts counts the senders with an address of their own.
var senderPorts atomic.Uint32

// senderPort returns a port below those that the kernel chooses from, another one with each call. The kernel at times
// chooses the port of an earlier sender with another mark: connection tracking then takes the datagram for the earlier
// flow, and translates its source as it did for that, whatever the mark is now.
func senderPort() int {
	const first, ports = 20000, 10000
	return first + int(senderPorts.Add(1)%ports)
}

func (s Sender) dialer(local net.Addr) (d net.Dialer) {
	if s.From.IsValid() {
		d.LocalAddr = local
	}
	if s.Mark != 0 {
		d.Control = func(_, _ string, conn syscall.RawConn) error {
			var err error
			controlErr := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, s.Mark) })
			if controlErr != nil {
				return controlErr
			}
			return err
		}
	}
	return d
}
