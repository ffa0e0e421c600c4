package probe

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Addresses of this node and of the peer, by family.
var (
	ours   = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	theirs = [2]netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
)

// ip prepends an IP header to a payload.
func ip(f subnet.Family, protocol byte, from, to netip.Addr, payload []byte) []byte {
	var b []byte
	if f == subnet.IPv4 {
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 0, protocol, 64)
	}
	return slices.Concat(b, from.AsSlice(), to.AsSlice(), payload)
}

func icmpOf(f subnet.Family) byte { return [...]byte{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}[f] }

// about returns an ICMP error that quotes a packet.
func about(typ, code byte, rest uint32, packet []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ, code, 0, 0}, rest), packet...)
}

// tunnelled returns a UDP datagram to a port that holds a VXLAN packet.
func tunnelled(port uint16, inner []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x30, 0x39}, port)
	return append(append(b, make([]byte, inVXLAN-4)...), inner...)
}

func TestDecode(t *testing.T) {
	for _, f := range subnet.Families() {
		echo := encodeEcho(f, 7, 9, 0)
		quoted := ip(f, icmpOf(f), ours[f], theirs[f], echo)
		vxlan := ip(f, unix.IPPROTO_UDP, ours[f], theirs[f], tunnelled(8472, nil))
		answered := slices.Clone(echo)
		answered[0] = echoReply[f]
		portCode, prohibited := byte(3), byte(13)
		big, bigRest := about(3, 4, 1400, quoted), "administratively prohibited"
		if f == subnet.IPv6 {
			portCode, prohibited = 4, 1
			big = about(2, 0, 1400, quoted)
		}
		for _, tt := range []struct {
			name string
			in   []byte
			want message
		}{
			{"request", echo, message{kind: request, id: 7, seq: 9}},
			{"reply", answered, message{kind: reply, id: 7, seq: 9}},
			{"time exceeded", about(timeExceeded[f], 0, 0, quoted), message{kind: expired, id: 7, seq: 9}},
			{"too big", big, message{kind: tooBig, id: 7, seq: 9, mtu: 1400, reason: map[bool]string{true: "unreachable"}[f == subnet.IPv4]}},
			{"prohibited", about(unreachable[f], prohibited, 0, quoted), message{kind: refused, id: 7, seq: 9, reason: bigRest}},
			{"port closed", about(unreachable[f], portCode, 0, vxlan), message{kind: refused, reason: "port unreachable", udp: 8472, dest: theirs[f]}},
			{"without a quoted packet", about(unreachable[f], portCode, 0, nil), message{kind: refused, reason: "port unreachable"}},
			{"with half a quoted header", about(unreachable[f], portCode, 0, quoted[:15]), message{kind: refused, reason: "port unreachable"}},
			{"short", echo[:7], message{}},
			{"another type", about(137, 0, 0, nil), message{}},
		} {
			if got := decode(f, tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s, %s: %+v, want %+v", f, tt.name, got, tt.want)
			}
		}
	}
}

func TestSee(t *testing.T) {
	for _, f := range subnet.Families() {
		echo := encodeEcho(f, 7, 9, 0)
		inner := ip(f, icmpOf(f), ours[f], theirs[f], echo)
		for _, tt := range []struct {
			name string
			in   []byte
			want []capture
		}{
			{"plain", inner, []capture{{family: f, seq: 9, kind: request}}},
			{"in a tunnel", ip(f, unix.IPPROTO_UDP, theirs[f], ours[f], tunnelled(8472, inner)), []capture{{family: f, seq: 9, kind: request, outer: theirs[f]}}},
			{"an answer about it", ip(f, icmpOf(f), theirs[f], ours[f], about(timeExceeded[f], 0, 0, inner)), []capture{{family: f, seq: 9, kind: expired}}},
			{"another port", ip(f, unix.IPPROTO_UDP, theirs[f], ours[f], tunnelled(4789, inner)), nil},
			{"another process's echo", ip(f, icmpOf(f), ours[f], theirs[f], encodeEcho(f, 8, 9, 0)), nil},
			{"nothing", nil, nil},
			{"truncated", inner[:header(f)+3], nil},
			{"a truncated tunnel packet", ip(f, unix.IPPROTO_UDP, theirs[f], ours[f], tunnelled(8472, inner[:9])), nil},
		} {
			if got := findEcho(tt.in, 8472, 7); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s, %s: %+v, want %+v", f, tt.name, got, tt.want)
			}
		}
	}
}

func TestEncodeEcho(t *testing.T) {
	for _, f := range subnet.Families() {
		if b := encodeEcho(f, 1, 2, 1450); len(b)+header(f) != 1450 {
			t.Errorf("%s: %d bytes with the header", f, len(b)+header(f))
		}
	}
	if b := encodeEcho(subnet.IPv4, 0x1234, 0x5678, 100); checksum(b) != 0 {
		t.Errorf("the checksum of % x is wrong", b[:8])
	}
}

func TestEncodePacket(t *testing.T) {
	for _, f := range subnet.Families() {
		b := encodePacket(ours[f], theirs[f], 7, 9, 100)
		p, ok := decodeIP(b)
		if m := decode(f, p.payload); !ok || len(b) != 100 || p.from != ours[f] || p.to != theirs[f] || m.kind != request || m.seq != 9 {
			t.Errorf("%s: % x", f, b)
		}
	}
}

func TestBetween(t *testing.T) {
	for _, tt := range []struct {
		low, high int
		want      []int
	}{
		{100, 200, []int{125, 150, 175}},
		{1, 3, []int{2}},
		{1, 2, nil},
		{1, 5, []int{2, 3, 4}},
	} {
		if got := between(tt.low, tt.high, 3); !slices.Equal(got, tt.want) {
			t.Errorf("between %d and %d: %d, want %d", tt.low, tt.high, got, tt.want)
		}
	}
}

func TestBehind(t *testing.T) {
	for in, want := range map[string]string{"10.5.29.0/24": "10.5.29.254", "fd00:5:0:1d::/64": "fd00:5:0:1d:ffff:ffff:ffff:fffe", "10.5.0.4/30": "10.5.0.6"} {
		if got := (Target{Subnet: netip.MustParsePrefix(in)}).addressBehind(); got.String() != want {
			t.Errorf("behind %s: %s, want %s", in, got, want)
		}
	}
}
