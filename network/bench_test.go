package network

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// BenchmarkChange changes one key on both sides, in tables of different sizes: it must cost the same in each.
func BenchmarkChange(b *testing.B) {
	for _, size := range []int{100, 1000, 5000, 20_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			tables, routes := NewTables(), make([]Item[RouteKey, Route], size)
			for i := range routes {
				routes[i] = peer(i).Routes[0]
				tables.Routes.Want(Owner{Name: "peer"}, routes[i].Key, routes[i].Value)
				tables.Routes.Observe(routes[i].Key, routes[i].Value)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				x := &routes[i%size]
				i++
				x.Value.Others ^= 1
				tables.Routes.Want(Owner{Name: "peer"}, x.Key, x.Value)
				tables.Routes.Observe(x.Key, x.Value)
			}
			if n := tables.Pending(); n != 0 {
				b.Fatalf("%d pending", n)
			}
		})
	}
}

// applyNothing has every change made by doing nothing.
func applyNothing(t *Tables) *Tables {
	t.VTEPs.ApplyBatch(func([]Update[netip.Addr, VTEP]) {})
	t.ApplyLinks(func(string, Change[Link]) (LinkEffects, error) { return LinkEffects{}, nil })
	t.Addresses.ApplyEach(func(AddressKey, Change[Address]) error { return nil })
	t.FDB.ApplyBatch(func([]Update[FDBKey, FDB]) {})
	t.Neighbours.ApplyBatch(func([]Update[NeighbourKey, Neighbour]) {})
	t.Nexthops.ApplyBatch(func([]Update[NexthopID, Nexthop]) {})
	t.Routes.ApplyBatch(func([]Update[RouteKey, Route]) {})
	t.Sysctls.ApplyEach(func(string, Change[Sysctl]) error { return nil })
	return t
}

// cluster returns a node that has programmed so many peers, four entries each.
func cluster(peers int) (*Reconciler, []State) {
	r := &Reconciler{Tables: applyNothing(NewTables())}
	r.Tables.Replace(self, State{}, nodeState(device, vxlan()))
	states := make([]State, peers)
	for i := range states {
		states[i] = byID(peer(i))
		r.Tables.Replace(Owner{Name: "peer"}, State{}, states[i])
	}
	r.Pass(start)
	return r, states
}

// BenchmarkPassIdle is a pass with nothing to do, 20,000 entries in the tables.
func BenchmarkPassIdle(b *testing.B) {
	r, _ := cluster(5000)
	b.ReportAllocs()
	for b.Loop() {
		r.Pass(start)
	}
}

// BenchmarkPassOne is the repair of one route of some, after all that were once pending: it must cost the same in each case.
func BenchmarkPassOne(b *testing.B) {
	for _, peers := range []int{100, 1000, 5000, 20_000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			r, states := cluster(peers)
			k := states[42].Routes[0].Key
			now := start
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Minute)
				r.Tables.Routes.ObserveGone(k)
				if got := r.Pass(now); got.Set != 1 {
					b.Fatalf("%+v", got)
				}
			}
		})
	}
}

// BenchmarkPeerComes is a peer that comes and goes again, four entries each time, among some others: the same holds.
func BenchmarkPeerComes(b *testing.B) {
	for _, peers := range []int{100, 1000, 5000, 20_000} {
		b.Run(fmt.Sprint(peers), func(b *testing.B) {
			r, _ := cluster(peers)
			one, now := byID(peer(peers)), start
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Minute)
				r.Tables.Replace(Owner{Name: "new"}, State{}, one)
				if got := r.Pass(now); got.Set != 4 {
					b.Fatalf("%+v", got)
				}
				r.Tables.Replace(Owner{Name: "new"}, one, State{})
				if got := r.Pass(now); got.Removed != 4 {
					b.Fatalf("%+v", got)
				}
			}
		})
	}
}

// BenchmarkReplay is the replay of a device and all that hung on it, 20,000 entries, less what the kernel takes for it.
func BenchmarkReplay(b *testing.B) {
	r, _ := cluster(5000)
	now := start
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Minute)
		r.Tables.LinkGone(device)
		if got := r.Pass(now); got.Set != 20_002 {
			b.Fatalf("%+v", got)
		}
	}
}

// resync is a full read that finds everything as it is wanted.
func resync(t *Tables, states []State) {
	t.FDB.Mark()
	t.Neighbours.Mark()
	t.Nexthops.Mark()
	t.Routes.Mark()
	for _, s := range states {
		t.FDB.Observe(s.FDB[0].Key, s.FDB[0].Value)
		t.Neighbours.Observe(s.Neighbours[0].Key, s.Neighbours[0].Value)
		t.Nexthops.Observe(s.Nexthops[0].Key, s.Nexthops[0].Value)
		t.Routes.Observe(s.Routes[0].Key, s.Routes[0].Value)
	}
	t.FDB.Sweep(func(FDBKey) bool { return true })
	t.Neighbours.Sweep(func(NeighbourKey) bool { return true })
	t.Nexthops.Sweep(func(NexthopID) bool { return true })
	t.Routes.Sweep(func(RouteKey) bool { return true })
}

// BenchmarkResync takes a full read of 20,000 entries that are all right into the tables.
func BenchmarkResync(b *testing.B) {
	r, states := cluster(5000)
	b.ReportAllocs()
	for b.Loop() {
		resync(r.Tables, states)
	}
	if n := r.Tables.Pending(); n != 0 {
		b.Fatalf("%d pending", n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/20_000, "ns/entry")
}

// BenchmarkMemory measures what the four entries of a peer take in the tables.
func BenchmarkMemory(b *testing.B) {
	const peers = 5000
	states := make([]State, peers)
	for i := range states {
		states[i] = byID(peer(i))
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var used uint64
	for b.Loop() {
		before := heap()
		r := &Reconciler{Tables: applyNothing(NewTables())}
		r.Tables.Replace(self, State{}, nodeState(device, vxlan()))
		for _, s := range states {
			r.Tables.Replace(Owner{Name: "peer"}, State{}, s)
		}
		r.Pass(start)
		used = heap() - before
		runtime.KeepAlive(r)
	}
	b.ReportMetric(float64(used)/peers, "B/lease")
	runtime.KeepAlive(states)
}

// TestSteadyStateAllocatesNothing: a full read that finds everything right, and a pass with nothing to do, cost no
// memory, so they can be as frequent as one likes.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	r, states := cluster(500)
	for _, kind := range []string{"fdb", "neighbour", "nexthop", "route"} {
		if got := r.Tables.Counts()[kind]; got != (Count{Wanted: 500, Present: 500}) {
			t.Fatalf("%s: %+v", kind, got)
		}
	}
	if n := testing.AllocsPerRun(5, func() { resync(r.Tables, states) }); n != 0 {
		t.Errorf("a full read of 2,000 right entries allocates %v times", n)
	}
	if n := testing.AllocsPerRun(5, func() { r.Pass(start) }); n != 0 {
		t.Errorf("an idle pass allocates %v times", n)
	}
}
