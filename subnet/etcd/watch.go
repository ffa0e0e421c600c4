package etcd

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
)

// watcher is one call of Watch.
//
//	    ┌──────────── compacted, or another history ────────────┐
//	    ▼                                                       │
//	snapshot ───► follow ───fault───► the history we know? ──no─┘
//	 ▲     │        ▲                           │
//	 └fault┘        └────────────yes────────────┘
//
// After each fault it pauses, and so does every node: the end of an outage costs etcd one request and one stream a
// node, and a list only if the history is gone. The lists, which are as large as the cluster and requested by all nodes
// at once, are spread by Options.ListSpread.
type watcher struct {
	*Store
	changed func(subnet.Event) error

	listed    bool            // a snapshot was handed over, and everything since up to position.seen
	leases    int             // how many there were in the last snapshot
	regressed bool            // the history of the last snapshot is gone
	bare      bool            // it was logged that there is no config
	quiet     backoff.Backoff // after a log line about another history

	mu       sync.Mutex // the goroutine that minds a quiet stream reads the position
	position position

	heard atomic.Bool // a message came since it was last asked
	busy  atomic.Bool // changed is running: that nothing is heard means nothing
}

// position is where in the store's history a watcher is.
type position struct {
	cluster  uint64 // etcd's id of the cluster
	seen     int64  // revision up to which everything about leases is handed over
	configAt int64  // revision of the last change of the config that is handed over; can be past seen
	config   int64  // revision that the config is of; 0: there is none
	// The lease that was put last, and the revision it is of; 0: it is deleted. Another history does not have it.
	mark   string
	marked int64
}

// note makes r the mark if it is the latest of the leases.
func (p *position) note(r subnet.Record) {
	if r.Version >= p.marked {
		p.mark, p.marked = r.Name, r.Version
	}
}

var (
	// errHistory means that the store does not have the history that was seen: etcd was wiped or restored from a
	// backup.
	errHistory = errors.New("etcd's history is another than before")
	// errMissed means that the store has a config that the watch did not deliver.
	errMissed = errors.New("changes in etcd were missed")
)

// historyBackoff spaces the lists of a store whose history keeps changing.
var historyBackoff = backoff.Policy{Min: retryFirst, Max: time.Minute, Settle: 8}

// refusal is an error of the callback, which ends the watch.
type refusal struct{ error }

// Watch implements [subnet.Store]. Each response of etcd's becomes one event.
func (s *Store) Watch(ctx context.Context, changed func(subnet.Event) error) error {
	w := &watcher{Store: s, changed: changed}
	again := s.newRetry()
	var relist backoff.Backoff
	for {
		began := time.Now()
		err := w.run(ctx)
		var r refusal
		if errors.As(err, &r) {
			return r.error
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Second { // it did work for a while
			again.reset()
		}
		switch {
		case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, errMissed):
			w.listed = false
		case errors.Is(err, errHistory):
			w.listed = false
			w.regress()
			// run spreads the lists. A history that changes again soon is that of another store at the same address.
			if now := time.Now(); relist.Due(now) {
				relist.Next(historyBackoff, now)
				continue
			}
			if !s.wait(ctx, time.Until(relist.At())) {
				return nil
			}
			relist.Next(historyBackoff, time.Now())
			continue
		default:
			s.contact.Failure(err, adviceOf(err))
		}
		if !s.wait(ctx, again.wait()) {
			return nil
		}
	}
}

// run takes the watcher from where it is into a stream of changes, until that ends. It always returns an error.
func (w *watcher) run(ctx context.Context) error {
	if w.listed {
		if _, err := w.check(ctx); err != nil {
			return err
		}
	} else {
		if w.regressed && !w.takeTurn(ctx) {
			return ctx.Err()
		}
		if err := w.snapshot(ctx); err != nil {
			return err
		}
		w.listed, w.regressed = true, false
	}
	return w.follow(ctx)
}

// takeTurn waits before a list that every node requests, and reports whether ctx is still active. It does so at each
// attempt: an etcd that goes down again comes back to all nodes at once again. Early in that time it wakes each Hold.
// Reading one key, and claiming it again if it is gone, takes no list, and the sooner that is done, the less likely it
// is that another node which needs a subnet claims it.
func (w *watcher) takeTurn(ctx context.Context) bool {
	whole := w.opts.spread(w.leases)
	if !outage.Sleep(ctx, whole/4) {
		return false
	}
	w.notice(subnet.Event{Type: subnet.Synced})
	return outage.Sleep(ctx, whole-whole/4)
}

// regress notes that the store's history is not the one that was seen.
func (w *watcher) regress() {
	if w.regressed {
		return
	}
	w.regressed = true
	if !w.quiet.Due(time.Now()) {
		return
	}
	w.quiet.Next(outage.LogBackoff, time.Now())
	w.opts.Log.WithField("revision", w.where().seen).
		Warn("etcd was wiped or restored from a backup; listing all leases again")
}

// deliver calls back with e.
func (w *watcher) deliver(e subnet.Event) error {
	w.busy.Store(true)
	defer w.busy.Store(false)
	w.notice(e)
	w.logMissingConfig(e)
	if err := w.changed(e); err != nil {
		return refusal{err}
	}
	return nil
}

// logMissingConfig logs once that there is no config, and where it has to be.
func (w *watcher) logMissingConfig(e subnet.Event) {
	if !e.ConfigSet {
		return
	}
	if e.Config == nil && !w.bare {
		w.opts.Log.Warnf("etcd has no network config; write it with: etcdctl put %s '{\"Network\":\"10.5.0.0/16\"}'. "+
			"If ETCDCTL_API=2 etcdctl get shows one, it is in etcd's separate v2 store and has to be written again",
			w.keys.config)
	}
	w.bare = e.Config == nil
}

func (w *watcher) where() position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.position
}

func (w *watcher) moveTo(p position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.position = p
}
