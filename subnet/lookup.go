package subnet

import (
	"net/netip"
	"slices"
)

// Found is a record whose subnet contains an address, see [View.Lookup].
type Found struct {
	Record
	Why error // why it is rejected; nil: it is accepted, or our own
}

// Lookup returns the records whose subnet contains an address: first the accepted one, if there is one, then the others
// in the order of their age.
func (v *View) Lookup(a netip.Addr) (found []Found) {
	f := FamilyOf(a)
	v.overlappingPrefix(f, netip.PrefixFrom(a, a.BitLen()), func(at []*entry) bool {
		for _, e := range at {
			found = append(found, Found{v.record(e, e.Lease), e.why})
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
		return v.entries[a.Name].compare(v.entries[b.Name])
	})
	return found
}
