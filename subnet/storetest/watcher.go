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
	woken  chan struct{} // closed and replaced at each event
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
	Leases    map[string]subnet.Record // by name
	Events    []subnet.Event
	ConfigSet int // events that carried the config
	Regressed int // snapshots of another history than the one before
}

// Names returns the names of all records, sorted.
func (s State) Names() []string { return slices.Sorted(maps.Keys(s.Leases)) }

// Changed returns how many events have put or deleted a record.
func (s State) Changed(name string) int {
	n := 0
	for _, e := range s.Events {
		if e.Type != subnet.Changed {
			continue
		}
		for _, r := range e.Put {
			if r.Name == name {
				n++
			}
		}
		if slices.Contains(e.Deleted, name) {
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

// Until waits until a state passes check, which returns what is still missing, or "" if nothing is. It returns that
// state.
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

// Gone waits until there is no record of a name.
func (w *Watcher) Gone(name string) State {
	w.t.Helper()
	return w.Until(func(s State) string {
		if _, ok := s.Leases[name]; ok || s.Synced == 0 {
			return "the end of " + name
		}
		return ""
	})
}

// There waits until there is a record of a name.
func (w *Watcher) There(name string) State {
	w.t.Helper()
	return w.Until(func(s State) string {
		if _, ok := s.Leases[name]; !ok || s.Synced == 0 {
			return "record " + name
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
		if e.Own {
			break // no part of a snapshot
		}
		if w.listed == nil || e.Revision != w.at {
			w.listed, w.at = map[string]subnet.Record{}, e.Revision
		}
		for _, r := range e.Put {
			if _, ok := w.listed[r.Name]; ok {
				w.t.Errorf("the snapshot names %q twice", r.Name)
			}
			w.listed[r.Name] = r
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
			w.state.Leases[r.Name] = r
		}
		for _, name := range e.Deleted {
			delete(w.state.Leases, name)
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
		w.t.Errorf("event %d (type %d, revision %d): %s",
			len(w.state.Events), e.Type, e.Revision, fmt.Sprintf(format, args...))
	}
	switch e.Type {
	case subnet.Page:
		if e.ConfigSet != e.Own || len(e.Deleted) > 0 {
			bad("a Page carries more than what exists")
		}
		if e.Own && (len(e.Put) > 1 || w.state.Synced > 0) {
			bad("what is the node's own comes late, or with %d records", len(e.Put))
		}
		if len(e.Put) > 1000 {
			bad("a Page of %d records", len(e.Put))
		}
	case subnet.Synced:
		if !e.ConfigSet {
			bad("Synced does not carry the config")
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
	names := map[string]bool{}
	for _, r := range e.Put {
		if names[r.Name] {
			bad("names %q twice", r.Name)
		}
		names[r.Name] = true
		if r.Order <= 0 || r.Version <= 0 || r.Version > e.Revision {
			bad("%q of order %d, version %d", r.Name, r.Order, r.Version)
		}
		old, ok := w.state.Leases[r.Name]
		found := r.Version == old.Version && old.Bad == nil && r.Bad != nil
		if ok && e.Type == subnet.Changed && r.Version <= old.Version && !found {
			bad("%q of version %d was known as of %d", r.Name, r.Version, old.Version)
		}
	}
	for _, name := range e.Deleted {
		if names[name] {
			bad("names %q twice", name)
		}
		names[name] = true
	}
}
