package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
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

// ownRules are those of a node's packet filter that are selvage's by their place.
type ownRules struct {
	lines []string // without the accepted peers
	peers elements
}

// rules reads selvage's rules.
func (h *host) rules(ctx context.Context) (our ownRules, err error) {
	if h.nftables {
		return h.withTables(nil)
	}
	lines, _, err := h.iptablesRules(ctx)
	if err != nil {
		return our, err
	}
	return h.withTables(lines)
}

// allRules reads selvage's rules and those of others, which include what selvage has in the wrong place. It runs iptables-save once
// for both: a process costs more than all other reading.
func (h *host) allRules(ctx context.Context) (our ownRules, others []string, err error) {
	lines, others, err := h.iptablesRules(ctx)
	if err != nil {
		return our, nil, err
	}
	if h.nftables {
		others, lines = append(others, lines...), nil
	}
	theirs, held, err := h.dumpTable(foreignTable)
	if err != nil {
		return our, nil, err
	}
	our, err = h.withTables(lines)
	return our, slices.Concat(others, theirs, held["peers-of-theirs"]), err
}

// withTables adds what nf_tables holds of selvage's to the lines of iptables.
func (h *host) withTables(lines []string) (our ownRules, err error) {
	if h.nftables {
		if lines, _, err = h.dumpTable(filterTable); err != nil {
			return our, err
		}
	}
	vteps, peers, err := h.dumpTable(vtepTable)
	return ownRules{append(lines, vteps...), peers}, err
}

// iptablesRules reads what iptables has.
func (h *host) iptablesRules(ctx context.Context) (our, others []string, err error) {
	for _, f := range subnet.Families() {
		out, err := h.Output(ctx, iptablesOf(f)+"-save")
		if err != nil {
			return nil, nil, err
		}
		o, x := parseRules(string(out)).part()
		for _, line := range o {
			our = append(our, iptablesOf(f)+" "+line)
		}
		for _, line := range x {
			others = append(others, iptablesOf(f)+" "+line)
		}
	}
	return our, others, nil
}

// ruleMarks are what there is to be among the rules.
func (h *host) ruleMarks() []string {
	var marks []string
	if h.backend.filtersVTEPs() {
		marks = append(marks, "nft "+vtepTable+" chain ")
	}
	if h.nftables {
		return append(marks, "nft "+filterTable+" chain ")
	}
	for _, f := range h.families {
		marks = append(marks, iptablesOf(f)+" filter "+ours, iptablesOf(f)+" nat "+ours)
	}
	return marks
}

// ruleFamily is the family of a line about rules.
func ruleFamily(line string) subnet.Family {
	if strings.Contains(line, iptablesOf(subnet.IPv6)+" ") {
		return subnet.IPv6
	}
	return subnet.IPv4
}

// restoreRules feeds rules to a family's iptables-restore.
func (h *host) restoreRules(ctx context.Context, f subnet.Family, rules string, options ...string) error {
	var problems strings.Builder
	err := h.Exec(ctx, append([]string{iptablesOf(f) + "-restore"}, options...), lab.Stdio{In: strings.NewReader(rules), Err: &problems})
	if err != nil {
		return fmt.Errorf("%w: %s; the input was %q", err, strings.TrimSpace(problems.String()), rules)
	}
	return nil
}
