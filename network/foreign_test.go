package network

import (
	"maps"
	"slices"
	"testing"
)

// TestForeignRoutes follows the routes of others from device to device.
func TestForeignRoutes(t *testing.T) {
	tables := NewTables()
	own := RouteKey{Prefix: prefix("10.5.1.0/24")}
	v4, v6 := RouteKey{Prefix: prefix("192.0.2.0/24")}, RouteKey{Prefix: prefix("2001:db8::/32"), Metric: 1024}
	check := func(what, link string, want ...RouteKey) {
		t.Helper()
		got := maps.Collect(tables.ForeignRoutes(link))
		if len(got) != len(want) {
			t.Errorf("%s: %s has %v, want %v", what, link, got, want)
		}
		families := [2]bool{}
		for _, k := range want {
			if have, has := got[k]; !has || have.Link != link || !tables.IsForeignRoute(k) {
				t.Errorf("%s: %s has %+v under %s", what, link, have, k)
			}
			families[k.family()] = true
		}
		if got := tables.RoutesOn(link); got != families {
			t.Errorf("%s: %s has routes of the families %v, want %v", what, link, got, families)
		}
		if !tables.OnlyForeign(link) {
			t.Errorf("%s: something of ours is on %s", what, link)
		}
	}
	check("nothing", "eth0")
	tables.Routes.Observe(v4, Route{Link: "eth0", Protocol: ProtocolBoot})
	tables.Routes.Observe(v6, Route{Link: "eth0", Protocol: ProtocolBoot})
	check("two", "eth0", v4, v6)
	for k := range tables.ForeignRoutes("eth0") {
		tables.Routes.ObserveGone(k)
		break
	}
	if n := len(maps.Collect(tables.ForeignRoutes("eth0"))); n != 1 {
		t.Errorf("%d are left of two, one of which is gone", n)
	}
	tables.Routes.Observe(v4, Route{Link: "eth0", Protocol: ProtocolBoot})
	tables.Routes.Observe(v6, Route{Link: "eth0", Protocol: ProtocolBoot})

	tables.ForeignRoutesMoved("eth0", "wan0")
	check("renamed", "eth0")
	check("renamed", "wan0", v4, v6)

	// A route of ours on the same device ends "only foreign", and is none of these.
	tables.Routes.Observe(own, Route{Link: "wan0", Protocol: RouteProtocol})
	tables.Routes.Want(self, own, Route{Link: "wan0", Protocol: RouteProtocol})
	if tables.OnlyForeign("wan0") || tables.IsForeignRoute(own) {
		t.Error("a desired route is taken for a foreign one")
	}
	if got := tables.RoutesOn("wan0"); got != [2]bool{true, true} {
		t.Errorf("routes of the families %v, want both", got)
	}
	tables.Routes.ObserveGone(v6)
	if got := tables.RoutesOn("wan0"); got != [2]bool{true, false} {
		t.Errorf("routes of the families %v, want IPv4 only", got)
	}

	// What is desired under a foreign route's key makes it ours.
	tables.Routes.Want(self, v4, Route{Link: "wan0", Protocol: RouteProtocol})
	if got := slices.Collect(maps.Keys(maps.Collect(tables.ForeignRoutes("wan0")))); len(got) != 0 || tables.IsForeignRoute(v4) {
		t.Errorf("foreign are still %v", got)
	}
	tables.LinkGone("wan0")
	check("deleted", "wan0")
}
