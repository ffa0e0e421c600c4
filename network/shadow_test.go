package network

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestAhead looks which routes of others go before those to peers.
func TestAhead(t *testing.T) {
	r, _ := node(3)
	key4 := RouteKey{Prefix: prefix("10.5.29.0/24")}
	t4 := Item[RouteKey, Route]{key4, Route{Link: device, Protocol: RouteProtocol, Type: Unicast}}
	key6 := RouteKey{Prefix: prefix("fd00:5:0:9::/64"), Metric: 1024}
	t6 := Item[RouteKey, Route]{key6, Route{Link: device, Protocol: RouteProtocol, Type: Unicast}}
	r.Tables.Replace(Owner{Name: "six"}, State{}, State{Routes: []Item[RouteKey, Route]{t4, t6}})
	theirs := Route{Link: "br9", Protocol: 4, Type: Unicast}
	half := RouteKey{Prefix: prefix("10.5.29.128/25")}
	for _, tt := range []struct {
		name string
		key  RouteKey
		is   Route
		want string
	}{
		{"a part of a subnet", half, theirs, "route " + half.Prefix.String() + " dev br9"},
		{"a part of it, whatever the metric", RouteKey{half.Prefix, 5000}, theirs, "route " + half.Prefix.String() + " metric 5000 dev br9"},
		{"the same with a worse metric", RouteKey{key4.Prefix, 100}, theirs, ""},
		{"the whole network", RouteKey{Prefix: prefix("10.0.0.0/8")}, theirs, ""},
		{"elsewhere", RouteKey{Prefix: prefix("192.0.2.0/25")}, theirs, ""},
		{"a better metric", RouteKey{key6.Prefix, 256}, Route{Link: "br9", Protocol: protocolKernel, Type: Unicast}, "route fd00:5:0:9::/64 metric 256 dev br9"},
		{"a worse one", RouteKey{key6.Prefix, 2048}, theirs, ""},
		{"a blackhole", half, Route{Protocol: 4, Type: Blackhole}, "route blackhole " + half.Prefix.String()},
		{"ours, left behind", half, Route{Link: "br9", Protocol: RouteProtocol, Type: Unicast}, ""},
	} {
		r.Tables.Routes.Observe(tt.key, tt.is)
		var got []string
		for _, a := range r.Tables.Shadows() {
			got = append(got, a.String())
		}
		if want := slices.DeleteFunc([]string{tt.want}, func(s string) bool { return s == "" }); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tt.name, got, want)
		}
		r.Tables.Routes.ObserveGone(tt.key)
		if got := r.Tables.Shadows(); len(got) != 0 {
			t.Errorf("%s, gone again: %v", tt.name, got)
		}
	}
	// It depends on what is wanted as well.
	r.Tables.Routes.Observe(RouteKey{key6.Prefix, 256}, theirs)
	if got := r.Tables.Shadows(); len(got) != 1 || got[0].Owner != "six" || got[0].Of != key6.Prefix {
		t.Errorf("%+v, want one of six", got)
	}
	r.Tables.Replace(Owner{Name: "six"}, State{Routes: []Item[RouteKey, Route]{t6}}, State{})
	if got := r.Tables.Shadows(); len(got) != 0 {
		t.Errorf("%+v where nothing is wanted", got)
	}
}

// TestOwnShadowsFirst: routes that keep packets from the node's own pods are listed before those to peers: the status
// has the first few.
func TestOwnShadowsFirst(t *testing.T) {
	r, _ := node(3)
	key := RouteKey{Prefix: prefix("10.5.29.0/24")}
	want := Item[RouteKey, Route]{key, Route{Link: device, Protocol: RouteProtocol, Type: Unicast}}
	r.Tables.Replace(Owner{Name: "peer"}, State{}, State{Routes: []Item[RouteKey, Route]{want}})
	r.Tables.OwnSubnets([2]netip.Prefix{prefix("10.5.30.0/24")})
	for _, p := range []string{"10.5.29.0/25", "10.5.30.128/25", "10.5.30.0/25"} {
		r.Tables.Routes.Observe(RouteKey{Prefix: prefix(p)}, Route{Link: "br9", Protocol: 4, Type: Unicast})
	}
	var got []string
	for _, x := range r.Tables.Shadows() {
		got = append(got, x.Key.Prefix.String())
	}
	if want := []string{"10.5.30.0/25", "10.5.30.128/25", "10.5.29.0/25"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestAttribute: a repair and a conflict name who caused them, if that is known.
func TestAttribute(t *testing.T) {
	r, _ := node(3)
	routes := r.Tables.Routes
	var keys []RouteKey
	for k := range routes.All {
		keys = append(keys, k)
	}
	change := func(who string, k RouteKey) {
		r.Tables.Attribute(who)
		routes.ObserveGone(k)
		r.Tables.Attribute("")
	}
	repairs := func(what, by string, count int) {
		t.Helper()
		if got := r.Pass(start).Repairs; len(got) != 1 || got[0].By != by || got[0].Count != count {
			t.Errorf("%s: %+v, want %d by %q", what, got, count, by)
		}
	}
	change("pid 1 (one)", keys[0])
	change("pid 1 (one)", keys[1])
	repairs("one", "pid 1 (one)", 2)
	change("", keys[2])
	repairs("nobody knows", "", 1)
	r, _ = node(3)
	routes = r.Tables.Routes
	change("pid 1 (one)", keys[0])
	change("pid 2 (two)", keys[1])
	repairs("two", "", 2)
	if len(routes.changedBy) != 0 {
		t.Errorf("%v is kept of what is right", routes.changedBy)
	}
	now := start
	for range 20 {
		change("pid 3 (three)", keys[2])
		now = now.Add(maxBackoff)
		got := r.Pass(now)
		if len(got.Conflicts) > 0 {
			if got.Conflicts[0].By != "pid 3 (three)" {
				t.Errorf("conflict %+v", got.Conflicts[0])
			}
			return
		}
		now = now.Add(-maxBackoff + 5*time.Millisecond)
	}
	t.Error("no conflict")
}
