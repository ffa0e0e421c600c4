package fastpath

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestWays: what was learned from packets of one way is not used for packets that arrive by another. Peers may differ
// in how they send: while DirectRouting is switched, or where only one of two nodes has the other on its link.
func TestWays(t *testing.T) { eachFamily(t, testWays) }

func testWays(t *testing.T, l *lab) {
	f := l.flow(20030)
	a, b := l.nodes[0], l.nodes[1]
	both := [2]Config{b.config, b.config}
	l.do(b, func() error {
		for i, name := range []string{"flannel.1", "eth0"} {
			both[i].Device, both[i].Direct = l.link(name).Attrs().Index, name == "eth0"
		}
		return nil
	})
	if err := b.path.Configure(both[:]...); err != nil {
		t.Fatal(err)
	}
	if err := b.path.SetPeer(a.subnet, Peer{Address: a.underlay, MAC: a.config.MAC, Direct: true}); err != nil {
		t.Fatal(err)
	}
	l.start(b)
	l.settled(b)
	f.warm()
	macs := l.uplinkMACs()
	arrive := func(what string, want Reason, direct bool, change func(*frame)) {
		t.Helper()
		fr := f.frame(false)
		fr.ttl, fr.source, fr.destination = 63, macs[0], macs[1]
		if !direct {
			fr.source, fr.destination = a.config.MAC, b.config.MAC
		}
		change(&fr)
		in := fr.bytes()
		if !direct {
			o := outer{source: macs[0], destination: macs[1], from: a.underlay, to: b.underlay, vni: 1}
			in = o.bytes(in)
		}
		before := l.counters(b)
		a.wire.send(in)
		f.pass(false, f.frame(false)) // the uplink keeps the order
		after := l.counters(b)
		after[Received]-- // of the latter
		if got := verdict(before, after, true); got != want && (got != NotPlain || int(want) < reasons) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
		f.warm()
	}
	plain := func(*frame) {}
	fin := func(f *frame) { f.protocol, f.flags = unix.IPPROTO_TCP, 0x11 }
	arrive("as learned", Received, l.underlay.direct, plain)
	arrive("the other way", OtherPeer, !l.underlay.direct, plain)

	// The other way, nothing ends an entry, either.
	key, _ := tupleOf(f.frame(false).bytes())
	var entry programsReceived
	if err := b.path.objects.Received.Lookup(keyOf(key), &entry); err != nil {
		t.Fatal(err)
	}
	key.Protocol = unix.IPPROTO_TCP
	entry.Of.Before = key
	if err := b.path.objects.Received.Put(keyOf(key), entry); err != nil {
		t.Fatal(err)
	}
	arrive("an end the other way", OtherPeer, !l.underlay.direct, fin)
	arrive("an end", BeginEnd, l.underlay.direct, fin)
	if !l.underlay.direct {
		return
	}
	unknown := Reason(reasons)
	arrive("to another host", unknown, true, func(f *frame) { f.destination[5]++ })
	arrive("of another pod", unknown, true, func(fr *frame) { fr.from = l.flow(20031).frame(false).from })
	arrive("TTL 1", TTL, true, func(f *frame) { f.ttl = 1 })
	// The slow path does not check that, either: whoever is on the link can send with a pod's address.
	arrive("from another host on the link", Received, true, func(f *frame) { f.source[5]++ })

	// Nor is anything learned from a packet that a host on the link has this node send back.
	l.run(a, "echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter")
	fr := f.frame(false)
	fr.ttl, fr.tos, fr.source, fr.destination = 62, 0xb8, macs[1], macs[0]
	if l.service.Is6() {
		fr.label++
	}
	before := l.counters(a)[LearnedSent]
	b.wire.send(fr.bytes())
	f.to.tap.receive(fr.payload)
	if got := l.counters(a)[LearnedSent] - before; got != 0 {
		t.Errorf("%d packets are learned from that came in by the uplink, want none", got)
	}
	if got, _ := f.through(false, f.frame(false)); got[0] != Sent { // the other node has learned of another DSCP
		t.Errorf("afterwards a packet goes %s, want %s", got[0], Sent)
	}

	// Nor from one that leaves or arrives elsewhere than by the uplink.
	c := a.config
	c.Device = a.pods[1].port
	if err := a.path.Configure(c); err != nil {
		t.Fatal(err)
	}
	l.start(a)
	l.settled(a)
	grown := l.counted(a, func() {
		for range 3 {
			f.pass(false, f.frame(false))
			f.pass(true, f.frame(true))
		}
	})
	if n := grown[LearnedSent] + grown[LearnedReceived] + grown[NotLearnedPeer] + grown[NotLearnedPort]; n > 0 {
		t.Errorf("by another device than the uplink: %v, want nothing learned", grown)
	}
}

// TestEntryOfOtherWay: an entry of one way is used for packets of no other, also if all else is as for that.
func TestEntryOfOtherWay(t *testing.T) {
	if !loadable(t) {
		return
	}
	r := newRig(t)
	b := packets()["IPv4 UDP"]
	key, _ := tupleOf(b)
	for _, learned := range r.configs {
		for _, used := range r.configs {
			r.learn(learned, key, key, 0, b)
			var entry programsReceived
			r.must(r.objects.Received.Lookup(keyOf(key), &entry))
			entry.Peer = wire(peerOf(used))
			r.must(r.objects.Received.Put(keyOf(key), entry))
			want := OtherPeer
			if learned == used {
				want = Received
			}
			redirected, _, reason := r.run(r.objects.FromWire, r.wire(used, b))
			what := fmt.Sprintf("learned %d, arrived %d", learned.way(), used.way())
			r.compare(what, want, Received, reason, redirected)
		}
	}

	// Without a tunnel, at another device than the uplink.
	direct := r.configs[programsWayDIRECT]
	direct.Device++
	r.must(r.Configure(direct))
	r.must(r.Beat(patient))
	r.learn(direct, key, key, 0, b)
	if redirected, _, reason := r.run(r.objects.FromWire, r.wire(direct, b)); redirected || int(reason) < reasons {
		t.Errorf("at another device than the uplink: fast %t, counted as %s", redirected, reason)
	}

	// Behind the VXLAN device, packets of several segments.
	device := r.configs[0]
	device.Device = loopback
	r.must(r.Configure(device, r.configs[1]))
	r.must(r.Beat(patient))
	for _, learned := range r.configs {
		r.learn(learned, key, key, 0, b)
		skb := make([]byte, 192) // struct __sk_buff
		binary.NativeEndian.PutUint32(skb[176:], 100)
		out := make([]byte, len(b)+256)
		frame := append(make([]byte, 6), b[6:]...)
		verdict, err := r.objects.FromDevice.Run(&ebpf.RunOptions{Data: frame, DataOut: out, Context: skb})
		r.must(err)
		const redirect = 7
		if got, want := verdict == redirect, learned.way() == device.way(); got != want {
			t.Errorf("learned %d, arrived from the VXLAN device: fast %t, want %t", learned.way(), got, want)
		}
	}
}
