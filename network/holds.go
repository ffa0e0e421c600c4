package network

import (
	"fmt"
	"slices"
)

// Holds reports whether the kernel holds all of a state as it says, so far as is known. Where several owners want one thing,
// it can be another's.
func (t *Tables) Holds(s State) bool {
	kind, _ := t.Lacks(s)
	return kind == ""
}

// Lacks names the first thing of a state, in the order in which they are made, that the kernel does not hold as it says: its kind, as in
// [Tables.Counts], and its key. Both are empty if it holds all.
func (t *Tables) Lacks(s State) (kind, key string) {
	lacks(&kind, &key, "vtep", t.VTEPs, s.VTEPs)
	lacks(&kind, &key, "link", t.Links, s.Links)
	lacks(&kind, &key, "address", t.Addresses, s.Addresses)
	lacks(&kind, &key, "fdb", t.FDB, s.FDB)
	lacks(&kind, &key, "neighbour", t.Neighbours, s.Neighbours)
	lacks(&kind, &key, "nexthop", t.Nexthops, s.Nexthops)
	lacks(&kind, &key, "route", t.Routes, s.Routes)
	lacks(&kind, &key, "sysctl", t.Sysctls, s.Sysctls)
	return kind, key
}

func lacks[K, V comparable](kind, key *string, name string, t *Table[K, V], items []Item[K, V]) {
	if *kind != "" {
		return
	}
	for _, x := range items {
		if c := t.Get(x.Key); !c.Present || c.Have != x.Value {
			*kind, *key = name, fmt.Sprint(x.Key)
			return
		}
	}
}

// PendingOwners returns the names of those whose wishes are not all fulfilled. It costs O(what differs).
func (t *Tables) PendingOwners() map[string]struct{} {
	names := map[string]struct{}{}
	pendingOwners(t.VTEPs, names)
	pendingOwners(t.Links, names)
	pendingOwners(t.Addresses, names)
	pendingOwners(t.FDB, names)
	pendingOwners(t.Neighbours, names)
	pendingOwners(t.Nexthops, names)
	pendingOwners(t.Routes, names)
	pendingOwners(t.Sysctls, names)
	return names
}

func pendingOwners[K, V comparable](t *Table[K, V], names map[string]struct{}) {
	for k := range t.dirty {
		c := t.cells[k]
		if !c.wanted() {
			continue
		}
		names[c.owner.Name] = struct{}{}
		for _, x := range c.others() {
			names[x.owner.Name] = struct{}{}
		}
	}
}

// Unwanted names all that is there, selvage's own, and wanted by nobody: "route 10.5.29.0/24", by kind in the order in which it would
// be removed.
func (t *Tables) Unwanted() []string {
	return slices.Concat(
		unwanted("route", t.Routes), unwanted("nexthop", t.Nexthops), unwanted("neighbour", t.Neighbours), unwanted("fdb", t.FDB),
		unwanted("address", t.Addresses), unwanted("device", t.Links), unwanted("vtep", t.VTEPs))
}

func unwanted[K, V comparable](kind string, t *Table[K, V]) (names []string) {
	for k := range t.dirty {
		if !t.cells[k].wanted() {
			names = append(names, fmt.Sprintf("%s %v", kind, k))
		}
	}
	slices.Sort(names)
	return names
}
