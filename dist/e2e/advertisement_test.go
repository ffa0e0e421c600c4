package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestRouterAdvertisements: nodes that have their IPv6 addresses and their default route from a router's advertisements.
// Their kernel makes two addresses each: one of the interface's hardware address, and a temporary one, which is the newer and
// by use_tempaddr the preferred one. Both are tentative at first.
//
// The daemon forwards, and a router takes no advertisements unless told to: the default route stays, and advertisements go on
// being heeded. No temporary and no tentative address becomes a public IP.
func TestRouterAdvertisements(t *testing.T) {
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Families: families[:], Config: "-"})
	ctx := testctx.New(t)
	for _, n := range l.Nodes() {
		if err := byAdvertisement(n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range l.Nodes() {
		waitFor(ctx, t, "what is made of an advertisement", func() error {
			advertise(t, 1800) // again and again, as routers do
			return hasBothAddresses(n, unix.IFA_F_TENTATIVE)
		})
	}
	if err := l.Etcd().PutConfig(ctx, lab.NetworkConfig(families[:], "", lab.NodesChoose)); err != nil {
		t.Fatal(err)
	}
	waitTunnels(ctx, t, l)
	expectPublicIPs(ctx, t, l, func(i int) [2]netip.Addr {
		n := l.Nodes()[i]
		return [2]netip.Addr{subnet.IPv4: n.Addr(subnet.IPv4), subnet.IPv6: fromHardware(t, n)}
	})
	for _, n := range l.Nodes() {
		waitSays(ctx, t, n, "is tentative: duplicate address detection is running")
		if err := errors.Join(hasBothAddresses(n, 0), hasAdvertisedRoute(n, true)); err != nil {
			t.Error(err)
		}
		for path, want := range map[string]string{"eth0/accept_ra": "2", "eth0/forwarding": "1", "all/forwarding": "1"} {
			got, err := n.Output(ctx, "cat", "/proc/sys/net/ipv6/conf/"+path)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s: %s is %q, %v, want %s", n.Name(), path, got, err, want)
			}
		}
	}
	pods := podOnEach(ctx, t, l)
	probeAll(ctx, t, l, pods)
	for _, lifetime := range []uint16{0, 1800} { // the router retires, and comes back
		advertise(t, lifetime)
		for _, n := range l.Nodes() {
			waitFor(ctx, t, "the default route", func() error { return hasAdvertisedRoute(n, lifetime > 0) })
		}
		probeAll(ctx, t, l, pods)
	}
	if err := probeOutside(ctx, l, pods); err != nil {
		t.Error(err)
	}
}

// byAdvertisement takes a node's IPv6 addresses and default route, and has it make them of advertisements.
func byAdvertisement(n *lab.Node) error {
	for path, value := range map[string]string{
		"forwarding": "0", "accept_ra": "1", "autoconf": "1", "use_tempaddr": "2", "accept_dad": "1",
	} {
		if err := setSysctl(n, "net/ipv6/conf/eth0/"+path, value); err != nil {
			return err
		}
	}
	return onUplink(n, func(eth0 netlink.Link) error {
		routes, err := netlink.RouteList(eth0, netlink.FAMILY_V6)
		for _, r := range routes {
			if ones, _ := r.Dst.Mask.Size(); ones == 0 {
				err = errors.Join(err, netlink.RouteDel(&r))
			}
		}
		addrs, listErr := netlink.AddrList(eth0, netlink.FAMILY_V6)
		err = errors.Join(err, listErr)
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() {
				err = errors.Join(err, netlink.AddrDel(eth0, &a))
			}
		}
		return err
	})
}

// advertise sends a router advertisement (RFC 4861, section 4.2) on the nodes' segment: that there is a default route for so
// many seconds, 0 for no longer, and that hosts make themselves addresses of the segment's prefix.
func advertise(t *testing.T, lifetime uint16) {
	t.Helper()
	const routerAdvertisement, hops, prefixOption, onLinkAndAutonomous, seconds = 134, 64, 3, 0xc0, 3600
	prefix := netip.MustParsePrefix("fd00:31::/64")
	packet := []byte{routerAdvertisement, 0, 0, 0, hops, 0}
	packet = binary.BigEndian.AppendUint16(packet, lifetime)
	packet = append(packet, make([]byte, 8)...)                                             // reachable time, retransmission timer: unspecified
	packet = append(packet, prefixOption, 4, byte(prefix.Bits()), onLinkAndAutonomous)      // section 4.6.2
	packet = binary.BigEndian.AppendUint32(packet, seconds)                                 // valid
	packet = binary.BigEndian.AppendUint32(packet, seconds)                                 // preferred
	packet = slices.Concat(packet, make([]byte, 4), prefix.Addr().AsSlice())                // reserved, prefix
	if err := sendICMPv6("underlay0", netip.MustParseAddr("ff02::1"), packet); err != nil { // all nodes
		t.Fatalf("send a router advertisement: %v", err)
	}
}

// sendICMPv6 sends a packet with the hop limit that neighbour discovery demands. The kernel fills in the checksum, and for a
// link-local destination a link-local source.
func sendICMPv6(device string, to netip.Addr, packet []byte) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	const hopLimit = 255
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hopLimit),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hopLimit),
		unix.Sendto(fd, packet, 0, &unix.SockaddrInet6{Addr: to.As16(), ZoneId: uint32(link.Index)}))
}

// hasBothAddresses checks that a node has an address of its uplink's hardware address and a temporary one, and that they have
// that flag, or are free of IFA_F_TENTATIVE.
func hasBothAddresses(n *lab.Node, flag int) error {
	return onUplink(n, func(eth0 netlink.Link) error {
		addrs, err := netlink.AddrList(eth0, netlink.FAMILY_V6)
		if err != nil {
			return err
		}
		addrs = slices.DeleteFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() })
		temporary := 0
		for _, a := range addrs {
			if a.Flags&unix.IFA_F_TEMPORARY != 0 {
				temporary++
			}
			if a.Flags&unix.IFA_F_TENTATIVE != flag {
				return fmt.Errorf("%s has flags %#x", a.IP, a.Flags)
			}
		}
		if len(addrs) != 2 || temporary != 1 {
			return fmt.Errorf("addresses %v, want two, one of them temporary", addrs)
		}
		return nil
	})
}

// fromHardware is the address that a node makes of its uplink's hardware address (RFC 4291, appendix A).
func fromHardware(t *testing.T, n *lab.Node) (addr netip.Addr) {
	t.Helper()
	err := onUplink(n, func(eth0 netlink.Link) error {
		mac := eth0.Attrs().HardwareAddr
		bytes := netip.MustParseAddr("fd00:31::").As16()
		copy(bytes[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
		addr = netip.AddrFrom16(bytes)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// hasAdvertisedRoute checks whether a node has a default route that it was advertised.
func hasAdvertisedRoute(n *lab.Node, want bool) error {
	return onUplink(n, func(eth0 netlink.Link) error {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{LinkIndex: eth0.Attrs().Index}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
		if err != nil {
			return err
		}
		has := slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Protocol == unix.RTPROT_RA })
		if has != want {
			return fmt.Errorf("default routes %v, want one of an advertisement: %t", routes, want)
		}
		return nil
	})
}

// probeOutside probes from each pod to the outside in each family. What the outside sees is the node's address that routing
// chooses, and not always the public IP.
func probeOutside(ctx context.Context, l *lab.Lab, pods []*lab.Endpoint) (err error) {
	for _, p := range pods {
		for _, f := range l.Families() {
			_, e := p.SourceSeen(ctx, lab.Sender{}, l.Outside().Echo(f))
			err = errors.Join(err, e)
		}
	}
	return err
}
