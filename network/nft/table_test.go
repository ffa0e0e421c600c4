package nft

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// some are elements of a set that is not the content's.
var some = []Element{{Key: "\xc0\x00\x02\x01"}, {Key: "\xc0\x00\x02\x02"}}

// free returns what is in that set.
func free(t *testing.T, x *Table) (all []netip.Addr) {
	t.Helper()
	list, err := x.Elements("free")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		a, _ := netip.AddrFromSlice([]byte(e.Key))
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// TestEnsure goes from one content to another, back and forth; who comes later finds it right.
func TestEnsure(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	f.AddOthers(name)
	before := f.Listing()
	fewer := content("10.5.0.0/16")
	fewer.Chains[0].Rules = fewer.Chains[0].Rules[:1]
	another := Content{Sets: []Set{{Name: "marks", Key: nftables.TypeMark}}}
	for i, c := range []Content{content("10.5.0.0/16"), content("10.5.0.0/16", "10.0.0.0/9", "11.0.0.0/8"), fewer, content(), another, content("0.0.0.0/0")} {
		if _, ok, err := x.Check(c); ok || err != nil {
			t.Errorf("content %d is there before it was set: %v", i, err)
		}
		for _, want := range []bool{true, false} {
			if changed, err := x.Ensure(c, nil); err != nil || changed != want {
				t.Errorf("content %d: changed %t, %v, want %t", i, changed, err, want)
			}
		}
		if changed, err := newTable(t, ns).Ensure(c, nil); err != nil || changed {
			t.Errorf("content %d, for another one: changed %t, %v", i, changed, err)
		}
		if there, ok, err := x.Check(c); !there || !ok || err != nil {
			t.Errorf("content %d: there %t, right %t, %v", i, there, ok, err)
		}
	}
	for range 2 {
		if err := x.Remove(); err != nil {
			t.Error(err)
		}
		f.Same(before)
	}
	if there, ok, err := x.Check(content()); there || ok || err != nil {
		t.Errorf("after Remove: there %t, right %t, %v", there, ok, err)
	}
}

// TestAlso has the elements of a set that is not the content's be there whenever the rules are.
func TestAlso(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	var asked []bool
	also := func(whole bool) (SetElements, error) {
		asked = append(asked, whole)
		return SetElements{"free": some[:1]}, nil
	}
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, tt := range []struct {
		what  string
		harm  func()
		asked []bool
		want  []netip.Addr
	}{
		{"made", func() {}, []bool{true}, []netip.Addr{first}},
		{"nothing to do", func() {}, nil, []netip.Addr{first}},
		{"another added", func() {
			if err := x.Change(func(t *Transaction) { t.Add(content().Sets[1], some) }); err != nil {
				t.Fatal(err)
			}
		}, nil, []netip.Addr{first, second}},
		{"ranges gone", func() { f.FlushSet(content().Sets[0].In(f.table, 0)) }, nil, []netip.Addr{first, second}},
		{"rules gone", func() { f.FlushTable(f.table) }, []bool{false}, []netip.Addr{first, second}},
		{"one deleted, and who is not there", func() {
			if err := x.Change(func(t *Transaction) { t.Delete(content().Sets[1], some) }); err != nil {
				t.Fatal(err)
			}
		}, nil, nil},
		{"another again", func() {
			if err := x.Change(func(t *Transaction) { t.Add(content().Sets[1], some[1:]) }); err != nil {
				t.Fatal(err)
			}
		}, nil, []netip.Addr{second}},
		{"a chain too many", func() { f.AddChain(&nftables.Chain{Table: f.table, Name: "more"}) }, nil, []netip.Addr{second}},
		{"the set gone", func() {
			for _, chain := range []string{"out", "called"} {
				f.FlushChain(&nftables.Chain{Table: f.table, Name: chain})
			}
			f.DelSet(content().Sets[1].In(f.table, 0))
		}, []bool{true}, []netip.Addr{first}},
		{"something else in the set's place", func() {
			for _, chain := range []string{"out", "called"} {
				f.FlushChain(&nftables.Chain{Table: f.table, Name: chain})
			}
			f.DelSet(content().Sets[1].In(f.table, 0))
			f.Commit()
			_ = f.AddSet(&nftables.Set{Table: f.table, ID: 9, Name: "free", KeyType: nftables.TypeMark}, nil)
		}, []bool{true}, []netip.Addr{first}},
	} {
		tt.harm()
		f.Commit()
		asked = nil
		if _, err := x.Ensure(content("10.5.0.0/16"), also); err != nil || !slices.Equal(asked, tt.asked) {
			t.Errorf("%s: asked %v, want %v; %v", tt.what, asked, tt.asked, err)
		}
		if got := free(t, x); !slices.Equal(got, tt.want) {
			t.Errorf("%s: the set holds %v, want %v", tt.what, got, tt.want)
		}
	}
	f.DelTable(f.table)
	f.Commit()
	failure := errors.New("cannot say")
	if _, err := x.Ensure(content(), func(bool) (SetElements, error) { return nil, failure }); !errors.Is(err, failure) {
		t.Errorf("who cannot say: %v", err)
	}
	if err := x.Change(func(t *Transaction) { t.Add(content().Sets[1], some) }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a table: %v", err)
	}
}

// TestUnsupported asks for what no kernel has.
func TestUnsupported(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	before := f.Listing()
	c := content()
	c.Chains[0].Type = "neverland"
	if _, err := x.Ensure(c, nil); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	f.Same(before)
}

// TestRepair harms the table: it is told, and mended.
func TestRepair(t *testing.T) {
	ns := newNet(t)
	x, f := newTable(t, ns), newForeign(t, ns)
	ctx, cancel := context.WithCancel(t.Context())
	ready, events, done := make(chan struct{}), make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- ns.Do(func() error {
			return x.Watch(ctx, func() { close(ready) }, func() {
				select {
				case events <- struct{}{}:
				default:
				}
			})
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	<-ready
	if _, err := x.Ensure(content("10.5.0.0/16"), nil); err != nil {
		t.Fatal(err)
	}
	out := content().Chains[0]
	for what, harm := range map[string]func(){
		"table deleted":   func() { f.DelTable(f.table) },
		"ruleset flushed": func() { f.FlushRuleset() },
		"table asleep":    func() { f.Sleep(f.table) },
		"chain flushed":   func() { f.FlushChain(out.In(f.table)) },
		"rule deleted":    func() { _ = f.DelRule(f.RulesOf(f.table, "out")[1]) },
		"rule added":      func() { f.Append(out.In(f.table), &expr.Verdict{Kind: expr.VerdictAccept}) },
		"set flushed":     func() { f.FlushSet(content().Sets[0].In(f.table, 0)) },
		"range added": func() {
			_ = f.SetAddElements(content().Sets[0].In(f.table, 0), In(Families()[0].Intervals(prefixes("192.0.2.0/24"))))
		},
		"masquerading not alike": func() {
			r := f.RulesOf(f.table, "out")[3]
			r.Exprs[len(r.Exprs)-1] = &expr.Masq{}
			f.ReplaceRule(r)
		},
		"chain with another policy": func() {
			c := out.In(f.table)
			policy := nftables.ChainPolicyDrop
			c.Policy = &policy
			f.AddChain(c)
		},
	} {
		t.Run(what, func(t *testing.T) {
			f.T = t
			harm()
			f.Commit()
			select {
			case <-events:
			case <-time.After(patient):
				t.Fatal("it is not noticed")
			}
			for _, want := range []bool{true, false} {
				if changed, err := x.Ensure(content("10.5.0.0/16"), nil); err != nil || changed != want {
					t.Errorf("changed %t, %v, want %t", changed, err, want)
				}
			}
		})
	}
	f.T = t
}
