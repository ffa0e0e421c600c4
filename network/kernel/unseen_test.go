package kernel_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
)

// TestConnectedRouteIsKnownBefore: a bridge holds a subnet that only later becomes a peer's.
func TestConnectedRouteIsKnownBefore(t *testing.T) {
	eachStyle(t, func(t *testing.T, _ *sandbox.Net, routes style) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "cni0"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 5, 2, 1), Mask: net.CIDRMask(24, 32)}}
		if err := errors.Join(netlink.LinkAdd(bridge), netlink.AddrAdd(bridge, addr), netlink.LinkSetUp(bridge)); err != nil {
			return err
		}
		n, err := open(wanted(0, routes))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		o, s := peer(2, routes)
		n.rec.Tables.Replace(o, network.State{}, s)
		if _, err := n.pass(); !errors.Is(err, network.ErrForeign) {
			t.Errorf("error %v, want ErrForeign: cni0 holds 10.5.2.0/24", err)
		}
		found, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Dst: dst("10.5.2.0/24")}, netlink.RT_FILTER_DST)
		if err != nil || len(found) != 1 || found[0].LinkIndex != bridge.Attrs().Index {
			t.Errorf("routes to 10.5.2.0/24: %v, %v, want the connected one alone", found, err)
		}
		return nil
	})
}

// TestGroupIsKnownBefore: somebody has a group of nexthops in a slot that only later becomes a peer's.
func TestGroupIsKnownBefore(t *testing.T) {
	inNamespace(t, func(*sandbox.Net) error {
		n, err := open(wanted(1, byID))
		if err != nil {
			return err
		}
		defer n.Close()
		if _, err := n.pass(); err != nil {
			return err
		}
		group := binary.NativeEndian.AppendUint32(nil, uint32(network.NexthopIDOf(netip.MustParseAddr("10.5.2.0"))))
		group = append(group, 0, 0, 0, 0)
		if err := nexthop(unix.RTM_NEWNEXTHOP, "10.5.3.0", unix.RTPROT_STATIC, nlAttr(unix.NHA_GROUP, group)); err != nil {
			return err
		}
		if err := n.Read(); err != nil {
			return err
		}
		if pending := n.rec.Tables.Pending(); pending != 0 {
			t.Errorf("%d pending: the group is not ours", pending)
		}
		o, s := peer(3, byID)
		n.rec.Tables.Replace(o, network.State{}, s)
		if _, err := n.pass(); err != nil {
			return err
		}
		return verify(2, byID)
	})
}
