package connectivity

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/subnet"
)

// cluster returns the ends of that many nodes, in both families.
func cluster(nodes int) *Ends {
	t := &Ends{
		Families:   []subnet.Family{subnet.IPv4, subnet.IPv6},
		Service:    [2]netip.Addr{netip.MustParseAddr("10.96.0.9"), netip.MustParseAddr("fd00:96::9")},
		APIService: netip.MustParseAddrPort("10.96.0.1:443"),
		APIServers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6443")},
	}
	for i := range nodes {
		node := fmt.Sprintf("node%d", i)
		at := func(role string, last int) Place {
			return Place{Name: role + node, Node: node, Addrs: [2]netip.Addr{
				netip.AddrFrom4([4]byte{10, 5, byte(i), byte(last)}),
				netip.MustParseAddr(fmt.Sprintf("fd00:5:0:%x::%x", i, last)),
			}}
		}
		t.First, t.Second = append(t.First, at("first-", 2)), append(t.Second, at("second-", 3))
		t.Daemons = append(t.Daemons, Place{Name: node, Node: node})
		t.Nodes = append(t.Nodes, [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})})
		t.NodePorts = append(t.NodePorts, 10250)
	}
	return t
}

// plans returns all of those of a cluster.
func (t *Ends) plans() (all []plan) {
	pods, services := t.nodePlans()
	ingress, egress := t.deniedPlans()
	return []plan{t.podPlan(), t.podToNodePlan(), pods, services, t.servicePlan(), t.outsidePlan([]netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:80")}),
		t.dnsPlan(), ingress, egress, t.allowedPlan(), t.repeatPlan(policyDeleted, t.Second, t.First)}
}

// TestPlan counts the calls of each check: those of all pairs, in each family, by UDP and TCP.
func TestPlan(t *testing.T) {
	for _, test := range []struct {
		nodes int
		want  map[string]int
	}{
		{1, map[string]int{
			sameNode: 4, fullSize: 2, podToNode: 1, nodeToPod: 4, service: 4, nodeToService: 4, apiService: 1,
			apiAddress: 1, outside: 1, dns: 1, policyDenies: 4 + 1, policyAllows: 4, policyDeleted: 4,
		}},
		{3, map[string]int{
			sameNode: 12, otherNode: 24, fullSize: 18, podToNode: 9, nodeToPod: 36, service: 12, nodeToService: 12,
			apiService: 3, apiAddress: 3, outside: 3, dns: 3, policyDenies: 36 + 3, policyAllows: 36, policyDeleted: 36,
		}},
		{MostPeers + 100, map[string]int{
			sameNode: 4 * (MostPeers + 100), otherNode: 4 * MostPeers * (MostPeers + 100),
		}},
	} {
		top, got := cluster(test.nodes), map[string]int{}
		for _, p := range top.plans() {
			for _, probe := range p.probes {
				got[probe.check]++
				if to := probe.call.To; to.IsValid() && slices.Contains(p.callers[probe.from].Addrs[:], to.Addr()) {
					t.Errorf("%s: %s calls itself", probe.check, p.callers[probe.from])
				}
				if to := probe.call.To; to.IsValid() && !probe.any && subnet.FamilyOf(to.Addr()) != probe.family {
					t.Errorf("%s: %s is called as one of %s", probe.check, to, probe.family)
				}
			}
		}
		for check, n := range test.want {
			if got[check] != n {
				t.Errorf("%d nodes, %s: %d calls, want %d", test.nodes, check, got[check], n)
			}
		}
		if test.nodes <= 3 && len(got) != len(test.want)-countOf(test.want, 0) {
			t.Errorf("%d nodes: %v, want %v", test.nodes, got, test.want)
		}
	}
	for i, o := range cluster(3).streams() {
		if len(o.Streams) != 4 {
			t.Errorf("pod %d sends %d streams, want one to each of two pods in each family", i, len(o.Streams))
		}
	}
	if o := cluster(1).streams(); len(o) != 1 || len(o[0].Streams) != 2 {
		t.Errorf("of one node: %+v", o)
	}
}

func countOf(all map[string]int, n int) (count int) {
	for _, x := range all {
		if x == n {
			count++
		}
	}
	return count
}

// answered returns the results that a cluster without faults gives.
func (p plan) answered() (results []*agent.Result) {
	for _, probe := range p.probes {
		r := &agent.Result{Echo: agent.Echo{By: probe.want.by}}
		if len(probe.want.seen) > 0 {
			r.Echo.Seen = probe.want.seen[0]
		}
		if probe.want.denied {
			r.Error = "i/o timeout"
		}
		results = append(results, r)
	}
	return results
}

// TestJudge breaks each answer of each plan in each way that has to be noticed.
func TestJudge(t *testing.T) {
	for _, p := range cluster(2).plans() {
		for _, c := range p.judge(p.answered(), nil) {
			if c.Failed != 0 || c.Failures != nil || c.Probes == 0 {
				t.Errorf("%s, all answered: %+v", c.Title(), c)
			}
		}
		if failed := p.failed(p.answered()); failed != nil {
			t.Errorf("all answered, and tried again: %v", failed)
		}
		for i, probe := range p.probes {
			for name, broken := range map[string]*agent.Result{
				"nothing": nil, "an error": {Error: "no route to host"},
				"another pod":    {Echo: agent.Echo{By: "another", Seen: p.answered()[i].Echo.Seen}},
				"another source": {Echo: agent.Echo{By: probe.want.by, Seen: netip.MustParseAddr("192.0.2.99")}},
			} {
				want := 1
				switch {
				case broken == nil:
				case probe.want.denied:
					want = boolInt(broken.Error == "")
				case name == "another pod":
					want = boolInt(probe.want.by != "")
				case name == "another source":
					want = boolInt(len(probe.want.seen) > 0)
				}
				results := p.answered()
				results[i] = broken
				failed := 0
				for _, c := range p.judge(results, nil) {
					failed += c.Failed
					if len(c.Failures) != c.Failed {
						t.Errorf("%s: %d failures, %d counted", c.Name, len(c.Failures), c.Failed)
					}
				}
				if failed != want || len(p.failed(results)) != want {
					t.Errorf("%s to %s, %s answered: %d failed, %v to be tried again, want %d",
						probe.check, probe.to, name, failed, p.failed(results), want)
				}
			}
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestJudgeCaller has a caller that could not be asked: its calls failed, and only they.
func TestJudgeCaller(t *testing.T) {
	p := cluster(2).podPlan()
	results := p.answered()
	for i, probe := range p.probes {
		if probe.from == 1 {
			results[i] = nil
		}
	}
	var checks []Check
	for _, c := range p.judge(results, map[int]error{1: errors.New("container is gone")}) {
		checks = add(checks, c)
		if c.Failed*2 != c.Probes {
			t.Errorf("%s: %d of %d failed, want half", c.Title(), c.Failed, c.Probes)
		}
		for _, f := range c.Failures {
			if !strings.Contains(f.String(), "first-node1 on node1") || !strings.Contains(f.Error, "container is gone") {
				t.Errorf("%s", f)
			}
		}
	}
	if (Report{Checks: checks}).OK() {
		t.Error("the report is ok")
	}
}

func TestAdd(t *testing.T) {
	var all []Check
	for _, c := range []Check{
		{Name: "a", Family: "IPv4", Probes: 1}, {Name: "b", Family: "IPv4", Probes: 1},
		{Name: "a", Family: "IPv6", Probes: 2}, {Name: "a", Family: "IPv4", Probes: 3, Failed: 1, Failures: []Failure{{}}},
	} {
		all = add(all, c)
	}
	var got []string
	for _, c := range all {
		got = append(got, fmt.Sprint(c.Title(), c.Probes, c.Failed, len(c.Failures)))
	}
	if want := []string{"a (IPv4)4 1 1", "a (IPv6)2 0 0", "b (IPv4)1 0 0"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestJudgeStreams(t *testing.T) {
	top := cluster(3)
	orders := top.streams()
	fresh := func() (results []agent.Results) {
		for _, o := range orders {
			var r agent.Results
			for range o.Streams {
				r.Streams = append(r.Streams, agent.Losses{Sent: 10})
			}
			results = append(results, r)
		}
		return results
	}
	none := make([]error, len(orders))
	if c := judgeStreams(top.First, orders, fresh(), none); c.Probes != 120 || c.Failed != 0 || c.Failures != nil {
		t.Errorf("none lost: %+v", c)
	}
	lost := fresh()
	lost[1].Streams[2].Lost = 3
	if c := judgeStreams(top.First, orders, lost, none); c.Probes != 120 || c.Failed != 3 || len(c.Failures) != 1 {
		t.Errorf("three lost: %+v", c)
	}
	short := fresh()
	short[2].Streams = short[2].Streams[:3]
	if c := judgeStreams(top.First, orders, short, none); len(c.Failures) != 1 {
		t.Errorf("no answer of one stream: %+v", c)
	}
	gone := slices.Clone(none)
	gone[0] = errors.New("gone")
	if c := judgeStreams(top.First, orders, fresh(), gone); len(c.Failures) != 4 {
		t.Errorf("no answer of a pod: %+v", c)
	}
}
