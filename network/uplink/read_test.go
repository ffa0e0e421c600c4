package uplink

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/subnet"
)

// steps runs steps until one fails, and says which.
func steps(all ...func() error) error {
	for i, step := range all {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func TestRead(t *testing.T) {
	n, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var k *kernel.Kernel
	if err := n.Do(func() (err error) { k, err = kernel.Open(network.NewTables()); return err }); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	h := k.Handle()

	index := func(name string) int {
		t.Helper()
		l, err := h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Index
	}
	veth := func(name, mac, peer string) func() error {
		return func() error {
			hw, err := net.ParseMAC(mac)
			if err != nil {
				return err
			}
			a := netlink.LinkAttrs{Name: name, MTU: 1400, HardwareAddr: hw}
			return h.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: peer})
		}
	}
	// withoutAutomatic stops the kernel from making link-local addresses, whose number would be up to it.
	withoutAutomatic := func(name string) func() error {
		return func() error {
			return h.LinkSetIP6AddrGenMode(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index(name)}}, nl.IN6_ADDR_GEN_MODE_NONE)
		}
	}
	up := func(name string) func() error {
		return func() error { return h.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index(name)}}) }
	}
	add := func(name string, a netlink.Addr) func() error {
		return func() error { return h.AddrAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index(name)}}, &a) }
	}
	prefix := func(s string) *net.IPNet { return ipNet(netip.MustParsePrefix(s)) }
	route := func(r netlink.Route) func() error { return func() error { return h.RouteAdd(&r) } }

	altName := func(name, alt string) func() error {
		return func() error {
			return h.LinkAddAltName(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index(name)}}, alt)
		}
	}

	err = steps(
		veth("eth0", "02:00:00:00:00:0a", "far0"), veth("eth1", "02:00:00:00:00:0b", "far1"),
		altName("eth0", "uplink-of-the-rack"),
		withoutAutomatic("eth0"), withoutAutomatic("far0"), withoutAutomatic("eth1"), withoutAutomatic("far1"), withoutAutomatic("lo"),
		up("lo"), up("far0"), up("eth0"), up("eth1"), // far1 stays down: eth1 has no carrier, so its IPv6 address stays tentative
		add("eth0", netlink.Addr{IPNet: prefix("192.0.2.5/24")}),
		add("eth0", netlink.Addr{IPNet: prefix("192.0.2.6/24")}),
		add("eth0", netlink.Addr{IPNet: prefix("198.51.100.1/32"), Peer: prefix("198.51.100.2/32")}),
		add("eth0", netlink.Addr{IPNet: prefix("192.0.0.9/24"), Scope: unix.RT_SCOPE_LINK}),
		add("eth0", netlink.Addr{IPNet: prefix("2001:db8::5/64"), Flags: unix.IFA_F_NODAD}),
		add("eth1", netlink.Addr{IPNet: prefix("2001:db8:1::7/64")}),
	)
	if err != nil {
		t.Fatal(err)
	}
	eth0, eth1 := index("eth0"), index("eth1")
	gateway := net.ParseIP("192.0.2.1")
	err = steps(
		route(netlink.Route{Dst: prefix("0.0.0.0/0"), Gw: gateway, LinkIndex: eth0, Priority: 100, Src: net.ParseIP("192.0.2.6")}),
		route(netlink.Route{Dst: prefix("0.0.0.0/0"), Priority: 50, MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: eth0, Gw: net.ParseIP("192.0.2.2")}, {LinkIndex: eth0, Gw: net.ParseIP("192.0.2.3")},
		}}),
		route(netlink.Route{Dst: prefix("0.0.0.0/0"), Priority: 10, Type: unix.RTN_UNREACHABLE}),
		route(netlink.Route{Dst: prefix("::/0"), Gw: net.ParseIP("2001:db8::1"), LinkIndex: eth0}),
		route(netlink.Route{Dst: prefix("10.77.0.0/16"), Gw: gateway, LinkIndex: eth0}),
	)
	if err != nil {
		t.Fatal(err)
	}

	dest := netip.MustParseAddr("10.77.1.1")
	s, err := Read(k, Options{CanReach: dest})
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int) Addr {
		return addr([]string{"192.0.0.9/24 notglobal", "192.0.2.5/24", "198.51.100.1/32", "192.0.2.6/24 secondary", "2001:db8::5/64"}[i])
	}
	peer := at(2)
	peer.OnLink = netip.MustParsePrefix("198.51.100.2/32")
	want := []Link{
		{Index: index("lo"), Name: "lo", MTU: 65536, Kind: "device", Up: true, Loopback: true,
			Addrs: []Addr{addr("127.0.0.1/8 notglobal"), addr("::1/128 notglobal")}},
		{Index: eth0, Name: "eth0", AltNames: []string{"uplink-of-the-rack"}, MTU: 1400, HardwareAddr: "02:00:00:00:00:0a", Kind: "veth", Up: true,
			Addrs: []Addr{at(0), at(1), peer, at(3), at(4)}},
		{Index: eth1, Name: "eth1", MTU: 1400, HardwareAddr: "02:00:00:00:00:0b", Kind: "veth", Up: true,
			Addrs: []Addr{addr("2001:db8:1::7/64 tentative")}},
	}
	for _, w := range want {
		if got, _ := s.named(w.Name); !reflect.DeepEqual(got, w) {
			t.Errorf("\n got %+v\nwant %+v", got, w)
		}
	}
	if far, ok := s.named("far1"); !ok || far.Up {
		t.Errorf("far1: %+v, want it there and down", far)
	}
	wantDefaults := []DefaultRoute{
		{Family: subnet.IPv4, Link: eth0, Metric: 50, Gateway: ip("192.0.2.2")},
		{Family: subnet.IPv4, Link: eth0, Metric: 50, Gateway: ip("192.0.2.3")},
		{Family: subnet.IPv4, Link: eth0, Metric: 100, Gateway: ip("192.0.2.1"), Source: ip("192.0.2.6")},
		{Family: subnet.IPv6, Link: eth0, Metric: 1024, Gateway: ip("2001:db8::1")},
	}
	if !reflect.DeepEqual(s.Defaults, wantDefaults) {
		t.Errorf("default routes\n got %+v\nwant %+v", s.Defaults, wantDefaults)
	}
	if s.Reach.Dest != dest || s.Reach.Link != eth0 || !s.Reach.Source.IsValid() || s.Reach.Problem != "" {
		t.Errorf("reach: %+v", s.Reach)
	}

	// What was read is fit to choose from.
	both := []subnet.Family{subnet.IPv4, subnet.IPv6}
	for _, o := range []Options{{Families: both}, {Families: both, Ifaces: []string{"eth1", "2001:db8::5"}}} {
		c, err := Choose(o, s)
		if err != nil || c.Name != "eth0" || c.Local[subnet.IPv6] != ip("2001:db8::5") {
			t.Errorf("%+v: chose %+v, %v", o, c, err)
		}
	}

	s, err = Read(k, Options{CanReach: netip.MustParseAddr("203.0.113.1")})
	if err != nil {
		t.Fatal(err)
	}
	if s.Reach.Link != 0 || s.Reach.Problem == "" {
		t.Errorf("reach behind an unreachable default route: %+v", s.Reach)
	}
}

func TestReadAgain(t *testing.T) {
	interrupted := 0
	_, err := retryInterrupted(func() ([]int, error) { interrupted++; return nil, netlink.ErrDumpInterrupted })
	if err == nil || interrupted != readAttempts {
		t.Errorf("a listing that is interrupted for ever: %v after %d attempts", err, interrupted)
	}
	items, err := retryInterrupted(func() ([]int, error) {
		if interrupted--; interrupted > 2 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(items) != 2 {
		t.Errorf("a listing that is interrupted twice: %v, %v", items, err)
	}
}

func TestDecodeAddr(t *testing.T) {
	tests := []struct {
		prefix string
		flags  int
		want   Flags
	}{
		{"192.0.2.1/24", 0, 0},
		{"192.0.2.1/24", unix.IFA_F_PERMANENT, 0},
		{"192.0.2.1/24", unix.IFA_F_SECONDARY | unix.IFA_F_PERMANENT, Secondary},
		{"2001:db8::1/64", unix.IFA_F_TEMPORARY, Temporary},
		{"2001:db8::1/64", unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED, Tentative | DADFailed},
		{"2001:db8::1/64", unix.IFA_F_DEPRECATED | unix.IFA_F_MANAGETEMPADDR, Deprecated},
	}
	for _, tt := range tests {
		p := netip.MustParsePrefix(tt.prefix)
		got, ok := decodeAddr(netlink.Addr{IPNet: ipNet(p), Flags: tt.flags})
		if want := (Addr{Prefix: p, OnLink: p.Masked(), Flags: tt.want}); !ok || got != want {
			t.Errorf("%s, flags %#x: %+v, want %+v", tt.prefix, tt.flags, got, want)
		}
	}
	if got, ok := decodeAddr(netlink.Addr{}); ok {
		t.Errorf("no address: %+v", got)
	}
}
