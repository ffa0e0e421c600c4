package backend

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

func TestReaches(t *testing.T) {
	u := Underlay{OnLink: [2][]netip.Prefix{
		{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("198.51.100.9/32")}, {netip.MustParsePrefix("2001:db8::/64")},
	}}
	for address, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.127": true, "192.0.2.128": false, "198.51.100.9": true, "198.51.100.8": false,
		"2001:db8::7": true, "2001:db8:0:1::7": false, "::": false,
	} {
		if got := u.Reaches(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t, want %t", address, got, want)
		}
	}
}

func TestDirect(t *testing.T) {
	for address, endpoint := range map[string]subnet.Endpoint{
		"ip route replace 10.5.29.0/24 via 192.0.2.7 dev eth1 proto 83":       {Subnet: netip.MustParsePrefix("10.5.29.0/24"), PublicIP: netip.MustParseAddr("192.0.2.7")},
		"ip route replace fd00:5:0:1d::/64 via 2001:db8::7 dev eth1 proto 83": {Subnet: netip.MustParsePrefix("fd00:5:0:1d::/64"), PublicIP: netip.MustParseAddr("2001:db8::7")},
	} {
		for _, fast := range []bool{false, true} {
			want := []string{address}
			if fast {
				want = append(want, fmt.Sprintf("# fast path: subnet %s dst %s direct", endpoint.Subnet, endpoint.PublicIP))
			}
			var s network.State
			Underlay{Link: "eth1", FastPath: fast}.Direct(&s, endpoint)
			if got := s.Commands(); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestTunnelText(t *testing.T) {
	tunnel := Tunnel{Device: "flannel.1", Local: netip.MustParseAddr("192.0.2.1"), Port: 8472}
	if got := tunnel.String(); got != "flannel.1 local 192.0.2.1 port 8472" {
		t.Errorf("got %q", got)
	}
	if got := (Tunnel{Device: "ipip0"}).String(); got != "ipip0" {
		t.Errorf("one without port and local address: %q", got)
	}
}

func TestPath(t *testing.T) {
	d := Description{Tunnels: []Tunnel{{Device: "wg4", Protocol: "WireGuard"}, {Device: "wg6", Protocol: "WireGuard"}}}
	subnets := [3]netip.Prefix{
		netip.MustParsePrefix("10.5.29.0/24"), netip.MustParsePrefix("fd00:5:0:1d::/64"), netip.MustParsePrefix("10.5.30.0/24"),
	}
	var peer network.State
	for i, link := range []string{"eth0", "wg6"} {
		peer.Routes = append(peer.Routes, network.Item[network.RouteKey, network.Route]{
			Key: network.RouteKey{Prefix: subnets[i]}, Value: network.Route{Link: link},
		})
	}
	for i, want := range []struct {
		device, text string
		tunnel       *Tunnel
		direct       bool
	}{
		{"eth0", "directly, through eth0", nil, true},
		{"wg6", "over WireGuard, wg6", &d.Tunnels[1], false},
		{"", "not at all", nil, false},
	} {
		p := d.Path(peer, subnets[i])
		if p.Device != want.device || p.Tunnel != want.tunnel || p.Direct() != want.direct || p.String() != want.text {
			t.Errorf("%s: %+v, %q, direct %t; want %+v", subnets[i], p, p, p.Direct(), want)
		}
	}
}

func TestExceeded(t *testing.T) {
	u := Underlay{Link: "eth1", MTU: 1400}
	for _, mtu := range []int{0, 1280, 1400} { // 0: the config has none
		if text := u.Exceeded(mtu); text != "" {
			t.Errorf("%d: %s", mtu, text)
		}
	}
	const want = "Backend.MTU in the network config is 1500, more than the MTU of uplink eth1, 1400"
	if text := u.Exceeded(1500); !strings.HasPrefix(text, want) {
		t.Errorf("%s, want %s", text, want)
	}
}
