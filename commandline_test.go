package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/network/command"
)

// own lists the commands that are ours, and not cobra's: help and completion.
func own(c *cobra.Command) (all []*cobra.Command) {
	if c.Name() == "help" || c.Name() == "completion" {
		return nil
	}
	all = append(all, c)
	for _, sub := range c.Commands() {
		all = append(all, own(sub)...)
	}
	return all
}

// TestExamples: each command has examples in its help, and each example is one that it takes, or a command below it.
func TestExamples(t *testing.T) {
	for _, c := range append(own(commands()), own(command.Plugin("v1"))...) {
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s: help has no example, or no first line", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: %q is to begin with two spaces", c.CommandPath(), line)
			}
			if err := parses(line, c.CommandPath()); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
			}
		}
	}
}

// parses looks whether the call of selvaged in a line for a shell is one of a command, and taken by it.
func parses(line, path string) error {
	line, _, _ = strings.Cut(line, " #")
	for call := range strings.FieldsFuncSeq(line, func(r rune) bool { return r == '|' || r == '&' || r == ';' }) {
		words := strings.Fields(call)
		for len(words) > 0 && strings.Contains(words[0], "=") { // of the environment
			words = words[1:]
		}
		var root *cobra.Command
		switch {
		case len(words) > 0 && words[0] == "selvaged":
			root, words = commands(), words[1:]
		case len(words) > 1 && words[0] == "kubectl" && words[1] == "selvage":
			root, words = command.Plugin("v1"), words[2:]
		default:
			continue
		}
		found, args, err := root.Find(words)
		if err != nil {
			return err
		}
		below := path != "selvaged" && strings.HasPrefix(found.CommandPath(), path+" ")
		if found.CommandPath() != path && !below {
			return fmt.Errorf("it is one of %q", found.CommandPath())
		}
		if args, err = flannelArgs(args, root.Flags()); err != nil {
			return err
		}
		if err := found.ParseFlags(args); err != nil {
			return err
		}
		return found.ValidateArgs(found.Flags().Args())
	}
	return errors.New("it does not call selvaged")
}

// TestExamplesAreJudged: an example that would not be taken is found.
func TestExamplesAreJudged(t *testing.T) {
	for line, path := range map[string]string{
		"  selvaged status --wach": "selvaged status", "  selvaged explain": "selvaged explain", "  selvaged peers": "selvaged status", "  echo": "selvaged",
	} {
		if parses(line, path) == nil {
			t.Errorf("%q passes", line)
		}
	}
}

// completion returns the script for a shell.
func completion(t *testing.T, shell string) []byte {
	t.Helper()
	return output(t, "completion", shell)
}

func output(t *testing.T, args ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	root := commands()
	root.SetOut(&out)
	root.SetErr(io.Discard) // what __complete says of itself
	root.SetArgs(args)
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCompletion: there are scripts for three shells, and bash can read its own. What they ask selvaged for are words that it takes.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if script := completion(t, shell); !bytes.Contains(script, []byte("__complete")) {
			t.Errorf("%s: %d bytes, and nothing in them that asks selvaged", shell, len(script))
		}
	}
	check := exec.Command("bash", "-n")
	check.Stdin = bytes.NewReader(completion(t, "bash"))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("bash: %v: %s", err, out)
	}
	for line, want := range map[string]string{
		"status -o ": "table json", "peers -o j": "json", "doctor --check daemon,pe": "daemon,peers", "--log-level ": "error warning info debug",
		"--vxlan-tx-checksum ": "on off auto", "doct": "doctor", "doctor --socket /nowhere --peer ": "",
		"--ready-requires ": "entries traffic", "--network-policy ": "on off auto", "config ": "show check set",
		"policy ": "explain list test", "policy test -o ": "table json junit", "policy explain --file /nowhere ": "", "drops -o ": "table json",
	} {
		args := strings.Split(line, " ")
		var words []string
		for word := range strings.Lines(string(output(t, append([]string{"__complete"}, args...)...))) {
			word, _, _ = strings.Cut(strings.TrimSpace(word), "\t")
			if !strings.HasPrefix(word, ":") {
				words = append(words, word)
			}
		}
		last := args[len(args)-1]
		if got := strings.Join(matching(words, last), " "); got != want {
			t.Errorf("%q: %q is offered, want %q", line, got, want)
		}
	}
}

// matching are the words that begin as what was typed does: for some flags that is left to the shell.
func matching(words []string, typed string) (some []string) {
	for _, w := range words {
		if strings.HasPrefix(w, typed) {
			some = append(some, w)
		}
	}
	return some
}

// TestFlagsHaveWords: no flag is without a description.
func TestFlagsHaveWords(t *testing.T) {
	for _, c := range own(commands()) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s says nothing of itself", c.CommandPath(), f.Name)
			}
		})
	}
}
