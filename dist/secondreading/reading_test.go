package secondreading

import (
	"os"
	"strconv"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/policytest"
)

// engine is another implementation of network policies.
type engine struct {
	// load makes it know the objects of a cluster and no others. The function that it returns reports whether the first
	// packet of a connection is allowed, in both directions.
	load        func(objects) func(policy.Packet) bool
	differences []difference
}

func engines(t *testing.T) map[string]engine {
	t.Helper()
	return map[string]engine{"cyclonus": cyclonus(t), "kube-network-policies": kubeNetworkPolicies(t)}
}

// avoid changes a cluster so that no known difference of the engine shows.
func (e engine) avoid(c *policy.Cluster) {
	for _, d := range e.differences {
		if d.avoid != nil {
			d.avoid(c)
		}
	}
}

// skips reports whether the verdict on a packet is known to differ.
func (e engine) skips(p policy.Packet) bool {
	for _, d := range e.differences {
		if d.skip != nil && d.skip(p) {
			return true
		}
	}
	return false
}

// allowed is the evaluator's verdict.
func allowed(c *policy.Cluster, p policy.Packet) bool {
	v := policy.Judge(c, "", p)
	return v[policy.Ingress].Allowed && v[policy.Egress].Allowed
}

// packet returns a packet of a random cluster. Some are neighbour messages, some have port 0.
func packet(r policytest.Random) policy.Packet {
	p := r.Packet()
	if p.Protocol == policy.ICMPv6 {
		p.ICMPType = policytest.Pick[uint8](r, 128, 128, 129, 130, 135, 143)
	}
	if p.Protocol.HasPorts() && r.Chance(3) {
		p.Port = 0
	}
	return p
}

// cluster returns a random cluster without known differences: its objects, and what the evaluator decodes of them.
func (e engine) cluster(t *testing.T, r policytest.Random) (objects, *policy.Cluster) {
	t.Helper()
	c := r.Cluster(policytest.Pick(r, 20, 60, 150))
	e.avoid(c)
	o := objectsOf(c)
	d := decoded(t, o)
	if want, got := describe(c), describe(d); got != want {
		t.Fatalf("decoded:\n%s\nwant:\n%s", got, want)
	}
	return o, d
}

// TestSecondReading compares verdicts on the packets of 1,000 random clusters. POLICY_CLUSTERS is another number.
func TestSecondReading(t *testing.T) {
	const enough, packets = 1000, 200
	clusters, err := strconv.Atoi(os.Getenv("POLICY_CLUSTERS"))
	if err != nil {
		clusters = enough
	}
	without := map[string][]string{"cyclonus": {"Admin", "Baseline"}}
	for name, e := range engines(t) {
		t.Run(name, func(t *testing.T) {
			r := policytest.New(policytest.Seed(t), policytest.Options{API: true})
			tally, skipped := policytest.Tally{}, 0
			for n := range clusters {
				o, c := e.cluster(t, r)
				judge := e.load(o)
				for range packets {
					p := packet(r)
					if e.skips(p) {
						skipped++
						continue
					}
					v := policy.Judge(c, "", p)
					if got, ours := judge(p), allowed(c, p); got != ours {
						t.Fatalf("cluster %d: %+v: the engine allows: %t; the evaluator: egress %+v, ingress %+v;\n%s",
							n, p, got, v[policy.Egress], v[policy.Ingress], describe(c))
					}
					tally.Add(c, p, v)
				}
			}
			t.Logf("%d clusters, %d verdicts: %s; %d packets skipped", clusters, clusters*packets-skipped, tally,
				skipped)
			if missing := tally.Missing(without[name]...); clusters >= enough && len(missing) > 0 {
				t.Errorf("no packet was about %q", missing)
			}
		})
	}
}
