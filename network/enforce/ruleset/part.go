package ruleset

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"

	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet"
)

// Part returns what of the table decides about packets of a pod in a direction: the base chain, the chain to which the
// map leads the pod's address, all that these refer to. chain is empty if the map does not have the address. The next
// Apply does not change the part.
func (r *Ruleset) Part(d policy.Direction, a netip.Addr) (part nft.Content, chain string) {
	dispatch := r.sets[policy.DispatchName(d, subnet.FamilyOf(a))].List.Elements()
	if i := slices.IndexFunc(dispatch, func(e nft.Element) bool { return keyAddress(e) == a }); i >= 0 {
		chain = dispatch[i].Verdict.Chain
	}
	whole := r.Content()
	chains, sets := map[string]bool{}, map[string]bool{}
	for queue := []string{baseChain(d), chain}; len(queue) > 0; queue = queue[1:] {
		i := slices.IndexFunc(whole.Chains, func(c nft.Chain) bool { return c.Name == queue[0] })
		if i < 0 || chains[queue[0]] {
			continue
		}
		chains[queue[0]] = true
		part.Chains = append(part.Chains, whole.Chains[i])
		queue = append(queue, refers(whole.Chains[i], sets)...)
	}
	for _, s := range whole.Sets {
		if sets[s.Name] {
			if s.List != nil {
				s.Elements, s.List = slices.Clone(s.List.Elements()), nil
			}
			part.Sets = append(part.Sets, s)
		}
	}
	return part, chain
}

// baseChain returns the name of the base chain of a direction.
func baseChain(d policy.Direction) string {
	if d == policy.Egress {
		return egressChain
	}
	return ingressChain
}

// refers returns the chains to which a chain's rules jump, and adds the sets that they look up.
func refers(c nft.Chain, sets map[string]bool) (chains []string) {
	for _, rule := range c.Rules {
		for _, e := range rule.Exprs {
			switch e := e.(type) {
			case *expr.Lookup:
				sets[e.SetName] = true
			case *expr.Verdict:
				chains = append(chains, e.Chain)
			}
		}
	}
	return chains
}
