package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// attempts bounds the retries after another process changed the ruleset at the same time.
const attempts = 5

// Table keeps a table in the network namespace in which [Open] was called. Its methods are not safe for concurrent use,
// except [Table.Watch], which runs beside them.
type Table struct {
	*Conn
	name   string
	family nftables.TableFamily
}

// Open connects to nf_tables for a table of family inet, or returns [ErrUnsupported]. It changes nothing.
func Open(name string) (*Table, error) {
	c, err := Dial()
	if err != nil {
		return nil, err
	}
	return c.Table(name), nil
}

// Table returns a table of family inet that uses the connection.
func (c *Conn) Table(name string) *Table { return c.TableIn(nftables.TableFamilyINet, name) }

// TableIn returns a table of another family, such as bridge, that uses the connection.
func (c *Conn) TableIn(family nftables.TableFamily, name string) *Table {
	return &Table{Conn: c, name: name, family: family}
}

// SetElements are elements of external sets, by the name of the set.
type SetElements map[string][]Element

// Ensure brings the table in sync with the desired content, in one transaction, and reports whether it changed
// anything. It removes everything else from the table. It reads the whole table: see [Mirror] for large tables.
//
// Whenever Ensure replaces rules, it calls external for the elements to add to external sets in the same transaction.
// With recreated, external sets are created empty, so external must return all elements that they are to keep. external
// may be nil.
func (t *Table) Ensure(want Content, external func(recreated bool) (SetElements, error)) (changed bool, err error) {
	return t.ensure(want, external, func() (*actual, error) { return t.readAll(want) }, nil)
}

// ensure is Ensure with a function that reads the table. With one that is called after a successful transaction, it
// does not read the table again.
func (t *Table) ensure(
	want Content, external func(recreated bool) (SetElements, error), read func() (*actual, error),
	applied func(*actual, plan),
) (changed bool, err error) {
	for n := 0; ; n++ {
		have, failure := read()
		if failure != nil {
			return changed, fmt.Errorf("read the table %s: %w", t.name, failure)
		}
		p := makePlan(want, have)
		if n > 1 && err != nil && !p.isEmpty() {
			p = makePlan(want, &actual{}) // something in the table resists: recreate all of it
		}
		switch {
		case p.isEmpty():
			return changed, nil
		case n == attempts:
			return changed, fmt.Errorf("table %s: another program keeps changing it: find and stop that program",
				t.name)
		}
		err = t.apply(want, p, external)
		switch {
		case err == nil && applied != nil:
			applied(have, p)
			return true, nil
		case err == nil:
			changed = true
		case p.recreate:
			return changed, fmt.Errorf("set the table %s: %w", t.name, explainCreate(err))
		case !conflicts(err):
			return changed, fmt.Errorf("set the table %s: %w", t.name, explain(err))
		}
	}
}

// conflicts reports whether a transaction may have failed because another process changed the table since we read it:
// something was deleted, created, or is in use. A part of nf_tables that is missing has the same error; that is found
// out when the table is recreated.
func conflicts(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, unix.EBUSY)
}

// Check reports whether the table exists, and whether it is in sync with the desired content.
func (t *Table) Check(want Content) (exists, inSync bool, err error) {
	have, err := t.readAll(want)
	if err != nil {
		return false, false, err
	}
	return have.exists, makePlan(want, have).isEmpty(), nil
}

// readAll reads the table, without the elements of external sets.
func (t *Table) readAll(want Content) (*actual, error) {
	have, err := t.Conn.read(t.family, t.name)
	if err != nil {
		return nil, err
	}
	return have, t.readElements(have, want, func(string) bool { return true })
}

// readElements reads the elements of those sets that are as desired but for their elements, and not external.
func (t *Table) readElements(have *actual, want Content, which func(set string) bool) (err error) {
	for _, s := range want.Sets {
		x := have.sets[s.Name]
		if s.External || x == nil || x.definition != s.definition() || !which(s.Name) {
			continue
		}
		list, err := t.Elements(s.Name)
		if err != nil {
			return err
		}
		x.elements, x.equal, x.list = normal(list), nil, nil
	}
	return nil
}

// apply carries out a plan in one transaction.
func (t *Table) apply(want Content, p plan, external func(recreated bool) (SetElements, error)) (err error) {
	var elements SetElements
	if created, rules := p.external(); (created || rules) && external != nil {
		if elements, err = external(created); err != nil {
			return err
		}
	}
	x := newTransaction(t.family, t.name)
	p.record(x, want, elements)
	return t.commit(x)
}

// Change makes changes in one transaction: to external sets; to anything in a table that is not kept by [Table.Ensure].
// If the table or something else does not exist, the error is [fs.ErrNotExist].
func (t *Table) Change(gather func(*Transaction)) error {
	x := newTransaction(t.family, t.name)
	gather(x)
	return explain(t.commit(x))
}

// Elements lists the elements of a set, none if the set does not exist.
func (t *Table) Elements(set string) ([]Element, error) {
	return t.Conn.Elements(t.family, t.name, set)
}

// CountPackets returns the sum of the counters in a chain's rules, in packets since the rules were set.
func (t *Table) CountPackets(chain string) (packets uint64, err error) {
	const counterPackets = 2 // NFTA_COUNTER_PACKETS
	rules, err := t.Rules(t.family, t.name, chain)
	for _, r := range rules {
		for _, e := range r.Exprs {
			if b := e.Attr(counterPackets); e.Name == "counter" && len(b) == 8 {
				packets += binary.BigEndian.Uint64(b)
			}
		}
	}
	return packets, err
}

// Remove deletes the table and everything in it. A missing table is not an error.
func (t *Table) Remove() error {
	x := newTransaction(t.family, t.name)
	x.remove()
	return explain(t.commit(x))
}
