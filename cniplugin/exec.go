package cniplugin

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// exitError is the status of a program that failed.
type exitError struct{ status syscall.WaitStatus }

func (e exitError) Error() string {
	if e.status.Signaled() {
		return "killed by signal: " + e.status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", e.status.ExitStatus())
}

// execute runs a program to its end, or kills it when ctx ends. Its input and output are files in memory: with pipes
// there would have to be a goroutine, and mostly a thread, for each. This is used in place of os/exec since that one
// forks once more to find out what the kernel can do, which a program that runs for three milliseconds has no use for.
func execute(ctx context.Context, program string, environ []string, stdin []byte) (stdout, stderr []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	var files [3]*os.File
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		if files[i], err = memoryFile(name); err != nil {
			return nil, nil, err
		}
		defer files[i].Close()
	}
	if _, err := files[0].WriteAt(stdin, 0); err != nil {
		return nil, nil, err
	}
	pid, err := syscall.ForkExec(program, []string{program}, &syscall.ProcAttr{
		Env: environ, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
	})
	if err != nil {
		return nil, nil, &os.PathError{Op: "fork/exec", Path: program, Err: err}
	}
	runErr := wait(ctx, pid)
	if stdout, err = readAll(files[1]); err != nil {
		return nil, nil, err
	}
	if stderr, err = readAll(files[2]); err != nil {
		return nil, nil, err
	}
	return stdout, stderr, runErr
}

// wait waits for a child, and kills it when ctx ends.
func wait(ctx context.Context, pid int) error {
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		_ = syscall.Kill(pid, syscall.SIGKILL) // there is no alternative
	})
	sleepUntilEnd(pid)
	// The child is left unreaped until no goroutine can kill it any more: its number could be another's by then.
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			break // any other error is Wait4's too
		}
	}
	if !stop() {
		<-killed
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			return os.NewSyscallError("wait4", err)
		}
	}
	switch {
	case status == 0:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), exitError{status})
	default:
		return exitError{status}
	}
}

// sleepUntilEnd returns when a child has ended, or at once where the kernel has no pidfd that can be polled (before
// Linux 5.10). While a thread waits in a system call, the runtime wakes up every 20 µs to see whether something else is
// to be done, on a processor that the child could have; while the poller waits, all of the program sleeps.
func sleepUntilEnd(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	// The poller reports the end once, perhaps before this call, so each time the pidfd itself is asked.
	_ = conn.Read(func(fd uintptr) bool { // an error leaves it to waitid
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil
	})
}

func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readAll reads a file from its beginning, wherever a child that shared it has left off.
func readAll(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
