package nft

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/nftables/expr"
)

// many returns elements of a set of addresses, protocols and ports.
func many(n int) (list []Element) {
	for i := range n {
		list = append(list, Element{Key: Key(address(i), []byte{6}, port(80))})
	}
	return list
}

func change(b *testing.B, x *Table, gather func(*Transaction)) {
	b.Helper()
	if err := x.Change(gather); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkChangeOne adds an element to a set that holds many, and removes it: two transactions.
func BenchmarkChangeOne(b *testing.B) {
	f := Families()[0]
	verdict := expr.Verdict{Kind: expr.VerdictAccept}
	for _, kind := range []struct {
		name string
		set  Set
	}{
		{"hash", Set{Name: "set", Key: f.KeyWithPort(), External: true}},
		{"map", Set{Name: "set", Key: f.KeyWithPort(), Verdicts: true, External: true}},
		{"ranges", Set{Name: "set", Key: f.KeyWithPort(), Interval: true, External: true}},
	} {
		for _, n := range []int{100, 10_000, 100_000} {
			if kind.name == "ranges" && n > 10_000 {
				continue // minutes
			}
			b.Run(fmt.Sprintf("%s/%d", kind.name, n), func(b *testing.B) {
				x := newTable(b, newNet(b))
				list := many(n + 1)
				for i := range list {
					list[i].Verdict = verdict
				}
				_, err := x.Ensure(Content{Sets: []Set{kind.set}}, func(bool) (SetElements, error) {
					return SetElements{"set": list[1:]}, nil
				})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					change(b, x, func(t *Transaction) { t.Add(kind.set, list[:1]) })
					change(b, x, func(t *Transaction) { t.Remove(kind.set, list[:1]) })
				}
			})
		}
	}
}

// BenchmarkChangeMany adds 10,000 elements to a set in one transaction, and removes them in another.
func BenchmarkChangeMany(b *testing.B) {
	x := newTable(b, newNet(b))
	set := Set{Name: "set", Key: Families()[0].KeyWithPort(), External: true}
	if _, err := x.Ensure(Content{Sets: []Set{set}}, nil); err != nil {
		b.Fatal(err)
	}
	list := many(10_000)
	b.ReportAllocs()
	for b.Loop() {
		change(b, x, func(t *Transaction) { t.Add(set, list) })
		change(b, x, func(t *Transaction) { t.Remove(set, list) })
	}
}

// BenchmarkElements reads 10,000 elements.
func BenchmarkElements(b *testing.B) {
	x := newTable(b, newNet(b))
	set := Set{Name: "set", Key: Families()[0].KeyWithPort(), Elements: many(10_000)}
	if _, err := x.Ensure(Content{Sets: []Set{set}}, nil); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if list, err := x.Elements("set"); err != nil || len(list) != 10_000 {
			b.Fatal(len(list), err)
		}
	}
}

// contents is a table of pods, and the same one with a change. Lists that do not differ are shared.
func contents(pods, elements int, change func(c *Content)) (c [2]Content) {
	c[0] = policyContent(pods)
	c[0].Sets[2].Elements = many(elements)
	c[1] = Content{Sets: slices.Clone(c[0].Sets), Chains: slices.Clone(c[0].Chains)}
	change(&c[1])
	return c
}

// benchmarkMirror goes from one content to the other and back.
func benchmarkMirror(b *testing.B, c [2]Content) {
	m := newMirror(b, newNet(b))
	m.ensure(b, c[1], true)
	b.ReportAllocs()
	for b.Loop() {
		m.ensure(b, c[0], true)
		m.ensure(b, c[1], true)
	}
}

// BenchmarkMirrorElement adds an element to a set, and removes it, among many sets and chains.
func BenchmarkMirrorElement(b *testing.B) {
	for _, size := range []struct{ pods, elements int }{{100, 100}, {1000, 100}, {1000, 10_000}, {1000, 100_000}} {
		b.Run(fmt.Sprintf("%dsets/%delements", size.pods, size.elements), func(b *testing.B) {
			benchmarkMirror(b, contents(size.pods, size.elements, func(c *Content) {
				c.Sets[2].Elements = slices.Clone(c.Sets[2].Elements[1:])
			}))
		})
	}
}

// BenchmarkMirrorPod adds a pod with a chain, a set and an element of the map, and removes it, among many.
func BenchmarkMirrorPod(b *testing.B) {
	for _, pods := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			benchmarkMirror(b, contents(pods, 100, func(c *Content) {
				last := len(c.Sets) - 1
				c.Sets[last].Elements = c.Sets[last].Elements[:pods-1]
				c.Sets = slices.Delete(c.Sets, last-2, last-1)
				c.Chains = slices.Delete(c.Chains, pods, pods+1)
			}))
		})
	}
}

// BenchmarkNothing looks at a table of 1,000 sets and chains that is in sync.
func BenchmarkNothing(b *testing.B) {
	for _, kind := range []string{"mirror", "resync"} {
		b.Run(kind, func(b *testing.B) {
			m := newMirror(b, newNet(b))
			c := policyContent(1000)
			m.ensure(b, c, true)
			b.ReportAllocs()
			for b.Loop() {
				if kind == "resync" {
					m.Resync()
				}
				m.ensure(b, c, false)
			}
		})
	}
}

// BenchmarkMirrorRepair repairs a table of 1,000 sets and chains after another process flushed one of them.
func BenchmarkMirrorRepair(b *testing.B) {
	for _, kind := range []string{"set", "chain"} {
		b.Run(kind, func(b *testing.B) {
			ns := newNet(b)
			m, f := newMirror(b, ns), newForeign(b, ns)
			c := policyContent(1000)
			m.ensure(b, c, true)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if kind == "set" {
					f.FlushSet(c.Sets[500].In(f.table, 0))
				} else {
					f.FlushChain(c.Chains[500].In(f.table))
				}
				f.Commit()
				<-m.events
				b.StartTimer()
				m.ensure(b, c, true)
			}
		})
	}
}
