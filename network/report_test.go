package network

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestHolds breaks a node with two peers entry by entry: the peer of that entry is not held any more, and pending.
func TestHolds(t *testing.T) {
	r, kernel := newReconciler()
	states := map[string]State{"self": nodeState(device, vxlan()), "one": byID(peer(1)), "two": peer(2)}
	for name, s := range states {
		r.Tables.Replace(Owner{Name: name}, State{}, s)
	}
	r.Pass(start)
	kernel.notify()
	expect := func(what string, broken ...string) {
		t.Helper()
		for name, s := range states {
			if got, want := r.Tables.Holds(s), !slices.Contains(broken, name); got != want {
				t.Errorf("%s: holds %s: %t, want %t", what, name, got, want)
			}
		}
		if got := slices.Sorted(maps.Keys(r.Tables.PendingOwners())); !slices.Equal(got, broken) {
			t.Errorf("%s: pending %q, want %q", what, got, broken)
		}
	}
	expect("all is well")

	// Traffic does not depend on the fast path.
	optional := State{FastPeers: []Item[netip.Prefix, FastPeer]{{Key: netip.MustParsePrefix("10.5.9.0/24")}}}
	r.Tables.Replace(Owner{Name: "fast path"}, State{}, optional)
	if kind, key := r.Tables.Lacks(optional); kind != "" || r.Tables.Counts()["fast-peer"].Pending != 1 {
		t.Errorf("lacks %s %s", kind, key)
	}
	r.Tables.Replace(Owner{Name: "fast path"}, optional, State{})
	one := states["one"]
	for what, breaks := range map[string]func(){
		"route":     func() { r.Tables.Routes.ObserveGone(one.Routes[0].Key) },
		"nexthop":   func() { r.Tables.Nexthops.ObserveGone(one.Nexthops[0].Key) },
		"neighbour": func() { r.Tables.Neighbours.ObserveGone(one.Neighbours[0].Key) },
		"fdb":       func() { r.Tables.FDB.Observe(one.FDB[0].Key, FDB{Remote: one.FDB[0].Value.Remote}) },
	} {
		breaks()
		expect(what, "one")
		if got := r.Pass(start); got.Repaired != 1 || len(got.Repairs) != 1 || got.Repairs[0].Kind != what || got.Repairs[0].Count != 1 {
			t.Errorf("%s: %+v", what, got)
		}
		expect(what + " repaired")
	}
	// What nobody wants, and what two want.
	foreign := FDBKey{Link: device, MAC: MAC{2, 9}}
	r.Tables.FDB.Observe(foreign, FDB{Permanent: true})
	expect("something that nobody wants")
	r.Pass(start)
	r.Tables.Routes.Want(Owner{Name: "three", Age: 9}, one.Routes[0].Key, Route{Link: device, Protocol: RouteProtocol, Type: Unicast})
	expect("a claim that loses")
	r.Tables.Routes.ObserveGone(one.Routes[0].Key)
	expect("what two want is gone", "one", "three")
}

// TestRepairs counts what is repaired by kind and cause.
func TestRepairs(t *testing.T) {
	r, kernel := node(3)
	for i := range 3 {
		s := peer(i)
		r.Tables.Routes.ObserveGone(s.Routes[0].Key)
		delete(kernel.routes, s.Routes[0].Key)
	}
	mac := peer(0).FDB[0]
	r.Tables.FDB.Observe(mac.Key, FDB{Remote: mac.Value.Remote, Permanent: true, Odd: true})
	got := r.Pass(start).Repairs
	want := []Repair{
		{Kind: "fdb", Cause: "changed", Key: mac.Key.String(), Count: 1},
		{Kind: "route", Cause: "missing", Count: 3},
	}
	for i := range got {
		if got[i].Count > 1 {
			got[i].Key = "" // whichever was first
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestUnwanted names what a node has when nothing is wanted any more.
func TestUnwanted(t *testing.T) {
	r, _ := nodeOf(byID(peer(0)))
	if got := r.Tables.Unwanted(); len(got) != 0 {
		t.Errorf("unwanted of a node that is as it should be: %q", got)
	}
	r.Tables.Replace(self, nodeState(device, vxlan()), State{})
	r.Tables.Replace(Owner{Name: "peer"}, byID(peer(0)), State{})
	var kinds []string
	for _, name := range r.Tables.Unwanted() {
		kind, _, _ := strings.Cut(name, " ")
		kinds = append(kinds, kind)
	}
	if want := []string{"route", "nexthop", "neighbour", "fdb", "address", "link"}; !slices.Equal(slices.Compact(kinds), want) {
		t.Errorf("unwanted, by kind: %q, want %q", kinds, want)
	}
	r.Pass(start)
	if got := r.Tables.Unwanted(); len(got) != 0 {
		t.Errorf("unwanted after a pass: %q", got)
	}
}

func TestCompare(t *testing.T) {
	tables := NewTables()
	route := Item[RouteKey, Route]{Key: RouteKey{Prefix: prefix("10.5.29.0/24")}, Value: Route{Link: "eth0", Type: Unicast, Protocol: RouteProtocol}}
	address := Item[AddressKey, Address]{Key: AddressKey{Link: "flannel.1", Prefix: prefix("10.5.1.0/32")}}
	s := State{Routes: []Item[RouteKey, Route]{route}, Addresses: []Item[AddressKey, Address]{address}}
	const want, other = "ip route replace 10.5.29.0/24 dev eth0 proto 83", "ip route replace 10.5.29.0/24 dev eth9 proto 83"
	compare := func(what string, actual []string, inSync bool) {
		t.Helper()
		got := tables.Compare(s)
		if len(got) != 2 || got[0].Kind != "route" || got[1].Kind != "address" { // routes first
			t.Fatalf("%s: %+v", what, got)
		}
		if r := got[0]; !slices.Equal(r.Desired, []string{want}) || !slices.Equal(r.Actual, actual) || r.InSync != inSync {
			t.Errorf("%s: %+v", what, r)
		}
	}
	compare("missing", nil, false)
	foreign := route.Value
	foreign.Link = "eth9"
	tables.Routes.Observe(route.Key, foreign)
	compare("different", []string{other}, false)
	tables.Routes.Observe(route.Key, route.Value)
	compare("in sync", []string{want}, true)
}
