// Command vm runs tests on Debian's own kernel, in a virtual machine: see package vm. make e2e-vm calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
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
	long       bool
	only       string
	caseLimit  time.Duration
	guests     int
	machine    vm.Machine
}

func main() {
	var o options
	flag.StringVar(&o.repository, "repository", ".", "directory of the repository, whose bin/ has the programs")
	flag.StringVar(&o.kernel, "kernel", "bin/vm/kernel", "directory with the files of Debian's kernel package")
	flag.StringVar(&o.out, "out", "bin/vm", "directory for what is built, the log and the console")
	flag.BoolVar(&o.list, "list", false, "list the cases and run none")
	flag.BoolVar(&o.short, "short", false, "run the boot and one case of each kind")
	flag.BoolVar(&o.long, "long", false, "run also the cases that take long")
	flag.StringVar(&o.only, "only", "", "run the cases that match this regular expression")
	flag.DurationVar(&o.machine.Limit, "limit", 15*time.Minute, "end a virtual machine after so much processor time")
	flag.DurationVar(&o.caseLimit, "case-limit", 4*time.Minute,
		"how long a case may take, of its own time; one that waits in vain fails half a minute before")
	flag.StringVar(&o.machine.Accel, "accel", vm.Emulation, "accelerator of qemu; kvm is faster and needs hardware for it")
	flag.IntVar(&o.guests, "guests", 2, "number of virtual machines at a time, which share the cases")
	flag.IntVar(&o.machine.CPUs, "cpus", 1, "number of processors of each")
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
	suites := vm.Choose(all, pattern, o.short, o.long)
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
	return boot(ctx, o, suites)
}

// boot runs the virtual machines and judges.
func boot(ctx context.Context, o options, suites []vm.Suite) (bool, error) {
	cases := 0
	for _, s := range suites {
		cases += len(s.Tests)
	}
	began, verdict := time.Now(), vm.NewVerdict(os.Stdout, suites)
	errs := make([]error, min(o.guests, cases))
	used := make([]time.Duration, len(errs))
	var guests sync.WaitGroup
	for i := range errs {
		guests.Go(func() { used[i], errs[i] = runGuest(ctx, o, i, len(errs), verdict) })
	}
	guests.Wait()
	for i, d := range used {
		fmt.Printf("vm: virtual machine %d of %d took %s of processor time\n", i+1, len(used), d.Round(time.Second))
	}
	err := errors.Join(errs...)
	reason := "the virtual machine has ended: see console*.log in " + o.out
	if err != nil {
		reason = err.Error()
	}
	fmt.Printf("vm: all took %s\n", time.Since(began).Round(time.Second))
	verdict.Close(reason)
	return verdict.Failed == 0 && err == nil, nil
}

// runGuest runs one of the virtual machines.
func runGuest(ctx context.Context, o options, i, of int, verdict *vm.Verdict) (took time.Duration, err error) {
	log, err := os.Create(filepath.Join(o.out, fmt.Sprintf("run%d.log", i)))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	m := o.machine
	m.Console = filepath.Join(o.out, fmt.Sprintf("console%d.log", i))
	m.Env = fmt.Sprintf("%s=%d/%d", vm.PartVariable, i, of)
	var used time.Duration
	listener := verdict.Listen(func() time.Duration { return used })
	took, err = m.Run(ctx, func(line string, now time.Duration) {
		fmt.Fprint(log, line)
		used = now
		listener.Line(line)
	})
	reason := "the virtual machine has ended: see " + m.Console
	if err != nil {
		reason = err.Error()
	}
	listener.Close(reason)
	return took, err
}
