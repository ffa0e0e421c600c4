package nft

import (
	"net/netip"
	"strings"
	"testing"
)

func TestIntervals(t *testing.T) {
	for _, tt := range []struct {
		prefixes []netip.Prefix
		want     string // "-" before an end
	}{
		{nil, ""},
		{prefixes("10.5.0.0/16"), "10.5.0.0 -10.6.0.0"},
		{prefixes("10.8.0.0/16", "10.5.0.0/16"), "10.5.0.0 -10.6.0.0 10.8.0.0 -10.9.0.0"},
		{prefixes("10.0.0.0/8", "10.5.0.0/16", "10.255.255.255/32"), "10.0.0.0 -11.0.0.0"},
		{prefixes("10.6.0.0/16", "10.5.0.0/16", "10.5.0.0/16"), "10.5.0.0 -10.7.0.0"},
		{prefixes("0.0.0.0/0", "10.0.0.0/8"), "0.0.0.0"},
		{prefixes("128.0.0.0/1", "64.0.0.0/2", "255.255.255.255/32"), "64.0.0.0"},
		{prefixes("fd00::/8", "2001:db8::1/128"), "2001:db8::1 -2001:db8::2 fd00:: -fe00::"},
		{prefixes("::/0"), "::"},
	} {
		var got []string
		for _, f := range Families() {
			for _, e := range f.Intervals(tt.prefixes) {
				a, _ := netip.AddrFromSlice([]byte(e.Key))
				got = append(got, map[bool]string{true: "-"}[e.End]+a.String())
			}
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.prefixes, got, tt.want)
		}
	}
	mixed := prefixes("10.5.0.0/16", "fd00::/8")
	if v4, v6 := Families()[0].Intervals(mixed), Families()[1].Intervals(mixed); len(v4) != 2 || len(v6) != 2 {
		t.Errorf("of two families: %v, %v", v4, v6)
	}
}

func TestMask(t *testing.T) {
	for bits, want := range map[int][4]byte{0: {}, 4: {0xf0}, 8: {0xff}, 19: {0xff, 0xff, 0xe0}, 32: {0xff, 0xff, 0xff, 0xff}} {
		if got := mask(bits, 4); [4]byte(got) != want {
			t.Errorf("%d bits: %x", bits, got)
		}
	}
}
