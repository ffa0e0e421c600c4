package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/outage"
)

const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 10 * time.Second
	// quietInterval is how long a watch may be silent before it is replaced. An API server sends a bookmark about once
	// a minute (k8s.io/apiserver, storage/cacher, bookmarkFrequency).
	quietInterval = 4 * time.Minute
	// orderly is the wait after a watch that the server has ended in an orderly way: it may do so to many at once.
	orderly = time.Second
	// shortStream is a stream that ended too soon to count as one that worked.
	shortStream = 10 * time.Second
)

// watcher is one call of Watch.
//
//	list ──► follow ──fault──► the history we know?
//	 ▲ ▲       ▲                │     │         │
//	 │ │       └──────yes───────┘     │         │
//	 │ └── yes, but the server cannot ┘         │
//	 │     go on from there                     │
//	 └──────── no, or it cannot be known ───────┘
//
// A list is a stream of its own if the server can do that; what follows comes on it as well. After a fault every node
// waits for a time of its own, and the end of an outage costs the server one small request and one watch a node (among
// few Nodes, two requests), and a list only if its cache begins later than the last version that was seen. Such lists
// are spread by Options.ListSpread.
type watcher struct {
	*Store
	changed func(subnet.Event) error
	conf    *netConf
	wake    chan struct{} // see Store.await

	nodes     map[string]*knownNode   // every Node, by name
	pending   map[string]*pendingNode // Nodes with a lease and without a subnet, by name
	position  position
	delivered int64 // the revision of the last event
	advanceAt time.Time
	advised   bool // the advice to this node, or its allocation, has changed, and no event was delivered since

	introduced bool // what concerns this node alone was handed over, see introduce

	listed    bool // a list was handed over, and what came after it up to position.seen
	synced    bool // a snapshot was handed over, ever
	resumed   bool // the next list is of the history that was seen
	doubt     bool // the last stream has ended: the history has to be checked
	checked   bool // it was, in this step
	regressed bool // the history of the last snapshot is gone
	quiet     backoff.Backoff

	readUntil     time.Time       // when reads of specs have taken long enough
	disputed      backoff.Limiter // of reads of disputed Nodes
	unreadLog     backoff.Limiter // of log lines about specs that cannot be read
	unreadChanged bool            // which those are has changed since it was reported
}

// historyBackoff spaces the lists of a store whose history keeps changing.
var historyBackoff = backoff.Policy{Min: retryFirst, Max: time.Minute, Settle: 8}

// refusal is an error of the callback, which ends the watch.
type refusal struct{ error }

// Watch implements [subnet.Store].
func (s *Store) Watch(ctx context.Context, changed func(subnet.Event) error) error {
	if ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	wake, stop := s.waker()
	w := &watcher{
		Store: s, changed: changed, conf: newNetConf(s.opts.NetConfPath), wake: wake,
		nodes: map[string]*knownNode{}, pending: map[string]*pendingNode{},
	}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		w.conf.watch(ctx)
	}()
	defer func() {
		cancel()
		stop()
		<-watching
	}()
	return w.run(ctx, w.step)
}

// run repeats step, with waits that depend on how it has ended, until ctx ends or the callback refuses an event.
func (w *watcher) run(ctx context.Context, step func(context.Context) error) error {
	var again, relist backoff.Backoff
	for {
		began := time.Now()
		err := step(ctx)
		var r refusal
		if errors.As(err, &r) {
			return r.error
		}
		if ctx.Err() != nil {
			return nil
		}
		lasted := time.Since(began)
		if lasted > shortStream {
			again.Reset()
		}
		wait := again.Next(backoff.Policy{Min: retryFirst, Max: w.opts.retryLast, Jitter: 0.5}, time.Now())
		switch {
		case errors.Is(err, apiserver.ErrEnded) && lasted > shortStream:
			// Its time was up, or the server is about to stop: to be restored from a backup, for all we know.
			w.doubt, wait = true, outage.Jitter(orderly)
		case errors.Is(err, errForgotten):
			w.listed, w.resumed = false, false
			again.Reset()
			wait = outage.Spread(w.opts.ListSpread, len(w.nodes))
		case errors.Is(err, errHistory):
			w.listed, w.resumed = false, false
			w.regress()
			wait = max(outage.Spread(w.opts.ListSpread, len(w.nodes)), relist.Next(historyBackoff, time.Now()))
		case errors.Is(err, apiserver.ErrExpired) && w.listed && w.checked:
			w.listed, w.resumed = false, true
			wait = outage.Spread(w.opts.ListSpread, len(w.nodes))
		case errors.Is(err, apiserver.ErrExpired) && w.listed:
			w.doubt = true
			continue
		default:
			w.doubt = true
			w.contact.Failure(err, string(apiserver.ProblemOf(err).Reason))
		}
		if err := w.rest(ctx, obey(err, wait)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// obey returns how long to wait after err, instead of wait: for as long as the server wants not to be asked, and a
// random part more, since it says the same to all nodes.
func obey(err error, wait time.Duration) time.Duration {
	if after := apiserver.RetryAfter(err); after > 0 {
		wait = max(wait, after+rand.N(after))
	}
	return wait
}

// step goes on from where the watcher is until something breaks. It always returns an error.
func (w *watcher) step(ctx context.Context) error {
	w.checked = false
	if _, err := w.nodeName(ctx); err != nil {
		return err // what is written on this node's own Node could not be recognised
	}
	if w.listed {
		if w.doubt {
			if err := w.check(ctx); err != nil {
				return err
			}
			w.doubt, w.checked = false, true
		}
		return w.follow(ctx, apiserver.WatchOptions{From: w.position.seen})
	}
	if err := w.introduce(ctx); err != nil {
		return err
	}
	err := w.follow(ctx, apiserver.WatchOptions{Initial: true})
	if !errors.Is(err, apiserver.ErrNoInitial) {
		return err
	}
	l, err := w.list(ctx)
	if err != nil {
		return err
	}
	if err := w.finish(ctx, l); err != nil {
		return err
	}
	w.begun()
	return w.follow(ctx, apiserver.WatchOptions{From: w.position.seen})
}

// introduceFor is how long the first list waits for this node's Node.
const introduceFor = time.Second

// introduce hands over what concerns this node alone before the first list, which takes long with thousands of Nodes.
// That it cannot is no error: the list finds out why.
func (w *watcher) introduce(ctx context.Context) error {
	if w.introduced || w.synced {
		return nil
	}
	if w.conf.read(w.logConfig); w.conf.data == nil {
		return nil // nothing can be set up
	}
	name, _ := w.knownName()
	ctx, cancel := context.WithTimeout(ctx, introduceFor)
	defer cancel()
	node, err := w.readNode(ctx, name)
	if err != nil {
		return nil
	}
	w.introduced = true
	w.own(&node.Object)
	e := subnet.Event{
		Type: subnet.Page, Revision: node.Version, Own: true, ConfigSet: true, Config: w.conf.data,
	}
	if cidrs := specOf(&node); w.names.isLease(&node.Object) && !cidrs.none() {
		e.Put = []subnet.Record{w.names.record(&node.Object, cidrs)}
	}
	return w.deliver(e)
}

// begun notes that a list was handed over.
func (w *watcher) begun() {
	w.listed, w.resumed, w.doubt = true, false, false
	w.contact.Over()
}

// rest waits, and reports changes of the network config meanwhile. It returns early when ctx ends.
func (w *watcher) rest(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		case <-w.conf.changed:
			if err := w.configChanged(); err != nil {
				var r refusal
				errors.As(err, &r)
				return r.error
			}
		}
	}
}

// regress notes that the store's history is not the one that was seen.
func (w *watcher) regress() {
	if w.regressed {
		return
	}
	w.regressed = true
	for _, n := range w.nodes {
		n.spec = nil // a Node that had none yet in that history may be given others
	}
	if !w.quiet.Due(time.Now()) {
		return
	}
	w.quiet.Next(outage.LogBackoff, time.Now())
	w.opts.Log.WithField("revision", w.position.seen).
		Warn("the Kubernetes API server's store was wiped or restored from a backup; listing all Nodes again")
}

// configChanged reports the network config if it is another one than before.
func (w *watcher) configChanged() error {
	if !w.synced {
		return nil // the snapshot will have it
	}
	if !w.conf.read(w.logConfig) {
		return nil
	}
	return w.deliver(subnet.Event{
		Type: subnet.Changed, Revision: w.delivered, ConfigSet: true, Config: w.conf.data,
	})
}

func (w *watcher) logConfig(err error) {
	w.opts.Log.WithError(err).Warn("cannot read the network config; the last one stays in force")
}

// deliver calls back with e.
func (w *watcher) deliver(e subnet.Event) error {
	if err := w.changed(e); err != nil {
		return refusal{err}
	}
	if e.Type != subnet.Page {
		w.delivered, w.advised = e.Revision, false
	}
	return nil
}
