package bench

import (
	"fmt"
	"strings"
)

// tell reports one setting. The samples are those of the nodes, in their order.
func (p *policyPaths) tell(s policySetting, where string, all []samples) {
	r := p.bench.report
	of := fmt.Sprintf("policies=%d/selecting=%d/where=%s", s.policies, s.selecting, strings.ReplaceAll(where, " ", "-"))
	point := PolicyPoint{Policies: s.policies, Selecting: s.selecting, Where: where}
	for _, m := range all[bySelvage].order {
		own := all[bySelvage].of[m]
		beside := func(node int) *Reference { return inTurns(p.nodes[node].what, own, all[node].of[m]) }
		f := Figure{Name: "Policy" + m.name + "/" + of, What: s.String() + ", " + where + ": " + m.what, Unit: m.unit,
			Samples: own, Floor: beside(withoutPolicies), Bare: beside(bare), Peer: beside(byKubeRouter)}
		r.add(f)
		p.bench.step("    %s, %s: %s %s, %s; %s; %s",
			where, m.what, number(median(own)), m.unit, f.Floor, f.Bare, f.Peer)
		least := 0.0
		switch m.name {
		case "Connect":
			point.Selvage, point.KubeRouter, point.None = median(own), f.Peer.Value, f.Floor.Value
			if s.policies == p.bench.Policies && s.selecting == 0 {
				least = connectLeast
			}
		case "Throughput":
			if s.policies == p.bench.Policies {
				least = throughputLeast
			}
		}
		if least > 0 {
			r.add(Figure{Name: "Policy" + m.name + "Part/" + of, What: f.What + ", of that without policies", Unit: "×",
				Samples: f.Floor.Ratios, Least: &least})
		}
	}
	r.Policies = append(r.Policies, point)
}
