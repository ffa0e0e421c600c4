package network

import (
	"net/netip"
	"slices"
	"testing"
)

func TestParseMAC(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want MAC
		ok   bool
	}{
		{"72:30:36:d0:8b:68", MAC{0x72, 0x30, 0x36, 0xd0, 0x8b, 0x68}, true},
		{"72:30:36:D0:8B:68", MAC{0x72, 0x30, 0x36, 0xd0, 0x8b, 0x68}, true},
		{"00:00:00:00:00:00", MAC{}, true},
		{"", MAC{}, false},
		{"72:30:36:d0:8b", MAC{}, false},
		{"72:30:36:d0:8b:6", MAC{}, false},
		{"72:30:36:d0:8b:68:", MAC{}, false},
		{"72-30-36-d0-8b-68", MAC{}, false},
		{"72:30:36:d0:8b:6g", MAC{}, false},
		{"g2:30:36:d0:8b:68", MAC{}, false},
		{"72:30:36:d0:8b 68", MAC{}, false},
		{"7230:36:d0:8b:068", MAC{}, false},
		{"02:00:5e:10:00:00:00:01", MAC{}, false}, // EUI-64, which net.ParseMAC takes
	} {
		got, err := ParseMAC(tt.in)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("ParseMAC(%q) = %v, %v; want %v, ok %t", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

func FuzzParseMAC(f *testing.F) {
	f.Add("72:30:36:d0:8b:68")
	f.Add("72:30:36:D0:8b:6g")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err != nil {
			if m != (MAC{}) {
				t.Errorf("ParseMAC(%q) = %v with an error", s, m)
			}
			return
		}
		if again, err := ParseMAC(m.String()); err != nil || again != m {
			t.Errorf("ParseMAC(%q) = %v, read again as %v, %v", s, m, again, err)
		}
	})
}

func TestMACIsUnicast(t *testing.T) {
	for s, want := range map[string]bool{
		"72:30:36:d0:8b:68": true,
		"00:00:00:00:00:01": true,
		"00:00:00:00:00:00": false,
		"ff:ff:ff:ff:ff:ff": false,
		"01:00:5e:00:00:01": false,
	} {
		if got := mac(s).IsUnicast(); got != want {
			t.Errorf("IsUnicast of %s = %t, want %t", s, got, want)
		}
	}
}

func TestStrings(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{mac("72:30:36:d0:8b:68").String(), "72:30:36:d0:8b:68"},
		{RouteKey{Prefix: prefix("10.5.29.0/24")}.String(), "10.5.29.0/24"},
		{RouteKey{Prefix: prefix("10.5.29.0/24"), Metric: 7}.String(), "10.5.29.0/24 metric 7"},
		{RouteKey{Prefix: prefix("fd00:5::/64"), Metric: 1024}.String(), "fd00:5::/64"},
		{RouteKey{Prefix: prefix("fd00:5::/64"), Metric: 0}.String(), "fd00:5::/64 metric 0"},
		{AddressKey{Link: "flannel.1", Prefix: prefix("10.5.29.0/32")}.String(), "10.5.29.0/32 dev flannel.1"},
		{FDBKey{Link: "flannel.1", MAC: mac("72:30:36:d0:8b:68")}.String(), "72:30:36:d0:8b:68 dev flannel.1"},
		{NeighbourKey{Link: "flannel.1", IP: netip.MustParseAddr("10.5.29.0")}.String(), "10.5.29.0 dev flannel.1"},
		{mac("72:30:36:d0:8b:68").LinkLocal().String(), "fe80::7030:36ff:fed0:8b68"},
		{Shadow{Key: RouteKey{Prefix: prefix("10.5.29.0/25")}, Route: Route{Type: Blackhole}}.Command(),
			"ip route del blackhole 10.5.29.0/25"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestNexthopIDOf(t *testing.T) {
	for gateway, want := range map[string]NexthopID{
		"10.5.29.0":       10<<24 | 5<<16 | 29<<8,
		"10.5.29.1":       10<<24 | 5<<16 | 29<<8 | 1,
		"192.0.2.7":       192<<24 | 2<<8 | 7,
		"255.255.255.255": 1<<32 - 1,
		"0.0.0.0":         0, // none: no gateway
		"::ffff:10.0.0.1": 10<<24 | 1,
	} {
		if got := NexthopIDOf(netip.MustParseAddr(gateway)); got != want {
			t.Errorf("NexthopIDOf(%s) = %d, want %d", gateway, got, want)
		}
	}
}

// TestVia: the gateway moves from the route to the nexthop object, and nothing else changes.
func TestVia(t *testing.T) {
	gateway := netip.MustParseAddr("10.5.29.0")
	for _, r := range []Route{
		{Link: device, Gateway: gateway, OnLink: true, Protocol: RouteProtocol, Type: 1},
		{Link: "eth0", Gateway: gateway, Protocol: 4, Type: 1},
	} {
		before := Item[NexthopID, Nexthop]{Key: 7, Value: Nexthop{Link: "eth1"}}
		s := State{Nexthops: []Item[NexthopID, Nexthop]{before}}
		got := s.Via(r)
		if want := (Route{Link: r.Link, Nexthop: NexthopIDOf(gateway), Protocol: r.Protocol, Type: r.Type}); got != want {
			t.Errorf("the route is %+v, want %+v", got, want)
		}
		want := Item[NexthopID, Nexthop]{
			Key: NexthopIDOf(gateway), Value: Nexthop{Link: r.Link, Gateway: gateway, OnLink: r.OnLink, Protocol: r.Protocol},
		}
		if !slices.Equal(s.Nexthops, []Item[NexthopID, Nexthop]{before, want}) {
			t.Errorf("the nexthop objects are %+v, want %+v after what was there", s.Nexthops, want)
		}
	}
}

func mac(s string) MAC {
	m, err := ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// TestMoreOthers counts up to what a byte holds, and then stays there.
func TestMoreOthers(t *testing.T) {
	for n, want := range map[uint8]uint8{0: 1, 7: 8, 254: 255, 255: 255} {
		if got := MoreOthers(n); got != want {
			t.Errorf("MoreOthers(%d) = %d, want %d", n, got, want)
		}
	}
}
