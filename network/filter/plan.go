package filter

import (
	"fmt"
	"slices"
	"strings"
)

// state is the actual content of a table, written like the rules of a [table].
type state struct {
	parent []string // all rules of the built-in chain, of any program
	exists bool     // our chain exists
	rules  []string // of our chain
	// blocking holds the rules of the built-in chain that let no packet reach a jump after them: see blocks.
	blocking map[string]bool
}

// plan compares the desired with the actual content. It returns the input for iptables-restore --noflush that brings
// them in sync, and what that changes, as texts; both are empty if they are in sync.
//
// Jumps are deleted by their text and not by their number: numbers shift when another program edits the chain between
// our read and our write. If a jump no longer exists by then, the whole input fails and changes nothing.
func plan(want table, have state) (input string, changes []string) {
	var lines []string
	wanted := len(want.rules) > 0
	jumps, others := split(have.parent, want.chain)

	if sameChain := have.exists == wanted && slices.Equal(have.rules, want.rules); wanted && !sameChain {
		lines = append(lines, ":"+want.chain+" - [0:0]") // creates or flushes the chain
		for _, r := range want.rules {
			lines = append(lines, "-A "+want.chain+" "+r)
		}
		if have.exists {
			changes = append(changes, fmt.Sprintf("replaced the %d rules of chain %s with %d",
				len(have.rules), want.chain, len(want.rules)))
		} else {
			changes = append(changes, fmt.Sprintf("created chain %s with %d rules", want.chain, len(want.rules)))
		}
	}

	if !wanted || !inPlace(want, have, jumps) {
		for _, j := range jumps {
			lines = append(lines, "-D "+want.parent+" "+j)
		}
		switch len(jumps) {
		case 0:
		case 1:
			changes = append(changes, fmt.Sprintf("removed the jump from %s to %s", want.parent, want.chain))
		default:
			changes = append(changes, fmt.Sprintf("removed all %d jumps from %s to %s", len(jumps), want.parent,
				want.chain))
		}
		if wanted {
			line, where := "-A "+want.parent, "at its end"
			if at := placement(others, have.blocking); at < len(others) {
				line = fmt.Sprintf("-I %s %d", want.parent, at+1)
				where = fmt.Sprintf("before its rule %q", others[at])
			}
			lines = append(lines, line+" "+want.jump)
			changes = append(changes, fmt.Sprintf("added the jump from %s to %s %s", want.parent, want.chain, where))
		}
	}

	if !wanted && have.exists {
		lines = append(lines, ":"+want.chain+" - [0:0]", "-X "+want.chain) // only an empty chain can be deleted
		changes = append(changes, "removed chain "+want.chain)
	}

	if len(lines) == 0 {
		return "", nil
	}
	return "*" + want.name + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n", changes
}

// inPlace reports whether exactly the desired jump exists, where packets reach it. It is not moved because other
// programs inserted rules before it or appended rules after it, as long as packets still reach it.
func inPlace(want table, have state, jumps []string) bool {
	return len(jumps) == 1 && jumps[0] == want.jump &&
		slices.Index(have.parent, want.jump) < placement(have.parent, have.blocking)
}

// placement returns the index at which to insert a jump into a chain with the given rules. That is the end, so that the
// chains of network policy agents, which are called from the top, come first; but before the first rule that drops all
// overlay traffic, such as the REJECT at the end of a firewall's FORWARD chain.
func placement(rules []string, blocking map[string]bool) int {
	if i := slices.IndexFunc(rules, func(r string) bool { return blocking[r] }); i >= 0 {
		return i
	}
	return len(rules)
}

// split separates the rules that jump to chain, in any form, from the others. The chain is ours, so these rules are
// too.
func split(rules []string, chain string) (jumps, others []string) {
	for _, r := range rules {
		if target(r) == chain {
			jumps = append(jumps, r)
		} else {
			others = append(others, r)
		}
	}
	return jumps, others
}

// target returns the target of a rule, "" if it has none.
func target(rule string) string { return option(rule, "-j", "-g") }

// comment returns a rule's comment, "" if it has none.
func comment(rule string) string { return option(rule, "--comment") }

// option returns the word that follows the first of names in rule.
func option(rule string, names ...string) string {
	words := splitWords(rule)
	for i := 0; i+1 < len(words); i++ {
		if slices.Contains(names, words[i]) {
			return words[i+1]
		}
		if words[i] == "--comment" {
			i++ // a comment may contain "-j DROP"
		}
	}
	return ""
}

// splitWords splits a rule at white space as iptables-restore does: double quotes group words, a backslash escapes the
// next character.
func splitWords(rule string) (words []string) {
	var word strings.Builder
	started, quoted, escaped := false, false, false
	for _, c := range rule {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\':
			escaped, started = true, true
		case c == '"':
			quoted, started = !quoted, true
		case !quoted && (c == ' ' || c == '\t'):
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		default:
			word.WriteRune(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}
