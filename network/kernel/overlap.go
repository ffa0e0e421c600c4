package kernel

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
)

// nearAddress is an address of a foreign device whose subnet overlaps one of the overlay's networks.
type nearAddress struct {
	index  int32
	prefix netip.Prefix
}

// noteNear notes or forgets a foreign device's address. Only the few that overlap the overlay's networks are kept, and
// none of veth pairs: the ptp plugin gives each pod's the gateway's address.
func (k *Kernel) noteNear(m addressMessage, there bool) {
	a := nearAddress{m.index, m.prefix}
	overlaps := func(p netip.Prefix) bool { return p.Overlaps(m.prefix) }
	switch {
	case !there:
		delete(k.near, a)
	case !k.IsVeth(k.links[m.index]) && slices.ContainsFunc(k.networks, overlaps):
		k.near[a] = struct{}{}
	}
}

// Overlapping returns the addresses of foreign devices whose subnets overlap a subnet, in the order of the devices'
// names: not those of the uplink, and of devices that pods depend on.
func (k *Kernel) Overlapping(subnet netip.Prefix) (all []network.AddressKey) {
	for a := range k.near {
		name := k.links[a.index]
		foreign := name != "" && name != k.uplink && !k.tables.OwnsLink(name) && !k.tables.Tends(name)
		if foreign && a.prefix.Overlaps(subnet) {
			all = append(all, network.AddressKey{Link: name, Prefix: a.prefix})
		}
	}
	slices.SortFunc(all, func(a, b network.AddressKey) int {
		return cmp.Or(cmp.Compare(a.Link, b.Link), a.Prefix.Compare(b.Prefix))
	})
	return all
}
