package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows compares ways with one thread at all their ends, which stays on one CPU. A packet between two veth pairs
// passes all that is between them before the call that sends it returns. So what is measured is the way alone, without
// processes that are woken and moved between CPUs, which takes longer than the way and varies more. The ways take turns
// with each connection, datagram or piece, so that whatever else the machine does meets all of them.

// testPort is where servers listen: iperf3's.
const testPort = 5201

// onOneCPU calls f on a thread of its own that stays on one CPU.
func onOneCPU(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends
		var err error
		if cpus := processors(); len(cpus) > 0 {
			var set unix.CPUSet
			set.Set(cpus[0])
			err = unix.SchedSetaffinity(0, &set)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// inTurn calls once with the number of each way, over and over for that long, and returns how long each call took, in
// microseconds, by ways. The first few calls are not counted.
func inTurn(ways []way, d time.Duration, warmUp int, once func(way int) error) ([][]float64, error) {
	took := make([][]float64, len(ways))
	err := onOneCPU(func() error {
		for end, n := time.Now().Add(d), 0; n <= warmUp || time.Now().Before(end); n++ {
			for i := range ways {
				i = (i + n) % len(ways)
				began := time.Now()
				if err := once(i); err != nil {
					return fmt.Errorf("%s: %w", ways[i].name, err)
				}
				if n >= warmUp {
					took[i] = append(took[i], float64(time.Since(began))/float64(time.Microsecond))
				}
			}
		}
		return nil
	})
	return took, err
}

// bound makes a socket that is bound to the end's address and a port. One for TCP listens.
func (e end) bound(protocol string, port int) (fd int, err error) {
	if fd, err = e.open(protocol); err != nil {
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

// open makes a socket.
func (e end) open(protocol string) (fd int, err error) {
	err = e.do(func() (err error) {
		fd, err = newSocket(e.addr, protocol)
		return err
	})
	return fd, err
}

// newSocket makes a socket in the namespaces of the calling thread. It gives up to receive what takes longer than
// answerTime. There is no such limit for connect: a signal, of which the Go runtime has many, would interrupt it. A
// connection of TCP that is closed is reset: otherwise it would keep its port.
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
	if err = prepare(fd, protocol); err == nil && protocol == "tcp" {
		err = errors.Join(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
			unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")) // see load.args
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
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

// pair is a socket at each end of a way. That at the far end of TCP listens.
type pair struct{ near, far int }

func (p pair) close() {
	unix.Close(p.near)
	unix.Close(p.far)
}

// pairs makes sockets for ways, of which those at the near ends are not connected. close closes all.
func pairs(ways []way, protocol string) (all []pair, close func(), err error) {
	close = func() {
		for _, p := range all {
			p.close()
		}
	}
	for _, w := range ways {
		p := pair{near: -1}
		if p.far, err = w.to.bound(protocol, w.listens()); err == nil {
			p.near, err = w.from.open(protocol)
		}
		all = append(all, p)
		if err != nil {
			close()
			return nil, nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return all, close, nil
}

// connects makes TCP connections and ends them.
func connects(ways []way, d time.Duration) ([][]float64, error) {
	return connections(ways, d, func(pair) error { return nil })
}

// shortOnes makes TCP connections, on each of which a message goes there and back, and ends them.
func shortOnes(ways []way, d time.Duration) ([][]float64, error) {
	var message [messageSize]byte
	return connections(ways, d, func(p pair) error { return p.exchange(message[:]) })
}

// connections makes TCP connections, uses each, and ends it.
func connections(ways []way, d time.Duration, use func(pair) error) ([][]float64, error) {
	all, end, err := pairs(ways, "tcp")
	if err != nil {
		return nil, err
	}
	defer end()
	to := make([]unix.Sockaddr, len(ways))
	for i, w := range ways {
		to[i] = w.target()
	}
	return inTurn(ways, d, warmUp/10, func(i int) error {
		if err := unix.Connect(all[i].near, to[i]); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		far, err := accept(all[i].far)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		// A connect to no address ends the connection with a reset, and the socket can be used for the next one.
		return errors.Join(use(pair{all[i].near, far}), disconnect(all[i].near), unix.Close(far))
	})
}

// accept takes a connection.
func accept(listener int) (int, error) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// flows makes sockets of UDP that are connected. close closes all.
func flows(ways []way) (all []pair, close func(), err error) {
	all, close, err = pairs(ways, "udp")
	if err != nil {
		return nil, nil, err
	}
	for i, w := range ways {
		err := unix.Connect(all[i].near, w.target())
		if err == nil {
			var back unix.Sockaddr
			if back, err = unix.Getsockname(all[i].near); err == nil {
				err = unix.Connect(all[i].far, back)
			}
		}
		if err != nil {
			close()
			return nil, nil, fmt.Errorf("%s: connect: %w", w.name, err)
		}
	}
	return all, close, nil
}

// exchange sends a message there and back.
func (p pair) exchange(message []byte) error {
	if _, err := unix.Write(p.near, message); err != nil {
		return err
	}
	if err := passOn(p.far, p.far, message); err != nil {
		return fmt.Errorf("there: %w", err)
	}
	if err := readAll(p.near, message); err != nil {
		return fmt.Errorf("back: %w", err)
	}
	return nil
}

// datagrams sends datagrams there and back, on one flow for each way.
func datagrams(ways []way, d time.Duration) ([][]float64, error) {
	all, end, err := flows(ways)
	if err != nil {
		return nil, err
	}
	defer end()
	var message [messageSize]byte
	return inTurn(ways, d, warmUp, func(i int) error { return all[i].exchange(message[:]) })
}

// segments sends small messages there and back, on one TCP connection for each way.
func segments(ways []way, d time.Duration) ([][]float64, error) {
	all, end, err := streams(ways)
	if err != nil {
		return nil, err
	}
	defer end()
	var message [messageSize]byte
	return inTurn(ways, d, warmUp, func(i int) error { return all[i].exchange(message[:]) })
}

// oneWay sends datagrams as large as iperf3's, see load.args, after one there and back.
func oneWay(ways []way, d time.Duration) ([][]float64, error) {
	all, end, err := flows(ways)
	if err != nil {
		return nil, err
	}
	defer end()
	var data [datagram]byte
	for i, w := range ways {
		if err := all[i].exchange(data[:messageSize]); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return inTurn(ways, d, warmUp, func(i int) error {
		if _, err := unix.Write(all[i].near, data[:]); err != nil {
			return err
		}
		return readAll(all[i].far, data[:])
	})
}

// piece is how much is sent before it is received: little less than what TCP segmentation offload takes at once.
const piece = 60 << 10

// streams makes a TCP connection for each way. close closes all.
func streams(ways []way) (all []pair, close func(), err error) {
	all, close, err = pairs(ways, "tcp")
	if err != nil {
		return nil, nil, err
	}
	for i, w := range ways {
		far := -1
		err := unix.Connect(all[i].near, w.target())
		if err == nil {
			far, err = accept(all[i].far)
		}
		if err == nil {
			unix.Close(all[i].far)
			all[i].far = far
			err = prepare(far, "tcp")
		}
		if err != nil {
			close()
			return nil, nil, fmt.Errorf("%s: connect: %w", w.name, err)
		}
	}
	return all, close, nil
}

// transfers sends pieces on one TCP connection for each way.
func transfers(ways []way, d time.Duration) ([][]float64, error) {
	all, end, err := streams(ways)
	if err != nil {
		return nil, err
	}
	defer end()
	data := make([]byte, piece)
	return inTurn(ways, d, warmUp, func(i int) error {
		if err := writeAll(all[i].near, data); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if err := readAll(all[i].far, data); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		return nil
	})
}

// writeAll writes a whole message.
func writeAll(fd int, message []byte) error {
	for sent := 0; sent < len(message); {
		n, err := unix.Write(fd, message[sent:])
		if err != nil && err != unix.EINTR {
			return err
		}
		sent += max(n, 0)
	}
	return nil
}

// disconnect ends what connect began: see connect(2), AF_UNSPEC.
func disconnect(fd int) error {
	unspecified := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)),
		unsafe.Sizeof(unspecified))
	if errno != 0 {
		return fmt.Errorf("disconnect: %w", errno)
	}
	return nil
}
