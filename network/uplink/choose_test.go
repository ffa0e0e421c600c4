package uplink

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// addr makes an Addr from "192.0.2.5/24" or "192.0.2.5/24 secondary deprecated".
func addr(s string) Addr {
	words := strings.Fields(s)
	p := netip.MustParsePrefix(words[0])
	a := Addr{Prefix: p, OnLink: p.Masked()}
	for _, w := range words[1:] {
		a.Flags |= map[string]Flags{
			"tentative": Tentative, "dadfailed": DADFailed, "deprecated": Deprecated,
			"dynamic": Dynamic, "temporary": Temporary, "secondary": Secondary, "notglobal": NotGlobal,
		}[w]
	}
	return a
}

func link(index int, name string, addrs ...string) Link {
	l := Link{Index: index, Name: name, MTU: 1500, HardwareAddr: "02:00:00:00:00:0" + string(rune('0'+index)), Kind: "veth", Up: true}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, addr(a))
	}
	return l
}

// host is a machine with much of what machines have.
func host() Snapshot {
	lo := link(1, "lo", "127.0.0.1/8 notglobal", "10.255.0.1/32", "::1/128 notglobal")
	lo.MTU, lo.Loopback, lo.HardwareAddr = 65536, true, ""
	eth0 := link(2, "eth0", "192.0.2.5/24", "192.0.2.6/24 secondary", "fe80::5/64 notglobal",
		"2001:db8::a1/64 temporary", "2001:db8::5/64")
	eth0.AltNames = []string{"enp1s0"}
	eth1 := link(3, "eth1", "198.51.100.7/24", "fe80::7/64 notglobal")
	eth1.MTU = 9000
	eth2 := link(4, "eth2", "203.0.113.2/24")
	eth2.Up = false
	eth3 := link(5, "eth3")
	cni := link(6, "cni0", "10.5.29.1/24")
	wg := link(7, "wg0", "172.16.0.2/32", "fd00::2/64 deprecated", "fd00::3/64 tentative", "fd00::4/64 dadfailed tentative")
	wg.MTU, wg.HardwareAddr = 1420, ""
	wg.Addrs[0].OnLink = netip.MustParsePrefix("172.16.0.1/32")
	return Snapshot{
		Links: []Link{lo, eth0, eth1, eth2, eth3, cni, wg},
		Defaults: []DefaultRoute{
			{Family: subnet.IPv4, Link: 3, Metric: 600, Gateway: ip("198.51.100.1")},
			{Family: subnet.IPv4, Link: 2, Metric: 100, Gateway: ip("192.0.2.1")},
			{Family: subnet.IPv6, Link: 2, Metric: 1024, Gateway: ip("fe80::1")},
		},
	}
}

func TestChoose(t *testing.T) {
	v4, v6 := []subnet.Family{subnet.IPv4}, []subnet.Family{subnet.IPv6}
	both := []subnet.Family{subnet.IPv4, subnet.IPv6}
	none := netip.Addr{}
	public := func(a ...string) (p [2]netip.Addr) {
		for _, s := range a {
			p[subnet.FamilyOf(ip(s))] = ip(s)
		}
		return p
	}
	tests := []struct {
		name     string
		o        Options
		edit     func(*Snapshot)
		link     string
		local    string // "IPv4 IPv6"; "-" for none
		public   string // as local; empty: the same
		why      string
		rejected []string
	}{
		{name: "default route, lowest metric", o: Options{Families: v4},
			link: "eth0", local: "192.0.2.5 -", why: "it has the IPv4 default route"},
		{name: "IPv6: neither link-local nor temporary", o: Options{Families: v6},
			link: "eth0", local: "- 2001:db8::5", why: "it has the IPv6 default route"},
		{name: "dual stack", o: Options{Families: both}, link: "eth0", local: "192.0.2.5 2001:db8::5", why: "it has the IPv4 default route"},
		{name: "dual stack: the first family's interface lacks the second", o: Options{Families: both},
			edit: func(s *Snapshot) { s.Defaults[0].Metric = 1 },
			link: "eth0", local: "192.0.2.5 2001:db8::5", why: "it has the IPv4 default route", rejected: []string{"eth1 has no usable IPv6 address: fe80::7 is link-local"}},
		{name: "equal metrics: the kernel's order", o: Options{Families: v4},
			edit: func(s *Snapshot) { s.Defaults[0].Metric = 100 }, link: "eth1", local: "198.51.100.7 -", why: "it has the IPv4 default route"},
		{name: "the default route's interface is down", o: Options{Families: v4},
			edit: func(s *Snapshot) { s.Links[1].Up = false },
			link: "eth1", local: "198.51.100.7 -", why: "it has the IPv4 default route", rejected: []string{"eth0 is down"}},
		{name: "the default route's source", o: Options{Families: v4},
			edit: func(s *Snapshot) { s.Defaults[1].Source = ip("192.0.2.6") }, link: "eth0", local: "192.0.2.6 -", why: "it has the IPv4 default route"},
		{name: "the default route's source is of another interface", o: Options{Families: v4},
			edit: func(s *Snapshot) { s.Defaults[1].Source = ip("10.255.0.1") }, link: "eth0", local: "192.0.2.5 -", why: "it has the IPv4 default route"},
		{name: "a default route out of an interface that is gone", o: Options{Families: v4},
			edit: func(s *Snapshot) { s.Defaults[1].Link = 99 }, link: "eth1", local: "198.51.100.7 -", why: "it has the IPv4 default route"},
		{name: "primary before deprecated", o: Options{Families: v4},
			edit: func(s *Snapshot) { s.Links[1].Addrs[0].Flags = Deprecated }, link: "eth0", local: "192.0.2.6 -", why: "it has the IPv4 default route"},

		{name: "a service's address is listed first", o: Options{Families: both},
			edit: func(s *Snapshot) {
				s.Links[1].Addrs = append([]Addr{addr("192.0.2.100/32"), addr("2001:db8::100/128")}, s.Links[1].Addrs...)
			},
			link: "eth0", local: "192.0.2.5 2001:db8::5", why: "it has the IPv4 default route"},
		{name: "the only address has no subnet, as in some clouds", o: Options{Families: both},
			edit: func(s *Snapshot) {
				s.Links[1].Addrs = []Addr{addr("192.0.2.100/32"), addr("192.0.2.101/32"), addr("2001:db8::100/128")}
			},
			link: "eth0", local: "192.0.2.100 2001:db8::100", why: "it has the IPv4 default route"},
		{name: "DHCPv6 assigned an address without a subnet", o: Options{Families: v6},
			edit: func(s *Snapshot) {
				s.Links[1].Addrs = append([]Addr{addr("2001:db8::d/128 dynamic")}, s.Links[1].Addrs...)
			},
			link: "eth0", local: "- 2001:db8::d", why: "it has the IPv6 default route"},
		{name: "a service's address that is in use already is left", o: Options{Families: v4, Current: public("192.0.2.100")},
			edit: func(s *Snapshot) {
				s.Links[1].Addrs = append([]Addr{addr("192.0.2.100/32")}, s.Links[1].Addrs...)
			},
			link: "eth0", local: "192.0.2.5 -", why: "it has the IPv4 default route"},
		{name: "an interface with a link-local address only, named", o: Options{Families: v4, Ifaces: []string{"eth3"}},
			edit: func(s *Snapshot) { s.Links[4].Addrs = []Addr{addr("169.254.3.4/16 notglobal")} },
			link: "eth3", local: "169.254.3.4 -", why: "--iface=eth3"},
		{name: "a link-local address, named", o: Options{Families: v4, Ifaces: []string{"169.254.3.4"}},
			edit: func(s *Snapshot) { s.Links[4].Addrs = []Addr{addr("169.254.3.4/16 notglobal")} },
			link: "eth3", local: "169.254.3.4 -", why: "--iface=169.254.3.4"},
		{name: "a link-local address beside another", o: Options{Families: v4, Ifaces: []string{"eth1"}},
			edit: func(s *Snapshot) {
				s.Links[2].Addrs = append([]Addr{addr("169.254.3.4/16")}, s.Links[2].Addrs...)
			},
			link: "eth1", local: "198.51.100.7 -", why: "--iface=eth1"},
		{name: "the default route's interface has a link-local address only", o: Options{Families: v4},
			edit: func(s *Snapshot) { s.Links[1].Addrs = []Addr{addr("169.254.3.4/16 notglobal")} },
			link: "eth1", local: "198.51.100.7 -", why: "it has the IPv4 default route",
			rejected: []string{"eth0 has no usable IPv4 address: 169.254.3.4 is link-local"}},
		{name: "inside Network, beside what is leased", o: Options{Families: v4, Overlay: []netip.Prefix{netip.MustParsePrefix("192.0.0.0/12")},
			Beside: func(a netip.Addr) bool { return a == ip("192.0.2.6") }},
			link: "eth0", local: "192.0.2.6 -", why: "it has the IPv4 default route"},

		{name: "iface by name", o: Options{Families: v4, Ifaces: []string{"eth1"}}, link: "eth1", local: "198.51.100.7 -", why: "--iface=eth1"},
		{name: "iface by its other name", o: Options{Families: v4, Ifaces: []string{"enp1s0"}}, link: "eth0", local: "192.0.2.5 -", why: "--iface=enp1s0"},
		{name: "iface by address", o: Options{Families: v4, Ifaces: []string{"192.0.2.6"}}, link: "eth0", local: "192.0.2.6 -", why: "--iface=192.0.2.6"},
		{name: "iface by address of one family, both wanted", o: Options{Families: both, Ifaces: []string{"192.0.2.6"}},
			link: "eth0", local: "192.0.2.6 2001:db8::5", why: "--iface=192.0.2.6"},
		{name: "iface by temporary address", o: Options{Families: v6, Ifaces: []string{"2001:db8::a1"}},
			link: "eth0", local: "- 2001:db8::a1", why: "--iface=2001:db8::a1"},
		{name: "ifaces in the order given", o: Options{Families: v4, Ifaces: []string{"eth7", "192.0.2.9", "eth2", "eth3", "eth1", "eth0"}},
			link: "eth1", local: "198.51.100.7 -", why: "--iface=eth1",
			rejected: []string{"eth7 does not exist", "192.0.2.9 does not exist", "eth2 is down", "eth3 has no IPv4 address"}},
		{name: "only a deprecated address", o: Options{Families: v6, Ifaces: []string{"wg0"}}, link: "wg0", local: "- fd00::2", why: "--iface=wg0"},
		{name: "lo by name: MTU of the way out", o: Options{Families: v4, Ifaces: []string{"lo"}}, link: "lo", local: "10.255.0.1 -", why: "--iface=lo"},
		{name: "lo by address", o: Options{Families: v4, Ifaces: []string{"10.255.0.1"}}, link: "lo", local: "10.255.0.1 -", why: "--iface=10.255.0.1"},
		{name: "address on two interfaces: the one that is up", o: Options{Families: v4, Ifaces: []string{"203.0.113.2"}},
			edit: func(s *Snapshot) { s.Links[4].Addrs = []Addr{addr("203.0.113.2/24")} },
			link: "eth3", local: "203.0.113.2 -", why: "--iface=203.0.113.2"},

		{name: "regex for a name", o: Options{Families: v4, IfaceRegexes: []string{"^wg"}}, link: "wg0", local: "172.16.0.2 -", why: "--iface-regex=^wg"},
		{name: "regex for an address", o: Options{Families: v4, IfaceRegexes: []string{`^192\.0\.2\.6`}},
			link: "eth0", local: "192.0.2.6 -", why: `--iface-regex=^192\.0\.2\.6`},
		{name: "regexes in the order given", o: Options{Families: v4, IfaceRegexes: []string{"^ens", "^eth[23]", "^198"}},
			link: "eth1", local: "198.51.100.7 -", why: "--iface-regex=^198", rejected: []string{"eth2 is down", "eth3 has no IPv4 address"}},
		{name: "regex after iface", o: Options{Families: v4, Ifaces: []string{"eth7"}, IfaceRegexes: []string{"eth1"}},
			link: "eth1", local: "198.51.100.7 -", why: "--iface-regex=eth1", rejected: []string{"eth7 does not exist"}},
		{name: "regex for everything is not lo", o: Options{Families: v4, IfaceRegexes: []string{"."}}, link: "eth0", local: "192.0.2.5 -", why: "--iface-regex=."},
		{name: "regex for a link-local address does not match", o: Options{Families: v6, IfaceRegexes: []string{"^fe80", "^2001"}},
			link: "eth0", local: "- 2001:db8::5", why: "--iface-regex=^2001"},
		{name: "regex for the overlay's addresses", o: Options{Families: v4, IfaceRegexes: []string{`^10\.`, "cni0|eth1"},
			Overlay: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}}, link: "eth1", local: "198.51.100.7 -", why: "--iface-regex=cni0|eth1"},

		{name: "can reach", o: Options{Families: v4, CanReach: ip("198.51.100.200")},
			edit: func(s *Snapshot) {
				s.Reach = Reach{Dest: ip("198.51.100.200"), Link: 3, Source: ip("198.51.100.7")}
			},
			link: "eth1", local: "198.51.100.7 -", why: "it leads to --iface-can-reach=198.51.100.200"},
		{name: "can reach: the source that the kernel would take", o: Options{Families: both, CanReach: ip("192.0.2.77")},
			edit: func(s *Snapshot) { s.Reach = Reach{Dest: ip("192.0.2.77"), Link: 2, Source: ip("192.0.2.6")} },
			link: "eth0", local: "192.0.2.6 2001:db8::5", why: "it leads to --iface-can-reach=192.0.2.77"},
		{name: "can reach an address of its own", o: Options{Families: v4, CanReach: ip("198.51.100.7")},
			edit: func(s *Snapshot) {
				s.Reach = Reach{Dest: ip("198.51.100.7"), Link: 1, Source: ip("198.51.100.7")}
			},
			link: "eth1", local: "198.51.100.7 -", why: "it leads to --iface-can-reach=198.51.100.7"},
		{name: "iface before can reach", o: Options{Families: v4, Ifaces: []string{"eth0"}, CanReach: ip("198.51.100.200")},
			edit: func(s *Snapshot) { s.Reach = Reach{Dest: ip("198.51.100.200"), Link: 3} },
			link: "eth0", local: "192.0.2.5 -", why: "--iface=eth0"},

		{name: "public IP behind NAT", o: Options{Families: v4, PublicIP: public("203.0.113.99")},
			link: "eth0", local: "192.0.2.5 -", public: "203.0.113.99 -", why: "it has the IPv4 default route"},
		{name: "public IP of another interface", o: Options{Families: v4, PublicIP: public("198.51.100.7")},
			link: "eth1", local: "198.51.100.7 -", why: "it has --public-ip=198.51.100.7"},
		{name: "public IP of an interface that is down", o: Options{Families: v4, PublicIP: public("203.0.113.2")},
			link: "eth0", local: "192.0.2.5 -", public: "203.0.113.2 -", why: "it has the IPv4 default route", rejected: []string{"eth2 is down"}},
		{name: "public IP on lo", o: Options{Families: v4, PublicIP: public("10.255.0.1")},
			link: "eth0", local: "192.0.2.5 -", public: "10.255.0.1 -", why: "it has the IPv4 default route"},
		{name: "public IP that is secondary", o: Options{Families: v4, Ifaces: []string{"eth0"}, PublicIP: public("192.0.2.6")},
			link: "eth0", local: "192.0.2.6 -", why: "--iface=eth0"},
		{name: "public IP and another address named", o: Options{Families: v4, Ifaces: []string{"192.0.2.5"}, PublicIP: public("192.0.2.6")},
			link: "eth0", local: "192.0.2.5 -", public: "192.0.2.6 -", why: "--iface=192.0.2.5"},
		{name: "public IP that is temporary", o: Options{Families: v6, PublicIP: public("2001:db8::a1")},
			link: "eth0", local: "- 2001:db8::a1", why: "it has --public-ipv6=2001:db8::a1"},
		{name: "public IPs of both families", o: Options{Families: both, PublicIP: public("203.0.113.99", "2001:db8:ffff::1")},
			link: "eth0", local: "192.0.2.5 2001:db8::5", public: "203.0.113.99 2001:db8:ffff::1", why: "it has the IPv4 default route"},
		{name: "public IP of a family not in use", o: Options{Families: v4, PublicIP: public("2001:db8:ffff::1")},
			link: "eth0", local: "192.0.2.5 -", why: "it has the IPv4 default route"},
	}
	parse := func(s string) (a [2]netip.Addr) {
		for f, word := range strings.Fields(s) {
			if a[f] = none; word != "-" {
				a[f] = ip(word)
			}
		}
		return a
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := host()
			if tt.edit != nil {
				tt.edit(&s)
			}
			got, err := Choose(tt.o, s)
			if err != nil {
				t.Fatal(err)
			}
			l, _ := s.named(tt.link)
			if got.Name != tt.link || got.Index != l.Index || got.HardwareAddr != l.HardwareAddr {
				t.Errorf("chose %s (%d, %s), want %s", got.Name, got.Index, got.HardwareAddr, tt.link)
			}
			if want := l.MTU; !l.Loopback && got.MTU != want || l.Loopback && got.MTU != 1500 {
				t.Errorf("MTU %d, the interface has %d", got.MTU, want)
			}
			if want := parse(tt.local); got.Local != want {
				t.Errorf("local %v, want %v", got.Local, want)
			}
			if tt.public == "" {
				tt.public = tt.local
			}
			if want := parse(tt.public); got.PublicIP != want {
				t.Errorf("public %v, want %v", got.PublicIP, want)
			}
			if got.Why != tt.why {
				t.Errorf("why: %q, want %q", got.Why, tt.why)
			}
			var rejected []string
			for _, r := range got.Rejected {
				rejected = append(rejected, r.String())
			}
			if !slices.Equal(rejected, tt.rejected) {
				t.Errorf("rejected %q, want %q", rejected, tt.rejected)
			}
			for f := range got.OnLink {
				if used := got.Local[f].IsValid(); used != (len(got.OnLink[f]) > 0) {
					t.Errorf("on-link prefixes %v with local address %v", got.OnLink[f], got.Local[f])
				}
			}
		})
	}
}

func TestChooseErrors(t *testing.T) {
	v4, both := []subnet.Family{subnet.IPv4}, []subnet.Family{subnet.IPv4, subnet.IPv6}
	here := "(interfaces here: eth0 (192.0.2.5/24, 192.0.2.6/24, 2001:db8::a1/64, 2001:db8::5/64), eth1 (198.51.100.7/24), " +
		"eth2 (down, 203.0.113.2/24), eth3 (no address), cni0 (10.5.29.1/24), wg0 (172.16.0.2/32, fd00::2/64, fd00::3/64, fd00::4/64))"
	overlay := []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}
	tests := []struct {
		name string
		o    Options
		edit func(*Snapshot)
		want string
	}{
		{"no family", Options{}, nil, "choose the uplink: no family is in use: enable IPv4 or IPv6 in the network config"},
		{"no such interface", Options{Families: v4, Ifaces: []string{"eth7"}}, nil,
			"choose the uplink: no interface matches --iface=eth7; name an existing one, or none to use that of the default route " + here},
		{"no match", Options{Families: v4, Ifaces: []string{"eth7"}, IfaceRegexes: []string{"^ens"}}, nil,
			"choose the uplink: no interface matches --iface=eth7, --iface-regex=^ens; name an existing one, or none to use that of the default route " + here},
		{"no expression", Options{Families: v4, IfaceRegexes: []string{"eth("}}, nil,
			"choose the uplink: --iface-regex=eth(: error parsing regexp: missing closing ): `eth(` " + here},
		{"none fits", Options{Families: both, Ifaces: []string{"eth2", "eth3", "eth1", "eth1"}}, nil,
			"choose the uplink by --iface=eth2, --iface=eth3, --iface=eth1, --iface=eth1: eth2 is down, eth3 has no IPv4 address, " +
				"eth1 has no usable IPv6 address: fe80::7 is link-local; bring it up with an address of each family in use (IPv4 and IPv6), " +
				"or name another with --iface " + here},
		{"every problem an address can have", Options{Families: []subnet.Family{subnet.IPv6}, Ifaces: []string{"eth3"}, Overlay: []netip.Prefix{netip.MustParsePrefix("fd00:5::/56")}},
			func(s *Snapshot) {
				s.Links = []Link{link(5, "eth3", "::1/128", "fe80::1/64", "fd00::1/64 tentative", "fd00::2/64 tentative dadfailed",
					"fd00::3/64 temporary", "fd00::4/64 notglobal", "fd00:5::1/64")}
			},
			"choose the uplink by --iface=eth3: eth3 has no usable IPv6 address: ::1 is a loopback address, fe80::1 is link-local, " +
				"fd00::1 is tentative: duplicate address detection is running, fd00::2 is a duplicate: another host has it, " +
				"fd00::3 is temporary, fd00::4 is not of global scope, fd00:5::1 is inside the overlay's network fd00:5::/56; bring it up with an address " +
				"of each family in use (IPv6), or name another with --iface (interfaces here: eth3 (::1/128, fd00::1/64, fd00::2/64, fd00::3/64, fd00::4/64, fd00:5::1/64))"},
		{"no default route", Options{Families: v4}, func(s *Snapshot) { s.Defaults = nil },
			"choose the uplink: no default route for IPv4: name the interface with --iface " + here},
		{"a default route over lo", Options{Families: v4}, func(s *Snapshot) { s.Defaults[0].Link, s.Defaults[1].Link = 1, 1 },
			"choose the uplink: no default route for IPv4: name the interface with --iface " + here},
		{"the default routes' interfaces do not fit", Options{Families: v4}, func(s *Snapshot) { s.Defaults[0].Link, s.Defaults[1].Link = 4, 5 },
			"choose the uplink by the default route: eth3 has no IPv4 address, eth2 is down; bring it up with an address of each family in use (IPv4), " +
				"or name another with --iface " + here},
		{"nothing but lo", Options{Families: v4}, func(s *Snapshot) { s.Links, s.Defaults = s.Links[:1], nil },
			"choose the uplink: no default route for IPv4: name the interface with --iface (interfaces here: none but loopback)"},
		{"lo without a way out", Options{Families: v4, Ifaces: []string{"lo"}}, func(s *Snapshot) { s.Links, s.Defaults = s.Links[:1], nil },
			"choose the uplink by --iface=lo: lo is the loopback interface, and without a default route its MTU is unknown; bring it up with an address of " +
				"each family in use (IPv4), or name another with --iface (interfaces here: none but loopback)"},
		{"no way to reach", Options{Families: v4, CanReach: ip("203.0.113.77")},
			func(s *Snapshot) { s.Reach = Reach{Dest: ip("203.0.113.77"), Problem: "network is unreachable"} },
			"choose the uplink: --iface-can-reach=203.0.113.77: network is unreachable; add a route to it, or name the interface with --iface " + here},
		{"reach was not looked up", Options{Families: v4, CanReach: ip("203.0.113.77")}, nil,
			"choose the uplink: --iface-can-reach=203.0.113.77: no route; add a route to it, or name the interface with --iface " + here},
		{"the way to reach does not fit", Options{Families: both, CanReach: ip("198.51.100.200")},
			func(s *Snapshot) { s.Reach = Reach{Dest: ip("198.51.100.200"), Link: 3} },
			"choose the uplink by --iface-can-reach=198.51.100.200: eth1 has no usable IPv6 address: fe80::7 is link-local; bring it up with an address " +
				"of each family in use (IPv4 and IPv6), or name another with --iface " + here},
		{"public IP of the wrong family", Options{Families: v4, PublicIP: [2]netip.Addr{ip("2001:db8::1")}}, nil,
			"--public-ip=2001:db8::1: want an IPv4 address that other nodes can send to"},
		{"public IP that nobody can send to", Options{Families: v4, PublicIP: [2]netip.Addr{subnet.IPv6: ip("fe80::1")}}, nil,
			"--public-ipv6=fe80::1: want an IPv6 address that other nodes can send to"},
		{"public IP inside the overlay", Options{Families: v4, PublicIP: [2]netip.Addr{ip("10.5.29.1")}, Overlay: overlay}, nil,
			"--public-ip=10.5.29.1 is inside the overlay's network 10.5.0.0/16: want the address by which other nodes reach this one without the overlay"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := host()
			if tt.edit != nil {
				tt.edit(&s)
			}
			got, err := Choose(tt.o, s)
			if err == nil {
				t.Fatalf("chose %+v", got)
			}
			if err.Error() != tt.want {
				t.Errorf("\n got %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestOthers(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want []string
	}{
		{Options{}, []string{
			"eth1 has lower precedence by the default route", "wg0 is not selected by the default route",
		}},
		{Options{Ifaces: []string{"eth2", "eth1", "eth0"}}, []string{
			"eth0 has lower precedence by --iface=eth2, --iface=eth1, --iface=eth0",
			"wg0 is not selected by --iface=eth2, --iface=eth1, --iface=eth0",
		}},
	} {
		tt.o.Families, tt.o.Overlay = []subnet.Family{subnet.IPv4}, []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}
		c, err := Choose(tt.o, host())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range c.Others {
			got = append(got, r.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: others %q, want %q", c.Name, got, tt.want)
		}
	}
}

func TestOnLink(t *testing.T) {
	s := host()
	s.Links[1].Addrs = append(s.Links[1].Addrs, addr("192.0.0.9/16 dadfailed"), addr("10.0.0.1/8"))
	c, err := Choose(Options{Families: []subnet.Family{subnet.IPv4, subnet.IPv6}}, s)
	if err != nil {
		t.Fatal(err)
	}
	want := [2][]netip.Prefix{
		{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")},
		{netip.MustParsePrefix("2001:db8::/64")},
	}
	for f := range want {
		if !slices.Equal(c.OnLink[f], want[f]) {
			t.Errorf("on-link %v, want %v", c.OnLink[f], want[f])
		}
	}
}

func TestEqual(t *testing.T) {
	c, err := Choose(Options{Families: []subnet.Family{subnet.IPv4, subnet.IPv6}}, host())
	if err != nil {
		t.Fatal(err)
	}
	same := c
	same.Why, same.Rejected = "another way", []Rejection{{"eth9", "is down"}}
	if !c.Equal(same) {
		t.Error("the same choice, arrived at in another way, is not equal")
	}
	changes := map[string]func(*Choice){
		"name":          func(c *Choice) { c.Name = "eth9" },
		"index":         func(c *Choice) { c.Index++ },
		"MTU":           func(c *Choice) { c.MTU++ },
		"hardware":      func(c *Choice) { c.HardwareAddr = "" },
		"local":         func(c *Choice) { c.Local[1] = ip("2001:db8::9") },
		"public":        func(c *Choice) { c.PublicIP[0] = ip("192.0.2.9") },
		"IPv4 on-link":  func(c *Choice) { c.OnLink[0] = nil },
		"IPv6 on-link":  func(c *Choice) { c.OnLink[1] = append(slices.Clone(c.OnLink[1]), c.OnLink[0]...) },
		"IPv4 off-link": func(c *Choice) { c.OnLink[0] = append(slices.Clone(c.OnLink[0]), c.OnLink[1]...) },
	}
	for name, change := range changes {
		d := c
		change(&d)
		if c.Equal(d) {
			t.Errorf("%s: a change goes unnoticed", name)
		}
	}
}
