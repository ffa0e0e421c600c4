package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// packets are packets of all sorts, in frames.
func packets() map[string][]byte {
	all := map[string][]byte{}
	for version, f := range map[string]labFamily{"IPv4": ipv4, "IPv6": ipv6} {
		udp := frame{
			source: [6]byte{2, 9}, destination: [6]byte{2, 8}, payload: []byte("what it carries"), label: 0x54321,
			from: netip.AddrPortFrom(f.podAddr(1, 2), 20000), to: netip.AddrPortFrom(f.podAddr(2, 2), 53),
		}
		tcp := udp
		tcp.protocol = unix.IPPROTO_TCP
		h := ipLength(udp.from.Addr())
		length, total := 14+4, 0 // of the packet: where it is, and what it does not count
		if h == 20 {
			length, total = 14+2, 20
		}
		add := func(name string, b []byte) { all[version+" "+name] = b }
		with := func(name string, f frame, change func(*frame)) { change(&f); add(name, f.bytes()) }
		// raw changes a packet whose TCP or UDP part is from l4 on.
		raw := func(name string, f frame, change func(b, l4 []byte)) {
			b := f.bytes()
			change(b, b[14+h:])
			add(name, b)
		}
		cut := func(name string, f frame, to int) { // and says so
			b := f.bytes()[:14+h+to]
			binary.BigEndian.PutUint16(b[length:], uint16(to+total))
			add(name, b)
		}
		add("UDP", udp.bytes())
		with("UDP without a checksum", udp, func(f *frame) { f.noSum = true })
		with("UDP, empty", udp, func(f *frame) { f.payload = nil })
		with("UDP, odd", udp, func(f *frame) { f.payload = []byte("1") })
		for _, n := range []int{1430, 1431, 1450, 1451, 1500, 1501} {
			with(fmt.Sprintf("UDP of %d bytes", n), udp, func(f *frame) { f.payload = make([]byte, n-h-8) })
		}
		raw("UDP, longer than it says", udp, func(_, l4 []byte) { l4[5]-- })
		raw("UDP, shorter than it says", udp, func(_, l4 []byte) { l4[5]++ })
		raw("UDP, a wrong checksum", udp, func(_, l4 []byte) { l4[6]++ })
		with("UDP, TTL 1", udp, func(f *frame) { f.ttl = 1 })
		with("UDP, TTL 2", udp, func(f *frame) { f.ttl = 2 })
		with("UDP, ECN 1", udp, func(f *frame) { f.tos = 1 })
		with("UDP, ECN 3", udp, func(f *frame) { f.tos = 3 })
		with("UDP, DSCP 46 and ECN 2", udp, func(f *frame) { f.tos = 46<<2 | 2 })
		with("UDP, DF", udp, func(f *frame) { f.fragment = 0x4000 })
		with("UDP, a first fragment", udp, func(f *frame) { f.fragment = 0x2000 })
		with("UDP, a last fragment", udp, func(f *frame) { f.fragment = 1 })
		with("UDP, the reserved bit", udp, func(f *frame) { f.fragment = 0x8000 })
		with("UDP, options", udp, func(f *frame) { f.options = []byte{1, 1, 1, 1} })
		add("UDP, padded", append(udp.bytes(), 0))
		add("UDP, cut", udp.bytes()[:14+h+16])
		add("UDP, cut in its header", udp.bytes()[:14+h+6])
		raw("of the other version", udp, func(b, _ []byte) { b[14] ^= 0x20 })
		with("of another protocol", udp, func(f *frame) { f.protocol = unix.IPPROTO_SCTP })
		raw("ARP", udp, func(b, _ []byte) { b[12], b[13] = 8, 6 })
		raw("as of the other version", udp, func(b, _ []byte) { b[12], b[13] = b[12]^0x8e, b[13]^0xdd })
		add("TCP", tcp.bytes())
		with("TCP, empty", tcp, func(f *frame) { f.payload = nil })
		with("TCP, SYN", tcp, func(f *frame) { f.flags = 2 })
		with("TCP, SYN and ACK", tcp, func(f *frame) { f.flags = 0x12 })
		with("TCP, FIN and ACK", tcp, func(f *frame) { f.flags = 0x11 })
		with("TCP, RST", tcp, func(f *frame) { f.flags = 4 })
		with("TCP, PSH and ACK", tcp, func(f *frame) { f.flags = 0x18 })
		raw("TCP, no flags", tcp, func(_, l4 []byte) { l4[13] = 0 })
		raw("TCP, a header too short", tcp, func(_, l4 []byte) { l4[12] = 4 << 4 })
		raw("TCP, a header too long", tcp, func(_, l4 []byte) { l4[12] = 15 << 4 })
		raw("TCP, options", tcp, func(_, l4 []byte) { l4[12] = 6 << 4 })
		cut("TCP, cut in its header", tcp, 19)
		cut("TCP of the length of UDP", tcp, 8)
		cut("nothing but its header", udp, 0)
	}
	all["IPv4 checksum that wraps"] = bytes.Clone(all["IPv4 UDP"])
	copy(all["IPv4 checksum that wraps"][24:], []byte{0xfe, 0xff})
	all["IPv4 checksum that wraps, 2"] = bytes.Clone(all["IPv4 UDP"])
	copy(all["IPv4 checksum that wraps, 2"][24:], []byte{0xff, 0x00})
	mapped := all["IPv6 UDP"] // the addresses of the IPv4 packet
	mapped = bytes.Clone(mapped)
	from, to := ipv4.podAddr(1, 2).As16(), ipv4.podAddr(2, 2).As16()
	copy(mapped[22:], append(from[:], to[:]...))
	all["IPv6 UDP, mapped addresses"] = mapped
	return all
}

func TestPackets(t *testing.T) {
	if !loadable(t) {
		return
	}
	r := newRig(t)
	for name, b := range packets() {
		t.Run(name, func(t *testing.T) {
			r := &rig{TB: t, Path: r.Path, configs: r.configs}
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
		r := &rig{TB: t, Path: r.Path, configs: r.configs}
		r.check(b)
	})
}

// check runs the programs on a frame, and compares with what they are to do.
func (r *rig) check(frame []byte) {
	r.Helper()
	for _, c := range r.configs {
		for _, translated := range []bool{false, true} {
			r.checkOver(c, translated, frame)
		}
	}
}

func (r *rig) checkOver(c Config, translated bool, frame []byte) {
	r.Helper()
	key, whole := tupleOf(frame)
	v6 := frame[12] == 0x86 && frame[13] == 0xdd
	isIP := v6 || frame[12] == 8 && frame[13] == 0
	whole = whole && isIP
	class := parse(frame[14:], v6).class &^ ecnBits
	if class>>22 == 46 { // some other DSCP than the entry's
		class = 0
	}
	after := key
	if translated {
		after.Destination, after.DestinationPort = wire(translatedTo(v6)), asWire16(4321)
	}
	if whole {
		r.learn(c, key, after, class, frame)
		defer r.unlearn(key)
	}
	want := Reason(reasons)
	if isIP {
		want = judge(frame[14:], v6, c, class, Sent)
	}
	redirected, out, reason := r.run(r.objects.FromPod, frame)
	r.compare("from a pod", want, Sent, reason, redirected)
	if want != Sent {
		if !bytes.Equal(out, frame) {
			r.Errorf("a slow packet is changed:\n%x\nto\n%x", frame, out)
		}
	} else {
		r.checkSent(c, frame, out, translated)
	}

	if whole {
		r.learn(c, key, after, class, frame) // it may have been ended
	}
	in := r.wire(c, frame)
	if want = NotPlain; c.Direct {
		want = Reason(reasons)
	}
	if isIP {
		want = judge(frame[14:], v6, c, class, Received)
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
}

func (r *rig) compare(what string, want, fast, reason Reason, redirected bool) {
	r.Helper()
	if reason != want || redirected != (want == fast) {
		r.Errorf("%s it is counted as %s, fast: %t, want %s", what, reason, redirected, want)
	}
}

// checkSent checks a packet with its outer headers.
func (r *rig) checkSent(c Config, frame, out []byte, translated bool) {
	r.Helper()
	want := r.header(c, frame)
	ecn := parse(frame[14:], frame[12] == 0x86).class >> 20 & 3
	if ecn == 3 {
		ecn = 2
	}
	headers := len(want)
	got := bytes.Clone(out[:headers])
	length := len(frame) + 16 // UDP's
	switch c.way() {
	case programsWayOVER_IPV6:
		binary.BigEndian.PutUint16(want[headers-26:], uint16(length))
		want[15] |= byte(ecn) << 4
		binary.BigEndian.PutUint16(want[18:], uint16(length))
		if inner := consistent(frame[14:]); consistent(out[14:]) != inner || got[60] == 0 && got[61] == 0 {
			r.Errorf("the checksums of the packet are right: %t, of the headers not so: %x", inner, out)
		}
		clear(want[60:62])
		clear(got[60:62])
	case programsWayOVER_IPV4:
		binary.BigEndian.PutUint16(want[headers-26:], uint16(length))
		want[15] |= byte(ecn)
		binary.BigEndian.PutUint16(want[16:], uint16(length+20))
		if checksum(0, got[14:34]) != 0 {
			r.Errorf("the outer header has a wrong checksum: %x", got[14:34])
		}
		for _, b := range [][]byte{want, got} {
			clear(b[18:20])
			clear(b[24:26])
		}
	}
	if !bytes.Equal(got, want) {
		r.Errorf("it has the headers\n%x, want\n%x", got, want)
	}
	r.checkInner(frame[14:], out[headers:], translated)
}

// translatedTo is the rig's translated destination.
func translatedTo(v6 bool) netip.Addr {
	if v6 {
		return ipv6.podAddr(2, 0x77)
	}
	return ipv4.podAddr(2, 0x77)
}

// checkInner checks a packet that was forwarded.
func (r *rig) checkInner(before, after []byte, translated bool) {
	r.Helper()
	want := forwarded(before)
	if !translated {
		if !bytes.Equal(after, want) {
			r.Errorf("it is forwarded as\n%x, want\n%x", after, want)
		}
		return
	}
	protocol, to, header := before[9], 16, 20
	if before[0]>>4 == 6 {
		protocol, to, header = before[6], 24, 40
	}
	copy(want[to:], translatedTo(header == 40).AsSlice())
	binary.BigEndian.PutUint16(want[header+2:], 4321)
	at := header + 6
	if protocol == unix.IPPROTO_TCP {
		at = header + 16
	}
	if header == 20 && (checksum(0, before[:20]) == 0) != (checksum(0, after[:20]) == 0) {
		r.Errorf("the IP header's checksum was right before or after translation:\n%x\n%x", before, after)
	}
	none := protocol == unix.IPPROTO_UDP && before[at] == 0 && before[at+1] == 0
	if none && (after[at] != 0 || after[at+1] != 0) || !none && consistent(before) != consistent(after) {
		r.Errorf("the checksum was right before or after translation:\n%x\n%x", before, after)
	}
	for _, b := range [][]byte{want, after} {
		clear(b[at : at+2])
		if header == 20 {
			clear(b[10:12])
		}
	}
	if !bytes.Equal(after, want) {
		r.Errorf("it is translated to\n%x, want\n%x", after, want)
	}
}
