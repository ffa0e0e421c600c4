package bench

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// notifications is a netlink socket on which the kernel's notifications arrive.
type notifications struct {
	fd int
	of string // whose they are, for errors
}

// subscribe begins to receive the notifications of groups in the namespace of the calling thread, with a buffer of so
// many bytes.
func subscribe(of string, protocol, buffer int, groups ...int) (notifications, error) {
	fail := func(err error) (notifications, error) {
		return notifications{}, fmt.Errorf("listen to %s: %w", of, err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fail(err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	if errors.Is(err, unix.EPERM) { // in a user namespace
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	err = errors.Join(err, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	for _, group := range groups {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
	}
	// So that receive sees its end.
	err = errors.Join(err, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return notifications{fd: fd, of: of}, nil
}

// receive calls take for what arrives together, with the time, until stop is closed. An error means that some was lost.
func (n notifications) receive(stop <-chan struct{}, take func([]byte, time.Time)) error {
	buf := make([]byte, 1<<20)
	for {
		length, _, err := unix.Recvfrom(n.fd, buf, 0)
		now := time.Now()
		switch {
		case err == nil:
			take(buf[:length], now)
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			select {
			case <-stop:
				return nil
			default:
			}
		default:
			return fmt.Errorf("listen to %s: %w", n.of, err)
		}
	}
}
