package userspace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/backoff"
)

// ErrStarting means that the process of a device was started, and its device cannot be configured yet.
var ErrStarting = errors.New("the user-space WireGuard of the device is being started")

// startTime is how long the start of a process is waited for. It takes some 30 ms. What takes longer goes on without
// the caller.
const startTime = 200 * time.Millisecond

// startBackoff spaces the starts of a process that ends again soon, see settledAfter.
var startBackoff = backoff.Policy{First: 10 * time.Millisecond, Min: 100 * time.Millisecond, Max: 10 * time.Second}

// settledAfter is how long a process has to run for the next one to be started at once.
const settledAfter = 10 * time.Second

// Keeper starts the processes of devices, and notices which ones end or hang. Its methods are safe for concurrent use.
// The nil Keeper starts none.
type Keeper struct {
	program string // the binary to start
	wake    func() // called when a process is ready, and when one has ended

	mu      sync.Mutex
	devices map[string]*state
	events  []Event
}

// state is what a Keeper knows of a device.
type state struct {
	run     *run // the last process that this Keeper started; nil: none
	backoff backoff.Backoff
	failed  failure
	counts  Counts
}

// run is a process that a Keeper started. The fields below mu of the Keeper belong to it.
type run struct {
	pid     int
	started time.Time
	settled chan struct{} // closed when it is ready, and when it has ended before that
	done    chan struct{} // closed when it has ended

	ready    bool
	ended    bool
	cause    string // of its end
	expected bool   // its end is: the device is removed
	orphaned bool   // it is ended because its device was deleted by another process
}

// Counts says how often something happened to the processes of a device since the start of the daemon.
type Counts struct {
	Ended int // a process ended by itself, or was ended by another process
	Hung  int // a process did not answer, and was killed
	Lost  int // the socket of a process was removed, and the process killed
}

// Happening is what happened to a process.
type Happening int

// The values of [Happening].
const (
	Started Happening = iota // its device can be configured
	Ended                    // by itself, or by another process
	Hung                     // it did not answer, and was killed
	Lost                     // another program removed its socket, and it was killed
)

// Event is something that happened to a process, for the log.
type Event struct {
	Device string
	PID    int
	What   Happening
	Cause  string // of its end; for Hung and Lost, why it could not be killed, or empty
}

// NewKeeper returns a Keeper that starts the daemon's own binary under another name. wake is called, from any
// goroutine, when there is something to do: an [Event], or a device that can be made now.
func NewKeeper(wake func()) *Keeper {
	_ = os.Chmod(dir, 0o700) // systemd's RuntimeDirectory= gives it another mode at each start
	// Not by its path, where another version may be by now.
	return &Keeper{program: "/proc/self/exe", wake: wake, devices: map[string]*state{}}
}

// Events returns what happened since the last call.
func (k *Keeper) Events() (events []Event) {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	events, k.events = k.events, nil
	return events
}

// Counts returns how often something happened to the processes of a device.
func (k *Keeper) Counts(device string) Counts {
	if k == nil {
		return Counts{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of(device).counts
}

// of returns the state of a device. k.mu is held.
func (k *Keeper) of(device string) *state {
	s := k.devices[device]
	if s == nil {
		s = &state{}
		k.devices[device] = s
	}
	return s
}

// Starting reports whether a process was started that is not ready yet: its device may exist, and cannot be configured.
func (k *Keeper) Starting(device string) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.of(device).run
	return r != nil && !r.ready && !r.ended
}

// Start has a device made, which does not exist, by a process of its own: in the network namespace of the caller, and
// in a session of its own. It waits for that for a limited time, and then returns [ErrStarting]: the device can be
// configured when Start returns nil, or when it exists and is not [Keeper.Starting]. A process that ends again soon is
// started again after a backoff; until then, Start returns why it has ended.
func (k *Keeper) Start(device string, now time.Time) error {
	if k.Starting(device) {
		return ErrStarting
	}
	k.mu.Lock()
	s := k.of(device)
	last := s.run
	k.mu.Unlock()
	// One whose device was deleted is ending, or hangs.
	if last != nil && serves(last.pid, device) {
		k.mu.Lock()
		last.orphaned = true
		k.mu.Unlock()
	}
	err := End(device)
	if last != nil && err == nil {
		if err = kill(last.pid, device); err == nil {
			await(last.done, killTime) // its end is noted before the next one starts
		}
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case last != nil && !last.ended:
		return ErrStarting // its end wakes the caller
	case last != nil && !s.backoff.Due(now):
		return last.failure(device)
	}
	r, err := k.start(device)
	if err != nil {
		return err
	}
	s.run, s.failed = r, failure{}
	s.backoff.Next(startBackoff, now)
	k.mu.Unlock()
	await(r.settled, startTime)
	k.mu.Lock()
	switch {
	case r.ended:
		return r.failure(device)
	case !r.ready:
		return ErrStarting
	}
	return nil
}

// End ends our process that serves a device, whichever daemon started it, since the device is to be removed. The device
// ends with it.
func (k *Keeper) End(device string) error {
	if k == nil {
		return End(device)
	}
	k.mu.Lock()
	r := k.of(device).run
	if r != nil {
		r.expected = true
	}
	k.mu.Unlock()
	err := End(device)
	if r != nil && err == nil {
		err = kill(r.pid, device) // one that does not listen yet
	}
	return err
}

// Read notes what came of a read of a device at now. A process of ours that hangs, or whose socket is gone, is killed:
// its device ends with it, and is made again.
func (k *Keeper) Read(device string, reply Reply, now time.Time) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.of(device)
	if !s.failed.note(reply, now) {
		return
	}
	s.failed = failure{}
	what, count := Hung, &s.counts.Hung
	server, listens := At(device)
	if reply == NoSocket {
		what, count = Lost, &s.counts.Lost
		if listens {
			return // it is back
		}
		server.PID, server.Ours = k.withoutSocket(device)
	}
	if !server.Ours {
		return
	}
	if s.run != nil && s.run.pid == server.PID {
		s.run.expected = true
	}
	e := Event{Device: device, PID: server.PID, What: what}
	if err := end(server.PID, device); err != nil {
		e.Cause = err.Error()
	} else {
		*count++
	}
	k.events = append(k.events, e)
}

// withoutSocket returns our process that serves a device, whether or not it has its socket. k.mu is held.
func (k *Keeper) withoutSocket(device string) (pid int, ok bool) {
	if r := k.of(device).run; r != nil && !r.ended && serves(r.pid, device) {
		return r.pid, true
	}
	return hidden(device) // an earlier daemon has started it
}

// failure is the error of a process that has ended.
func (r *run) failure(device string) error {
	return fmt.Errorf("the user-space WireGuard of device %s has ended: %s; it is started again after a backoff",
		device, r.cause)
}

// await waits until a channel is closed, for a limited time.
func await(done <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// start starts a process, and what follows it to its end. k.mu is held.
func (k *Keeper) start(device string) (*run, error) {
	// 0700 whoever has made it: the sockets take and give keys.
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
		return nil, err
	}
	// A file, since a pipe breaks when the daemon ends.
	log, err := os.OpenFile(logPath(device), os.O_CREATE|os.O_RDWR|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	output, stdout, err := os.Pipe()
	if err != nil {
		log.Close()
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: k.program, Args: []string{ProgramName, device}, Dir: "/",
		// Not the daemon's environment, which may hold secrets. A trace of the stack could show keys.
		Env:    []string{"GOTRACEBACK=none"},
		Stdout: stdout, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // a signal to the daemon's terminal is not for it
	}
	err = cmd.Start()
	stdout.Close()
	if err != nil {
		log.Close()
		output.Close()
		return nil, fmt.Errorf("start a user-space WireGuard for device %s: %w", device, err)
	}
	r := &run{pid: cmd.Process.Pid, started: time.Now(), settled: make(chan struct{}), done: make(chan struct{})}
	go k.follow(device, r, cmd, output, log)
	return r, nil
}

// follow waits until a process is ready, and until it ends. It ends with the process, or with the daemon's.
func (k *Keeper) follow(device string, r *run, cmd *exec.Cmd, output io.ReadCloser, log *os.File) {
	line, _ := bufio.NewReader(output).ReadString('\n')
	output.Close()
	if line == Ready+"\n" {
		k.mu.Lock()
		r.ready = true
		k.events = append(k.events, Event{Device: device, PID: r.pid, What: Started})
		k.mu.Unlock()
		close(r.settled)
		k.wake()
	}
	err := cmd.Wait()
	text := lastLine(log)
	log.Close()
	k.mu.Lock()
	if r.orphaned {
		err = nil // it may have been killed before it noticed
	}
	r.ended, r.cause = true, causeOf(err, text)
	s := k.of(device)
	if time.Since(r.started) > settledAfter {
		s.backoff.Reset()
	}
	if r.ready && !r.expected {
		s.counts.Ended++
		k.events = append(k.events, Event{Device: device, PID: r.pid, What: Ended, Cause: r.cause})
	}
	k.mu.Unlock()
	if !r.ready {
		close(r.settled)
	}
	close(r.done)
	k.wake()
}

// lastLine returns the last line of a log.
func lastLine(log *os.File) string {
	const most = 4096
	info, err := log.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, most)
	n, err := log.ReadAt(buf, max(0, info.Size()-most))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return lastOf(string(buf[:n]))
}
