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
	// receiveBuffer is how many bytes of notifications the kernel keeps for us. The default overruns from our own bulk
	// changes alone.
	receiveBuffer = 8 << 20
	// inboxLimit bounds how many bytes of messages wait for the tables; past that a full read is cheaper. It is some 65,000.
	inboxLimit = 8 << 20
)

// subscription is a socket to which the kernel sends notifications; it is closed when its context ends.
type subscription struct {
	file *os.File
	conn syscall.RawConn
	buf  []byte
	stop func() bool
}

// subscribe makes a subscription to all that [Kernel.Watch] needs. One socket serves all groups, so that the order of
// events holds.
func subscribe(ctx context.Context) (*subscription, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to the kernel's notifications: %w", err)
	}
	s := &subscription{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, receiveSize)}
	// To go beyond net.core.rmem_max takes CAP_NET_ADMIN in the initial user namespace.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
		unix.RTNLGRP_NEXTHOP,
	} {
		if joinErr := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); joinErr != nil && group != unix.RTNLGRP_NEXTHOP {
			err = errors.Join(err, joinErr) // without nexthop objects (before Linux 5.3) nothing is told of them either
		}
	}
	if err == nil {
		s.conn, err = s.file.SyscallConn()
	}
	if err != nil {
		s.file.Close()
		return nil, fmt.Errorf("subscribe to the kernel's notifications: %w", err)
	}
	s.stop = context.AfterFunc(ctx, func() { s.file.Close() }) // which ends a receive that waits
	return s, nil
}

func (s *subscription) close() {
	if s.stop() {
		s.file.Close()
	}
}

// receive waits for notifications and returns them; they are valid until the next call.
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

// Watch receives the kernel's notifications until ctx ends, and calls wake whenever there is something for
// [Kernel.Observe]. ready is called once, when from then on nothing is missed: a first [Kernel.Read] belongs after it.
func (k *Kernel) Watch(ctx context.Context, ready, wake func()) error {
	s, err := subscribe(ctx)
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
			if len(messages) >= unix.SizeofNlMsghdr { // as a rule a notification is alone
				by = from.of(binary.NativeEndian.Uint32(messages[12:]))
			}
			k.enqueue(func() { k.inbox.add(messages, by) })
		case errors.Is(err, unix.ENOBUFS):
			// A socket that overran gets nothing more until all that is in it has been received, and says so only once
			// (netlink_overrun in net/netlink/af_netlink.c): what happened between a full read and that moment would be
			// missed for good. A new one gets everything from now on; what is in the old one is overtaken by the read.
			fresh, err := subscribe(ctx)
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

// Prepare learns which devices there are, and no more: it stands for [Kernel.Observe] as long as nothing is wanted. After it
// everything is to be read.
func (k *Kernel) Prepare() error {
	k.enqueue(func() { k.inbox, k.lost = inbox{}, true })
	return repeated(k.readLinks)
}

// Observe takes what was notified since the last call into the tables. If the notifications do not say all, because
// some were lost or because the kernel never tells, it reads again what may have changed.
func (k *Kernel) Observe() error {
	reread := k.takeIn() || k.overlayStale
	var err error
	switch {
	case reread:
		err = k.Read()
	case len(k.suspects) > 0:
		err = k.readSuspects()
	}
	clear(k.suspects)
	if err != nil {
		k.RequestResync() // still to be done
	}
	return err
}

// Drain is [Kernel.Observe] without what it may have to read: that is left to the next one.
func (k *Kernel) Drain() {
	if k.takeIn() {
		k.RequestResync()
	}
}

// takeIn takes the notifications that wait into the tables, and reports whether everything is to be read again.
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
	return reread
}
