package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// matrixOptions say which combinations are tried, and on what lab.
type matrixOptions struct {
	lab     lab.Options
	only    string
	list    bool
	verbose bool
}

func matrixFlags(o *matrixOptions) *pflag.FlagSet {
	flags := pflag.NewFlagSet("lab matrix", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.StringVar(&o.only, "only", "", "only the combinations whose name, as --list prints it, this regular expression matches")
	flags.BoolVar(&o.list, "list", false, "print the names and try nothing")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "print what the daemons logged as a warning, too")
	flags.IntVarP(&o.lab.Nodes, "nodes", "n", lab.DefaultNodes, "how many nodes each lab has")
	flags.StringArrayVar(&o.lab.DaemonArgs, "daemon-arg", nil, "argument for selvaged; repeatable")
	flags.StringVar(&o.lab.Bin, "bin", "",
		"directory of selvaged, selvage, etcd, cni/ and wireguard (default: this program's)")
	return flags
}

// matrixCommand parses the arguments of lab matrix and does it.
func matrixCommand(args []string, usage func()) int {
	var o matrixOptions
	flags := matrixFlags(&o)
	flags.Usage = usage
	if err := flags.Parse(args); err != nil {
		return flagError(err)
	}
	if err := checkArguments("matrix", flags); err != nil {
		return fail(err)
	}
	chosen, err := choose(lab.Combinations(), o.only)
	if err != nil {
		return fail(err)
	}
	if o.list {
		for _, c := range chosen {
			fmt.Println(c)
		}
		return 0
	}
	return sandbox.Run(func() int { return matrix(o, chosen) })
}

func choose(all []lab.Combination, only string) (chosen []lab.Combination, err error) {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("--only: %w", err)
	}
	for _, c := range all {
		if pattern.MatchString(c.String()) {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("--only %q matches none of the %d combinations: see \"lab matrix --list\"", only, len(all))
	}
	return chosen, nil
}

// errMatrix is returned when a combination does not work; what is wrong has been printed.
var errMatrix = errors.New("not every combination works")

// matrix tries one combination after the other and prints a table. The exit code is 0 if all of them work.
func matrix(o matrixOptions, chosen []lab.Combination) int {
	ctx, stop := signals()
	defer stop()
	reports := tryAll(ctx, os.Stdout, o.lab, chosen)
	if ctx.Err() != nil {
		return interrupted
	}
	fmt.Println()
	if !printReports(os.Stdout, reports, o.verbose) {
		return fail(errMatrix)
	}
	return 0
}

// tryAll says of each combination, as it goes, whether it works.
func tryAll(ctx context.Context, w io.Writer, o lab.Options, chosen []lab.Combination) (reports []lab.Report) {
	for i, c := range chosen {
		fmt.Fprintf(w, "%3d/%d %-65s ", i+1, len(chosen), c)
		r := c.Run(ctx, o)
		if ctx.Err() != nil {
			fmt.Fprintln(w)
			return reports
		}
		fmt.Fprintf(w, "%s\n", verdict(w, r.OK()))
		reports = append(reports, r)
	}
	return reports
}

// manyProblems is how many problems of a combination are printed.
const manyProblems = 3

// printReports prints a table, then the problems, and tells whether there are none.
func printReports(w io.Writer, reports []lab.Report, verbose bool) bool {
	works, took := 0, time.Duration(0)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "FAMILIES\tBACKEND\tFILTER\tSTORE\tSEGS\tMTU\tOK/LOST\tFULL OK/LOST\tFRAGS\tSECONDS\t")
		for _, r := range reports {
			c := r.Combination
			// A cell in colour would be taken for a wider one, so the verdict is the last.
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d/%d\t%d/%d\t%d\t%.1f\t%s\n",
				lab.FamiliesName(c.Families), c.Backend.Name, c.Filter.Name, c.Store, c.Segments, c.UplinkMTU(),
				r.Probes-r.Lost, r.Lost, r.Full-r.Stuck, r.Stuck, r.Fragments, r.Took.Seconds(), verdict(w, r.OK()))
			took += r.Took
			if r.OK() {
				works++
			}
		}
	})
	for _, r := range reports {
		printProblems(w, r, verbose)
	}
	fmt.Fprintf(w, "\n%d of %d combinations work; it took %s.\n", works, len(reports), took.Round(100*time.Millisecond))
	return works == len(reports)
}

// printProblems prints what is wrong with a combination, if anything is, and what its daemons logged if that is wanted.
func printProblems(w io.Writer, r lab.Report, verbose bool) {
	if r.OK() && (!verbose || len(r.Logged) == 0) {
		return
	}
	fmt.Fprintf(w, "\n%s\n", r.Combination)
	for i, p := range r.Problems {
		if i == manyProblems {
			fmt.Fprintf(w, "  and %d more\n", len(r.Problems)-i)
			break
		}
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(p, "\n", "\n  "))
	}
	if verbose {
		for _, line := range r.Logged {
			fmt.Fprintf(w, "  logged: %s\n", line)
		}
	}
}
