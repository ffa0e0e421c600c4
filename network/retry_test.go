package network

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// conflict has another process do something to a node every millisecond for so long, while a loop that is woken each time, and
// when a retry is due, repairs it. It returns how many calls the kernel got meanwhile, and when it ended.
func conflict(r *Reconciler, kernel *fakeKernel, now time.Time, length time.Duration, attack func()) (calls int, end time.Time) {
	kernel.calls = nil
	end = now.Add(length)
	for ; now.Before(end); now = now.Add(time.Millisecond) {
		attack()
		kernel.notify()
		r.Pass(now)
		kernel.notify()
	}
	return len(kernel.takeCalls()), now
}

// recovered passes whenever a retry is due until there is none, and returns when that was.
func recovered(t *testing.T, r *Reconciler, kernel *fakeKernel, now time.Time) time.Time {
	t.Helper()
	for range 100 {
		got := r.Pass(now)
		kernel.notify()
		if got.Retry.IsZero() {
			return now
		}
		if !got.Retry.After(now) {
			t.Fatalf("at %v, retry at %v", now, got.Retry)
		}
		now = got.Retry
	}
	t.Fatal("never recovers")
	return now
}

func (t *Tables) keysInBackoff() int {
	return len(t.Links.retries) + len(t.Addresses.retries) + len(t.FDB.retries) + len(t.Neighbours.retries) + len(t.Nexthops.retries) +
		len(t.Routes.retries)
}

func TestFight(t *testing.T) {
	stale := RouteKey{Prefix: prefix("10.77.0.0/24")}
	byNexthop := byID(peer(3))
	nexthop := byNexthop.Nexthops[0]
	for _, tt := range []struct {
		name   string
		attack func(*Reconciler, *fakeKernel)
		keys   int // that are repaired each time; 0 is 1
	}{
		{name: "route deleted", attack: func(r *Reconciler, k *fakeKernel) { del(k, k.routes, r.Tables.Routes, peer(0).Routes[0].Key) }},
		{name: "route replaced", attack: func(r *Reconciler, k *fakeKernel) {
			put(k, k.routes, r.Tables.Routes, peer(0).Routes[0].Key, Route{Type: 6, Protocol: 3})
		}},
		{name: "route of ours added that nobody wants", attack: func(r *Reconciler, k *fakeKernel) {
			put(k, k.routes, r.Tables.Routes, stale, Route{Link: "eth0", Protocol: RouteProtocol})
		}},
		{name: "nexthop deleted, and its route with it", attack: func(_ *Reconciler, k *fakeKernel) { k.delNexthop(nexthop.Key) }, keys: 2},
		{name: "nexthop with another gateway", attack: func(_ *Reconciler, k *fakeKernel) {
			v := nexthop.Value
			v.Gateway = v.Gateway.Next()
			k.putNexthop(nexthop.Key, v)
		}},
		{name: "nexthop of ours added that nobody wants", attack: func(_ *Reconciler, k *fakeKernel) {
			k.putNexthop(7, Nexthop{Link: "eth0", Protocol: RouteProtocol})
		}},
		{name: "FDB entry aged", attack: func(r *Reconciler, k *fakeKernel) {
			v := peer(0).FDB[0].Value
			v.Permanent = false
			put(k, k.fdb, r.Tables.FDB, peer(0).FDB[0].Key, v)
		}},
		{name: "neighbour deleted", attack: func(r *Reconciler, k *fakeKernel) {
			del(k, k.neighbours, r.Tables.Neighbours, peer(0).Neighbours[0].Key)
		}},
		{name: "address deleted", attack: func(r *Reconciler, k *fakeKernel) {
			del(k, k.addresses, r.Tables.Addresses, AddressKey{device, prefix("10.5.0.0/32")})
		}},
		{name: "MTU changed", attack: func(_ *Reconciler, k *fakeKernel) {
			l := vxlan()
			l.MTU = 1280
			k.putLink(device, l)
		}},
		{name: "mark taken off", attack: func(_ *Reconciler, k *fakeKernel) {
			l := vxlan()
			l.Alias = ""
			k.putLink(device, l)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, kernel := nodeOf(peer(0), peer(1), peer(2), byNexthop)
			now := start.Add(time.Minute)

			// Once is no conflict: it is repaired in the same pass, and so is the next time.
			for range 2 {
				tt.attack(r, kernel)
				kernel.notify()
				if got := r.Pass(now); !got.Retry.IsZero() || r.Tables.Pending() != 0 {
					t.Fatalf("first: %+v, %d pending", got, r.Tables.Pending())
				}
				now = now.Add(time.Millisecond)
			}
			calls, end := conflict(r, kernel, now, 10*time.Second, func() { tt.attack(r, kernel) })
			if keys := max(tt.keys, 1); calls >= 60*keys || calls < 20*keys { // at least one each 500 ms: it is not given up
				t.Errorf("%d calls in 10 s", calls)
			}
			healed := recovered(t, r, kernel, end)
			if d := healed.Sub(end); d > maxBackoff || r.Tables.Pending() != 0 {
				t.Errorf("right again %v after the end, %d pending", d, r.Tables.Pending())
			}

			// Left alone, it is without a backoff again and nothing is remembered of it.
			now = healed.Add(retryExpiry + retryExpiry/10 + time.Millisecond)
			r.Pass(now)
			if n := r.Tables.keysInBackoff(); n != 0 {
				t.Errorf("%d keys still have a backoff", n)
			}
			for range 2 {
				tt.attack(r, kernel)
				kernel.notify()
				if got := r.Pass(now); !got.Retry.IsZero() || r.Tables.Pending() != 0 {
					t.Errorf("after retryExpiry: %+v, %d pending", got, r.Tables.Pending())
				}
				now = now.Add(time.Millisecond)
			}
		})
	}
}

// TestFightForTheDevice: what hangs on a device that is deleted all the time is not programmed all the time.
func TestFightForTheDevice(t *testing.T) {
	r, kernel := nodeOf(peer(0), peer(1), byID(peer(2)))
	calls, end := conflict(r, kernel, start.Add(time.Minute), 10*time.Second, func() { kernel.delLink(device) })
	if keys := 1 + 1 + 3 + 3 + 4; calls >= 60*keys || calls < 20*keys {
		t.Errorf("%d calls for %d keys in 10 s", calls, keys)
	}
	if healed := recovered(t, r, kernel, end); healed.Sub(end) > time.Second || r.Tables.Pending() != 0 {
		t.Errorf("right again %v after the end, %d pending", healed.Sub(end), r.Tables.Pending())
	}
}

// TestConflictEndsWithoutPass: a key is without a backoff again after retryExpiry even if no pass in between cleared its backoff.
func TestConflictEndsWithoutPass(t *testing.T) {
	r, kernel := node(1)
	attack := func() { del(kernel, kernel.routes, r.Tables.Routes, peer(0).Routes[0].Key) }
	_, end := conflict(r, kernel, start.Add(time.Minute), time.Second, attack)
	now := recovered(t, r, kernel, end).Add(retryExpiry + time.Millisecond)
	r.Tables.Routes.expired = now // as if expireRetries had just looked, and looks again only later
	for range 2 {
		attack()
		kernel.notify()
		if got := r.Pass(now); got.Repaired != 1 {
			t.Errorf("%+v", got)
		}
		now = now.Add(time.Millisecond)
	}
}

// TestFightDelaysNoOther: while one key is fought over, another is repaired at once.
func TestFightDelaysNoOther(t *testing.T) {
	r, kernel := node(2)
	attack := func() { del(kernel, kernel.routes, r.Tables.Routes, peer(0).Routes[0].Key) }
	_, end := conflict(r, kernel, start.Add(time.Minute), time.Second, attack)
	attack()
	del(kernel, kernel.routes, r.Tables.Routes, peer(1).Routes[0].Key)
	kernel.notify()
	kernel.calls = nil
	got := r.Pass(end)
	checkCalls(t, kernel, "+route "+peer(1).Routes[0].Key.String())
	if got.Retry.IsZero() || r.Tables.Pending() != 1 {
		t.Errorf("%+v, %d pending", got, r.Tables.Pending())
	}
}

// TestFirstProgrammingIsFree: what leases do is not held back, however often they change, and is not remembered.
func TestFirstProgrammingIsFree(t *testing.T) {
	r, kernel := node(1)
	last := peer(0)
	for i := range 100 {
		next := peer(0)
		next.FDB[0].Value.Remote = next.FDB[0].Value.Remote.Next()
		if i%2 == 1 {
			next = peer(0)
		}
		r.Tables.Replace(Owner{Name: "peer"}, last, next)
		last = next
		if got := r.Pass(start); got.Set != 1 || got.Repaired != 0 || r.Tables.Pending() != 0 {
			t.Fatalf("change %d: %+v", i, got)
		}
		kernel.notify()
	}
	if n := r.Tables.keysInBackoff(); n != 0 {
		t.Errorf("%d keys have a backoff", n)
	}
}

// TestBackOff: what fails is tried at growing distances, at most half a second apart, for ever; and a loop that sleeps
// until Retry neither misses an attempt nor wakes for nothing.
func TestBackOff(t *testing.T) {
	for _, kind := range []string{"link", "address", "fdb", "neighbour", "nexthop", "route"} {
		r, kernel := newReconciler()
		kernel.refuse = func(k, _ string) error {
			if k == kind {
				return errors.New("broken")
			}
			return nil
		}
		r.Tables.Replace(self, State{}, nodeState(device, vxlan()))
		r.Tables.Replace(Owner{Name: "peer"}, State{}, byID(peer(0)))
		now := start
		var gaps []time.Duration
		for now.Sub(start) < 10*time.Minute {
			got := r.Pass(now)
			if len(got.Failures) != 1 || got.Failures[0].Kind != kind {
				t.Fatalf("%s, at %v: %+v", kind, now.Sub(start), got)
			}
			gaps = append(gaps, got.Retry.Sub(now))
			if early := r.Pass(got.Retry.Add(-1)); early.Failures != nil || !early.Retry.Equal(got.Retry) {
				t.Fatalf("%s, a nanosecond before the retry is due: %+v", kind, early)
			}
			now = got.Retry
		}
		if !slices.IsSorted(gaps) || gaps[0] != minBackoff || gaps[len(gaps)-1] != maxBackoff {
			t.Errorf("%s: gaps from %v to %v, sorted %t", kind, gaps[0], gaps[len(gaps)-1], slices.IsSorted(gaps))
		}
		kernel.refuse = nil
		if got := r.Pass(now); got.Failures != nil || r.Tables.Pending() != 0 || !got.Retry.IsZero() {
			t.Errorf("%s, once it works: %+v", kind, got)
		}
		r.Pass(now.Add(retryExpiry + time.Millisecond))
		if n := r.Tables.keysInBackoff(); n != 0 {
			t.Errorf("%s: %d keys still have a backoff", kind, n)
		}
	}
}

// TestLinkStirred: a route that could not be set while its interface was away is tried soon after that is back, however long
// it was, and one out of another interface keeps its backoff.
func TestLinkStirred(t *testing.T) {
	r, kernel := newReconciler()
	kernel.links["eth0"], kernel.links["eth1"] = Link{Up: true}, Link{Up: true}
	away := errors.New("network is unreachable")
	kernel.refuse = func(string, string) error { return away }
	back, other := RouteKey{Prefix: prefix("10.5.7.0/24")}, RouteKey{Prefix: prefix("10.5.8.0/24")}
	r.Tables.Routes.Want(Owner{Name: "a"}, back, Route{Link: "eth0", Protocol: RouteProtocol})
	r.Tables.Routes.Want(Owner{Name: "b"}, other, Route{Link: "eth1", Protocol: RouteProtocol})
	now := start
	for now.Sub(start) < 5*time.Second {
		now = r.Pass(now).Retry
	}
	now = now.Add(-maxBackoff + time.Millisecond) // right after an attempt
	r.Tables.RetryOn("eth0")
	if got := r.Pass(now); got.Retry.Sub(now) > retryBackoff {
		t.Fatalf("retry in %v, want %v at the most", got.Retry.Sub(now), retryBackoff)
	} else {
		now = got.Retry
	}
	kernel.refuse = nil
	if got := r.Pass(now); got.Set != 1 || !r.Tables.Routes.Get(back).Present || r.Tables.Routes.Get(other).Present {
		t.Errorf("%+v, want the one route set", got)
	}
}

// TestRetryIsTheNearest: Retry is when the first of several is due.
func TestRetryIsTheNearest(t *testing.T) {
	r, kernel := node(2)
	kernel.refuse = func(string, string) error { return errors.New("broken") }
	del(kernel, kernel.routes, r.Tables.Routes, peer(0).Routes[0].Key)
	kernel.notify()
	first := r.Pass(start)
	del(kernel, kernel.routes, r.Tables.Routes, peer(1).Routes[0].Key)
	kernel.notify()
	second := r.Pass(start.Add(time.Millisecond))
	if !second.Retry.Equal(first.Retry) {
		t.Errorf("retry at %v, want %v", second.Retry, first.Retry)
	}
	third := r.Pass(first.Retry) // the first again, which now waits longer than the second
	if want := start.Add(time.Millisecond + minBackoff); !third.Retry.Equal(want) {
		t.Errorf("retry at %v, want %v", third.Retry, want)
	}
}

// TestNewValueIsTriedAtOnce: what is wanted anew does not wait because what was wanted before failed again and again.
func TestNewValueIsTriedAtOnce(t *testing.T) {
	other := func(last byte) Item[FDBKey, FDB] {
		x := peer(0).FDB[0]
		x.Value.Remote = netip.AddrFrom4([4]byte{192, 0, 2, last})
		return x
	}
	young := Owner{Name: "young", Age: 9}
	for _, tt := range []struct {
		name   string
		change func(*Table[FDBKey, FDB])
		atOnce bool
	}{
		{"the same again", func(t *Table[FDBKey, FDB]) { x := peer(0).FDB[0]; t.Want(Owner{Name: "peer"}, x.Key, x.Value) }, false},
		{"another loses against it", func(t *Table[FDBKey, FDB]) { x := other(8); t.Want(Owner{Name: "later", Age: 20}, x.Key, x.Value) }, false},
		{"a loser goes", func(t *Table[FDBKey, FDB]) { t.Unwant("young", other(7).Key) }, false},
		{"its owner wants another", func(t *Table[FDBKey, FDB]) { x := other(8); t.Want(Owner{Name: "peer"}, x.Key, x.Value) }, true},
		{"a better owner wants another", func(t *Table[FDBKey, FDB]) { x := other(8); t.Want(Owner{Name: "old", Age: -1}, x.Key, x.Value) }, true},
		{"its owner goes, and another is left", func(t *Table[FDBKey, FDB]) { t.Unwant("peer", other(7).Key) }, true},
	} {
		r, kernel := nodeOf(peer(0))
		fdb, key := r.Tables.FDB, other(7).Key
		fdb.Want(young, key, other(7).Value)
		del(kernel, kernel.fdb, fdb, key)
		kernel.notify()
		kernel.refuse = func(string, string) error { return errors.New("broken") }
		now, last, got := start, start, Result{}
		for range 20 {
			last = now
			got = r.Pass(now)
			now = got.Retry
		}
		if wait := fdb.retries[key].At().Sub(last); wait != maxBackoff {
			t.Fatalf("%s: the backoff is %v", tt.name, wait)
		}
		kernel.refuse, kernel.calls = nil, nil
		tt.change(fdb)
		got = r.Pass(now.Add(-1)) // a nanosecond before the next attempt is due
		if got.Set == 1 != tt.atOnce || len(kernel.calls) == 1 != tt.atOnce || got.Retry.IsZero() != tt.atOnce {
			t.Errorf("%s: %+v, %v, want it at once: %t", tt.name, got, kernel.calls, tt.atOnce)
		}
		if got.Repaired != 0 && tt.atOnce {
			t.Errorf("%s: counts as a repair", tt.name)
		}
		if r.Pass(now); kernel.fdb[key] != fdb.Get(key).Want || r.Tables.Pending() != 0 {
			t.Errorf("%s: then it is %+v, wanted %+v", tt.name, kernel.fdb[key], fdb.Get(key).Want)
		}
	}
}

// TestGoneWithTheDevice: what is made again because its device went is no repair and no conflict of its own, however often
// that happens; the device is. What somebody changed for its own sake still is.
func TestGoneWithTheDevice(t *testing.T) {
	r, kernel := nodeOf(peer(0), byID(peer(1)), byID(peer(2)))
	now := start.Add(time.Minute)
	conflicts := 0
	for range 50 {
		kernel.delLink(device)
		kernel.notify()
		got := r.Pass(now)
		kernel.notify()
		if got.Set == 0 && !got.Retry.IsZero() { // the device is not due
			now = got.Retry
			got = r.Pass(now)
			kernel.notify()
		}
		if got.Set != 1+1+3+4+4 || got.Repaired != 1 || r.Tables.Pending() != 0 {
			t.Fatalf("at %v: %+v, %d pending", now.Sub(start), got, r.Tables.Pending())
		}
		for _, f := range got.Conflicts {
			conflicts++
			if f.Kind != "link" {
				t.Fatalf("at %v: a conflict over %+v", now.Sub(start), f)
			}
		}
	}
	if n := r.Tables.keysInBackoff(); n != 1 || conflicts == 0 {
		t.Errorf("%d keys have a backoff, want the device alone; %d conflicts", n, conflicts)
	}

	route := peer(0).Routes[0].Key
	del(kernel, kernel.routes, r.Tables.Routes, route)
	kernel.delNexthop(byID(peer(1)).Nexthops[0].Key) // and its route
	kernel.notify()
	// The route that went along with its nexthop object is none that somebody changed.
	if got := r.Pass(now); got.Set != 3 || got.Repaired != 2 {
		t.Errorf("of their own: %+v", got)
	}
}
