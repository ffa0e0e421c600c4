package nft

import (
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/sandbox/leaks"
	"github.com/selvage-net/selvage/dist/lab/sandbox/sandboxtest"
	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// TestMain runs the tests where they may make network namespaces.
func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

const name = "selvage-test"

var newNet = sandboxtest.NewNet

// newTable opens a table in a namespace.
func newTable(t testing.TB, ns *sandbox.Net) (x *Table) {
	t.Helper()
	if err := ns.Do(func() (err error) { x, err = Open(name); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// foreign is somebody else who changes our table.
type foreign struct {
	*nfttest.Foreign
	table *nftables.Table
}

func newForeign(t testing.TB, ns *sandbox.Net) *foreign {
	return &foreign{nfttest.New(t, ns), &nftables.Table{Name: name, Family: nftables.TableFamilyINet}}
}

// content is a table with a bit of everything; its prefixes are those given.
func content(list ...string) Content {
	f := Families()[0]
	count := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictReturn}}
	return Content{
		Sets: []Set{
			{Name: "ranges", Key: f.Key, Interval: true, Elements: f.Intervals(prefixes(list...))},
			{Name: "free", Key: f.Key, External: true},
		},
		Chains: []Chain{
			{
				Name: "out", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
				Rules: []Rule{
					{Comment: "from", Exprs: append(f.From("ranges"), count...)},
					{Comment: "not from", Exprs: append(f.NotFrom("ranges"), count...)},
					{Comment: "to", Exprs: append(f.To("free"), &expr.Verdict{Kind: expr.VerdictJump, Chain: "called"})},
					{Comment: "not to", Exprs: append(f.NotTo(netip.MustParsePrefix("224.0.0.0/4")), &expr.Masq{FullyRandom: true})},
				},
			},
			{Name: "called", Rules: []Rule{{Comment: "all", Exprs: count}}},
		},
	}
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}
