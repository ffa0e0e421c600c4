package policy

import (
	"iter"
	"net/netip"
	"slices"
)

// PodsAt implements [Source].
func (c *Compiler) PodsAt(a netip.Addr) iter.Seq[*Pod] {
	return func(yield func(*Pod) bool) {
		if m := c.owners[a]; m != nil && !yield(&m.Pod) {
			return
		}
		for _, m := range c.rivals[a] {
			if !yield(&m.Pod) {
				return
			}
		}
	}
}

// Namespace implements [Source].
func (c *Compiler) Namespace(name string) (ns Namespace, ok bool) {
	n := c.spaces[name]
	if n == nil || !n.known {
		return ns, false
	}
	return Namespace{Name: name, Labels: n.labels}, true
}

// PoliciesIn implements [Source].
func (c *Compiler) PoliciesIn(namespace string) iter.Seq[*Policy] {
	return func(yield func(*Policy) bool) {
		if n := c.spaces[namespace]; n != nil {
			for _, r := range n.policies {
				if !yield(r.Policy) {
					return
				}
			}
		}
	}
}

// ClusterPolicies implements [Source].
func (c *Compiler) ClusterPolicies() iter.Seq[*ClusterPolicy] {
	return func(yield func(*ClusterPolicy) bool) {
		for _, r := range c.wide {
			if !yield(r.ClusterPolicy) {
				return
			}
		}
	}
}

// MaySelect reports whether a policy may select a pod of a namespace, whatever labels the pod has. A namespace that is
// not known may be in any cluster policy.
func (c *Compiler) MaySelect(namespace string) bool {
	n := c.spaces[namespace]
	if n == nil || !n.known {
		return len(c.wide) > 0 || n != nil && len(n.policies) > 0
	}
	return slices.ContainsFunc(n.scopes, func(s *scope) bool { return len(s.subjects.byText) > 0 })
}

// NeedsPeers reports whether a policy that selects a pod of this node names other pods: only then the compiler needs
// the pods of other nodes.
func (c *Compiler) NeedsPeers() bool {
	for _, s := range c.sets {
		if s.group != nil && !s.group.subject {
			return true
		}
	}
	return false
}

// AllPods yields the pods that count, in any order.
func (c *Compiler) AllPods() iter.Seq[*Pod] {
	return func(yield func(*Pod) bool) {
		for _, m := range c.pods {
			if !yield(&m.Pod) {
				return
			}
		}
	}
}

// AllPolicies yields the NetworkPolicies of all namespaces, in any order.
func (c *Compiler) AllPolicies() iter.Seq[*Policy] {
	return func(yield func(*Policy) bool) {
		for _, n := range c.spaces {
			for _, r := range n.policies {
				if !yield(r.Policy) {
					return
				}
			}
		}
	}
}
