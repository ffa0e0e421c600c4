package nft

import (
	"bytes"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// Content is the desired content of a table, in the order of creation.
type Content struct {
	Sets   []Set
	Chains []Chain
}

// Set is a set of addresses, prefixes or names.
type Set struct {
	Name     string
	Key      nftables.SetDatatype
	Interval bool                  // holds ranges: see [Family.Intervals]
	External bool                  // the caller manages the elements, see [Table.Change]
	Elements []nftables.SetElement // unless External
}

// Chain is a chain with the policy accept. Hook is nil for a chain that is called by another chain.
type Chain struct {
	Name     string
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Rules    []Rule
}

// Rule is a rule. Operators see the comment in "nft list ruleset".
type Rule struct {
	Comment string
	Exprs   []expr.Any
}

// userData encodes the comment as the nft program does.
func (r Rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, "selvage: "+r.Comment)
}

// same reports whether the actual rule is the desired one.
func (r Rule) same(have *nftables.Rule) bool {
	return bytes.Equal(r.userData(), have.UserData) && reflect.DeepEqual(r.Exprs, uncounted(have.Exprs))
}

// uncounted returns the expressions with their counters at zero.
func uncounted(exprs []expr.Any) []expr.Any {
	out := make([]expr.Any, len(exprs))
	for i, e := range exprs {
		if _, ok := e.(*expr.Counter); ok {
			e = &expr.Counter{}
		}
		out[i] = e
	}
	return out
}

// In returns the library's form of the chain in table t.
func (c Chain) In(t *nftables.Table) *nftables.Chain {
	x := &nftables.Chain{Table: t, Name: c.Name}
	if c.Hook != nil {
		policy := nftables.ChainPolicyAccept
		x.Type, x.Hooknum, x.Priority, x.Policy = c.Type, c.Hook, c.Priority, &policy
	}
	return x
}

func (c Chain) same(have *nftables.Chain) bool {
	if have == nil {
		return false
	}
	want := c.In(have.Table)
	return want.Type == have.Type && same(want.Hooknum, have.Hooknum) &&
		same(want.Priority, have.Priority) && same(want.Policy, have.Policy)
}

func same[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// In returns the library's form of the set in table t. The byte order is for the nft program, which shows names by it.
func (s Set) In(t *nftables.Table, id uint32) *nftables.Set {
	x := &nftables.Set{
		Table: t, ID: id, Name: s.Name, KeyType: s.Key, Interval: s.Interval, KeyByteOrder: binaryutil.BigEndian,
	}
	if s.Key == nftables.TypeIFName {
		x.KeyByteOrder = binaryutil.NativeEndian
	}
	return x
}

// definition holds the properties of a set, without its elements.
type definition struct {
	key, length, size                                 uint32
	interval, constant, verdicts, timeout, dyn, joint bool
}

func (s Set) definition() definition {
	return definition{key: s.Key.GetNFTMagic(), length: s.Key.Bytes, interval: s.Interval}
}

func definitionOf(s *nftables.Set) definition {
	return definition{
		key: s.KeyType.GetNFTMagic(), length: s.KeyType.Bytes, size: s.Size,
		interval: s.Interval, constant: s.Constant, verdicts: s.IsMap, timeout: s.HasTimeout, dyn: s.Dynamic,
		joint: s.Concatenation,
	}
}
