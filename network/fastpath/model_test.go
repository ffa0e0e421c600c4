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
	epochs  [][]decisions // what may be in force; the last one is now. It begins anew with each change
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
		to = netip.MustParseAddrPort(service + ":53")
	}
	for long := false; !m.end.Load(); {
		fr := frame{source: from.mac, destination: from.gate, from: netip.AddrPortFrom(from.addr, port), to: to}
		fr.payload, fr.fragment = m.number(), 0x4000 // DF
		if long = !long; long {
			fr.payload = append(fr.payload, make([]byte, 1400-28-len(fr.payload))...)
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
		if err != nil || n < 42 || buffer[23] != unix.IPPROTO_UDP || ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue // the time of a look is over, or it is one's own, or ICMP that quotes one
		}
		if at := bytes.Index(buffer[:n], []byte(text)); at >= 0 && at+len(text)+4 <= n {
			f(buffer[:n], buffer[at:at+len(text)+4])
		}
	}
}

// ends are the addresses and ports of an IPv4 packet with UDP that begins at an offset.
func ends(b []byte, at int) (from, to netip.AddrPort) {
	port := func(i int) uint16 { return binary.BigEndian.Uint16(b[at+i:]) }
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[at+12:])), port(20)),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[at+16:])), port(22))
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
		return !d.denied[0] && !d.denied[1] && i == d.holder && from.Addr() == source && b[22] == 62
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
	const inner = 14 + 20 + 8 + 8
	_, outside := ends(b, 14)
	_, to := ends(b, inner+14)
	mac, length := b[inner+5], int(binary.BigEndian.Uint16(b[inner+16:]))
	m.judge(fmt.Sprintf("leaves node 1 for %s and the VXLAN device %x, to %s, %d bytes", outside.Addr(), mac, to,
		length), payload,
		func(d decisions) bool {
			return !d.away && outside.Addr() == d.peer && mac == d.mac && length <= d.mtu &&
				(to.Port() == 5353 || !d.denied[0])
		})
}

// back judges an answer that has arrived in the pod that sends: it comes from where that sends to.
func (m *model) back(b, payload []byte) {
	from, to := ends(b, 14)
	right := from == netip.AddrPortFrom(m.nodes[1].pods[0].addr, 53) && to.Port() == directPort ||
		from == netip.MustParseAddrPort(service+":53") && to.Port() == servicePort
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
	walk(t, rand.Uint64())
}
