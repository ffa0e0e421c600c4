package agent

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// bufferSize is half of what a socket holds for an agent that does not read, in bytes of the kernel's accounting
// (SO_RCVBUF in socket(7)). A small datagram counts for 768, so it holds those of two streams, at 500 datagrams a
// second each, for twenty seconds. The default holds a quarter of a second, for which a busy machine may well keep an
// agent from running.
const bufferSize = 8 << 20

// widen gives a socket that buffer, beyond net.core.rmem_max if the agent has CAP_NET_ADMIN.
func widen(conn *net.UDPConn) error {
	err := control(conn, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set the receive buffer: %w", err)
	}
	return nil
}
