package hostgw

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/subnet"
)

const dual = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"host-gw"}}`

func underlay() backend.Underlay {
	local := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	return backend.Underlay{
		Link: "eth0", MTU: 9000, Local: local, PublicIP: local,
		OnLink: [2][]netip.Prefix{
			{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/25")}, {netip.MustParsePrefix("2001:db8::/64")},
		},
	}
}

func newBackend(t *testing.T, config string, u backend.Underlay) backend.Backend {
	t.Helper()
	c, err := subnet.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(c, u)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPeer(t *testing.T) {
	const v4, v6 = "10.5.29.0-24", "10.5.29.0-24&fd00:5:0:1d::-64"
	for _, tt := range []struct {
		name, config, key, value string
		want                     []string
		err                      string
	}{
		{"both", dual, v6, `{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7","BackendType":"host-gw"}`, []string{
			"ip route replace 10.5.29.0/24 via 192.0.2.7 dev eth0 proto 83", "ip route replace fd00:5:0:1d::/64 via 2001:db8::7 dev eth0 proto 83",
		}, ""},
		{"a peer of IPv4 alone", dual, v4, `{"PublicIP":"198.51.100.7","PublicIPv6":null,"BackendType":"host-gw"}`,
			[]string{"ip route replace 10.5.29.0/24 via 198.51.100.7 dev eth0 proto 83"}, ""},
		{"a peer of both, this node of IPv4 alone", `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, v6,
			`{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7","BackendType":"host-gw"}`,
			[]string{"ip route replace 10.5.29.0/24 via 192.0.2.7 dev eth0 proto 83"}, ""},
		{"behind a router", dual, v4, `{"PublicIP":"198.51.100.129","PublicIPv6":null,"BackendType":"host-gw"}`, nil,
			"public IP 198.51.100.129 is not on-link on eth0 (192.0.2.0/24, 198.51.100.0/25), and host-gw cannot reach a node behind a router; use vxlan with DirectRouting"},
		{"one family behind a router", dual, v6, `{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8:1::7","BackendType":"host-gw"}`, nil,
			"public IP 2001:db8:1::7 is not on-link on eth0 (2001:db8::/64), and host-gw cannot reach a node behind a router; use vxlan with DirectRouting"},
	} {
		l, err := subnet.ParseLease(tt.key, []byte(tt.value))
		if err != nil {
			t.Fatal(err)
		}
		s, err := newBackend(t, tt.config, underlay()).Peer(l)
		if got := s.Commands(); !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s:\n got %q, %v\nwant %q, %s", tt.name, got, err, tt.want, tt.err)
		}
	}
	fast := underlay()
	fast.FastPath = true
	both, err := subnet.ParseLease(v6, []byte(`{"PublicIP":"192.0.2.7","PublicIPv6":"2001:db8::7","BackendType":"host-gw"}`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newBackend(t, dual, fast).Peer(both)
	want := []string{
		"ip route replace 10.5.29.0/24 via 192.0.2.7 dev eth0 proto 83",
		"ip route replace fd00:5:0:1d::/64 via 2001:db8::7 dev eth0 proto 83",
		"# fast path: subnet 10.5.29.0/24 dst 192.0.2.7 direct",
		"# fast path: subnet fd00:5:0:1d::/64 dst 2001:db8::7 direct",
	}
	if got := s.Commands(); !slices.Equal(got, want) || err != nil {
		t.Errorf("with the fast path: %q, %v, want %q", got, err, want)
	}
	alone := underlay()
	alone.OnLink = [2][]netip.Prefix{}
	l, err := subnet.ParseLease(v4, []byte(`{"PublicIP":"192.0.2.7","PublicIPv6":null,"BackendType":"host-gw"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newBackend(t, dual, alone).Peer(l); err == nil || !strings.Contains(err.Error(), "eth0 (which has no on-link prefix)") {
		t.Errorf("an uplink of a single address: %v", err)
	}
}

func TestNode(t *testing.T) {
	b := newBackend(t, dual, underlay())
	if mtu := b.Describe().MTU; mtu != 9000 {
		t.Errorf("MTU %d, want the uplink's, 9000", mtu)
	}
	if s := b.Device([2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}); len(s.Commands()) != 0 {
		t.Errorf("the node needs %q, want nothing", s.Commands())
	}
	want := [2]subnet.Endpoint{{PublicIP: netip.MustParseAddr("192.0.2.1")}, {PublicIP: netip.MustParseAddr("2001:db8::1")}}
	if got := b.Advertise(); got != want {
		t.Errorf("advertises %v, want %v", got, want)
	}
	if got := newBackend(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, underlay()).Advertise(); got[subnet.IPv6] != (subnet.Endpoint{}) {
		t.Errorf("IPv4 alone advertises %v for IPv6", got[subnet.IPv6])
	}
	if unique, err := b.Check(subnet.Lease{}); len(unique) != 0 || err != nil {
		t.Errorf("%q are to be unique, error %v, want nothing", unique, err)
	}
}

func TestUplinkOfOneFamily(t *testing.T) {
	c, err := subnet.ParseConfig([]byte(dual))
	if err != nil {
		t.Fatal(err)
	}
	u := underlay()
	u.Local[subnet.IPv6] = netip.Addr{}
	const want = "uplink eth0 has no IPv6 address to carry the IPv6 overlay; add one, or choose another uplink with --iface"
	if _, err := New(c, u); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
