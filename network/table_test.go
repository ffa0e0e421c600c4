package network

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// model is a Table written the naive way: nothing is kept up to date, everything is worked out when it is asked for.
type model struct {
	claims  map[int]map[string]modelClaim // by key and owner
	have    map[int]int
	seen    map[int]bool // observed since the last Mark
	settled map[int]bool // was right at some time since this value has been wanted
	ours    func(k, v int) bool
}

type modelClaim struct {
	owner Owner
	value int
}

// ranked returns who wants k, best first.
func (m *model) ranked(k int) []modelClaim {
	return slices.SortedFunc(maps.Values(m.claims[k]), func(a, b modelClaim) int {
		grace := func(o Owner) int {
			if o.Grace {
				return 1
			}
			return 0
		}
		return cmp.Or(
			cmp.Compare(grace(a.owner), grace(b.owner)),
			cmp.Compare(a.owner.Age, b.owner.Age),
			cmp.Compare(a.owner.Name, b.owner.Name))
	})
}

func (m *model) change(k int) Change[int] {
	var c Change[int]
	if r := m.ranked(k); len(r) > 0 {
		c.Want, c.Wanted = r[0].value, true
	}
	c.Have, c.Present = m.have[k], false
	_, c.Present = m.have[k]
	return c
}

func (m *model) differs(k int) bool {
	c := m.change(k)
	if c.Wanted {
		return !c.Present || c.Have != c.Want
	}
	return c.Present && m.ours(k, c.Have)
}

// settle brings settled up to date after a step before which k's change was before.
func (m *model) settle(k int, before Change[int]) {
	now := m.change(k)
	if !now.Wanted || !before.Wanted || before.Want != now.Want {
		m.settled[k] = false
	}
	if now.Wanted && !m.differs(k) {
		m.settled[k] = true
	}
}

const modelKeys = 6

// step does one thing at random to both, and returns what it was.
func (m *model) step(r *rand.Rand, t *Table[int, int]) string {
	k, v := r.IntN(modelKeys), r.IntN(4)
	o := Owner{Name: string(rune('a' + r.IntN(4))), Grace: r.IntN(3) == 0, Age: int64(r.IntN(3))}
	even := func(k int) bool { return k%2 == 0 }
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		if m.claims[k] == nil {
			m.claims[k] = map[string]modelClaim{}
		}
		m.claims[k][o.Name] = modelClaim{o, v}
		t.Want(o, k, v)
		return fmt.Sprintf("Want(%+v, %d, %d)", o, k, v)
	case 4, 5:
		delete(m.claims[k], o.Name)
		t.Unwant(o.Name, k)
		return fmt.Sprintf("Unwant(%s, %d)", o.Name, k)
	case 6, 7, 8:
		m.have[k], m.seen[k] = v, true
		t.Observe(k, v)
		return fmt.Sprintf("Observe(%d, %d)", k, v)
	case 9:
		delete(m.have, k)
		t.ObserveGone(k)
		return fmt.Sprintf("ObserveGone(%d)", k)
	case 10:
		along := func(k, v int) bool { return even(k + v) }
		for k, v := range m.have {
			if along(k, v) {
				delete(m.have, k)
				m.settled[k] = false
			}
		}
		t.cascadeGone(along)
		return "cascadeGone(even sum)"
	default:
		t.Mark()
		clear(m.seen)
		for k := range m.have { // a full read that finds some
			if r.IntN(2) == 0 {
				m.have[k], m.seen[k] = v, true
				t.Observe(k, v)
			}
		}
		maps.DeleteFunc(m.have, func(k, _ int) bool { return !m.seen[k] && even(k) })
		t.Sweep(even)
		return fmt.Sprintf("Mark, Observe(%v, %d), Sweep(even)", slices.Sorted(maps.Keys(m.seen)), v)
	}
}

// check compares everything that the table tells with the model.
func (m *model) check(t *testing.T, table *Table[int, int]) {
	t.Helper()
	all, pending := map[int]Change[int]{}, map[int]Change[int]{}
	losers := map[string]int{}
	var want Count
	for k := range modelKeys {
		c := m.change(k)
		if got := table.Get(k); got != c {
			t.Errorf("Get(%d) = %+v, want %+v", k, got, c)
		}
		if c.Wanted || c.Present {
			all[k] = c
		}
		if m.differs(k) {
			pending[k] = c
		}
		switch differs := m.differs(k); {
		case c.Wanted && differs:
			want.Wanted, want.Pending = want.Wanted+1, want.Pending+1
		case c.Wanted:
			want.Wanted, want.Present = want.Wanted+1, want.Present+1
		case differs: // and so ours
			want.Present, want.Unwanted = want.Present+1, want.Unwanted+1
		}
		for i, x := range m.ranked(k) {
			if i > 0 {
				losers[fmt.Sprint(k, x.owner)]++
			}
		}
		if cell := table.cells[k]; cell != nil && cell.is(settled) != m.settled[k] {
			t.Errorf("key %d is settled: %t, want %t", k, cell.is(settled), m.settled[k])
		}
	}
	collect := func(name string, seq func(func(int, Change[int]) bool), want map[int]Change[int]) {
		t.Helper()
		got := map[int]Change[int]{}
		for k, c := range seq {
			if _, twice := got[k]; twice {
				t.Errorf("%s visits %d twice", name, k)
			}
			got[k] = c
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s visits %v, want %v", name, got, want)
		}
	}
	collect("All", table.All, all)
	collect("Pending", table.Pending, pending)
	gotLosers := map[string]int{}
	for k, o := range table.Losers {
		gotLosers[fmt.Sprint(k, o)]++
	}
	if !maps.Equal(gotLosers, losers) {
		t.Errorf("Losers visits %v, want %v", gotLosers, losers)
	}
	if got := table.Counts(); got != want {
		t.Errorf("Counts() = %+v, want %+v", got, want)
	}
	if n := table.PendingCount(); n != len(pending) {
		t.Errorf("PendingCount() = %d, want %d", n, len(pending))
	}
	if len(table.cells) != len(all) {
		t.Errorf("%d cells for %d keys that say something", len(table.cells), len(all))
	}
}

// TestTableAgainstModel takes a Table and its model through the same random steps.
func TestTableAgainstModel(t *testing.T) {
	ours := func(k, v int) bool { return (k+v)%3 == 0 }
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := &model{map[int]map[string]modelClaim{}, map[int]int{}, map[int]bool{}, map[int]bool{}, ours}
		table := newTable(kind[int, int]{ours: ours})
		var steps []string
		for range 60 {
			before := make([]Change[int], modelKeys)
			for k := range before {
				before[k] = m.change(k)
			}
			steps = append(steps, m.step(r, table))
			for k := range before {
				m.settle(k, before[k])
			}
			if m.check(t, table); t.Failed() {
				t.Fatalf("seed %d, after\n%v", seed, slices.Clip(steps))
			}
		}
	}
}

// TestTableForgetsEverything: what was wanted and is not any more, and what was there and is not any more, leaves nothing
// behind, so that a daemon that sees leases come and go for years does not grow.
func TestTableForgetsEverything(t *testing.T) {
	table := newTable(kind[int, int]{ours: func(int, int) bool { return true }})
	for k := range 1000 {
		for _, o := range []Owner{{Name: "a"}, {Name: "b", Grace: true}, {Name: "c", Age: -1}} {
			table.Want(o, k, k)
		}
		table.Observe(k, k+k%2)
	}
	for k := range 1000 {
		for _, o := range []string{"c", "a", "b", "a"} {
			table.Unwant(o, k)
		}
		table.ObserveGone(k)
		table.ObserveGone(k)
	}
	if len(table.cells) != 0 || len(table.dirty) != 0 || len(table.retries) != 0 {
		t.Errorf("left: %d cells, %d dirty, %d in backoff", len(table.cells), len(table.dirty), len(table.retries))
	}
	if c := table.Get(1); c != (Change[int]{}) {
		t.Errorf("Get of what is unknown = %+v", c)
	}
}

// TestClaims takes one key through what happens when a node gives up its subnet and another, or itself, takes it over.
func TestClaims(t *testing.T) {
	old, heir, late := Owner{Name: "old", Age: 5}, Owner{Name: "heir", Age: 9}, Owner{Name: "late", Age: 12}
	oldInGrace := Owner{Name: "old", Age: 5, Grace: true}
	table := newTable(kind[int, string]{ours: func(int, string) bool { return true }})
	for _, step := range []struct {
		name   string
		do     func()
		want   string
		losers []string
	}{
		{"the first one gets it", func() { table.Want(old, 1, "old") }, "old", nil},
		{"who comes later does not", func() { table.Want(heir, 1, "heir") }, "old", []string{"heir"}},
		{"live takes precedence over grace, whatever the age", func() { table.Want(oldInGrace, 1, "old") }, "heir", []string{"old"}},
		{"also if the live one is the youngest of all", func() { table.Want(late, 1, "late") }, "heir", []string{"late", "old"}},
		{"a loser that goes changes nothing", func() { table.Unwant("late", 1) }, "heir", []string{"old"}},
		{"a stranger that goes changes nothing", func() { table.Unwant("nobody", 1) }, "heir", []string{"old"}},
		{"grace is better than nothing", func() { table.Unwant("heir", 1) }, "old", nil},
		{"back before the grace was over", func() { table.Want(old, 1, "old2") }, "old2", nil},
		{"of the same age, the name decides", func() { table.Want(Owner{Name: "alt", Age: 5}, 1, "alt") }, "alt", []string{"old"}},
	} {
		step.do()
		var losers []string
		for _, o := range table.Losers {
			losers = append(losers, o.Name)
		}
		slices.Sort(losers)
		if c := table.Get(1); c.Want != step.want || !c.Wanted || !slices.Equal(losers, step.losers) {
			t.Errorf("%s: wanted is %+v, losers %v; want %s, %v", step.name, c, losers, step.want, step.losers)
		}
	}
}

// TestIterationsStop: the three iterators end when told so, and Pending takes changes on the way.
func TestIterationsStop(t *testing.T) {
	table := newTable(kind[int, int]{ours: func(int, int) bool { return true }})
	for k := range 100 {
		table.Want(Owner{Name: "a"}, k, k)
		table.Want(Owner{Name: "b"}, k, k)
	}
	all, pending, losers := 0, 0, 0
	for range table.All {
		if all++; all == 3 {
			break
		}
	}
	for range table.Pending {
		if pending++; pending == 3 {
			break
		}
	}
	for range table.Losers {
		if losers++; losers == 3 {
			break
		}
	}
	if all != 3 || pending != 3 || losers != 3 {
		t.Errorf("visited %d, %d and %d after being stopped at 3", all, pending, losers)
	}
	visited := 0
	for k, c := range table.Pending {
		visited++
		table.Observe(k, c.Want)
		table.Unwant("a", (k+1)%100) // so the next key is either dropped unvisited or, if it was right, to be removed
		table.Unwant("b", (k+1)%100)
	}
	if visited == 0 {
		t.Error("visited nothing")
	}
	for k := range 100 {
		_, dirty := table.dirty[k]
		if c := table.Get(k); dirty != (c.Present && !c.Wanted) || c.Wanted && c.Have != c.Want {
			t.Errorf("key %d is %+v, pending %t", k, c, dirty)
		}
	}
}
