package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long an answer to a call is waited for.
const patience = 2 * time.Second

// requestTime is how long a request may take on the control port, far more than it does on a busy machine.
const requestTime = time.Minute

func call(ctx context.Context, c Call) (Echo, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if c.Network == DNS {
		_, err := net.DefaultResolver.LookupHost(ctx, c.Name)
		return Echo{}, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, c.Network.dialed(), c.To.String())
	if err != nil {
		return Echo{}, err
	}
	defer conn.Close()
	if c.Network == Connect {
		return Echo{}, nil
	}
	return Ask(conn, c.Network)
}

// dialed returns the network of net.Dial. One that it does not know is its error.
func (n Network) dialed() string {
	switch n {
	case Full:
		return "udp"
	case Connect:
		return "tcp"
	default:
		return string(n)
	}
}

// Ask asks an agent over a connection to its echo port.
func Ask(conn net.Conn, network Network) (Echo, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return Echo{}, err
	}
	if network == TCP {
		text, err := io.ReadAll(conn)
		if err != nil {
			return Echo{}, err
		}
		return parseEcho(string(text))
	}
	size := numberSize
	if network == Full {
		var err error
		if size, err = fullSize(conn.(*net.UDPConn)); err != nil {
			return Echo{}, err
		}
	}
	packet := make([]byte, largest)
	if _, err := conn.Write(packet[:size]); err != nil {
		return Echo{}, fmt.Errorf("send %d bytes: %w", size, err)
	}
	n, err := conn.Read(packet)
	if err != nil {
		return Echo{}, err
	}
	if n < size {
		return Echo{}, fmt.Errorf("%d bytes were answered by %d", size, n)
	}
	return parseEcho(string(packet[numberSize:n]))
}

// Sizes of headers, in bytes (RFC 791, RFC 8200, RFC 768).
const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
)

// fullSize returns how many bytes a datagram of a connected socket can hold without being fragmented, by the kernel's
// path MTU, and forbids fragments.
func fullSize(conn *net.UDPConn) (size int, err error) {
	v4 := conn.RemoteAddr().(*net.UDPAddr).IP.To4() != nil
	err = control(conn, func(fd int) (err error) {
		if err = unfragmented(fd, v4); err != nil {
			return err
		}
		headers := ipv6Header + udpHeader
		if v4 {
			headers = ipv4Header + udpHeader
			size, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		} else {
			size, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
		size = min(size-headers, largest)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("learn the path MTU: %w", err)
	}
	return size, nil
}

// unfragmented forbids that a socket's datagrams are fragmented, here or on their way.
func unfragmented(fd int, v4 bool) error {
	if v4 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
}

// control calls a function with a socket's file descriptor.
func control(conn *net.UDPConn, do func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// Do has an agent do something, over a connection to its control port.
func Do(conn net.Conn, r Request) (a Answer, err error) {
	if err := conn.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return a, err
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return a, fmt.Errorf("ask an agent: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("ask an agent: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}
