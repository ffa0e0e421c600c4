package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// unknownCommand is the error for a word that is no command.
type unknownCommand struct {
	word  string
	hints []string // words that it may stand for
}

// Error implements error.
func (u unknownCommand) Error() string {
	text := fmt.Sprintf("there is no command %q", u.word)
	if len(u.hints) > 0 {
		return text + ": did you mean " + strings.Join(u.hints, " or ") + "?"
	}
	return text + `: see "help"; to run a program on a node: exec node1 ` + u.word
}

// daemonCommands lists selvaged's commands, by its own completion.
func daemonCommands(ctx context.Context, selvaged string) []string {
	out, err := exec.CommandContext(ctx, selvaged, "__complete", "").Output()
	if err != nil {
		return nil // they can still be run with exec
	}
	return slices.DeleteFunc(completions(string(out)), func(name string) bool {
		return name == "completion" || name == "help"
	})
}

// completions are the words of what cobra's __complete prints: a word and its description a line, then a line that
// begins with a colon.
func completions(out string) (words []string) {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, ":") {
			break
		}
		word, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		words = append(words, word)
	}
	return words
}

// onNode runs one of selvaged's commands, on the node that is named before it or else on s.here.
func (s *session) onNode(ctx context.Context, args []string, io stdio) error {
	node, args, err := s.whichNode(args)
	if err != nil {
		return err
	}
	if len(args) == 0 && s.move {
		s.here = node
		return nil
	}
	if len(args) == 0 {
		return fmt.Errorf("%s: which command? For example: %s status", node, node)
	}
	if args[0] == "selvaged" {
		args = args[1:]
	}
	if len(args) == 0 || !slices.Contains(s.daemon, args[0]) && !strings.HasPrefix(args[0], "-") {
		word := strings.Join(args[:min(1, len(args))], "")
		return unknownCommand{word, s.like(word)}
	}
	n, err := s.node(node)
	if err != nil {
		return err
	}
	return n.Exec(ctx, append([]string{"selvaged"}, s.withAddresses(args)...), io.forProgram())
}

// whichNode takes the name of a node from the front of a command line.
func (s *session) whichNode(args []string) (node string, rest []string, err error) {
	if slices.Contains(s.nodeNames(), args[0]) {
		return args[0], args[1:], nil
	}
	if s.here == "" {
		return "", args, errors.New("the lab has no node")
	}
	return s.here, args, nil
}

// withAddresses replaces the names of pods by their addresses in the arguments of explain, which knows the pods of its
// own node only.
func (s *session) withAddresses(args []string) []string {
	if args[0] != "explain" {
		return args
	}
	args = slices.Clone(args)
	for i, word := range args[1:] {
		p, err := s.pod(word)
		if err != nil {
			continue
		}
		for _, f := range subnet.Families() {
			if a := p.Addr(f); a.IsValid() {
				args[1+i] = a.String()
				break
			}
		}
	}
	return args
}

// like lists the commands that look like a word.
func (s *session) like(word string) []string {
	if word == "" {
		return nil
	}
	all := append([]string{"help"}, s.daemon...)
	for _, c := range commands() {
		all = append(all, c.name)
	}
	return subnet.Similar(word, append(all, s.nodeNames()...))
}
