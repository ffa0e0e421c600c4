package fastpath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// packets are IPv4 packets of all sorts, in frames.
func packets() map[string][]byte {
	udp := frame{
		source: [6]byte{2, 9}, destination: [6]byte{2, 8}, payload: []byte("what it carries"),
		from: netip.MustParseAddrPort("10.5.1.2:20000"), to: netip.MustParseAddrPort("10.5.2.2:53"),
	}
	tcp := udp
	tcp.protocol = unix.IPPROTO_TCP
	with := func(f frame, change func(*frame)) []byte { change(&f); return f.bytes() }
	raw := func(f frame, change func([]byte)) []byte { b := f.bytes(); change(b); return b }
	return map[string][]byte{
		"UDP":                        udp.bytes(),
		"UDP without a checksum":     with(udp, func(f *frame) { f.noSum = true }),
		"UDP, empty":                 with(udp, func(f *frame) { f.payload = nil }),
		"UDP, odd":                   with(udp, func(f *frame) { f.payload = []byte("1") }),
		"UDP, the longest":           with(udp, func(f *frame) { f.payload = make([]byte, 1450-28) }),
		"UDP, too long":              with(udp, func(f *frame) { f.payload = make([]byte, 1451-28) }),
		"UDP, longer than it says":   raw(udp, func(b []byte) { b[39]++ }),
		"UDP, shorter than it says":  raw(udp, func(b []byte) { b[39]-- }),
		"UDP, TTL 1":                 with(udp, func(f *frame) { f.ttl = 1 }),
		"UDP, TTL 2":                 with(udp, func(f *frame) { f.ttl = 2 }),
		"UDP, ECN 1":                 with(udp, func(f *frame) { f.tos = 1 }),
		"UDP, ECN 3":                 with(udp, func(f *frame) { f.tos = 3 }),
		"UDP, DSCP 46 and ECN 2":     with(udp, func(f *frame) { f.tos = 46<<2 | 2 }),
		"UDP, DF":                    with(udp, func(f *frame) { f.fragment = 0x4000 }),
		"UDP, a first fragment":      with(udp, func(f *frame) { f.fragment = 0x2000 }),
		"UDP, a last fragment":       with(udp, func(f *frame) { f.fragment = 1 }),
		"UDP, the reserved bit":      with(udp, func(f *frame) { f.fragment = 0x8000 }),
		"UDP, IP options":            with(udp, func(f *frame) { f.options = []byte{1, 1, 1, 1} }),
		"UDP, padded":                append(udp.bytes(), 0),
		"UDP, cut":                   udp.bytes()[:50],
		"UDP, cut in its header":     udp.bytes()[:40],
		"IP version 6 in IPv4":       raw(udp, func(b []byte) { b[14] = 0x65 }),
		"IP checksum that wraps":     raw(udp, func(b []byte) { b[24], b[25] = 0xfe, 0xff }),
		"IP checksum that wraps, 2":  raw(udp, func(b []byte) { b[24], b[25] = 0xff, 0x00 }),
		"another protocol":           with(udp, func(f *frame) { f.protocol = unix.IPPROTO_SCTP }),
		"ARP":                        raw(udp, func(b []byte) { b[13] = 6 }),
		"IPv6":                       raw(udp, func(b []byte) { b[12], b[13] = 0x86, 0xdd }),
		"TCP":                        tcp.bytes(),
		"TCP, empty":                 with(tcp, func(f *frame) { f.payload = nil }),
		"TCP, SYN":                   with(tcp, func(f *frame) { f.flags = 2 }),
		"TCP, SYN and ACK":           with(tcp, func(f *frame) { f.flags = 0x12 }),
		"TCP, FIN and ACK":           with(tcp, func(f *frame) { f.flags = 0x11 }),
		"TCP, RST":                   with(tcp, func(f *frame) { f.flags = 4 }),
		"TCP, PSH and ACK":           with(tcp, func(f *frame) { f.flags = 0x18 }),
		"TCP, no flags":              raw(tcp, func(b []byte) { b[47] = 0 }),
		"TCP, a header too short":    raw(tcp, func(b []byte) { b[46] = 4 << 4 }),
		"TCP, a header too long":     raw(tcp, func(b []byte) { b[46] = 15 << 4 }),
		"TCP, options":               raw(tcp, func(b []byte) { b[46] = 6 << 4 }),
		"TCP, cut in its header":     raw(tcp, func(b []byte) { b[17] = 39 })[:14+39],
		"TCP of the length of UDP":   raw(tcp, func(b []byte) { b[17] = 28 })[:14+28],
		"nothing but an IPv4 header": raw(udp, func(b []byte) { b[17] = 20 })[:34],
	}
}

func TestPackets(t *testing.T) {
	if !loadable(t) {
		return
	}
	r := newRig(t)
	for name, b := range packets() {
		t.Run(name, func(t *testing.T) {
			r := &rig{TB: t, Path: r.Path, config: r.config}
			r.check(b)
		})
	}
}

// FuzzPacket gives packets to the programs, plain, with addresses and ports translated, and inside of VXLAN.
func FuzzPacket(f *testing.F) {
	for _, b := range packets() {
		f.Add(b)
	}
	if !loadable(f) {
		f.Fuzz(func(*testing.T, []byte) {})
		return
	}
	r := newRig(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 34 || len(b) > 3000 || b[12] == 0x86 && b[13] == 0xdd && len(b) < 54 {
			return // the kernel runs programs on no such packets
		}
		r := &rig{TB: t, Path: r.Path, config: r.config}
		r.check(b)
	})
}

// check runs the programs on a frame, and compares with what they are to do.
func (r *rig) check(frame []byte) {
	r.Helper()
	key, whole := tupleOf(frame, 14)
	isIPv4 := frame[12] == 8 && frame[13] == 0
	dscp := byte(0)
	if whole && frame[15]>>2 != 46 { // some other DSCP than the entry's
		dscp = frame[15] &^ 3
	}
	for _, translated := range []bool{false, true} {
		after := key
		if translated {
			after.Destination, after.DestinationPort = wire32(netip.MustParseAddr("10.5.2.77")), asWire16(4321)
		}
		if whole {
			r.learn(key, after, dscp, frame)
		}
		want := Reason(reasons)
		if isIPv4 {
			want = judge(frame[14:], r.config.MTU, dscp, Sent)
		}
		redirected, out, reason := r.run(r.objects.FromPod, frame)
		r.compare("from a pod", want, Sent, reason, redirected)
		if want != Sent {
			if !bytes.Equal(out, frame) {
				r.Errorf("a slow packet is changed:\n%x\nto\n%x", frame, out)
			}
		} else {
			r.checkSent(frame, out, translated)
		}

		if whole {
			r.learn(key, after, dscp, frame) // it may have been ended
		}
		o := outer{from: peerAddress, to: r.config.Local, vni: r.config.VNI}
		inner := append(append(r.config.MAC[:], 2, 4, 4, 4, 4, 4), frame[12:]...)
		in := o.bytes(inner)
		want = NotPlain
		if isIPv4 {
			want = judge(frame[14:], r.config.MTU, dscp, Received)
		}
		redirected, out, reason = r.run(r.objects.FromWire, in)
		r.compare("from the wire", want, Received, reason, redirected)
		if want != Received {
			if !bytes.Equal(out, in) {
				r.Errorf("a slow packet is changed:\n%x\nto\n%x", in, out)
			}
		} else {
			if !bytes.Equal(out[:14], frame[:14]) {
				r.Errorf("it has the Ethernet header %x, want %x", out[:14], frame[:14])
			}
			r.checkInner(frame[14:], out[14:], translated)
		}
		if whole {
			r.unlearn(key)
		}
	}
}

func (r *rig) compare(what string, want, fast, reason Reason, redirected bool) {
	r.Helper()
	if reason != want || redirected != (want == fast) {
		r.Errorf("%s it is counted as %s, fast: %t, want %s", what, reason, redirected, want)
	}
}

// checkSent checks a packet with its outer headers.
func (r *rig) checkSent(frame, out []byte, translated bool) {
	r.Helper()
	want := r.header()
	ip := want[14:]
	ip[1] &^= 3
	if ecn := frame[15] & 3; ecn == 3 {
		ip[1] |= 2
	} else {
		ip[1] |= ecn
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(frame)+36))
	binary.BigEndian.PutUint16(ip[24:], uint16(len(frame)+16))
	clear(ip[4:6])
	clear(ip[10:12])
	if got := checkOuter(r, out[:64]); !bytes.Equal(got, want) {
		r.Errorf("it has the headers\n%x, want\n%x", got, want)
	}
	r.checkInner(frame[14:], out[64:], translated)
}

// checkInner checks a packet that was forwarded.
func (r *rig) checkInner(before, after []byte, translated bool) {
	r.Helper()
	if !translated {
		if want := forwarded(before); !bytes.Equal(after, want) {
			r.Errorf("it is forwarded as\n%x, want\n%x", after, want)
		}
		return
	}
	want := bytes.Clone(before)
	want[8]--
	copy(want[16:], []byte{10, 5, 2, 77})
	binary.BigEndian.PutUint16(want[22:], 4321)
	at := 26
	if before[9] == unix.IPPROTO_TCP {
		at = 36
	}
	if (checksum(0, before[:20]) == 0) != (checksum(0, after[:20]) == 0) {
		r.Errorf("the IP header's checksum was right before or after translation:\n%x\n%x", before, after)
	}
	none := before[9] == unix.IPPROTO_UDP && before[at] == 0 && before[at+1] == 0
	if none && (after[at] != 0 || after[at+1] != 0) || !none && validL4(before) != validL4(after) {
		r.Errorf("the checksum was right before or after translation:\n%x\n%x", before, after)
	}
	for _, b := range [][]byte{want, after} {
		clear(b[10:12])
		clear(b[at : at+2])
	}
	if !bytes.Equal(after, want) {
		r.Errorf("it is translated to\n%x, want\n%x", after, want)
	}
}

// validL4 reports whether a packet's UDP or TCP checksum is right.
func validL4(ip []byte) bool {
	pseudo := append(bytes.Clone(ip[12:20]), 0, ip[9])
	return checksum(uint32(len(ip)-20)+uint32(^checksum(0, pseudo)), ip[20:]) == 0
}
