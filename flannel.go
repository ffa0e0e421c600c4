package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// This file makes selvaged accept flannel's command line: the forms of Go's package flag, and the flags that have no
// effect here. Documentation/migration.md has the table.

// register adds the flags of flannel, or of an older release of it, that have no effect here.
func (n noEffect) register(s *pflag.FlagSet) {
	// klog's flags that flannel registers, or did in an older release. Values are not validated.
	for _, name := range []string{
		"vmodule", "log_backtrace_at", "log_dir", "log_file", "log_file_max_size", "stderrthreshold",
	} {
		s.String(name, "", noEffectUsage)
		n[name] = true
	}
	for _, name := range []string{"logtostderr", "alsologtostderr", "one_output", "add_dir_header", "skip_headers",
		"skip_log_headers", "legacy_stderr_threshold_behavior"} {
		s.Bool(name, false, noEffectUsage)
		n[name] = true
	}
	for name := range n {
		_ = s.MarkHidden(name) // defined above
	}
}

const noEffectUsage = "accepted for compatibility with flannel, has no effect"

// noEffect is the set of names of flags without effect.
type noEffect map[string]bool

// given returns the flags that were set on the command line or in the environment, with two dashes, sorted.
func (n noEffect) given(s *pflag.FlagSet) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(n)) {
		if f := s.Lookup(name); f != nil && f.Changed {
			names = append(names, "--"+name)
		}
	}
	return names
}

// flannelArgs converts a command line from the forms of Go's package flag, which flannel uses, to those of pflag:
//
//   - -etcd-endpoints becomes --etcd-endpoints, for the flags of s only;
//   - the word true after a boolean flag is omitted. For package flag it ends the flags, and flannel ignores it and all
//     that follows; here the flags that follow have effect.
//
// The word false there is an error, because with flannel the flag is true. Of the arguments of a subcommand, only the
// dashes are converted.
func flannelArgs(args []string, s *pflag.FlagSet) ([]string, error) {
	var out []string
	sub := false // a is an argument of a subcommand
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return append(out, args[i:]...), nil
		}
		name, _, assigned := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-"), "=")
		f := s.Lookup(name)
		if !strings.HasPrefix(a, "-") || f == nil {
			sub = sub || !strings.HasPrefix(a, "-")
			out = append(out, a)
			continue
		}
		if !strings.HasPrefix(a, "--") {
			a = "-" + a
		}
		out = append(out, a)
		switch {
		case assigned || i+1 == len(args) || sub:
		case f.NoOptDefVal == "": // the next word is the value, even with a dash
			i++
			out = append(out, args[i])
		default:
			value, err := strconv.ParseBool(args[i+1])
			if err != nil {
				continue
			}
			if i++; !value {
				return nil, fmt.Errorf("--%s %s: a boolean flag takes its value after \"=\": write --%s=%s. "+
					"flannel treats this as --%s, and ignores what follows", name, args[i], name, args[i], name)
			}
		}
	}
	return out, nil
}
