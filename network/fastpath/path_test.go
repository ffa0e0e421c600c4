package fastpath

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
)

// flow is a connection by UDP between two pods, as the first one sees it. Every packet carries another text.
type flow struct {
	l        *lab
	from, to *labPod
	nodes    [2]*labNode // of from and to
	ports    [2]uint16
	service  netip.AddrPort // what the first one sends to, if it is not the other one
	sent     int
}

// flow is one between the first pods of both nodes.
func (l *lab) flow(port uint16) *flow {
	a, b := l.nodes[0], l.nodes[1]
	return &flow{l: l, from: a.pods[0], to: b.pods[0], nodes: [2]*labNode{a, b}, ports: [2]uint16{port, 53}}
}

// frame is the next one, there or back.
func (f *flow) frame(back bool) frame {
	from, to, ports := f.from, f.to, f.ports
	if back {
		from, to, ports = to, from, [2]uint16{ports[1], ports[0]}
	}
	f.sent++
	fr := frame{
		source: from.mac, destination: from.gate, label: 0x12345,
		payload: fmt.Appendf(nil, "packet %d from port %d.", f.sent, f.ports[0]),
		from:    netip.AddrPortFrom(from.addr, ports[0]), to: netip.AddrPortFrom(to.addr, ports[1]),
	}
	if f.service.IsValid() && !back {
		fr.to = f.service
	}
	return fr
}

// pass sends a frame and returns it as it arrives.
func (f *flow) pass(back bool, fr frame) []byte {
	f.l.t.Helper()
	from, to := f.from, f.to
	if back {
		from, to = to, from
	}
	from.tap.send(fr.bytes())
	return to.tap.receive(fr.payload)
}

// path is what the programs did with a packet at the node that sends it, and at the one that receives it.
type path [2]Reason

// through sends a frame and says how it went.
func (f *flow) through(back bool, fr frame) (p path, arrived []byte) {
	f.l.t.Helper()
	nodes := f.nodes
	if back {
		nodes = [2]*labNode{nodes[1], nodes[0]}
	}
	before := [2]Counters{f.l.counters(nodes[0]), f.l.counters(nodes[1])}
	arrived = f.pass(back, fr)
	for i, n := range nodes {
		p[i] = verdict(before[i], f.l.counters(n), i == 1)
	}
	if f.l.underlay.direct && p[1] == NotPlain { // from_wire does not count it
		p[1] = Reason(reasons)
	}
	return p, arrived
}

// verdict is the one of from_pod or from_wire by which counters have grown. A pod with IPv6 sends more than the test's
// packets: neighbour discovery, which is counted as not plain.
func verdict(before, after Counters, received bool) Reason {
	found := Reason(reasons)
	for r := Sent; r <= NoRoom; r++ {
		if after[r] > before[r] && !(received && r == Sent) {
			if found = r; r != NotPlain {
				break
			}
		}
	}
	return found
}

// warm sends packets in both directions until both are fast at both nodes.
func (f *flow) warm() {
	f.l.t.Helper()
	var last [2]path
	for range 1000 {
		for i, back := range []bool{false, true} {
			last[i], _ = f.through(back, f.frame(back))
		}
		if fast := (path{Sent, Received}); last[0] == fast && last[1] == fast {
			return
		}
	}
	for i, n := range f.l.nodes {
		for r, v := range f.l.counters(n) {
			if v > 0 {
				f.l.t.Logf("node %d: %s %d", i+1, Reason(r), v)
			}
		}
	}
	f.l.t.Fatalf("the flow does not become fast: at last %v", last)
}

// expect sends a frame and checks how it goes.
func (f *flow) expect(want path, what string) {
	f.l.t.Helper()
	if got, _ := f.through(false, f.frame(false)); got != want {
		f.l.t.Errorf("%s: a packet goes %v, want %v", what, got, want)
	}
}

// stop has a node leave all to the slow path, and start again.
func (l *lab) stop(nodes ...*labNode) {
	l.t.Helper()
	for _, n := range nodes {
		if err := n.path.Beat(0); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) start(nodes ...*labNode) {
	l.t.Helper()
	for _, n := range nodes {
		if err := n.path.Beat(patient); err != nil {
			l.t.Fatal(err)
		}
	}
}

// TestFastAsSlow: packets arrive on the wire and in the pod as by the slow path, bit for bit.
func TestFastAsSlow(t *testing.T) { eachFamily(t, testFastAsSlow) }

func testFastAsSlow(t *testing.T, l *lab) {
	tests := map[string]func(*frame){
		"plain":            func(*frame) {},
		"TTL 3":            func(f *frame) { f.ttl = 3 },
		"TTL 255":          func(f *frame) { f.ttl = 255 },
		"ECN 2":            func(f *frame) { f.tos = 2 },
		"ECN 1":            func(f *frame) { f.tos = 1 },
		"ECN 3":            func(f *frame) { f.tos = 3 },
		"DF":               func(f *frame) { f.fragment = 0x4000 },
		"an ID":            func(f *frame) { f.id = 0xfffe },
		"empty but a text": func(f *frame) { f.payload = f.payload[:len(f.payload)-1] },
		"the longest": func(f *frame) {
			f.payload = append(f.payload, make([]byte, l.nodes[0].config.MTU-ipLength(l.service)-8-len(f.payload))...)
		},
	}
	if l.nodes[0].underlay.Is4() || l.underlay.direct { // else nothing makes up for it in the outer checksum
		tests["without checksum"] = func(f *frame) { f.noSum = true }
	}
	direct, translated := l.flow(20000), l.flow(20010)
	translated.service = netip.AddrPortFrom(l.service, 53)
	translated.ports[1] = 5353
	for what, f := range map[string]*flow{"a pod": direct, "a service": translated} {
		for _, back := range []bool{false, true} {
			for name, change := range tests {
				f.compare(fmt.Sprintf("%s, %s, back: %t", what, name, back), back, change)
			}
		}
	}
}

// compare has a packet go by the fast path and by the slow one.
func (f *flow) compare(name string, back bool, change func(*frame)) {
	t, l, to := f.l.t, f.l, f.nodes[1]
	if back {
		to = f.nodes[0]
	}
	f.warm()
	fr := f.frame(back)
	change(&fr)
	to.wire.drain()
	p, fast := f.through(back, fr)
	if want := (path{Sent, Received}); p != want {
		t.Errorf("%s: it goes %v, want %v", name, p, want)
	}
	fastWire := to.wire.receive(fr.payload)
	l.stop(l.nodes[:]...)
	p, slow := f.through(back, fr)
	if want := (path{Stopped, Stopped}); p != want {
		t.Errorf("%s: it goes %v, want %v", name, p, want)
	}
	slowWire := to.wire.receive(fr.payload)
	l.start(l.nodes[:]...)
	if !bytes.Equal(fast, slow) {
		t.Errorf("%s: arrives as\n%x, by the slow path as\n%x", name, fast, slow)
	}
	if !l.underlay.direct {
		fastWire, slowWire = checkOuter(t, fastWire), checkOuter(t, slowWire)
	}
	if !bytes.Equal(fastWire, slowWire) {
		t.Errorf("%s: is on the wire as\n%x, by the slow path as\n%x", name, fastWire, slowWire)
	}
}

// checkOuter checks the checksum in the outer headers, and returns the frame without that and without the IPv4 header's
// identification, which differs from packet to packet.
func checkOuter(t testing.TB, frame []byte) []byte {
	t.Helper()
	b := bytes.Clone(frame)
	right := frame[12] == 8 && checksum(0, frame[14:34]) == 0 || frame[12] == 0x86 && consistent(frame[14:])
	if !right {
		t.Errorf("a wrong checksum in the outer headers: %x", frame)
	}
	if frame[12] == 8 {
		clear(b[18:20])
		clear(b[24:26])
	}
	return b
}

type slowTest struct {
	name   string
	change func(*frame)
	want   path
	lost   int // the node at which it ends, 1 or 2; 0: it arrives
}

// TestSlow: what the slow path has to see goes there, and arrives.
func TestSlow(t *testing.T) { eachFamily(t, testSlow) }

func testSlow(t *testing.T, l *lab) {
	f := l.flow(20001)
	notPlain := path{NotPlain, NotPlain}
	if l.underlay.direct { // such a packet could be anyone's
		notPlain[1] = Reason(reasons)
	}
	tests := []slowTest{
		{"IP options", func(f *frame) { f.options = []byte{1, 1, 1, 1} }, notPlain, 0},
		{"another DSCP", func(f *frame) { f.tos = 0xb8 }, path{OtherFrame, OtherFrame}, 0},
		{"from another MAC address", func(f *frame) { f.source[5]++ }, path{OtherFrame, Received}, 0},
		{"to another MAC address", func(fr *frame) { fr.destination = f.nodes[0].pods[1].mac }, path{OtherFrame}, 1},
		{"a first fragment", func(f *frame) { f.fragment = 0x2000 }, path{NotPlain}, 1}, // conntrack waits for the rest
		{"TTL 1", func(f *frame) { f.ttl = 1 }, path{TTL}, 1},
		{"TTL 2", func(f *frame) { f.ttl = 2 }, path{Sent, TTL}, 2},
	}
	if l.service.Is6() {
		tests = append(tests, slowTest{"another flow label", func(f *frame) { f.label++ }, path{OtherFrame, OtherFrame}, 0})
	}
	if l.nodes[0].underlay.Is6() && !l.underlay.direct {
		tests = append(tests, slowTest{"no checksum", func(f *frame) { f.noSum = true }, notPlain, 0})
	}
	for _, tt := range tests {
		f.warm()
		fr := f.frame(false)
		tt.change(&fr)
		if tt.lost > 0 {
			n, want := f.nodes[tt.lost-1], tt.want[tt.lost-1]
			before := l.counters(n)
			f.from.tap.send(fr.bytes())
			l.eventually(tt.name+" is seen", func() bool { return l.counters(n)[want] > before[want] })
			continue
		}
		if got, _ := f.through(false, fr); got != tt.want {
			t.Errorf("%s: goes %v, want %v", tt.name, got, tt.want)
		}
	}
	f.warm()
	mtu := f.nodes[0].config.MTU
	l.run(f.from, fmt.Sprintf("ping -c 1 -W 60 -M do -s %d %s", mtu-l.pods.icmp, f.to.addr))
	out := l.output(f.from, fmt.Sprintf("ping -c 1 -W 60 -M do -s %d %s", 1500-l.pods.icmp, f.to.addr))
	if !bytes.Contains(out, fmt.Append(nil, mtu)) {
		t.Errorf("a pod with MTU 1500 does not learn of %d: %s", mtu, out)
	}
}

// TestStale: an entry that is no longer in force is not used, and the next packet renews it.
func TestStale(t *testing.T) { eachFamily(t, testStale) }

func testStale(t *testing.T, l *lab) {
	f := l.flow(20002)
	a, b := l.nodes[0], l.nodes[1]

	f.warm()
	l.flush(a)
	f.expect(path{Flushed, Received}, "after a flush by the sender")
	f.warm()
	l.flush(b)
	f.expect(path{Sent, Flushed}, "after a flush by the receiver")

	f.warm()
	l.age(a)
	f.expect(path{Expired, Received}, "a second later at the sender")
	f.expect(path{Sent, Received}, "after it was renewed")
	l.age(b)
	f.expect(path{Sent, Expired}, "a second later at the receiver")
	f.expect(path{Sent, Received}, "after it was renewed")

	l.stop(a)
	f.expect(path{Stopped, Received}, "without a daemon at the sender")
	l.start(a)
	l.stop(b)
	f.expect(path{Sent, Stopped}, "without a daemon at the receiver")
	l.start(b)
	f.expect(path{Sent, Received}, "with both daemons")

	c := a.config
	c.Established++
	c.Established = c.Established.Truncate(1e9) / 2
	if err := a.path.Configure(c); err != nil {
		t.Fatal(err)
	}
	f.expect(path{Stopped, Received}, "after another configuration")
	l.start(a)
	f.expect(path{Flushed, Received}, "after a heartbeat")
	f.warm()
	if err := a.path.Configure(c); err != nil {
		t.Fatal(err)
	}
	f.expect(path{Sent, Received}, "after the same configuration")
}

// TestNothingLearnedAfterFlush: a packet that was on its way when the rules changed makes no entry.
func TestNothingLearnedAfterFlush(t *testing.T) { eachFamily(t, testNothingLearnedAfterFlush) }

func testNothingLearnedAfterFlush(t *testing.T, l *lab) {
	f := l.flow(20003)
	f.warm()
	n := l.nodes[0]
	n.path.mu.Lock()
	for i := range n.path.control {
		c := &n.path.control[i]
		c.Generation++
		c.LearnFrom = 1 << 63 // much later
		if err := n.path.objects.Control.Put(uint32(i), *c); err != nil {
			t.Error(err)
		}
	}
	n.path.mu.Unlock()
	before := l.counters(n)
	for range 5 {
		f.expect(path{Flushed, Received}, "before something may be learned")
	}
	after := l.counters(n)
	if after[NotLearnedFlush] < before[NotLearnedFlush]+5 || after[LearnedSent] != before[LearnedSent] {
		t.Errorf("%d packets are not learned from, and %d are, want 5 and 0",
			after[NotLearnedFlush]-before[NotLearnedFlush], after[LearnedSent]-before[LearnedSent])
	}
	l.flush(n)
	f.warm()
}

// TestOneWay: nothing is learned from packets that no host answers.
func TestOneWay(t *testing.T) { eachFamily(t, testOneWay) }

func testOneWay(t *testing.T, l *lab) {
	f := l.flow(20011)
	const packets = 5
	unknown := path{Unknown, Unknown}
	if l.underlay.direct {
		unknown[1] = Reason(reasons)
	}
	for range packets {
		f.expect(unknown, "without an answer")
	}
	for i, n := range l.nodes {
		c := l.counters(n)
		if c[LearnedSent]+c[LearnedReceived] > 0 || c[NotLearnedNotEstablished] != packets {
			t.Errorf("node %d learned from %d packets, and not from %d, want 0 and %d",
				i+1, c[LearnedSent]+c[LearnedReceived], c[NotLearnedNotEstablished], packets)
		}
	}
	f.warm()
}
