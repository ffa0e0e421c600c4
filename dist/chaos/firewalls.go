package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// firewalld is what a reload of a firewall leaves: nobody else's rules, and a REJECT at the end. How that is said depends on
// the family: see prohibited.
const firewalld = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:ZONES - [0:0]
-A FORWARD -i lo -j ACCEPT
-A FORWARD -j ZONES
-A FORWARD -j REJECT --reject-with PROHIBITED
COMMIT
*nat
:POST_ZONES - [0:0]
-A POSTROUTING -j POST_ZONES
COMMIT
`

// prohibited fills in what a family's REJECT says.
func prohibited(rules string, f subnet.Family) string {
	return strings.ReplaceAll(rules, "PROHIBITED", [...]string{"icmp-host-prohibited", "icmp6-adm-prohibited"}[f])
}

func firewallReplaced() Fault {
	reload, putBack := flushing(withRules(func(ctx context.Context, t *target, f subnet.Family) error {
		return t.restoreRules(ctx, f, prohibited(firewalld, f), "-w")
	}))
	return Fault{Name: "a firewall reloads: all rules replaced, REJECT at the end", Class: Rules, Families: both(), Inject: reload,
		After: func(ctx context.Context, t *target) error {
			const undo = `*filter
-D FORWARD -i lo -j ACCEPT
-D FORWARD -j ZONES
-D FORWARD -j REJECT --reject-with PROHIBITED
-X ZONES
COMMIT
*nat
-D POSTROUTING -j POST_ZONES
-X POST_ZONES
COMMIT
`
			err := t.eachFamily(func(f subnet.Family) error {
				return t.restoreRules(ctx, f, prohibited(undo, f), "-w", "--noflush")
			})
			if err != nil {
				return fmt.Errorf("remove the firewall's rules: %w", err)
			}
			return putBack(ctx, t)
		}}
}

// firewalldReload does what firewall-cmd --reload does with the iptables backend before firewalld sets its own rules
// (build_set_policy_rules and build_flush_rules in src/firewall/core/ipXtables.py): nothing passes, every chain is emptied
// and deleted, everything passes.
func firewalldReload() Fault {
	const emptied = "*%s\n-F\n-X\n-Z\nCOMMIT\n"
	policies := func(policy string) string {
		return strings.ReplaceAll("*filter\n-P INPUT POLICY\n-P FORWARD POLICY\n-P OUTPUT POLICY\nCOMMIT\n", "POLICY", policy)
	}
	reload, putBack := flushing(withRules(func(ctx context.Context, t *target, f subnet.Family) error {
		for _, input := range []string{policies("DROP"), fmt.Sprintf(emptied+emptied, "nat", "filter"), policies("ACCEPT")} {
			if err := t.restoreRules(ctx, f, input, "-w", "--noflush"); err != nil {
				return err
			}
		}
		return nil
	}))
	return Fault{Name: "firewalld reloads: policies DROP, all chains emptied and deleted", Class: Rules, Families: both(), Inject: reload, After: putBack}
}

// kubeProxy inserts its own jump before all others again and again, as each of several agents does that wants to be first.
// Ours need not be first, so it is to stay where it is.
func kubeProxy() Fault {
	const inserts = 20
	const chain = `*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`
	const jump = `FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD` + "\n"
	everywhere := func(ctx context.Context, t *target, input string) error {
		for _, f := range t.families {
			if err := t.restoreRules(ctx, f, input, "-w", "--noflush"); err != nil {
				return err
			}
		}
		return nil
	}
	return Fault{Name: "kube-proxy inserts its jump before ours 20 times", Class: Rules, Unbroken: true, Running: true, NFTables: true,
		NoLoss: true, Long: true, Follow: true,
		Inject: func(ctx context.Context, t *target) error {
			before, err := t.handles()
			if err != nil {
				return err
			}
			t.noted = before
			if err := everywhere(ctx, t, chain); err != nil {
				return err
			}
			for range inserts {
				if err := everywhere(ctx, t, "*filter\n-I "+jump+"COMMIT\n"); err != nil {
					return err
				}
				pause(ctx, t.suite.options.Conflict/inserts)
			}
			t.counts()
			return nil
		},
		Meanwhile: func(_ context.Context, t *target) error {
			now, err := t.handles()
			if err != nil {
				return err
			}
			before, _ := t.noted.(map[string][]uint64)
			for _, name := range slices.Sorted(maps.Keys(before)) {
				for _, handle := range before[name] {
					if !slices.Contains(now[name], handle) {
						return fmt.Errorf("%s: rule %d of chain %s was set again, though nothing stands in its way", t.Name(), handle, name)
					}
				}
			}
			t.remarks = append(t.remarks, fmt.Sprintf("jumps before ours: %d; none of the rules there were was touched", inserts))
			return nil
		},
		Undo: func(ctx context.Context, t *target) error {
			return everywhere(ctx, t, "*filter\n"+strings.Repeat("-D "+jump, inserts)+"-F KUBE-FORWARD\n-X KUBE-FORWARD\nCOMMIT\n")
		}}
}

// rulesetFlushed does what nftables.service does when it starts, stops or reloads: its file begins with flush ruleset, and
// what iptables made through nf_tables is in that set.
func rulesetFlushed() Fault {
	flush, putBack := flushing(func(_ context.Context, t *target) error { return t.flushRuleset() })
	return Fault{Name: "nftables reloads: flush ruleset", Class: Rules, NFTables: true, Inject: flush,
		After: func(ctx context.Context, t *target) error { return errors.Join(putBack(ctx, t), t.plantTable()) }}
}
