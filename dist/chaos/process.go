package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// signal sends a signal to the node's daemon, if it runs.
func (h *host) signal(s unix.Signal) error {
	if pid := h.PID(); pid != 0 {
		return unix.Kill(pid, s)
	}
	return nil
}

// paused calls fn while the daemon is stopped by a signal, so that it does not see what happens in between.
func (h *host) paused(fn func() error) error {
	if err := h.signal(unix.SIGSTOP); err != nil {
		return err
	}
	err := h.awaitStop()
	if err == nil {
		err = fn()
	}
	return errors.Join(err, h.signal(unix.SIGCONT))
}

// awaitStop waits until each of the daemon's threads has stopped: a signal is sent before it is heeded.
func (h *host) awaitStop() error {
	pid := h.PID()
	if pid == 0 {
		return nil
	}
	for start := time.Now(); time.Since(start) < h.patience; time.Sleep(100 * time.Microsecond) {
		tids, err := threadsOf(pid)
		if err != nil {
			return err
		}
		running := false
		for _, tid := range tids {
			fields, err := stat(tid)
			running = running || err == nil && fields[0] != "T"
		}
		if !running {
			return nil
		}
	}
	return fmt.Errorf("%s: the daemon does not stop on SIGSTOP", h.Name())
}

// threadsOf lists the threads of a process.
func threadsOf(pid int) (tids []int, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		tids = append(tids, tid)
	}
	return tids, err
}

// stat returns what /proc says of a process or thread, from its state on: field 3 in proc(5) is the first.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The second field is a name in parentheses, which may hold anything.
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return nil, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	return fields, nil
}

// tick is the unit of CPU times in /proc (USER_HZ, proc(5)).
const tick = 10 * time.Millisecond

// times is how much CPU time the daemon has used, by its own clock, and how much the programs that it ran to their ends:
// fields 16 and 17 of stat (proc(5)).
func (h *host) times() (own, programs time.Duration, err error) {
	var used unix.Timespec
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers_types.h.
	if err := unix.ClockGettime(int32(^h.PID())<<3|2, &used); err != nil {
		return 0, 0, fmt.Errorf("CPU clock of process %d: %w", h.PID(), err)
	}
	fields, err := stat(h.PID())
	if err != nil {
		return 0, 0, err
	}
	for _, field := range fields[13:15] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/%d/stat: %w", h.PID(), err)
		}
		programs += time.Duration(n) * tick
	}
	return time.Duration(used.Nano()), programs, nil
}

// logSize is how long the daemon's log is now.
func (h *host) logSize() int64 {
	info, err := os.Stat(h.LogPath())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logSince is what the daemon has logged since it was so long, its last lines if that is a lot.
func (h *host) logSince(size int64) []string {
	b, err := os.ReadFile(h.LogPath())
	if err != nil || int64(len(b)) < size {
		return nil
	}
	text := strings.TrimSpace(string(b[size:]))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-logLines):]
}

// logLines is how much of a log is shown.
const logLines = 12

// stacks ends a daemon that does not do its work so that it says what it is doing instead (SIGQUIT), and starts it again.
// Of what it says, only the goroutines that are in its own code are returned.
func (h *host) stacks(ctx context.Context) ([]string, error) {
	size := h.logSize()
	if err := h.signal(unix.SIGQUIT); err != nil {
		return nil, err
	}
	for h.Running() && pause(ctx, time.Millisecond) {
	}
	b, err := os.ReadFile(h.LogPath())
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, goroutine := range strings.Split(string(b[size:]), "\n\n") {
		if strings.HasPrefix(goroutine, "goroutine ") && strings.Contains(goroutine, "/network/") {
			lines = append(lines, strings.Split(goroutine, "\n")...)
		}
	}
	return lines, errors.Join(h.Start(), h.WaitReady(ctx))
}
