// Command init is the first process of the virtual machine of package vm. It is never to be run on a machine.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/vm"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this program is the first process of a virtual machine; see bin/vm/vm --help")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Println("init:", err) // on the console, which is in bin/vm/console.log
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("init: power off:", err)
	}
}

// run does what the plan says.
func run() error {
	if err := mounts(); err != nil {
		return err
	}
	line, err := serial("/dev/ttyS1")
	if err != nil {
		return err
	}
	defer line.Close()
	text, err := os.ReadFile(vm.PlanFile)
	if err != nil {
		return err
	}
	var plan vm.Plan
	if err := json.Unmarshal(text, &plan); err != nil {
		return err
	}
	if err := errors.Join(modules(plan.Modules), loopback()); err != nil {
		fmt.Fprintln(line, vm.TroubleMark+err.Error())
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return err
	}
	fmt.Fprintf(line, "%s%s after %s\n", vm.BootedMark, unix.ByteSliceToString(name.Release[:]),
		time.Duration(up.Nano()).Round(100*time.Millisecond))
	runs, err := plan.Part(os.Getenv(vm.PartVariable))
	if err != nil {
		return err
	}
	for _, r := range runs {
		fmt.Fprintln(line, vm.Begin(r.Case))
		cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = r.Dir, line, line
		cmd.Env = append(plan.Env, r.Env...)
		err := cmd.Run()
		if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 1 {
			err = nil // the output names the tests that failed
		}
		fmt.Fprintln(line, vm.End(r.Case, err))
	}
	return unix.IoctlSetInt(int(line.Fd()), unix.TCSBRK, 1) // tcdrain(3)
}

// mounts mounts what programs expect. The root is the initramfs, a tmpfs.
func mounts() error {
	var errs []error
	for _, m := range []struct{ kind, at, data string }{
		{"devtmpfs", "/dev", ""}, {"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/dev/shm", "mode=1777"}, {"devpts", "/dev/pts", "ptmxmode=0666"}, {"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", ""}, {"tmpfs", "/tmp", "mode=1777"},
	} {
		// In sysfs and others the kernel makes the directory, and there is no other.
		err := unix.Mount(m.kind, m.at, m.kind, 0, m.data)
		if errors.Is(err, unix.ENOENT) {
			if err = os.MkdirAll(m.at, 0o755); err == nil {
				err = unix.Mount(m.kind, m.at, m.kind, 0, m.data)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.at, err))
		}
	}
	return errors.Join(errs...)
}

// serial opens a serial line as it is: without echo and without a translation of line ends.
func serial(path string) (*os.File, error) {
	line, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	settings, err := unix.IoctlGetTermios(int(line.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	settings.Iflag, settings.Oflag, settings.Lflag = 0, 0, 0
	if err := unix.IoctlSetTermios(int(line.Fd()), unix.TCSETS, settings); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return line, nil
}

// modules loads kernel modules. One that cannot be loaded does not keep the others out.
func modules(files []string) error {
	var errs []error
	for _, file := range files {
		err := func() error {
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			return unix.FinitModule(int(f.Fd()), "", 0)
		}()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("load the kernel module %s: %w", filepath.Base(file), err))
		}
	}
	return errors.Join(errs...)
}

func loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up the loopback interface: %w", err)
	}
	return nil
}
