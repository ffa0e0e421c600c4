package node

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/cache"
)

// cacheLoop drives a lease cache as the node's loop does.
type cacheLoop struct {
	*leaseCache
	out     bytes.Buffer
	own     ownLease
	records []cache.Record
	wrote   []time.Time
}

func newCacheLoop(t *testing.T, dir string) *cacheLoop {
	l := &cacheLoop{own: ownLease{final: true, expires: true, at: time.Now().Add(time.Hour)}}
	l.leaseCache = newLeaseCache(dir, true, time.Hour, time.Now(), newJournal(textLog(&l.out)), func(f func()) { go f() })
	l.load()
	return l
}

func (l *cacheLoop) run(d time.Duration) {
	end := time.After(d)
	for {
		a := alarm{now: time.Now()}
		if l.step(&a, l.own, func() cache.Snapshot {
			return cache.Snapshot{Revision: 7, Config: []byte(`{}`), Records: l.records, Own: "10.5.0.0-24"}
		}) {
			l.wrote = append(l.wrote, time.Now())
		}
		var next <-chan time.Time
		if !a.at.IsZero() {
			next = time.After(time.Until(a.at))
		}
		select {
		case err := <-l.results:
			l.writeEnded(err, time.Now())
		case <-next:
		case <-end:
			return
		}
	}
}

func recordOf(l subnet.Lease) subnet.Record {
	return subnet.Record{Lease: l, Name: l.Key(), Order: 3, Version: 4, LeaseID: 5}
}

// cachedRecordOf is the same in the file.
func cachedRecordOf(l subnet.Lease) cache.Record {
	r, err := cache.Encode(recordOf(l), nil)
	if err != nil {
		panic(err)
	}
	return r
}

// TestCacheWrites: the first write is at once, those after a change are delayed and not more often than every
// cacheInterval, and a failed one is repeated without anything else happening.
func TestCacheWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := newCacheLoop(t, dir)
		l.records = []cache.Record{cachedRecordOf(leaseOf(ownID, "10.5.0.0/24", 1))}
		began := time.Now()
		l.changed(began)
		l.run(time.Minute)
		if want := []time.Time{began}; !slices.Equal(l.wrote, want) {
			t.Fatalf("written at %v, want once at %v", l.wrote, want)
		}
		s, err := cache.Read(filepath.Join(dir, cacheFile))
		if err != nil || len(s.Records) != 1 || s.Own != "10.5.0.0-24" || !s.OwnExpires.Equal(l.own.at.Truncate(time.Second)) && !s.OwnExpires.Equal(l.own.at) {
			t.Fatalf("read back %+v, %v", s, err)
		}
		l.wrote = nil
		for range 100 {
			l.changed(time.Now())
			l.run(time.Second)
		}
		if n := len(l.wrote); n < 9 || n > 11 {
			t.Errorf("%d writes in 100 s of changes, want one every 10 s", n)
		}
		l.run(time.Minute)
		if l.stale {
			t.Error("stale a minute after the last change")
		}

		if err := os.Remove(l.path); err != nil {
			t.Fatal(err)
		}
		l.wrote = nil
		l.checkFile(time.Now())
		l.run(time.Minute)
		if _, err := os.Stat(l.path); err != nil || len(l.wrote) != 1 {
			t.Errorf("a removed file was written %d times: %v", len(l.wrote), err)
		}
	})
}

// TestCacheWriteFails: the result of a write in the background wakes the loop, so that a failure is shown and repeated.
func TestCacheWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(dir, []byte("x"), 0o600); err != nil { // a file where the directory should be
			t.Fatal(err)
		}
		l := newCacheLoop(t, dir)
		l.run(time.Second)
		if l.journal.open[topicCache].err == nil {
			t.Errorf("problems %v, want one about the cache", l.journal.open)
		}
		l.run(time.Minute)
		if n := len(l.wrote); n < 5 || n > 7 {
			t.Errorf("%d attempts in a minute, want one every 10 s", n)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		l.run(20 * time.Second)
		if _, err := os.Stat(l.path); err != nil {
			t.Error(err)
		}
		if len(l.journal.open) != 0 {
			t.Errorf("problems %v after a success", l.journal.open)
		}
		if got := strings.Count(l.out.String(), "level=error msg=write "); got != 1 {
			t.Errorf("%d errors logged, want the same one once:\n%s", got, l.out.String())
		}
	})
}

// TestCacheWaitsForExpiry: without the own lease's expiry the first write waits for it, but not for ever.
func TestCacheWaitsForExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newCacheLoop(t, t.TempDir())
		began := time.Now()
		l.writeAt = began
		l.own.at = time.Time{}
		l.run(time.Second)
		if len(l.wrote) != 0 {
			t.Fatal("written without an expiry")
		}
		l.own.at = began.Add(time.Hour)
		l.run(expiryPoll)
		if len(l.wrote) != 1 {
			t.Fatal("not written when the expiry was known")
		}
		l.run(time.Minute)
		l.own.at = time.Time{}
		l.wrote = nil
		l.changed(time.Now())
		l.run(time.Minute)
		if len(l.wrote) == 0 {
			t.Error("a change is never written while the expiry is unknown")
		}
	})
}

// TestCacheRenewals: a renewal alone is written only now and then.
func TestCacheRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newCacheLoop(t, t.TempDir())
		l.run(time.Second)
		l.wrote = nil
		for range 60 {
			l.own.at = l.own.at.Add(time.Minute)
			l.run(time.Minute)
		}
		if n := len(l.wrote); n < 6 || n > 8 {
			t.Errorf("%d writes in an hour of renewals, want one every eighth of the TTL", n)
		}
	})
}

// TestCacheNotYet: nothing is written before the own lease is final, nor while cached leases are in use.
func TestCacheNotYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newCacheLoop(t, t.TempDir())
		l.own.final = false
		l.run(time.Minute)
		l.own.final, l.inUse = true, true
		l.run(time.Minute)
		if len(l.wrote) != 0 {
			t.Errorf("written at %v", l.wrote)
		}
	})
}

// cached writes a file as an earlier run did, and returns its directory.
func cached(t *testing.T, s cache.Snapshot) string {
	t.Helper()
	dir := t.TempDir()
	if err := cache.Write(filepath.Join(dir, cacheFile), s); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCachedStart: a store that stays silent for cachedStartAfter makes the node start from what was cached, with the
// own lease if it cannot have expired.
func TestCachedStart(t *testing.T) {
	for _, x := range []struct {
		name    string
		expires time.Duration
		id      string
		usable  bool
	}{
		{"valid", time.Hour, ownID, true},
		{"expired", time.Second, ownID, false},
		{"of another instance", time.Hour, otherID, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			own := leaseOf(x.id, "10.5.0.0/24", 1)
			s := cache.Snapshot{
				Written: time.Now(), Revision: 7, Config: []byte(`{"Network":"10.5.0.0/16"}`), Records: []cache.Record{cachedRecordOf(own)},
				Own: own.Key(), OwnExpires: time.Now().Add(x.expires),
			}
			l := newCacheLoop(t, cached(t, s))
			a := alarm{now: time.Now()}
			if l.begin(&a) != nil || !a.at.Equal(time.Now().Add(cachedStartAfter)) {
				t.Fatalf("%s: it does not wait for the store until %v", x.name, a.at)
			}
			time.Sleep(cachedStartAfter)
			a = alarm{now: time.Now()}
			got := l.begin(&a)
			if got == nil || !l.inUse || len(got.Records) != 1 {
				t.Fatalf("%s: started from %+v", x.name, got)
			}
			if l.begin(&a) != nil {
				t.Errorf("%s: it starts twice", x.name)
			}
			l.foundOwn(subnet.Record{Lease: own, Name: own.Key(), LeaseID: 5}, time.Now())
			if _, ok := l.takeOwn(ownID); ok != x.usable {
				t.Errorf("%s: own lease usable: %t", x.name, ok)
			}
			if _, ok := l.takeOwn(ownID); ok {
				t.Errorf("%s: given out twice", x.name)
			}
			if _, wasInUse := l.storeReached(subnet.Event{Revision: 8}); !wasInUse || l.inUse {
				t.Errorf("%s: still in use after the store was reached", x.name)
			}
			if s, _ := l.takeMissing(time.Hour, time.Now()); s != nil {
				t.Errorf("%s: what the view knows is given out again", x.name)
			}
		})
	}
}

// TestCacheRegressed tells from the first snapshot whether the store has lost its memory, and for how long peers are
// retained.
func TestCacheRegressed(t *testing.T) {
	const grace = time.Minute
	for _, x := range []struct {
		name      string
		event     subnet.Event
		after     time.Duration // since the file was written
		regressed bool
		retained  time.Duration // from then; 0: not at all
	}{
		{"same history", subnet.Event{Revision: 9, Cluster: 1}, 0, false, grace},
		{"earlier revision", subnet.Event{Revision: 5, Cluster: 1}, 0, true, time.Hour},
		{"another cluster", subnet.Event{Revision: 9, Cluster: 2}, 10 * time.Minute, true, 50 * time.Minute},
		{"long ago", subnet.Event{Revision: 5, Cluster: 1}, 2 * time.Hour, true, grace},
	} {
		synctest.Test(t, func(t *testing.T) {
			dir := cached(t, cache.Snapshot{Written: time.Now(), Cluster: 1, Revision: 7, Config: []byte(`{}`)})
			time.Sleep(x.after)
			l := newCacheLoop(t, dir)
			if regressed, wasInUse := l.storeReached(x.event); regressed != x.regressed || wasInUse {
				t.Errorf("%s: regressed %t, was in use %t", x.name, regressed, wasInUse)
			}
			if s, until := l.takeMissing(grace, time.Now()); s == nil || time.Until(until).Round(time.Second) != x.retained {
				t.Errorf("%s: retained for %v, want %v", x.name, time.Until(until), x.retained)
			}
			if s, _ := l.takeMissing(grace, time.Now()); s != nil {
				t.Errorf("%s: given out twice", x.name)
			}
		})
	}
}

// TestCacheDamaged: a damaged file is renamed, and the node starts without it.
func TestCacheDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, cacheFile)
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newCacheLoop(t, dir)
	if l.read != nil || !strings.Contains(l.out.String(), "ignoring cached leases from an earlier run") {
		t.Errorf("read %+v, logged %s", l.read, l.out.String())
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the damaged file is still there: %v", err)
	}
}
