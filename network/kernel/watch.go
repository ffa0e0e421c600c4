package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is the socket's receive buffer, in bytes. The default overruns from our own bulk changes alone.
	receiveBuffer = 8 << 20
	// inboxLimit limits the bytes of queued messages, to some 65,000 messages; beyond that a full resync is cheaper.
	inboxLimit = 8 << 20
)

// subscription is a socket that receives the kernel's notifications; it is closed when its context ends.
type subscription struct {
	file *os.File
	conn syscall.RawConn
	buf  []byte
	stop func() bool
}

// subscribe subscribes to all groups that [Kernel.Watch] always needs, and to more, on one socket, so that the order of
// events holds.
func subscribe(ctx context.Context, more ...int) (*subscription, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to the kernel's notifications: %w", err)
	}
	s := &subscription{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, receiveSize)}
	// Exceeding net.core.rmem_max takes CAP_NET_ADMIN in the initial user namespace.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range append([]int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_NEXTHOP,
	}, more...) {
		joinErr := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		if joinErr != nil && group != unix.RTNLGRP_NEXTHOP {
			err = errors.Join(err, joinErr) // before Linux 5.3 there are no nexthop objects
		}
	}
	if err == nil {
		s.conn, err = s.file.SyscallConn()
	}
	if err != nil {
		s.file.Close()
		return nil, fmt.Errorf("subscribe to the kernel's notifications: %w", err)
	}
	s.stop = context.AfterFunc(ctx, func() { s.file.Close() }) // which ends a blocked receive
	return s, nil
}

func (s *subscription) close() {
	if s.stop() {
		s.file.Close()
	}
}

// receive blocks until notifications arrive and returns them; they are valid until the next call.
func (s *subscription) receive() ([]byte, error) {
	var n int
	var err error
	waitErr := s.conn.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), s.buf)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err := errors.Join(waitErr, err); err != nil {
		return nil, err
	}
	return s.buf[:n], nil
}

// Watch receives the kernel's notifications until ctx ends, and calls wake whenever [Kernel.Observe] has something to
// do. It calls ready once, when the subscription is active: the first [Kernel.Read] belongs after that.
func (k *Kernel) Watch(ctx context.Context, ready, wake func()) error {
	var more []int
	if k.followPorts {
		more = append(more, unix.RTNLGRP_TC)
	}
	s, err := subscribe(ctx, more...)
	if err != nil {
		return err
	}
	defer func() { s.close() }()
	ready()
	var from senders
	for {
		messages, err := s.receive()
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			by := ""
			if len(messages) >= unix.SizeofNlMsghdr { // a datagram usually has one notification
				by = from.of(binary.NativeEndian.Uint32(messages[12:]))
			}
			k.enqueue(func() { k.inbox.add(messages, by) })
		case errors.Is(err, unix.ENOBUFS):
			// The kernel queues nothing more on a socket that overran until its queue has been received, and reports
			// that only once (netlink_overrun in net/netlink/af_netlink.c): changes between a full resync and that
			// moment would be missed forever. A new socket gets everything from now on; the resync supersedes the old
			// one's queue.
			fresh, err := subscribe(ctx, more...)
			if err != nil {
				return err
			}
			s.close()
			s = fresh
			k.enqueue(func() { k.inbox, k.lost = inbox{}, true; k.overruns++ })
		case errors.Is(err, unix.EINTR):
			continue
		default:
			return fmt.Errorf("receive the kernel's notifications: %w", err)
		}
		wake()
	}
}

func (k *Kernel) enqueue(add func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	add()
	if k.inbox.size > inboxLimit {
		k.inbox, k.lost = inbox{}, true
		k.overruns++
	}
}

// Prepare reads only the names of devices: it replaces [Kernel.Observe] while no owner wants anything. The next Observe
// is a full resync.
func (k *Kernel) Prepare() error {
	k.enqueue(func() { k.inbox, k.lost = inbox{}, true })
	return repeated(k.readLinks)
}

// Observe takes the notifications since the last call into the tables. Where they are incomplete, because some were
// lost or the kernel does not notify, it reads again what may have changed.
func (k *Kernel) Observe() error {
	reread := k.takeIn() || k.overlayStale
	var err error
	switch {
	case reread:
		err = k.Read()
		k.routingStale = true
	case len(k.suspects) > 0:
		err = k.readSuspects()
	}
	if err == nil && !reread {
		err = k.readUnfinished()
	}
	if err == nil && !reread {
		err = k.readForeign()
	}
	if err == nil {
		err = k.readAgain()
	}
	if k.wireGuards.stale {
		_ = k.ReadWireGuard() // an error is found again at the next of the times at which it is read
	}
	clear(k.suspects)
	clear(k.unfinished)
	k.foreign.clear()
	if err != nil {
		k.RequestResync() // try again
	}
	return err
}

// Drain is [Kernel.Observe] without reading anything: the next Observe reads.
func (k *Kernel) Drain() {
	if k.takeIn() {
		k.RequestResync()
	}
}

// takeIn takes the queued notifications into the tables, and reports whether a full resync is needed.
func (k *Kernel) takeIn() (reread bool) {
	k.mu.Lock()
	arrived, reread := k.inbox, k.lost
	k.inbox, k.lost = inbox{}, false
	k.mu.Unlock()
	arrived.each(func(m message, by string) {
		k.tables.Attribute(by)
		if k.observe(m) {
			reread = true
		}
	})
	k.tables.Attribute("")
	k.loseRoutes()
	k.readStaleSettings()
	return reread
}
