package etcd

import (
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// TestHealth compares the counters with what was requested, and with what etcd counted itself.
func TestHealth(t *testing.T) {
	s := server(t, etcdserver.Options{})
	before := handled(t, s)
	_, o := cluster(t, s.Endpoint())
	began := time.Now()
	store := open(t, o)
	if got := store.Health(); len(got.Requests) != 0 || !got.LastContact.IsZero() {
		t.Fatalf("before anything was asked: %+v", got)
	}
	w := storetest.Watch(t, store, nil)
	w.Synced(1)
	r := must[subnet.Record](t)(store.Claim(t.Context(), nil, lease(7, "a")))
	if _, err := store.Claim(t.Context(), nil, lease(7, "b")); err == nil {
		t.Fatal("a subnet was given twice")
	}
	if _, err := store.keepAlive(t.Context(), r.LeaseID); err != nil {
		t.Fatal(err)
	}
	if err := store.Release(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	got := store.Health()
	after := handled(t, s)
	for _, method := range []string{"Txn", "Watch", "LeaseGrant"} {
		if want := after[method] - before[method]; got.Requests[method] != uint64(want) || want == 0 {
			t.Errorf("%s: %d requests, etcd counted %d", method, got.Requests[method], want)
		}
	}
	if len(got.Failed) != 0 { // streams that we ended ourselves have not failed
		t.Errorf("failed: %v", got.Failed)
	}
	if got.Sent == 0 || got.Received == 0 || got.Answers < 4 {
		t.Errorf("health %+v", got)
	}
	if got.LastContact.Before(began) || got.LastContact.After(time.Now()) || got.Latency <= 0 || got.Latency > time.Since(began) {
		t.Errorf("last contact %s, latency %s", got.LastContact, got.Latency)
	}
	if "http://"+got.Endpoint != s.Endpoint() {
		t.Errorf("endpoint %q, want that of %s", got.Endpoint, s.Endpoint())
	}
}
