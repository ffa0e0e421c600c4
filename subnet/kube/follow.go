package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

const (
	// advanceAfter is how long a watch waits before it reports that nothing of interest has happened up to a version:
	// kubelets write all the time. A claim that waits for a version does not wait for this; see [Store.await].
	advanceAfter = 5 * time.Second
	// together is how many events are handed over as one if they have arrived together.
	together = 64
)

// errSilent means that a watch is dead while its connection lives.
var errSilent = errors.New("the watch of the Nodes is silent")

// stream is a watch that runs in a goroutine of its own.
type stream struct {
	opened chan apiserver.Identity // size one: the server has accepted the watch
	events chan apiserver.Event    // closed at its end
	err    error                   // why it has ended, once events is closed
	stop   context.CancelFunc
}

// stream begins a watch. It has to be stopped, and its events read until their end.
func (s *Store) stream(ctx context.Context, o apiserver.WatchOptions) *stream {
	ctx, stop := context.WithCancel(ctx)
	t := &stream{
		opened: make(chan apiserver.Identity, 1), events: make(chan apiserver.Event, together), stop: stop,
	}
	o.Opened = func(i apiserver.Identity) error {
		t.opened <- i
		return nil
	}
	go func() {
		defer close(t.events)
		t.err = s.client.Watch(ctx, apiserver.Nodes, o, func(e apiserver.Event) error {
			select {
			case t.events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return t
}

// close ends the watch and waits for its goroutine.
func (t *stream) close() {
	t.stop()
	for range t.events {
	}
}

// follow delivers what happens until something breaks. It always returns an error. With o.Initial, everything there is
// comes first.
func (w *watcher) follow(ctx context.Context, o apiserver.WatchOptions) error {
	t := w.stream(ctx, o)
	defer t.close()
	var l *listing
	if o.Initial {
		l = newListing()
	}
	silent := time.NewTimer(w.opts.quiet)
	defer silent.Stop()
	tick := time.NewTimer(w.retryIn())
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-silent.C:
			return errSilent
		case store := <-t.opened:
			err = w.accepted(ctx, store, l)
		case <-tick.C:
			if l == nil {
				err = w.retryPending(ctx)
			}
			tick.Reset(w.retryIn())
		case <-w.wake:
		case <-w.conf.changed:
			err = w.configChanged()
		case e, ok := <-t.events:
			select {
			case store := <-t.opened:
				err = w.accepted(ctx, store, l)
			default:
			}
			switch {
			case err != nil:
			case !ok:
				return fmt.Errorf("watch the Nodes: %w", t.err)
			case l == nil:
				err = w.take(ctx, t, e)
			default:
				l, err = w.takeInitial(ctx, l, e)
			}
			silent.Reset(w.opts.quiet)
		}
		if w.reportUnread() {
			tick.Reset(w.retryIn())
		}
		if err == nil && l == nil {
			err = w.advance()
		}
		if err != nil {
			return err
		}
	}
}

// accepted notes that a watch was accepted, and by which store. l is the list that it begins with, or nil.
func (w *watcher) accepted(ctx context.Context, store apiserver.Identity, l *listing) error {
	if l != nil {
		l.p.stores[byWatch] = store
		return nil
	}
	if w.position.stores[byWatch] == (apiserver.Identity{}) && w.position.other(byList, store) {
		// The first watch after a list. Flow control may treat the two differently.
		if err := w.check(ctx); err != nil {
			return err
		}
	}
	if w.position.other(byWatch, store) {
		return errHistory
	}
	w.position.stores[byWatch] = store
	w.contact.Over()
	return nil
}

// takeInitial takes in one event of a list that comes as a stream. It returns nil in place of l once that is complete
// and handed over.
func (w *watcher) takeInitial(ctx context.Context, l *listing, e apiserver.Event) (*listing, error) {
	switch e.Type {
	case apiserver.Added, apiserver.Modified:
		l.add(w, e.Object)
	case apiserver.Deleted:
		l.drop(e.Object.Name)
	case apiserver.InitialEnd:
		l.p.seen = e.Version
		if err := w.finish(ctx, l); err != nil {
			return l, err
		}
		w.begun()
		return nil, nil
	case apiserver.Bookmark:
	}
	return l, nil
}

// take takes in an event, and those that have arrived with it.
func (w *watcher) take(ctx context.Context, t *stream, e apiserver.Event) error {
	var b batch
	w.readUntil = time.Now().Add(specTimeout)
	for n := 1; ; n++ {
		w.note(ctx, &e, &b)
		if n == together {
			break
		}
		select {
		case next, ok := <-t.events:
			if ok {
				e = next
				continue
			}
		default:
		}
		break
	}
	return w.hand(&b, false)
}

// note takes in one event and adds to b what it changes.
func (w *watcher) note(ctx context.Context, e *apiserver.Event, b *batch) {
	p := &w.position
	p.seen = max(p.seen, e.Version)
	w.heard.Store(time.Now().UnixNano())
	o := &e.Object
	switch e.Type {
	case apiserver.Added, apiserver.Modified:
		n := w.nodes[o.Name]
		if uid := uidOf(o); n == nil || n.uid != uid {
			if n != nil {
				n.drop(o.Name, b)
			}
			n = newKnownNode(o)
			w.nodes[o.Name] = n
			w.settled(o.Name)
		}
		n.version = o.Version
		p.note(o)
		w.own(o)
		w.judge(ctx, o, n, b)
	case apiserver.Deleted:
		if n := w.nodes[o.Name]; n != nil {
			n.drop(o.Name, b)
		}
		delete(w.nodes, o.Name)
		w.settled(o.Name)
		if p.mark == o.Name {
			p.marked = 0
		}
	case apiserver.Bookmark, apiserver.InitialEnd:
	}
}

// own takes in what is written on a Node if that is this node's own.
func (w *watcher) own(o *apiserver.Object) {
	if name, _ := w.knownName(); o.Name == name {
		w.advised = w.advise(o) || w.waiting.Load() || w.advised
		w.Store.own.Store(o.Version)
	}
}

// judge adds to b what the state of a Node changes. A Node whose spec cannot be read keeps the subnets that it has:
// they are those of its UID.
func (w *watcher) judge(ctx context.Context, o *apiserver.Object, n *knownNode, b *batch) {
	if !w.names.isLease(o) {
		w.settled(o.Name)
		n.drop(o.Name, b)
		return
	}
	cidrs, ok := n.subnets(o)
	r := w.names.record(o, cidrs)
	if named := subnetsOf(&r); ok && n.spec == nil && named != n.cidrs && w.disputes(o.Name, &named) {
		n.disputed, ok = true, false
	}
	if ok {
		w.settled(o.Name)
	} else {
		var err error
		cidrs, err = w.readPending(ctx, o, n)
		switch {
		case err != nil && (!n.leased || n.cidrs == [2]netip.Prefix{}):
			return
		case err != nil:
			cidrs = podCIDRs{subnets: n.cidrs}
		default:
			cidrs = cidrs.against(o)
		}
		if cidrs.none() {
			n.drop(o.Name, b)
			return
		}
		r = w.names.record(o, cidrs)
	}
	before := n.cidrs
	if n.take(&r) {
		b.put(r)
	}
	if n.spec != nil && n.cidrs != before {
		w.defend(ctx, o.Name, n, b)
	}
}

// drop adds to b that a Node has no lease any more.
func (n *knownNode) drop(name string, b *batch) {
	if n.leased {
		n.leased, n.cidrs = false, [2]netip.Prefix{}
		b.delete(name)
	}
}

// advance reports the revision that was reached, if a claim waits for it or if it is time to.
func (w *watcher) advance() error {
	seen, awaited := w.position.seen, w.awaited.Load()
	switch {
	case seen <= w.delivered:
		w.advanceAt = time.Time{}
		return nil
	case w.delivered < awaited && awaited <= seen:
	case w.advanceAt.IsZero():
		w.advanceAt = time.Now().Add(w.opts.advance)
		return nil
	case time.Now().Before(w.advanceAt):
		return nil
	}
	return w.hand(&batch{}, true)
}

// hand delivers a batch; an empty one only if the revision is to be reported.
func (w *watcher) hand(b *batch, revision bool) error {
	if len(b.puts)+len(b.deleted) == 0 && !w.advised && !(revision && w.position.seen > w.delivered) {
		return nil
	}
	w.advanceAt = time.Time{}
	return w.deliver(subnet.Event{
		Type: subnet.Changed, Revision: w.position.seen, Put: b.puts, Deleted: b.deleted,
	})
}

// batch is what changes in one event. Each name is in it once, as it is in the end.
type batch struct {
	puts    []subnet.Record
	deleted []string
}

func (b *batch) put(r subnet.Record) {
	b.forget(r.Name)
	b.puts = append(b.puts, r)
}

func (b *batch) delete(name string) {
	b.forget(name)
	b.deleted = append(b.deleted, name)
}

func (b *batch) forget(name string) {
	b.puts = slices.DeleteFunc(b.puts, func(r subnet.Record) bool { return r.Name == name })
	b.deleted = slices.DeleteFunc(b.deleted, func(n string) bool { return n == name })
}
