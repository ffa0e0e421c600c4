package policy

import (
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// group is a group of pods that policies name: as peer, or as subject. The pods of a subject are those of this node.
type group struct {
	scope    *scope
	scopeKey string
	pods     Selector
	subject  bool
	text     string // for people, and to name sets
	sets     map[setKey]*set
	policies map[*rules]bool        // of a subject
	wide     map[*clusterRules]bool // of a subject
}

// setKey says which set of a group it is: that of the addresses of a family, or of a named port at them.
type setKey struct {
	family   subnet.Family
	port     string   // empty: addresses
	protocol Protocol // of the named port; zero: any
}

// set is a set that rules look up.
type set struct {
	Set
	setKey
	refs   int
	group  *group    // unless it has ranges, or is fixed
	ranges []Element // it never changes: another list is another set
}

// elements returns what a pod has in the set, if the pod owns its address.
func (s *set) elements(p *member, yield func(Element)) {
	a := p.Addresses[s.family]
	if s.port == "" {
		yield(Element{Addr: a})
		return
	}
	for have := range p.Ports.All() {
		if have.Name == s.port && (s.protocol == 0 || s.protocol == have.Protocol) {
			yield(Element{Addr: a, Protocol: have.Protocol, Port: have.Number})
		}
	}
}

// index returns the index in which the group is.
func (g *group) index() *groups {
	if g.subject {
		return &g.scope.subjects
	}
	return &g.scope.peers
}

// of returns the list of a kind in which the group is if it selects the kind.
func (g *group) of(k *kind) *[]*group {
	if g.subject {
		return &k.subjects
	}
	return &k.peers
}

// has reports whether the group has a pod of a kind that it selects.
func (g *group) has(p *member) bool { return p.local || !g.subject }

// group returns the group with a key, and creates it without any set.
func (c *Compiler) group(scopeKey string, want Group, subject bool) *group {
	s := c.scopes[scopeKey]
	if s == nil {
		s = &scope{name: want.Namespace, all: scopeKey == everywhere, selector: want.Namespaces}
		s.namespaces = map[*space]bool{}
		c.scopes[scopeKey] = s
		for _, n := range c.spaces {
			if s.has(n) {
				s.namespaces[n] = true
				n.scopes = append(n.scopes, s)
			}
		}
	}
	g := &group{scope: s, scopeKey: scopeKey, pods: want.Pods, subject: subject}
	if have := g.index().byText[want.Pods.String()]; have != nil {
		return have
	}
	g.text = want.String()
	if s.all {
		g.text = "all pods"
	}
	g.sets, g.policies, g.wide = map[setKey]*set{}, map[*rules]bool{}, map[*clusterRules]bool{}
	g.index().add(g)
	for k := range g.kinds() {
		*g.of(k) = append(*g.of(k), g)
	}
	return g
}

// kinds yields the kinds that the group selects; of a subject, those with local pods.
func (g *group) kinds() func(func(*kind) bool) {
	return func(yield func(*kind) bool) {
		for n := range g.scope.namespaces {
			for _, k := range n.kinds {
				if (k.local > 0 || !g.subject) && g.pods.Matches(k.labels) && !yield(k) {
					return
				}
			}
		}
	}
}

// drop removes a group that nothing uses any more.
func (c *Compiler) drop(g *group) {
	if len(g.sets)+len(g.policies)+len(g.wide) > 0 || g.index().byText[g.pods.String()] != g {
		return
	}
	for k := range g.kinds() {
		*g.of(k) = without(*g.of(k), g)
	}
	g.index().remove(g)
	if s := g.scope; len(s.peers.byText)+len(s.subjects.byText) == 0 {
		delete(c.scopes, g.scopeKey)
		for n := range s.namespaces {
			n.scopes = without(n.scopes, s)
		}
	}
}

// toggle adds what the pods of a kind have in the sets of a group, or removes it.
func (c *Compiler) toggle(g *group, k *kind, sign int8) {
	for _, s := range g.sets {
		c.toggleSet(s, k, sign)
	}
}

func (c *Compiler) toggleSet(s *set, k *kind, sign int8) {
	for _, p := range k.pods {
		if p.owns[s.family] && s.group.has(p) {
			s.elements(p, func(e Element) { c.pending.toggle(s.Name, e, sign) })
		}
	}
}

// acquire returns a set of a group, and fills it if it is new.
func (c *Compiler) acquire(g *group, key setKey) *set {
	s := g.sets[key]
	if s == nil {
		s = &set{setKey: key, group: g, Set: Set{Type: Addresses, Family: key.family, Comment: g.text}}
		prefix := "pods"
		if key.port != "" {
			s.Type, prefix = Endpoints, "ports"
			s.Comment = plain(key.port) + "/" + key.protocol.String() + " of " + g.text
		}
		if g.subject {
			s.Comment = "local " + s.Comment
		}
		s.Name = hashed(prefix+digit(key.family), s.Comment)
		g.sets[key], c.sets[s.Name] = s, s
		c.pending.touched[s.Name] = true
		for k := range g.kinds() {
			c.toggleSet(s, k, 1)
		}
	}
	s.refs++
	return s
}

// acquireRanges returns the set with a list of ranges of one family.
func (c *Compiler) acquireRanges(f subnet.Family, ranges []Element) *set {
	var text strings.Builder
	for _, r := range ranges {
		text.WriteString(r.Addr.String() + "-" + r.Last.String() + ",")
	}
	name := hashed("blocks"+digit(f), text.String())
	s := c.sets[name]
	if s == nil {
		s = &set{ranges: ranges, Set: Set{Name: name, Type: Ranges, Family: f, Comment: "blocks of addresses"}}
		c.sets[name] = s
		c.pending.touched[name] = true
		for _, r := range ranges {
			c.pending.toggle(name, r, 1)
		}
	}
	s.refs++
	return s
}

// release gives a set back.
func (c *Compiler) release(s *set) {
	if s.refs--; s.refs > 0 {
		return
	}
	delete(c.sets, s.Name)
	c.pending.touched[s.Name] = true
	for _, r := range s.ranges {
		c.pending.toggle(s.Name, r, -1)
	}
	if g := s.group; g != nil {
		for k := range g.kinds() {
			c.toggleSet(s, k, -1)
		}
		delete(g.sets, s.setKey)
		c.drop(g)
	}
}

// rescope compares a namespace with all scopes after its labels have changed.
func (c *Compiler) rescope(n *space) {
	var changed []*scope
	for _, s := range c.scopes {
		if s.has(n) != s.namespaces[n] {
			changed = append(changed, s)
		}
	}
	for _, s := range changed {
		for _, k := range n.kinds {
			c.rescopeKind(k, s, s.namespaces[n])
		}
		if s.namespaces[n] {
			delete(s.namespaces, n)
			n.scopes = without(n.scopes, s)
		} else {
			s.namespaces[n] = true
			n.scopes = append(n.scopes, s)
		}
	}
	for _, k := range n.kinds {
		if k.local > 0 {
			c.rechain(k)
		}
	}
}

// rescopeKind takes a kind into the groups of a scope, or out of them.
func (c *Compiler) rescopeKind(k *kind, s *scope, out bool) {
	for _, index := range []*groups{&s.peers, &s.subjects} {
		if index == &s.subjects && k.local == 0 {
			continue
		}
		for g := range index.selecting(k.labels) {
			if out {
				c.toggle(g, k, -1)
				*g.of(k) = without(*g.of(k), g)
			} else {
				*g.of(k) = append(*g.of(k), g)
				c.toggle(g, k, 1)
			}
		}
	}
}
