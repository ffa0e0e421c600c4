package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/subnet"
)

// ExplainUsage makes root and all commands below it say what is wrong with a command line in one line: an unknown
// command or flag with the ones that look like it, a missing or surplus argument with the usage.
func ExplainUsage(root *cobra.Command) {
	root.SetFlagErrorFunc(explainFlag)
	for _, c := range root.Commands() {
		ExplainUsage(c)
	}
	check := root.Args
	root.Args = func(c *cobra.Command, args []string) error {
		if check == nil || check(c, args) == nil {
			return nil
		}
		return explainArgs(c, args)
	}
}

// explainArgs returns the error for arguments that a command does not take. The words after its name in c.Use are the
// arguments that it takes; those in brackets are optional.
func explainArgs(c *cobra.Command, args []string) error {
	if c.HasSubCommands() {
		if len(args) == 0 {
			return fmt.Errorf("which command? Usage: %s", c.UseLine())
		}
		var names []string
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		return fmt.Errorf("unknown command %q%s (see %s --help)",
			args[0], didYouMean(args[0], "", names), c.CommandPath())
	}
	takes := strings.Fields(c.Use)[1:]
	switch {
	case len(args) < len(takes) && !strings.HasPrefix(takes[len(args)], "["):
		return fmt.Errorf("%s is missing. Usage: %s", takes[len(args)], c.UseLine())
	case len(args) > len(takes):
		return fmt.Errorf("unexpected argument %q. Usage: %s", args[len(takes)], c.UseLine())
	default:
		return fmt.Errorf("wrong arguments %q. Usage: %s", args, c.UseLine())
	}
}

// explainFlag adds to the error of an unknown flag the ones that look like it, and to all others the usage.
func explainFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return fmt.Errorf("%w. Usage: %s", err, c.UseLine())
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return fmt.Errorf("%w%s (see %s --help)", err, didYouMean(unknown.GetSpecifiedName(), "--", names), c.CommandPath())
}

// didYouMean returns a phrase with the names that are similar to a word, each with a prefix.
func didYouMean(word, prefix string, names []string) string {
	like := subnet.Similar(word, names)
	if len(like) == 0 || word == "" {
		return ""
	}
	return ": did you mean " + prefix + strings.Join(like, " or "+prefix) + "?"
}
