package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

const testDevice = "flannel.1"

// inNet runs f in a network namespace that has a VXLAN device with an address, without which the kernel takes every
// next hop for a broadcast address (__inet_dev_addr_type in net/ipv4/fib_frontend.c). f gets a Kernel that knows the
// device.
func inNet(t *testing.T, f func(k *Kernel) error) {
	t.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		v := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: testDevice}, VxlanId: 1, Port: 8472}
		address := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.5.255.0/32"))}
		if err := errors.Join(netlink.LinkAdd(v), netlink.LinkSetUp(v), netlink.AddrAdd(v, address)); err != nil {
			return err
		}
		k, err := Open(network.NewTables())
		if err != nil {
			return err
		}
		defer k.Close()
		return errors.Join(k.Read(), f(k))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// refusal is what the kernel makes of a request: an error, and its words for it, if it has any.
type refusal struct {
	errno unix.Errno
	words string
}

// checkRefused sends a batch of 128 updates of which the first, the hundredth and the last are refused, twice, and then
// one in which all are right: what was refused leaves nothing behind.
func checkRefused[K, V comparable](t *testing.T, kind string, apply func([]network.Update[K, V]), update func(i int, bad bool) network.Update[K, V], want refusal) {
	t.Helper()
	bad := []int{0, 99, 127}
	batch := make([]network.Update[K, V], 128)
	for i := range batch {
		batch[i] = update(i, slices.Contains(bad, i))
	}
	for range 2 {
		apply(batch)
		for i, u := range batch {
			if !slices.Contains(bad, i) {
				if u.Err != nil {
					t.Errorf("%s %d: %v", kind, i, u.Err)
				}
				continue
			}
			if !errors.Is(u.Err, want.errno) || !strings.Contains(u.Err.Error(), want.words) || !strings.Contains(u.Err.Error(), fmt.Sprint(u.Key)) {
				t.Errorf("%s %d: error %v, want %v (%q) that names %v", kind, i, u.Err, want.errno, want.words, u.Key)
			}
		}
	}
	for i := range batch {
		batch[i] = update(i, false)
	}
	apply(batch)
	for i, u := range batch {
		if u.Err != nil {
			t.Errorf("%s %d, once it is right: %v", kind, i, u.Err)
		}
	}
}

func set[K, V comparable](k K, v V) network.Update[K, V] {
	return network.Update[K, V]{Key: k, Change: network.Change[V]{Want: v, Wanted: true}}
}

func gatewayOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 5, byte(i), 0}) }

// TestBatchTellsWhatFailed: of a batch exactly those that the kernel refuses fail, with its own words for it, and all
// the others are made.
func TestBatchTellsWhatFailed(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		mac := func(i int) network.MAC { return network.MAC{0x0e, 0, 0, 0, 1, byte(i)} }
		// An entry whose remote is of the wrong family.
		checkRefused(t, "FDB entry", k.FDB, func(i int, bad bool) network.Update[network.FDBKey, network.FDB] {
			remote := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			if bad {
				remote = netip.MustParseAddr("2001:db8::1")
			}
			return set(network.FDBKey{Link: testDevice, MAC: mac(i)}, network.FDB{Remote: remote, Permanent: true})
		}, refusal{errno: unix.EAFNOSUPPORT})
		// A permanent one without a MAC address.
		checkRefused(t, "neighbour", k.Neighbours, func(i int, bad bool) network.Update[network.NeighbourKey, network.Neighbour] {
			m := mac(i)
			if bad {
				m = network.MAC{}
			}
			return set(network.NeighbourKey{Link: testDevice, IP: gatewayOf(i)}, network.Neighbour{MAC: m, Permanent: true})
		}, refusal{unix.EINVAL, "No link layer address given"})
		// One whose gateway cannot be reached.
		checkRefused(t, "nexthop", k.Nexthops, func(i int, bad bool) network.Update[network.NexthopID, network.Nexthop] {
			v := network.Nexthop{Link: testDevice, Gateway: gatewayOf(i), OnLink: !bad, Protocol: network.RouteProtocol}
			return set(network.NexthopIDOf(v.Gateway), v)
		}, refusal{unix.ENETUNREACH, "Nexthop has invalid gateway"})
		// One by a nexthop object that is not there.
		checkRefused(t, "route", k.Routes, func(i int, bad bool) network.Update[network.RouteKey, network.Route] {
			r := network.Route{Link: testDevice, Nexthop: network.NexthopIDOf(gatewayOf(i)), Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST}
			if bad {
				r.Nexthop = 7
			}
			return set(network.RouteKey{Prefix: netip.PrefixFrom(gatewayOf(i), 24)}, r)
		}, refusal{unix.EINVAL, "Nexthop id does not exist"})

		count := func(what string, n int, err error) {
			if n != 128 || err != nil {
				t.Errorf("%d %s, %v, want 128", n, what, err)
			}
		}
		routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: network.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		count("routes", len(routes), err)
		link, err := netlink.LinkByName(testDevice)
		if err != nil {
			return err
		}
		for what, family := range map[string]int{"FDB entries": unix.AF_BRIDGE, "neighbours": unix.AF_INET} {
			entries, err := netlink.NeighList(link.Attrs().Index, family)
			entries = slices.DeleteFunc(entries, func(n netlink.Neigh) bool { return n.State != unix.NUD_PERMANENT })
			count(what, len(entries), err)
		}
		return nil
	})
}

// TestBatchOfDeletions: what is gone already is no failure, and neither is what its device took along.
func TestBatchOfDeletions(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		route := func(i int) network.Update[network.RouteKey, network.Route] {
			return set(network.RouteKey{Prefix: netip.PrefixFrom(gatewayOf(i), 24)},
				network.Route{Link: testDevice, Gateway: gatewayOf(i), OnLink: true, Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST})
		}
		batch := []network.Update[network.RouteKey, network.Route]{route(1), route(2), route(3)}
		k.Routes(batch[:2])
		for i := range batch {
			batch[i].Change = network.Change[network.Route]{Have: batch[i].Change.Want, Present: true}
		}
		nexthops := []network.Update[network.NexthopID, network.Nexthop]{{Key: 7}, {Key: 8}}
		missing := []network.Update[network.NeighbourKey, network.Neighbour]{
			{Key: network.NeighbourKey{Link: testDevice, IP: gatewayOf(1)}}, {Key: network.NeighbourKey{Link: "missing", IP: gatewayOf(1)}},
		}
		fdb := []network.Update[network.FDBKey, network.FDB]{
			{Key: network.FDBKey{Link: testDevice, MAC: network.MAC{2}}}, {Key: network.FDBKey{Link: "missing", MAC: network.MAC{2}}},
		}
		for range 2 {
			k.Routes(batch)
			k.Nexthops(nexthops)
			k.Neighbours(missing)
			k.FDB(fdb)
		}
		for _, u := range batch {
			if u.Err != nil {
				t.Error(u.Err)
			}
		}
		for i := range 2 {
			if err := errors.Join(nexthops[i].Err, missing[i].Err, fdb[i].Err); err != nil {
				t.Error(err)
			}
		}
		routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: network.RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
		if len(routes) != 0 {
			t.Errorf("left: %v", routes)
		}
		return err
	})
}

// TestOddEntryIsReplaced: to replace an FDB entry leaves a port of its own as it was, so it is deleted first, in the
// same batch; the others are not.
func TestOddEntryIsReplaced(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		link, err := netlink.LinkByName(testDevice)
		if err != nil {
			return err
		}
		index := link.Attrs().Index
		entry := neighbourEntry{family: unix.AF_BRIDGE, flags: unix.NTF_SELF, index: index, ip: remote4, mac: testMAC}
		b := attribute(encodeNeighbour(nil, unix.RTM_NEWNEIGH, entry), unix.NDA_PORT, []byte{1, 2})
		k.batch.add(end(b, 0), func(e error) { err = e })
		k.batch.send()
		if err != nil {
			return err
		}
		found := func() neighbourMessage {
			neighbours, _, _, e := dumped(k, int32(index))
			err = errors.Join(err, e)
			for m := range neighbours {
				if m.mac == testMAC {
					return m
				}
			}
			return neighbourMessage{}
		}
		if m := found(); !m.odd {
			t.Fatalf("to begin with, the entry is %+v, %v", m, err)
		}
		batch := []network.Update[network.FDBKey, network.FDB]{
			set(network.FDBKey{Link: testDevice, MAC: network.MAC{2, 1}}, network.FDB{Remote: remote4, Permanent: true}),
			set(network.FDBKey{Link: testDevice, MAC: testMAC}, network.FDB{Remote: remote4, Permanent: true}),
			set(network.FDBKey{Link: testDevice, MAC: network.MAC{2, 3}}, network.FDB{Remote: remote6, Permanent: true}), // refused
		}
		batch[1].Change.Have, batch[1].Change.Present = network.FDB{Remote: remote4, Permanent: true, Odd: true}, true
		k.FDB(batch)
		if batch[0].Err != nil || batch[1].Err != nil || !errors.Is(batch[2].Err, unix.EAFNOSUPPORT) {
			t.Errorf("%v, %v, %v, want the last one alone refused", batch[0].Err, batch[1].Err, batch[2].Err)
		}
		if m := found(); m.odd || m.ip != remote4 {
			t.Errorf("the entry is %+v", m)
		}
		return err
	})
}

// TestBatchWithoutDevice: what is to hang on a device that there is not fails by itself, and names it.
func TestBatchWithoutDevice(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		nexthops := []network.Update[network.NexthopID, network.Nexthop]{
			set(network.NexthopID(7), network.Nexthop{Link: "missing", Gateway: gatewayOf(1)}),
			set(network.NexthopID(8), network.Nexthop{Link: testDevice, Gateway: gatewayOf(2), OnLink: true}),
		}
		routes := []network.Update[network.RouteKey, network.Route]{
			set(network.RouteKey{Prefix: netip.MustParsePrefix("10.6.1.0/24")}, network.Route{Link: "missing", Type: unix.RTN_UNICAST}),
			set(network.RouteKey{Prefix: netip.MustParsePrefix("10.6.2.0/24")}, network.Route{Link: testDevice, Nexthop: 8, Type: unix.RTN_UNICAST}),
		}
		neighbours := []network.Update[network.NeighbourKey, network.Neighbour]{
			set(network.NeighbourKey{Link: "missing", IP: gatewayOf(1)}, network.Neighbour{MAC: testMAC}),
			set(network.NeighbourKey{Link: testDevice, IP: gatewayOf(2)}, network.Neighbour{MAC: testMAC}),
		}
		fdb := []network.Update[network.FDBKey, network.FDB]{
			set(network.FDBKey{Link: "missing", MAC: testMAC}, network.FDB{Remote: remote4}),
			set(network.FDBKey{Link: testDevice, MAC: testMAC}, network.FDB{Remote: remote4}),
		}
		k.FDB(fdb)
		k.Neighbours(neighbours)
		k.Nexthops(nexthops)
		k.Routes(routes)
		for _, err := range []error{fdb[0].Err, neighbours[0].Err, nexthops[0].Err, routes[0].Err} {
			if err == nil || !strings.Contains(err.Error(), "missing") {
				t.Errorf("error %v, want one that names the device", err)
			}
		}
		return errors.Join(fdb[1].Err, neighbours[1].Err, nexthops[1].Err, routes[1].Err)
	})
}

// deletion adds to a batch the deletion of a nexthop object; 0 is a number that none can have. What comes of it is
// noted in err.
func deletion(b *batch, id network.NexthopID, err *error) {
	*err = nil
	b.add(encodeNexthopDeletion(b.buf, id), func(e error) { *err = e })
}

// TestBatchEmpty: nothing is sent, and nothing waited for.
func TestBatchEmpty(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		before := k.batch.seq
		k.batch.send()
		k.FDB(nil)
		k.Neighbours(nil)
		k.Nexthops(nil)
		k.Routes(nil)
		if k.batch.seq != before {
			t.Errorf("%d requests sent", k.batch.seq-before)
		}
		return nil
	})
}

// TestBatchPassesOverOldAnswers: answers to requests that were given up on are nobody's.
func TestBatchPassesOverOldAnswers(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		b := k.batch
		for _, seq := range []uint32{0, 1<<32 - 2} { // also where the numbers begin again
			b.seq = seq
			var errs [3]error
			for i := range errs {
				deletion(b, 7, &errs[i])
				binary.NativeEndian.PutUint32(b.buf[b.requests[i].start+8:], seq+uint32(i)+1)
			}
			if err := unix.Sendto(b.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return err
			}
			b.seq, b.buf, b.requests = seq+3, b.buf[:0], b.requests[:0]

			var missing, impossible error
			deletion(b, 8, &missing)
			deletion(b, 0, &impossible)
			b.send()
			if errs != [3]error{} || !errors.Is(missing, unix.ENOENT) || !errors.Is(impossible, unix.EINVAL) {
				t.Errorf("from %d: the old ones got %v; the new ones %v and %v, want ENOENT and EINVAL", seq, errs, missing, impossible)
			}
		}
		return nil
	})
}

// TestBatchAfterOverrun: more is refused than the socket holds answers; the next batch gets its own all the same.
func TestBatchAfterOverrun(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		b := k.batch
		err := errors.Join(
			unix.SetsockoptInt(b.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10),
			unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
		if err != nil {
			return err
		}
		for range 3 {
			var many [256]error
			for i := range many {
				deletion(b, 7, &many[i])
			}
			b.send()
			for i, err := range many {
				if err == nil {
					t.Errorf("request %d of many did not fail", i)
				}
			}
			if !errors.Is(many[255], unix.ENOBUFS) {
				t.Errorf("error %v, want ENOBUFS: the socket was to overrun", many[255])
			}
			var missing, impossible error
			deletion(b, 8, &missing)
			deletion(b, 0, &impossible)
			b.send()
			if !errors.Is(missing, unix.ENOENT) || !errors.Is(impossible, unix.EINVAL) {
				t.Errorf("after the overrun: %v and %v, want ENOENT and EINVAL", missing, impossible)
			}
		}
		return nil
	})
}

// TestBatchSocketBroken: if there is no exchange with the kernel, everything in the batch has failed.
func TestBatchSocketBroken(t *testing.T) {
	b := &batch{fd: -1, answers: make([]byte, 4096)}
	for range 2 {
		var errs [3]error
		for i := range errs {
			deletion(b, 7, &errs[i])
		}
		b.send()
		for i, err := range errs {
			if !errors.Is(err, unix.EBADF) {
				t.Errorf("request %d: error %v, want EBADF", i, err)
			}
		}
		if len(b.buf) != 0 || len(b.requests) != 0 {
			t.Errorf("%d bytes and %d requests are left over", len(b.buf), len(b.requests))
		}
	}
}

// netlinkError makes an NLMSG_ERROR as netlink_ack in net/netlink/af_netlink.c does.
func netlinkError(flags uint16, errno unix.Errno, echoed int, attributes ...[]byte) []byte {
	b, start := begin(nil, unix.NLMSG_ERROR, 0)
	binary.NativeEndian.PutUint16(b[6:], flags)
	b = binary.NativeEndian.AppendUint32(b, uint32(-int32(errno)))
	b, request := begin(b, unix.RTM_NEWROUTE, 0)
	binary.NativeEndian.PutUint32(b[request:], uint32(unix.SizeofNlMsghdr+echoed))
	if flags&unix.NLM_F_CAPPED == 0 {
		b = append(b, make([]byte, (echoed+3)&^3)...)
	}
	return end(append(b, slices.Concat(attributes...)...), start)
}

func TestAnswer(t *testing.T) {
	words := attribute(nil, unix.NLMSGERR_ATTR_MSG, []byte("No such thing\x00"))
	offset := attributeUint32(nil, unix.NLMSGERR_ATTR_OFFS, 20)
	const capped, tlvs = unix.NLM_F_CAPPED, unix.NLM_F_ACK_TLVS
	for _, tt := range []struct {
		name string
		data []byte
		want string
		is   error
	}{
		{"success", netlinkError(capped, 0, 40), "", nil},
		{"success with a warning", netlinkError(capped|tlvs, 0, 40, words), "", nil},
		{"without words", netlinkError(capped, unix.EINVAL, 40), "invalid argument", unix.EINVAL},
		{"with words", netlinkError(capped|tlvs, unix.EINVAL, 40, words), "invalid argument: No such thing", unix.EINVAL},
		{"with words after others", netlinkError(capped|tlvs, unix.EINVAL, 40, offset, words), "invalid argument: No such thing", unix.EINVAL},
		{"with others only", netlinkError(capped|tlvs, unix.ENOENT, 40, offset), "no such file or directory", unix.ENOENT},
		{"with the request", netlinkError(0, unix.EINVAL, 40), "invalid argument", unix.EINVAL},
		{"with the request and words", netlinkError(tlvs, unix.EINVAL, 41, words), "invalid argument: No such thing", unix.EINVAL},
		{"with less of the request than it says", netlinkError(tlvs, unix.EINVAL, 40)[:60], "invalid argument", unix.EINVAL},
		{"too short", netlinkError(capped, unix.EINVAL, 40)[:35], errMalformed.Error(), errMalformed},
		{"a header alone", netlinkError(capped, unix.EINVAL, 40)[:16], errMalformed.Error(), errMalformed},
	} {
		err := decode(tt.data)
		if !errors.Is(err, tt.is) || err != nil && err.Error() != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// decode decodes an answer with its header.
func decode(message []byte) error {
	return answer(binary.NativeEndian.Uint16(message[6:]), message[unix.SizeofNlMsghdr:])
}

// TestReceiveMalformed: what no kernel sends does not stop the daemon.
func TestReceiveMalformed(t *testing.T) {
	for _, length := range []uint32{0, 15, 37} { // of 36
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		data := netlinkError(unix.NLM_F_CAPPED, 0, 40)
		binary.NativeEndian.PutUint32(data, length)
		if err := unix.Sendto(fds[1], data, 0, nil); err != nil {
			t.Fatal(err)
		}
		b := &batch{fd: fds[0], answers: make([]byte, 4096)}
		if done, err := b.answered(1); done || !errors.Is(err, errMalformed) {
			t.Errorf("a message that says it has %d bytes: done %t, %v", length, done, err)
		}
		unix.Close(fds[0])
		unix.Close(fds[1])
	}
}

// TestAnswerGarbled: no answer, whatever it says, makes the daemon fall over.
func TestAnswerGarbled(t *testing.T) {
	words := attribute(nil, unix.NLMSGERR_ATTR_MSG, []byte("No such thing\x00"))
	for _, data := range [][]byte{
		netlinkError(unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, unix.EINVAL, 40, words),
		netlinkError(unix.NLM_F_ACK_TLVS, unix.EINVAL, 41, words),
	} {
		for n := unix.SizeofNlMsghdr; n < len(data); n++ { // receive makes sure of the header
			if err := decode(data[:n:n]); err == nil {
				t.Errorf("%d bytes of a refusal are no error", n)
			}
			for _, v := range []byte{0, 3, 128, 255} {
				wrong := slices.Clone(data)
				wrong[n] = v
				decode(wrong)
				copy(wrong[unix.SizeofNlMsghdr+4:], []byte{v, v, v, v}) // how long the request is
				decode(wrong)
			}
		}
	}
}
