// Command chaos-store breaks the lease store of a lab in every way there is and says what that costs; see package chaosstore.
//
//	chaos-store                    all faults
//	chaos-store --list             what the faults are
//	chaos-store --only 'wiped'     some of them
//	chaos-store --families ipv4    with an overlay of IPv4 alone
//
// The exit code is 1 if a packet was lost, something was not as it should be in the end, or it took longer than it may.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/chaosstore"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is called in each of a sandbox's three processes, and must come to the same sandbox in each.
func run(args []string) int {
	var (
		o          chaosstore.Options
		text       string
		families   string
		list, logs bool
	)
	set := pflag.NewFlagSet("chaos-store", pflag.ContinueOnError)
	set.SortFlags = false
	set.StringVar(&text, "only", "", "regular expression: only the faults whose name it matches")
	set.StringVar(&families, "families", "dual", "of the overlay: ipv4 or dual")
	set.StringArrayVar(&o.Args, "daemon-arg", nil,
		"argument for selvaged, such as --daemon-arg=--fast-path=on; repeatable")
	set.BoolVar(&o.Short, "short", false, "have what lasts last for a second or two")
	set.StringVar(&o.Bin, "bin", "", "directory of selvaged, selvage, etcd and cni/ (default: this program's)")
	set.BoolVar(&logs, "logs", false, "print what the daemons say even if all is well")
	set.BoolVar(&list, "list", false, "list the faults and end")
	if err := set.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return 0
	} else if err != nil {
		return fail(err)
	}
	if set.NArg() > 0 {
		return fail(fmt.Errorf("takes no argument, got %q", set.Args()))
	}
	only, err := regexp.Compile(text)
	if err != nil {
		return fail(fmt.Errorf("--only: %w", err))
	}
	if o.Families, err = lab.ParseFamilies(families); err != nil {
		return fail(fmt.Errorf("--families: %w", err))
	}
	if !slices.Contains(o.Families, subnet.IPv4) {
		// With an IPv6 address it ends at the feature gate SetMemberLocalAddr, without which members cannot be parted by a firewall.
		return fail(fmt.Errorf("--families=%s: want ipv4 or dual, since etcd's members are reached over IPv4", families))
	}
	var faults []chaosstore.Fault
	for _, f := range chaosstore.Faults() {
		if only.MatchString(f.Name) {
			faults = append(faults, f)
		}
	}
	if list {
		for _, f := range faults {
			fmt.Printf("%-35s %s\n", f.Scene, f.Name)
		}
		return 0
	}
	if o.Bin == "" {
		exe, err := os.Executable()
		if err != nil {
			return fail(err)
		}
		o.Bin = filepath.Dir(exe)
	}
	return sandbox.Options{Tmp: true}.Run(func() int { return inside(o, faults, logs) })
}

// inside is what runs in the sandbox.
func inside(o chaosstore.Options, faults []chaosstore.Fault, logs bool) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	r := chaosstore.NewReport(os.Stdout)
	r.Logs = logs
	if err := chaosstore.All(ctx, o, faults, r.Line); err != nil {
		return fail(err)
	}
	if !r.Summary() {
		return 1
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "chaos-store: %v\n", err)
	return 1
}
