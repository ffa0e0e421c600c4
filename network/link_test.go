package network

import (
	"net/netip"
	"testing"
)

// tunnelSettings are of a kind of device that package network does not know.
type tunnelSettings struct{ port uint16 }

func (t tunnelSettings) SameDevice(s LinkSettings) bool { return s == LinkSettings(t) }
func (tunnelSettings) Identity() string                 { return "a tunnel" }
func (tunnelSettings) Args() string                     { return "" }

func TestSameDevice(t *testing.T) {
	set := VXLAN{VNI: 1, Port: 8472}
	l := Link{Kind: KindVXLAN, Settings: set, MTU: 1450, Alias: Alias, Up: true}
	live := set
	live.Learning, live.Local = true, netip.MustParseAddr("192.0.2.1")
	same := Link{Kind: KindVXLAN, Settings: live, MTU: 1400, MAC: MAC{2}, AddrGen: true}
	if !l.SameDevice(same) {
		t.Error("differs in what can be changed on a live device")
	}
	with := func(change func(*VXLAN)) Link {
		other := set
		change(&other)
		return Link{Kind: KindVXLAN, Settings: other}
	}
	for _, other := range []Link{
		{Kind: "dummy"}, {Kind: "dummy", Settings: set}, {Kind: KindVXLAN}, {Kind: KindVXLAN, Settings: tunnelSettings{}},
		with(func(v *VXLAN) { v.VNI++ }), with(func(v *VXLAN) { v.Port++ }), with(func(v *VXLAN) { v.GBP = true }),
	} {
		if l.SameDevice(other) || other.SameDevice(l) {
			t.Errorf("%+v and %+v count as the same device", l, other)
		}
	}
	tunnel := Link{Kind: "tunnel", Settings: tunnelSettings{1}}
	if !tunnel.SameDevice(tunnel) || tunnel.SameDevice(Link{Kind: "tunnel", Settings: tunnelSettings{2}}) {
		t.Error("a device of a kind of its own is not judged by its own settings")
	}
	if dummy := (Link{Kind: "dummy"}); !dummy.SameDevice(Link{Kind: "dummy", MTU: 1400}) || dummy.SameDevice(Link{}) {
		t.Error("devices without settings are not told apart by their kind")
	}
}

func TestLinkIdentity(t *testing.T) {
	for _, tt := range []struct {
		l    Link
		want string
	}{
		{vxlan(), "vxlan, VNI 1, port 8472"},
		{Link{Kind: KindVXLAN, Settings: VXLAN{VNI: 7, Port: 4789, GBP: true}}, "vxlan, VNI 7, port 4789, GBP"},
		{Link{Kind: "tunnel", Settings: tunnelSettings{}}, "tunnel, a tunnel"},
		{Link{Kind: "dummy"}, "dummy"},
		{Link{}, "physical or unknown device"},
	} {
		if got := tt.l.Identity(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.l, got, tt.want)
		}
	}
}
