package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network"
)

type kind uint8

const (
	route kind = iota + 1
	neighbour
	fdb
)

// entry names what one peer needs one of: a route by its destination, a neighbour by its address, an FDB entry by the
// underlay address that it leads to.
type entry struct {
	kind kind
	addr netip.Addr
}

// wanted is what is waited for: an entry with that MAC address (none for a route), or none.
type wanted struct {
	mac  network.MAC
	gone bool
}

// listener keeps what a namespace's kernel tells of its tables, and when.
type listener struct {
	from notifications
	done chan struct{} // closed when run has ended

	mu       sync.Mutex
	have     map[entry]network.MAC
	waiting  map[entry]wanted
	complete chan time.Time
	messages map[uint16]int // by type
	lost     error
}

// listenBuffer holds the notifications of 20,000 leases, about a kilobyte each in the kernel's counting.
const listenBuffer = 256 << 20

// listen begins to listen in the namespace of the calling thread.
func listen() (*listener, error) {
	from, err := subscribe("the kernel", unix.NETLINK_ROUTE, listenBuffer, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, err
	}
	l := &listener{from: from, done: make(chan struct{}), have: map[entry]network.MAC{}, messages: map[uint16]int{}}
	return l, nil
}

// run receives until stop is closed.
func (l *listener) run(stop <-chan struct{}) {
	defer close(l.done)
	if err := l.from.receive(stop, l.take); err != nil {
		l.mu.Lock()
		l.lost = err
		l.mu.Unlock()
	}
}

// expect returns a channel on which the time comes at which all those entries were there, and those in gone were not.
func (l *listener) expect(there map[entry]network.MAC, gone ...entry) <-chan time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	complete := make(chan time.Time, 1)
	l.waiting, l.complete = map[entry]wanted{}, complete
	for e, mac := range there {
		l.wait(e, wanted{mac: mac})
	}
	for _, e := range gone {
		l.wait(e, wanted{gone: true})
	}
	l.tell(time.Now())
	return complete
}

func (l *listener) wait(e entry, w wanted) {
	mac, ok := l.have[e]
	if ok == w.gone || ok && mac != w.mac {
		l.waiting[e] = w
	}
}

func (l *listener) tell(now time.Time) {
	if l.complete != nil && len(l.waiting) == 0 {
		l.complete <- now
		l.complete = nil
	}
}

// missing says how many of the entries that are waited for are not right yet, and what has gone wrong with listening.
func (l *listener) missing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e, w := range l.waiting {
		return errors.Join(l.lost, fmt.Errorf("%d entries are not as expected, for example %v: want %+v", len(l.waiting), e, w))
	}
	return l.lost
}

// readEntries reads them all at once, for what may not have been told.
func readEntries(n *lab.Node) (map[entry]network.MAC, error) {
	l := &listener{have: map[entry]network.MAC{}, messages: map[uint16]int{}}
	err := n.Do(func() error {
		for _, x := range []struct {
			request, header int
			family          byte
		}{{unix.RTM_GETROUTE, unix.SizeofRtMsg, unix.AF_INET}, {unix.RTM_GETNEIGH, unix.SizeofNdMsg, unix.AF_INET}, {unix.RTM_GETNEIGH, unix.SizeofNdMsg, unix.AF_BRIDGE}} {
			all, err := dump(x.request, x.family, x.header)
			if err != nil {
				return err
			}
			for _, m := range all {
				l.message(uint16(x.request-2), m)
			}
		}
		return nil
	})
	return l.have, err
}

// count returns how many messages there were since the last call, by type, and forgets them.
func (l *listener) count() map[uint16]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.messages
	l.messages = map[uint16]int{}
	return all
}

// take takes in one datagram, of one or more messages.
func (l *listener) take(data []byte, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(data) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(data))
		if length < unix.SizeofNlMsghdr || length > len(data) {
			return
		}
		l.message(binary.NativeEndian.Uint16(data[4:]), data[unix.SizeofNlMsghdr:length])
		data = data[min(len(data), (length+3)&^3):]
	}
	l.tell(now)
}

func (l *listener) message(typ uint16, data []byte) {
	l.messages[typ]++
	var e entry
	var mac network.MAC
	switch typ {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		e.kind = route
		if len(data) < unix.SizeofRtMsg || data[4] != unix.RT_TABLE_MAIN {
			return
		}
		e.addr = address(attribute(data[unix.SizeofRtMsg:], unix.RTA_DST))
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if len(data) < unix.SizeofNdMsg {
			return
		}
		e.kind = neighbour
		if data[0] == unix.AF_BRIDGE {
			e.kind = fdb
		}
		e.addr = address(attribute(data[unix.SizeofNdMsg:], unix.NDA_DST))
		copy(mac[:], attribute(data[unix.SizeofNdMsg:], unix.NDA_LLADDR))
	default:
		return
	}
	switch typ {
	case unix.RTM_NEWROUTE, unix.RTM_NEWNEIGH:
		l.have[e] = mac
	case unix.RTM_DELNEIGH:
		// A changed MAC address makes another FDB entry before the one that leads to the same peer goes.
		if e.kind == fdb && l.have[e] != mac {
			return
		}
		delete(l.have, e)
	default:
		delete(l.have, e)
	}
	if w, ok := l.waiting[e]; ok {
		if mac, there := l.have[e]; there != w.gone && mac == w.mac {
			delete(l.waiting, e)
		}
	}
}

// attribute returns one attribute of a message's, or nil.
func attribute(data []byte, which uint16) []byte {
	for len(data) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(data))
		if length < unix.SizeofRtAttr || length > len(data) {
			return nil
		}
		if binary.NativeEndian.Uint16(data[2:]) == which {
			return data[unix.SizeofRtAttr:length]
		}
		data = data[min(len(data), (length+3)&^3):]
	}
	return nil
}

func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
