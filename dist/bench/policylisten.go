package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ruleListener receives nf_tables' notifications in a namespace, and notes when one of them says what is waited for.
// The kernel sends them when it has committed a transaction (nf_tables_commit in net/netfilter/nf_tables_api.c): from
// then on packets are judged by it.
type ruleListener struct {
	fd   int
	done chan struct{} // closed when run has ended

	mu    sync.Mutex
	types []uint16 // that are waited for; NFT_MSG_…
	with  []byte   // what the message has to contain
	heard chan time.Time
	lost  error
}

// listenToRules begins to listen in the namespace of the calling thread.
func listenToRules() (*ruleListener, error) {
	const buffer = 64 << 20
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	if errors.Is(err, unix.EPERM) { // in a user namespace
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	err = errors.Join(err, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES),
		// So that run sees its end.
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to nf_tables: %w", err)
	}
	return &ruleListener{fd: fd, done: make(chan struct{})}, nil
}

// run receives until stop is closed.
func (l *ruleListener) run(stop <-chan struct{}) {
	defer close(l.done)
	defer unix.Close(l.fd)
	buf := make([]byte, 1<<20)
	for {
		n, _, err := unix.Recvfrom(l.fd, buf, 0)
		now := time.Now()
		switch {
		case err == nil:
			l.take(buf[:n], now)
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			select {
			case <-stop:
				return
			default:
			}
		default:
			l.mu.Lock()
			l.lost = fmt.Errorf("listen to nf_tables: %w", err)
			l.mu.Unlock()
			return
		}
	}
}

// expect returns a channel on which the time comes at which a message of one of those types contains these bytes.
func (l *ruleListener) expect(with []byte, types ...uint16) <-chan time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.types, l.with, l.heard = types, with, make(chan time.Time, 1)
	return l.heard
}

// take looks through messages that were received together.
func (l *ruleListener) take(b []byte, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return
		}
		kind := binary.NativeEndian.Uint16(b[4:])
		message := b[unix.SizeofNlMsghdr:length]
		b = b[min(len(b), (length+3)&^3):]
		if l.heard == nil || kind>>8 != unix.NFNL_SUBSYS_NFTABLES || !bytes.Contains(message, l.with) {
			continue
		}
		for _, t := range l.types {
			if kind&0xff == t {
				l.heard <- now
				l.heard = nil
				break
			}
		}
	}
}

// missing says what is waited for.
func (l *ruleListener) missing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.lost, fmt.Errorf("nf_tables has reported no message of the types %v with %q", l.types, l.with))
}
