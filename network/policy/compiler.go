package policy

import (
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/subnet"
)

// Compiler derives from namespaces, pods and policies what nf_tables has to hold for the pods of one node: a [Table].
// Its methods take objects as they are, in any order; [Compiler.Changes] returns what that changes. It is not safe for
// concurrent use.
type Compiler struct {
	node    string
	spaces  map[string]*space
	pods    map[string]*member // by UID; those that count
	owners  map[netip.Addr]*member
	rivals  map[netip.Addr][]*member // pods with an address of which another pod is the owner
	scopes  map[string]*scope
	wide    map[string]*clusterRules
	local   map[*kind]bool // kinds with pods of this node
	sets    map[string]*set
	chains  map[string]*chain
	pending pending
}

// NewCompiler returns a compiler for the pods of a node.
func NewCompiler(node string) *Compiler {
	c := &Compiler{
		node: node, spaces: map[string]*space{}, pods: map[string]*member{}, owners: map[netip.Addr]*member{},
		rivals: map[netip.Addr][]*member{}, scopes: map[string]*scope{}, wide: map[string]*clusterRules{},
		local: map[*kind]bool{}, sets: map[string]*set{}, chains: map[string]*chain{}, pending: newPending(),
	}
	for _, s := range fixedSets() {
		c.sets[s.Name] = &set{Set: s}
		c.pending.touched[s.Name] = true
	}
	return c
}

// space returns a namespace, known or not.
func (c *Compiler) space(name string) *space {
	n := c.spaces[name]
	if n == nil {
		n = &space{name: name, kinds: map[Labels]*kind{}, policies: map[string]*rules{}}
		c.spaces[name] = n
		c.rescope(n)
	}
	return n
}

// dropSpace removes a namespace that has nothing.
func (c *Compiler) dropSpace(n *space) {
	if n.known || len(n.kinds)+len(n.policies) > 0 {
		return
	}
	for _, s := range n.scopes {
		delete(s.namespaces, n)
	}
	delete(c.spaces, n.name)
}

// SetNamespace adds a namespace or changes its labels.
func (c *Compiler) SetNamespace(ns Namespace) {
	n := c.space(ns.Name)
	if n.known && n.labels == ns.Labels {
		return
	}
	n.known, n.labels = true, ns.Labels
	c.rescope(n)
}

// DeleteNamespace removes a namespace. Its pods and policies are objects of their own.
func (c *Compiler) DeleteNamespace(name string) {
	if n := c.spaces[name]; n != nil {
		n.known, n.labels = false, Labels{}
		c.rescope(n)
		c.dropSpace(n)
	}
}

// SetPod adds a pod or changes it. A pod that does not count is removed.
func (c *Compiler) SetPod(p Pod) {
	if !p.Counts() {
		c.DeletePod(p.UID)
		return
	}
	old := c.pods[p.UID]
	if old != nil && old.Pod == p {
		return
	}
	m := &member{Pod: p, local: p.Node != "" && p.Node == c.node}
	if old != nil {
		c.disown(old)
	}
	c.enter(m) // before the old one leaves, so that what both need stays
	if old != nil {
		c.leave(old)
	}
	c.pods[p.UID] = m
	for _, f := range subnet.Families() {
		if m.Addresses[f].IsValid() {
			c.claim(m, f)
		}
	}
}

// DeletePod removes the pod with a UID. Another pod that has its name or its address by now stays.
func (c *Compiler) DeletePod(uid string) {
	if m := c.pods[uid]; m != nil {
		c.disown(m)
		c.leave(m)
		delete(c.pods, uid)
	}
}

// enter takes a pod that owns no address yet into its kind.
func (c *Compiler) enter(m *member) {
	n := c.space(m.Namespace)
	k := n.kinds[m.Labels]
	if k == nil {
		k = &kind{space: n, labels: m.Labels}
		n.kinds[m.Labels] = k
		for _, s := range n.scopes {
			k.peers = slices.AppendSeq(k.peers, s.peers.selecting(k.labels))
		}
	}
	m.kind, m.index = k, int32(len(k.pods))
	k.pods = append(k.pods, m)
	if !m.local {
		return
	}
	if k.local++; k.local == 1 {
		c.local[k] = true
		for _, s := range n.scopes {
			k.subjects = slices.AppendSeq(k.subjects, s.subjects.selecting(k.labels))
		}
		c.rechain(k)
	}
}

// leave takes a pod that owns no address any more out of its kind.
func (c *Compiler) leave(m *member) {
	k := m.kind
	last := k.pods[len(k.pods)-1]
	k.pods[m.index], last.index = last, m.index
	k.pods[len(k.pods)-1] = nil
	k.pods = k.pods[:len(k.pods)-1]
	if m.local {
		if k.local--; k.local == 0 {
			delete(c.local, k)
			k.subjects = nil
			c.rechain(k)
		}
	}
	if len(k.pods) == 0 {
		delete(k.space.kinds, k.labels)
		c.dropSpace(k.space)
	}
}

// claim makes a pod the owner of its address in a family, unless another pod takes precedence.
func (c *Compiler) claim(m *member, f subnet.Family) {
	a := m.Addresses[f]
	if other := c.owners[a]; other != nil {
		if !m.Precedes(&other.Pod) {
			c.rivals[a] = append(c.rivals[a], m)
			return
		}
		c.contribute(other, f, -1)
		other.owns[f] = false
		c.rivals[a] = append(c.rivals[a], other)
	}
	c.owners[a], m.owns[f] = m, true
	c.contribute(m, f, 1)
}

// disown takes a pod's addresses from it. The next owner is the rival that takes precedence over the others.
func (c *Compiler) disown(m *member) {
	for _, f := range subnet.Families() {
		a := m.Addresses[f]
		if !m.owns[f] {
			c.forget(a, m)
			continue
		}
		c.contribute(m, f, -1)
		m.owns[f] = false
		delete(c.owners, a)
		var next *member
		for _, r := range c.rivals[a] {
			if next == nil || r.Precedes(&next.Pod) {
				next = r
			}
		}
		if next != nil {
			c.forget(a, next)
			c.claim(next, f)
		}
	}
}

// forget removes a pod from the rivals for an address.
func (c *Compiler) forget(a netip.Addr, m *member) {
	if list, ok := c.rivals[a]; ok {
		if list = without(list, m); len(list) == 0 {
			delete(c.rivals, a)
		} else {
			c.rivals[a] = list
		}
	}
}

// contribute adds the elements that a pod has for its address in a family, or removes them.
func (c *Compiler) contribute(m *member, f subnet.Family, sign int8) {
	c.contributions(m, f, func(set string, e Element) { c.pending.toggle(set, e, sign) })
}

// contributions yields the elements that a pod has for its address in a family: in the sets of the groups that select
// it, and if it is local in the maps of this node.
func (c *Compiler) contributions(m *member, f subnet.Family, yield func(set string, e Element)) {
	if !m.owns[f] {
		return
	}
	in := func(list []*group) {
		for _, g := range list {
			for _, s := range g.sets {
				if s.family == f {
					s.elements(m, func(e Element) { yield(s.Name, e) })
				}
			}
		}
	}
	in(m.kind.peers)
	if m.local {
		in(m.kind.subjects)
		dispatch(m.Addresses[f], m.kind.chains, yield)
	}
}

// dispatch yields the elements of a local pod's address in the maps of this node.
func dispatch(a netip.Addr, chains [2]*chain, yield func(set string, e Element)) {
	f := subnet.FamilyOf(a)
	for _, d := range Directions() {
		if ch := chains[d]; ch != nil {
			yield(DispatchName(d, f), Element{Addr: a, Chain: ch.Name})
		}
	}
	if chains != [2]*chain{} {
		yield(loopName(f), Element{Addr: a})
	}
}
