package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// decisions are what the slow path does with packets of the model's connections: the state of the model.
type decisions struct {
	denied   [2]bool    // by a rule of each node, on the way there
	endpoint int        // the pod of node 2 that the service leads to
	masked   bool       // the first connection has node 1's address on the way there
	holder   int        // the pod of node 2 that has the first one's address
	away     bool       // node 1 has no route to node 2's subnet
	peer     netip.Addr // node 2 on the underlay
	mac      byte       // the last byte of node 2's VXLAN device's address
	mtu      int        // of node 1's VXLAN device
	unknown  bool       // conntrack is being made to forget: answers on their way are not translated
}

// The connections of the model, by the number of the port that the first pod of node 1 sends from.
const (
	directPort  = 20100 // to the first pod of node 2
	servicePort = 20101 // to the service
)

// model sends packets of connections without pause, answers what arrives, and judges everything that arrives by what
// the slow path does at that moment.
type model struct {
	*lab
	mu      sync.Mutex    // of what follows
	epochs  [][]decisions // what may be in force; the last one is now. A change begins the list again
	sent    []int         // the epoch in which each packet was sent, by its number
	wrong   []string
	arrived [2]atomic.Uint64 // packets that arrived in a pod, by connection
	end     atomic.Bool
	running sync.WaitGroup
}

// text marks a packet of the model's, before its number.
const text = "model packet "

// now returns what is in force, if that is known.
func (m *model) now() decisions {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.epochs[len(m.epochs)-1])[0]
}

// may begins an epoch.
func (m *model) may(all ...decisions) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epochs = append(m.epochs, all)
}

// number returns the payload of the next packet, and notes when it is sent: not before.
func (m *model) number() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent = append(m.sent, len(m.epochs)-1)
	return binary.BigEndian.AppendUint32([]byte(text), uint32(len(m.sent)-1))
}

// judge checks a packet that has arrived: one of the decisions between its sending and now has to allow it.
func (m *model) judge(what string, payload []byte, allowed func(decisions) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := binary.BigEndian.Uint32(payload[len(text):])
	for _, epoch := range m.epochs[m.sent[n]:] {
		if slices.ContainsFunc(epoch, allowed) {
			return
		}
	}
	m.wrong = append(m.wrong, fmt.Sprintf("packet %d, sent in epoch %d of %d: %s; what was in force then: %+v", n,
		m.sent[n], len(m.epochs), what, m.epochs[m.sent[n]]))
}

// send sends packets of a connection until the end.
func (m *model) send(port uint16) {
	from := m.nodes[0].pods[0]
	to := netip.AddrPortFrom(m.nodes[1].pods[0].addr, 53)
	if port == servicePort {
		to = m.service()
	}
	for long := false; !m.end.Load(); {
		fr := frame{source: from.mac, destination: from.gate, from: netip.AddrPortFrom(from.addr, port), to: to}
		fr.payload, fr.fragment = m.number(), 0x4000 // DF
		if long = !long; long {
			fr.payload = append(fr.payload, make([]byte, 1400-m.pods.icmp-len(fr.payload))...)
		}
		if _, err := unix.Write(from.tap.fd, fr.bytes()); err != nil {
			m.fail("send: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (m *model) fail(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

// receive hands everything of the model's that arrives at a tap to a function, until the end.
func (m *model) receive(t *tap, f func(frame []byte, payload []byte)) {
	buffer := make([]byte, 1<<12)
	for !m.end.Load() {
		n, from, err := unix.Recvfrom(t.fd, buffer, 0)
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !isUDP(buffer[:n]) || ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue // the time of a look is over, or it is one's own, or ICMP that quotes one
		}
		if at := bytes.Index(buffer[:n], []byte(text)); at >= 0 && at+len(text)+4 <= n {
			f(buffer[:n], buffer[at:at+len(text)+4])
		}
	}
}

// header is where an IP header of the version that begins with a byte has its parts.
type header struct {
	size, protocol, ttl, source, address int // address is its length
}

func headerOf(first byte) header {
	if first>>4 == 4 {
		return header{size: 20, protocol: 9, ttl: 8, source: 12, address: 4}
	}
	return header{size: 40, protocol: 6, ttl: 7, source: 8, address: 16}
}

func isUDP(frame []byte) bool {
	if len(frame) < 14+20+8 {
		return false
	}
	h := headerOf(frame[14])
	return len(frame) >= 14+h.size+8 && frame[14+h.protocol] == unix.IPPROTO_UDP
}

// length is that of the IP packet that begins at an offset.
func length(b []byte, at int) int {
	if b[at]>>4 == 4 {
		return int(binary.BigEndian.Uint16(b[at+2:]))
	}
	return 40 + int(binary.BigEndian.Uint16(b[at+4:]))
}

// ends are the addresses and ports of an IP packet with UDP that begins at an offset.
func ends(b []byte, at int) (from, to netip.AddrPort) {
	h := headerOf(b[at])
	end := func(i int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(b[at+h.source+i*h.address:][:h.address])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[at+h.size+i*2:]))
	}
	return end(0), end(1)
}

// service is where the service's clients send to.
func (m *model) service() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(m.pods.service), 53)
}

// inPod judges and answers a packet that has arrived in a pod of node 2.
func (m *model) inPod(i int, b, payload []byte) {
	p := m.nodes[1].pods[i]
	from, to := ends(b, 14)
	allowed := func(d decisions) bool {
		source := m.nodes[0].pods[0].addr
		switch {
		case d.away:
			return false
		case to.Port() == 5353: // of the service
			holds := i == d.endpoint
			if d.endpoint == 0 {
				holds = i == d.holder
			}
			return holds && to.Addr() == m.nodes[1].pods[d.endpoint].addr && from.Addr() == source &&
				(from.Port() == servicePort || d.unknown)
		case d.masked:
			source = m.nodes[0].subnet.Addr()
		}
		return !d.denied[0] && !d.denied[1] && i == d.holder && from.Addr() == source && b[14+headerOf(b[14]).ttl] == 62
	}
	m.judge(fmt.Sprintf("arrives in pod %d, from %s to %s", i+1, from, to), payload, allowed)
	answer := frame{source: p.mac, destination: p.gate, from: to, to: from, payload: m.number()}
	if _, err := unix.Write(p.tap.fd, answer.bytes()); err != nil {
		m.fail("answer: %v", err)
	}
	if to.Port() == 5353 {
		m.arrived[1].Add(1)
	} else {
		m.arrived[0].Add(1)
	}
}

// onWire judges a packet that has arrived at node 2's uplink.
func (m *model) onWire(b, payload []byte) {
	inner := 14 + headerOf(b[14]).size + 8 + 8
	_, outside := ends(b, 14)
	_, to := ends(b, inner+14)
	mac, size := b[inner+5], length(b, inner+14)
	m.judge(fmt.Sprintf("leaves node 1 for %s and the VXLAN device %x, to %s, %d bytes", outside.Addr(), mac, to,
		size), payload,
		func(d decisions) bool {
			return !d.away && outside.Addr() == d.peer && mac == d.mac && size <= d.mtu &&
				(to.Port() == 5353 || !d.denied[0])
		})
}

// back judges an answer that has arrived in the pod that sends: it comes from where that sends to.
func (m *model) back(b, payload []byte) {
	from, to := ends(b, 14)
	right := from == netip.AddrPortFrom(m.nodes[1].pods[0].addr, 53) && to.Port() == directPort ||
		from == m.service() && to.Port() == servicePort
	m.judge(fmt.Sprintf("an answer arrives, from %s to %s", from, to), payload,
		func(d decisions) bool { return right || d.unknown })
}

// goesOn waits until packets of each connection arrive that are not denied, and are fast in both directions.
func (m *model) goesOn(what string) {
	m.t.Helper()
	d := m.now()
	if d.away {
		return
	}
	arrives := [2]bool{!d.denied[0] && !d.denied[1], true}
	const enough = 5
	before, was := [2]Counters{m.counters(m.nodes[0]), m.counters(m.nodes[1])}, [2]uint64{}
	for i := range m.arrived {
		was[i] = m.arrived[i].Load()
	}
	m.eventually(what+": packets arrive, and are fast", func() bool {
		for i := range m.arrived {
			if arrives[i] && m.arrived[i].Load() < was[i]+enough {
				return false
			}
		}
		for i, n := range m.nodes {
			c := m.counters(n)
			if c[Sent] < before[i][Sent]+enough || c[Received] < before[i][Received]+enough {
				return false
			}
		}
		return true
	})
}

// check fails the test if anything was wrong.
func (m *model) check(what string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wrong) > 0 {
		m.t.Fatalf("%s: %d packets are wrong, such as:\n%s", what, len(m.wrong), m.wrong[0])
	}
}

// TestChanges makes changes of all that decides about packets, under streams. What a packet meets is by no decision
// that ended before the last flush, nor by one that ended longer ago than an entry lives.
func TestChanges(t *testing.T) {
	if !loadable(t) {
		return
	}
	for name, family := range map[string]labFamily{"IPv4": ipv4, "IPv6": ipv6} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, family, family)
			for _, n := range l.nodes {
				l.open(n, "")
			}
			walk(l, rand.Uint64())
		})
	}
}
