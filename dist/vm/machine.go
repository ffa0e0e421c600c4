package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Emulation is the accelerator of qemu that needs no hardware.
const Emulation = "tcg"

// Machine is how to start the virtual machine.
type Machine struct {
	Kernel  string // file
	Initrd  string // file
	Console string // file, to which kernel messages and those of the first process go
	Env     string // of the first process: NAME=VALUE, or nothing
	Accel   string // qemu's accelerator, [Emulation] for instance
	CPUs    int
	Memory  int // MiB
	// Limit is of processor time, after which it is killed: how long it waits for a processor does not count.
	Limit time.Duration
}

// argv is the command line of qemu. Emulated, time in the virtual machine is a count of instructions, a nanosecond each, and
// time in which it has nothing to do is left out. So it does not notice how busy the machine is, and waiting costs nothing.
func (m Machine) argv() []string {
	argv := []string{
		"qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot",
		"-accel", m.Accel, "-cpu", "max",
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.Memory),
		"-kernel", m.Kernel, "-initrd", m.Initrd,
		// A kernel that panics reboots, and qemu then ends.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on " + m.Env,
		"-serial", "file:" + m.Console, "-serial", "stdio",
	}
	if m.Accel == Emulation {
		argv = append(argv, "-icount", "shift=0,sleep=off")
	}
	return argv
}

// Run starts the virtual machine and calls line with each line of the second serial line, and how much processor time
// has been taken until then, until the virtual machine has ended, and returns how much that was. When ctx ends, it is
// killed.
func (m Machine) Run(ctx context.Context, line func(text string, used time.Duration)) (took time.Duration, err error) {
	argv := m.argv()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	problems := &tail{}
	cmd.Stderr = problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the virtual machine: %w", err)
	}
	seconds := uint64(max(1, m.Limit/time.Second))
	limit := unix.Rlimit{Cur: seconds, Max: seconds}
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CPU, &limit, nil); err != nil {
		err = fmt.Errorf("limit the processor time of the virtual machine: %w", err)
		return 0, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			line(text, processorTime(cmd.Process.Pid))
		}
		if err != nil {
			break // of any kind: it has ended, and Wait knows how
		}
	}
	err = cmd.Wait()
	took = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	switch {
	case ctx.Err() != nil:
		return took, context.Cause(ctx)
	case err != nil && took >= time.Duration(seconds)*time.Second:
		return took, fmt.Errorf("%w (--limit %s)", ErrLimit, m.Limit)
	case err != nil:
		return took, fmt.Errorf("qemu: %w: %s", err, problems.text)
	}
	return took, nil
}

// processorTime is how much processor time a process has taken; 0 if that cannot be read.
func processorTime(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ") // after the name, which may have blanks
	fields := strings.Fields(after)                // from the third field of proc_pid_stat(5) on
	if len(fields) < 13 {
		return 0
	}
	user, userErr := strconv.Atoi(fields[11])
	system, systemErr := strconv.Atoi(fields[12])
	if userErr != nil || systemErr != nil {
		return 0
	}
	const tick = 10 * time.Millisecond // of USER_HZ, which is 100 on all processors that Go supports
	return time.Duration(user+system) * tick
}

// ErrLimit is why a virtual machine was ended that took too long.
var ErrLimit = errors.New("the limit of processor time is over")

// tail keeps the last of what is written.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	const limit = 2000
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-limit):]
	return len(b), nil
}
