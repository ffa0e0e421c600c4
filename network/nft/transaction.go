package nft

import (
	"errors"
	"slices"

	"github.com/google/nftables"
)

// Transaction gathers changes, which the kernel then makes all together or not at all.
type Transaction struct {
	conn  *nftables.Conn
	table *nftables.Table
	err   error // the first
}

func (t *Transaction) note(err error) {
	if t.err == nil {
		t.err = err
	}
}

// commit has the kernel make the changes of a transaction.
func (c *Conn) commit(t *Transaction) error {
	if t.err != nil {
		// The library cannot take back what it has gathered. It must not go along with the next transaction.
		return errors.Join(t.err, c.Close())
	}
	return c.ask(c.conn.Flush)
}

// remove deletes the table with all that is in it. It says nothing that rests on what is there.
func (t *Transaction) remove() {
	t.conn.AddTable(t.table) // so that there is something to delete
	t.conn.DelTable(t.table)
}

// again makes the table anew, with empty sets and chains.
func (t *Transaction) again(c Content) {
	t.remove()
	t.conn.AddTable(t.table)
	for i, s := range c.Sets {
		t.note(t.conn.AddSet(s.In(t.table, uint32(i+1)), nil))
	}
	for _, x := range c.Chains {
		t.conn.AddChain(x.In(t.table))
	}
}

// refill makes a set hold what the content says.
func (t *Transaction) refill(s Set) {
	t.conn.FlushSet(s.In(t.table, 0))
	t.Add(s, s.Elements)
}

// setRules has the chains hold just these rules.
func (t *Transaction) setRules(chains []Chain) {
	for _, x := range chains {
		c := x.In(t.table)
		t.conn.FlushChain(c)
		for _, r := range x.Rules {
			t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: c, Exprs: r.Exprs, UserData: r.userData()})
		}
	}
}

// perMessage is how many elements one message holds: all of them are in one attribute, of 64 KiB at the most, and one
// takes 28 bytes, or 24 with a device's name.
const perMessage = 2048

// Add puts elements into a set. Those that are there already stay.
func (t *Transaction) Add(s Set, elements []nftables.SetElement) {
	x := s.In(t.table, 0)
	for part := range slices.Chunk(elements, perMessage) {
		t.note(t.conn.SetAddElements(x, part))
	}
}

// Delete takes elements, each named once, out of a set. Those that are not there would have the whole transaction fail, so
// they are put there first. (To delete what may be absent is known to the kernel since Linux 6.3.)
func (t *Transaction) Delete(s Set, elements []nftables.SetElement) {
	t.Add(s, elements)
	x := s.In(t.table, 0)
	for part := range slices.Chunk(elements, perMessage) {
		t.note(t.conn.SetDeleteElements(x, part))
	}
}
