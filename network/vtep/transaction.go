package vtep

import (
	"errors"
	"iter"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// transaction gathers changes, which the kernel then makes all together or not at all. Packets meet the state before or
// the state after, nothing in between.
type transaction struct {
	conn  *nftables.Conn
	table *nftables.Table
	err   error // the first
}

func (t *transaction) note(err error) {
	if t.err == nil {
		t.err = err
	}
}

// commit has the kernel make the changes of a transaction.
func (f *Filter) commit(t *transaction) error {
	if t.err != nil {
		// The library cannot take back what it has gathered. It must not go along with the next transaction.
		return errors.Join(t.err, f.Close())
	}
	return f.ask(f.conn.Flush)
}

// again makes the table anew, with empty sets and chains. It says nothing that rests on what is there.
func (t *transaction) again(c Config) {
	t.conn.AddTable(t.table) // so that there is something to delete
	t.conn.DelTable(t.table)
	t.conn.AddTable(t.table)
	for i, s := range c.sets() {
		t.note(t.conn.AddSet(s.in(t.table, uint32(i+1)), nil))
	}
	for _, x := range c.chains() {
		t.conn.AddChain(x.in(t.table))
	}
}

// refill makes a set hold what the configuration says.
func (t *transaction) refill(s set) {
	x := s.in(t.table, 0)
	t.conn.FlushSet(x)
	t.add(x, s.elements)
}

// setRules has the chains hold just these rules.
func (t *transaction) setRules(chains []chain) {
	for _, x := range chains {
		c := x.in(t.table)
		t.conn.FlushChain(c)
		for _, r := range x.rules {
			t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: c, Exprs: r.exprs, UserData: r.userData()})
		}
	}
}

// addPeers puts addresses into the sets of peers. Those that are there already stay; what cannot be a peer's is left out.
func (t *transaction) addPeers(peers iter.Seq[netip.Addr]) {
	for f, elements := range byFamily(peers) {
		t.add(f.peersIn(t.table), elements)
	}
}

// removePeers takes addresses, each named once, out of the sets of peers. Those that are not there would have the whole
// transaction fail, so they are put there first. (To delete what may be absent is known to the kernel since Linux 6.3.)
func (t *transaction) removePeers(peers iter.Seq[netip.Addr]) {
	for f, elements := range byFamily(peers) {
		s := f.peersIn(t.table)
		t.add(s, elements)
		for part := range slices.Chunk(elements, perMessage) {
			t.note(t.conn.SetDeleteElements(s, part))
		}
	}
}

func byFamily(peers iter.Seq[netip.Addr]) map[family][]nftables.SetElement {
	elements := map[family][]nftables.SetElement{}
	for a := range peers {
		if checkPeer(a) == nil {
			elements[familyOf(a)] = append(elements[familyOf(a)], nftables.SetElement{Key: a.AsSlice()})
		}
	}
	return elements
}

func (t *transaction) add(s *nftables.Set, elements []nftables.SetElement) {
	for part := range slices.Chunk(elements, perMessage) {
		t.note(t.conn.SetAddElements(s, part))
	}
}

// peersIn returns the family's set of peers as the library has it.
func (f family) peersIn(t *nftables.Table) *nftables.Set {
	return set{name: f.peers(), key: f.key}.in(t, 0)
}
