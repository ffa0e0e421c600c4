package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is the environment variable that tells a process which part it has: "init,<number of files>,<0 or 1 for a private
// /tmp>" or "inside". It is taken out of the environment before run is called, so that a sandbox can be made in a sandbox.
const marker = "SELVAGE_SANDBOX"

// Options vary a sandbox. The zero value is what [Run] uses.
type Options struct {
	// Tmp asks for a private tmpfs on /tmp. It is off by default because go test -coverprofile writes there.
	Tmp bool
	// Outside, if set, is called once, in the process outside, before the namespaces are made. The files it returns are
	// inherited by the process inside as descriptors 3, 4 and so on; cleanup is called when the sandbox has ended. A
	// signal that arrives meanwhile does not end the process before cleanup was called.
	Outside func() (files []*os.File, cleanup func(), err error)
}

// Run calls run in a new sandbox and returns what it returned, or 128 + n if signal n ended it. If there can be no sandbox,
// it says on stderr why and what to do, and returns 1.
//
// It is to be called first thing in main or TestMain, since what stands before it happens in all three processes. run is
// called in the process inside only.
func Run(run func() int) int { return Options{}.Run(run) }

// Run is like the function [Run], with options.
func (o Options) Run(run func() int) int {
	part, args, _ := strings.Cut(os.Getenv(marker), ",")
	code, err := 0, error(nil)
	switch {
	case part == "init" && os.Getpid() == 1:
		code, err = initMain(args)
	case part == "inside" && os.Getppid() == 1:
		os.Unsetenv(marker)
		return run()
	default:
		code, err = o.outside()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "sandbox: %v\n", err)
		return 1
	}
	return code
}

// passedOn are the signals that the process outside hands to the one inside.
func passedOn() []os.Signal {
	return []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}
}

// outside makes the namespaces with init in them and waits.
func (o Options) outside() (int, error) {
	// Pdeathsig comes when the thread that forked ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passedOn()...)
	defer signal.Stop(signals)

	var files []*os.File
	if o.Outside != nil {
		inherit, cleanup, err := o.Outside()
		if err != nil {
			return 1, err
		}
		defer cleanup()
		files = inherit
	}

	// Signals travel through a pipe: init would otherwise get each Ctrl-C twice, once from the terminal. Its end of file also
	// tells init that we are gone, should that happen before its Pdeathsig is set.
	read, write, err := os.Pipe()
	if err != nil {
		return 1, fmt.Errorf("make a pipe: %w", err)
	}
	defer read.Close()
	defer write.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=init,%d,%d", marker, len(files), flag(o.Tmp)))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{read}, files...)
	cmd.SysProcAttr = namespaces()
	if err := cmd.Start(); err != nil {
		return 1, explain(err, readLine)
	}
	read.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				write.Write([]byte{byte(s.(syscall.Signal))}) // fails only if init is gone, which Wait will tell
			case <-ended:
				return
			}
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 1, fmt.Errorf("wait for the sandbox: %w", err)
	}
	return exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// namespaces says which namespaces init gets. Who has CAP_SYS_ADMIN already, like a process in a sandbox, needs no user
// namespace, and each level of these that is saved is one less to exhaust (the kernel allows 32).
func namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	if os.Geteuid() != 0 || !hasSysAdmin() {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		// The kernel lets an ordinary user write a gid map only with setgroups denied, which is Go's default.
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

func hasSysAdmin() bool {
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err := unix.Capget(&header, &caps[0])
	return err == nil && caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// exitCode is what a shell would report.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// Command returns a function for [Options.Run] that becomes the given program.
func Command(argv []string) func() int {
	return func() int {
		path, err := exec.LookPath(argv[0])
		if err == nil {
			err = unix.Exec(path, argv, os.Environ())
		}
		fmt.Fprintf(os.Stderr, "sandbox: run %s: %v\n", strconv.Quote(argv[0]), err)
		return 127
	}
}
