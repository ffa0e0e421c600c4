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
	from notifications
	done chan struct{} // closed when run has ended

	mu    sync.Mutex
	types []uint16 // that are waited for; NFT_MSG_…
	with  []byte   // what the message has to contain
	heard chan time.Time
	lost  error
}

// listenToRules begins to listen in the namespace of the calling thread.
func listenToRules() (*ruleListener, error) {
	from, err := subscribe("nf_tables", unix.NETLINK_NETFILTER, 64<<20, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, err
	}
	return &ruleListener{from: from, done: make(chan struct{})}, nil
}

// run receives until stop is closed.
func (l *ruleListener) run(stop <-chan struct{}) {
	defer close(l.done)
	defer unix.Close(l.from.fd)
	if err := l.from.receive(stop, l.take); err != nil {
		l.mu.Lock()
		l.lost = err
		l.mu.Unlock()
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
