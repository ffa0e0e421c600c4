package ruleset

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// Flow is one direction of a connection.
type Flow struct {
	Source, Destination netip.AddrPort
	Protocol            policy.Protocol
}

// CutSet returns the name of the set of flows that are cut.
func CutSet(f subnet.Family) string { return "cut-" + nft.Families()[f].Name }

// Cut sets the flows that are denied whatever the policies say. It is for the answers on a connection that has been
// deleted from connection tracking, because policies deny it by now: the next answer would begin a connection in the
// other direction, which may be allowed, and with it all packets of the deleted one.
func (r *Ruleset) Cut(flows []Flow) {
	r.cuts, r.content = [2][]nft.Element{}, nil
	number := func(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
	for _, f := range flows {
		family := subnet.FamilyOf(f.Source.Addr())
		key := nft.Key(f.Source.Addr().AsSlice(), f.Destination.Addr().AsSlice(), []byte{byte(f.Protocol)},
			number(f.Source.Port()), number(f.Destination.Port()))
		r.cuts[family] = append(r.cuts[family], nft.Element{Key: key})
	}
	for _, list := range r.cuts {
		slices.SortFunc(list, compare)
	}
}

// CutIn returns the flows in a set of them.
func CutIn(family subnet.Family, list []nft.Element) (flows []Flow) {
	const port = 4 // the size of a padded field
	size := int(nft.Families()[family].Key.Bytes)
	for _, e := range list {
		key := []byte(e.Key)
		if len(key) != 2*size+3*port {
			continue
		}
		source, _ := netip.AddrFromSlice(key[:size])
		destination, _ := netip.AddrFromSlice(key[size : 2*size])
		key = key[2*size:]
		at := func(a netip.Addr, field int) netip.AddrPort {
			return netip.AddrPortFrom(a, binary.BigEndian.Uint16(key[field*port:]))
		}
		flows = append(flows, Flow{at(source, 1), at(destination, 2), policy.Protocol(key[0])})
	}
	return flows
}

// cutting returns the sets and rules for flows that are cut, if there are any.
func (r *Ruleset) cutting() (sets []nft.Set, rules []nft.Rule) {
	for _, f := range subnet.Families() {
		if len(r.cuts[f]) == 0 {
			continue
		}
		of := nft.Families()[f]
		s := nft.Set{Name: CutSet(f), Key: of.KeyOfFlow(), Elements: r.cuts[f],
			Comment: "answers on connections that policies deny by now"}
		sets = append(sets, s)
		rules = append(rules, r.options.deny(Denial{Direction: policy.Egress, Reason: Cut}, of.OfFlow(s.Name))...)
	}
	return sets, rules
}
