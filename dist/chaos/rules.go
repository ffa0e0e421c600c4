package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/dist/lab"
)

// ours marks the lines of iptables-save that are selvage's: its chains' names begin so.
const ours = "SELVAGE-"

// chains are a packet filter's rules by table and chain, "filter FORWARD" for instance, in their order.
type chains map[string][]string

// parseRules reads what iptables-save prints. A chain's first line is its policy; counters are left out.
func parseRules(save string) chains {
	c, table := chains{}, ""
	for line := range strings.Lines(save) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"):
			f := strings.Fields(line[1:])
			c[table+" "+f[0]] = append([]string{"policy " + f[1]}, c[table+" "+f[0]]...)
		case strings.HasPrefix(line, "-A "):
			chain, rule, _ := strings.Cut(line[3:], " ")
			c[table+" "+chain] = append(c[table+" "+chain], rule)
		}
	}
	return c
}

// part splits c into what is selvage's, with what drops or rejects everything and where it stands relative to ours, and
// what is not.
func (c chains) part() (our, others []string) {
	for name, rules := range c {
		if strings.Contains(name, ours) {
			our = append(our, name+": "+strings.Join(rules, "; "))
			continue
		}
		blocked := ""
		for _, r := range rules {
			switch {
			case strings.Contains(r, ours):
				our = append(our, name+": "+r+blocked)
			default:
				others = append(others, name+": "+r)
				if r == "-j DROP" || strings.HasPrefix(r, "-j REJECT") {
					blocked = " (never reached, behind " + r + ")"
				}
			}
		}
	}
	// Within a chain the order counts; chains come in any.
	slices.Sort(our)
	slices.SortStableFunc(others, func(a, b string) int {
		chainA, _, _ := strings.Cut(a, ":")
		chainB, _, _ := strings.Cut(b, ":")
		return strings.Compare(chainA, chainB)
	})
	return our, others
}

// rules reads a node's packet filter.
func (h *host) rules(ctx context.Context) (our, others []string, err error) {
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		out, err := h.Output(ctx, program)
		if err != nil {
			return nil, nil, err
		}
		o, x := parseRules(string(out)).part()
		our = append(our, o...)
		for _, line := range x {
			others = append(others, strings.TrimSuffix(program, "-save")+" "+line)
		}
	}
	return our, others, nil
}

// restoreRules feeds rules to iptables-restore.
func (h *host) restoreRules(ctx context.Context, rules string, options ...string) error {
	var problems strings.Builder
	err := h.Exec(ctx, append([]string{"iptables-restore"}, options...), lab.Stdio{In: strings.NewReader(rules), Err: &problems})
	if err != nil {
		return fmt.Errorf("%w: %s; the input was %q", err, strings.TrimSpace(problems.String()), rules)
	}
	return nil
}
