package backend

import (
	"errors"
	"net/netip"
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
	u := Underlay{Link: "eth1"}
	for address, endpoint := range map[string]subnet.Endpoint{
		"ip route replace 10.5.29.0/24 via 192.0.2.7 dev eth1 proto 83":       {Subnet: netip.MustParsePrefix("10.5.29.0/24"), PublicIP: netip.MustParseAddr("192.0.2.7")},
		"ip route replace fd00:5:0:1d::/64 via 2001:db8::7 dev eth1 proto 83": {Subnet: netip.MustParsePrefix("fd00:5:0:1d::/64"), PublicIP: netip.MustParseAddr("2001:db8::7")},
	} {
		var s network.State
		s.Routes = append(s.Routes, u.Direct(endpoint))
		if got := s.Commands(); got[0] != address {
			t.Errorf("got %q, want %s", got, address)
		}
	}
}

// slow is a backend that tells by Peer alone, quick one that can tell sooner, whether it can use a lease.
type slow struct{ Backend }

var errSlow, errQuick = errors.New("not by Peer"), errors.New("not by Check")

func (slow) Peer(l subnet.Lease) (network.State, error) {
	if l.NodeName == "" {
		return network.State{}, errSlow
	}
	return network.State{}, nil
}

type quick struct{ slow }

func (quick) Check(subnet.Lease) error { return errQuick }

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		b    Backend
		l    subnet.Lease
		want error
	}{
		{slow{}, subnet.Lease{}, errSlow}, {slow{}, subnet.Lease{NodeName: "a"}, nil}, {quick{}, subnet.Lease{NodeName: "a"}, errQuick},
	} {
		if err := Check(tt.b, tt.l); err != tt.want {
			t.Errorf("%T, %+v: %v, want %v", tt.b, tt.l, err, tt.want)
		}
	}
}
