package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/google/nftables"

	"github.com/selvage-net/selvage/subnet"
)

// flushRules empties the packet filter, as a careless script or a firewall's restart does. On a node without iptables there
// is only nf_tables.
func flushRules(ctx context.Context, l *Lab, node *Node, _ []*Node) error {
	err := node.do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("%s: flush nf_tables: %w", node.name, err)
	}
	for _, f := range l.Families() {
		program := [...]string{subnet.IPv4: "iptables", subnet.IPv6: "ip6tables"}[f]
		for _, table := range []string{"filter", "nat"} {
			if _, err := node.Output(ctx, program, "-w", "-t", table, "-F"); err != nil && !errors.Is(err, exec.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// explainRules says how many rules there are, by whom they are kept.
func explainRules(ctx context.Context, node *Node) (entries []Entry, err error) {
	for _, list := range []string{"iptables-save", "ip6tables-save"} {
		rules, err := node.Output(ctx, list)
		if errors.Is(err, exec.ErrNotFound) {
			continue // a node without iptables, see Options.IPTables
		}
		if err != nil {
			return nil, err
		}
		if n := bytes.Count(rules, []byte("\n-A ")); n > 0 {
			tables := strings.TrimSuffix(list, "-save")
			entries = append(entries, Entry{"rules", fmt.Sprintf("%d in %s", n, tables), "forwarding, masquerading"})
		}
	}
	counts, err := in(node.do, countRules)
	if err != nil {
		return nil, fmt.Errorf("%s: read nf_tables: %w", node.name, err)
	}
	for _, table := range []struct{ name, meaning string }{
		{"selvage", "masquerading"},
		{"selvage-vtep", "VTEP filter: VXLAN from peers only"},
	} {
		if n := counts[table.name]; n > 0 {
			entries = append(entries, Entry{"rules", fmt.Sprintf("%d in nftables, %s", n, table.name), table.meaning})
		}
	}
	return entries, nil
}

// countRules counts the rules of the tables that are for both families, by name. iptables' tables are for one.
func countRules() (map[string]int, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for _, t := range tables {
		chains, err := c.ListChainsOfTableFamily(t.Family)
		if err != nil {
			return nil, err
		}
		for _, chain := range chains {
			if chain.Table.Name != t.Name {
				continue
			}
			rules, err := c.GetRules(t, chain)
			if err != nil {
				return nil, err
			}
			counts[t.Name] += len(rules)
		}
	}
	return counts, nil
}
