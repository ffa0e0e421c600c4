package network

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// refused is an error that says for which key it is.
type refused string

func (r refused) Error() string { return "refused: " + string(r) }

// TestBatches: more entries than fit into one batch are all made in one pass, whichever of them fail, and each failure is
// told of its own key.
func TestBatches(t *testing.T) {
	const peers = 2*batchSize + 44
	r, kernel := node(0)
	kernel.batches = nil
	var bad []string
	kernel.refuse = func(kind, k string) error {
		if slices.Contains(bad, kind+" "+k) {
			return refused(kind + " " + k)
		}
		return nil
	}
	keys := func(s State) []string {
		return []string{
			"fdb " + s.FDB[0].Key.String(), "neighbour " + s.Neighbours[0].Key.String(),
			fmt.Sprint("nexthop ", s.Nexthops[0].Key), "route " + s.Routes[0].Key.String(),
		}
	}
	check := func(name string, got Result, calls, done int) {
		t.Helper()
		var failed []string
		for _, f := range got.Failures {
			failed = append(failed, f.Kind+" "+f.Key)
			if f.Err != refused(f.Kind+" "+f.Key) {
				t.Errorf("%s: %s %s: %v", name, f.Kind, f.Key, f.Err)
			}
		}
		slices.Sort(failed)
		slices.Sort(bad)
		if !slices.Equal(failed, bad) || got.Set+got.Removed != done || len(kernel.calls) != calls {
			t.Errorf("%s: %d done in %d calls, failed %v; want %d in %d, failed %v", name, got.Set+got.Removed, len(kernel.calls), failed, done, calls, bad)
		}
		kernel.calls = nil
	}
	for i := range peers {
		s := byID(peer(i))
		r.Tables.Replace(Owner{Name: "peer"}, State{}, s)
		switch i % 100 {
		case 7:
			bad = append(bad, keys(s)[:2]...)
		case 8:
			bad = append(bad, keys(s)[3])
		}
	}
	got := r.Pass(start)
	check("set", got, 4*peers, 4*peers-len(bad))
	var want []string
	for _, kind := range []string{"fdb", "neighbour", "nexthop", "route"} {
		want = append(want, fmt.Sprint(kind, " ", batchSize), fmt.Sprint(kind, " ", batchSize), kind+" 44")
	}
	if !slices.Equal(kernel.batches, want) {
		t.Errorf("the batches are\n  %s\nwant\n  %s", strings.Join(kernel.batches, "\n  "), strings.Join(want, "\n  "))
	}

	again := len(bad)
	bad = nil
	got = r.Pass(got.Retry)
	check("what failed", got, again, again)
	kernel.notify()
	if n := r.Tables.Pending(); n != 0 || len(kernel.routes) != peers || len(kernel.nexthops) != peers {
		t.Errorf("%d pending, %d routes, %d nexthops", n, len(kernel.routes), len(kernel.nexthops))
	}

	for i := range peers {
		s := byID(peer(i))
		r.Tables.Replace(Owner{Name: "peer"}, s, State{})
		if i%100 == 9 {
			bad = append(bad, keys(s)[1], keys(s)[2])
		}
	}
	got = r.Pass(start.Add(time.Minute))
	check("removed", got, 4*peers, 4*peers-len(bad))
}

// TestOneBatch: a batch is never larger than the limit, nor is there an empty one.
func TestOneBatch(t *testing.T) {
	for n, want := range map[int][]string{
		0:             nil,
		1:             {"route 1"},
		batchSize:     {"route 128"},
		batchSize + 1: {"route 128", "route 1"},
	} {
		r, kernel := node(0)
		kernel.batches = nil
		for i := range n {
			r.Tables.Routes.Want(self, peer(i).Routes[0].Key, peer(i).Routes[0].Value)
		}
		if got := r.Pass(start); got.Set != n || !slices.Equal(kernel.batches, want) {
			t.Errorf("%d: %+v in %v, want %v", n, got, kernel.batches, want)
		}
	}
}

// linkKernel does with devices as it is told.
type linkKernel struct {
	noKernel
	link func(name string, c Change[Link]) error
}

func (k linkKernel) Link(name string, c Change[Link]) error { return k.link(name, c) }

// TestDevicesOneByOne: to make one device can show that another is gone, which is then made as what it has become.
func TestDevicesOneByOne(t *testing.T) {
	tables := NewTables()
	want, have := vxlan(), vxlan()
	have.MTU = 1280
	names := []string{"flannel.1", "flannel.2"}
	for _, name := range names {
		tables.Links.Want(self, name, want)
		tables.Links.Observe(name, want)
		tables.Links.Observe(name, have)
	}
	var found []bool
	kernel := linkKernel{link: func(name string, c Change[Link]) error {
		found = append(found, c.Present)
		for _, other := range names {
			if other != name && len(found) == 1 {
				tables.LinkGone(other)
			}
		}
		return nil
	}}
	r := &Reconciler{Tables: tables, Kernel: kernel}
	if got := r.Pass(start); got.Set != 2 || got.Repaired != 2 || !slices.Equal(found, []bool{true, false}) {
		t.Errorf("%+v, there were %v; want the first one there and the second not", got, found)
	}
}
