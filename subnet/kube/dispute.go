package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// A Node can name another Node's subnet in its PodCIDRsAnnotation: whoever can write annotations can. Without the
// policy of selvage's manifest, each daemon can on every Node. An older Node would take precedence. So a subnet that
// two Nodes name is disputed, and the specs decide, which no daemon can write:
//
//   - The Node that begins the dispute is read first, and if its spec has the subnet, the older Nodes that name it too.
//   - Of a list, those that name the same subnet are read; of two that contain each other, the wider one first.
//
// So a wrong annotation causes one or two reads in the life of its Node, however many subnets it names. Whoever can
// write annotations on all Nodes could still make each node read each Node: such reads are bounded in time.

const (
	// maxDisputes is how many times the specs of disputed subnets are read in a list: what the first ones show can
	// leave others in dispute.
	maxDisputes = 4
	// disputeReads is how many disputed Nodes are read one by one within disputeTime. The others keep what they have,
	// and the status names them.
	disputeReads = 32
	disputeTime  = 10 * time.Second
)

// mayRead reports whether a disputed Node may be read now, and notes that it was not otherwise.
func (w *watcher) mayRead(wait *pendingNode) bool {
	now := time.Now()
	if !wait.backoff.Due(now) || w.disputed.Allow(disputeReads, disputeTime, now) == backoff.Pass {
		return true // if it is not due, readSpec says so
	}
	w.postpone(wait, true)
	wait.backoff.Next(pendingBackoff, now)
	return false
}

// postpone notes whether a disputed Node is still to be read, because others were to be read before it.
func (w *watcher) postpone(wait *pendingNode, is bool) {
	w.unreadChanged = w.unreadChanged || wait.postponed != is
	wait.postponed = is
}

// against returns the subnets of a spec, with an error if the Node's own annotation names others.
func (p podCIDRs) against(o *apiserver.Object) podCIDRs {
	if named, ok := annotated(o); ok {
		return p.compared(named.subnets)
	}
	return p
}

// compared returns the subnets of a spec, with an error if they are not those that the Node's annotation names.
func (p podCIDRs) compared(named [2]netip.Prefix) podCIDRs {
	if p.err == nil && named != p.subnets {
		p.err = fmt.Errorf("annotation %s names %s, and spec.podCIDRs has %s: another process has written it, and "+
			"the daemon of the node writes it again", PodCIDRsAnnotation, prefixes(named), prefixes(p.subnets))
	}
	return p
}

// prefixes returns the valid ones of p as text.
func prefixes(p [2]netip.Prefix) string {
	text := ""
	for _, f := range subnet.Families() {
		if p[f].IsValid() {
			text += "," + p[f].String()
		}
	}
	if text == "" {
		return "none"
	}
	return text[1:]
}

// overlap reports whether two Nodes have addresses in common.
func overlap(a, b *[2]netip.Prefix) bool {
	for f := range a {
		if a[f].IsValid() && b[f].IsValid() && a[f].Overlaps(b[f]) {
			return true
		}
	}
	return false
}

// disputes reports whether another Node has a subnet that overlaps those of a name: one with a lease, or by its spec.
func (w *watcher) disputes(name string, cidrs *[2]netip.Prefix) bool {
	for other, m := range w.nodes {
		theirs := m.leased && overlap(&m.cidrs, cidrs) || m.spec != nil && overlap(&m.spec.subnets, cidrs)
		if theirs && other != name {
			return true
		}
	}
	return false
}

// defend reads the specs of the older Nodes that name a subnet which n has by its spec.
func (w *watcher) defend(ctx context.Context, name string, n *knownNode, b *batch) {
	for other, m := range w.nodes {
		if m.spec == nil && m.leased && overlap(&m.cidrs, &n.cidrs) && m.older(n, other, name) {
			w.verify(ctx, other, m, b)
		}
	}
}

// older reports whether n takes precedence over m, as [subnet.Record] has it.
func (n *knownNode) older(m *knownNode, name, other string) bool {
	return cmp.Or(cmp.Compare(n.order, m.order), cmp.Compare(name, other)) < 0
}

// verify compares what was handed over of a Node with its spec. Until that can be read, it stays as it is.
func (w *watcher) verify(ctx context.Context, name string, n *knownNode, b *batch) {
	n.disputed = true
	wait := w.pending[name]
	if wait == nil {
		wait = disputedNode(name)
		w.pending[name] = wait
	}
	if !w.mayRead(wait) {
		return
	}
	cidrs, err := w.readSpec(ctx, wait, n)
	if err != nil {
		return
	}
	w.settled(name)
	if r := n.verified(name, n.cidrs, cidrs); r.Bad != nil && n.take(&r) {
		b.put(r)
	}
}

// disputedNode is a Node whose spec has to be read, and of which nothing else is needed.
func disputedNode(name string) *pendingNode {
	return &pendingNode{object: apiserver.Object{Name: name}, again: true, verify: true}
}

// verified is the record of a Node whose spec was read after its lease was handed over, with these subnets. It counts
// only if it is Bad: then the annotation was wrong.
func (n *knownNode) verified(name string, named [2]netip.Prefix, cidrs podCIDRs) subnet.Record {
	for f := range named {
		if !named[f].IsValid() {
			named[f] = cidrs.subnets[f] // the lease has no part in the family
		}
	}
	r := subnet.Record{Name: name, Order: n.order, Version: n.version, Bad: cidrs.compared(named).err}
	for f := range named {
		r.Endpoints[f].Subnet = cidrs.subnets[f]
	}
	return r
}

// resolve reads the specs of Nodes whose subnets are disputed in a list.
func (l *listing) resolve(ctx context.Context, w *watcher) error {
	for range maxDisputes {
		if !l.dispute() {
			return nil
		}
		if err := w.complete(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// claimed is a subnet in a list.
type claimed struct {
	netip.Prefix
	name string
}

// dispute marks Nodes whose subnets are disputed and whose specs are not known as lacking. It reports whether there are
// any that were not before.
func (l *listing) dispute() (found bool) {
	all := make([]claimed, 0, len(l.records))
	for name, n := range l.nodes {
		r := l.records[name]
		subnets := subnetsOf(&r)
		if n.spec != nil {
			subnets = n.spec.subnets
		}
		for _, p := range subnets {
			if p.IsValid() {
				all = append(all, claimed{p, name})
			}
		}
	}
	slices.SortFunc(all, func(a, b claimed) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()), cmp.Compare(a.name, b.name))
	})
	doubt := func(name string) {
		if n := l.nodes[name]; n.spec == nil && !n.disputed {
			n.disputed, found = true, true
			l.lacking[name] = disputedNode(name)
		}
	}
	var around []claimed // those that contain what comes next, the widest first
	for _, c := range all {
		for len(around) > 0 && !around[len(around)-1].Contains(c.Addr()) {
			around = around[:len(around)-1]
		}
		if len(around) > 0 {
			wider := around[len(around)-1]
			outer, inner := l.nodes[wider.name], l.nodes[c.name]
			switch {
			case wider.name == c.name:
			case wider.Bits() == c.Bits():
				doubt(wider.name)
				doubt(c.name)
			case outer.spec == nil:
				doubt(wider.name)
			case inner.older(outer, c.name, wider.name):
				doubt(c.name)
			}
		}
		around = append(around, c)
	}
	return found
}
