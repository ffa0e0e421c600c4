// Command chaos breaks a lab in every way there is and says how long it took until all was right again; see package chaos.
//
//	chaos                       all faults, then a random walk, then a node with 5,000 leases
//	chaos --list                what the faults are
//	chaos --only 'route|FDB'    some of them, without the rest
//	chaos --walk 1h --seed 7 --only none
//
// The exit code is 1 if something was not put right or touched that is others', or if it took longer than it may.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/chaos"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

func main() { os.Exit(run(os.Args[1:])) }

type flags struct {
	options chaos.Options
	only    string
	repeat  int
	walk    time.Duration
	seed    uint64
	leases  int
	list    bool
	logs    bool
}

// run is called in each of a sandbox's three processes, and must come to the same sandbox in each.
func run(args []string) int {
	var f flags
	set := pflag.NewFlagSet("chaos", pflag.ContinueOnError)
	set.SortFlags = false
	set.StringVar(&f.only, "only", "", "regular expression: only the faults whose name it matches, and neither walk nor many leases unless asked for")
	set.IntVar(&f.repeat, "repeat", 3, "how often each fault is done on one node")
	set.DurationVar(&f.walk, "walk", 10*time.Minute, "how long random faults are done")
	set.Uint64Var(&f.seed, "seed", 0, "of the random walk; 0: another one each time")
	set.IntVar(&f.leases, "leases", 5000, "how many leases the node has in the last part; 0: leave it out")
	set.DurationVar(&f.options.Stopped, "stopped", time.Minute, "how long a daemon is stopped while entries could age")
	set.DurationVar(&f.options.Fight, "fight", 10*time.Second, "how long a route is deleted every millisecond")
	set.StringVar(&f.options.Bin, "bin", "", "directory of selvaged, selvage, etcd and cni/ (default: this program's)")
	set.BoolVar(&f.logs, "logs", false, "print what the daemons say even if all is well")
	set.BoolVar(&f.list, "list", false, "list the faults and end")
	if err := set.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return 0
	} else if err != nil {
		return fail(err)
	}
	if set.NArg() > 0 {
		return fail(fmt.Errorf("takes no argument, got %q", set.Args()))
	}
	only, err := regexp.Compile(f.only)
	if err != nil {
		return fail(fmt.Errorf("--only: %w", err))
	}
	if f.list {
		for _, fault := range chaos.Faults() {
			fmt.Printf("%-8s %s\n", fault.Class, fault.Name)
		}
		return 0
	}
	if f.only != "" && !set.Changed("walk") {
		f.walk = 0
	}
	if f.only != "" && !set.Changed("leases") {
		f.leases = 0
	}
	if f.options.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return fail(err)
		}
		f.options.Bin = filepath.Dir(exe)
	}
	return sandbox.Options{Tmp: true}.Run(func() int { return inside(f, only) })
}

// inside is what runs in the sandbox.
func inside(f flags, only *regexp.Regexp) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	r := chaos.NewReport(os.Stdout)
	r.Logs = f.logs
	if err := all(ctx, f, only, r); err != nil {
		return fail(err)
	}
	if !r.Summary() {
		return 1
	}
	return 0
}

// all does everything. A signal needs no Close: with the sandbox goes all that is in it.
func all(ctx context.Context, f flags, only *regexp.Regexp, r *chaos.Report) error {
	s, err := chaos.New(ctx, f.options)
	if err != nil {
		return err
	}
	if err := suite(ctx, f, s, chaos.Faults(), only, r); err != nil {
		return err
	}
	if f.walk > 0 {
		if f.seed == 0 {
			f.seed = rand.Uint64()
		}
		r.Heading("Random faults for %s, --seed %d", f.walk, f.seed)
		if err := s.Walk(ctx, f.seed, f.walk, r.Brief); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if f.leases == 0 {
		return nil
	}
	f.options.Leases, f.repeat = f.leases, 1
	if s, err = chaos.New(ctx, f.options); err != nil {
		return err
	}
	r.Heading("With %d leases", f.leases)
	for _, fault := range chaos.ManyLeasesFaults() {
		if err := one(ctx, s, fault, chaos.OneNode, 0, r); err != nil {
			return err
		}
	}
	return s.Close()
}

// suite does each fault everywhere it can be done.
func suite(ctx context.Context, f flags, s *chaos.Suite, faults []chaos.Fault, only *regexp.Regexp, r *chaos.Report) error {
	for _, where := range []chaos.Where{chaos.OneNode, chaos.AllNodes, chaos.Stopped} {
		r.Heading("Broken: %s", where)
		for _, fault := range faults {
			if !only.MatchString(fault.Name) || !where.Applies(fault) {
				continue
			}
			repeat := f.repeat
			if where != chaos.OneNode || fault.Long {
				repeat = 1
			}
			for i := range repeat {
				if err := one(ctx, s, fault, where, i, r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func one(ctx context.Context, s *chaos.Suite, f chaos.Fault, where chaos.Where, i int, r *chaos.Report) error {
	o, err := s.Run(ctx, f, where, i, true)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	r.Line(o)
	return nil
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
	return 1
}
