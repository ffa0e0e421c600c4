package subnet

import (
	"net/netip"
	"testing"
)

func TestFamily(t *testing.T) {
	for text, want := range map[string]Family{
		"10.5.29.0": IPv4, "0.0.0.0": IPv4, "fd00::1": IPv6, "::": IPv6, "::ffff:10.5.29.0": IPv6, "fe80::1%eth0": IPv6,
	} {
		if got := FamilyOf(ip(text)); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for i, want := range []struct {
		name string
		bits int
	}{{"IPv4", 32}, {"IPv6", 128}} {
		f := Families()[i]
		if int(f) != i || f.String() != want.name || f.Bits() != want.bits {
			t.Errorf("family %d: %d, %s, %d bits", i, f, f, f.Bits())
		}
	}
}

func TestGateway(t *testing.T) {
	for in, want := range map[string]string{
		"10.5.29.0/24":        "10.5.29.1/24",
		"10.5.29.1/24":        "10.5.29.1/24",
		"fd00:5:0:1d::/64":    "fd00:5:0:1d::1/64",
		"255.255.255.252/30":  "255.255.255.253/30",
		"fd00:5::ffff:0/112":  "fd00:5::ffff:1/112",
		"10.5.29.64/26":       "10.5.29.65/26",
		"fd00:5:0:1d::fc/126": "fd00:5:0:1d::fd/126",
	} {
		if got := Gateway(netip.MustParsePrefix(in)); got != netip.MustParsePrefix(want) {
			t.Errorf("Gateway(%s) = %s, want %s", in, got, want)
		}
	}
}
