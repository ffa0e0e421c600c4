package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// withRules makes a step of a fault of what is to be done to the rules of each of its families.
func withRules(fn func(context.Context, *target, subnet.Family) error) step {
	return func(ctx context.Context, t *target) error {
		return t.eachFamily(func(f subnet.Family) error { return fn(ctx, t, f) })
	}
}

// iptables runs one command a line.
func iptables(lines ...string) step {
	return withRules(func(ctx context.Context, t *target, f subnet.Family) error {
		for _, line := range lines {
			if _, err := t.Output(ctx, append([]string{iptablesOf(f), "-w"}, strings.Fields(line)...)...); err != nil {
				return err
			}
		}
		return nil
	})
}

// onJumps puts together, for each rule that leads to a chain of selvage's, what edit makes of it, and has iptables do that.
// A rule is given without its "-A ".
func onJumps(edit func(rule string) string) step {
	return withRules(func(ctx context.Context, t *target, f subnet.Family) error {
		for _, table := range []string{"filter", "nat"} {
			save, err := t.Output(ctx, iptablesOf(f)+"-save", "-t", table)
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
			if err := t.restoreRules(ctx, f, input+"COMMIT\n", "-w", "--noflush"); err != nil {
				return err
			}
		}
		return nil
	})
}

func deleteJump(rule string) string { return "-D " + rule }

// flushing has a fault remember the rules there are before it takes away those of others too, and puts these back later,
// which is for whoever they are of to do.
func flushing(inject step) (remembering, putBack step) {
	remembering = func(ctx context.Context, t *target) error {
		for _, f := range t.families {
			save, err := t.Output(ctx, iptablesOf(f)+"-save")
			if err != nil {
				return err
			}
			t.saved[f] = string(save)
		}
		return inject(ctx, t)
	}
	putBack = withRules(func(ctx context.Context, t *target, f subnet.Family) error {
		var input strings.Builder
		for line := range strings.Lines(t.saved[f]) {
			if !strings.Contains(line, ours) && line[0] != '#' {
				input.WriteString(line)
			}
		}
		return t.restoreRules(ctx, f, input.String(), "-w", "--noflush")
	})
	return remembering, putBack
}

func ruleFaults() []Fault {
	flush, putBack := flushing(iptables("-t filter -F", "-t nat -F"))
	fault := func(name string, do step) Fault {
		return Fault{Name: name, Class: Rules, Families: both(), Inject: do}
	}
	return append([]Fault{
		{Name: "filter and nat flushed", Class: Rules, Families: both(), Inject: flush, After: putBack},
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
		{Name: "our jump behind a DROP", Class: Rules, Families: both(), Inject: iptables("-t filter -I FORWARD 1 -j DROP"),
			After: iptables("-t filter -D FORWARD -j DROP")},
	}, forwardingFaults()...)
}

// forwardingFaults are about the settings without which no rule gets to see a packet.
func forwardingFaults() []Fault {
	fault := func(name string, do func(*target, subnet.Family) error) Fault {
		return Fault{Name: name, Class: Rules, Families: both(), Inject: inEachFamily(do)}
	}
	return []Fault{
		fault("forwarding off", func(t *target, f subnet.Family) error { return t.write(ipForward(f), "0") }),
		// systemd-networkd has IPv4Forwarding= and IPv6Forwarding= for each interface.
		fault("forwarding off on the device and the uplink", func(t *target, f subnet.Family) error {
			return errors.Join(t.write(forwardingOf(f, deviceOf(f)), "0"), t.write(forwardingOf(f, uplinkName), "0"))
		}),
	}
}
