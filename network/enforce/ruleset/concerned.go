package ruleset

import (
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// note remembers what a chain refers to.
func (r *Ruleset) note(ch *policy.Chain) {
	var calls, denies []string
	for _, rule := range ch.Rules {
		switch rule.Outcome {
		case policy.Allow:
		case policy.Jump:
			calls = append(calls, rule.Target)
		case policy.Drop, policy.Return:
			for _, set := range []string{rule.Peer, rule.Endpoint} {
				if set != "" {
					denies = append(denies, set)
				}
			}
		}
	}
	r.calls[ch.Name] = calls
	if delete(r.denies, ch.Name); denies != nil {
		r.denies[ch.Name] = denies
	}
}

// concerned returns the addresses whose connections a change can deny, before it is applied:
//
//   - of pods that get another entry chain, or one of whose chains has other rules;
//   - that leave a set, or enter one that is looked up to deny.
//
// A set that is created or removed belongs to a chain that changes.
func (r *Ruleset) concerned(c policy.Changes) (all []netip.Addr) {
	for _, s := range c.Sets {
		if s.Removed {
			continue
		}
		added := s.Type == policy.Dispatch
		if s.Type == policy.Addresses || s.Type == policy.Endpoints {
			if s.Created {
				continue
			}
			added = len(s.Add) > 0 && r.denying(s.Name)
			for _, e := range s.Remove {
				all = append(all, e.Addr)
			}
		}
		if added {
			for _, e := range s.Add {
				all = append(all, e.Addr)
			}
		}
	}
	changed := map[string]bool{}
	for name, ch := range c.Chains {
		if _, known := r.chains[name]; known && ch != nil {
			changed[name] = true
		}
	}
	if len(changed) == 0 {
		return all
	}
	for name, calls := range r.calls {
		if slices.ContainsFunc(calls, func(to string) bool { return changed[to] }) {
			changed[name] = true
		}
	}
	for _, f := range subnet.Families() {
		for _, d := range policy.Directions() {
			for _, e := range r.sets[policy.DispatchName(d, f)].List.Elements() {
				if changed[e.Verdict.Chain] {
					all = append(all, keyAddress(e))
				}
			}
		}
	}
	return all
}

// Selected returns the addresses of the pods that policies select, in any order. One can be in it twice.
func (r *Ruleset) Selected() (all []netip.Addr) {
	for _, f := range subnet.Families() {
		for _, d := range policy.Directions() {
			for _, e := range r.sets[policy.DispatchName(d, f)].List.Elements() {
				all = append(all, keyAddress(e))
			}
		}
	}
	return all
}

// denying reports whether a set is looked up to do anything but allow.
func (r *Ruleset) denying(set string) bool {
	for _, sets := range r.denies {
		if slices.Contains(sets, set) {
			return true
		}
	}
	return false
}

// keyAddress returns the address that is the key of an element.
func keyAddress(e nft.Element) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(e.Key))
	return a
}
