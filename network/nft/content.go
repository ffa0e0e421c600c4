package nft

import (
	"bytes"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// Content is all that a table is to hold, in the order in which it is made.
type Content struct {
	Sets   []Set
	Chains []Chain
}

// Set is a set of addresses, prefixes or names.
type Set struct {
	Name     string
	Key      nftables.SetDatatype
	Interval bool                  // of ranges: see [Family.Intervals]
	Others   bool                  // who keeps the table sees to the elements
	Elements []nftables.SetElement // if not so
}

// Chain is a chain that accepts what its rules do not decide on. Hook is nil for one that is called by another.
type Chain struct {
	Name     string
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Rules    []Rule
}

// Rule is a rule; the comment is for an operator.
type Rule struct {
	Comment string
	Exprs   []expr.Any
}

// userData is the comment as the nft program writes and shows it.
func (r Rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, "selvage: "+r.Comment)
}

// same reports whether a rule reads as it is to be.
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

// In returns the chain as the library has it, in a table.
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
	return want.Type == have.Type && same(want.Hooknum, have.Hooknum) && same(want.Priority, have.Priority) && same(want.Policy, have.Policy)
}

func same[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// In returns the set as the library has it, in a table. The byte order is for the nft program, which shows names by it.
func (s Set) In(t *nftables.Table, id uint32) *nftables.Set {
	x := &nftables.Set{Table: t, ID: id, Name: s.Name, KeyType: s.Key, Interval: s.Interval, KeyByteOrder: binaryutil.BigEndian}
	if s.Key == nftables.TypeIFName {
		x.KeyByteOrder = binaryutil.NativeEndian
	}
	return x
}

// definition is what can be told of a set but for its elements.
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
		interval: s.Interval, constant: s.Constant, verdicts: s.IsMap, timeout: s.HasTimeout, dyn: s.Dynamic, joint: s.Concatenation,
	}
}
