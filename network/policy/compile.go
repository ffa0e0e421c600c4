package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/subnet"
)

// builder makes the rules of one chain.
type builder struct {
	*Compiler
	dir     Direction
	subject *group // of the policy whose rule it is
	rule    Rule   // what all rules have in common that a policy's rule becomes
	rules   []Rule
	sets    []*set
}

// compile makes the rules of a policy's or a tier's chain. Sets that the old rules and the new ones need stay.
func (c *Compiler) compile(ch *chain) {
	b := &builder{Compiler: c, dir: ch.Direction}
	if r := ch.policy; r != nil && r.Isolates[b.dir] {
		b.subject = r.subject
		for i, m := range r.Policy.Rules[b.dir] {
			b.rule = Rule{Outcome: Allow, Policy: r.Key(), Index: i}
			b.match(m)
		}
	}
	for _, r := range ch.tier {
		b.subject = r.subject
		for i, rule := range r.ClusterPolicy.Rules[b.dir] {
			outcome := [...]Outcome{Accept: Allow, Deny: Drop, Pass: Return}[rule.Action]
			b.rule = Rule{Outcome: outcome, Policy: r.Name, Index: i}
			b.match(rule.Match)
		}
	}
	old := ch.sets
	ch.Rules, ch.sets = b.rules, b.sets
	c.pending.touched[ch.Name] = true
	for _, s := range old {
		c.release(s)
	}
}

// match makes the rules for one of a policy: for each protocol, each kind of peer and each family one.
func (b *builder) match(m Match) {
	var groups []Group
	var blocks []Peer
	seen := map[string]bool{}
	for _, p := range m.Peers {
		if p.Block.IsValid() {
			blocks = append(blocks, p)
		} else if text := p.Group.String(); !seen[text] {
			seen[text] = true
			groups = append(groups, p.Group)
		}
	}
	var ranges [2][]Element
	for _, f := range subnet.Families() {
		ranges[f] = rangesOf(blocks, f)
	}
	if m.AnyPort {
		b.peers(m.AnyPeer, groups, ranges)
		return
	}
	numbers := map[Protocol][]PortRange{}
	for _, p := range m.Ports {
		if p.Name == "" {
			numbers[p.Protocol] = append(numbers[p.Protocol], PortRange{p.First, p.Last})
		}
	}
	common := b.rule
	for _, protocol := range slices.Sorted(maps.Keys(numbers)) {
		b.rule.Protocol, b.rule.Ports = protocol, mergePorts(numbers[protocol])
		b.peers(m.AnyPeer, groups, ranges)
	}
	b.rule = common
	for _, p := range m.Ports {
		if p.Name != "" {
			b.named(p, m.AnyPeer, groups, ranges)
		}
	}
}

// add adds a rule that looks up sets of a family, which may be nil.
func (b *builder) add(f subnet.Family, peer, endpoint *set) {
	r := b.rule
	if peer != nil {
		b.sets = append(b.sets, peer)
		r.Peer = peer.Name
	}
	if endpoint != nil {
		b.sets = append(b.sets, endpoint)
		r.Endpoint = endpoint.Name
	}
	r.Family = f
	b.rules = append(b.rules, r)
}

// peers adds the rules for all peers.
func (b *builder) peers(any bool, groups []Group, ranges [2][]Element) {
	if any {
		b.add(0, nil, nil)
		return
	}
	for _, f := range subnet.Families() {
		for _, g := range groups {
			b.add(f, b.acquire(b.peer(g), setKey{family: f}), nil)
		}
		if len(ranges[f]) > 0 {
			b.add(f, b.acquireRanges(f, ranges[f]), nil)
		}
	}
}

// named adds the rules for a named port, which is one of the destination pod: of ingress the pod that the policy
// selects, of egress the peer.
func (b *builder) named(p Port, any bool, groups []Group, ranges [2][]Element) {
	for _, f := range subnet.Families() {
		key := setKey{family: f, port: p.Name, protocol: p.Protocol}
		at := b.subject
		if b.dir == Egress {
			at = nil
			for _, g := range groups {
				b.add(f, nil, b.acquire(b.peer(g), key))
			}
			if any || len(ranges[f]) > 0 {
				at = b.group(everywhere, Group{}, false)
			}
		} else {
			for _, g := range groups {
				b.add(f, b.acquire(b.peer(g), setKey{family: f}), b.acquire(at, key))
			}
		}
		if any {
			b.add(f, nil, b.acquire(at, key))
		} else if len(ranges[f]) > 0 {
			b.add(f, b.acquireRanges(f, ranges[f]), b.acquire(at, key))
		}
	}
}

// peer returns the group of a peer.
func (b *builder) peer(g Group) *group { return b.group(g.scopeKey(), g, false) }

// mergePorts returns ranges of ports in their order, of which no two overlap or touch; none if they are all ports.
func mergePorts(list []PortRange) (merged []PortRange) {
	slices.SortFunc(list, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	for _, r := range list {
		if last := len(merged) - 1; last >= 0 && int(r.First) <= int(merged[last].Last)+1 {
			merged[last].Last = max(merged[last].Last, r.Last)
		} else {
			merged = append(merged, r)
		}
	}
	if len(merged) == 1 && merged[0] == (PortRange{0, 0xffff}) {
		return nil
	}
	return merged
}

// rangesOf returns the addresses of blocks in one family: each without what is excepted from it, and all together as
// ranges in their order, of which no two overlap or touch.
func rangesOf(blocks []Peer, f subnet.Family) (merged []Element) {
	var list []Element
	for _, p := range blocks {
		if subnet.FamilyOf(p.Block.Addr()) == f {
			list = append(list, rangesOfBlock(p)...)
		}
	}
	slices.SortFunc(list, func(a, b Element) int { return a.Addr.Compare(b.Addr) })
	for _, r := range list {
		if last := len(merged) - 1; last >= 0 {
			if next := merged[last].Last.Next(); !next.IsValid() || r.Addr.Compare(next) <= 0 {
				if merged[last].Last.Less(r.Last) {
					merged[last].Last = r.Last
				}
				continue
			}
		}
		merged = append(merged, r)
	}
	return merged
}

// rangesOfBlock returns the ranges of a block between its exceptions.
func rangesOfBlock(p Peer) (list []Element) {
	except := slices.DeleteFunc(slices.Clone(p.Except), func(e netip.Prefix) bool { return !e.Overlaps(p.Block) })
	slices.SortFunc(except, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	start, last := p.Block.Addr(), subnet.LastAddr(p.Block)
	for _, e := range except {
		if start.Less(e.Addr()) {
			list = append(list, Element{Addr: start, Last: e.Addr().Prev()})
		}
		next := subnet.LastAddr(e).Next()
		if !next.IsValid() || last.Less(next) {
			return list
		}
		if start.Less(next) {
			start = next
		}
	}
	return append(list, Element{Addr: start, Last: last})
}
