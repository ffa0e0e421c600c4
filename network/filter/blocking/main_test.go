package blocking

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/sandbox/leaks"
	"github.com/selvage-net/selvage/dist/lab/sandbox/sandboxtest"
	"github.com/selvage-net/selvage/network/nft"
)

// TestMain runs the tests where they may make network namespaces, with a /run and its xtables.lock of their own.
func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

var newNet = sandboxtest.NewNet

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// overlay is whose packets are looked for. Nobody knows the bridge.
func overlay() Overlay {
	return Overlay{
		Networks: prefixes("10.5.0.0/16", "fd00:5::/32"), Own: prefixes("10.5.29.0/24", "fd00:5:1d::/48"),
		Devices: []string{"flannel.1"},
	}
}

// find looks for drops in a namespace.
func find(t testing.TB, ns *sandbox.Net, o Overlay) (all []Drop) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := nft.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		r, err := Read(c)
		if err == nil {
			all, err = r.Find(o, "selvage", "SELVAGE-FWD")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// short says drops in a few words: where, which network, which way, and by what.
func short(all []Drop) (out []string) {
	for _, d := range all {
		by := strings.Join(d.By, " and ")
		if by == "" {
			by = "policy"
		}
		kind := map[bool]string{true: "legacy "}[d.Legacy]
		out = append(out, fmt.Sprintf("%s%s %s: %s %s by %s", kind, d.Table, d.Chain, d.Network,
			strings.Join(slices.DeleteFunc([]string{map[bool]string{true: "in"}[d.Arriving], map[bool]string{true: "out"}[d.Leaving]},
				func(s string) bool { return s == "" }), "+"), by))
	}
	return out
}
