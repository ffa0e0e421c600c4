package policy

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// interpreter does with a packet what nf_tables would do with the table.
type interpreter struct {
	t     *testing.T
	table Table
}

// allowed runs the base chain of a direction.
func (x interpreter) allowed(p Packet, d Direction) bool {
	own := p.Destination
	if d == Egress {
		own = p.Source
	}
	switch {
	case p.State == Established, p.FromNode, p.ToNode:
		return true
	case own.Is6() && p.Protocol == ICMPv6 && AlwaysAllowed(p.ICMPType):
		return true
	}
	for e := range x.elements(DispatchName(d, subnet.FamilyOf(own)), Dispatch, subnet.FamilyOf(own)) {
		if e.Addr == own {
			outcome := x.chain(p, e.Chain, d, 0)
			return outcome != Drop
		}
	}
	return true
}

// elements returns the elements of a set, which has to have that type.
func (x interpreter) elements(name string, want SetType, f subnet.Family) map[Element]bool {
	s, ok := x.table.Sets[name]
	if !ok || s.Type != want || s.Family != f {
		x.t.Errorf("set %s of family %s is %+v, want type %d", name, f, s, want)
	}
	return x.table.Elements[name]
}

// chain returns Allow, Drop, or Return at the end of the chain.
func (x interpreter) chain(p Packet, name string, d Direction, depth int) Outcome {
	ch := x.table.Chains[name]
	if ch == nil || ch.Direction != d || depth > 8 {
		x.t.Errorf("chain %s of %s is %+v at depth %d", name, d, ch, depth)
		return Drop
	}
	for _, r := range ch.Rules {
		if !x.matches(p, r, d) {
			continue
		}
		outcome := r.Outcome
		if outcome == Jump {
			if outcome = x.chain(p, r.Target, d, depth+1); outcome == Return {
				continue
			}
		}
		return outcome
	}
	return Return
}

func (x interpreter) matches(p Packet, r Rule, d Direction) bool {
	peer := p.Source
	if d == Egress {
		peer = p.Destination
	}
	looksUp := r.Peer != "" || r.Endpoint != "" || r.Loop != ""
	switch {
	case looksUp && subnet.FamilyOf(peer) != r.Family:
		return false
	case r.Loop != "" && (p.Source != p.Destination || !x.elements(r.Loop, Loops, r.Family)[Element{Addr: p.Source}]):
		return false
	case r.Peer != "" && !x.peer(r.Peer, peer):
		return false
	case r.Endpoint != "" && (!p.Protocol.HasPorts() ||
		!x.elements(r.Endpoint, Endpoints, r.Family)[Element{Addr: p.Destination, Protocol: p.Protocol, Port: p.Port}]):
		return false
	case r.Protocol != 0 && r.Protocol != p.Protocol:
		return false
	case r.Invalid && p.State != Invalid:
		return false
	}
	return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q PortRange) bool { return q.First <= p.Port && p.Port <= q.Last })
}

func (x interpreter) peer(set string, a netip.Addr) bool {
	if x.table.Sets[set].Type == Addresses {
		return x.elements(set, Addresses, subnet.FamilyOf(a))[Element{Addr: a}]
	}
	for e := range x.elements(set, Ranges, subnet.FamilyOf(a)) {
		if e.Addr.Compare(a) <= 0 && a.Compare(e.Last) <= 0 {
			return true
		}
	}
	return false
}

// apply applies changes to the table, as nf_tables would: it refuses what the kernel refuses.
func apply(t *testing.T, table Table, c Changes) {
	t.Helper()
	for name, s := range c.Sets {
		have, exists := table.Sets[name]
		switch {
		case s.Name != name || s.Created == exists || exists && have != s.Set || s.Removed && len(s.Add)+len(s.Remove) > 0:
			t.Errorf("change of set %s, which is %+v: %+v", name, have, s)
		case s.Created:
			table.Sets[name], table.Elements[name] = s.Set, map[Element]bool{}
		}
		for _, e := range s.Remove {
			if !table.Elements[name][e] {
				t.Errorf("set %s has no %+v to remove", name, e)
			}
			delete(table.Elements[name], e)
		}
		keys := map[netip.Addr]bool{}
		for e := range table.Elements[name] {
			keys[e.Addr] = true
		}
		for _, e := range s.Add {
			if table.Elements[name][e] || s.Type == Dispatch && keys[e.Addr] {
				t.Errorf("set %s has %+v already", name, e)
			}
			table.Elements[name][e] = true
		}
	}
	for name, ch := range c.Chains {
		if ch == nil {
			delete(table.Chains, name)
		} else {
			table.Chains[name] = ch
		}
	}
	for name, s := range c.Sets {
		if s.Removed {
			delete(table.Sets, name)
			delete(table.Elements, name)
		}
	}
}

// consistent checks that a table refers to what it has, and has nothing that nothing refers to.
func consistent(t *testing.T, table Table) {
	t.Helper()
	used := map[string]bool{}
	for _, s := range fixedSets() {
		used[s.Name] = true
	}
	for name, ch := range table.Chains {
		// A pod may be local and have no address yet: its entry chain is there before.
		if !slices.ContainsFunc(ch.Rules, func(r Rule) bool { return r.Policy != "" }) {
			used[name] = true
		}
		for _, r := range ch.Rules {
			for _, set := range []string{r.Peer, r.Endpoint, r.Loop} {
				if used[set] = true; set != "" && table.Sets[set].Name == "" {
					t.Errorf("chain %s: no set %s", name, set)
				}
			}
			if used[r.Target] = true; r.Target != "" && table.Chains[r.Target] == nil {
				t.Errorf("chain %s: no chain %s", name, r.Target)
			}
		}
	}
	for name := range table.Sets {
		if !used[name] {
			t.Errorf("set %s is not used", name)
		}
		for e := range table.Elements[name] {
			if used[e.Chain] = true; e.Chain != "" && table.Chains[e.Chain] == nil {
				t.Errorf("set %s: no chain %s", name, e.Chain)
			}
		}
	}
	for name := range table.Chains {
		if !used[name] {
			t.Errorf("chain %s is not used", name)
		}
	}
}

// equalTables compares tables, and names the first difference of each kind.
func equalTables(t *testing.T, name string, want, got Table) {
	t.Helper()
	equalMaps(t, name+", sets", want.Sets, got.Sets)
	equalMaps(t, name+", chains", want.Chains, got.Chains)
	equalMaps(t, name+", elements", want.Elements, got.Elements)
}

func equalMaps[V any](t *testing.T, name string, want, got map[string]V) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(want))
	for key := range got {
		keys = append(keys, key)
	}
	for _, key := range keys {
		w, g := want[key], got[key]
		if !reflect.DeepEqual(w, g) {
			t.Errorf("%s, %s: the changes add up to %+v, want %+v", name, key, g, w)
			return
		}
	}
}
