package nft

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// randomly makes changes to a list, and to a map that has the same: keys with the chains of their verdicts. Many are so
// many that they are merged.
func randomly(r *rand.Rand, l *List, want map[string]string, many bool) {
	var add, remove []Element
	element := func(key string) Element { return Element{Key: key, Verdict: jump(want[key])} }
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if n := r.IntN(12); n == 0 || many && n < 6 {
			remove = append(remove, element(key))
			delete(want, key)
		}
	}
	for range 1 + r.IntN(3) + map[bool]int{true: 30}[many] {
		key := string(address(r.IntN(40)))
		if _, there := want[key]; !there || r.IntN(4) == 0 { // some get another verdict
			want[key] = []string{"pod-0", "pod-1", "pod-2"}[r.IntN(3)]
			add = slices.DeleteFunc(add, func(e Element) bool { return e.Key == key })
			add = append(add, element(key))
		}
	}
	slices.SortFunc(add, Element.compare)
	l.Change(add, remove)
}

// TestList compares a list with a map, and what it says has changed with what has.
func TestList(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	l, want := &List{}, map[string]string{}
	before, version := map[string]string{}, uint64(0)
	for step := range 5000 {
		randomly(r, l, want, r.IntN(20) == 0)
		list := l.Elements()
		if !slices.IsSortedFunc(list, Element.compare) || len(list) != len(want) {
			t.Fatalf("seed %d, step %d: %+v, want %+v", seed, step, list, want)
		}
		for _, e := range list {
			if want[e.Key] != e.Verdict.Chain {
				t.Fatalf("seed %d, step %d: %+v, want %+v", seed, step, list, want)
			}
		}
		if r.IntN(3) > 0 {
			continue
		}
		add, remove, ok := l.since(version)
		if !ok {
			t.Fatalf("seed %d, step %d: the changes are not known", seed, step)
		}
		for _, e := range remove {
			if before[e.Key] != e.Verdict.Chain {
				t.Fatalf("seed %d, step %d: %q is removed, which was not there", seed, step, e.Key)
			}
			delete(before, e.Key)
		}
		for _, e := range add {
			if _, there := before[e.Key]; there {
				t.Fatalf("seed %d, step %d: %q is added, which was there", seed, step, e.Key)
			}
			before[e.Key] = e.Verdict.Chain
		}
		if !maps.Equal(before, want) {
			t.Fatalf("seed %d, step %d: the changes lead to %+v, want %+v", seed, step, before, want)
		}
		version = l.version
		if l.forget(); r.IntN(2) == 0 {
			if add, remove, ok := l.since(version); len(add)+len(remove) > 0 || !ok {
				t.Fatalf("seed %d, step %d: nothing has changed, and %v, %v, %t", seed, step, add, remove, ok)
			}
		}
	}
	for range 5000 {
		randomly(r, l, want, false)
	}
	if _, _, ok := l.since(version); ok || len(l.log) > len(want)+maxLog {
		t.Errorf("a log of %d changes is kept", len(l.log))
	}
}

// TestMirrorList keeps a set and a map with lists in sync, whatever happens: changes before the table is brought in
// sync, too many to remember, another list, external changes.
func TestMirrorList(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	ns := newNet(t)
	m, f := newMirror(t, ns), newForeign(t, ns)
	c := policyContent(3)
	at := len(c.Sets) - 1 // the map of pods
	c.Sets = slices.Clone(c.Sets)
	c.Sets[at].Elements, c.Sets[at].List = nil, &List{}
	want := map[string]string{}
	for step := range 300 {
		switch n := r.IntN(20); {
		case n == 0:
			c.Sets[at].List, want = &List{}, map[string]string{}
		case n == 1:
			c.Sets[at].List.log = nil
		case n == 2 && len(want) > 0: // the kernel does not notify when an empty set is flushed
			f.FlushSet(c.Sets[at].In(f.table, 0))
			f.Commit()
			select {
			case <-m.events:
			case <-time.After(patient):
				t.Fatal("it is not noticed")
			}
		}
		for range r.IntN(4) {
			randomly(r, c.Sets[at].List, want, r.IntN(10) == 0)
		}
		if _, err := m.Ensure(c); err != nil {
			t.Fatalf("seed %d, step %d: %v", seed, step, err)
		}
		have, err := m.table.Elements(c.Sets[at].Name)
		if err != nil || !slices.Equal(normal(have), c.Sets[at].List.Elements()) || len(have) != len(want) {
			t.Fatalf("seed %d, step %d: %v, want %v; %v", seed, step, have, want, err)
		}
		m.ensure(t, c, false)
	}
}

// BenchmarkMirrorList adds an element to a list, and removes it, among many.
func BenchmarkMirrorList(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := newMirror(b, newNet(b))
			c := policyContent(1000)
			list := many(n)
			c.Sets[2].Elements, c.Sets[2].List = nil, &List{}
			c.Sets[2].List.Change(list, nil)
			m.ensure(b, c, true)
			b.ReportAllocs()
			for b.Loop() {
				c.Sets[2].List.Change(nil, list[n/2:n/2+1])
				m.ensure(b, c, true)
				c.Sets[2].List.Change(list[n/2:n/2+1], nil)
				m.ensure(b, c, true)
			}
		})
	}
}
