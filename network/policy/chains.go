package policy

import (
	"reflect"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// rules are a policy in the compiler.
type rules struct {
	*Policy
	subject *group
}

// clusterRules are a cluster policy in the compiler.
type clusterRules struct {
	*ClusterPolicy
	subject *group // nil: it selects no pod
}

// chain is a chain of one of three types. They exist while a local pod needs them.
//
//   - An entry chain is what a pod's address is dispatched to. All pods with the same policies share it. It only jumps:
//     to the tier Admin, to the policies that isolate, or to the tier Baseline.
//   - A policy's chain has its rules in one direction. What it allows it accepts, which ends the direction.
//   - A tier's chain has the rules of several cluster policies in their order. To pass is to return from it.
type chain struct {
	Chain
	refs   int
	policy *rules          // of a policy's chain
	tier   []*clusterRules // of a tier's chain
	sets   []*set          // that its rules look up
	calls  []*chain        // of an entry chain
}

// SetPolicy adds a policy or changes it.
func (c *Compiler) SetPolicy(p Policy) {
	n := c.space(p.Namespace)
	r := n.policies[p.Name]
	var before *group
	if r == nil {
		r = &rules{}
		n.policies[p.Name] = r
	} else if reflect.DeepEqual(*r.Policy, p) {
		return
	} else {
		before = r.subject
	}
	now := c.group(p.Subject.scopeKey(), p.Subject, true)
	r.Policy, r.subject = &p, now
	now.policies[r] = true
	for _, d := range Directions() {
		if ch := c.chains[policyChain(d, &p)]; ch != nil {
			c.compile(ch)
		}
	}
	if before != nil && before != now {
		delete(before.policies, r)
		c.rechainSubject(before)
	}
	c.rechainSubject(now)
}

// DeletePolicy removes a policy.
func (c *Compiler) DeletePolicy(namespace, name string) {
	n := c.spaces[namespace]
	if n == nil || n.policies[name] == nil {
		return
	}
	r := n.policies[name]
	delete(n.policies, name)
	delete(r.subject.policies, r)
	c.rechainSubject(r.subject)
	c.dropSpace(n)
}

// SetClusterPolicy adds a cluster policy or changes it.
func (c *Compiler) SetClusterPolicy(p ClusterPolicy) {
	r := c.wide[p.Name]
	var before, now *group
	if r == nil {
		r = &clusterRules{}
		c.wide[p.Name] = r
	} else if reflect.DeepEqual(*r.ClusterPolicy, p) {
		return
	} else {
		before = r.subject
	}
	if !p.NoSubject {
		now = c.group(p.Subject.scopeKey(), p.Subject, true)
		now.wide[r] = true
	}
	r.ClusterPolicy, r.subject = &p, now
	if now != nil {
		for _, ch := range c.chains {
			if slices.Contains(ch.tier, r) {
				c.compile(ch)
			}
		}
	}
	if before != nil && before != now {
		delete(before.wide, r)
		c.rechainSubject(before)
	}
	if now != nil {
		c.rechainSubject(now)
	}
}

// DeleteClusterPolicy removes a cluster policy.
func (c *Compiler) DeleteClusterPolicy(name string) {
	r := c.wide[name]
	if r == nil {
		return
	}
	delete(c.wide, name)
	if r.subject != nil {
		delete(r.subject.wide, r)
		c.rechainSubject(r.subject)
	}
}

// rechainSubject finds the entry chains again of the local pods of a subject, and removes the subject if nothing uses
// it any more. A chain that is released can already remove the subject, so the pods are chosen before.
func (c *Compiler) rechainSubject(g *group) {
	var selected []*kind
	for k := range c.local {
		if slices.Contains(k.subjects, g) {
			selected = append(selected, k)
		}
	}
	for _, k := range selected {
		c.rechain(k)
	}
	c.drop(g)
}

// rechain finds the entry chains of a kind again, and changes the maps if they are others now.
func (c *Compiler) rechain(k *kind) {
	before, now := k.chains, [2]*chain{}
	for _, d := range Directions() {
		now[d] = c.entry(k, d)
	}
	k.chains = now
	if now != before {
		for _, p := range k.pods {
			for _, f := range subnet.Families() {
				if p.local && p.owns[f] {
					dispatch(p.Addresses[f], before, func(set string, e Element) { c.pending.toggle(set, e, -1) })
					dispatch(p.Addresses[f], now, func(set string, e Element) { c.pending.toggle(set, e, 1) })
				}
			}
		}
	}
	for _, ch := range before {
		c.releaseChain(ch)
	}
}

// entry returns the entry chain of a kind in a direction, or nil if nothing restricts its pods.
func (c *Compiler) entry(k *kind, d Direction) *chain {
	var tiers [2][]*clusterRules
	var policies []*rules
	for _, g := range k.subjects {
		for r := range g.wide {
			if len(r.Rules[d]) > 0 {
				tiers[r.Tier] = append(tiers[r.Tier], r)
			}
		}
		for r := range g.policies {
			if r.Isolates[d] {
				policies = append(policies, r)
			}
		}
	}
	if len(policies) > 0 {
		tiers[Baseline] = nil
	}
	if len(policies)+len(tiers[Admin])+len(tiers[Baseline]) == 0 {
		return nil
	}
	slices.SortFunc(policies, func(a, b *rules) int { return strings.Compare(a.Name, b.Name) })
	var texts []string // what the chain does: equal texts are one chain
	for t, list := range tiers {
		slices.SortFunc(list, func(a, b *clusterRules) int { return a.Order(b.ClusterPolicy) })
		if len(list) > 0 {
			texts = append(texts, tierText(Tier(t), list))
		}
	}
	for _, r := range policies {
		texts = append(texts, r.text())
	}
	text := strings.Join(texts, ", ")
	ch := c.chains[hashed(d.String(), text)]
	if ch == nil {
		ch = &chain{Chain: Chain{Name: hashed(d.String(), text), Direction: d, Comment: text}}
		c.chains[ch.Name] = ch
		c.pending.touched[ch.Name] = true
		c.fill(ch, tiers, policies)
	}
	ch.refs++
	return ch
}

// tierText names the cluster policies of a tier's chain in their order.
func tierText(t Tier, list []*clusterRules) string {
	text := t.String() + "("
	for i, r := range list {
		if i > 0 {
			text += ", "
		}
		text += plain(r.Name)
	}
	return text + ")"
}

// fill makes the rules of an entry chain.
func (c *Compiler) fill(ch *chain, tiers [2][]*clusterRules, policies []*rules) {
	call := func(to *chain) {
		ch.calls = append(ch.calls, to)
		ch.Rules = append(ch.Rules, Rule{Outcome: Jump, Target: to.Name})
	}
	if list := tiers[Admin]; len(list) > 0 {
		call(c.tierChain(ch.Direction, Admin, list))
	}
	if len(policies) > 0 {
		for _, f := range subnet.Families() {
			ch.Rules = append(ch.Rules, Rule{Family: f, Loop: loopName(f), Outcome: Allow})
		}
		ch.Rules = append(ch.Rules, Rule{Invalid: true, Outcome: Drop})
		for _, r := range policies {
			call(c.policyChain(ch.Direction, r))
		}
		ch.Rules = append(ch.Rules, Rule{Outcome: Drop})
		return
	}
	if list := tiers[Baseline]; len(list) > 0 {
		call(c.tierChain(ch.Direction, Baseline, list))
	}
}

// policyChain returns the chain of a policy in a direction.
func (c *Compiler) policyChain(d Direction, r *rules) *chain {
	name := policyChain(d, r.Policy)
	return c.callee(name, func() *chain {
		return &chain{policy: r, Chain: Chain{Name: name, Direction: d, Comment: d.String() + " of " + r.Key()}}
	})
}

// tierChain returns the chain of cluster policies of one tier in a direction.
func (c *Compiler) tierChain(d Direction, t Tier, list []*clusterRules) *chain {
	text := d.String() + " of " + tierText(t, list)
	name := hashed(d.String()+"_"+strings.ToLower(t.String()), text)
	return c.callee(name, func() *chain {
		return &chain{tier: list, Chain: Chain{Name: name, Direction: d, Comment: text}}
	})
}

// callee returns a chain that an entry chain jumps to, and makes it if it does not exist.
func (c *Compiler) callee(name string, create func() *chain) *chain {
	ch := c.chains[name]
	if ch == nil {
		ch = create()
		c.chains[name] = ch
		c.compile(ch)
	}
	ch.refs++
	return ch
}

// releaseChain gives a chain back; nil is none.
func (c *Compiler) releaseChain(ch *chain) {
	if ch == nil {
		return
	}
	if ch.refs--; ch.refs > 0 {
		return
	}
	delete(c.chains, ch.Name)
	c.pending.touched[ch.Name] = true
	for _, s := range ch.sets {
		c.release(s)
	}
	for _, callee := range ch.calls {
		c.releaseChain(callee)
	}
}
