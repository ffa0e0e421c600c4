package chaos

import (
	"context"
	"fmt"
	"os"
	"strings"
)

const ipForward = "/proc/sys/net/ipv4/ip_forward"

// iptables runs one command a line.
func iptables(lines ...string) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		for _, line := range lines {
			if _, err := t.Output(ctx, append([]string{"iptables", "-w"}, strings.Fields(line)...)...); err != nil {
				return err
			}
		}
		return nil
	}
}

// onJumps puts together, for each rule that leads to a chain of selvage's, what edit makes of it, and has iptables do that.
// A rule is given without its "-A ".
func onJumps(edit func(rule string) string) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		for _, table := range []string{"filter", "nat"} {
			save, err := t.Output(ctx, "iptables-save", "-t", table)
			if err != nil {
				return err
			}
			input := "*" + table + "\n"
			for line := range strings.Lines(string(save)) {
				rule, isRule := strings.CutPrefix(strings.TrimSpace(line), "-A ")
				if isRule && strings.Contains(rule, "-j "+ours) {
					input += edit(rule) + "\n"
				}
			}
			if err := t.restoreRules(ctx, input+"COMMIT\n", "-w", "--noflush"); err != nil {
				return err
			}
		}
		return nil
	}
}

func deleteJump(rule string) string { return "-D " + rule }

// flushing has a fault remember the rules there are before it takes away those of others too, and puts these back later,
// which is for whoever they are of to do.
func flushing(inject func(context.Context, *target) error) (remembering, putBack func(context.Context, *target) error) {
	remembering = func(ctx context.Context, t *target) error {
		save, err := t.Output(ctx, "iptables-save")
		if err != nil {
			return err
		}
		t.saved = string(save)
		return inject(ctx, t)
	}
	putBack = func(ctx context.Context, t *target) error {
		var input strings.Builder
		for line := range strings.Lines(t.saved) {
			if !strings.Contains(line, ours) && line[0] != '#' {
				input.WriteString(line)
			}
		}
		return t.restoreRules(ctx, input.String(), "-w", "--noflush")
	}
	return remembering, putBack
}

func ruleFaults() []Fault {
	flush, putBack := flushing(iptables("-t filter -F", "-t nat -F"))
	fault := func(name string, do func(context.Context, *target) error) Fault {
		return Fault{Name: name, Class: Rules, Inject: do}
	}
	return []Fault{
		{Name: "filter and nat flushed", Class: Rules, Inject: flush, After: putBack},
		fault("our chains flushed", iptables("-t filter -F "+ours+"FWD", "-t nat -F "+ours+"POSTRTG")),
		fault("our jumps deleted", onJumps(deleteJump)),
		// In one go: else the daemon is quicker than the next step.
		fault("our jumps and chains deleted", onJumps(func(rule string) string {
			chain := ours + strings.Fields(rule[strings.LastIndex(rule, ours)+len(ours):])[0]
			return fmt.Sprintf("%s\n-F %s\n-X %s", deleteJump(rule), chain, chain)
		})),
		fault("our jumps made three", onJumps(func(rule string) string {
			chain, rest, _ := strings.Cut(rule, " ")
			return "-A " + rule + "\n-I " + chain + " 1 " + rest
		})),
		{Name: "our jump behind a DROP", Class: Rules, Inject: iptables("-t filter -I FORWARD 1 -j DROP"),
			After: iptables("-t filter -D FORWARD -j DROP")},
		fault("ip_forward off", func(_ context.Context, t *target) error {
			return t.host.Do(func() error { return os.WriteFile(ipForward, []byte("0"), 0) })
		}),
	}
}

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

// agentFaults are what programs do that manage a host's network.
func agentFaults() []Fault {
	reload, putBack := flushing(func(ctx context.Context, t *target) error {
		return t.restoreRules(ctx, firewalld, "-w")
	})
	return []Fault{
		{Name: "a network manager takes the device: down, flushed, up, another MAC", Class: Device, Inject: onDevice(func(t tables) error {
			if err := t.nl.LinkSetDown(t.link); err != nil {
				return err
			}
			// What is set here races with the repair, so it may fail; each step is a fault by itself.
			_ = t.flush()
			_ = t.flushAddresses()
			_ = t.nl.LinkSetUp(t.link)
			return t.nl.LinkSetHardwareAddr(t.link, t.otherMAC())
		})},
		{Name: "a firewall reloads: all rules replaced, REJECT at the end", Class: Rules, Inject: reload,
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
			}},
	}
}
