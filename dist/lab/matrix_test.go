package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/testctx"
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

// traits are what a combination is made of, and each pair of these.
func traits(c Combination) (list []string) {
	names := []string{FamiliesName(c.Families), c.Backend.Name, c.Filter.Name, fmt.Sprintf("mtu=%d", c.UplinkMTU())}
	for i, a := range names {
		list = append(list, a)
		for _, b := range names[i+1:] {
			list = append(list, a+" "+b)
		}
	}
	for _, name := range names[:3] { // the MTU has nothing to do with where the leases are
		list = append(list, name+" "+string(c.Store))
	}
	return append(list, fmt.Sprintf("%s segments=%d", c.Backend.Name, c.Segments))
}

// wanted is how often each trait is to be tried at least: once, and backends and filters by themselves twice.
func wanted(all []Combination) map[string]int {
	want := map[string]int{}
	for _, c := range all {
		for _, trait := range traits(c) {
			want[trait] = 1
			if trait == c.Backend.Name || trait == c.Filter.Name {
				want[trait] = 2
			}
		}
	}
	return want
}

// sample is as few combinations as it takes to try all that is wanted, or nearly so: what breaks a pair of traits breaks one of them.
// Each is the one that adds the most to those before.
func sample(all []Combination) (chosen []Combination) {
	want := wanted(all)
	for {
		most, best := 0, Combination{}
		for _, c := range all {
			adds := 0
			for _, trait := range traits(c) {
				adds += min(want[trait], 1)
			}
			if adds > most {
				most, best = adds, c
			}
		}
		if most == 0 {
			return chosen
		}
		for _, trait := range traits(best) {
			want[trait] = max(want[trait]-1, 0)
		}
		chosen = append(chosen, best)
	}
}

// wireGuardTried is the combination with WireGuard that TestMatrix tries: a device and a program for each family, behind a
// router. The modes and what happens on a device are tried by dist/wireguard.
const wireGuardTried = "dual wireguard separate nftables kubernetes segments=2 mtu=1500"

// tunnels are the combinations without WireGuard.
func tunnels() []Combination {
	return slices.DeleteFunc(Combinations(), func(c Combination) bool { return len(c.wireGuards()) > 0 })
}

// TestMatrix tries a sample of the combinations; make matrix tries all.
func TestMatrix(t *testing.T) {
	for _, c := range append(sample(tunnels()), find(t, wireGuardTried)) {
		t.Run(c.String(), func(t *testing.T) {
			nodes := 2
			if c.Backend.Direct && c.Segments > 1 {
				nodes = 3 // two of which are on one segment
			}
			r := c.Run(testctx.New(t), Options{Nodes: nodes, Bin: binDir, Patience: TestPatience})
			// Of the pods each to every other, to every node and to the outside, and from every node to each.
			pods := nodes * podsEach
			if want := pods * (pods - 1 + nodes + 1 + nodes) * len(c.Families); r.Probes != want || r.Full != want || r.Lost+r.Stuck > 0 || r.Fragments > 0 || r.Took == 0 {
				t.Errorf("%d probes and %d full ones, %d and %d of them lost, %d fragments, want %d of both, and none lost or in pieces",
					r.Probes, r.Full, r.Lost, r.Stuck, r.Fragments, want)
			}
			for _, p := range r.Problems {
				t.Error(p)
			}
		})
	}
}

// TestSample says what TestMatrix rests on: backends and filters are tried twice, and each pair of traits once.
func TestSample(t *testing.T) {
	all := tunnels()
	chosen := sample(all)
	tried := map[string]int{}
	for _, c := range chosen {
		for _, trait := range traits(c) {
			tried[trait]++
		}
	}
	for what, want := range wanted(all) {
		if tried[what] < want {
			t.Errorf("%q is tried %d times, want %d", what, tried[what], want)
		}
	}
	t.Logf("%d of %d combinations", len(chosen), len(all))
}

// TestMatrixFinds has combinations that are not what they are taken for.
func TestMatrixFinds(t *testing.T) {
	works := find(t, "ipv4 vxlan iptables-nft etcd segments=1 mtu=1500")
	for name, test := range map[string]struct {
		change func(*Combination)
		want   string
	}{
		"a backend that there is not": {func(c *Combination) { c.Backend.Config = `{"Type":"no-such"}` }, `refused by the daemon: error msg="network config: Backend.Type is \"no-such\"`},
		"no room for a tunnel":        {func(c *Combination) { c.Families, c.MTU = []subnet.Family{subnet.IPv6}, 1300 }, "refused by the daemon: error msg="},
		"a tunnel":                    {func(c *Combination) { c.Backend.Direct = true }, "of node2 through flannel.1, want eth0"},
		"no WireGuard": {func(c *Combination) { c.Backend.WireGuard[subnet.IPv4] = "flannel-wg" },
			"through flannel.1, want flannel-wg"},
		"an MTU that is too large":      {func(c *Combination) { c.Backend.Overhead[subnet.IPv4] = 60 }, "an MTU of 1450, want 1440"},
		"an iptables that there is not": {func(c *Combination) { c.Filter.IPTables = "no-such" }, "no-such"},
	} {
		t.Run(name, func(t *testing.T) {
			c := works
			test.change(&c)
			r := c.Run(testctx.New(t), Options{Nodes: 2, Bin: binDir})
			if r.OK() || !slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, test.want) }) {
				t.Errorf("problems %q, want %q", r.Problems, test.want)
			}
		})
	}
}

func TestMatrixFindsFragments(t *testing.T) {
	c := find(t, "ipv4 vxlan iptables-nft etcd segments=1 mtu=1500")
	c.MTU = 1540 // of which the pods get what the uplinks still take
	ctx, l := newLab(t, c.options(Options{Nodes: 2}))
	podOnEach(ctx, t, l)
	tooLarge(t, l)
	r := Report{Combination: c}
	if err := r.probe(ctx, l); err != nil || r.Fragments == 0 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "packets were fragmented: ") {
		t.Errorf("%+v, %v, want fragments and no other problem", r, err)
	}
}

// TestMatrixFindsNarrowUnderlay has a switch that passes less than the uplinks say.
func TestMatrixFindsNarrowUnderlay(t *testing.T) {
	ctx, l := newLab(t, Options{Nodes: 2, MTU: 1560})
	wait := longEnough(ctx, t, l, l.nodes[0].Endpoint, l.nodes[1].Endpoint)
	for _, n := range l.nodes {
		link, err := netlink.LinkByName(n.name)
		if err == nil {
			err = netlink.LinkSetMTU(link, defaultMTU)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 6*wait) // two nodes, both directions
	defer cancel()
	for _, r := range l.ProbeUnderlay(short) {
		if r.Err == nil || r.Size != 1560 {
			t.Errorf("%s -> %s: %d bytes, %v, want none of 1560 to arrive", r.From, r.To, r.Size, r.Err)
		}
	}
}

// TestMatrixCountsLoss has the bridge plugin masquerade what goes from pod to pod, since the daemon does not.
func TestMatrixCountsLoss(t *testing.T) {
	c := find(t, "ipv4 vxlan iptables-nft etcd segments=1 mtu=1500")
	r := c.Run(testctx.New(t), Options{Nodes: 2, Bin: binDir, DaemonArgs: []string{"--ip-masq=false"}})
	if r.Lost == 0 || r.Lost == r.Probes || len(r.Problems) != r.Lost+r.Stuck {
		t.Errorf("%d of %d lost, problems %q", r.Lost, r.Probes, r.Problems)
	}
}
