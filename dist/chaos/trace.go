package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// traceVar is set in the environment of the process that traces, to whom and how long.
const traceVar = "CHAOS_TRACE"

// netlinkRequests counts how many messages a process sends to the kernel's netlink sockets within d; if d is 0, until there is one.
// Each of its system calls stops it twice meanwhile.
//
// /proc counts what is read and written, but not what is sent, so the process is traced (ptrace(2)); in a sandbox that takes
// no privilege. This very process cannot do it: it is the parent, and os/exec would take each stop for the end. So it runs
// itself once more, see [Trace].
func netlinkRequests(ctx context.Context, pid int, d time.Duration) (sent int, err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", traceVar, pid, d))
	out, err := cmd.CombinedOutput()
	if err == nil {
		sent, err = strconv.Atoi(strings.TrimSpace(string(out)))
	}
	if err != nil {
		return 0, fmt.Errorf("trace process %d: %w: %s", pid, err, bytes.TrimSpace(out))
	}
	return sent, nil
}

// Trace has to be called at the start of each program that uses a [Suite]. It reports whether this process was started just
// to trace another; then it has done that, and code is to be its exit code.
func Trace() (code int, done bool) {
	var pid int
	var d time.Duration
	order, is := os.LookupEnv(traceVar)
	if !is {
		return 0, false
	}
	_, err := fmt.Sscanf(order, "%d %d", &pid, &d)
	if err == nil {
		runtime.LockOSThread() // it is a thread that traces, not a process
		t := &tracer{pid: pid, threads: map[int]bool{}}
		err = t.run(d)
		fmt.Println(t.sent)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// tracer watches the system calls of a running process.
type tracer struct {
	pid     int
	threads map[int]bool
	netlink map[string]bool // sockets, as in /proc/PID/fd
	sent    int             // messages sent to netlink sockets
}

func (t *tracer) run(d time.Duration) (err error) {
	if t.netlink, err = netlinkSockets(t.pid); err != nil {
		return err
	}
	if err := t.attach(); err != nil {
		return errors.Join(err, t.detach())
	}
	for end := time.Now().Add(d); time.Now().Before(end) || d == 0 && t.sent == 0; {
		tid, status, err := t.wait()
		if err != nil {
			return errors.Join(err, t.detach())
		}
		if tid == 0 {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if err := t.stopped(tid, status); err != nil {
			return errors.Join(err, t.detach())
		}
	}
	return t.detach()
}

// attach traces all threads there are; those that they start from then on are traced by themselves. A thread that is
// stopped starts none, so the round that finds no new one is the last.
func (t *tracer) attach() error {
	signals := map[int]int{}
	for {
		tids, err := threadsOf(t.pid)
		if err != nil {
			return err
		}
		fresh := 0
		for _, tid := range tids {
			if t.threads[tid] {
				continue
			}
			fresh++
			if err := unix.PtraceSeize(tid); errors.Is(err, unix.ESRCH) {
				continue // it has ended
			} else if err != nil {
				return fmt.Errorf("trace thread %d: %w", tid, err)
			}
			t.threads[tid] = true
			status, err := t.interrupt(tid)
			if err != nil {
				return err
			}
			if !status.Stopped() {
				continue
			}
			if status.TrapCause() != unix.PTRACE_EVENT_STOP {
				signals[tid] = int(status.StopSignal())
			}
			if err := unix.PtraceSetOptions(tid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE); err != nil {
				return fmt.Errorf("trace thread %d: %w", tid, err)
			}
		}
		if fresh == 0 {
			break
		}
	}
	for tid := range t.threads {
		if err := t.resume(tid, signals[tid]); err != nil {
			return err
		}
	}
	return nil
}

// interrupt stops a thread and waits until it has, or has ended.
func (t *tracer) interrupt(tid int) (status unix.WaitStatus, err error) {
	if err := unix.PtraceInterrupt(tid); err != nil && !errors.Is(err, unix.ESRCH) {
		return 0, fmt.Errorf("stop thread %d: %w", tid, err)
	}
	for {
		_, err := unix.Wait4(tid, &status, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			if status.Exited() || status.Signaled() || err != nil {
				delete(t.threads, tid)
			}
			return status, err
		}
	}
}

// wait returns a thread that has stopped or ended; 0 if none has.
func (t *tracer) wait() (tid int, status unix.WaitStatus, err error) {
	tid, err = unix.Wait4(-1, &status, unix.WALL|unix.WNOHANG, nil)
	if errors.Is(err, unix.EINTR) {
		return 0, status, nil
	}
	if err != nil {
		return 0, status, fmt.Errorf("trace process %d: it has ended: %w", t.pid, err)
	}
	return tid, status, nil
}

// stopped looks at why a thread has stopped, and has it go on.
func (t *tracer) stopped(tid int, status unix.WaitStatus) error {
	if !status.Stopped() {
		delete(t.threads, tid)
		return nil
	}
	t.threads[tid] = true // perhaps a new one
	signal := int(status.StopSignal())
	switch {
	case signal == int(unix.SIGTRAP|0x80): // at a system call: PTRACE_O_TRACESYSGOOD
		signal = 0
		if t.sends(tid) {
			t.sent++
		}
	case status>>16 != 0: // a ptrace event
		signal = 0
	}
	return t.resume(tid, signal)
}

// syscallInfo is the part for the entry to a system call of struct ptrace_syscall_info, include/uapi/linux/ptrace.h.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	_    uint32 // architecture
	_, _ uint64 // instruction and stack pointer
	nr   uint64
	args [6]uint64
	_    uint64
}

const syscallEntry = 1 // PTRACE_SYSCALL_INFO_ENTRY

// sends reports whether a thread is about to send something to a netlink socket.
func (t *tracer) sends(tid int) bool {
	var info syscallInfo
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != syscallEntry {
		return false
	}
	switch info.nr {
	case unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG, unix.SYS_WRITE, unix.SYS_WRITEV:
	case unix.SYS_SOCKET: // one that is opened meanwhile is to be known
		return info.args[0] == unix.AF_NETLINK
	default:
		return false
	}
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.pid, info.args[0]))
	return err == nil && t.netlink[to]
}

func (t *tracer) resume(tid, signal int) error {
	if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("resume thread %d: %w", tid, err)
	}
	return nil
}

// detach lets all threads go on untraced.
func (t *tracer) detach() error {
	var errs []error
	for tid := range t.threads {
		status, err := t.interrupt(tid)
		if err != nil || !status.Stopped() {
			errs = append(errs, err)
			continue
		}
		signal := 0
		if status>>16 == 0 && status.StopSignal() != unix.SIGTRAP|0x80 {
			signal = int(status.StopSignal()) // it was just being delivered
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(tid), 0, uintptr(signal), 0, 0)
		if errno != 0 && errno != unix.ESRCH {
			errs = append(errs, fmt.Errorf("let thread %d go: %w", tid, errno))
		}
	}
	return errors.Join(errs...)
}

// netlinkSockets returns the netlink sockets of the process's network namespace, by how /proc/PID/fd names them.
func netlinkSockets(pid int) (map[string]bool, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "net/netlink"))
	if err != nil {
		return nil, err
	}
	sockets := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 {
			sockets["socket:["+f[len(f)-1]+"]"] = true // the inode
		}
	}
	return sockets, nil
}
