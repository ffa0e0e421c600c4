package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestRouteWaitsForNexthop: a route is not even tried as long as the nexthop object that it is to go by is not there, and
// waits for nothing else.
func TestRouteWaitsForNexthop(t *testing.T) {
	r, kernel := nodeOf(byID(peer(0)))
	bad, good, plain := byID(peer(1)), byID(peer(2)), peer(3)
	broken := errors.New("broken")
	kernel.refuse = func(kind, k string) error {
		if kind == "nexthop" && k == fmt.Sprint(bad.Nexthops[0].Key) {
			return broken
		}
		return nil
	}
	for _, s := range []State{bad, good, plain} {
		s.FDB, s.Neighbours = nil, nil
		r.Tables.Replace(Owner{Name: "peer"}, State{}, s)
	}
	got := r.Pass(start)
	checkCalls(t, kernel,
		fmt.Sprint("+nexthop ", bad.Nexthops[0].Key), fmt.Sprint("+nexthop ", good.Nexthops[0].Key),
		"+route "+good.Routes[0].Key.String(), "+route "+plain.Routes[0].Key.String())
	if len(got.Failures) != 1 || got.Failures[0].Kind != "nexthop" || !errors.Is(got.Failures[0].Err, broken) || r.Tables.Pending() != 2 {
		t.Errorf("%+v, %d pending", got, r.Tables.Pending())
	}
	kernel.notify()

	kernel.refuse = nil
	got = r.Pass(got.Retry)
	checkCalls(t, kernel, fmt.Sprint("+nexthop ", bad.Nexthops[0].Key), "+route "+bad.Routes[0].Key.String())
	if got.Set != 2 || got.Failures != nil || !got.Retry.IsZero() || r.Tables.Pending() != 0 {
		t.Errorf("once it works: %+v, %d pending", got, r.Tables.Pending())
	}
}

// TestRoutesMove: routes that were there before there were nexthop objects come to go by them, and back. Each is replaced
// in place, by way of something that is there; what it went by goes last.
func TestRoutesMove(t *testing.T) {
	r, kernel := node(1)
	plain, moved := peer(0), byID(peer(0))
	id, route := moved.Nexthops[0].Key, plain.Routes[0].Key
	r.Tables.Replace(Owner{Name: "peer"}, plain, moved)
	if got := r.Pass(start); got.Set != 2 || got.Removed+got.Repaired != 0 {
		t.Errorf("there: %+v", got)
	}
	checkCalls(t, kernel, fmt.Sprint("+nexthop ", id), "+route "+route.String())
	kernel.notify()

	r.Tables.Replace(Owner{Name: "peer"}, moved, plain)
	if got := r.Pass(start); got.Set != 1 || got.Removed != 1 || got.Repaired != 0 {
		t.Errorf("back: %+v", got)
	}
	checkCalls(t, kernel, "+route "+route.String(), fmt.Sprint("-nexthop ", id))
	kernel.notify()
	if n := r.Tables.Pending(); n != 0 || kernel.routes[route] != plain.Routes[0].Value || len(kernel.nexthops) != 0 {
		t.Errorf("%d pending; %v", n, kernel.dump())
	}
}

// TestSharedNexthop: routes of two owners go by the same nexthop object, which stays as long as either does.
func TestSharedNexthop(t *testing.T) {
	r, kernel := node(0)
	direct := func(subnet string) State {
		return byID(State{Routes: []Item[RouteKey, Route]{{RouteKey{Prefix: prefix(subnet)},
			Route{Link: device, Gateway: netip.MustParseAddr("192.0.2.7"), Protocol: RouteProtocol, Type: 1}}}})
	}
	one, two := direct("10.5.29.0/24"), direct("10.5.30.0/24")
	r.Tables.Replace(Owner{Name: "one"}, State{}, one)
	r.Tables.Replace(Owner{Name: "two"}, State{}, two)
	r.Pass(start)
	checkCalls(t, kernel, "+nexthop 3221225991", "+route 10.5.29.0/24", "+route 10.5.30.0/24")
	r.Tables.Replace(Owner{Name: "one"}, one, State{})
	r.Pass(start)
	checkCalls(t, kernel, "-route 10.5.29.0/24")
	r.Tables.Replace(Owner{Name: "two"}, two, State{})
	r.Pass(start)
	checkCalls(t, kernel, "-route 10.5.30.0/24", "-nexthop 3221225991")
}

// TestUsedNexthopStays: a nexthop object that nobody wants stays as long as a route goes by it that could not be changed or
// removed. The kernel would remove that route with it, and since it tells of the object alone, the tables would take the
// route for right if it came to be wanted as it was.
func TestUsedNexthopStays(t *testing.T) {
	before := byID(peer(0))
	other := peer(0)
	other.Routes[0].Value.Gateway = other.Routes[0].Value.Gateway.Next()
	for name, next := range map[string]State{"removed": {}, "changed": byID(other), "changed to none": other} {
		r, kernel := nodeOf(before)
		route, id := before.Routes[0].Key, before.Nexthops[0].Key
		broken := true
		kernel.refuse = func(kind, k string) error {
			if broken && kind == "route" && k == route.String() {
				return refused(k)
			}
			return nil
		}
		r.Tables.Replace(Owner{Name: "peer"}, before, next)
		got := r.Pass(start)
		kernel.notify()
		if _, there := kernel.nexthops[id]; len(got.Failures) != 1 || !there || kernel.routes[route] != before.Routes[0].Value {
			t.Errorf("%s, refused: %+v; %v", name, got, kernel.dump())
		}

		r.Tables.Replace(Owner{Name: "peer"}, next, before) // as if nothing had been
		got = r.Pass(got.Retry)
		kernel.notify()
		if kernel.routes[route] != before.Routes[0].Value || r.Tables.Pending() != 0 {
			t.Errorf("%s, and back: %+v, %d pending; %v", name, got, r.Tables.Pending(), kernel.dump())
		}

		r.Tables.Replace(Owner{Name: "peer"}, before, next)
		broken = false
		r.Pass(start.Add(time.Minute))
		kernel.notify()
		if _, there := kernel.nexthops[id]; there || r.Tables.Pending() != 0 {
			t.Errorf("%s, once it works: %d pending; %v", name, r.Tables.Pending(), kernel.dump())
		}
	}
}

// TestSlotTaken: what somebody else has put into a slot that is wanted is replaced, a group too, which cannot be replaced
// in place; in a slot that nobody wants it stays.
func TestSlotTaken(t *testing.T) {
	for _, theirs := range []Nexthop{
		{Link: device, Gateway: netip.MustParseAddr("10.9.0.1"), Protocol: 4},
		{Protocol: 4, Odd: true},
	} {
		s := byID(peer(0))
		id, route := s.Nexthops[0].Key, s.Routes[0].Key
		r, kernel := nodeOf(s)
		kernel.putNexthop(id, theirs)
		kernel.putNexthop(id+1, theirs)
		kernel.notify()
		now := start
		for range 2 { // the group took the route along
			now = now.Add(maxBackoff)
			r.Pass(now)
			kernel.notify()
		}
		if kernel.nexthops[id] != s.Nexthops[0].Value || kernel.routes[route] != s.Routes[0].Value || r.Tables.Pending() != 0 {
			t.Errorf("%+v: %v", theirs, kernel.dump())
		}
		if kernel.nexthops[id+1] != theirs || kernel.touched != nil {
			t.Errorf("%+v: touched %v: %v", theirs, kernel.touched, kernel.dump())
		}
	}
}
