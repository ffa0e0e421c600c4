package kernel

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is how many bytes of notifications the kernel keeps for us. The default overruns from our own bulk
	// changes alone.
	receiveBuffer = 8 << 20
	// queueLimit bounds how many messages wait for the tables; past that a full read is cheaper.
	queueLimit = 1 << 16
)

// subscription is a socket to which the kernel sends notifications; it is closed when its context ends.
type subscription struct {
	*nl.NetlinkSocket
	stop func() bool
}

// subscribe makes a subscription to all that [Kernel.Watch] needs. One socket serves all groups, so that the order of
// events holds.
func subscribe(ctx context.Context) (*subscription, error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
		unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("subscribe to the kernel's notifications: %w", err)
	}
	// To go beyond net.core.rmem_max takes CAP_NET_ADMIN in the initial user namespace.
	if err := socket.SetReceiveBufferSize(receiveBuffer, true); err != nil {
		_ = socket.SetReceiveBufferSize(receiveBuffer, false)
	}
	return &subscription{socket, context.AfterFunc(ctx, socket.Close)}, nil // Close ends a Receive that waits
}

func (s *subscription) close() {
	if s.stop() {
		s.Close()
	}
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
		messages, _, err := s.Receive()
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			by := ""
			if len(messages) > 0 { // as a rule a notification is alone
				by = from.of(messages[0].Header.Pid)
			}
			k.enqueue(func() {
				for _, m := range messages {
					k.queue = append(k.queue, message{typ: m.Header.Type, flags: m.Header.Flags, by: by, data: m.Data})
				}
			})
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
			k.enqueue(func() { k.queue, k.lost = nil, true; k.overruns++ })
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
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
	if len(k.queue) > queueLimit {
		k.queue, k.lost = nil, true
		k.overruns++
	}
}

// Observe takes what was notified since the last call into the tables. If the notifications do not say all, because
// some were lost or because the kernel never tells, it reads again what may have changed.
func (k *Kernel) Observe() error {
	k.mu.Lock()
	queue, reread := k.queue, k.lost || k.overlayStale
	k.queue, k.lost = nil, false
	k.mu.Unlock()
	for _, m := range queue {
		k.tables.ToldBy(m.by)
		if k.observe(m) {
			reread = true
		}
	}
	k.tables.ToldBy("")
	k.loseRoutes()
	var err error
	switch {
	case reread:
		err = k.Read()
	case len(k.suspects) > 0:
		err = k.readSuspects()
	}
	clear(k.suspects)
	if err != nil {
		k.Distrust() // still to be done
	}
	return err
}
