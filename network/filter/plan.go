package filter

import (
	"fmt"
	"slices"
	"strings"
)

// state is what one table was found to hold, written like the rules of a [table].
type state struct {
	parent []string // all rules of the built-in chain, ours and others'
	exists bool     // our chain is there
	rules  []string // what our chain holds
	// blocking holds those rules of the built-in chain behind which we would never be asked: see blocks.
	blocking map[string]bool
}

// plan compares what is wanted with what is there. It returns the input for iptables-restore --noflush that makes them
// the same, and what that changes, in words; both are empty if there is nothing to do.
//
// Jumps are deleted by what they say and not by their number: numbers shift when somebody else edits the chain between
// our reading and our writing. If a jump is gone by then, the whole input fails and nothing has changed.
func plan(want table, have state) (input string, changes []string) {
	var lines []string
	wanted := len(want.rules) > 0
	jumps, others := split(have.parent, want.chain)

	if sameChain := have.exists == wanted && slices.Equal(have.rules, want.rules); wanted && !sameChain {
		lines = append(lines, ":"+want.chain+" - [0:0]") // makes the chain, or empties it
		for _, r := range want.rules {
			lines = append(lines, "-A "+want.chain+" "+r)
		}
		if have.exists {
			changes = append(changes, fmt.Sprintf("set chain %s to its %d rules, it held %d that differ in part or all",
				want.chain, len(want.rules), len(have.rules)))
		} else {
			changes = append(changes, fmt.Sprintf("made chain %s with %d rules", want.chain, len(want.rules)))
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
			changes = append(changes, fmt.Sprintf("removed all %d jumps from %s to %s", len(jumps), want.parent, want.chain))
		}
		if wanted {
			line, where := "-A "+want.parent, "at its end"
			if at := placement(others, have.blocking); at < len(others) {
				line, where = fmt.Sprintf("-I %s %d", want.parent, at+1), fmt.Sprintf("before its rule %q", others[at])
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

// inPlace reports whether the one jump that is wanted is there, where packets reach it. It need not be where we would put
// it: rules that others append after it, or insert before it, are no reason to move, as long as they let packets pass.
func inPlace(want table, have state, jumps []string) bool {
	return len(jumps) == 1 && jumps[0] == want.jump && slices.Index(have.parent, want.jump) < placement(have.parent, have.blocking)
}

// placement returns the index at which a jump belongs in a chain that holds the given rules. That is the end, so that
// network policy agents, whose chains are called from the top, keep their say; but before the first rule that lets
// nothing of ours pass, such as the REJECT at the end of a firewall's FORWARD, as behind it we would never be asked.
func placement(rules []string, blocking map[string]bool) int {
	if i := slices.IndexFunc(rules, func(r string) bool { return blocking[r] }); i >= 0 {
		return i
	}
	return len(rules)
}

// split parts the rules that jump to chain, in whatever form, from the others. The chain is ours, so these are too.
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

// target returns what a rule jumps or goes to, "" if nothing.
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
			i++ // anybody may write "-j DROP" into a comment
		}
	}
	return ""
}

// splitWords splits a rule at white space as iptables-restore does: double quotes keep words together, a backslash takes the
// next character as it is.
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
