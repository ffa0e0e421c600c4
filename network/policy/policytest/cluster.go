package policytest

import "github.com/selvage-net/selvage/network/policy"

// NewCluster returns a cluster without any object.
func NewCluster() *policy.Cluster {
	return &policy.Cluster{Namespaces: map[string]policy.Namespace{}, Pods: map[string]*policy.Pod{},
		Policies: map[string]*policy.Policy{}, ClusterWide: map[string]*policy.ClusterPolicy{}}
}

// Cluster returns a cluster after so many changes.
func (r Random) Cluster(steps int) *policy.Cluster {
	c := NewCluster()
	for range steps {
		r.Step(c)
	}
	return c
}

// Step changes an object of a cluster: it adds, replaces or removes one. The returned function makes the same change
// elsewhere.
func (r Random) Step(c *policy.Cluster) func(policy.Objects) {
	remove := r.Chance(25)
	switch r.IntN(10) {
	case 0:
		n := r.Namespace()
		if remove {
			delete(c.Namespaces, n.Name)
			return func(o policy.Objects) { o.DeleteNamespace(n.Name) }
		}
		c.Namespaces[n.Name] = n
		return func(o policy.Objects) { o.SetNamespace(n) }
	case 1, 2, 3, 4, 5:
		p := r.Pod()
		if old := c.Pods[p.UID]; old != nil && r.Chance(40) { // a smaller change
			q := *old
			q.Labels, q.Deleting, q.Ended = p.Labels, p.Deleting, p.Ended
			if r.Chance(50) {
				q.Labels, q.Addresses, q.Ports = old.Labels, p.Addresses, p.Ports
			}
			p = q
		}
		if remove {
			delete(c.Pods, p.UID)
			return func(o policy.Objects) { o.DeletePod(p.UID) }
		}
		c.Pods[p.UID] = &p
		return func(o policy.Objects) { o.SetPod(p) }
	case 6, 7, 8:
		p := r.Policy()
		if remove {
			delete(c.Policies, p.Key())
			return func(o policy.Objects) { o.DeletePolicy(p.Namespace, p.Name) }
		}
		c.Policies[p.Key()] = &p
		return func(o policy.Objects) { o.SetPolicy(p) }
	}
	p := r.ClusterPolicy()
	if remove {
		delete(c.ClusterWide, p.Name)
		return func(o policy.Objects) { o.DeleteClusterPolicy(p.Name) }
	}
	c.ClusterWide[p.Name] = &p
	return func(o policy.Objects) { o.SetClusterPolicy(p) }
}
