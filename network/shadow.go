package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Shadow is a foreign route that takes precedence over one of ours, or over the way to this node's pods: it leads to
// the same prefix with a better metric, or to a part of the prefix. It is never changed, only reported.
type Shadow struct {
	Key   RouteKey
	Route Route
	Of    netip.Prefix // the shadowed prefix
	Own   bool         // it is the node's own subnet, or a part of it
	Owner string       // who wants the shadowed route; empty: no one, as no pod was started yet
}

// String returns the route in the form "route 10.5.29.0/25 via 192.0.2.9 dev br9" or "route blackhole 10.5.29.0/25".
func (a Shadow) String() string {
	text := "route " + routeType(a.Route.Type) + a.Key.String()
	if a.Route.Gateway.IsValid() {
		text += fmt.Sprintf(" via %s", a.Route.Gateway)
	}
	if a.Route.Link != "" {
		text += " dev " + a.Route.Link
	}
	return text
}

// Command returns the command that removes the route.
func (a Shadow) Command() string {
	return "ip route del " + strings.TrimPrefix(a.String(), "route ")
}

// OwnSubnets names the node's own subnets: a foreign route into one of them is a [Shadow] even while no pod was
// started.
func (t *Tables) OwnSubnets(subnets [2]netip.Prefix) {
	t.foreign.stale = t.foreign.stale || t.ownSubnets != subnets
	t.ownSubnets = subnets
}

// Shadows lists the foreign routes that shadow ours: those to the node's own pods first, then in the order of their
// prefixes. Only routes in the tables are considered: who calls [Table.Observe] decides which foreign routes these are.
// A foreign route that was added or deleted since the last call costs O(1); all of them are judged again only after
// what is desired has changed.
func (t *Tables) Shadows() []Shadow {
	f := &t.foreign
	again := len(f.changed) > 0
	if f.stale {
		again = true
		f.stale = false
		clear(f.shadows)
		for k := range f.routes {
			t.judgeShadow(k)
		}
	} else {
		for k := range f.changed {
			t.judgeShadow(k)
		}
	}
	clear(f.changed)
	if !again {
		return f.list
	}
	rank := func(x Shadow) int {
		if x.Own {
			return 0
		}
		return 1
	}
	f.list = slices.SortedFunc(maps.Values(f.shadows), func(a, b Shadow) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Key.Prefix.Compare(b.Key.Prefix),
			cmp.Compare(a.Key.Metric, b.Key.Metric))
	})
	return f.list
}

// judgeShadow notes whether the foreign route under a key shadows one of ours.
func (t *Tables) judgeShadow(k RouteKey) {
	delete(t.foreign.shadows, k)
	if _, is := t.foreign.routes[k]; !is {
		return
	}
	have := t.Routes.cells[k].have()
	if of, owner, ok := t.shadowed(k, have); ok {
		holds := func(p netip.Prefix) bool { return p.IsValid() && p.Contains(of.Addr()) }
		own := slices.ContainsFunc(t.ownSubnets[:], holds)
		t.foreign.shadows[k] = Shadow{k, have, of, own, owner}
	}
}

// shadowed finds the prefix of the desired route that a foreign route takes precedence over, and who wants that route.
// The node's own subnet needs no desired route: the bridge that a first pod brings will have one.
func (t *Tables) shadowed(k RouteKey, have Route) (of netip.Prefix, owner string, ok bool) {
	if have.Protocol == protocolKernel && (t.OwnsLink(have.Link) || t.Tends(have.Link)) {
		return of, "", false // an address of our own device, or of a pods' bridge
	}
	for bits := k.Prefix.Bits(); bits > 0; bits-- {
		of = netip.PrefixFrom(k.Prefix.Addr(), bits).Masked()
		part := bits < k.Prefix.Bits()
		for _, metric := range []uint32{DefaultMetric(of), ConnectedMetric(of)} {
			if c := t.Routes.cells[RouteKey{of, metric}]; c != nil && c.wanted() {
				return of, c.owner.Name, part || k.Metric < metric
			}
		}
		if slices.Contains(t.ownSubnets[:], of) {
			// Of two routes with one metric the first takes precedence: the bridge's will be added behind this one.
			connected := have.Protocol == protocolKernel
			return of, "", part || !connected && k.Metric <= ConnectedMetric(of)
		}
	}
	return of, "", false
}
