// Command vm runs tests on Debian's own kernel, in a virtual machine: see package vm. make e2e-vm calls it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/dist/vm"
)

// options are those of the command line.
type options struct {
	repository string
	kernel     string
	out        string
	list       bool
	short      bool
	only       string
	limit      time.Duration
	caseLimit  time.Duration
	machine    vm.Machine
}

func main() {
	var o options
	flag.StringVar(&o.repository, "repository", ".", "directory of the repository, whose bin/ has the programs")
	flag.StringVar(&o.kernel, "kernel", "bin/vm/kernel", "directory with the files of Debian's kernel package")
	flag.StringVar(&o.out, "out", "bin/vm", "directory for what is built, the log and the console")
	flag.BoolVar(&o.list, "list", false, "list the cases and run none")
	flag.BoolVar(&o.short, "short", false, "run the boot and one case of each kind")
	flag.StringVar(&o.only, "only", "", "run the cases that match this regular expression")
	flag.DurationVar(&o.limit, "limit", 15*time.Minute, "end the virtual machine after this time")
	flag.DurationVar(&o.caseLimit, "case-limit", 2*time.Minute,
		"how long a case may take, of its own time; one that waits in vain fails half a minute before")
	flag.StringVar(&o.machine.Accel, "accel", vm.Emulation, "accelerator of qemu; kvm is faster and needs hardware for it")
	flag.IntVar(&o.machine.CPUs, "cpus", 1, "number of processors")
	flag.IntVar(&o.machine.Memory, "memory", 3072, "memory in MiB")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run builds, boots and judges, and tells whether all cases passed.
func run(ctx context.Context, o options) (bool, error) {
	pattern, err := regexp.Compile(o.only)
	if err != nil {
		return false, fmt.Errorf("--only: %w", err)
	}
	for _, dir := range []*string{&o.repository, &o.kernel, &o.out} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return false, err
		}
	}
	all := vm.Suites()
	for i := range all {
		if all[i], err = all[i].Complete(o.repository); err != nil {
			return false, err
		}
	}
	suites := vm.Choose(all, pattern, o.short)
	if len(suites) == 0 {
		return false, fmt.Errorf("no case matches %q; --list shows them", o.only)
	}
	if o.list {
		for _, s := range suites {
			for _, name := range s.Cases() {
				fmt.Println(name)
			}
		}
		return true, nil
	}
	if err := prepare(ctx, &o, suites); err != nil {
		return false, err
	}
	log, err := os.Create(filepath.Join(o.out, "run.log"))
	if err != nil {
		return false, err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("%w (--limit %s)", vm.ErrLimit, o.limit))
	defer cancel()
	verdict := vm.NewVerdict(os.Stdout, suites)
	err = o.machine.Run(ctx, func(line string) {
		fmt.Fprint(log, line)
		verdict.Line(line)
	})
	reason := "the virtual machine has ended: see " + o.machine.Console
	if err != nil {
		reason = err.Error()
	}
	verdict.Close(reason)
	return verdict.Failed == 0 && err == nil, nil
}
