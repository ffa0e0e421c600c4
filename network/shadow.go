package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Shadow is a foreign route that takes precedence over one of ours: it leads to the same prefix with a better metric,
// or to a part of the prefix. It is never changed, only reported.
type Shadow struct {
	Key   RouteKey
	Route Route
	Of    netip.Prefix // the shadowed prefix
	Owner string       // who wants the shadowed route
}

// String returns the route in the form "route 10.5.29.0/25 via 192.0.2.9 dev br9" or "route blackhole 10.5.29.0/25".
func (a Shadow) String() string {
	text := "route " + a.Key.String()
	if a.Route.Type == Blackhole {
		return "route blackhole " + a.Key.String()
	}
	if a.Route.Gateway.IsValid() {
		text += fmt.Sprintf(" via %s", a.Route.Gateway)
	}
	if a.Route.Link != "" {
		text += " dev " + a.Route.Link
	}
	return text
}

// Shadows lists the foreign routes that shadow ours, in the order of their prefixes. Only routes in the tables are
// considered: who calls [Table.Observe] decides which foreign routes these are. The list is made again only after one
// of these routes has changed.
func (t *Tables) Shadows() []Shadow {
	if !t.shadowsStale {
		return t.shadows
	}
	t.shadows, t.shadowsStale = nil, false
	for k := range t.foreign {
		if of, ok := t.shadowed(k); ok {
			c := t.Routes.cells[of]
			t.shadows = append(t.shadows, Shadow{k, t.Routes.cells[k].have(), of.Prefix, c.owner.Name})
		}
	}
	slices.SortFunc(t.shadows, func(a, b Shadow) int {
		return cmp.Or(a.Key.Prefix.Compare(b.Key.Prefix), cmp.Compare(a.Key.Metric, b.Key.Metric))
	})
	return t.shadows
}

// shadowed finds the desired route that a route under k takes precedence over.
func (t *Tables) shadowed(k RouteKey) (of RouteKey, ok bool) {
	for bits := k.Prefix.Bits(); bits > 0; bits-- {
		of.Prefix = netip.PrefixFrom(k.Prefix.Addr(), bits).Masked()
		of.Metric = DefaultMetric(of.Prefix)
		if c := t.Routes.cells[of]; c != nil && c.wanted() {
			return of, bits < k.Prefix.Bits() || k.Metric < of.Metric
		}
	}
	return of, false
}

// routeChanged keeps the set of foreign routes up to date.
func (t *Tables) routeChanged(k RouteKey) {
	c := t.Routes.cells[k]
	foreign := c != nil && c.is(present) && !c.wanted() && !t.Routes.kind.ours(k, c.value)
	_, was := t.foreign[k]
	switch {
	case foreign:
		t.foreign[k] = struct{}{}
	case was:
		delete(t.foreign, k)
	}
	t.shadowsStale = t.shadowsStale || foreign || was || len(t.foreign) > 0
}
