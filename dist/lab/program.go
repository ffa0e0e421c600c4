package lab

import "context"

// Program is a program that runs for long, beside those that the lab itself starts.
type Program struct{ process *process }

// StartProgram starts argv where do leads to, [Endpoint.Do] of a node for instance, with env added to the environment. Its
// output is appended to the file log, which is opened where the caller is.
func StartProgram(do func(func() error) error, log string, argv []string, env ...string) (*Program, error) {
	p, err := startProcess(do, log, argv, env...)
	if err != nil {
		return nil, err
	}
	return &Program{p}, nil
}

// Stop asks it to end (SIGTERM) and waits until it has. When ctx ends first, it is killed, and that is an error.
func (p *Program) Stop(ctx context.Context) error { return p.process.stop(ctx) }

// Kill ends it at once.
func (p *Program) Kill() { p.process.kill() }

// PID is its process id in the lab's pid namespace.
func (p *Program) PID() int { return p.process.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Program) Done() <-chan struct{} { return p.process.done }

// Err says how a program that should still run has ended, with the last lines of its output; it is nil as long as it runs.
func (p *Program) Err() error {
	if p.process.running() {
		return nil
	}
	return p.process.ended()
}
