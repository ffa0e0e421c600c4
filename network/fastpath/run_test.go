package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// rig runs programs on single packets, by BPF_PROG_TEST_RUN: on the loopback interface, whose MAC address is zero.
type rig struct {
	testing.TB
	*Path
	configs [ways]Config
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
	r := &rig{TB: t, Path: p, configs: [ways]Config{{
		Local: ipv4.node(1), Port: 8472, VNI: 0x123456, Device: 7, MTU: 1450,
		MAC: [6]byte{2, 1, 1, 1, 1, 1}, Life: time.Hour,
	}, {
		Local: ipv6.node(1), Port: 8472, VNI: 0x654321, Device: 8, MTU: 1430,
		MAC: [6]byte{2, 6, 6, 6, 6, 6}, Life: time.Hour,
	}, {
		Direct: true, Device: loopback, MTU: 1500, Life: time.Hour,
	}}}
	r.must(p.Configure(r.configs[:]...))
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

// header is what entries of the rig carry, for a frame.
func (r *rig) header(c Config, frame []byte) []byte {
	o := outer{
		source: [6]byte{2, 2, 2, 2, 2, 2}, destination: [6]byte{2, 3, 3, 3, 3, 3}, tos: 0x20, vni: c.VNI,
		from: c.Local, to: peerOf(c),
	}
	if c.Direct {
		return append(append(o.destination[:], o.source[:]...), frame[12:14]...)
	}
	inner := append(append([]byte{2, 4, 4, 4, 4, 4}, c.MAC[:]...), frame[12:14]...)
	return o.bytes(inner)
}

// wire is a frame as it arrives.
func (r *rig) wire(c Config, frame []byte) []byte {
	if c.Direct {
		return append(make([]byte, 6), frame[6:]...)
	}
	o := outer{from: peerOf(c), to: c.Local, vni: c.VNI}
	return o.bytes(append(append(c.MAC[:], 2, 4, 4, 4, 4, 4), frame[12:]...))
}

// peerOf is whom the rig's packets come from.
func peerOf(c Config) netip.Addr { return c.Local.Next() }

// onesComplement adds up 32-bit words.
func onesComplement(words ...uint32) (sum uint32) {
	for _, w := range words {
		n := uint64(sum) + uint64(w)
		sum = uint32(n) + uint32(n>>32)
	}
	return sum
}

// tupleOf reads addresses and ports at an offset, wherever a program would.
func tupleOf(frame []byte) (t programsTuple, ok bool) {
	ip := frame[14:]
	var ports []byte
	switch {
	case frame[12] == 0x08 && len(ip) >= 24:
		source, _ := netip.AddrFromSlice(ip[12:16])
		destination, _ := netip.AddrFromSlice(ip[16:20])
		t = programsTuple{Source: wire(source), Destination: wire(destination), Protocol: ip[9], Version: 4}
		ports = ip[20:]
	case frame[12] == 0x86 && len(ip) >= 44:
		t = programsTuple{
			Source:      wire(netip.AddrFrom16([16]byte(ip[8:]))),
			Destination: wire(netip.AddrFrom16([16]byte(ip[24:]))), Protocol: ip[6], Version: 6,
		}
		ports = ip[40:]
	default:
		return t, false
	}
	t.SourcePort, t.DestinationPort = binary.NativeEndian.Uint16(ports), binary.NativeEndian.Uint16(ports[2:])
	return t, true
}

// keyOf is the key under which a tuple's entry is.
func keyOf(t programsTuple) programsKey {
	digest := func(a [2]uint64) uint32 {
		return uint32(bits.ReverseBytes64(a[0])*0x9e3779b97f4a7c15>>32) ^ uint32(a[1]>>32) ^ uint32(a[1])
	}
	rest := uint64(t.SourcePort) | uint64(t.DestinationPort)<<16 | uint64(t.Protocol)<<32 | uint64(t.Version)<<40
	return programsKey{Source: digest(t.Source), Destination: digest(t.Destination), Rest: rest}
}

// words are those of both addresses.
func (t programsTuple) words() (words [8]uint32) {
	for i, w := range append(t.Source[:], t.Destination[:]...) {
		words[2*i], words[2*i+1] = uint32(w), uint32(w>>32)
	}
	return words
}

// learn makes both entries for a connection, as the programs do.
func (r *rig) learn(c Config, before, after programsTuple, class uint32, frame []byte) {
	r.Helper()
	var sent programsSent
	now, err := monotonic()
	r.must(err)
	of := &sent.Of
	of.Before, of.After, of.Until, of.Generation = before, after, now+uint64(time.Hour), r.control[0].Generation
	of.Port, of.Class, of.Way = loopback, class, uint8(c.way())
	if before != after {
		of.Translated = 1
	}
	from, to := before.words(), after.words()
	for i := range from {
		of.AddressSum = onesComplement(of.AddressSum, to[i], ^from[i])
	}
	of.PortSum = uint32(after.SourcePort) + uint32(^before.SourcePort) +
		uint32(after.DestinationPort) + uint32(^before.DestinationPort)
	copy(of.Frame.Destination[:], frame)
	copy(of.Frame.Source[:], frame[6:])
	of.Frame.Type = binary.NativeEndian.Uint16(frame[12:])
	var received programsReceived
	received.Of, received.Peer = sent.Of, wire(peerOf(c))

	h := r.header(c, frame)
	var summed []byte
	switch c.way() {
	case programsWayOVER_IPV6:
		clear(h[18:20]) // payload length
		clear(h[58:62]) // UDP length, checksum
		summed = h[22:]
		sent.Sum = uint32(asWire16(17))
	case programsWayOVER_IPV4:
		summed = h[14:34]
		clear(h[16:20]) // total length, identification
		clear(h[24:26]) // checksum
	}
	copy(sent.Header[:], h)
	sent.Uplink = loopback
	for i := 0; i < len(summed); i += 2 {
		sent.Sum += uint32(binary.NativeEndian.Uint16(summed[i:]))
	}
	r.must(r.objects.Sent.Put(keyOf(before), sent))
	r.must(r.objects.Received.Put(keyOf(before), received))
}

func (r *rig) unlearn(key programsTuple) {
	r.Helper()
	for _, m := range []*ebpf.Map{r.objects.Sent, r.objects.Received} {
		if err := m.Delete(keyOf(key)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			r.Fatal(err)
		}
	}
}

// parsed is what the programs read of a packet.
type parsed struct {
	why         Reason // it is slow; reasons: nothing is against the fast path
	ends        bool
	unprotected bool // UDP without a checksum
	ttl         byte
	class       uint32
}

// parse, judge and forwarded say what the programs do with a packet of a known connection.
func parse(ip []byte, v6 bool) (p parsed) {
	p.why = NotPlain
	var l4 []byte
	var protocol byte
	switch {
	case v6:
		if len(ip) < 48 || ip[0]>>4 != 6 || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
			return p
		}
		protocol, p.ttl, p.class, l4 = ip[6], ip[7], binary.BigEndian.Uint32(ip)&0xfffffff, ip[40:]
	case len(ip) < 28 || ip[0] != 0x45 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) ||
		binary.BigEndian.Uint16(ip[6:])&0xbfff != 0:
		return p
	default:
		protocol, p.ttl, p.class, l4 = ip[9], ip[8], uint32(ip[1])<<20, ip[20:]
	}
	switch protocol {
	case 17:
		if int(binary.BigEndian.Uint16(l4[4:])) != len(l4) {
			return p
		}
		p.unprotected = l4[6] == 0 && l4[7] == 0
	case 6:
		if len(l4) < 20 || l4[12]>>4 < 5 || int(l4[12]>>4)*4 > len(l4) {
			return p
		}
		p.ends = l4[13]&7 != 0
		if !p.ends && l4[13]&0x10 == 0 {
			return p
		}
	default:
		return p
	}
	p.why = Reason(reasons)
	return p
}

const ecnBits = 3 << 20 // in a class

// judge is the rest of what decides, by the entry's class.
func judge(ip []byte, v6 bool, c Config, class uint32, fast Reason) Reason {
	p := parse(ip, v6)
	switch {
	case int(p.why) < reasons && fast == Received && c.Direct:
		return Reason(reasons) // nothing says that it is a pod's
	case int(p.why) < reasons:
		return p.why
	case fast == Received && c.Local.Is6() && (p.unprotected || !consistent(ip)):
		return NotPlain
	case p.ends:
		return BeginEnd
	case p.ttl <= 1:
		return TTL
	case p.class&^ecnBits != class:
		return OtherFrame
	case len(ip) > c.MTU:
		return TooLong
	case fast == Sent && c.Local.Is6() && p.unprotected:
		return NotPlain
	}
	return fast
}

// forwarded is the packet as a router hands it on, without translation.
func forwarded(ip []byte) []byte {
	b := bytes.Clone(ip)
	if b[0]>>4 == 6 {
		b[7]--
		return b
	}
	b[8]--
	sum := uint32(binary.BigEndian.Uint16(b[10:])) + 0x100
	if sum >= 0xffff { // ip_decrease_ttl
		sum++
	}
	binary.BigEndian.PutUint16(b[10:], uint16(sum))
	return b
}
