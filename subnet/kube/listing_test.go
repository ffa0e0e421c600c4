package kube

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// objectOf is the metadata of a Node with a lease, as of a version.
func objectOf(t *testing.T, name, uid, podCIDR string, version int64) apiserver.Object {
	t.Helper()
	n := nodeWith(podCIDR, nil)
	n.Name, n.UID, n.Version, n.Created = name, uid, version, time.Unix(1000, 0)
	l := wanted(name)
	l.Endpoints[subnet.IPv4].Subnet = prefix(podCIDR)
	c, err := namesOf(DefaultPrefix).claimed(l, n)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range c {
		if value != nil {
			n.Annotations[name] = *value
		}
	}
	return n.Object
}

// listedAll has w take in a list, and returns the events that follow.
func (w *watcher) listedAll(t *testing.T, version int64, store string, objects ...apiserver.Object) (events []subnet.Event) {
	t.Helper()
	w.changed = func(e subnet.Event) error {
		events = append(events, e)
		return nil
	}
	l := newListing()
	for _, o := range objects {
		l.add(w, o)
	}
	l.p.seen = version
	l.p.stores[byList] = apiserver.Identity{FlowSchema: "schema " + store, PriorityLevel: "level " + store}
	if err := w.finish(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	return events
}

// TestAdopt: of a list of the same history, what differs is reported, and as one event.
func TestAdopt(t *testing.T) {
	w, _ := idleWatcher(t)
	same, gone := objectOf(t, "same", "1", "10.244.1.0/24", 5), objectOf(t, "gone", "2", "10.244.2.0/24", 6)
	beaten, moved := objectOf(t, "beaten", "3", "10.244.3.0/24", 7), objectOf(t, "moved", "4", "10.244.4.0/24", 8)
	w.listedAll(t, 10, "a", same, gone, beaten, moved)
	w.resumed = true
	beaten.Version = 11
	moved = objectOf(t, "moved", "5", "10.244.5.0/24", 12)
	added := objectOf(t, "added", "6", "10.244.6.0/24", 13)
	events := w.listedAll(t, 20, "a", same, beaten, moved, added)
	if len(events) != 1 {
		t.Fatalf("%+v", events)
	}
	e := events[0]
	var put []string
	for _, r := range e.Put {
		put = append(put, r.Name)
	}
	slices.Sort(put)
	if e.Type != subnet.Changed || e.Revision != 20 || !slices.Equal(put, []string{"added", "moved"}) ||
		!slices.Equal(e.Deleted, []string{"gone"}) {
		t.Errorf("%+v", e)
	}
	if w.resumed = true; len(w.listedAll(t, 20, "a", same, beaten, moved, added)) != 0 {
		t.Error("what is known is reported again")
	}
}

// TestOtherHistory: which lists are of another history than what was seen up to version 10.
func TestOtherHistory(t *testing.T) {
	one, two := objectOf(t, "one", "1", "10.244.1.0/24", 5), objectOf(t, "two", "2", "10.244.2.0/24", 9)
	at := func(o apiserver.Object, version int64) apiserver.Object {
		o.Version = version
		return o
	}
	for name, x := range map[string]struct {
		version int64
		store   string
		objects []apiserver.Object
		want    bool
	}{
		"the same":                           {10, "a", []apiserver.Object{one, two}, false},
		"later":                              {30, "a", []apiserver.Object{at(one, 20), two}, false},
		"one was deleted":                    {30, "a", []apiserver.Object{two}, false},
		"one was deleted without a change":   {10, "a", []apiserver.Object{two}, true},
		"all were registered again":          {30, "a", []apiserver.Object{objectOf(t, "one", "7", "10.244.7.0/24", 29)}, false},
		"an earlier version":                 {9, "a", []apiserver.Object{one, two}, true},
		"a Node as it was before":            {30, "a", []apiserver.Object{at(one, 4), two}, true},
		"a Node that was not known and is":   {30, "a", []apiserver.Object{one, two, objectOf(t, "x", "9", "10.244.9.0/24", 8)}, true},
		"a Node registered again before":     {30, "a", []apiserver.Object{objectOf(t, "one", "7", "10.244.7.0/24", 6), two}, true},
		"another store":                      {30, "b", []apiserver.Object{at(one, 20), at(two, 25)}, true},
		"another store without other traces": {30, "b", nil, true},
	} {
		w, _ := idleWatcher(t)
		w.listedAll(t, 10, "a", one, two)
		events := w.listedAll(t, x.version, x.store, x.objects...)
		if last := events[len(events)-1]; last.Type != subnet.Synced || last.Regressed != x.want {
			t.Errorf("%s: %+v", name, last)
		}
	}
	// One of the two UIDs alone is what an administrator changes.
	w, _ := idleWatcher(t)
	w.listedAll(t, 10, "a", one)
	l := newListing()
	l.add(w, one)
	l.p.seen, l.p.stores[byList] = 11, apiserver.Identity{FlowSchema: "schema b", PriorityLevel: "level a"}
	if err := w.finish(t.Context(), l); err != nil || w.regressed {
		t.Errorf("another flow schema is another store (%v)", err)
	}
}

// TestOtherHistoryWhileResuming: a list that was to go on in the same history and is of another one is not merged with
// what is known, nor are specs of that history.
func TestOtherHistoryWhileResuming(t *testing.T) {
	one := objectOf(t, "one", "1", "10.244.1.0/24", 5)
	older := one
	older.Version = 4
	for name, list := range map[string]func() *listing{
		"an earlier version": func() *listing { l := newListing(); l.p.seen = 9; return l },
		"a Node as it was before": func() *listing {
			w, _ := idleWatcher(t)
			w.listedAll(t, 10, "a", one)
			l := newListing()
			l.add(w, older)
			l.p.seen = 30
			return l
		},
	} {
		w, _ := idleWatcher(t)
		w.listedAll(t, 10, "a", one)
		w.resumed = true
		if err := w.finish(t.Context(), list()); !errors.Is(err, errHistory) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w, _ := idleWatcher(t)
	w.listedAll(t, 10, "a", one)
	w.nodes["one"].spec = &podCIDRs{}
	l := newListing()
	l.add(w, older)
	l.p.seen = 30
	if err := w.finish(t.Context(), l); !errors.Is(err, errHistory) {
		t.Errorf("with a spec of before: %v", err)
	}
}

// TestMarkThatIsDeletedInAList: the list's last change can be of a Node that is deleted before the list ends.
func TestMarkThatIsDeletedInAList(t *testing.T) {
	w, _ := idleWatcher(t)
	l := newListing()
	l.add(w, objectOf(t, "one", "1", "10.244.1.0/24", 5))
	two := objectOf(t, "two", "2", "10.244.2.0/24", 6)
	l.add(w, two)
	if _, err := w.takeInitial(t.Context(), l, apiserver.Event{Type: apiserver.Deleted, Object: two}); err != nil {
		t.Fatal(err)
	}
	if l.p.mark == "two" && l.p.marked != 0 {
		t.Errorf("Node two is the mark at version %d", l.p.marked)
	}
}
