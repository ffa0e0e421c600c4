package subnet

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// randomRange returns a range of the given family with bounds of any kind; about a third has few subnets.
func randomRange(rnd *rand.Rand, f Family) Range {
	lim := limitsOf(f)
	shortest := []int{8, 20}[f]
	bits := shortest + rnd.IntN(lim.maxNetwork-shortest+1)
	r := Range{SubnetLen: bits + minSplit + rnd.IntN(lim.maxLen-bits-minSplit+1)}
	if rnd.IntN(3) == 0 {
		r.SubnetLen = min(bits+minSplit+rnd.IntN(3), lim.maxLen)
	}
	r.Network = netip.PrefixFrom(randomAddr(rnd, []string{"10.0.0.0/8", "fd00::/20"}[f]), bits).Masked()
	a, b := randomSubnet(rnd, r), randomSubnet(rnd, r)
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	r.Min, r.Max = a, b
	return r
}

// randomAddr returns an address in the network.
func randomAddr(rnd *rand.Rand, network string) netip.Addr {
	p := pfx(network)
	host := uint128{rnd.Uint64(), rnd.Uint64()}
	mask := uint128{^uint64(0), ^uint64(0)}.shr(128 - (p.Addr().BitLen() - p.Bits()))
	return number(p.Addr()).add(uint128{host.hi & mask.hi, host.lo & mask.lo}).addr(p.Addr().Is4())
}

// randomSubnet returns the address of a subnet in r.Network, often the first or the last.
func randomSubnet(rnd *rand.Rand, r Range) netip.Addr {
	switch rnd.IntN(4) {
	case 0:
		return r.Network.Addr()
	case 1:
		return lastSubnet(r.Network, r.SubnetLen)
	default:
		return subnetAt(randomAddr(rnd, r.Network.String()), r.SubnetLen).Addr()
	}
}

// TestRangeProperties checks on many ranges that At and Index are each other's inverse from the first to the last
// subnet, and that what is one step outside is outside.
func TestRangeProperties(t *testing.T) {
	rnd := newRand(t)
	for range 3000 {
		for _, f := range Families() {
			r := randomRange(rnd, f)
			checkRange(t, f, r)
			count := r.Count()
			for _, i := range []uint64{0, count / 2, count - 1, rnd.Uint64N(count), rnd.Uint64N(count)} {
				p := r.At(i)
				if j, ok := r.Index(p); !ok || j != i {
					t.Errorf("%+v: subnet %d is %s, and that is subnet %d (%t)", r, i, p, j, ok)
				}
				if c, ok := r.cover(p); !ok || c != (run{i, i}) {
					t.Errorf("%+v: %s covers %v (%t), want %d alone", r, p, c, ok, i)
				}
				n, ok := r.absolute(p)
				if q, ok2 := r.atAbsolute(n); !ok || !ok2 || q != p {
					t.Errorf("%+v: %s comes back as %s (%t, %t)", r, p, q, ok, ok2)
				}
				for _, times := range []uint64{1, 1 << 8, 1 << 32, 1 << 63} { // so far off that the sum may wrap around
					far := n.add(uint128{0, times}.shl(r.SubnetLen - r.Network.Bits()))
					if q, ok := r.atAbsolute(far); ok && far != n {
						t.Errorf("%+v: there is a subnet %v: %s", r, far, q)
					}
				}
			}
			outside := []netip.Prefix{
				{}, r.Network, netip.PrefixFrom(r.Min, r.SubnetLen+1), netip.PrefixFrom(r.Min, r.SubnetLen-1),
				netip.PrefixFrom(r.Min.Next(), r.SubnetLen), netip.PrefixFrom(r.Min.Prev(), r.SubnetLen).Masked(),
			}
			if count < 1<<63 {
				outside = append(outside, r.At(count))
			}
			for _, p := range outside {
				if _, ok := r.Index(p); ok || r.Fits(p) {
					t.Errorf("%+v: %s fits", r, p)
				}
			}
			if t.Failed() {
				return
			}
		}
	}
}

// TestRangeCover compares cover with looking at every subnet.
func TestRangeCover(t *testing.T) {
	rnd := newRand(t)
	for range 5000 {
		for _, f := range Families() {
			r := randomRange(rnd, f)
			if r.Count() > 64 {
				r.Max = r.At(63).Addr()
			}
			var p netip.Prefix
			switch near := r.At(rnd.Uint64N(r.Count())).Addr(); rnd.IntN(3) {
			case 0:
				p, _ = near.Prefix(rnd.IntN(f.Bits() + 1))
			case 1:
				p, _ = near.Prefix(r.Network.Bits() + rnd.IntN(f.Bits()-r.Network.Bits()+1))
			default:
				p = netip.PrefixFrom(randomAddr(rnd, r.Network.String()), r.SubnetLen-rnd.IntN(3)).Masked()
			}
			var want []uint64
			for i := range r.Count() {
				if r.At(i).Overlaps(p) {
					want = append(want, i)
				}
			}
			got, ok := r.cover(p)
			if ok != (len(want) > 0) || ok && got != (run{want[0], want[len(want)-1]}) {
				t.Fatalf("%+v: %s covers %v (%t), want %v", r, p, got, ok, want)
			}
		}
	}
}

// TestRangeBig is a /8 with 60,000 subnets and more.
func TestRangeBig(t *testing.T) {
	r := mustConfig(t, `{"Network":"10.0.0.0/8"}`).Ranges[IPv4]
	if n := r.Count(); n != 65535 {
		t.Errorf("%d subnets, want 65535", n)
	}
	for i, want := range map[uint64]string{
		0: "10.0.1.0/24", 254: "10.0.255.0/24", 60000: "10.234.97.0/24", 65534: "10.255.255.0/24",
	} {
		if got := r.At(i); got != pfx(want) {
			t.Errorf("subnet %d is %s, want %s", i, got, want)
		}
	}
}

// TestRangeSaturated has more subnets than a uint64 can count. Only the first 1<<63 are ever given out; what lies
// beyond is in nobody's way.
func TestRangeSaturated(t *testing.T) {
	r := mustConfig(t, `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/20","IPv6SubnetLen":126}`).Ranges[IPv6]
	if n := r.Count(); n != 1<<63 {
		t.Errorf("%d subnets, want 1<<63", n)
	}
	last := r.At(1<<63 - 1)
	if last != pfx("fd00::2:0:0:0:0/126") {
		t.Errorf("the last is %s", last)
	}
	beyond := netip.PrefixFrom(r.Max, 126)
	if i, ok := r.Index(beyond); ok || !r.Fits(beyond) {
		t.Errorf("%s: index %d (%t)", beyond, i, ok)
	}
	for p, want := range map[string]run{
		"fd00::4/126":         {0, 0},
		"fd00::/125":          {0, 0},
		"fd00::/64":           {0, 1<<62 - 2},
		"fd00::/20":           {0, 1<<63 - 1},
		"::/0":                {0, 1<<63 - 1},
		"fd00::2:0:0:0:0/126": {1<<63 - 1, 1<<63 - 1},
		"fd00::2:0:0:0:0/64":  {1<<63 - 1, 1<<63 - 1},
	} {
		if got, ok := r.cover(pfx(p)); !ok || got != want {
			t.Errorf("%s covers %v (%t), want %v", p, got, ok, want)
		}
	}
	for _, p := range []string{
		"", "fd00::/126", "fd00::2:0:0:0:4/126", "fd00:fff::/32", "fdff::/16", "10.0.0.0/8", "0.0.0.0/0",
	} {
		if got, ok := r.cover(pfx(p)); ok {
			t.Errorf("%s covers %v, want nothing", p, got)
		}
	}
	if (Range{}).Count() != 0 || (Range{}).Enabled() {
		t.Error("the zero range is not empty")
	}
}

func TestCheckPeer(t *testing.T) {
	c := mustConfig(t, `{"Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`)
	tests := []struct {
		f             Family
		subnet, error string
	}{
		{IPv4, "10.5.29.0/24", ""},
		{IPv4, "10.5.0.0/24", ""}, // from before SubnetMin was raised
		{IPv4, "10.5.64.0/18", ""},
		{IPv4, "10.5.29.4/30", ""},
		{IPv4, "10.5.29.1/24", "subnet 10.5.29.1/24 has host bits set"},
		{IPv4, "10.6.29.0/24", "subnet 10.6.29.0/24 is not inside Network 10.5.0.0/16"},
		{IPv4, "10.0.0.0/8", "subnet 10.0.0.0/8 is not inside Network 10.5.0.0/16"},
		{IPv4, "10.4.0.0/15", "subnet 10.4.0.0/15 is not inside Network 10.5.0.0/16"},
		{IPv4, "fd00:5::/64", "subnet fd00:5::/64 is not inside Network 10.5.0.0/16"},
		{IPv4, "10.5.128.0/17", "subnet 10.5.128.0/17: length is 17, want 18 to 30 in Network 10.5.0.0/16"},
		{IPv4, "10.5.29.4/31", "subnet 10.5.29.4/31: length is 31, want 18 to 30 in Network 10.5.0.0/16"},
		{IPv6, "fd00:5:0:1d::/64", ""},
		{IPv6, "fd00:5::4/126", ""},
		{IPv6, "fd00:6::/64", "subnet fd00:6::/64 is not inside Network fd00:5::/56"},
		{IPv6, "fd00:5::/57", "subnet fd00:5::/57: length is 57, want 58 to 126 in Network fd00:5::/56"},
		{IPv6, "fd00:5::/127", "subnet fd00:5::/127: length is 127, want 58 to 126 in Network fd00:5::/56"},
	}
	for _, tt := range tests {
		wantError(t, c.Ranges[tt.f].CheckPeer(pfx(tt.subnet)), tt.error)
	}
	wantError(t, Range{}.CheckPeer(pfx("10.5.29.0/24")),
		"subnet 10.5.29.0/24: the family is not enabled in the network config")
}
