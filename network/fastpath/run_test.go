package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// rig runs programs on single packets, by BPF_PROG_TEST_RUN: on the loopback interface, whose MAC address is zero.
type rig struct {
	testing.TB
	*Path
	config Config
}

const loopback = 1 // ifindex, in every namespace

func newRig(t testing.TB) *rig {
	t.Helper()
	p, err := Open(Options{Flows: 128})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{TB: t, Path: p, config: Config{
		Local: netip.MustParseAddr("192.0.2.1"), Port: 8472, VNI: 0x123456, Device: 7, MTU: 1450,
		MAC: [6]byte{2, 1, 1, 1, 1, 1}, Life: time.Hour,
	}}
	r.must(p.Configure(r.config))
	r.must(p.Beat(time.Hour))
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// run gives a program a packet. reason is how it was counted.
func (r *rig) run(program *ebpf.Program, in []byte) (redirected bool, out []byte, reason Reason) {
	r.Helper()
	before := r.counters()
	options := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+256)}
	verdict, err := program.Run(options)
	r.must(err)
	after := r.counters()
	reason = Reason(reasons)
	for i := range after {
		if n := after[i] - before[i]; n > 1 || n == 1 && int(reason) < reasons {
			r.Fatalf("%x is counted as %s and %s", in, reason, Reason(i))
		} else if n == 1 {
			reason = Reason(i)
		}
	}
	const next, redirect = 1<<32 - 1, 7
	if verdict != next && verdict != redirect {
		r.Fatalf("%x has the verdict %d", in, verdict)
	}
	return verdict == redirect, options.DataOut, reason
}

func (r *rig) counters() Counters {
	r.Helper()
	c, err := r.Counters()
	r.must(err)
	return c
}

// The headers that entries of the rig carry.
func (r *rig) header() []byte {
	o := outer{
		source: [6]byte{2, 2, 2, 2, 2, 2}, destination: [6]byte{2, 3, 3, 3, 3, 3}, tos: 0x20, vni: r.config.VNI,
		from: r.config.Local, to: netip.MustParseAddr("192.0.2.2"),
	}
	inner := append(append([]byte{2, 4, 4, 4, 4, 4}, r.config.MAC[:]...), 8, 0)
	return o.bytes(inner)
}

// peer is whom the rig's packets come from.
var peerAddress = netip.MustParseAddr("192.0.2.2")

// onesComplement adds up 32-bit words.
func onesComplement(words ...uint32) (sum uint32) {
	for _, w := range words {
		n := uint64(sum) + uint64(w)
		sum = uint32(n) + uint32(n>>32)
	}
	return sum
}

// tupleOf reads addresses and ports at an offset, wherever a program would.
func tupleOf(frame []byte, at int) (t programsTuple, ok bool) {
	if len(frame) < at+24 {
		return t, false
	}
	t.Source, t.Destination = binary.NativeEndian.Uint32(frame[at+12:]), binary.NativeEndian.Uint32(frame[at+16:])
	t.SourcePort = binary.NativeEndian.Uint16(frame[at+20:])
	t.DestinationPort = binary.NativeEndian.Uint16(frame[at+22:])
	t.Protocol = frame[at+9]
	return t, true
}

// learn makes both entries for a connection, as the programs do.
func (r *rig) learn(before, after programsTuple, dscp byte, frame []byte) {
	r.Helper()
	var sent programsSent
	now, err := monotonic()
	r.must(err)
	of := &sent.Of
	of.Before, of.After, of.Until, of.Generation = before, after, now+uint64(time.Hour), r.control.Generation
	of.Port, of.Dscp = loopback, dscp
	if before != after {
		of.Translated = 1
	}
	of.AddressSum = onesComplement(after.Source, ^before.Source, after.Destination, ^before.Destination)
	of.PortSum = uint32(after.SourcePort) + uint32(^before.SourcePort) +
		uint32(after.DestinationPort) + uint32(^before.DestinationPort)
	copy(of.Frame.Destination[:], frame)
	copy(of.Frame.Source[:], frame[6:])
	of.Frame.Type = asWire16(0x0800)
	var received programsReceived
	received.Of, received.Peer = sent.Of, wire32(peerAddress)

	h := r.header()
	clear(h[16:20]) // total length, identification
	clear(h[24:26]) // checksum
	copy(sent.Header[:], h)
	sent.Uplink = loopback
	for i := 14; i < 34; i += 2 {
		sent.Sum += uint32(binary.NativeEndian.Uint16(h[i:]))
	}
	r.must(r.objects.Sent.Put(before, sent))
	r.must(r.objects.Received.Put(before, received))
}

func (r *rig) unlearn(key programsTuple) {
	r.Helper()
	for _, m := range []*ebpf.Map{r.objects.Sent, r.objects.Received} {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			r.Fatal(err)
		}
	}
}

// parse, judge and forwarded say what the programs do with a packet of a known connection. parse says why an IPv4
// packet is slow.
func parse(ip []byte, mtu int) (why Reason, ends bool) {
	if len(ip) < 28 || ip[0] != 0x45 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) ||
		binary.BigEndian.Uint16(ip[6:])&0xbfff != 0 {
		return NotPlain, false
	}
	l4 := ip[20:]
	switch ip[9] {
	case 17:
		if int(binary.BigEndian.Uint16(l4[4:])) != len(l4) {
			return NotPlain, false
		}
	case 6:
		if len(l4) < 20 || l4[12]>>4 < 5 || int(l4[12]>>4)*4 > len(l4) {
			return NotPlain, false
		}
		ends = l4[13]&7 != 0
		if !ends && l4[13]&0x10 == 0 {
			return NotPlain, false
		}
	default:
		return NotPlain, false
	}
	if len(ip) > mtu {
		return TooLong, false
	}
	return Reason(reasons), ends
}

// judge is the rest of what decides, if the entry's DSCP is that of the packet or 0.
func judge(ip []byte, mtu int, dscp byte, fast Reason) Reason {
	why, ends := parse(ip, mtu)
	switch {
	case int(why) < reasons:
		return why
	case ends:
		return BeginEnd
	case ip[8] <= 1:
		return TTL
	case ip[1]&^3 != dscp:
		return OtherFrame
	}
	return fast
}

// forwarded is the packet as a router hands it on, without translation.
func forwarded(ip []byte) []byte {
	b := bytes.Clone(ip)
	b[8]--
	sum := uint32(binary.BigEndian.Uint16(b[10:])) + 0x100
	if sum >= 0xffff { // ip_decrease_ttl
		sum++
	}
	binary.BigEndian.PutUint16(b[10:], uint16(sum))
	return b
}
