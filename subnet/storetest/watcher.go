package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Watcher runs a store's Watch, checks each event, and keeps what the events amount to.
type Watcher struct {
	t     *testing.T
	stop  context.CancelFunc
	ended chan struct{}
	err   error // of Watch, once it has ended

	mu     sync.Mutex
	woken  chan struct{} // closed and made anew at each event
	state  State
	listed map[string]subnet.Record // of a snapshot that has not ended
	at     int64                    // its revision
	before func(subnet.Event)       // called with each event, before it counts
}

// State is what a watcher knows.
type State struct {
	Synced    int // snapshots that have ended
	Revision  int64
	Config    []byte
	Leases    map[string]subnet.Record
	Events    []subnet.Event
	ConfigSet int // events that spoke of the config
	Regressed int // snapshots of another history than the one before
}

// Keys returns the keys of all leases, sorted.
func (s State) Keys() []string { return slices.Sorted(maps.Keys(s.Leases)) }

// Changed returns how many events have put or deleted key.
func (s State) Changed(key string) int {
	n := 0
	for _, e := range s.Events {
		if e.Type != subnet.Changed {
			continue
		}
		n += len(slices.Collect(func(yield func(int) bool) {
			for _, r := range e.Put {
				if r.Key == key {
					yield(1)
				}
			}
		}))
		if slices.Contains(e.Deleted, key) {
			n++
		}
	}
	return n
}

// Watch starts a watcher of s, which ends with the test. The function before, if there is one, sees each event first.
func Watch(t *testing.T, s subnet.Store, before func(subnet.Event)) *Watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{
		t: t, stop: cancel, before: before, ended: make(chan struct{}), woken: make(chan struct{}),
		state: State{Leases: map[string]subnet.Record{}},
	}
	go func() {
		defer close(w.ended)
		w.err = s.Watch(ctx, w.take)
	}()
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Errorf("Watch ended with: %v", err)
		}
	})
	return w
}

// Stop ends the watch and returns what it returned.
func (w *Watcher) Stop() error {
	w.stop()
	<-w.ended
	return w.err
}

// Until waits until a state passes check, which returns what is still missing, or "" if nothing is. It returns that state.
func (w *Watcher) Until(check func(State) string) State {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		missing, woken, state := check(w.state), w.woken, w.state
		state.Leases, state.Events = maps.Clone(state.Leases), slices.Clone(state.Events)
		w.mu.Unlock()
		if missing == "" {
			return state
		}
		select {
		case <-woken:
		case <-w.ended:
			w.t.Fatalf("Watch ended (%v) before: %s", w.err, missing)
		case <-deadline:
			w.t.Fatalf("not within %s: %s", patience, missing)
		}
	}
}

// Now returns the present state.
func (w *Watcher) Now() State {
	w.t.Helper()
	return w.Until(func(State) string { return "" })
}

// Synced waits for the end of the n-th snapshot.
func (w *Watcher) Synced(n int) State {
	w.t.Helper()
	return w.Until(func(s State) string {
		if s.Synced < n {
			return fmt.Sprintf("snapshot %d; at %d", n, s.Synced)
		}
		return ""
	})
}

// Reached waits until a revision is seen.
func (w *Watcher) Reached(revision int64) State {
	w.t.Helper()
	return w.Until(func(s State) string {
		if s.Synced == 0 || s.Revision < revision {
			return fmt.Sprintf("revision %d; at %d", revision, s.Revision)
		}
		return ""
	})
}

// Gone waits until there is no lease under key.
func (w *Watcher) Gone(key string) State {
	w.t.Helper()
	return w.Until(func(s State) string {
		if _, ok := s.Leases[key]; ok || s.Synced == 0 {
			return "the end of " + key
		}
		return ""
	})
}

// There waits until there is a lease under key.
func (w *Watcher) There(key string) State {
	w.t.Helper()
	return w.Until(func(s State) string {
		if _, ok := s.Leases[key]; !ok || s.Synced == 0 {
			return "lease " + key
		}
		return ""
	})
}

// take is the callback.
func (w *Watcher) take(e subnet.Event) error {
	if w.before != nil {
		w.before(e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.check(e)
	switch e.Type {
	case subnet.Page, subnet.Synced:
		if w.listed == nil || e.Revision != w.at {
			w.listed, w.at = map[string]subnet.Record{}, e.Revision
		}
		for _, r := range e.Put {
			if _, ok := w.listed[r.Key]; ok {
				w.t.Errorf("the snapshot names %q twice", r.Key)
			}
			w.listed[r.Key] = r
		}
		if e.Type == subnet.Synced {
			w.state.Leases, w.listed = w.listed, nil
			w.state.Synced++
			if e.Regressed {
				w.state.Regressed++
			}
			w.state.Revision = e.Revision
		}
	case subnet.Changed:
		for _, r := range e.Put {
			w.state.Leases[r.Key] = r
		}
		for _, key := range e.Deleted {
			delete(w.state.Leases, key)
		}
		w.state.Revision = e.Revision
	}
	if e.ConfigSet {
		w.state.Config = e.Config
		w.state.ConfigSet++
	}
	w.state.Events = append(w.state.Events, e)
	close(w.woken)
	w.woken = make(chan struct{})
	return nil
}

// check holds an event against what is true of all of them.
func (w *Watcher) check(e subnet.Event) {
	bad := func(format string, args ...any) {
		w.t.Errorf("event %d (type %d, revision %d): %s", len(w.state.Events), e.Type, e.Revision, fmt.Sprintf(format, args...))
	}
	switch e.Type {
	case subnet.Page:
		if e.ConfigSet || len(e.Deleted) > 0 {
			bad("a Page speaks of more than what exists")
		}
		if len(e.Put) > 1000 {
			bad("a Page of %d records", len(e.Put))
		}
	case subnet.Synced:
		if !e.ConfigSet {
			bad("Synced says nothing of the config")
		}
		if e.Regressed && w.state.Synced == 0 {
			bad("another history than none")
		}
	case subnet.Changed:
		if w.state.Synced == 0 || w.listed != nil {
			bad("a change before the snapshot has ended")
		}
		if e.Revision < w.state.Revision {
			bad("comes after revision %d", w.state.Revision)
		}
	default:
		bad("no such type")
	}
	if e.Revision <= 0 {
		bad("no revision")
	}
	if e.Type != subnet.Synced && (e.Regressed || e.Cluster != 0) {
		bad("speaks of the history")
	}
	if !e.ConfigSet && e.Config != nil {
		bad("a config that is not set")
	}
	keys := map[string]bool{}
	for _, r := range e.Put {
		if keys[r.Key] {
			bad("names %q twice", r.Key)
		}
		keys[r.Key] = true
		if r.Created <= 0 || r.Modified < r.Created || r.Modified > e.Revision {
			bad("%q created at %d, modified at %d", r.Key, r.Created, r.Modified)
		}
		if old, ok := w.state.Leases[r.Key]; ok && e.Type == subnet.Changed && r.Modified <= old.Modified {
			bad("%q modified at %d was known as of %d", r.Key, r.Modified, old.Modified)
		}
	}
	for _, key := range e.Deleted {
		if keys[key] {
			bad("names %q twice", key)
		}
		keys[key] = true
	}
}
