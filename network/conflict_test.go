package network

import (
	"errors"
	"testing"
	"time"
)

// dueAt is when a pass after the one at now may change a key.
func dueAt(t *Tables, k RouteKey, now time.Time) time.Time {
	at, _ := t.Routes.due(k, now)
	return at
}

// TestConflictIsNamed: a route that another process replaces again and again is reported with both values; one that was replaced
// once or twice is not.
func TestConflictIsNamed(t *testing.T) {
	tables := applyNothing(NewTables())
	r := &Reconciler{Tables: tables}
	key := RouteKey{Prefix: prefix("10.5.29.0/24")}
	ours, theirs := Route{Link: "eth0", Protocol: RouteProtocol}, Route{Link: "eth1", Protocol: 4}
	tables.Routes.Want(Owner{Name: "lease"}, key, ours)
	now := time.Unix(0, 0)
	r.Pass(now)
	for i := range 10 {
		now = dueAt(tables, key, now).Add(time.Millisecond) // as soon as it is repaired
		tables.Routes.Observe(key, theirs)
		got := r.Pass(now)
		if got.Repaired != 1 {
			t.Fatalf("repair %d: %+v", i+1, got)
		}
		if i < 3 && len(got.Conflicts) != 0 {
			t.Errorf("repair %d is reported as a conflict: %+v", i+1, got.Conflicts)
		}
		want := Conflict{
			Kind: "route", Key: "10.5.29.0/24",
			Want: "{Link:eth0 Nexthop:0 OnLink:false Protocol:83 Type:0 Others:0 Gateway:invalid IP}",
			Have: "{Link:eth1 Nexthop:0 OnLink:false Protocol:4 Type:0 Others:0 Gateway:invalid IP}",
		}
		if i > 5 && (len(got.Conflicts) != 1 || got.Conflicts[0] != want) {
			t.Errorf("repair %d: conflicts %+v, want %+v", i+1, got.Conflicts, want)
		}
	}
	// Left alone, its backoff is forgotten.
	now = now.Add(time.Minute)
	tables.Routes.Observe(key, theirs)
	if got := r.Pass(now); len(got.Conflicts) != 0 {
		t.Errorf("after a quiet minute: %+v", got.Conflicts)
	}
}

// TestFailureIsNoConflict: what could not be set for a while, and then could, was changed by no other process.
func TestFailureIsNoConflict(t *testing.T) {
	r, kernel := node(1)
	refused := errors.New("permission denied: IPv6 is disabled on this device")
	key := peer(0).Routes[0].Key
	now := time.Unix(0, 0)
	del(kernel, kernel.routes, r.Tables.Routes, key)
	kernel.notify()
	kernel.refuse = func(kind, _ string) error {
		if kind == "route" {
			return refused
		}
		return nil
	}
	for range 8 {
		got := r.Pass(now)
		if len(got.Failures) != 1 || len(got.Conflicts) != 0 {
			t.Fatalf("while it fails: %+v", got)
		}
		now = got.Retry
	}
	kernel.refuse = nil
	if got := r.Pass(now); got.Repaired != 1 || len(got.Conflicts) != 0 {
		t.Errorf("when it succeeds: %+v, want a repair and no conflict", got)
	}
	// A process that then really changes it again and again is still reported.
	conflicts := 0
	for range 8 {
		del(kernel, kernel.routes, r.Tables.Routes, key)
		kernel.notify()
		now = dueAt(r.Tables, key, now).Add(time.Millisecond)
		conflicts += len(r.Pass(now).Conflicts)
	}
	if conflicts == 0 {
		t.Error("a conflict that follows is not reported")
	}
}
