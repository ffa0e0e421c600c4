package nft

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// attempts bounds the retries after another process changed the ruleset at the same time.
const attempts = 5

// Table keeps a table of family inet in the network namespace in which [Open] was called. Its methods are not safe for
// concurrent use, except [Table.Watch], which runs beside them.
type Table struct {
	*Conn
	name  string
	table *nftables.Table
}

// Open connects to nf_tables for a table, or returns [ErrUnsupported]. It changes nothing.
func Open(name string) (*Table, error) {
	c, err := Dial()
	if err != nil {
		return nil, err
	}
	return c.Table(name), nil
}

// Table returns a table that uses the connection.
func (c *Conn) Table(name string) *Table {
	return &Table{Conn: c, name: name, table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}}
}

// SetElements are elements of external sets, by the name of the set.
type SetElements map[string][]nftables.SetElement

// Ensure brings the table in sync with the desired content, in one transaction, and reports whether it changed
// anything. It removes everything else from the table.
//
// Whenever Ensure replaces rules, it calls external for the elements to add to external sets in the same transaction.
// With recreated, these sets are recreated empty, so external must return all elements that they are to keep. external
// may be nil.
func (t *Table) Ensure(want Content, external func(recreated bool) (SetElements, error)) (changed bool, err error) {
	for n := 0; ; n++ {
		have, err := t.read(want)
		if err != nil {
			return changed, fmt.Errorf("read the table %s: %w", t.name, err)
		}
		p := makePlan(want, have)
		switch {
		case p.empty():
			return changed, nil
		case n == attempts && have.unreadable != nil:
			return changed, fmt.Errorf("read the table %s: %w", t.name, have.unreadable)
		case n == attempts:
			return changed, fmt.Errorf("table %s: another program keeps changing it: find and stop that program",
				t.name)
		}
		err = t.apply(want, p, external)
		switch {
		case err == nil:
			changed = true
		case p.recreate:
			return changed, fmt.Errorf("set the table %s: %w", t.name, explainCreate(err))
		case !errors.Is(err, fs.ErrNotExist): // else another process deleted what we just read: retry
			return changed, fmt.Errorf("set the table %s: %w", t.name, explain(err))
		}
	}
}

// Check reports whether the table exists, and whether it is in sync with the desired content.
func (t *Table) Check(want Content) (exists, inSync bool, err error) {
	have, err := t.read(want)
	return have.table != nil, err == nil && makePlan(want, have).empty(), err
}

// read reads the table, without the elements of external sets.
func (t *Table) read(want Content) (have actual, err error) {
	err = t.exchange(func() (err error) {
		have.table, err = t.conn.ListTableOfFamily(t.name, t.table.Family)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return actual{}, nil
	case err != nil:
		return actual{}, explain(err)
	}
	have.unreadable = t.exchange(func() error { return t.readTable(&have) })
	if have.unreadable != nil {
		return have, nil
	}
	have.elements = map[string][]Element{}
	for _, s := range want.Sets {
		if s.External {
			continue
		}
		if have.elements[s.Name], err = t.Elements(s.Name); err != nil {
			return have, err
		}
	}
	return have, nil
}

// readTable reads the table without elements. The library's errors do not say what failed.
func (t *Table) readTable(have *actual) error {
	sets, err := t.conn.GetSets(t.table)
	if err != nil {
		return err
	}
	chains, err := t.conn.ListChainsOfTableFamily(t.table.Family)
	if err != nil {
		return err
	}
	have.sets, have.chains = map[string]definition{}, map[string]*nftables.Chain{}
	have.rules = map[string][]*nftables.Rule{}
	for _, s := range sets {
		have.sets[s.Name] = definitionOf(s)
	}
	for _, c := range chains {
		if c.Table.Name != t.name {
			continue
		}
		have.chains[c.Name] = c
		if have.rules[c.Name], err = t.conn.GetRules(t.table, c); err != nil {
			return err
		}
	}
	return nil
}

// apply carries out a plan in one transaction.
func (t *Table) apply(want Content, p plan, external func(recreated bool) (SetElements, error)) (err error) {
	var elements SetElements
	if (p.recreate || p.rules) && external != nil {
		if elements, err = external(p.recreate); err != nil {
			return err
		}
	}
	x := Transaction{conn: t.conn, table: t.table}
	if p.recreate {
		x.recreate(want)
		p.refill = want.Sets
	}
	for _, s := range p.refill {
		if !s.External {
			x.refill(s)
		}
	}
	for _, s := range want.Sets {
		x.Add(s, elements[s.Name])
	}
	if p.recreate || p.rules {
		x.setRules(want.Chains)
	}
	return t.commit(&x)
}

// Change changes external sets in one transaction. If the table does not exist, the error is [fs.ErrNotExist].
func (t *Table) Change(gather func(*Transaction)) error {
	x := Transaction{conn: t.conn, table: t.table}
	gather(&x)
	return explain(t.commit(&x))
}

// Elements lists the elements of a set, none if the set does not exist.
func (t *Table) Elements(set string) ([]Element, error) {
	return t.Conn.Elements(t.table.Family, t.name, set)
}

// CountPackets returns the sum of the counters in a chain's rules, in packets since the rules were set.
func (t *Table) CountPackets(chain string) (packets uint64, err error) {
	var rules []*nftables.Rule
	err = t.exchange(func() (err error) {
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

// Remove deletes the table and everything in it. A missing table is not an error.
func (t *Table) Remove() error {
	x := Transaction{conn: t.conn, table: t.table}
	x.remove()
	return explain(t.commit(&x))
}
