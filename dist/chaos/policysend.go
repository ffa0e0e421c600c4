package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// flow is one way of sending. Its methods are called by one thread, in the network namespace of the sender.
type flow interface {
	// step sends something, if it is its turn, and looks at what came of earlier steps.
	step(now time.Time) error
	// finish reports whether everything that is allowed has got as far as it will.
	finish() (done bool, err error)
	close()
}

// address is where a track leads to.
func (t *track) address() unix.Sockaddr {
	return sockaddr(netip.AddrPortFrom(t.to.Addr(t.family), sinkPort))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// open makes a socket for a track, which does not block.
func (t *track) open(typ int) (fd int, err error) {
	fd, err = unix.Socket(int(netlinkFamily(t.family)), typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil || t.as == nil {
		return fd, err
	}
	if t.family == subnet.IPv4 {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(t.as.Addr(t.family), 0)))
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// settled is how long after the arrival of a datagram what was sent before it is waited for.
const settled = 500 * time.Millisecond

// closing finds out when datagrams that have not arrived are lost: settled after one arrived that was sent later.
type closing struct {
	*track // of those sent later
	at     time.Time
}

func (c *closing) finish(t *track) bool {
	switch {
	case !t.allowed || t.missing() == 0:
		return true
	case !c.at.IsZero():
		return time.Since(c.at) > settled
	case c.any():
		c.at = time.Now()
	default:
		if fd, err := c.open(unix.SOCK_DGRAM); err == nil {
			c.datagram(fd, noteIt)
			unix.Close(fd)
		}
	}
	return false
}

// datagram sends one. What the kernel refuses has not arrived.
func (t *track) datagram(fd int, what uint32) {
	t.send(func(n uint32) { _ = unix.Sendto(fd, record(t, n, what), 0, t.address()) })
}

// datagrams sends each datagram from another port, so that each begins a connection.
type datagrams struct {
	*track
	last closing
}

func (d *datagrams) step(time.Time) error {
	fd, err := d.open(unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	d.datagram(fd, noteIt)
	return nil
}

func (d *datagrams) finish() (bool, error) { return d.last.finish(d.track), nil }
func (d *datagrams) close()                {}

// session sends all datagrams from one port and gets answers: one connection for connection tracking, once it is let
// in.
type session struct {
	*track
	last closing
	fd   int
}

func newSession(t, last *track) (flow, error) {
	fd, err := t.open(unix.SOCK_DGRAM)
	return &session{t, closing{track: last}, fd}, err
}

func (s *session) step(time.Time) error {
	s.datagram(s.fd, answerIt)
	var b [64]byte
	for {
		if _, _, err := unix.Recvfrom(s.fd, b[:], 0); err != nil {
			return nil
		}
	}
}

func (s *session) finish() (bool, error) { return s.last.finish(s.track), nil }
func (s *session) close()                { unix.Close(s.fd) }

const (
	// connectEvery is how often a connection is begun.
	connectEvery = 20 * time.Millisecond
	// synOnce is how long a denied connection is tried: less than after what time the kernel repeats a SYN, a second
	// (TCP_TIMEOUT_INIT, include/net/tcp.h), so that the time of its beginning is the time of its only packet.
	synOnce = 500 * time.Millisecond
	// maxKept is how many connections are kept open that ought not to be.
	maxKept = 4
)

// connections opens short TCP connections. Those that are denied and open all the same stay open, and go on sending.
type connections struct {
	*track
	kept *track // what goes over these

	next    time.Time
	pending []attempt
	open    []int
}

// attempt is a connection that is not open yet.
type attempt struct {
	fd     int
	number uint32
	start  time.Time
}

func (c *connections) step(now time.Time) error {
	if err := c.look(now); err != nil {
		return err
	}
	for _, fd := range c.open {
		c.kept.send(func(n uint32) { _, _ = unix.Write(fd, record(c.kept, n, noteIt)) })
	}
	if now.Before(c.next) {
		return nil
	}
	c.next = now.Add(connectEvery)
	fd, err := c.track.open(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	// At its end it is reset: nothing of it is left to be waited for.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	number := c.send(func(uint32) { _ = unix.Connect(fd, c.address()) })
	c.pending = append(c.pending, attempt{fd, number, now})
	return nil
}

// look finds out which attempts have come to an end.
func (c *connections) look(now time.Time) error {
	var left []attempt
	for _, a := range c.pending {
		poll := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(poll, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		switch {
		case n == 0 && (c.allowed || now.Sub(a.start) < synOnce):
			left = append(left, a)
		case n == 0:
			unix.Close(a.fd)
		default:
			c.opened(a)
		}
	}
	c.pending = left
	return nil
}

// opened is for an attempt that came to an end. One whose SYN was repeated had lost a packet.
func (c *connections) opened(a attempt) {
	failure, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	info, infoErr := unix.GetsockoptTCPInfo(a.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err == nil && failure == 0 && infoErr == nil && info.Total_retrans == 0 {
		c.arrive(a.number)
		if !c.allowed && len(c.open) < maxKept {
			c.open = append(c.open, a.fd)
			return
		}
	}
	unix.Close(a.fd)
}

func (c *connections) finish() (done bool, err error) {
	err = c.look(time.Now())
	return !c.allowed || len(c.pending) == 0, err
}

func (c *connections) close() {
	for _, a := range c.pending {
		unix.Close(a.fd)
	}
	for _, fd := range c.open {
		unix.Close(fd)
	}
}

// bulk sends a stream of bytes over one TCP connection: some megabytes a second, more than a window of what is not
// tracked would hold while bridged packets pass unseen.
type bulk struct {
	*track
	fd      int
	written int
}

func newBulk(t *track) (flow, error) {
	fd, err := t.open(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	b := &bulk{track: t, fd: fd}
	if err := unix.Connect(fd, t.address()); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		b.close()
		return nil, err
	}
	return b, nil
}

// bulkStep is how many bytes are sent in a step.
const bulkStep = 16 << 10

func (b *bulk) step(time.Time) error {
	data := make([]byte, bulkStep)
	if b.written == 0 {
		copy(data, record(b.track, 0, countAll))
	}
	n, err := unix.Write(b.fd, data)
	if err == nil {
		b.written += n
	}
	return nil // one that is broken does not get to its end
}

// finish waits until all bytes have arrived but for the first record.
func (b *bulk) finish() (bool, error) {
	return b.written > 0 && b.received() == b.written-recordSize, nil
}
func (b *bulk) close() { unix.Close(b.fd) }

// drive steps flows every so often until ctx ends, then until all are finished or patience is at its end. It is to be
// called in the sender's network namespace. It closes the flows.
func drive(ctx context.Context, flows []flow, every, patience time.Duration) (finished bool, err error) {
	defer func() {
		for _, f := range flows {
			f.close()
		}
	}()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		for _, f := range flows {
			if err := f.step(now); err != nil {
				return false, err
			}
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	for ended := time.Now(); time.Since(ended) < patience; time.Sleep(time.Millisecond) {
		done := true
		for _, f := range flows {
			finished, err := f.finish()
			if err != nil {
				return false, err
			}
			done = done && finished
		}
		if done {
			return true, nil
		}
	}
	return false, nil
}
