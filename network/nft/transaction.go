package nft

import (
	"errors"
	"slices"

	"github.com/google/nftables"
)

// Transaction collects changes that the kernel applies completely or not at all.
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

// commit applies a transaction.
func (c *Conn) commit(t *Transaction) error {
	if t.err != nil {
		// The library cannot discard the messages that it has collected. They must not join the next transaction.
		return errors.Join(t.err, c.Close())
	}
	return c.exchange(c.conn.Flush)
}

// remove deletes the table and everything in it, whether or not it exists.
func (t *Transaction) remove() {
	t.conn.AddTable(t.table) // to delete a missing table would be an error
	t.conn.DelTable(t.table)
}

// recreate deletes the table and creates it with empty sets and chains.
func (t *Transaction) recreate(c Content) {
	t.remove()
	t.conn.AddTable(t.table)
	for i, s := range c.Sets {
		t.note(t.conn.AddSet(s.In(t.table, uint32(i+1)), nil))
	}
	for _, x := range c.Chains {
		t.conn.AddChain(x.In(t.table))
	}
}

// refill replaces the elements of a set with the desired ones.
func (t *Transaction) refill(s Set) {
	t.conn.FlushSet(s.In(t.table, 0))
	t.Add(s, s.Elements)
}

// setRules replaces the rules of chains.
func (t *Transaction) setRules(chains []Chain) {
	for _, x := range chains {
		c := x.In(t.table)
		t.conn.FlushChain(c)
		for _, r := range x.Rules {
			t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: c, Exprs: r.Exprs, UserData: r.userData()})
		}
	}
}

// perMessage bounds the elements in one message. They share one attribute of at most 64 KiB, and each takes 28 bytes,
// or 24 with a device name.
const perMessage = 2048

// Add adds elements to a set. Existing elements are kept.
func (t *Transaction) Add(s Set, elements []nftables.SetElement) {
	x := s.In(t.table, 0)
	for part := range slices.Chunk(elements, perMessage) {
		t.note(t.conn.SetAddElements(x, part))
	}
}

// Delete removes elements from a set; the list has no duplicates. A missing element would fail the whole transaction,
// so all are added first. (Linux can delete elements that may be missing since 6.3: NFT_MSG_DESTROYSETELEM.)
func (t *Transaction) Delete(s Set, elements []nftables.SetElement) {
	t.Add(s, elements)
	x := s.In(t.table, 0)
	for part := range slices.Chunk(elements, perMessage) {
		t.note(t.conn.SetDeleteElements(x, part))
	}
}
