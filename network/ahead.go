package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Ahead is a route of somebody else's that the kernel takes before one of ours: to the same prefix, with a better metric, or to a
// part of it. It is not touched, only told of.
type Ahead struct {
	Key   RouteKey
	Route Route
	Of    netip.Prefix // the prefix of ours
	Owner string       // of ours
}

// String returns "route 10.5.29.0/25 dev br9", with what the kernel takes it for.
func (a Ahead) String() string {
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

// Ahead lists the routes of others that go before ours, in the order of their prefixes. What is not in the tables is not known
// here, see [Table.Observe]: that depends on who feeds them. It costs nothing unless something about these routes has changed.
func (t *Tables) Ahead() []Ahead {
	if !t.aheadStale {
		return t.ahead
	}
	t.ahead, t.aheadStale = nil, false
	for k := range t.foreign {
		if of, ok := t.overtakes(k); ok {
			c := t.Routes.cells[of]
			t.ahead = append(t.ahead, Ahead{k, t.Routes.cells[k].have(), of.Prefix, c.owner.Name})
		}
	}
	slices.SortFunc(t.ahead, func(a, b Ahead) int {
		return cmp.Or(a.Key.Prefix.Compare(b.Key.Prefix), cmp.Compare(a.Key.Metric, b.Key.Metric))
	})
	return t.ahead
}

// overtakes finds the wanted route that a route under k goes before.
func (t *Tables) overtakes(k RouteKey) (of RouteKey, ok bool) {
	for bits := k.Prefix.Bits(); bits > 0; bits-- {
		of.Prefix = netip.PrefixFrom(k.Prefix.Addr(), bits).Masked()
		of.Metric = DefaultMetric(of.Prefix)
		if c := t.Routes.cells[of]; c != nil && c.wanted() {
			return of, bits < k.Prefix.Bits() || k.Metric < of.Metric
		}
	}
	return of, false
}

// routeChanged keeps the set of others' routes up to date.
func (t *Tables) routeChanged(k RouteKey) {
	c := t.Routes.cells[k]
	foreign := c != nil && c.is(present) && !c.wanted() && !t.Routes.ours(k, c.value)
	_, was := t.foreign[k]
	switch {
	case foreign:
		t.foreign[k] = struct{}{}
	case was:
		delete(t.foreign, k)
	}
	t.aheadStale = t.aheadStale || foreign || was || len(t.foreign) > 0
}
