package ruleset

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// ClosedSet returns the name of the set of closed addresses.
func ClosedSet(f subnet.Family) string { return "closed-" + nft.Families()[f].Name }

// Closed returns the table that denies all connections of addresses: of pods that run before their rules are in the
// kernel. It is a table of its own, since it must be possible to close a pod while nothing is known of policies, and
// the policies' table must not be changed. Its base chains are as those of the policies' table.
func Closed(o Options, addresses []netip.Addr) nft.Content {
	c := nft.Content{Chains: o.shared()}
	keys := [2]map[string]bool{{}, {}}
	for _, a := range addresses {
		keys[subnet.FamilyOf(a)][string(a.AsSlice())] = true
	}
	egress, ingress := always(), always()
	for _, f := range subnet.Families() {
		of := nft.Families()[f]
		set := nft.Set{Name: ClosedSet(f), Key: of.Key, Comment: "pods whose rules are not in the kernel yet"}
		for _, key := range slices.Sorted(maps.Keys(keys[f])) {
			set.Elements = append(set.Elements, nft.Element{Key: key})
		}
		c.Sets = append(c.Sets, set)
		egress = append(egress, o.deny(Denial{Direction: policy.Egress, Reason: NoRulesYet}, of.From(set.Name))...)
		ingress = append(ingress, o.deny(Denial{Direction: policy.Ingress, Reason: NoRulesYet}, of.To(set.Name))...)
	}
	c.Chains = append(c.Chains, base(egressChain, priority, egress...), base(ingressChain, priority, ingress...))
	return c
}

// ClosedIn returns the addresses in a set of closed addresses.
func ClosedIn(list []nft.Element) (addresses []netip.Addr) {
	for _, e := range list {
		if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok {
			addresses = append(addresses, a)
		}
	}
	return addresses
}
