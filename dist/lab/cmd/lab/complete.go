package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
)

// completeWithin is how long a completion may take: selvaged may ask its daemon.
const completeWithin = 2 * time.Second

// complete returns the words that the last of the words typed can become.
func (s *session) complete(ctx context.Context, words []string) []string {
	begun := words[len(words)-1]
	var all []string
	for _, w := range s.candidates(ctx, words[:len(words)-1], begun) {
		if strings.HasPrefix(w, begun) && !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	slices.Sort(all)
	return all
}

// candidates returns the words that can follow those before, whether or not they begin with begun.
func (s *session) candidates(ctx context.Context, before []string, begun string) (all []string) {
	if len(before) == 0 {
		all = append([]string{"help"}, s.nodeNames()...)
		for _, c := range commands() {
			all = append(all, c.name)
		}
		return append(all, s.daemon...)
	}
	for _, c := range commands() {
		switch {
		case c.name != before[0]:
		case c.name == "exec" && len(before) > 2 && before[2] == "selvaged" &&
			slices.Contains(s.nodeNames(), before[1]):
			return s.ofDaemon(ctx, before[1], before[3:], begun)
		case c.words != nil:
			return c.words(s, before[1:])
		default:
			return nil
		}
	}
	node, rest, err := s.whichNode(before)
	if err != nil {
		return nil
	}
	return s.ofDaemon(ctx, node, rest, begun)
}

// ofDaemon asks selvaged on a node, as a shell does, and adds the pods to what can be explained.
func (s *session) ofDaemon(ctx context.Context, node string, before []string, begun string) []string {
	if len(before) == 0 {
		return s.daemon
	}
	n, err := s.node(node)
	if err != nil || !slices.Contains(s.daemon, before[0]) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	// Without words on an error.
	out, _ := n.Output(ctx, append(append([]string{"selvaged", "__complete"}, before...), begun)...)
	words := completions(string(out))
	if before[0] == "explain" {
		words = append(words, s.podNames()...)
	}
	return words
}

func (s *session) nodeNames() (names []string) {
	for _, n := range s.lab.Nodes() {
		names = append(names, n.Name())
	}
	return names
}

func (s *session) podNames() (names []string) {
	for _, p := range s.lab.Pods() {
		names = append(names, p.PodName())
	}
	return names
}

func (s *session) endpointNames() []string {
	return append(append(s.podNames(), s.nodeNames()...), s.lab.Outside().Name())
}

// first is for a command whose first argument alone is a name.
func first(names func(*session) []string) func(*session, []string) []string {
	return func(s *session, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return names(s)
	}
}

func pairWords(s *session, args []string) []string {
	if len(args) > 1 {
		return nil
	}
	return s.endpointNames()
}

func podWords(s *session, args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"add", "del"}
	case len(args) == 1 && args[0] == "add":
		return s.nodeNames()
	case len(args) == 1 && args[0] == "del":
		return s.podNames()
	}
	return nil
}

func faultWords(s *session, args []string) (names []string) {
	switch len(args) {
	case 0, 2:
		return s.nodeNames()
	case 1:
		for _, f := range lab.Faults() {
			names = append(names, f.Name)
		}
	}
	return names
}

// commonPrefix is what all words begin with.
func commonPrefix(words []string) string {
	prefix := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	return prefix
}

// inColumns lists words in as many columns as fit.
func inColumns(words []string, width int) string {
	longest := 0
	for _, w := range words {
		longest = max(longest, len(w))
	}
	columns := max(1, width/(longest+2))
	rows := (len(words) + columns - 1) / columns
	var b strings.Builder
	for row := range rows {
		line := ""
		for i := row; i < len(words); i += rows {
			line += words[i] + strings.Repeat(" ", longest+2-len(words[i]))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}
