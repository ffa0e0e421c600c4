package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

const ipForward = "/proc/sys/net/ipv4/ip_forward"

// noLinkLocal is 1 (IN6_ADDR_GEN_MODE_NONE) if the kernel gives the device no IPv6 link-local address.
const noLinkLocal = "/proc/sys/net/ipv6/conf/" + device + "/addr_gen_mode"

func forwardingOf(link string) string { return "/proc/sys/net/ipv4/conf/" + link + "/forwarding" }

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
			return t.write(ipForward, "0")
		}),
		// systemd-networkd has IPv4Forwarding= for each interface.
		fault("forwarding off on the device and the uplink", func(_ context.Context, t *target) error {
			return errors.Join(t.write(forwardingOf(device), "0"), t.write(forwardingOf(uplinkName), "0"))
		}),
	}
}
