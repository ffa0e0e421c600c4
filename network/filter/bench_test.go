package filter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// BenchmarkLook looks where everything is right: by nftables, the same beside 10,000 chains of others, and by each iptables.
func BenchmarkLook(b *testing.B) {
	for _, kind := range []struct {
		name   string
		wish   *bool
		chains int
	}{{"nftables", yes(), 0}, {"nftables, unasked", nil, 0}, {"nftables, 10000 chains", nil, 10000}, {"iptables-nft", no(), 0}, {"iptables-legacy", no(), 0}} {
		b.Run(kind.name, func(b *testing.B) {
			ns, err := sandbox.NewNet()
			if err != nil {
				b.Fatal(err)
			}
			defer ns.Close()
			if _, variant, ok := strings.Cut(kind.name, "iptables-"); ok {
				links(b, variant)
			}
			f := nfttest.New(b, ns)
			for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
				for n := range kind.chains / 2 {
					nat := &nftables.Table{Name: "nat", Family: family}
					if n == 0 {
						f.AddTable(nat)
					}
					f.Append(f.AddChain(&nftables.Chain{Table: nat, Name: fmt.Sprintf("KUBE-SEP-%d", n)}), &expr.Verdict{Kind: expr.VerdictReturn})
					if n%100 == 99 {
						f.Commit()
					}
				}
			}
			k := NewKeeper()
			defer k.Close()
			b.ReportAllocs()
			look := func() error { _, err := k.Ensure(b.Context(), wishing(kind.wish)); return err }
			looks := func() (err error) {
				for err == nil && b.Loop() {
					err = look()
				}
				return err
			}
			if err := ns.Do(look); err != nil {
				b.Fatal(err)
			}
			// Programs need the namespace. A connection has it, and is slower on a thread of its own.
			if k.Status().Mode == NFTables {
				err = looks()
			} else {
				err = ns.Do(looks)
			}
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
