// Package policyview turns what package policy says into the types of the status: the list of policies, and the verdict
// on a connection. The daemon uses it for the policies that it enforces, and selvaged policy for those of files.
package policyview

import (
	"cmp"
	"iter"
	"slices"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/connection"
)

// List returns the policies of a cluster. Of each it says how many pods of a node it selects; with an empty node, how
// many pods.
func List(w connection.World, node string) []status.Policy {
	all := []status.Policy{}
	var cluster []*policy.ClusterPolicy
	for p := range w.ClusterPolicies() {
		cluster = append(cluster, p)
	}
	slices.SortFunc(cluster, func(a, b *policy.ClusterPolicy) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), a.Order(b))
	})
	for _, p := range cluster {
		shown := status.Policy{
			Kind: status.KindClusterNetworkPolicy, Name: p.Name, Tier: p.Tier.String(), Priority: &p.Priority,
			Rules: []status.NetworkPolicyRule{}, Problems: problems(p.Problems),
		}
		if !p.NoSubject {
			shown.Selects, shown.Pods = p.Subject.Text(), count(w, node, p.Subject)
		}
		for _, dir := range policy.Directions() {
			for i := range p.Rules[dir] {
				shown.Rules = append(shown.Rules, clusterRule(p, dir, i))
			}
		}
		all = append(all, shown)
	}
	for _, p := range slices.SortedFunc(w.Policies(), func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}) {
		shown := status.Policy{
			Kind: status.KindNetworkPolicy, Namespace: p.Namespace, Name: p.Name, Selects: p.Subject.Text(),
			Pods: count(w, node, p.Subject), Rules: []status.NetworkPolicyRule{}, Problems: problems(p.Problems),
		}
		for _, dir := range policy.Directions() {
			if !p.Isolates[dir] {
				continue
			}
			shown.Isolates = append(shown.Isolates, dir.String())
			for i := range p.Rules[dir] {
				shown.Rules = append(shown.Rules, rule(p, dir, i))
			}
		}
		all = append(all, shown)
	}
	return all
}

// count returns how many pods a group selects.
func count(w connection.World, node string, g policy.Group) (n int) {
	for p := range w.Pods() {
		if p.Counts() && (node == "" || p.Node == node) && policy.Selects(w, g, p) {
			n++
		}
	}
	return n
}

func problems(all []policy.Problem) (shown []status.PolicyProblem) {
	for _, p := range all {
		shown = append(shown, status.PolicyProblem{Reason: string(p.Reason), Place: p.Place, Text: status.Text(p.Text)})
	}
	return shown
}

func rule(p *policy.Policy, dir policy.Direction, i int) status.NetworkPolicyRule {
	r := status.NetworkPolicyRule{Direction: dir.String(), Index: i}
	r.Peers, r.Ports = p.Rules[dir][i].Texts()
	return r
}

func clusterRule(p *policy.ClusterPolicy, dir policy.Direction, i int) status.NetworkPolicyRule {
	from := p.Rules[dir][i]
	r := status.NetworkPolicyRule{Direction: dir.String(), Index: i, Name: from.Name, Action: from.Action.String()}
	r.Peers, r.Ports = from.Texts()
	return r
}

// Verdicts returns answers about connections, one for each family.
func Verdicts(w connection.World, answers []connection.Answer) []status.PolicyVerdict {
	all := []status.PolicyVerdict{}
	for _, a := range answers {
		v := status.PolicyVerdict{
			Source: status.PolicyEnd{Address: a.Source}, Destination: status.PolicyEnd{Address: a.Destination},
			Ports: []status.PortVerdict{},
		}
		v.Source.Pod, v.Source.Node = nameOf(policy.Owner(w, a.Source))
		v.Destination.Pod, v.Destination.Node = nameOf(policy.Owner(w, a.Destination))
		for _, r := range a.Ranges {
			p := status.PortVerdict{Protocol: r.Protocol.String(), First: r.First, Last: r.Last, Allowed: r.Allowed()}
			switch r.Protocol {
			case 0:
				p.Protocol = status.ProtocolOther
			case connection.ICMP:
				p.Protocol = "ICMP"
			}
			p.Ingress = decision(w, r, policy.Ingress)
			p.Egress = decision(w, r, policy.Egress)
			v.Ports = append(v.Ports, p)
		}
		all = append(all, v)
	}
	return all
}

// nameOf returns namespace and name of a pod, and its node.
func nameOf(p *policy.Pod) (name, node string) {
	if p == nil {
		return "", ""
	}
	return p.Namespace + "/" + p.Name, p.Node
}

func decision(w connection.World, r connection.Range, dir policy.Direction) status.PolicyDecision {
	v := r.Verdicts[dir]
	d := status.PolicyDecision{Allowed: v.Allowed, Cause: string(v.Cause), Policy: v.Policy, Isolated: v.Isolated}
	d.Pod, d.Node = nameOf(v.Pod)
	if v.Policy != "" {
		d.Rule = ruleOf(w, v, dir)
	}
	if v.Cause != policy.CauseIsolated {
		return d
	}
	for _, m := range policy.Misses(w, r.Packet, dir) {
		missed := status.MissedRule{Policy: m.Policy, Peer: m.Peer, Port: m.Port}
		p := find(w.PoliciesIn(v.Pod.Namespace), func(p *policy.Policy) bool { return p.Key() == m.Policy })
		if p != nil {
			missed.Rule = rule(p, dir, m.Rule)
		}
		d.Missed = append(d.Missed, missed)
	}
	return d
}

// ruleOf returns the rule that decided.
func ruleOf(w connection.World, v policy.Verdict, dir policy.Direction) *status.NetworkPolicyRule {
	var r status.NetworkPolicyRule
	if v.Cause == policy.CauseRule {
		p := find(w.PoliciesIn(v.Pod.Namespace), func(p *policy.Policy) bool { return p.Key() == v.Policy })
		if p == nil {
			return nil
		}
		r = rule(p, dir, v.Rule)
		return &r
	}
	p := find(w.ClusterPolicies(), func(p *policy.ClusterPolicy) bool { return p.Name == v.Policy })
	if p == nil {
		return nil
	}
	r = clusterRule(p, dir, v.Rule)
	return &r
}

// find returns the first object that is the one, or nil.
func find[T any](all iter.Seq[*T], is func(*T) bool) *T {
	for p := range all {
		if is(p) {
			return p
		}
	}
	return nil
}
