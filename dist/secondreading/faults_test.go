package secondreading

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/policytest"
)

// faults are misreadings of the API. Each changes a cluster so that the evaluator judges as if it had it.
func faults() map[string]func(*policy.Cluster) {
	rules := func(change func(*policy.Match)) func(*policy.Cluster) {
		return func(c *policy.Cluster) {
			for _, p := range c.Policies {
				for _, d := range policy.Directions() {
					for i := range p.Rules[d] {
						change(&p.Rules[d][i])
					}
				}
			}
		}
	}
	peers := func(change func(*policy.Peer)) func(*policy.Cluster) {
		return rules(func(m *policy.Match) {
			for i := range m.Peers {
				change(&m.Peers[i])
			}
		})
	}
	ports := func(change func(*policy.Port)) func(*policy.Cluster) {
		return rules(func(m *policy.Match) {
			for i := range m.Ports {
				change(&m.Ports[i])
			}
		})
	}
	policies := func(change func(*policy.Policy)) func(*policy.Cluster) {
		return func(c *policy.Cluster) {
			for _, p := range c.Policies {
				change(p)
			}
		}
	}
	return map[string]func(*policy.Cluster){
		"exceptions are ignored": peers(func(p *policy.Peer) { p.Except = nil }),
		"a block says something about the other family": peers(func(p *policy.Peer) {
			if p.Block == netip.MustParsePrefix("0.0.0.0/0") {
				p.Block = netip.MustParsePrefix("::/0")
			}
		}),
		"a podSelector selects in all namespaces": peers(func(p *policy.Peer) {
			p.Group.Namespace = ""
		}),
		"a namespaceSelector selects all pods of them": peers(func(p *policy.Peer) {
			p.Group.Pods = policy.Selector{}
		}),
		"a namespaceSelector selects all namespaces": peers(func(p *policy.Peer) {
			p.Group.Namespaces = policy.Selector{}
		}),
		"a range ends early": ports(func(p *policy.Port) {
			p.Last = max(p.First, p.Last-1)
		}),
		"a named port is any port": ports(func(p *policy.Port) {
			if p.Name != "" {
				p.Name, p.Last = "", 0xffff
			}
		}),
		"SCTP is taken for TCP": ports(func(p *policy.Port) {
			if p.Protocol == policy.SCTP {
				p.Protocol = policy.TCP
			}
		}),
		"only the first rule counts": policies(func(p *policy.Policy) {
			for _, d := range policy.Directions() {
				p.Rules[d] = p.Rules[d][:min(1, len(p.Rules[d]))]
			}
		}),
		"no rules mean every rule": policies(func(p *policy.Policy) {
			for _, d := range policy.Directions() {
				p.Isolates[d] = p.Isolates[d] && len(p.Rules[d]) > 0
			}
		}),
		"egress is isolated if there are rules for it": policies(func(p *policy.Policy) {
			p.Isolates[policy.Egress] = p.Isolates[policy.Egress] || len(p.Rules[policy.Egress]) > 0
		}),
		"labels of namespaces are ignored": func(c *policy.Cluster) {
			for name := range c.Namespaces {
				c.Namespaces[name] = policy.Namespace{Name: name}
			}
		},
		"hostNetwork pods are pods": func(c *policy.Cluster) {
			for _, p := range c.Pods {
				p.HostNetwork = false
			}
		},
	}
}

// clusterFaults are those in reading cluster policies.
func clusterFaults() map[string]func(*policy.Cluster) {
	policies := func(change func(*policy.ClusterPolicy)) func(*policy.Cluster) {
		return func(c *policy.Cluster) {
			for name, p := range c.ClusterWide {
				p := *p // the engine has the other
				c.ClusterWide[name] = &p
				change(&p)
			}
		}
	}
	actions := func(p *policy.ClusterPolicy, from, to policy.Action) {
		for _, d := range policy.Directions() {
			p.Rules[d] = slices.Clone(p.Rules[d])
			for i := range p.Rules[d] {
				if r := &p.Rules[d][i]; r.Action == from {
					r.Action = to
				}
			}
		}
	}
	return map[string]func(*policy.Cluster){
		"the highest number is the first": policies(func(p *policy.ClusterPolicy) { p.Priority = 10 - p.Priority }),
		"Baseline is Admin":               policies(func(p *policy.ClusterPolicy) { p.Tier = policy.Admin }),
		"to pass is to accept": policies(func(p *policy.ClusterPolicy) {
			actions(p, policy.Pass, policy.Accept)
		}),
		"to accept is to pass": policies(func(p *policy.ClusterPolicy) {
			actions(p, policy.Accept, policy.Pass)
		}),
	}
}

// TestFaults: the comparison with each engine finds each misreading.
func TestFaults(t *testing.T) {
	for name, e := range engines(t) {
		list := faults()
		if name == "kube-network-policies" {
			for fault, change := range clusterFaults() {
				list[fault] = change
			}
		}
		for fault, change := range list {
			t.Run(name+": "+fault, func(t *testing.T) {
				r := policytest.New(1, policytest.Options{API: true})
				for n := range 500 {
					o, c := e.cluster(t, r)
					change(c)
					judge := e.load(o)
					for range 200 {
						if p := packet(r); !e.skips(p) && judge(p) != allowed(c, p) {
							t.Logf("found in cluster %d: %+v", n, p)
							return
						}
					}
				}
				t.Error("not found")
			})
		}
	}
}
