package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// firewalld is what a reload of a firewall leaves: nobody else's rules, and a REJECT at the end.
const firewalld = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:ZONES - [0:0]
-A FORWARD -i lo -j ACCEPT
-A FORWARD -j ZONES
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
*nat
:POST_ZONES - [0:0]
-A POSTROUTING -j POST_ZONES
COMMIT
`

func firewallReplaced() Fault {
	reload, putBack := flushing(func(ctx context.Context, t *target) error {
		return t.restoreRules(ctx, firewalld, "-w")
	})
	return Fault{Name: "a firewall reloads: all rules replaced, REJECT at the end", Class: Rules, Inject: reload,
		After: func(ctx context.Context, t *target) error {
			const undo = `*filter
-D FORWARD -i lo -j ACCEPT
-D FORWARD -j ZONES
-D FORWARD -j REJECT --reject-with icmp-host-prohibited
-X ZONES
COMMIT
*nat
-D POSTROUTING -j POST_ZONES
-X POST_ZONES
COMMIT
`
			if err := t.restoreRules(ctx, undo, "-w", "--noflush"); err != nil {
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
	reload, putBack := flushing(func(ctx context.Context, t *target) error {
		for _, input := range []string{policies("DROP"), fmt.Sprintf(emptied+emptied, "nat", "filter"), policies("ACCEPT")} {
			if err := t.restoreRules(ctx, input, "-w", "--noflush"); err != nil {
				return err
			}
		}
		return nil
	})
	return Fault{Name: "firewalld reloads: policies DROP, all chains emptied and deleted", Class: Rules, Inject: reload, After: putBack}
}

// kubeProxy inserts its own jump before all others again and again, as each of several agents does that wants to be first.
// Ours need not be first, so it is to stay where it is.
func kubeProxy() Fault {
	const inserts = 20
	const chain = `*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -s 203.0.113.88/32 -j ACCEPT
COMMIT
`
	const jump = `FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD` + "\n"
	return Fault{Name: "kube-proxy inserts its jump before ours 20 times", Class: Rules, Unbroken: true, Running: true, NFTables: true,
		NoLoss: true, Long: true, Follow: true,
		Inject: func(ctx context.Context, t *target) error {
			before, err := t.handles()
			if err != nil {
				return err
			}
			t.noted = before
			if err := t.restoreRules(ctx, chain, "-w", "--noflush"); err != nil {
				return err
			}
			for range inserts {
				if err := t.restoreRules(ctx, "*filter\n-I "+jump+"COMMIT\n", "-w", "--noflush"); err != nil {
					return err
				}
				pause(ctx, t.suite.options.Fight/inserts)
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
			return t.restoreRules(ctx, "*filter\n"+strings.Repeat("-D "+jump, inserts)+"-F KUBE-FORWARD\n-X KUBE-FORWARD\nCOMMIT\n", "-w", "--noflush")
		}}
}

// rulesetFlushed does what nftables.service does when it starts, stops or reloads: its file begins with flush ruleset, and
// what iptables made through nf_tables is in that set.
func rulesetFlushed() Fault {
	flush, putBack := flushing(func(_ context.Context, t *target) error { return t.flushRuleset() })
	return Fault{Name: "nftables reloads: flush ruleset", Class: Rules, NFTables: true, Inject: flush,
		After: putBack}
}
