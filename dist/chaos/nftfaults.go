package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// dormant is NFT_TABLE_F_DORMANT: the kernel does not call a table's chains.
const dormant = 1

// tableFaults are about a table of nf_tables that is selvage's. Each is one transaction: else the daemon is quicker than the
// next step.
func tableFaults(table string) []Fault {
	fault := func(name string, do func(*nftables.Conn, nftTable) error) Fault {
		return Fault{Name: "table " + table + ": " + name, Class: Rules, NFTables: true, Inject: func(_ context.Context, t *target) error {
			return t.onNFT(func(c *nftables.Conn) error {
				have, err := readTable(c, table)
				if err == nil {
					err = do(c, have)
				}
				if err != nil {
					return err
				}
				return c.Flush()
			})
		}}
	}
	return []Fault{
		fault("deleted", func(c *nftables.Conn, t nftTable) error {
			c.DelTable(t.Table)
			return nil
		}),
		fault("deleted, another of the name in its place", func(c *nftables.Conn, t nftTable) error {
			c.DelTable(t.Table)
			c.AddTable(t.Table)
			c.AddRule(&nftables.Rule{Table: t.Table, Chain: hooked(c, t.Table, "theirs"), Exprs: stranger()})
			return nil
		}),
		fault("all chains flushed", func(c *nftables.Conn, t nftTable) error {
			for _, x := range t.chains {
				c.FlushChain(x)
			}
			return nil
		}),
		fault("a chain flushed", func(c *nftables.Conn, t nftTable) error {
			x, _, err := t.rules(c)
			c.FlushChain(x)
			return err
		}),
		fault("a chain more", func(c *nftables.Conn, t nftTable) error {
			hooked(c, t.Table, "theirs")
			return nil
		}),
		fault("a rule deleted", func(c *nftables.Conn, t nftTable) error {
			_, rules, err := t.rules(c)
			if err != nil {
				return err
			}
			return c.DelRule(rules[0])
		}),
		fault("a rule put before ours", func(c *nftables.Conn, t nftTable) error {
			for _, x := range t.chains {
				c.InsertRule(&nftables.Rule{Table: t.Table, Chain: x, Exprs: stranger()})
			}
			return nil
		}),
		fault("a rule put behind ours", func(c *nftables.Conn, t nftTable) error {
			for _, x := range t.chains {
				c.AddRule(&nftables.Rule{Table: t.Table, Chain: x, Exprs: stranger()})
			}
			return nil
		}),
		fault("an element of each set deleted", func(c *nftables.Conn, t nftTable) error {
			return t.eachSet(c, func(s *nftables.Set, held []nftables.SetElement) error {
				if s.Interval {
					return c.SetDeleteElements(s, held) // of a range both ends have to go
				}
				return c.SetDeleteElements(s, held[:1])
			})
		}),
		fault("all sets flushed", func(c *nftables.Conn, t nftTable) error {
			return t.eachSet(c, func(s *nftables.Set, _ []nftables.SetElement) error {
				c.FlushSet(s)
				return nil
			})
		}),
		fault("an address put into the sets", func(c *nftables.Conn, t nftTable) error {
			return t.eachSet(c, func(s *nftables.Set, _ []nftables.SetElement) error {
				address := map[string]string{nftables.TypeIPAddr.Name: "203.0.113.99", nftables.TypeIP6Addr.Name: "fd00:113::99"}[s.KeyType.Name]
				if address == "" {
					return nil
				}
				from := netip.MustParseAddr(address)
				added := []nftables.SetElement{{Key: from.AsSlice()}}
				if s.Interval {
					added = append(added, nftables.SetElement{Key: from.Next().AsSlice(), IntervalEnd: true})
				}
				return c.SetAddElements(s, added)
			})
		}),
		{Name: "table " + table + ": put to sleep (dormant)", Class: Rules, NFTables: true, Inject: func(_ context.Context, t *target) error {
			return t.putToSleep(table)
		}},
	}
}

// hooked adds a chain that gets to see what is forwarded, last of all.
func hooked(c *nftables.Conn, t *nftables.Table, name string) *nftables.Chain {
	return c.AddChain(&nftables.Chain{Table: t, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(1000)})
}

// rules returns the first chain that has rules, with these.
func (t nftTable) rules(c *nftables.Conn) (*nftables.Chain, []*nftables.Rule, error) {
	for _, x := range t.chains {
		rules, err := c.GetRules(t.Table, x)
		if err != nil || len(rules) > 0 {
			return x, rules, err
		}
	}
	return nil, nil, fmt.Errorf("the table %s has no rule", t.Name)
}

// eachSet calls fn with each set that has elements.
func (t nftTable) eachSet(c *nftables.Conn, fn func(*nftables.Set, []nftables.SetElement) error) error {
	found := false
	for _, s := range t.sets {
		held, err := c.GetSetElements(s)
		if err != nil {
			return err
		}
		if len(held) > 0 {
			found = true
			if err := fn(s, held); err != nil {
				return err
			}
		}
	}
	if !found {
		return fmt.Errorf("the table %s has no set with elements", t.Name)
	}
	return nil
}

// putToSleep is nft add table inet NAME '{ flags dormant; }', which the library cannot.
func (h *host) putToSleep(table string) error {
	request := nftRequest(unix.NFT_MSG_NEWTABLE, unix.NFPROTO_INET)
	request.AddData(nftString(unix.NFTA_TABLE_NAME, table))
	request.AddData(nftNumber(unix.NFTA_TABLE_FLAGS, dormant))
	return h.transaction(fmt.Sprintf("put the table %s to sleep", table), request)
}

// nftablesFaults lists the faults for a suite whose daemons use nftables and not iptables.
func nftablesFaults() []Fault {
	return slices.Concat(tableFaults(filterTable), []Fault{rulesetFlushed()}, forwardingFaults(), ownSideFaults(),
		namedFaults())
}
