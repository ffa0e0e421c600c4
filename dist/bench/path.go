package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/subnet"
)

// manyFlows is how many there are where there are many.
const manyFlows = 8

// pathCases are those of the part "path": one, and others that differ from it in one thing each.
func pathCases() []pathCase {
	const direct, hostgw = `{"Type":"vxlan","DirectRouting":true}`, `{"Type":"host-gw"}`
	nftables := lab.Filter{Name: "nftables", IPTables: "none", NFTables: lab.NFTablesOn} // without iptables, so that nothing but nftables can do it
	iptables := lab.Filter{Name: "iptables", IPTables: "nft", NFTables: lab.NFTablesOff}
	kubeProxy := lab.Filter{Name: "kube-proxy", IPTables: "nft", NFTables: lab.NFTablesOn} // its rules are iptables'
	cases := []pathCase{
		{name: "backend=vxlan", what: "vxlan", filter: nftables, many: true, fast: true},
		{name: "backend=vxlan", what: "vxlan, 5000 leases", filter: nftables, leases: 5000},
		{name: "backend=vxlan", what: "vxlan, iptables", filter: iptables},
		{name: "backend=direct", what: "DirectRouting", backend: direct, filter: nftables},
		{name: "backend=hostgw", what: "host-gw", backend: hostgw, filter: nftables},
		{name: "backend=vxlan", what: "vxlan, IPv6", family: subnet.IPv6, filter: nftables},
		{name: "backend=vxlan", what: "vxlan, wire", filter: nftables, wire: true, many: true, fast: true},
		{name: "backend=vxlan", what: "vxlan, wire, kube-proxy", filter: kubeProxy, wire: true, fast: true,
			services: 100},
		{name: "backend=hostgw", what: "host-gw, wire", backend: hostgw, filter: nftables, wire: true},
	}
	for i, c := range cases {
		cases[i].name += fmt.Sprintf("/filter=%s/leases=%d/family=%s/underlay=%s", c.filter.Name, c.leases, lab.FamiliesName([]subnet.Family{c.family}), c.underlay())
	}
	return cases
}

// underlay says what the underlay takes in one piece.
func (c pathCase) underlay() string {
	if c.wire {
		return "wire"
	}
	return "whole"
}

func (c pathCase) loads() []load {
	if c.many {
		return []load{{"tcp", 1}, {"tcp", manyFlows}, {"udp", 1}, {"udp", manyFlows}}
	}
	return []load{{"tcp", 1}, {"udp", 1}}
}

// metric is one thing that is measured of a way.
type metric struct{ name, what, unit string }

// samples are what was measured, one for each round.
type samples struct {
	order []metric
	of    map[metric][]float64
}

func (s *samples) add(m metric, v float64) {
	if s.of == nil {
		s.of = map[metric][]float64{}
	}
	if !slices.Contains(s.order, m) {
		s.order = append(s.order, m)
	}
	s.of[m] = append(s.of[m], v)
}

// measure is one round on one way.
func (w way) measure(ctx context.Context, loads []load, into *samples) error {
	for _, l := range loads {
		t, err := w.iperf(ctx, l)
		if err != nil {
			return err
		}
		of := fmt.Sprintf("proto=%s/flows=%d", l.protocol, l.flows)
		into.add(metric{"Throughput/" + of, l.String(), "Gbit/s"}, t.Bits/1e9)
		into.add(metric{"PathCPU/" + of, l.String() + ", CPU", "s/GB"}, t.CPU)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		took, err := w.latency(protocol)
		if err != nil {
			return err
		}
		for _, p := range []int{50, 99} {
			m := metric{fmt.Sprintf("RoundTrip/proto=%s/p=%d", protocol, p), fmt.Sprintf("%s there and back, p%d", load{protocol, 1}.name(), p), "µs"}
			into.add(m, quantile(float64(p)/100, took))
		}
	}
	return nil
}

// paths measures throughput, CPU and latency between pods, and between what is below them, in turns.
func paths(ctx context.Context, b *bench) error {
	for _, c := range pathCases() {
		in := func(text string) bool { return strings.Contains(c.what, text) || strings.Contains(c.name, text) }
		if len(b.PathCases) > 0 && !slices.ContainsFunc(b.PathCases, in) {
			continue
		}
		if c.fast && !fastpath.Permitted() {
			c.fast = false
			b.report.note("%s: without the fast path: the kernel does not permit BPF programs here.", c.what)
		}
		b.step("  %s", c.what)
		if err := b.path(ctx, c, min(3, b.Rounds)); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	b.report.note("CPU is that of the whole machine, for both ends and all between them, and for whatever else ran. UDP is sent as fast as that goes, and what arrives is counted.")
	return nil
}

func (b *bench) path(ctx context.Context, c pathCase, rounds int) (err error) {
	p, err := b.dataPath(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var pods, fast, underlay, veth samples
	for range rounds {
		for _, x := range []struct {
			way  way
			into *samples
		}{{p.veth, &veth}, {p.underlay, &underlay}, {p.pods, &pods}, {p.fast, &fast}} {
			if x.into == &fast && !c.fast {
				continue
			}
			if err := x.way.measure(ctx, c.loads(), x.into); err != nil {
				return err
			}
		}
	}
	for _, m := range pods.order {
		own := pods.of[m]
		f := Figure{
			Name: m.name + "/" + c.name, What: c.what + ": " + m.what, Unit: m.unit, Samples: own,
			Floor: inTurns(p.underlay.name, own, underlay.of[m]), Veth: inTurns(p.veth.name, own, veth.of[m]),
		}
		if c.fast {
			f.Fast = inTurns("fast path", fast.of[m], underlay.of[m]) // the ratio is to node to node
			f.Fast.Samples, f.Fast.Value = fast.of[m], median(fast.of[m])
		}
		b.report.add(f)
	}
	if !c.fast {
		return nil
	}
	return b.fastPath(ctx, c, p, &fastSamples{off: pods, on: fast, underlay: underlay})
}
