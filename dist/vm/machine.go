package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// Emulation is the accelerator of qemu that needs no hardware.
const Emulation = "tcg"

// Machine is how to start the virtual machine.
type Machine struct {
	Kernel  string // file
	Initrd  string // file
	Console string // file, to which kernel messages and those of the first process go
	Accel   string // qemu's accelerator, [Emulation] for instance
	CPUs    int
	Memory  int // MiB
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
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on",
		"-serial", "file:" + m.Console, "-serial", "stdio",
	}
	if m.Accel == Emulation {
		argv = append(argv, "-icount", "shift=0,sleep=off")
	}
	return argv
}

// Run starts the virtual machine and calls line with each line of the second serial line, until the virtual machine has
// ended. When ctx ends, it is killed.
func (m Machine) Run(ctx context.Context, line func(string)) error {
	argv := m.argv()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	problems := &tail{}
	cmd.Stderr = problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the virtual machine: %w", err)
	}
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			line(text)
		}
		if err != nil {
			break // of any kind: it has ended, and Wait knows how
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("qemu: %w: %s", err, problems.text)
	}
	return nil
}

// ErrLimit is why a virtual machine was ended that took too long.
var ErrLimit = errors.New("the time limit is over")

// tail keeps the last of what is written.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	const limit = 2000
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-limit):]
	return len(b), nil
}
