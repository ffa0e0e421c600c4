package filter

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/subnet"
)

// Table is the name of our table of nf_tables, of family inet, in the default scope.
const Table = "selvage"

const postroutingChain = "postrouting"

// The names of a family's sets.
func networksSet(f nft.Family) string { return "networks-" + f.Name }
func ownSet(f nft.Family) string      { return "own-" + f.Name }

// content returns the desired table: the rules of [masqueradeRules], with sets where iptables needs one rule for each
// network. It is empty if p asks for no masquerading. No chain accepts forwarded packets: an accept would not override
// a drop in another table.
func (p Policy) content() (c nft.Content) {
	if !p.Masquerade || len(p.Networks) == 0 {
		return nft.Content{}
	}
	rules := []nft.Rule{{Comment: "left to kube-proxy", Exprs: slices.Concat(markedByKubeProxy(), returns())}}
	for _, f := range nft.Families() {
		c.Sets = append(c.Sets,
			nft.Set{Name: networksSet(f), Key: f.Key, Interval: true, Elements: f.Intervals(p.Networks)},
			nft.Set{Name: ownSet(f), Key: f.Key, Interval: true, Elements: f.Intervals(p.Own)})
		if !slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return nft.FamilyOf(n.Addr()) == f }) {
			continue
		}
		masquerade := []expr.Any{&expr.Counter{}, &expr.Masq{FullyRandom: p.RandomFully}}
		rules = append(rules,
			nft.Rule{Comment: "inside the overlay",
				Exprs: slices.Concat(f.From(networksSet(f)), f.To(networksSet(f)), returns())},
			nft.Rule{Comment: "to a pod of this node",
				Exprs: slices.Concat(f.To(ownSet(f)), returns())},
			nft.Rule{Comment: "leaves the overlay",
				Exprs: slices.Concat(f.From(networksSet(f)), f.NotTo(multicastOf(f)), masquerade)},
			nft.Rule{Comment: "enters the overlay, so that replies return here",
				Exprs: slices.Concat(f.NotFrom(networksSet(f)), f.To(networksSet(f)), masquerade)})
	}
	c.Chains = []nft.Chain{{
		Name: postroutingChain, Type: nftables.ChainTypeNAT,
		Hook: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Rules: rules,
	}}
	return c
}

// markedByKubeProxy matches packets that KUBE-POSTROUTING masquerades.
func markedByKubeProxy() []expr.Any {
	mark := binaryutil.NativeEndian.PutUint32(0x4000)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1,
			Len: 4, Mask: slices.Clone(mark), Xor: make([]byte, 4),
		},
		nft.Equals(mark...),
	}
}

func returns() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

func multicastOf(f nft.Family) netip.Prefix {
	if f.Proto == unix.NFPROTO_IPV6 {
		return multicast(subnet.IPv6)
	}
	return multicast(subnet.IPv4)
}

// tableName is the name of the table in the scope with a tag.
func tableName(tag string) string { return network.Tagged(Table, tag) }

// ensureTable brings the table in sync with p in one transaction, or removes it.
func (k *Keeper) ensureTable(p Policy) (changed []string, err error) {
	want := p.content()
	exists, inSync, err := k.table.Check(want)
	what := ""
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the table inet %s: %w", tableName(p.Tag), err)
	case len(want.Chains) == 0 && !exists, len(want.Chains) > 0 && inSync:
		return nil, nil
	case len(want.Chains) == 0:
		what, err = "removed table inet "+tableName(p.Tag), k.table.Remove()
	default:
		what = "created table inet " + tableName(p.Tag)
		if exists {
			what = "updated table inet " + tableName(p.Tag)
		}
		_, err = k.table.Ensure(want, nil)
	}
	if err != nil {
		return nil, err
	}
	return []string{what}, nil
}
