package vtepfilter

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// benchmark runs f where the table holds 5,000 peers of IPv4 or, with both, of either family.
func benchmark(b *testing.B, f func(f *Filter, peers []netip.Addr) error) {
	for name, peers := range map[string][]netip.Addr{"IPv4": many(10000)[:5000], "both": many(10000)} {
		b.Run(name, func(b *testing.B) {
			x := newFilter(b, newNet(b))
			if _, err := x.Ensure(config(), slices.Values(peers)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := f(x, peers); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEnsureNothing looks where everything is right.
func BenchmarkEnsureNothing(b *testing.B) {
	benchmark(b, func(f *Filter, peers []netip.Addr) error {
		_, err := f.Ensure(config(), slices.Values(peers))
		return err
	})
}

// BenchmarkEnsureAll makes the table with all peers in it, in the place of one that holds what does not belong there.
func BenchmarkEnsureAll(b *testing.B) {
	for name, peers := range map[string][]netip.Addr{"IPv4": many(10000)[:5000], "both": many(10000)} {
		b.Run(name, func(b *testing.B) {
			ns := newNet(b)
			x, f := newFilter(b, ns), nfttest.New(b, ns)
			if _, err := x.Ensure(config(), slices.Values(peers)); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				f.AddChain(&nftables.Chain{Table: &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}, Name: "another"})
				f.Commit()
				b.StartTimer()
				if _, err := x.Ensure(config(), slices.Values(peers)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead reads all peers and the rules.
func BenchmarkRead(b *testing.B) {
	benchmark(b, func(f *Filter, peers []netip.Addr) error {
		_, _, err := f.Read()
		return err
	})
}

// BenchmarkApplyOne takes one peer out and puts it back: two transactions.
func BenchmarkApplyOne(b *testing.B) {
	benchmark(b, func(f *Filter, peers []netip.Addr) error {
		if err := f.Apply(nil, peers[:1]); err != nil {
			return err
		}
		return f.Apply(peers[:1], nil)
	})
}

// BenchmarkApplyAll takes all peers out and puts them back.
func BenchmarkApplyAll(b *testing.B) {
	benchmark(b, func(f *Filter, peers []netip.Addr) error {
		if err := f.Apply(nil, peers); err != nil {
			return err
		}
		return f.Apply(peers, nil)
	})
}
