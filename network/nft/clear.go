package nft

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Clear removes a chain from another program's table, together with all rules of that table that call it, in one
// transaction. It reports whether the chain existed. The rest of the table is not touched.
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
			// A rule that called the chain was deleted since we listed the rules: retry.
		case !errors.Is(err, unix.EBUSY): // EBUSY: a rule that calls it was added since: retry
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
	x := newTransaction(family, table)
	for _, r := range rules {
		for _, e := range r.Exprs {
			if _, to, ok := e.Verdict(); ok && to == chain {
				x.removeRule(r.Chain, r.Handle)
			}
		}
	}
	x.Flush(chain)
	x.RemoveChain(chain)
	return c.commit(x)
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

// RemoveTable deletes another program's table and everything in it. A missing table is not an error.
func (c *Conn) RemoveTable(family nftables.TableFamily, table string) error {
	x := newTransaction(family, table)
	x.remove()
	if err := c.commit(x); err != nil {
		return fmt.Errorf("remove table %s: %w", table, explain(err))
	}
	return nil
}
