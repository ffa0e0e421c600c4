package policy

import (
	"iter"
	"net/netip"

	"github.com/selvage-net/selvage/subnet"
)

// Source is what [Judge] reads.
type Source interface {
	// PodsAt yields the pods that have an address in the API, of which at most one is its owner.
	PodsAt(netip.Addr) iter.Seq[*Pod]
	// Namespace returns a namespace; ok is false if it is not known.
	Namespace(name string) (n Namespace, ok bool)
	// PoliciesIn yields the policies of a namespace, in any order.
	PoliciesIn(namespace string) iter.Seq[*Policy]
	// ClusterPolicies yields the cluster policies, in any order.
	ClusterPolicies() iter.Seq[*ClusterPolicy]
}

// Cluster is a [Source] that walks over all objects: for tests of policies without a cluster.
type Cluster struct {
	Namespaces  map[string]Namespace      // by name
	Pods        map[string]*Pod           // by UID
	Policies    map[string]*Policy        // by [Policy.Key]
	ClusterWide map[string]*ClusterPolicy // by name
}

// PodsAt implements [Source].
func (c *Cluster) PodsAt(a netip.Addr) iter.Seq[*Pod] {
	return func(yield func(*Pod) bool) {
		for _, p := range c.Pods {
			if a.IsValid() && p.Addresses[subnet.FamilyOf(a)] == a && !yield(p) {
				return
			}
		}
	}
}

// Namespace implements [Source].
func (c *Cluster) Namespace(name string) (n Namespace, ok bool) {
	n, ok = c.Namespaces[name]
	return n, ok
}

// PoliciesIn implements [Source].
func (c *Cluster) PoliciesIn(namespace string) iter.Seq[*Policy] {
	return func(yield func(*Policy) bool) {
		for _, p := range c.Policies {
			if p.Namespace == namespace && !yield(p) {
				return
			}
		}
	}
}

// ClusterPolicies implements [Source].
func (c *Cluster) ClusterPolicies() iter.Seq[*ClusterPolicy] {
	return func(yield func(*ClusterPolicy) bool) {
		for _, p := range c.ClusterWide {
			if !yield(p) {
				return
			}
		}
	}
}
