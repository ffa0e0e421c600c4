package bench

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roundTrips is how often there and back, after some that are not counted.
	roundTrips, warmUp = 2000, 200
	messageSize        = 64
)

// latency sends a message there and back again and again, one at a time, and returns how long each took, in microseconds.
//
// The sockets block: a goroutine that the Go runtime wakes by epoll would add that to every turn. Both ends are on one
// processor: to wake another one can take several times as long as the way.
func (w way) latency(protocol string) ([]float64, error) {
	near, far, err := w.connect(protocol)
	if err != nil {
		return nil, fmt.Errorf("%s: connect by %s: %w", w.name, protocol, err)
	}
	defer unix.Close(near)
	echoed := make(chan error, 1)
	go func() {
		echoed <- onOneCPU(func() error {
			var message [messageSize]byte
			for range warmUp + roundTrips {
				if err := passOn(far, far, message[:]); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	took := make([]float64, 0, roundTrips)
	err = onOneCPU(func() error {
		var message [messageSize]byte
		for i := range warmUp + roundTrips {
			began := time.Now()
			if _, err := unix.Write(near, message[:]); err != nil {
				return err
			}
			if err := readAll(near, message[:]); err != nil {
				return err
			}
			if i >= warmUp {
				took = append(took, float64(time.Since(began))/float64(time.Microsecond))
			}
		}
		return nil
	})
	// The other end is closed when nobody uses it any more; until then it gives up by itself.
	if other := <-echoed; err == nil {
		err = other
	}
	unix.Close(far)
	if err != nil {
		return nil, fmt.Errorf("%s: round trip by %s: %w", w.name, protocol, err)
	}
	return took, nil
}

// passOn reads one message and writes it.
func passOn(from, to int, message []byte) error {
	if err := readAll(from, message); err != nil {
		return err
	}
	_, err := unix.Write(to, message)
	return err
}

// readAll reads a whole message: TCP may bring it in pieces.
func readAll(fd int, message []byte) error {
	for got := 0; got < len(message); {
		n, err := unix.Read(fd, message[got:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err // EAGAIN: nothing came for as long as answerTime
		case n == 0:
			return unix.ECONNRESET
		}
		got += n
	}
	return nil
}

// answerTime is how long a message may take.
func answerTime() *unix.Timeval { return &unix.Timeval{Sec: 5} }

// connect makes two sockets that are connected, one at each end.
func (w way) connect(protocol string) (near, far int, err error) {
	near, far = -1, -1
	defer func() {
		if err != nil {
			unix.Close(near)
			unix.Close(far)
		}
	}()
	if far, err = w.to.socket(protocol); err != nil {
		return near, far, err
	}
	if near, err = w.from.socket(protocol); err != nil {
		return near, far, err
	}
	if protocol == "tcp" {
		if err = unix.Listen(far, 1); err != nil {
			return near, far, err
		}
	}
	address, err := unix.Getsockname(far)
	if err != nil {
		return near, far, err
	}
	if err = unix.Connect(near, address); err != nil {
		return near, far, err
	}
	if protocol == "udp" {
		if address, err = unix.Getsockname(near); err == nil {
			err = unix.Connect(far, address)
		}
		return near, far, err
	}
	accepted, _, err := unix.Accept4(far, unix.SOCK_CLOEXEC)
	if err != nil {
		return near, far, err
	}
	unix.Close(far)
	return near, accepted, prepare(accepted, protocol)
}

// socket makes a socket that is bound to the end's address.
func (e end) socket(protocol string) (fd int, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if e.addr.Is6() {
		family = unix.AF_INET6
	}
	if protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	err = e.do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	if err := prepare(fd, protocol); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Bind(fd, socketAddress(e.addr)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepare(fd int, protocol string) error {
	if protocol == "tcp" {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
	}
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, answerTime())
}

// socketAddress is an address with a port of the kernel's choice.
func socketAddress(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}
