package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// initMain is pid 1: it prepares the namespaces, starts the process inside and waits for it, reaping what that one leaves
// unreaped. It is a process of its own because a pid 1 has no default signal actions and has to wait for any child, which
// would take exit codes from under os/exec in the program inside.
func initMain(args string) (int, error) {
	var files, tmp int
	if _, err := fmt.Sscanf(args, "%d,%d", &files, &tmp); err != nil {
		return 1, fmt.Errorf("environment variable %s: %w", marker, err)
	}
	// Caught and dropped, since the pipe brings them too. Not ignored: that would be inherited.
	signal.Notify(make(chan os.Signal, 1), passedOn()...)
	if err := prepare(tmp == 1); err != nil {
		return 1, err
	}

	os.Setenv(marker, "inside")
	inherit := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	pipe := os.NewFile(3, "signals")
	unix.CloseOnExec(3)
	for i := range files {
		unix.CloseOnExec(4 + i)
		inherit = append(inherit, os.NewFile(uintptr(4+i), "inherited"))
	}
	inside, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: inherit})
	if err != nil {
		return 1, fmt.Errorf("start the process inside: %w", err)
	}
	for _, f := range inherit[3:] {
		f.Close()
	}
	go func() {
		var s [1]byte
		for {
			if _, err := pipe.Read(s[:]); err != nil {
				unix.Kill(inside.Pid, unix.SIGKILL) // the process outside is gone
				return
			}
			unix.Kill(inside.Pid, syscall.Signal(s[0]))
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the process inside: %w", err)
		case pid == inside.Pid:
			return exitCode(status), nil
		}
	}
}

// prepare mounts what must not be the outside's, and brings lo up.
func prepare(tmp bool) error {
	if err := mountPrivate(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w: a container hides parts of /proc, and then the kernel refuses a new one; "+
			"run it outside a container, or in one started with --privileged", err)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := cover(dir, "mode=0755"); err != nil {
			return err
		}
	}
	if tmp {
		if err := cover("/tmp", "mode=1777"); err != nil {
			return err
		}
		os.Setenv("TMPDIR", "/tmp")
	}
	mountSys()
	return linkUp("lo")
}
