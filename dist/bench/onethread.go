package bench

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// What follows has one thread at both ends of a way. A packet between two veth pairs passes all that is between them before
// the call that sends it returns, on the same CPU. So what is measured is the way alone, without processes that are woken
// and moved between CPUs, which takes longer than the way and varies more.

// testPort is where servers listen: iperf3's.
const testPort = 5201

// pinned calls f with a socket at the far end, in the near end's namespaces, on a thread that stays on one CPU.
func (w way) pinned(protocol string, f func(far int) error) error {
	far, err := w.to.bound(protocol, testPort)
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	defer unix.Close(far)
	return w.from.do(func() error {
		if cpus := processors(); len(cpus) > 0 {
			var set unix.CPUSet
			set.Set(cpus[0])
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				return err
			}
		}
		return f(far)
	})
}

// bound makes a socket that is bound to the end's address and a port. One for TCP listens.
func (e end) bound(protocol string, port int) (fd int, err error) {
	err = e.do(func() (err error) {
		fd, err = newSocket(e.addr, protocol)
		return err
	})
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, socketAddressWith(e.addr, port))
	}
	if err == nil && protocol == "tcp" {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// newSocket makes a socket in the namespaces of the calling thread. It gives up what takes longer than answerTime.
func newSocket(family netip.Addr, protocol string) (int, error) {
	domain, kind := unix.AF_INET, unix.SOCK_STREAM
	if family.Is6() {
		domain = unix.AF_INET6
	}
	if protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, answerTime()); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

func socketAddressWith(a netip.Addr, port int) unix.Sockaddr {
	switch s := socketAddress(a).(type) {
	case *unix.SockaddrInet4:
		s.Port = port
		return s
	case *unix.SockaddrInet6:
		s.Port = port
		return s
	}
	return nil
}

// connects makes TCP connections one after the other for that long, and returns how many a second. Each is accepted, and
// reset: one that is closed would keep its port.
func (w way) connects(d time.Duration) (each float64, err error) {
	err = w.pinned("tcp", func(far int) error {
		to, n, began := socketAddressWith(w.to.addr, testPort), 0, time.Now()
		for ; time.Since(began) < d; n++ {
			if err := connectOnce(far, w.from.addr, to); err != nil {
				return fmt.Errorf("%s: connection %d: %w", w.name, n, err)
			}
		}
		each = float64(n) / time.Since(began).Seconds()
		return nil
	})
	return each, err
}

func connectOnce(listener int, from netip.Addr, to unix.Sockaddr) error {
	near, err := newSocket(from, "tcp")
	if err != nil {
		return err
	}
	defer unix.Close(near)
	if err := unix.SetsockoptLinger(near, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(near, to); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	accepted, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return unix.Close(accepted)
}

// roundTrips sends datagrams there and back on one flow, one at a time, and returns how long each took, in microseconds.
func (w way) roundTrips() (took []float64, err error) {
	err = w.pinned("udp", func(far int) error {
		near, err := newSocket(w.from.addr, "udp")
		if err != nil {
			return err
		}
		defer unix.Close(near)
		if err := unix.Connect(near, socketAddressWith(w.to.addr, testPort)); err != nil {
			return err
		}
		back, err := unix.Getsockname(near)
		if err != nil {
			return err
		}
		if err := unix.Connect(far, back); err != nil {
			return err
		}
		var message [messageSize]byte
		for i := range warmUp + roundTrips {
			began := time.Now()
			if _, err := unix.Write(near, message[:]); err != nil {
				return err
			}
			if err := passOn(far, far, message[:]); err != nil {
				return fmt.Errorf("%s: datagram %d there: %w", w.name, i, err)
			}
			if err := readAll(near, message[:]); err != nil {
				return fmt.Errorf("%s: datagram %d back: %w", w.name, i, err)
			}
			if i >= warmUp {
				took = append(took, float64(time.Since(began))/float64(time.Microsecond))
			}
		}
		return nil
	})
	return took, err
}
