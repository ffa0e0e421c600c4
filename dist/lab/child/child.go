// Package child runs programs that end with the process that started them.
package child

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Process is a child process; several callers can wait for its end.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed at its end
	err  error         // how it ended; to be read after done

	mu    sync.Mutex
	ended bool
}

// Start runs a program, whose output is appended to the file log, so that it is killed when this process ends, however
// it ends. The kernel sends the parent death signal when the thread that forked ends (prctl(2), PR_SET_PDEATHSIG), and
// Go ends threads as it likes: so the thread is kept by a goroutine of its own until the child has ended.
func Start(log, program string, args ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the process has its own descriptor
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A process group of its own: Ctrl-C on a terminal reaches us, and we end the child when we are done with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		p.mu.Lock()
		p.ended, p.err = true, err
		p.mu.Unlock()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how it has ended. It may be called once Done is closed.
func (p *Process) Err() error { return p.err }

// Signal sends a signal unless the process has ended: its id may be that of another one by then.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(sig)
}

// Kill ends it as a crash would, and waits for its end.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL) // fails only if it has ended
	<-p.done
}

// LogTail returns the end of its output, for errors.
func (p *Process) LogTail() string {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Sprintf("%v", err)
	}
	return string(bytes.TrimSpace(log[max(0, len(log)-2000):]))
}
