package kube

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

const (
	// pageSize is how many records are handed over in one event of a snapshot.
	pageSize = 1000
)

// listing is a list of all Nodes that is not complete yet.
type listing struct {
	nodes   map[string]*knownNode
	records map[string]subnet.Record
	lacking map[string]*pendingNode // Nodes with a lease of which only the spec says which subnets they have
	p       position                // what the list amounts to
	another bool                    // it is of another history than the position
	// remembers: it has specs that were read before the list
	remembers bool
}

func newListing() *listing {
	return &listing{
		nodes: map[string]*knownNode{}, records: map[string]subnet.Record{}, lacking: map[string]*pendingNode{},
	}
}

// add takes in a Node of the list; w has what was known before.
func (l *listing) add(w *watcher, o apiserver.Object) {
	known := w.nodes[o.Name]
	if w.position.contradicts(&o, known) {
		l.another = true
	}
	l.drop(o.Name)
	n := newKnownNode(&o)
	if known != nil && known.uid == n.uid {
		n.spec = known.spec
		l.remembers = l.remembers || n.spec != nil
	}
	l.nodes[o.Name] = n
	l.p.note(&o)
	w.own(&o)
	if !w.names.isLease(&o) {
		return
	}
	if cidrs, ok := n.subnets(&o); ok {
		l.records[o.Name] = w.names.record(&o, cidrs)
	} else {
		l.lacking[o.Name] = &pendingNode{object: o, again: true}
	}
}

// drop forgets a Node: a list that comes as a stream can end with changes.
func (l *listing) drop(name string) {
	delete(l.nodes, name)
	delete(l.records, name)
	delete(l.lacking, name)
	if l.p.mark == name {
		l.p.marked = 0
	}
}

// subnets returns the subnets of a Node as far as they are known without its spec.
func (n *knownNode) subnets(o *apiserver.Object) (cidrs podCIDRs, ok bool) {
	switch {
	case o.Bad != nil:
		return cidrs, true
	case n.spec != nil:
		return n.spec.against(o), true
	case n.disputed:
		return cidrs, false
	}
	return annotated(o)
}

// list reads all Nodes without a stream.
func (w *watcher) list(ctx context.Context) (*listing, error) {
	l := newListing()
	version, err := w.client.List(ctx, apiserver.Nodes, apiserver.ListOptions{}, func(page apiserver.Page) error {
		if page.First {
			l = newListing()
		}
		l.p.stores[byList] = page.Store
		for _, o := range page.Objects {
			l.add(w, o)
		}
		return nil
	})
	l.p.seen = version
	if err != nil {
		return nil, fmt.Errorf("list the Nodes: %w", err)
	}
	return l, nil
}

// finish takes over a complete list. If the store has the history that was seen, whatever was deleted meanwhile is
// reported as such; else the list is a snapshot.
func (w *watcher) finish(ctx context.Context, l *listing) error {
	old := w.position
	wiped := old.other(byList, l.p.stores[byList]) || old.other(byWatch, l.p.stores[byWatch])
	back := l.p.seen < old.seen || l.p.seen == old.seen && len(l.nodes) != len(w.nodes)
	if old.seen > 0 && !w.regressed && (l.another || wiped || back) {
		if w.resumed || l.remembers {
			return errHistory // and list again, without what is known of that history
		}
		w.regress()
	}
	w.readUntil = time.Now().Add(completeFor)
	if err := w.complete(ctx, l); err != nil {
		return err
	}
	if err := l.resolve(ctx, w); err != nil {
		return err
	}
	if !w.regressed {
		for kind, store := range old.stores {
			if l.p.stores[kind] == (apiserver.Identity{}) {
				l.p.stores[kind] = store
			}
		}
	}
	if !w.regressed {
		l.retain(w)
	}
	w.pending, w.unreadChanged = l.lacking, true
	if w.resumed {
		return w.adopt(l)
	}
	return w.snapshot(l)
}

// snapshot hands over a list as a whole.
func (w *watcher) snapshot(l *listing) error {
	for name, r := range l.records {
		l.nodes[name].take(&r)
	}
	w.nodes, w.position = l.nodes, l.p
	for page := range pages(l.records) {
		if err := w.deliver(subnet.Event{Type: subnet.Page, Revision: l.p.seen, Put: page}); err != nil {
			return err
		}
	}
	w.conf.read(w.logConfig)
	synced := subnet.Event{
		Type: subnet.Synced, Revision: l.p.seen, ConfigSet: true, Config: w.conf.data, Regressed: w.regressed,
	}
	if err := w.deliver(synced); err != nil {
		return err
	}
	w.synced, w.regressed = true, false
	return nil
}

// pages returns all records in slices of at most pageSize.
func pages(records map[string]subnet.Record) iter.Seq[[]subnet.Record] {
	return func(yield func([]subnet.Record) bool) {
		left := len(records)
		var page []subnet.Record
		for _, r := range records {
			if page == nil {
				page = make([]subnet.Record, 0, min(left, pageSize))
			}
			page = append(page, r)
			if left--; len(page) == cap(page) {
				if !yield(page) {
					return
				}
				page = nil
			}
		}
	}
}

// adopt hands over what differs between a list and what was handed over before.
func (w *watcher) adopt(l *listing) error {
	var b batch
	for name, n := range w.nodes {
		if _, ok := l.records[name]; n.leased && !ok {
			b.deleted = append(b.deleted, name)
		}
	}
	for name, r := range l.records {
		n, old := l.nodes[name], w.nodes[name]
		n.take(&r)
		if old == nil || !old.leased || old.sum != n.sum {
			b.puts = append(b.puts, r) // each name comes once
		}
	}
	w.nodes, w.position = l.nodes, l.p
	return w.hand(&b, true)
}
