// Command chaos breaks a lab in every way there is and says how long it took until all was right again; see package chaos.
//
//	chaos                       all faults, then random ones, then those of other packet filters and backends, then with 5,000 leases
//	chaos --list                what the faults are
//	chaos --only 'route|FDB'    some of them, with VXLAN, without the rest
//	chaos --rounds direct       all that there are with DirectRouting
//	chaos --families ipv4       with an overlay of IPv4 alone
//	chaos --store kubernetes    with the leases in the Kubernetes API
//	chaos --fast-path           with the fast path, and with its faults
//	chaos --walk 1h --seed 7 --only none
//
// The exit code is 1 if something was not put right or touched that is others', or if it took longer than it may.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

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
		for _, r := range rounds() {
			for _, fault := range r.options(f).Faults() {
				if slices.Contains(f.rounds, r.name) {
					fmt.Fprintf(stdout, "%-8s %-8s %s\n", r.name, fault.Class, fault.Name)
				}
			}
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
