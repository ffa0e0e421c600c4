package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// start is when the tests' clocks begin.
var start = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

var self = Owner{Name: "self"}

func newReconciler() (*Reconciler, *fakeKernel) {
	tables := NewTables()
	kernel := newFakeKernel(tables)
	return &Reconciler{Tables: tables}, kernel
}

// node returns a node that is as it should be: its device and n peers.
func node(n int) (*Reconciler, *fakeKernel) {
	var peers []State
	for i := range n {
		peers = append(peers, peer(i))
	}
	return nodeOf(peers...)
}

// nodeOf is [node] with the given peers.
func nodeOf(peers ...State) (*Reconciler, *fakeKernel) {
	r, kernel := newReconciler()
	r.Tables.Replace(self, State{}, nodeState(device, vxlan()))
	for i, s := range peers {
		r.Tables.Replace(Owner{Name: "peer", Age: int64(i)}, State{}, s)
	}
	r.Pass(start)
	kernel.notify()
	kernel.calls = nil
	return r, kernel
}

func checkCalls(t *testing.T, kernel *fakeKernel, want ...string) {
	t.Helper()
	if got := kernel.takeCalls(); !slices.Equal(got, want) {
		t.Errorf("the calls are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestPassOrder(t *testing.T) {
	r, kernel := newReconciler()
	subnet, remote := prefix("10.5.29.0/24"), netip.MustParseAddr("192.0.2.7")
	one := byID(peerState(device, subnet, MAC{2, 1}, remote))
	r.Tables.Replace(Owner{Name: "one"}, State{}, one)
	r.Tables.Replace(self, State{}, nodeState(device, vxlan()))
	got := r.Pass(start)
	checkCalls(t, kernel,
		"+link flannel.1",
		"+address 10.5.0.0/32 dev flannel.1",
		"+fdb 02:01:00:00:00:00 dev flannel.1",
		"+neighbour 10.5.29.0 dev flannel.1",
		"+nexthop 168107264",
		"+route 10.5.29.0/24")
	if got.Set != 6 || got.Removed != 0 || got.Repaired != 0 || got.Failures != nil || !got.Retry.IsZero() {
		t.Errorf("first pass: %+v", got)
	}
	kernel.notify()

	// The node with that subnet gives it up for another and keeps its MAC; a third one comes; the rest is as it was.
	two := byID(peerState(device, prefix("10.5.30.0/24"), MAC{2, 1}, remote))
	three := peerState(device, prefix("10.5.31.0/24"), MAC{2, 3}, remote)
	r.Tables.Replace(Owner{Name: "one"}, one, two)
	r.Tables.Replace(Owner{Name: "three"}, State{}, three)
	got = r.Pass(start)
	checkCalls(t, kernel,
		"+fdb 02:03:00:00:00:00 dev flannel.1",
		"+neighbour 10.5.30.0 dev flannel.1", "+neighbour 10.5.31.0 dev flannel.1",
		"+nexthop 168107520",
		"+route 10.5.30.0/24", "+route 10.5.31.0/24",
		"-route 10.5.29.0/24",
		"-nexthop 168107264",
		"-neighbour 10.5.29.0 dev flannel.1")
	if got.Set != 6 || got.Removed != 3 || got.Repaired != 0 {
		t.Errorf("second pass: %+v", got)
	}
	kernel.notify()

	r.Tables.Replace(Owner{Name: "one"}, two, State{})
	r.Tables.Replace(Owner{Name: "three"}, three, State{})
	r.Tables.Replace(self, nodeState(device, vxlan()), State{})
	// What goes with the device, and is not ours to remove, is known to have gone.
	put(kernel, kernel.addresses, r.Tables.Addresses, AddressKey{device, prefix("fe80::1/64")}, Address{})
	put(kernel, kernel.fdb, r.Tables.FDB, FDBKey{device, MAC{2, 9}}, FDB{Remote: remote})
	kernel.putNexthop(7, Nexthop{Link: device, Protocol: 3})
	linkLocal := RouteKey{Prefix: prefix("fe80::/64"), Metric: 256}
	put(kernel, kernel.routes, r.Tables.Routes, linkLocal, Route{Link: device, Protocol: protocolKernel})
	kernel.notify()
	got = r.Pass(start)
	checkCalls(t, kernel,
		"-route 10.5.30.0/24", "-route 10.5.31.0/24",
		"-nexthop 168107520",
		"-neighbour 10.5.30.0 dev flannel.1", "-neighbour 10.5.31.0 dev flannel.1",
		"-fdb 02:01:00:00:00:00 dev flannel.1", "-fdb 02:03:00:00:00:00 dev flannel.1",
		"-address 10.5.0.0/32 dev flannel.1",
		"-link flannel.1")
	if got.Removed != 9 || r.Tables.Pending() != 0 {
		t.Errorf("last pass: %+v, %d pending", got, r.Tables.Pending())
	}
	if left := kernel.dump(); left != nil {
		t.Errorf("left in the kernel: %v", left)
	}
	for kind, c := range r.Tables.Counts() {
		if c != (Count{Optional: c.Optional}) {
			t.Errorf("left in the tables: %s %+v", kind, c)
		}
	}
}

// TestPassIdle: with nothing to do, a pass asks the kernel for nothing; our own changes coming back as notifications,
// and a full read that finds all as it should be, change nothing about that.
func TestPassIdle(t *testing.T) {
	r, kernel := node(10)
	for _, before := range []func(){func() {}, kernel.notify, kernel.read} {
		before()
		if got := r.Pass(start); got.Set+got.Removed+got.Repaired != 0 || got.Failures != nil || !got.Retry.IsZero() {
			t.Errorf("%+v", got)
		}
		checkCalls(t, kernel)
	}
}

// TestTakenOver: a restart of the daemon, or flannel's own device and entries, costs only what differs.
func TestTakenOver(t *testing.T) {
	_, kernel := node(3)
	flannels := vxlan()
	flannels.Alias = ""
	kernel.links[device] = flannels
	stale := peer(77)
	kernel.fdb[stale.FDB[0].Key] = stale.FDB[0].Value
	kernel.neighbours[stale.Neighbours[0].Key] = stale.Neighbours[0].Value
	staleRoute := stale.Routes[0].Value
	staleRoute.Protocol = 3 // RTPROT_BOOT, as flannel's are
	kernel.routes[stale.Routes[0].Key] = staleRoute
	stale2 := byID(peer(78))
	kernel.nexthops[stale2.Nexthops[0].Key] = stale2.Nexthops[0].Value
	kernel.routes[stale2.Routes[0].Key] = stale2.Routes[0].Value

	r := &Reconciler{Tables: NewTables(), KeepUnwanted: true}
	kernel.serve(r.Tables)
	kernel.read()
	r.Tables.Replace(self, State{}, nodeState(device, vxlan()))
	for i := range 3 {
		r.Tables.Replace(Owner{Name: "peer"}, State{}, peer(i))
	}
	if got := r.Pass(start); got.Set != 1 || got.Repaired != 0 {
		t.Errorf("first pass: %+v", got)
	}
	checkCalls(t, kernel, "+link flannel.1") // for the mark
	r.KeepUnwanted = false
	r.Pass(start)
	checkCalls(t, kernel,
		"-route "+stale.Routes[0].Key.String(), "-route "+stale2.Routes[0].Key.String(),
		fmt.Sprint("-nexthop ", stale2.Nexthops[0].Key),
		"-neighbour "+stale.Neighbours[0].Key.String(),
		"-fdb "+stale.FDB[0].Key.String())
	if n := r.Tables.Pending(); n != 0 {
		t.Errorf("%d pending", n)
	}
}

// TestPeersUnknown: routes that end packets wait until the peers are known, and are set after the routes to these: until
// then, packets go by a route of another program's.
func TestPeersUnknown(t *testing.T) {
	r, kernel := node(0)
	r.PeersUnknown = true
	const peers, ends = 40, 40
	ending := State{}
	for i := range ends {
		ending.Routes = append(ending.Routes, Item[RouteKey, Route]{
			Key:   RouteKey{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 20), Metric: LastMetric},
			Value: Route{Protocol: RouteProtocol, Type: Blackhole},
		})
	}
	kernel.calls = nil
	r.Tables.Replace(Owner{Name: "ends"}, State{}, ending)
	if got := r.Pass(start); got.Set != 0 || len(got.Failures) > 0 || !got.Retry.IsZero() {
		t.Errorf("peers are not known: %+v, want nothing set", got)
	}
	for i := range peers {
		r.Tables.Replace(Owner{Name: fmt.Sprint("peer", i)}, State{}, peer(i))
	}
	r.PeersUnknown = false
	r.Pass(start)
	var routes []bool // in the order in which they were set: it ends packets
	for _, call := range kernel.calls {
		if strings.HasPrefix(call, "+route ") {
			routes = append(routes, strings.Contains(call, "metric"))
		}
	}
	if len(routes) != peers+ends || slices.Contains(routes[:peers], true) || slices.Contains(routes[peers:], false) {
		t.Errorf("routes that end packets: %t, want %d after %d others", routes, ends, peers)
	}
}

func TestKeepUnwanted(t *testing.T) {
	r, kernel := node(2)
	r.KeepUnwanted = true
	r.Tables.Replace(Owner{Name: "peer"}, peer(0), State{})
	r.Tables.Replace(Owner{Name: "peer"}, State{}, peer(2))
	got := r.Pass(start)
	if got.Set != 3 || got.Removed != 0 || !got.Retry.IsZero() || r.Tables.Pending() != 3 {
		t.Errorf("held back: %+v, %d pending", got, r.Tables.Pending())
	}
	r.KeepUnwanted = false
	if got := r.Pass(start); got.Set != 0 || got.Removed != 3 || r.Tables.Pending() != 0 {
		t.Errorf("let go: %+v, %d pending", got, r.Tables.Pending())
	}
	if n := len(kernel.routes); n != 2 {
		t.Errorf("%d routes, want 2", n)
	}
}

// TestFailureStopsNothing: one key of each kind fails, set or removed; all others are done in the same pass.
func TestFailureStopsNothing(t *testing.T) {
	r, kernel := node(6)
	broken := errors.New("broken")
	var bad []string
	for _, i := range []int{3, 8} {
		s := peer(i)
		bad = append(bad, s.FDB[0].Key.String(), s.Neighbours[0].Key.String(), s.Routes[0].Key.String())
	}
	kernel.refuse = func(_, k string) error {
		if slices.Contains(bad, k) {
			return broken
		}
		return nil
	}
	for i := range 6 {
		r.Tables.Replace(Owner{Name: "peer", Age: int64(i)}, peer(i), State{}) // the one owner has all of them
		r.Tables.Replace(Owner{Name: "next"}, State{}, peer(6+i))
	}
	got := r.Pass(start)
	if got.Set != 15 || got.Removed != 15 || len(got.Failures) != 6 || r.Tables.Pending() != 6 {
		t.Errorf("%+v, %d pending", got, r.Tables.Pending())
	}
	var failed []string
	for _, f := range got.Failures {
		failed = append(failed, f.Key)
		if !errors.Is(f.Err, broken) || f.Kind == "" {
			t.Errorf("failure %+v", f)
		}
	}
	slices.Sort(failed)
	slices.Sort(bad)
	if !slices.Equal(failed, bad) {
		t.Errorf("failed: %v, want %v", failed, bad)
	}
	if want := start.Add(minBackoff); !got.Retry.Equal(want) {
		t.Errorf("retry at %v, want %v", got.Retry, want)
	}
	kernel.refuse = nil
	if got := r.Pass(got.Retry); got.Set != 3 || got.Removed != 3 || !got.Retry.IsZero() {
		t.Errorf("once it works: %+v", got)
	}
}

// TestNothingOnWrongDevice: what hangs on our device waits while the device is missing, down or not ours, and calls for
// nothing meanwhile; on somebody else's device of the same name nothing is put, and nothing is removed.
func TestNothingOnWrongDevice(t *testing.T) {
	dummy := Link{Kind: "dummy", MTU: 1500, Up: true}
	otherVXLAN := withVNI(vxlan(), 42)
	otherVXLAN.Alias = ""
	down := vxlan()
	down.Up = false
	for name, instead := range map[string]*Link{"missing": nil, "a dummy": &dummy, "another VXLAN": &otherVXLAN, "down": &down} {
		r, kernel := node(3)
		broken := errors.New("broken")
		kernel.refuse = func(kind, _ string) error {
			if kind == "link" {
				return broken
			}
			return nil
		}
		if name == "down" {
			kernel.putLink(device, down)
		} else {
			kernel.delLink(device)
			if instead != nil {
				kernel.refuse = nil // ErrForeign will do
				kernel.putLink(device, *instead)
				put(kernel, kernel.addresses, r.Tables.Addresses, AddressKey{device, prefix("10.9.0.1/24")}, Address{})
				put(kernel, kernel.fdb, r.Tables.FDB, FDBKey{device, MAC{2, 9}}, FDB{Permanent: true})
				other := NeighbourKey{device, netip.MustParseAddr("10.9.0.2")}
				put(kernel, kernel.neighbours, r.Tables.Neighbours, other, Neighbour{Permanent: true})
				kernel.putNexthop(7, Nexthop{Link: device, Protocol: 3})
				put(kernel, kernel.routes, r.Tables.Routes, RouteKey{Prefix: prefix("10.9.1.0/24")}, Route{Link: device, Protocol: 3})
			}
		}
		kernel.notify()
		before := kernel.dump()
		got := r.Pass(start)
		checkCalls(t, kernel, "+link flannel.1")
		if len(got.Failures) != 1 || got.Retry.IsZero() {
			t.Errorf("%s: %+v", name, got)
		}
		if after := kernel.dump(); !slices.Equal(before, after) {
			t.Errorf("%s: touched:\n%s\nwas\n%s", name, strings.Join(after, "\n"), strings.Join(before, "\n"))
		}

		kernel.refuse = nil
		if instead != nil && name != "down" {
			kernel.delLink(device)
			kernel.notify()
		}
		if got := r.Pass(got.Retry); got.Failures != nil || r.Tables.Pending() != 0 || len(kernel.routes) != 3 {
			t.Errorf("%s, and then not: %+v, %d pending", name, got, r.Tables.Pending())
		}
	}
}

// TestRemadeDevice: a device that has to be made anew, because its VNI changes, has all that hung on it again after the
// same pass.
func TestRemadeDevice(t *testing.T) {
	r, kernel := node(3)
	next := withVNI(vxlan(), 2)
	r.Tables.Replace(self, nodeState(device, vxlan()), nodeState(device, next))
	if got := r.Pass(start); got.Set != 11 || got.Removed+got.Repaired != 0 || r.Tables.Pending() != 0 {
		t.Errorf("%+v, %d pending", got, r.Tables.Pending())
	}
	kernel.notify() // of the old one going and the new one coming, in this order
	if n := r.Tables.Pending(); n != 0 || kernel.links[device] != next {
		t.Errorf("%d pending, %+v", n, kernel.links[device])
	}
	kernel.calls = nil
	r.Pass(start.Add(time.Second))
	checkCalls(t, kernel)
}

// TestRenamedDevice: a device that somebody renamed gets its name back, with what hangs on it.
func TestRenamedDevice(t *testing.T) {
	r, kernel := node(3)
	kernel.rename(device, "somehow")
	kernel.notify()
	if got := r.Pass(start); got.Failures != nil || got.Removed != 0 {
		t.Errorf("%+v", got)
	}
	kernel.notify()
	if n := r.Tables.Pending(); n != 0 || len(kernel.links) != 1 || len(kernel.fdb) != 3 || len(kernel.routes) != 3 {
		t.Errorf("%d pending; %v", n, kernel.dump())
	}
	kernel.calls = nil
	r.Pass(start.Add(time.Second))
	checkCalls(t, kernel)
}

// TestRenamedDeviceInBackoff: while the name waits for its next attempt, the device is not removed as one that nobody wants.
func TestRenamedDeviceInBackoff(t *testing.T) {
	r, kernel := node(3)
	kernel.rename(device, "somehow")
	kernel.refuse = func(_, key string) error {
		if key == device {
			return errDown
		}
		return nil
	}
	kernel.notify()
	retry := r.Pass(start).Retry
	checkCalls(t, kernel, "+link flannel.1")
	kernel.refuse = nil
	if got := r.Pass(start); got.Retry != retry {
		t.Errorf("%+v, want the next attempt at %v", got, retry)
	}
	checkCalls(t, kernel)
	r.Pass(retry)
	kernel.notify()
	if n := r.Tables.Pending(); n != 0 || len(kernel.links) != 1 || len(kernel.routes) != 3 {
		t.Errorf("%d pending; %v", n, kernel.dump())
	}
}

func TestRepaired(t *testing.T) {
	r, kernel := node(4)
	del(kernel, kernel.routes, r.Tables.Routes, peer(0).Routes[0].Key)
	put(kernel, kernel.fdb, r.Tables.FDB, peer(1).FDB[0].Key, FDB{Remote: netip.MustParseAddr("192.0.2.99"), Permanent: true})
	put(kernel, kernel.fdb, r.Tables.FDB, FDBKey{device, MAC{2, 99}}, FDB{Permanent: true})
	kernel.notify()
	r.Tables.Replace(Owner{Name: "next"}, State{}, peer(9))
	if got := r.Pass(start); got.Set != 5 || got.Repaired != 2 || got.Removed != 1 || got.Failures != nil {
		t.Errorf("%+v", got)
	}
}

// TestVTEPFirst: a peer is let in before anything is sent to it, and shut out last.
func TestVTEPFirst(t *testing.T) {
	r, kernel := node(0)
	s := peer(0)
	remote := s.FDB[0].Value.Remote
	s.VTEPs = []Item[netip.Addr, VTEP]{{Key: remote}}
	other := State{VTEPs: s.VTEPs} // of the same address
	for _, step := range []struct {
		owner      string
		last, next State
		want       []string
	}{
		{"one", State{}, s, []string{"+vtep 172.16.0.0", "+fdb 02:01:00:00:00:00 dev flannel.1", "+neighbour 10.64.0.0 dev flannel.1", "+route 10.64.0.0/32"}},
		{"two", State{}, other, nil},
		{"one", s, State{}, []string{"-route 10.64.0.0/32", "-neighbour 10.64.0.0 dev flannel.1", "-fdb 02:01:00:00:00:00 dev flannel.1"}},
		{"two", other, State{}, []string{"-vtep 172.16.0.0"}},
	} {
		r.Tables.Replace(Owner{Name: step.owner}, step.last, step.next)
		r.Pass(start)
		kernel.notify()
		checkCalls(t, kernel, step.want...)
	}
	put(kernel, kernel.vteps, r.Tables.VTEPs, remote, VTEP{}) // somebody else's doing, in a table that is ours
	kernel.notify()
	r.Pass(start.Add(time.Minute))
	checkCalls(t, kernel, "-vtep 172.16.0.0")
}
