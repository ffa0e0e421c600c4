package network

import (
	"fmt"
	"slices"
)

// Holds reports whether the kernel holds all of a state as it says, so far as is known. Where several owners want one thing,
// it can be another's.
func (t *Tables) Holds(s State) bool {
	return holds(t.VTEPs, s.VTEPs) && holds(t.Links, s.Links) && holds(t.Addresses, s.Addresses) && holds(t.FDB, s.FDB) &&
		holds(t.Neighbours, s.Neighbours) && holds(t.Nexthops, s.Nexthops) && holds(t.Routes, s.Routes) && holds(t.Sysctls, s.Sysctls)
}

func holds[K, V comparable](t *Table[K, V], items []Item[K, V]) bool {
	for _, x := range items {
		if c := t.Get(x.Key); !c.Present || c.Have != x.Value {
			return false
		}
	}
	return true
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
		if !c.wanted {
			continue
		}
		names[c.claim.owner.Name] = struct{}{}
		for _, x := range c.others {
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
		if !t.cells[k].wanted {
			names = append(names, fmt.Sprintf("%s %v", kind, k))
		}
	}
	slices.Sort(names)
	return names
}
