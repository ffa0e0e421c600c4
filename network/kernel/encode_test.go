package kernel

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

const testIndex = 7

var (
	addr4, addr6     = netip.MustParseAddr("10.5.29.0"), netip.MustParseAddr("fd00:5:29::")
	remote4, remote6 = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	testMAC          = network.MAC{0x0e, 1, 2, 3, 4, 5}
)

// body checks the header of the one request in b, and returns what follows: it has the layout of what a dump says.
func body(t *testing.T, b []byte, typ, flags uint16) []byte {
	t.Helper()
	if length := binary.NativeEndian.Uint32(b); int(length) != len(b) || len(b)%4 != 0 {
		t.Errorf("the request says that it has %d bytes, and has %d", length, len(b))
	}
	if got := binary.NativeEndian.Uint16(b[4:]); got != typ {
		t.Errorf("the request's type is %d, want %d", got, typ)
	}
	if got := binary.NativeEndian.Uint16(b[6:]); got != unix.NLM_F_REQUEST|flags {
		t.Errorf("the request's flags are %#x, want %#x", got, unix.NLM_F_REQUEST|flags)
	}
	return b[unix.SizeofNlMsghdr:]
}

const replaceFlags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

func TestEncodeNeighbour(t *testing.T) {
	for _, e := range []neighbourEntry{
		{family: unix.AF_INET, index: testIndex, ip: addr4, mac: testMAC},
		{family: unix.AF_INET6, index: testIndex, ip: addr6, mac: testMAC},
		{family: unix.AF_BRIDGE, flags: unix.NTF_SELF, index: testIndex, ip: remote4, mac: testMAC},
		{family: unix.AF_BRIDGE, flags: unix.NTF_SELF, index: testIndex, ip: remote6, mac: testMAC},
		{family: unix.AF_BRIDGE, flags: unix.NTF_SELF, index: 1<<31 - 1, mac: testMAC},
		{family: unix.AF_INET, index: testIndex, ip: addr4},
	} {
		for typ, flags := range map[uint16]uint16{unix.RTM_NEWNEIGH: replaceFlags, unix.RTM_DELNEIGH: 0} {
			b := body(t, encodeNeighbour(nil, typ, e), typ, flags)
			got, ok := decodeNeighbour(b)
			want := neighbourMessage{family: e.family, index: int32(e.index), ip: e.ip, mac: e.mac, state: unix.NUD_PERMANENT, permanent: true}
			want.bare = e.family == unix.AF_BRIDGE && !e.ip.IsValid()
			if !ok || got != want || b[10] != e.flags {
				t.Errorf("%+v is decoded as %+v, %t, flags %#x", e, got, ok, b[10])
			}
		}
	}
}

func TestEncodeNexthop(t *testing.T) {
	for _, m := range []nexthopMessage{
		{1, testIndex, network.Nexthop{Gateway: addr4, OnLink: true, Protocol: network.RouteProtocol}},
		{1<<32 - 1, 1<<31 - 1, network.Nexthop{Gateway: remote4, Protocol: 4}},
		{network.NexthopIDOf(addr4), testIndex, network.Nexthop{Gateway: addr6, OnLink: true, Protocol: network.RouteProtocol}},
	} {
		b := body(t, encodeNexthop(nil, m.id, int(m.index), m.nexthop), unix.RTM_NEWNEXTHOP, replaceFlags)
		if got, ok := decodeNexthop(b); !ok || got != m || b[0] != familyOf(m.nexthop.Gateway) {
			t.Errorf("%+v is decoded as %+v, %t, family %d", m, got, ok, b[0])
		}
		b = body(t, encodeNexthopDeletion(nil, m.id), unix.RTM_DELNEXTHOP, 0)
		if got, ok := decodeNexthop(b); !ok || got != (nexthopMessage{id: m.id}) {
			t.Errorf("the deletion of %d is decoded as %+v, %t", m.id, got, ok)
		}
	}
}

// routeCases are routes of both families and of each kind, with the scope that the kernel wants a new one to have.
func routeCases() map[routeMessage]uint8 {
	key4, key6 := network.RouteKey{Prefix: netip.PrefixFrom(addr4, 24)}, network.RouteKey{Prefix: netip.PrefixFrom(addr6, 64), Metric: 1024}
	odd4 := network.RouteKey{Prefix: netip.MustParsePrefix("10.5.28.0/23"), Metric: 7}
	unicast := func(r network.Route) network.Route {
		r.Protocol, r.Type = network.RouteProtocol, unix.RTN_UNICAST
		return r
	}
	return map[routeMessage]uint8{
		{key4, testIndex, unicast(network.Route{Gateway: addr4, OnLink: true})}: unix.RT_SCOPE_UNIVERSE,
		{key6, testIndex, unicast(network.Route{Gateway: addr6, OnLink: true})}: unix.RT_SCOPE_UNIVERSE,
		{odd4, testIndex, unicast(network.Route{Gateway: remote4})}:             unix.RT_SCOPE_UNIVERSE,
		{odd4, testIndex, unicast(network.Route{})}:                             unix.RT_SCOPE_LINK,
		{key6, testIndex, unicast(network.Route{})}:                             unix.RT_SCOPE_LINK,
		{key4, 0, unicast(network.Route{Nexthop: network.NexthopIDOf(addr4)})}:  unix.RT_SCOPE_UNIVERSE,
		{key6, 0, unicast(network.Route{Nexthop: 1<<32 - 1})}:                   unix.RT_SCOPE_UNIVERSE,
		{key4, 0, network.Route{Protocol: 4, Type: unix.RTN_BLACKHOLE}}:         unix.RT_SCOPE_UNIVERSE,
		{network.RouteKey{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, testIndex,
			unicast(network.Route{Gateway: remote4})}: unix.RT_SCOPE_UNIVERSE,
		{network.RouteKey{Prefix: netip.MustParsePrefix("::/0"), Metric: 1024}, testIndex,
			unicast(network.Route{Gateway: remote6})}: unix.RT_SCOPE_UNIVERSE,
		{network.RouteKey{Prefix: netip.MustParsePrefix("192.0.2.7/32")}, testIndex,
			unicast(network.Route{Gateway: addr4, OnLink: true})}: unix.RT_SCOPE_UNIVERSE,
	}
}

func TestEncodeRoute(t *testing.T) {
	for m, scope := range routeCases() {
		b := body(t, encodeRoute(nil, unix.RTM_NEWROUTE, m.key, m.route, int(m.index)), unix.RTM_NEWROUTE, replaceFlags)
		if got, ok := decodeRoute(b); !ok || got != m || b[6] != scope {
			t.Errorf("%+v is decoded as %+v, %t, scope %d, want %d", m, got, ok, b[6], scope)
		}
		b = body(t, encodeRoute(nil, unix.RTM_DELROUTE, m.key, m.route, int(m.index)), unix.RTM_DELROUTE, 0)
		if got, ok := decodeRoute(b); !ok || got != m || b[6] != unix.RT_SCOPE_NOWHERE {
			t.Errorf("%+v, deleted, is decoded as %+v, %t, scope %d", m, got, ok, b[6])
		}
	}
	// The device says nothing that the nexthop object does not, and the kernel refuses to be told both.
	for m := range routeCases() {
		if m.route.Nexthop == 0 {
			continue
		}
		b := body(t, encodeRoute(nil, unix.RTM_NEWROUTE, m.key, m.route, testIndex), unix.RTM_NEWROUTE, replaceFlags)
		if got, ok := decodeRoute(b); !ok || got != m {
			t.Errorf("%+v with a device is decoded as %+v, %t", m, got, ok)
		}
	}
}

// TestEncodeAppends: requests stand one after another in a buffer, and what stands there already is not touched.
func TestEncodeAppends(t *testing.T) {
	var alone [4][]byte
	encode := func(i int, b []byte) []byte {
		switch i {
		case 0:
			return encodeNeighbour(b, unix.RTM_NEWNEIGH, neighbourEntry{family: unix.AF_INET, index: testIndex, ip: addr4, mac: testMAC})
		case 1:
			return encodeNexthop(b, 7, testIndex, network.Nexthop{Gateway: addr4})
		case 2:
			return encodeNexthopDeletion(b, 7)
		default:
			return encodeRoute(b, unix.RTM_NEWROUTE, network.RouteKey{Prefix: netip.PrefixFrom(addr6, 64)}, network.Route{Nexthop: 7}, 0)
		}
	}
	var together []byte
	for i := range alone {
		alone[i] = encode(i, nil)
		together = encode(i, together)
	}
	for i, want := range alone {
		if len(together) < len(want) || string(together[:len(want)]) != string(want) {
			t.Fatalf("request %d is %x, want %x", i, together, want)
		}
		together = together[len(want):]
	}
	if len(together) != 0 {
		t.Errorf("left over: %x", together)
	}
}

// TestDecodeTruncated: a message that ends too early says less, or nothing, and does no harm.
func TestDecodeTruncated(t *testing.T) {
	decoders := map[string]func([]byte) bool{
		"neighbour": func(b []byte) bool { _, ok := decodeNeighbour(b); return ok },
		"nexthop":   func(b []byte) bool { _, ok := decodeNexthop(b); return ok },
		"route":     func(b []byte) bool { _, ok := decodeRoute(b); return ok },
	}
	route := network.Route{Link: testDevice, Gateway: addr4, OnLink: true, Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST}
	for kind, b := range map[string][]byte{
		"neighbour": encodeNeighbour(nil, unix.RTM_NEWNEIGH, neighbourEntry{family: unix.AF_INET, index: testIndex, ip: addr4, mac: testMAC}),
		"nexthop":   encodeNexthop(nil, 7, testIndex, network.Nexthop{Gateway: addr4}),
		"route":     encodeRoute(nil, unix.RTM_NEWROUTE, network.RouteKey{Prefix: netip.PrefixFrom(addr4, 24)}, route, testIndex),
	} {
		b = b[unix.SizeofNlMsghdr:]
		for n := range len(b) {
			if ok := decoders[kind](b[:n:n]); ok && n < sizeofNhMsg {
				t.Errorf("%d bytes of a %s will do", n, kind)
			}
			// Nor one in which a length is wrong.
			for _, v := range []byte{0, 3, 255} {
				wrong := append([]byte(nil), b...)
				wrong[n] = v
				decoders[kind](wrong)
			}
		}
		if !decoders[kind](b) {
			t.Errorf("not even a whole %s will do", kind)
		}
	}
}

// TestKernelReadsBack has the kernel keep entries of both families, and compares what its dumps then say. What it took
// for ours it lets us delete the same way.
func TestKernelReadsBack(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		link, err := netlink.LinkByName(testDevice)
		if err != nil {
			return err
		}
		index := int32(link.Attrs().Index)
		neighbours, nexthops, routes := entriesOn(int(index))

		send := func(typ uint16) (err error) {
			refused := func(e error) { err = errors.Join(err, e) }
			for m := range neighbours {
				e := neighbourEntry{family: m.family, index: int(m.index), ip: m.ip, mac: m.mac}
				if m.family == unix.AF_BRIDGE {
					e.flags = unix.NTF_SELF
				}
				k.batch.add(encodeNeighbour(k.batch.buf, typ, e), refused)
			}
			for m := range nexthops {
				if typ == unix.RTM_NEWNEIGH {
					k.batch.add(encodeNexthop(k.batch.buf, m.id, int(m.index), m.nexthop), refused)
				}
			}
			for m := range routes {
				k.batch.add(encodeRoute(k.batch.buf, typ+unix.RTM_NEWROUTE-unix.RTM_NEWNEIGH, m.key, m.route, int(m.index)), refused)
			}
			for m := range nexthops {
				if typ == unix.RTM_DELNEIGH {
					k.batch.add(encodeNexthopDeletion(k.batch.buf, m.id), refused)
				}
			}
			k.batch.send()
			return err
		}
		check := func(what string) error {
			gotNeighbours, gotNexthops, gotRoutes, err := dumped(k, index)
			same(t, what, gotNeighbours, neighbours)
			same(t, what, gotNexthops, nexthops)
			same(t, what, gotRoutes, routes)
			return err
		}
		for _, what := range []string{"made", "made again"} {
			if err := errors.Join(send(unix.RTM_NEWNEIGH), check(what)); err != nil {
				return err
			}
		}
		err = send(unix.RTM_DELNEIGH)
		clear(neighbours)
		clear(nexthops)
		clear(routes)
		return errors.Join(err, check("deleted"))
	})
}

// entriesOn returns what the kernel is to keep: entries of each kind and family.
func entriesOn(index int) (neighbours map[neighbourMessage]bool, nexthops map[nexthopMessage]bool, routes map[routeMessage]bool) {
	i := int32(index)
	neighbours = map[neighbourMessage]bool{
		{family: unix.AF_INET, index: i, ip: addr4, mac: testMAC, state: unix.NUD_PERMANENT, permanent: true}:     true,
		{family: unix.AF_INET6, index: i, ip: addr6, mac: testMAC, state: unix.NUD_PERMANENT, permanent: true}:    true,
		{family: unix.AF_BRIDGE, index: i, ip: remote4, mac: testMAC, state: unix.NUD_PERMANENT, permanent: true}: true,
	}
	nexthops = map[nexthopMessage]bool{
		{network.NexthopIDOf(addr4), i, network.Nexthop{Gateway: addr4, OnLink: true, Protocol: network.RouteProtocol}}: true,
		{1<<32 - 1, i, network.Nexthop{Gateway: remote4, OnLink: true, Protocol: 4}}:                                    true,
		{6, i, network.Nexthop{Gateway: addr6, OnLink: true, Protocol: network.RouteProtocol}}:                          true,
	}
	route := func(prefix string, metric uint32, r network.Route) routeMessage {
		r.Protocol, r.Type = network.RouteProtocol, unix.RTN_UNICAST
		return routeMessage{network.RouteKey{Prefix: netip.MustParsePrefix(prefix), Metric: metric}, i, r}
	}
	// Of a route by a nexthop object the kernel says gateway and flags too (net.ipv4.nexthop_compat_mode).
	routes = map[routeMessage]bool{
		route("10.5.29.0/24", 0, network.Route{Gateway: addr4, OnLink: true}):                                      true,
		route("10.5.29.0/24", 7, network.Route{Gateway: addr4, OnLink: true}):                                      true,
		route("10.5.30.0/24", 0, network.Route{Nexthop: network.NexthopIDOf(addr4), Gateway: addr4, OnLink: true}): true,
		route("10.5.31.0/24", 0, network.Route{Nexthop: 1<<32 - 1, Gateway: remote4, OnLink: true}):                true,
		route("10.5.32.0/24", 0, network.Route{}):                                                                  true,
		route("fd00:5:29::/64", 1024, network.Route{Gateway: addr6, OnLink: true}):                                 true,
		route("fd00:5:30::/64", 1024, network.Route{Nexthop: 6, Gateway: addr6, OnLink: true}):                     true,
		route("fd00:5:31::/64", 7, network.Route{Nexthop: 6, Gateway: addr6, OnLink: true}):                        true,
	}
	return neighbours, nexthops, routes
}

// dumped returns what the kernel has on a device, less what it made by itself.
func dumped(k *Kernel, index int32) (neighbours map[neighbourMessage]bool, nexthops map[nexthopMessage]bool, routes map[routeMessage]bool, err error) {
	neighbours, nexthops, routes = map[neighbourMessage]bool{}, map[nexthopMessage]bool{}, map[routeMessage]bool{}
	neighbour := func(_ uint16, data []byte) {
		if m, ok := decodeNeighbour(data); ok && m.index == index && m.permanent {
			neighbours[m] = true
		}
	}
	route := func(_ uint16, data []byte) {
		if m, ok := decodeRoute(data); ok && m.route.Protocol == network.RouteProtocol {
			routes[m] = true
		}
	}
	err = errors.Join(
		k.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, neighbour, &neighbourRequest{family: unix.AF_UNSPEC}),
		k.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, neighbour, &neighbourRequest{family: unix.AF_BRIDGE, index: index}),
		k.readNexthops(func(data []byte) {
			if m, ok := decodeNexthop(data); ok {
				nexthops[m] = true
			}
		}))
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := nl.NewRtMsg()
		request.Family, request.Table, request.Scope, request.Type, request.Protocol = family, unix.RT_TABLE_MAIN, 0, 0, 0
		err = errors.Join(err, k.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, route, request))
	}
	return neighbours, nexthops, routes, err
}

func same[M comparable](t *testing.T, what string, got, want map[M]bool) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for m := range got {
		if !want[m] {
			t.Errorf("%s: unexpected %+v", what, m)
		}
	}
	for m := range want {
		if !got[m] {
			t.Errorf("%s: no %+v", what, m)
		}
	}
}

// TestDuplicateDecoded: the mark of a duplicate is one of IPv6. IPv4 has other flags in its place.
func TestDuplicateDecoded(t *testing.T) {
	for _, x := range []struct {
		addr  string
		flags uint8
		want  bool
	}{
		{"fd00:5::1", unix.IFA_F_PERMANENT, false},
		{"fd00:5::1", unix.IFA_F_PERMANENT | unix.IFA_F_TENTATIVE, false}, // detection is running, or there is no carrier
		{"fd00:5::1", unix.IFA_F_PERMANENT | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED, true},
		{"10.5.0.1", unix.IFA_F_PERMANENT | unix.IFA_F_DADFAILED, false},
	} {
		addr := netip.MustParseAddr(x.addr)
		b := make([]byte, unix.SizeofIfAddrmsg)
		b[0], b[1], b[2], b[4] = familyOf(addr), 24, x.flags, 7
		b = append(b, nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()).Serialize()...)
		want := addressMessage{index: 7, prefix: netip.PrefixFrom(addr, 24), duplicate: x.want}
		if m, ok := decodeAddress(b); !ok || m != want {
			t.Errorf("%s with flags %#x: %+v, want %+v", x.addr, x.flags, m, want)
		}
	}
}
