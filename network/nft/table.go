package nft

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// attempts bounds how often something is tried again because somebody else changed the ruleset at the same time.
const attempts = 5

// Table keeps a table of family inet in the network namespace in which [Open] was called. Its methods are for one goroutine,
// but for [Table.Watch], which runs beside them.
type Table struct {
	*Conn
	name  string
	table *nftables.Table
}

// Open returns a table, or [ErrUnsupported]. It changes nothing yet.
func Open(name string) (*Table, error) {
	c, err := Dial()
	if err != nil {
		return nil, err
	}
	return c.Table(name), nil
}

// Table returns a table that is kept over the connection.
func (c *Conn) Table(name string) *Table {
	return &Table{Conn: c, name: name, table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}}
}

// Also are elements of sets that are not the content's, by the set's name.
type Also map[string][]nftables.SetElement

// Ensure makes the table what is wanted, in one transaction, and reports whether anything had to be changed. All that is in
// the way in that table goes.
//
// Whenever rules are set anew, also is asked which elements of the others' sets are to be there in that moment: whole tells
// that these sets are made anew too, so that what is to stay of them must be among it. It may be nil.
func (t *Table) Ensure(want Content, also func(whole bool) (Also, error)) (changed bool, err error) {
	for n := 0; ; n++ {
		have, err := t.read(want)
		if err != nil {
			return changed, fmt.Errorf("read the table %s: %w", t.name, err)
		}
		p := makePlan(want, have)
		switch {
		case p.nothing():
			return changed, nil
		case n == attempts && have.broken != nil:
			return changed, fmt.Errorf("read the table %s: %w", t.name, have.broken)
		case n == attempts:
			return changed, errors.New("the table " + t.name + " does not stay as it is set: find the other program that changes it")
		}
		err = t.carryOut(want, p, also)
		switch {
		case err == nil:
			changed = true
		case p.whole:
			return changed, fmt.Errorf("set the table %s: %w", t.name, explainWhole(err))
		case !errors.Is(err, fs.ErrNotExist): // else somebody deleted what we had just read
			return changed, fmt.Errorf("set the table %s: %w", t.name, explain(err))
		}
	}
}

// Holds reports whether the table is there, and whether it is what is wanted.
func (t *Table) Holds(want Content) (there, ok bool, err error) {
	have, err := t.read(want)
	return have.table != nil, err == nil && makePlan(want, have).nothing(), err
}

// read reads the table, but for elements of the sets that are not the content's.
func (t *Table) read(want Content) (r reading, err error) {
	err = t.ask(func() (err error) { r.table, err = t.conn.ListTableOfFamily(t.name, t.table.Family); return err })
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return reading{}, nil
	case err != nil:
		return reading{}, explain(err)
	}
	r.broken = t.ask(func() error { return t.readTable(&r) })
	if r.broken != nil {
		return r, nil
	}
	r.elements = map[string][]Element{}
	for _, s := range want.Sets {
		if s.Others {
			continue
		}
		if r.elements[s.Name], err = t.Elements(s.Name); err != nil {
			return r, err
		}
	}
	return r, nil
}

// readTable reads what is in the table but for elements. The library's errors tell no more than that it failed.
func (t *Table) readTable(r *reading) error {
	sets, err := t.conn.GetSets(t.table)
	if err != nil {
		return err
	}
	chains, err := t.conn.ListChainsOfTableFamily(t.table.Family)
	if err != nil {
		return err
	}
	r.sets, r.chains, r.rules = map[string]definition{}, map[string]*nftables.Chain{}, map[string][]*nftables.Rule{}
	for _, s := range sets {
		r.sets[s.Name] = definitionOf(s)
	}
	for _, c := range chains {
		if c.Table.Name != t.name {
			continue
		}
		r.chains[c.Name] = c
		if r.rules[c.Name], err = t.conn.GetRules(t.table, c); err != nil {
			return err
		}
	}
	return nil
}

// carryOut makes what is planned, in one transaction.
func (t *Table) carryOut(want Content, p plan, also func(whole bool) (Also, error)) (err error) {
	var more Also
	if (p.whole || p.rules) && also != nil {
		if more, err = also(p.whole); err != nil {
			return err
		}
	}
	x := Transaction{conn: t.conn, table: t.table}
	if p.whole {
		x.again(want)
		p.refill = want.Sets
	}
	for _, s := range p.refill {
		if !s.Others {
			x.refill(s)
		}
	}
	for _, s := range want.Sets {
		x.Add(s, more[s.Name])
	}
	if p.whole || p.rules {
		x.setRules(want.Chains)
	}
	return t.commit(&x)
}

// Change has the kernel make changes to sets that are not the content's. A table that is gone is [fs.ErrNotExist].
func (t *Table) Change(gather func(*Transaction)) error {
	x := Transaction{conn: t.conn, table: t.table}
	gather(&x)
	return explain(t.commit(&x))
}

// Elements lists a set; one that is not there is empty.
func (t *Table) Elements(set string) ([]Element, error) {
	return t.Conn.Elements(t.table.Family, t.name, set)
}

// Counted is how many packets the counters of a chain's rules have counted since the rules were set.
func (t *Table) Counted(chain string) (packets uint64, err error) {
	var rules []*nftables.Rule
	err = t.ask(func() (err error) {
		rules, err = t.conn.GetRules(t.table, &nftables.Chain{Name: chain})
		return err
	})
	for _, r := range rules {
		for _, e := range r.Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				packets += counter.Packets
			}
		}
	}
	return packets, err
}

// Remove deletes the table with all that is in it; that there is none is no error.
func (t *Table) Remove() error {
	x := Transaction{conn: t.conn, table: t.table}
	x.remove()
	return explain(t.commit(&x))
}
