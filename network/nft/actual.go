package nft

import (
	"bytes"
	"reflect"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// actual is the table in the kernel: as it was read, or as a transaction left it.
type actual struct {
	exists bool
	flags  uint32 // a table of ours has none: it is dormant, or owned by a process
	sets   map[string]*actualSet
	chains map[string]*actualChain
}

// actualSet is a set in the kernel.
type actualSet struct {
	definition definition
	elements   []Element // in normal form; not of external sets
	equal      []Element // a list that was found to be the same
	// list has, or had, the elements, at a version; nil: the elements are above.
	list    *List
	version uint64
}

// known reports whether the set is known to have exactly the desired elements.
func (s *actualSet) known(want Set) bool {
	switch {
	case want.List != nil:
		return s.list == want.List && s.version == want.List.version
	case s.list != nil:
		return false
	case len(want.Elements) == 0:
		return len(s.elements) == 0
	}
	return identical(want.Elements, s.equal)
}

// set notes that the set has the desired elements; normal are those of a set without a List, in normal form.
func (s *actualSet) set(want Set, normal []Element) {
	s.elements, s.equal, s.list = normal, want.Elements, want.List
	if s.list != nil {
		s.elements, s.equal, s.version = nil, nil, s.list.version
	}
}

// actualChain is a chain in the kernel.
type actualChain struct {
	hook   hook
	policy nftables.ChainPolicy
	rules  []RuleInfo // as read
	set    []Rule     // as set by a transaction; then rules is nil
}

// apply brings what we know of the kernel up to date after the transaction of a plan.
func (a *actual) apply(p plan) {
	if p.recreate {
		*a = actual{exists: true, sets: map[string]*actualSet{}, chains: map[string]*actualChain{}}
	}
	for _, name := range p.flush {
		a.chains[name].rules, a.chains[name].set = nil, nil
	}
	for _, name := range p.sets {
		delete(a.sets, name)
	}
	for _, name := range p.chains {
		delete(a.chains, name)
	}
	for _, c := range p.newChains {
		x := a.chains[c.Name]
		if x == nil {
			x = &actualChain{}
			a.chains[c.Name] = x
		}
		x.hook, x.policy = c.hook(), nftables.ChainPolicyAccept
	}
	for _, s := range p.newSets {
		a.sets[s.Name] = &actualSet{definition: s.definition()}
	}
	for _, s := range p.changed {
		a.sets[s.set.Name].set(s.set, s.elements)
		if s.set.List != nil {
			s.set.List.forget()
		}
	}
	for _, c := range p.rules {
		a.chains[c.Name].set = c.Rules
	}
}

// read reads a table without the elements of its sets.
func (c *Conn) read(family nftables.TableFamily, table string) (*actual, error) {
	a, err := c.shape(family, table)
	if err != nil || !a.exists {
		return a, err
	}
	rules, err := c.Rules(family, table, "")
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if x := a.chains[r.Chain]; x != nil { // else the chain was created since we listed the chains
			x.rules = append(x.rules, r)
		}
	}
	return a, nil
}

// shape reads which sets and chains a table has.
func (c *Conn) shape(family nftables.TableFamily, table string) (*actual, error) {
	a := &actual{sets: map[string]*actualSet{}, chains: map[string]*actualChain{}}
	err := c.dump("list the tables", unix.NFT_MSG_GETTABLE, family, nil, func(m []byte) {
		if unix.ByteSliceToString(attr(m, unix.NFTA_TABLE_NAME)) == table {
			a.exists, a.flags = true, number(attr(m, unix.NFTA_TABLE_FLAGS))
		}
	})
	if err != nil || !a.exists {
		return a, err
	}
	sets, err := c.Sets(family, table)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		a.sets[s.Name] = &actualSet{definition: s.definition}
	}
	chains, err := c.chains(family)
	if err != nil {
		return nil, err
	}
	for _, x := range chains {
		if x.Table == table {
			a.chains[x.Name] = &actualChain{
				hook: hook{x.Base, x.Type, uint32(x.Hook), x.Priority}, policy: x.Policy,
			}
		}
	}
	return a, nil
}

// same reports whether the chain has exactly these rules. It remembers a list that has them, to know it by its address.
func (c *actualChain) same(want []Rule) bool {
	if c.set != nil {
		if !identical(want, c.set) && !reflect.DeepEqual(want, c.set) {
			return false
		}
		c.set = want
		return true
	}
	if len(want) != len(c.rules) {
		return false
	}
	for i, w := range want {
		if !w.same(c.rules[i]) {
			return false
		}
	}
	c.set, c.rules = want, nil
	return true
}

// identical reports whether two lists are the same place in memory.
func identical[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// same reports whether the rule in the kernel is the desired one.
func (r Rule) same(have RuleInfo) bool {
	if len(r.Exprs) != len(have.Exprs) || !bytes.Equal(r.userData(), have.userData) {
		return false
	}
	for i, e := range r.Exprs {
		if !have.Exprs[i].is(e) {
			return false
		}
	}
	return true
}

// is reports whether the expression in the kernel is the desired one. The values of counters do not matter.
//
// The library decodes only rules of whole chains, so this decodes into a value of the desired expression's type.
func (e Expression) is(want expr.Any) bool {
	if e.Name != nameOf(want) {
		return false
	}
	switch want := want.(type) {
	case *expr.Counter:
		return true
	case *expr.Verdict:
		code, chain, ok := e.Verdict()
		return ok && expr.VerdictKind(code) == want.Kind && chain == want.Chain
	}
	have := reflect.New(reflect.TypeOf(want).Elem()).Interface().(expr.Any)
	return expr.Unmarshal(byte(nftables.TableFamilyINet), e.data, have) == nil && reflect.DeepEqual(want, have)
}

var kinds sync.Map // the kernel's names of kinds of expressions, by reflect.Type

func nameOf(e expr.Any) string {
	t := reflect.TypeOf(e)
	if name, ok := kinds.Load(t); ok {
		return name.(string)
	}
	b, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
	if err != nil {
		return "" // the name of no expression
	}
	name := decodeExpression(b).Name
	kinds.Store(t, name)
	return name
}
