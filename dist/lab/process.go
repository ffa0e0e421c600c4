package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a program that runs for long, with its output in a file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // why it ended; to be read after done
}

// startProcess starts argv where do leads to, with env added to the environment. Its output is appended to the file log.
func startProcess(do func(func() error) error, log string, argv []string, env ...string) (*process, error) {
	p := &process{name: filepath.Base(argv[0]), log: log, done: make(chan struct{})}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// Else a Ctrl-C at the terminal would be theirs as well.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// running tells whether it has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks it to end and waits until it has. When ctx ends first, it is killed, and that is an error.
func (p *process) stop(ctx context.Context) error {
	p.cmd.Process.Signal(unix.SIGTERM) // fails only if it has ended
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("stop %s: killed, it had not ended on SIGTERM: %w", p.name, ctx.Err())
	}
}

// kill ends it at once.
func (p *process) kill() {
	p.cmd.Process.Kill() // fails only if it has ended
	<-p.done
}

// ended says how a process that should still run has ended, with the last lines of its output.
func (p *process) ended() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%s has ended: %w%s", p.name, err, tail(p.log, 15))
}

// tail returns the last n lines of a file, to be appended to an error. Of a Go program that crashed it is the first n of
// the crash, where the reason is.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "; it printed nothing"
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	from := slices.IndexFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") || strings.HasPrefix(l, "WARNING: DATA RACE")
	})
	if from < 0 {
		from = max(0, len(lines)-n)
	}
	lines = lines[from:min(len(lines), from+n)]
	return "; it last printed:\n    " + strings.Join(lines, "\n    ")
}
