package nft

import (
	"errors"
	"fmt"
	"math"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Transaction collects changes that the kernel applies completely or not at all, in this order.
type Transaction struct {
	family   nftables.TableFamily
	table    string
	messages []netlink.Message
	what     []operation // of each message
	err      error       // the first
}

// operation names a message in an error.
type operation struct{ verb, name string }

func (t *Transaction) note(err error) {
	if t.err == nil {
		t.err = err
	}
}

func newTransaction(family nftables.TableFamily, table string) *Transaction {
	return &Transaction{family: family, table: table}
}

// message adds a message.
func (t *Transaction) message(o operation, typ uint16, flags netlink.HeaderFlags, fill func(*encoder)) {
	e := encoder{b: nfgenmsg(byte(t.family))}
	fill(&e)
	t.messages = append(t.messages, netlink.Message{
		Header: netlink.Header{Type: nftMessage(typ), Flags: netlink.Request | flags}, Data: e.b,
	})
	t.what = append(t.what, o)
}

// addTable creates the table, or does nothing if it exists.
func (t *Transaction) addTable() {
	t.message(operation{"create the table", t.table}, unix.NFT_MSG_NEWTABLE, netlink.Create, func(e *encoder) {
		e.text(unix.NFTA_TABLE_NAME, t.table)
		e.uint32(unix.NFTA_TABLE_FLAGS, 0)
	})
}

// remove deletes the table and everything in it, whether or not it exists.
func (t *Transaction) remove() {
	t.addTable() // to delete a missing table would be an error
	t.message(operation{"delete the table", t.table}, unix.NFT_MSG_DELTABLE, 0, func(e *encoder) {
		e.text(unix.NFTA_TABLE_NAME, t.table)
	})
}

// AddChain creates a chain without rules. Of an existing base chain with the same hook it sets the policy.
func (t *Transaction) AddChain(c Chain) {
	t.message(operation{"create the chain", c.Name}, unix.NFT_MSG_NEWCHAIN, netlink.Create, func(e *encoder) {
		e.text(unix.NFTA_CHAIN_TABLE, t.table)
		e.text(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook == nil {
			return
		}
		e.nest(unix.NFTA_CHAIN_HOOK, func() {
			e.uint32(unix.NFTA_HOOK_HOOKNUM, uint32(*c.Hook))
			e.uint32(unix.NFTA_HOOK_PRIORITY, uint32(*c.Priority))
		})
		e.uint32(unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept))
		e.text(unix.NFTA_CHAIN_TYPE, string(c.Type))
	})
}

// RemoveChain deletes a chain. Its rules must have been deleted before, and those that call it.
func (t *Transaction) RemoveChain(name string) {
	t.message(operation{"delete the chain", name}, unix.NFT_MSG_DELCHAIN, 0, func(e *encoder) {
		e.text(unix.NFTA_CHAIN_TABLE, t.table)
		e.text(unix.NFTA_CHAIN_NAME, name)
	})
}

// Flush deletes the rules of a chain.
func (t *Transaction) Flush(chain string) {
	t.message(operation{"flush the chain", chain}, unix.NFT_MSG_DELRULE, 0, func(e *encoder) {
		e.text(unix.NFTA_RULE_TABLE, t.table)
		e.text(unix.NFTA_RULE_CHAIN, chain)
	})
}

// Append appends rules to a chain.
func (t *Transaction) Append(chain string, rules ...Rule) {
	for _, r := range rules {
		t.message(operation{"add the rule " + r.Comment + " to the chain", chain}, unix.NFT_MSG_NEWRULE,
			netlink.Create|netlink.Append, func(e *encoder) {
				e.text(unix.NFTA_RULE_TABLE, t.table)
				e.text(unix.NFTA_RULE_CHAIN, chain)
				e.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
					for _, x := range r.Exprs {
						b, err := expr.Marshal(byte(t.family), x)
						t.note(err)
						e.raw(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
					}
				})
				e.raw(unix.NFTA_RULE_USERDATA, r.userData())
			})
	}
}

// removeRule deletes one rule.
func (t *Transaction) removeRule(chain string, handle uint64) {
	t.message(operation{"delete a rule of the chain", chain}, unix.NFT_MSG_DELRULE, 0, func(e *encoder) {
		e.text(unix.NFTA_RULE_TABLE, t.table)
		e.text(unix.NFTA_RULE_CHAIN, chain)
		e.uint64(unix.NFTA_RULE_HANDLE, handle)
	})
}

// AddSet creates a set without elements.
func (t *Transaction) AddSet(s Set) {
	id := uint32(len(t.messages) + 1) // any number that the transaction does not have yet
	t.message(operation{"create the set", s.Name}, unix.NFT_MSG_NEWSET, netlink.Create, func(e *encoder) {
		d := s.definition()
		e.text(unix.NFTA_SET_TABLE, t.table)
		e.text(unix.NFTA_SET_NAME, s.Name)
		e.uint32(unix.NFTA_SET_FLAGS, d.flags)
		e.uint32(unix.NFTA_SET_KEY_TYPE, d.key)
		e.uint32(unix.NFTA_SET_KEY_LEN, d.length)
		if s.Verdicts {
			e.uint32(unix.NFTA_SET_DATA_TYPE, d.data)
		}
		e.uint32(unix.NFTA_SET_ID, id)
		if d.fields != "" {
			e.nest(unix.NFTA_SET_DESC, func() {
				e.nest(setDescConcat, func() {
					for _, length := range []byte(d.fields) {
						e.nest(unix.NFTA_LIST_ELEM, func() { e.uint32(setFieldLen, uint32(length)) })
					}
				})
			})
		}
		e.raw(unix.NFTA_SET_USERDATA, s.userData())
	})
}

// RemoveSet deletes a set and its elements. Rules that look it up must have been deleted before.
func (t *Transaction) RemoveSet(name string) {
	t.message(operation{"delete the set", name}, unix.NFT_MSG_DELSET, 0, func(e *encoder) {
		e.text(unix.NFTA_SET_TABLE, t.table)
		e.text(unix.NFTA_SET_NAME, name)
	})
}

// Empty removes all elements of a set.
func (t *Transaction) Empty(set string) {
	t.message(operation{"empty the set", set}, unix.NFT_MSG_DELSETELEM, 0, func(e *encoder) {
		e.text(unix.NFTA_SET_ELEM_LIST_TABLE, t.table)
		e.text(unix.NFTA_SET_ELEM_LIST_SET, set)
	})
}

// Add adds elements to a set. Existing elements are kept; in a map they must have the same verdict.
func (t *Transaction) Add(s Set, elements []Element) {
	t.elements(operation{"add elements to the set", s.Name}, unix.NFT_MSG_NEWSETELEM, netlink.Create, s, elements)
}

// Remove removes elements from a set; the list has no duplicates, and the set has them all.
func (t *Transaction) Remove(s Set, elements []Element) {
	t.elements(operation{"remove elements from the set", s.Name}, unix.NFT_MSG_DELSETELEM, 0, s, elements)
}

// Delete removes elements from a set; the list has no duplicates. A missing element would fail the whole transaction,
// so all are added first. (Linux can delete elements that may be missing since 6.3: NFT_MSG_DESTROYSETELEM.)
func (t *Transaction) Delete(s Set, elements []Element) {
	t.Add(s, elements)
	t.Remove(s, elements)
}

// maxElements bounds the elements in one message, in bytes: they share one attribute, whose length has 16 bits. An IPv4
// address takes 16 bytes, an IPv6 address 28.
const maxElements = math.MaxUint16 - 512

func (t *Transaction) elements(o operation, typ uint16, flags netlink.HeaderFlags, s Set, list []Element) {
	for len(list) > 0 {
		t.message(o, typ, flags, func(e *encoder) {
			e.text(unix.NFTA_SET_ELEM_LIST_TABLE, t.table)
			e.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			at := e.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for n := 0; len(list) > 0 && len(e.b)-at < maxElements; n++ {
				e.element(list[0], s.Verdicts && typ == unix.NFT_MSG_NEWSETELEM)
				list = list[1:]
			}
			e.close(at)
		})
	}
}

// commit applies a transaction. Its error names the first message that the kernel rejected.
func (c *Conn) commit(t *Transaction) error {
	switch {
	case t.err != nil:
		return t.err
	case len(t.messages) == 0:
		return nil
	}
	return c.exchange(func() error { return c.send(t) })
}

// send sends a transaction as one batch and waits for its outcome. Only the last message requests an acknowledgement;
// the library requests one for each, and an echo of each rule, which overruns the receive buffer at some 400 rules. The
// kernel replies once it has committed the batch or rejected it (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c): to
// each message that failed; then to the last one; or only to the first if it rejected the batch as a whole.
func (c *Conn) send(t *Transaction) error {
	mark := func(typ netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: typ, Flags: netlink.Request},
			Data:   []byte{unix.NFPROTO_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	batch := make([]netlink.Message, 0, len(t.messages)+2)
	batch = append(append(batch, mark(unix.NFNL_MSG_BATCH_BEGIN)), t.messages...)
	last := len(batch) - 1
	batch[last].Header.Flags |= netlink.Acknowledge
	batch = append(batch, mark(unix.NFNL_MSG_BATCH_END))
	batch, err := c.socket.SendMessages(batch)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	first := batch[0].Header.Sequence
	var failure error
	for {
		sequence, err := c.acknowledgement()
		if err != nil && sequence == 0 {
			return errors.Join(failure, fmt.Errorf("receive: %w", err))
		}
		n := int(sequence - first)
		if n < 0 || n > last {
			return errors.New("receive: a reply to another request")
		}
		if err != nil && failure == nil {
			failure = err
			if n > 0 {
				failure = fmt.Errorf("%s %s: %w", t.what[n-1].verb, t.what[n-1].name, err)
			}
		}
		if n == 0 || n == last {
			return failure
		}
	}
}
