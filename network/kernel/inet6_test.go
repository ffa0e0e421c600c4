package kernel_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

const device6 = "flannel-v6.1"

// wanted6 is a node with one peer, over IPv6.
func wanted6(local string) network.State {
	gateway, mac := netip.MustParseAddr("fd00:5:0:7::"), network.MAC{0x0e, 0, 0, 0, 6, 7}
	prefix := netip.PrefixFrom(gateway, 64)
	return network.State{
		Links: []network.Item[string, network.Link]{{Key: device6, Value: network.Link{
			Kind: network.KindVXLAN, Settings: network.VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr(local)}, MTU: 1430, MAC: ownMAC,
			Alias: network.Alias, Up: true,
		}}},
		Addresses: []network.Item[network.AddressKey, network.Address]{
			{Key: network.AddressKey{Link: device6, Prefix: netip.MustParsePrefix("fd00:5:0:1::/128")}},
		},
		FDB: []network.Item[network.FDBKey, network.FDB]{{
			Key: network.FDBKey{Link: device6, MAC: mac}, Value: network.FDB{Remote: netip.MustParseAddr("fd00:31::7"), Permanent: true},
		}},
		Neighbours: []network.Item[network.NeighbourKey, network.Neighbour]{{
			Key: network.NeighbourKey{Link: device6, IP: gateway}, Value: network.Neighbour{MAC: mac, Permanent: true},
		}},
		Routes: []network.Item[network.RouteKey, network.Route]{{
			Key:   network.RouteKey{Prefix: prefix, Metric: network.DefaultMetric(prefix)},
			Value: network.Route{Link: device6, Gateway: gateway, OnLink: true, Protocol: network.RouteProtocol, Type: unix.RTN_UNICAST},
		}},
	}
}

// TestGatewayCoveredByAnotherRoute: a foreign wider route covers the peer's address, and one stands in our route's
// place.
func TestGatewayCoveredByAnotherRoute(t *testing.T) {
	inNamespace(t, func(*sandbox.Net) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "uplink"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge),
			netlink.AddrAdd(bridge, &netlink.Addr{IPNet: dst("fd00:31::1/64"), Flags: unix.IFA_F_NODAD}))
		if err != nil {
			return err
		}
		router := net.ParseIP("fd00:31::ff")
		wide := &netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: dst("fd00::/8"), Gw: router}
		theirs := &netlink.Route{LinkIndex: bridge.Attrs().Index, Dst: dst("fd00:5:0:7::/64"), Gw: router}
		if err := errors.Join(netlink.RouteAdd(wide), netlink.RouteAdd(theirs)); err != nil {
			return err
		}
		tables := network.NewTables()
		tables.Replace(nodeOwn, network.State{}, wanted6("fd00:31::1"))
		n, err := open(tables)
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		if err := n.Read(); err != nil {
			return err
		}
		if pending := tables.Pending(); pending != 0 {
			t.Errorf("%d pending: %+v", pending, tables.Counts())
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V6)
		for _, r := range routes {
			if ones, bits := r.Dst.Mask.Size(); ones == bits && r.Protocol == network.RouteProtocol {
				t.Errorf("left over: %v", r)
			}
		}
		return err
	})
}

// TestLocalAddressChangedOverIPv6: the FDB entries are made anew, since each keeps the source it has sent from.
func TestLocalAddressChangedOverIPv6(t *testing.T) {
	inNamespace(t, func(ns *sandbox.Net) error {
		before, after := wanted6("fd00:31::1"), wanted6("fd00:31::2")
		tables := network.NewTables()
		tables.Replace(nodeOwn, network.State{}, before)
		n, err := open(tables)
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		done, deleted := make(chan struct{}), make(chan netlink.NeighUpdate, 100)
		if err := netlink.NeighSubscribe(deleted, done); err != nil {
			return err
		}
		tables.Replace(nodeOwn, before, after)
		r, err := n.pass()
		if err != nil {
			return err
		}
		if r.Set != 2 || r.Repaired != 0 {
			t.Errorf("%+v, want device and FDB entry set", r)
		}
		for u := range deleted {
			if u.Type == unix.RTM_DELNEIGH && u.Family == unix.AF_BRIDGE && u.HardwareAddr.String() == "0e:00:00:00:06:07" {
				close(done) // it was deleted, and is there again
				break
			}
		}
		for range deleted { // until the listener has ended
		}
		if err := n.Read(); err != nil {
			return err
		}
		if pending := tables.Pending(); pending != 0 {
			t.Errorf("%d pending: %+v", pending, tables.Counts())
		}
		return nil
	})
}
