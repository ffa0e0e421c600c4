package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// TestNexthopGoneBetween: a nexthop object and its route came and went; a full read found neither, and what is received
// after it is that the route came and that the object went. Nobody says that the route went with it.
func TestNexthopGoneBetween(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		var s network.State
		route := network.Route{Link: testDevice, Gateway: addr4, OnLink: true, Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST}
		key := network.RouteKey{Prefix: netip.PrefixFrom(addr4, 24)}
		s.Routes = []network.Item[network.RouteKey, network.Route]{{Key: key, Value: s.Via(route)}}
		k.tables.Replace(network.Owner{Name: "peer"}, network.State{}, s)
		if err := k.Read(); err != nil {
			return err
		}
		came := encodeRoute(nil, unix.RTM_NEWROUTE, key, s.Routes[0].Value, 0)[unix.SizeofNlMsghdr:]
		came = attributeUint32(came, unix.RTA_OIF, uint32(k.byName[testDevice])) // as the kernel says, though we may not
		went := encodeNexthopDeletion(nil, s.Nexthops[0].Key)[unix.SizeofNlMsghdr:]
		k.enqueue(func() {
			k.inbox.add(notification(unix.RTM_NEWROUTE, came), "")
			k.inbox.add(notification(unix.RTM_DELNEXTHOP, went), "")
		})
		err := k.Observe()
		if c := k.tables.Routes.Get(key); c.Present {
			t.Errorf("the route is taken to be there: %+v, %d pending", c.Have, k.tables.Routes.PendingCount())
		}
		return err
	})
}

// notification is a message as the kernel sends it.
func notification(typ uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(append(b, make([]byte, unix.SizeofNlMsghdr-6)...), data...)
}

// TestUplinkBack: a route that could not be set while the uplink had no address is tried soon after that has come,
// however long it was.
func TestUplinkBack(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "uplink0"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge), k.Read()); err != nil {
			return err
		}
		k.Uplink(attrs.Name)
		key := network.RouteKey{Prefix: netip.MustParsePrefix("10.5.7.0/24")}
		want := network.Route{Link: attrs.Name, Gateway: netip.MustParseAddr("192.0.2.7"), Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST}
		k.tables.Routes.Want(network.Owner{Name: "peer"}, key, want)
		r := network.Reconciler{Tables: k.tables}
		var last time.Time
		now := time.Unix(0, 0)
		for now.Before(time.Unix(5, 0)) {
			last = now
			if now = r.Pass(now).Retry; now.IsZero() {
				return errors.New("the route could be set without an address")
			}
		}
		address := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.1/24"))}
		if err := netlink.AddrAdd(bridge, address); err != nil {
			return err
		}
		// As it is told.
		err := k.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, func(typ uint16, data []byte) {
			k.enqueue(func() { k.inbox.add(notification(typ, data), "") })
		}, &zeros{unix.SizeofIfAddrmsg})
		if err := errors.Join(err, k.Observe()); err != nil {
			return err
		}
		soon := last.Add(25 * time.Millisecond)
		if got := r.Pass(soon); len(got.Failures) != 0 || !k.tables.Routes.Get(key).Present {
			t.Errorf("25 ms after the last attempt: %+v, want the route set; the next would be after %s", got, got.Retry.Sub(last))
		}
		return nil
	})
}

// TestPodsInterfaceCostsNothing: the interface of a pod comes and goes, with addresses of both families. Nothing is read
// for it, so its cost does not depend on what else is on the node.
func TestPodsInterfaceCostsNothing(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		if err := k.Read(); err != nil {
			return err
		}
		k.UplinkStale()
		k.Uplink("uplink0")
		for _, x := range []struct {
			typ  uint16
			data []byte
		}{
			{unix.RTM_NEWLINK, podLink(77, "veth77", unix.IFF_UP)},
			{unix.RTM_NEWROUTE, podRoute(77, netip.MustParsePrefix("fe80::/64"))},
			{unix.RTM_NEWLINK, podLink(77, "veth77", 0)},
			{unix.RTM_DELROUTE, podRoute(77, netip.MustParsePrefix("fe80::/64"))},
			{unix.RTM_DELLINK, podLink(77, "veth77", 0)},
		} {
			k.enqueue(func() { k.inbox.add(notification(x.typ, x.data), "") })
			if reread := k.takeIn(); reread || len(k.suspects) > 0 || k.UplinkStale() {
				t.Errorf("after message %d: full read %t, suspects %v", x.typ, reread, k.suspects)
			}
			clear(k.suspects)
		}
		return nil
	})
}

// podLink is the content of a notification of an interface.
func podLink(index uint32, name string, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	text := append([]byte(name), 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(text)))
	b = binary.NativeEndian.AppendUint16(b, unix.IFLA_IFNAME)
	b = append(b, text...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// podRoute is the content of a notification of the route that the kernel makes for an IPv6 address.
func podRoute(index uint32, p netip.Prefix) []byte {
	r := network.Route{Protocol: unix.RTPROT_KERNEL, Type: unix.RTN_UNICAST}
	b := encodeRoute(nil, unix.RTM_NEWROUTE, network.RouteKey{Prefix: p, Metric: 256}, r, 0)[unix.SizeofNlMsghdr:]
	return attributeUint32(b, unix.RTA_OIF, index)
}

// TestFDBReportedTwice: before Linux 6.13, the kernel reports a change of an FDB entry a second time, without the remote.
func TestFDBReportedTwice(t *testing.T) {
	inNet(t, func(k *Kernel) error {
		link, err := netlink.LinkByName(testDevice)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetAlias(link, network.Alias), k.Read()); err != nil {
			return err
		}
		key, want := network.FDBKey{Link: testDevice, MAC: testMAC}, network.FDB{Remote: remote4, Permanent: true}
		k.tables.FDB.Want(network.Owner{Name: "peer"}, key, want)
		r := network.Reconciler{Tables: k.tables, KeepUnwanted: true}
		r.Pass(time.Now())
		second := neighbourEntry{family: unix.AF_BRIDGE, flags: unix.NTF_SELF, index: link.Attrs().Index, mac: testMAC}
		for _, typ := range []uint16{unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH} {
			message := encodeNeighbour(nil, typ, second)[unix.SizeofNlMsghdr:]
			k.enqueue(func() { k.inbox.add(notification(typ, message), "") })
			if err := k.Observe(); err != nil {
				return err
			}
			if c := k.tables.FDB.Get(key); !c.Present || c.Have != want {
				t.Errorf("message %d: the entry is taken to be %+v, present: %t", typ, c.Have, c.Present)
			}
		}
		return nil
	})
}
