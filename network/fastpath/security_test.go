package fastpath

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOtherPod: a pod that sends with another one's address neither uses the other's entry, nor makes one, nor ends it.
func TestOtherPod(t *testing.T) { eachFamily(t, testOtherPod) }

func testOtherPod(t *testing.T, l *lab) {
	f := l.flow(20004)
	f.warm()
	n := l.nodes[0]
	other := n.pods[1]
	forge := func(change func(*frame)) Reason {
		t.Helper()
		fr := f.frame(false)
		change(&fr)
		before := l.counters(n)
		other.tap.send(fr.bytes())
		var r Reason
		l.eventually("the forged packet is seen", func() bool {
			r = verdict(before, l.counters(n), false)
			return int(r) < reasons && r != NotPlain
		})
		return r
	}
	for _, forged := range []struct {
		name   string
		change func(*frame)
	}{
		{"from its own MAC address", func(fr *frame) { fr.source, fr.destination = other.mac, other.gate }},
		{"from the other's MAC address", func(*frame) {}},
	} {
		if got := forge(forged.change); got != OtherPort {
			t.Errorf("%s: %s, want %s", forged.name, got, OtherPort)
		}
	}
	// The bridge now believes that the other's MAC address is behind this port. That is the slow path's weakness, and
	// the next packet of the right pod ends it.
	f.warm()

	// Nor can it end the other's connection, as the other can.
	tcp := l.flow(20005).frame(false)
	tcp.protocol, tcp.flags = unix.IPPROTO_TCP, 0x11 // FIN, ACK
	key, _ := tupleOf(tcp.bytes())
	udp, _ := tupleOf(f.frame(false).bytes())
	var entry programsSent
	if err := n.path.objects.Sent.Lookup(keyOf(udp), &entry); err != nil {
		t.Fatal(err)
	}
	entry.Of.Before, entry.Of.After = key, key
	if err := n.path.objects.Sent.Put(keyOf(key), entry); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		by   *labPod
		want Reason
		left int
	}{{other, OtherPort, 2}, {n.pods[0], BeginEnd, 1}} {
		before := l.counters(n)
		end.by.tap.send(tcp.bytes())
		l.eventually("the end is seen", func() bool { return l.counters(n)[end.want] > before[end.want] })
		if left := l.entries(n); left != end.left {
			t.Errorf("after an end that is counted as %s, %d entries are left, want %d", end.want, left, end.left)
		}
	}
}

// TestNoEntryForOtherPod: before the connection is known, forged packets do not make an entry for the port that they
// came by: where a pod is, only packets to it show.
func TestNoEntryForOtherPod(t *testing.T) { eachFamily(t, testNoEntryForOtherPod) }

func testNoEntryForOtherPod(t *testing.T, l *lab) {
	f := l.flow(20006)
	n := l.nodes[0]
	l.stop(n) // conntrack gets to know the connection, the fast path does not
	f.pass(false, f.frame(false))
	f.pass(true, f.frame(true))
	l.start(n)
	fr := f.frame(false)
	fr.source, fr.destination = n.pods[1].mac, n.pods[1].gate
	before := l.counters(n)
	n.pods[1].tap.send(fr.bytes())
	f.to.tap.receive(fr.payload) // the slow path does not check
	after := l.counters(n)
	if after[NotLearnedPort] != before[NotLearnedPort]+1 || after[LearnedSent] != before[LearnedSent] {
		t.Errorf("not learned for want of a port: %d, learned: %d, want 1 and 0",
			after[NotLearnedPort]-before[NotLearnedPort], after[LearnedSent]-before[LearnedSent])
	}
	if got := l.entries(n); got != 0 {
		t.Errorf("there are %d entries, want none", got)
	}
}

// uplinkMACs are the MAC addresses of the nodes' uplinks.
func (l *lab) uplinkMACs() (macs [2][6]byte) {
	l.t.Helper()
	for i, n := range l.nodes {
		l.do(n, func() error { macs[i] = [6]byte(l.link("eth0").Attrs().HardwareAddr); return nil })
	}
	return macs
}

// TestOtherPeer: a packet is fast only from the node that has the sender's subnet, to this node's VXLAN device.
func TestOtherPeer(t *testing.T) { eachFamily(t, testOtherPeer) }

func testOtherPeer(t *testing.T, l *lab) {
	if l.underlay.direct {
		return // TestWays
	}
	f := l.flow(20007)
	a, b := l.nodes[0], l.nodes[1]
	macs := l.uplinkMACs()
	right := outer{source: macs[0], destination: macs[1], from: a.underlay, to: b.underlay, vni: 1}
	inner := func() frame {
		fr := f.frame(false)
		fr.source, fr.destination, fr.ttl = a.config.MAC, b.config.MAC, 63
		return fr
	}
	elsewhere := netip.AddrPortFrom(l.pods.podAddr(3, 2), 20007)
	wrong, none := uint16(0x1234), uint16(0)
	tests := []struct {
		name  string
		outer func(*outer)
		inner func(*frame)
		want  Reason
	}{
		{"the right one", func(*outer) {}, func(*frame) {}, Received},
		{"from another node", func(o *outer) { o.from = l.underlay.node(9) }, func(*frame) {}, OtherPeer},
		{"to another address", func(o *outer) { o.to = l.underlay.node(99) }, func(*frame) {}, OtherPeer},
		{"to another device", func(*outer) {}, func(f *frame) { f.destination[5]++ }, OtherPeer},
		{"another VNI", func(o *outer) { o.vni = 2 }, func(*frame) {}, Reason(reasons)},
		{"to another host", func(o *outer) { o.destination[5]++ }, func(*frame) {}, Reason(reasons)},
		{"congestion", func(o *outer) { o.tos = 3 }, func(f *frame) { f.tos = 2 }, Congestion},
		{"a wrong UDP checksum", func(o *outer) { o.sum = &wrong }, func(*frame) {}, NotPlain},
		{"of another subnet", func(*outer) {}, func(f *frame) { f.from = elsewhere }, Unknown},
	}
	if b.underlay.Is6() {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.outer, last.want = "no UDP checksum", func(o *outer) { o.sum = &none }, NotPlain
	}
	for _, tt := range tests {
		f.warm()
		o, in := right, inner()
		tt.outer(&o)
		tt.inner(&in)
		before := l.counters(b)
		a.wire.send(o.bytes(in.bytes()))
		f.pass(false, f.frame(false)) // the uplink keeps the order
		after := l.counters(b)
		after[Received]-- // of the latter
		if got := verdict(before, after, true); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestUnknownPeer: without a peer for the other's subnet, nothing becomes fast, nor with another header than the peer's.
func TestUnknownPeer(t *testing.T) { eachFamily(t, testUnknownPeer) }

func testUnknownPeer(t *testing.T, l *lab) {
	a, b := l.nodes[0], l.nodes[1]
	if err := a.path.DeletePeer(b.subnet); err != nil {
		t.Fatal(err)
	}
	f := l.flow(20008)
	check := func(what string, counted bool) {
		t.Helper()
		before := l.counters(a)
		for range 5 {
			f.pass(false, f.frame(false))
			f.pass(true, f.frame(true))
		}
		after := l.counters(a)
		if after[LearnedSent] != before[LearnedSent] || (after[NotLearnedPeer] > before[NotLearnedPeer]) != counted {
			t.Errorf("%s: %d packets are learned from, and %d not for want of a peer, want 0, and some: %t",
				what, after[LearnedSent]-before[LearnedSent], after[NotLearnedPeer]-before[NotLearnedPeer], counted)
		}
	}
	check("no peer", true)
	others := map[string]Peer{
		"a peer at another address": {Address: l.underlay.node(9), MAC: b.config.MAC},
		"a peer with another MAC":   {Address: b.underlay, MAC: [6]byte{2, 1}},
	}
	if l.underlay.direct {
		others = map[string]Peer{"a peer in the tunnel": {Address: b.underlay, MAC: b.config.MAC}}
	}
	for what, peer := range others {
		if err := a.path.SetPeer(b.subnet, peer); err != nil {
			t.Fatal(err)
		}
		check(what, true)
		if got := l.counters(a)[LearnedReceived]; l.underlay.direct && got > 0 {
			t.Errorf("%s: %d of its packets are learned from that come without a tunnel, want none", what, got)
		}
	}
	want := l.peer(b)
	if err := a.path.SetPeer(b.subnet, want); err != nil {
		t.Fatal(err)
	}
	peers := map[netip.Prefix]Peer{}
	err := a.path.EachPeer(func(subnet netip.Prefix, p Peer) { peers[subnet] = p })
	if err != nil || len(peers) != 1 || peers[b.subnet] != want {
		t.Errorf("read back %v, %v, want %v", peers, err, want)
	}
	f.warm()

	// Nor does a connection stay fast whose peer is reached another way by now.
	for what, peer := range others {
		if err := a.path.SetPeer(b.subnet, peer); err != nil {
			t.Fatal(err)
		}
		l.age(a)
		before := l.counters(a)
		f.pass(false, f.frame(false))
		after := l.counters(a)
		if after[LearnedSent] != before[LearnedSent] || after[NotLearnedPeer] == before[NotLearnedPeer] {
			t.Errorf("%s, of a connection that was fast: a packet is learned from", what)
		}
	}
}

// TestForgedHeaders: a pod that makes a VXLAN packet itself, which leaves the node with the node's address, does not
// have the programs learn from it.
func TestForgedHeaders(t *testing.T) { eachFamily(t, testForgedHeaders) }

func testForgedHeaders(t *testing.T, l *lab) {
	if l.nodes[0].underlay.Is4() != l.service.Is4() {
		return // a pod cannot send to the underlay
	}
	f := l.flow(20009)
	f.warm()
	a, b := l.nodes[0], l.nodes[1]
	inner := f.frame(false)
	inner.source, inner.destination, inner.ttl = a.config.MAC, b.config.MAC, 63
	o := outer{from: a.underlay, to: b.underlay, vni: 1}
	forged := frame{
		source: f.from.mac, destination: f.from.gate, noSum: b.underlay.Is4(),
		payload: o.bytes(inner.bytes())[vxlanLength(b.underlay)-22:],
		from:    netip.AddrPortFrom(f.from.addr, 40000), to: netip.AddrPortFrom(b.underlay, 8472),
	}
	before := l.counters(a)
	f.from.tap.send(forged.bytes())
	f.to.tap.receive(inner.payload) // without a VTEP filter it comes through
	if after := l.counters(a); after[LearnedSent] != before[LearnedSent] {
		t.Error("a forged header was learned")
	}
}
