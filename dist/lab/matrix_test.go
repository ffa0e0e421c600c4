package lab

import (
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// find returns the matrix's combination of that name.
func find(t *testing.T, name string) Combination {
	t.Helper()
	all := Combinations()
	i := slices.IndexFunc(all, func(c Combination) bool { return c.String() == name })
	if i < 0 {
		t.Fatalf("there is no combination %q", name)
	}
	return all[i]
}

// TestMatrix tries some of the combinations that work.
func TestMatrix(t *testing.T) {
	for name, families := range map[string]int{
		"ipv4 vxlan iptables-legacy segments=1 mtu=1500": 1,
		"ipv6 vxlan iptables-legacy segments=2 mtu=1500": 1,
		"dual vxlan iptables-nft segments=2 mtu=1400":    2,
		"dual vxlan iptables-nft segments=2 mtu=9000":    2,
	} {
		t.Run(name, func(t *testing.T) {
			r := find(t, name).Run(t.Context(), Options{Nodes: 2, Bin: binDir})
			// Of four pods each to three others, two nodes and the outside, and two nodes each to four pods.
			if want := (4*(3+2+1) + 2*4) * families; r.Probes != want || r.Full != want || r.Lost+r.Stuck > 0 || r.Fragments > 0 || r.Took == 0 {
				t.Errorf("%+v, want %d probes and as many full ones, none lost", r, want)
			}
			for _, p := range r.Problems {
				t.Error(p)
			}
		})
	}
}

// TestMatrixFinds has combinations that are not what they are taken for.
func TestMatrixFinds(t *testing.T) {
	works := find(t, "ipv4 vxlan iptables-nft segments=1 mtu=1500")
	for name, test := range map[string]struct {
		change func(*Combination)
		want   string
	}{
		"a backend that there is not":   {func(c *Combination) { c.Backend.Config = `{"Type":"no-such"}` }, `refused by the daemon: error msg="network config: Backend.Type is \"no-such\"`},
		"no room for a tunnel":          {func(c *Combination) { c.Families, c.MTU = []subnet.Family{subnet.IPv6}, 1300 }, "refused by the daemon: error msg="},
		"a tunnel":                      {func(c *Combination) { c.Backend.Direct = true }, "of node2 through flannel.1, want eth0"},
		"fragments":                     {func(c *Combination) { c.Backend.Config = `{"Type":"vxlan","MTU":1540}` }, "packets were fragmented: "},
		"an MTU that is too large":      {func(c *Combination) { c.Backend.Overhead[subnet.IPv4] = 60 }, "an MTU of 1450, want 1440"},
		"an iptables that there is not": {func(c *Combination) { c.Filter.IPTables = "no-such" }, "no-such"},
	} {
		t.Run(name, func(t *testing.T) {
			c := works
			test.change(&c)
			r := c.Run(t.Context(), Options{Nodes: 2, Bin: binDir})
			if r.OK() || !slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, test.want) }) {
				t.Errorf("problems %q, want %q", r.Problems, test.want)
			}
		})
	}
}

// TestMatrixCountsLoss has the bridge plugin masquerade what goes from pod to pod, since the daemon does not.
func TestMatrixCountsLoss(t *testing.T) {
	c := find(t, "ipv4 vxlan iptables-nft segments=1 mtu=1500")
	r := c.Run(t.Context(), Options{Nodes: 2, Bin: binDir, DaemonArgs: []string{"--ip-masq=false"}})
	if r.Lost == 0 || r.Lost == r.Probes || len(r.Problems) != r.Lost+r.Stuck {
		t.Errorf("%d of %d lost, problems %q", r.Lost, r.Probes, r.Problems)
	}
}
