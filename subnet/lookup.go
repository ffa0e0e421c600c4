package subnet

import (
	"net/netip"
	"slices"
)

// Found is a record whose subnet holds an address, see [View.Lookup].
type Found struct {
	Member
	Why error // it is not let in; nil: it is, or it is our own
}

// Lookup returns the records whose subnet holds an address: the one that is let in first, if there is one, then the others
// in the order of their age.
func (v *View) Lookup(a netip.Addr) (found []Found) {
	f := FamilyOf(a)
	v.overlappingPrefix(f, netip.PrefixFrom(a, a.BitLen()), func(at []*entry) bool {
		for _, e := range at {
			found = append(found, Found{e.member(*e.Lease), e.why})
		}
		return true
	})
	slices.SortFunc(found, func(a, b Found) int {
		switch {
		case a.Why == nil && b.Why != nil:
			return -1
		case a.Why != nil && b.Why == nil:
			return 1
		}
		return v.entries[a.Key].compare(v.entries[b.Key])
	})
	return found
}
