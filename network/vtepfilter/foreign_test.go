package vtepfilter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/nft/nfttest"
)

// foreign is some other program that changes nf_tables in a namespace.
type foreign struct {
	*nfttest.Foreign
	table *nftables.Table // ours
}

func newForeign(t *testing.T, ns *sandbox.Net) *foreign {
	t.Helper()
	return &foreign{nfttest.New(t, ns), &nftables.Table{Name: Table, Family: nftables.TableFamilyINet}}
}

// set is one of our sets.
func (f *foreign) set(name string) *nftables.Set {
	f.T.Helper()
	for _, s := range (Config{}).sets() {
		if s.Name == name {
			return s.In(f.table, 1)
		}
	}
	f.T.Fatalf("there is no set %s", name)
	return nil
}

// chain is one of our chains, at a hook if there is one.
func (f *foreign) chain(name string, hook *nftables.ChainHook) *nftables.Chain {
	return base(name, hook, nil).In(f.table)
}

// TestForeignIsLeftAlone compares all that is in nf_tables before and after, and in between all that is not ours.
func TestForeignIsLeftAlone(t *testing.T) {
	l := newLab(t)
	f := newForeign(t, l.node)
	f.AddOthers(Table)
	before := f.Listing()
	l.ensure(config(), peers())
	if with := f.Listing(); !strings.Contains(with, arrivedChain) || with == before {
		t.Error("a listing does not show our table")
	}
	c := config()
	c.Port, c.Networks = otherPort, prefixes("10.6.0.0/16")
	l.ensure(c, peers())
	l.ensure(config(), peers())
	f.DelChain(f.chain(inputChain, nil))
	f.Commit()
	l.ensure(config(), peers())
	l.whole() // though iptables accepts all to the port
	if err := l.filter.Apply(nil, peers()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := l.filter.Remove(); err != nil {
			t.Error(err)
		}
		f.Same(before)
	}
}

// harm is what somebody does to our table.
type harm struct {
	name string
	do   func(f *foreign)
}

// structural are harms that are for Ensure to repair.
func structural() []harm {
	return []harm{
		{"table deleted", func(f *foreign) { f.DelTable(f.table) }},
		{"ruleset flushed", func(f *foreign) { f.FlushRuleset() }},
		{"table flushed", func(f *foreign) { f.FlushTable(f.table) }},
		{"table asleep", func(f *foreign) { f.Sleep(f.table) }},
		{"rule deleted", func(f *foreign) { _ = f.DelRule(f.RulesOf(f.table, leavingChain)[4]) }},
		{"rule added", func(f *foreign) {
			f.InsertRule(&nftables.Rule{Table: f.table, Chain: f.chain(arrivedChain, nil), Exprs: accept()})
		}},
		{"rule replaced", func(f *foreign) {
			r := f.RulesOf(f.table, arrivedChain)[7]
			r.Exprs = accept()
			f.ReplaceRule(r)
		}},
		{"rule without its comment", func(f *foreign) {
			r := f.RulesOf(f.table, arrivedChain)[1]
			r.UserData = nil
			f.ReplaceRule(r)
		}},
		{"chain with another policy", func(f *foreign) {
			c := f.chain(inputChain, nftables.ChainHookInput)
			policy := nftables.ChainPolicyDrop
			c.Policy = &policy
			f.AddChain(c)
		}},
		{"chain deleted", func(f *foreign) { f.DelChain(f.chain(forwardChain, nil)) }},
		{"chain at another place", func(f *foreign) {
			c := f.chain(inputChain, nftables.ChainHookOutput)
			f.DelChain(c)
			f.AddChain(c)
		}},
		{"chain added", func(f *foreign) {
			c := f.chain("another", nftables.ChainHookInput)
			f.AddChain(c)
			f.AddRule(&nftables.Rule{Table: f.table, Chain: c, Exprs: slices.Concat(udpTo(port), drop())})
		}},
		{"set added", func(f *foreign) {
			_ = f.AddSet(&nftables.Set{Table: f.table, ID: 1, Name: "another", KeyType: nftables.TypeMark}, nil)
		}},
		{"set of another form", func(f *foreign) {
			s := f.set(peersSet(nft.Families()[1]))
			f.FlushTable(f.table)
			f.DelSet(s)
			s.Interval = true
			_ = f.AddSet(s, nft.In(nft.Families()[1].Intervals(prefixes("2001:db8::/32"))))
		}},
		{"set that the library cannot read", func(f *foreign) {
			kind := nftables.TypeMark
			kind.SetNFTMagic(63)
			_ = f.AddSet(&nftables.Set{Table: f.table, ID: 1, Name: "another", KeyType: kind}, nil)
		}},
		{"network taken out", func(f *foreign) { f.FlushSet(f.set(overlaySet(nft.Families()[0]))) }},
		{"prefix allowed", func(f *foreign) {
			_ = f.SetAddElements(f.set(allowSet(nft.Families()[1])), nft.In(nft.Families()[1].Intervals(prefixes("::/1"))))
		}},
		{"device added", func(f *foreign) {
			_ = f.SetAddElements(f.set(devicesSet), []nftables.SetElement{{Key: append([]byte("up0"), make([]byte, 13)...)}})
		}},
		{"rules of several chains", func(f *foreign) {
			f.FlushChain(f.chain(arrivedChain, nil))
			f.AddRule(&nftables.Rule{Table: f.table, Chain: f.chain(inputChain, nil), Exprs: []expr.Any{&expr.Counter{}}})
		}},
	}
}

// ofPeers are harms that a full read shows.
func ofPeers() []harm {
	element := func(a string) []nftables.SetElement {
		return []nftables.SetElement{{Key: netip.MustParseAddr(a).AsSlice()}}
	}
	return []harm{
		{"peer deleted", func(f *foreign) {
			_ = f.SetDeleteElements(f.set(peersSet(nft.Families()[0])), element("192.0.2.2"))
		}},
		{"stranger added", func(f *foreign) {
			_ = f.SetAddElements(f.set(peersSet(nft.Families()[1])), element("2001:db8::3"))
		}},
		{"peers flushed", func(f *foreign) {
			f.FlushSet(f.set(peersSet(nft.Families()[0])))
			f.FlushSet(f.set(peersSet(nft.Families()[1])))
		}},
	}
}
