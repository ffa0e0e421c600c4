// Command chaos breaks a lab in every way there is and says how long it took until all was right again; see package chaos.
//
//	chaos                       all faults, then random ones, then those of the legacy iptables, then a node with 5,000 leases
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
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/chaos"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

func main() {
	code, done := chaos.Trace()
	if !done {
		code = run(os.Args[1:], os.Stdout, os.Stderr)
	}
	os.Exit(code)
}

// run is called in each of a sandbox's three processes, and must come to the same sandbox in each.
func run(args []string, stdout, stderr io.Writer) int {
	fail := func(err error) int {
		fmt.Fprintf(stderr, "chaos: %v\n", err)
		return 1
	}
	f, err := parse(args, stderr)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		return fail(err)
	case f.list:
		for _, fault := range chaos.Faults() {
			fmt.Fprintf(stdout, "%-8s %s\n", fault.Class, fault.Name)
		}
		return 0
	}
	return sandbox.Options{Tmp: true}.Run(func() int {
		ok, err := inside(f, stdout)
		if err != nil {
			return fail(err)
		}
		if !ok {
			return 1
		}
		return 0
	})
}

// inside is what runs in the sandbox. It reports whether all is well.
func inside(f flags, stdout io.Writer) (ok bool, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	r := chaos.NewReport(stdout)
	r.Logs = f.logs
	if err := all(ctx, f, r); err != nil {
		return false, err
	}
	return r.Summary(), nil
}

// all does everything. A signal needs no Close: with the sandbox goes all that is in it.
func all(ctx context.Context, f flags, r *chaos.Report) error {
	err := with(ctx, f.options, func(s *chaos.Suite) error {
		if err := suite(ctx, f, s, chaos.Faults(), "Broken", r); err != nil {
			return err
		}
		return walk(ctx, f, s, r)
	})
	if err != nil {
		return err
	}
	if f.legacy {
		o := f.options
		o.Legacy = true
		err := with(ctx, o, func(s *chaos.Suite) error {
			return suite(ctx, f, s, chaos.LegacyFaults(), "Broken, with the legacy iptables", r)
		})
		if err != nil {
			return fmt.Errorf("%w (--legacy=false leaves the legacy iptables out)", err)
		}
	}
	if f.leases == 0 {
		return nil
	}
	o := f.options
	o.Leases = f.leases
	return with(ctx, o, func(s *chaos.Suite) error { return manyLeases(ctx, f, s, r) })
}

// with has a suite for do.
func with(ctx context.Context, o chaos.Options, do func(*chaos.Suite) error) error {
	s, err := chaos.New(ctx, o)
	if err != nil {
		return err
	}
	if err := do(s); err != nil {
		return err
	}
	return s.Close()
}

func walk(ctx context.Context, f flags, s *chaos.Suite, r *chaos.Report) error {
	if f.walk <= 0 {
		return nil
	}
	if f.seed == 0 {
		f.seed = rand.Uint64()
	}
	r.Heading("Random faults for %s, --seed %d", f.walk, f.seed)
	return s.Walk(ctx, f.seed, f.walk, r.Brief)
}

func manyLeases(ctx context.Context, f flags, s *chaos.Suite, r *chaos.Report) error {
	r.Heading("With %d leases", f.leases)
	if f.rest > 0 {
		rest, err := s.Rest(ctx, f.rest, min(f.rest, 3*time.Second))
		if err != nil {
			return err
		}
		r.Rest(rest)
	}
	for _, fault := range chaos.ManyLeasesFaults() {
		if err := one(ctx, s, fault, chaos.OneNode, 0, r); err != nil {
			return err
		}
	}
	return nil
}

// suite does each fault everywhere it can be done.
func suite(ctx context.Context, f flags, s *chaos.Suite, faults []chaos.Fault, part string, r *chaos.Report) error {
	for _, where := range []chaos.Where{chaos.OneNode, chaos.AllNodes, chaos.Stopped} {
		r.Heading("%s: %s", part, where)
		for _, fault := range faults {
			if !f.only.MatchString(fault.Name) || !where.Applies(fault) {
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
