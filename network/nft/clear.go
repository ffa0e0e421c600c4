package nft

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Clear removes a chain of somebody else's table, with all rules of that table that call it, in one transaction. It reports
// whether there was one; the rest of the table is not touched.
func (c *Conn) Clear(family nftables.TableFamily, table, chain string) (done bool, err error) {
	for range attempts {
		err = c.clear(family, table, chain)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, fs.ErrNotExist):
			if there, e := c.has(family, table, chain); e != nil || !there {
				return false, e
			}
			// A rule that called it went while we were at it.
		case !errors.Is(err, unix.EBUSY): // else a rule that calls it came
			return false, fmt.Errorf("remove chain %s of table %s: %w", chain, table, explain(err))
		}
	}
	return false, fmt.Errorf("remove chain %s of table %s: %w", chain, table, err)
}

func (c *Conn) clear(family nftables.TableFamily, table, chain string) error {
	rules, err := c.Rules(family, table, "")
	if err != nil {
		return err
	}
	x := Transaction{conn: c.conn, table: &nftables.Table{Name: table, Family: family}}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if _, to, ok := e.Verdict(); ok && to == chain {
				x.note(c.conn.DelRule(&nftables.Rule{Table: x.table, Chain: &nftables.Chain{Name: r.Chain}, Handle: r.Handle}))
			}
		}
	}
	gone := &nftables.Chain{Table: x.table, Name: chain}
	c.conn.FlushChain(gone)
	c.conn.DelChain(gone)
	return c.commit(&x)
}

func (c *Conn) has(family nftables.TableFamily, table, chain string) (bool, error) {
	chains, err := c.Chains()
	for _, x := range chains {
		if x.Family == family && x.Table == table && x.Name == chain {
			return true, nil
		}
	}
	return false, err
}

// RemoveTable deletes somebody else's table with all that is in it; that there is none is no error.
func (c *Conn) RemoveTable(family nftables.TableFamily, table string) error {
	x := Transaction{conn: c.conn, table: &nftables.Table{Name: table, Family: family}}
	x.remove()
	if err := c.commit(&x); err != nil {
		return fmt.Errorf("remove table %s: %w", table, explain(err))
	}
	return nil
}
