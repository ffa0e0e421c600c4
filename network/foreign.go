package network

import "iter"

// foreignRoutes are the actual routes that are not selvage's own and that no owner wants. There can be many on a busy
// node, so they are indexed by their devices: what happens to a foreign device costs O(routes on that device).
type foreignRoutes struct {
	routes map[RouteKey]string              // the device of each; empty for none
	on     map[string]map[RouteKey]struct{} // the inverse

	changed map[RouteKey]struct{} // since [Tables.Shadows] was called
	stale   bool                  // what is desired has changed since then
	shadows map[RouteKey]Shadow
	list    []Shadow // the same, in order
}

func newForeignRoutes() foreignRoutes {
	return foreignRoutes{
		routes: map[RouteKey]string{}, on: map[string]map[RouteKey]struct{}{},
		changed: map[RouteKey]struct{}{}, shadows: map[RouteKey]Shadow{},
	}
}

// add notes a foreign route, or that one has changed.
func (f *foreignRoutes) add(k RouteKey, link string) {
	if before, known := f.routes[k]; known && before != link {
		f.drop(k, before)
	}
	f.routes[k], f.changed[k] = link, struct{}{}
	if f.on[link] == nil {
		f.on[link] = map[RouteKey]struct{}{}
	}
	f.on[link][k] = struct{}{}
}

// remove notes that no foreign route is under a key.
func (f *foreignRoutes) remove(k RouteKey) {
	if link, known := f.routes[k]; known {
		f.drop(k, link)
		f.changed[k] = struct{}{}
	}
}

func (f *foreignRoutes) drop(k RouteKey, link string) {
	delete(f.routes, k)
	if delete(f.on[link], k); len(f.on[link]) == 0 {
		delete(f.on, link)
	}
}

// routeChanged keeps the set of foreign routes up to date.
func (t *Tables) routeChanged(k RouteKey) {
	c := t.Routes.cells[k]
	if c != nil && c.is(present) && !c.wanted() && !t.Routes.kind.ours(k, c.value) {
		t.foreign.add(k, c.value.Link)
	} else {
		t.foreign.remove(k)
	}
}

// routeClaimed notes that another route is desired than before, which foreign routes may shadow.
func (t *Tables) routeClaimed() { t.foreign.stale = t.foreign.stale || len(t.foreign.routes) > 0 }

// ForeignRoutes calls yield with each route out of a device that is not selvage's own and not desired, until it returns
// false. yield may change these routes.
func (t *Tables) ForeignRoutes(link string) iter.Seq2[RouteKey, Route] {
	return func(yield func(RouteKey, Route) bool) {
		for k := range t.foreign.on[link] {
			if !yield(k, t.Routes.cells[k].have()) {
				return
			}
		}
	}
}

// IsForeignRoute reports whether the route under a key is not selvage's own and not desired.
func (t *Tables) IsForeignRoute(k RouteKey) bool { _, is := t.foreign.routes[k]; return is }

// ForeignRoutesMoved records that a device that is not selvage's own has another name, and its foreign routes with it.
func (t *Tables) ForeignRoutesMoved(from, to string) {
	for k := range t.foreign.on[from] {
		have := t.Routes.cells[k].have()
		have.Link = to
		t.Routes.Observe(k, have)
	}
}

// OnlyForeign reports whether nothing but foreign routes is known to be on the device of that name, or nothing at all.
func (t *Tables) OnlyForeign(link string) bool {
	n := 0
	for _, k := range t.kinds {
		n += k.countOn(link)
	}
	return n == len(t.foreign.on[link]) && !t.OwnsLink(link) && !t.Tends(link)
}
