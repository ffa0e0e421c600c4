package etcdserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/dist/lab/child"
)

const (
	portTries = 5               // times to choose other ports when one was taken meanwhile
	patience  = 2 * time.Minute // for etcd to end after SIGTERM, far more than it takes on a busy machine
)

var errPortTaken = errors.New("a port was taken meanwhile")

// Server is one etcd member. Its methods are to be called by one goroutine at a time.
type Server struct {
	opts Options
	self addresses
	all  []addresses

	running *child.Process // nil: stopped
}

// Start runs one member and returns once it serves. It runs until it is stopped or killed: ctx bounds only the start.
func Start(ctx context.Context, opts Options) (*Server, error) {
	servers, err := StartCluster(ctx, 1, opts)
	if err != nil {
		return nil, err
	}
	return servers[0], nil
}

// StartCluster runs a cluster of the given number of members and returns once all of them serve.
func StartCluster(ctx context.Context, members int, opts Options) ([]*Server, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		all, err := opts.choosePorts(members)
		if err != nil {
			return nil, err
		}
		servers := make([]*Server, members)
		for i := range servers {
			servers[i] = &Server{opts: opts, self: all[i], all: all}
		}
		err = startAll(ctx, servers)
		if err == nil {
			return servers, nil
		}
		for _, s := range servers {
			s.Kill()
			os.RemoveAll(s.DataDir())
		}
		if !errors.Is(err, errPortTaken) || try == portTries {
			return nil, err
		}
	}
}

// startAll starts members together: a member of several does not serve before most of them are there.
func startAll(ctx context.Context, servers []*Server) error {
	for _, s := range servers {
		if err := s.launch(); err != nil {
			return err
		}
	}
	for _, s := range servers {
		if err := s.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Endpoint is the URL for clients, for example "http://127.0.0.1:41234".
func (s *Server) Endpoint() string {
	if s.opts.CertFile != "" {
		return "https://" + s.self.client
	}
	return "http://" + s.self.client
}

// DataDir holds the member's data. Removing it while the server is stopped is how a wipe is made.
func (s *Server) DataDir() string { return filepath.Join(s.opts.Dir, s.self.name) }

// LogFile is the file that etcd logs to.
func (s *Server) LogFile() string { return s.DataDir() + ".log" }

// PID is the process id, or 0 if the server is stopped.
func (s *Server) PID() int {
	if s.running == nil {
		return 0
	}
	return s.running.PID()
}

// Restart starts the server again on the same addresses and data, after stopping it if it runs.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	if err := s.launch(); err != nil {
		return err
	}
	return s.Ready(ctx)
}

// Stop ends the server in an orderly way and waits for its end. Stopping a stopped server does nothing.
func (s *Server) Stop() error {
	p := s.running
	if p == nil {
		return nil
	}
	s.running = nil
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGCONT) // a paused process does not see the first
	select {
	case <-p.Done():
		return nil
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("etcd did not end within %s of SIGTERM and was killed", patience)
	}
}

// Kill ends the server as a crash would, and waits for its end. Killing a stopped server does nothing.
func (s *Server) Kill() {
	if p := s.running; p != nil {
		s.running = nil
		p.Kill()
	}
}

// Pause stops the process without ending it: connections stay open and nothing answers. It returns when every thread
// has stopped; they do so one after the other, and the last could still answer somebody.
func (s *Server) Pause() error {
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); !stopped(s.PID()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("etcd did not stop within %s of SIGSTOP", patience)
		}
	}
	return nil
}

// stopped reports whether all threads of a process are stopped: proc_pid_stat(5), the field after the name.
func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		if _, after, ok := strings.Cut(string(stat), ") "); !ok || !strings.HasPrefix(after, "T") {
			return false
		}
	}
	return true
}

// Continue ends a pause.
func (s *Server) Continue() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	if s.running == nil {
		return errors.New("etcd is not running")
	}
	return s.running.Signal(sig)
}

func (s *Server) launch() error {
	p, err := child.Start(s.LogFile(), s.opts.Binary, s.opts.arguments(s.self, s.all)...)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	s.running = p
	return nil
}

// Ready waits until the server answers that it is healthy, which includes that the cluster has a leader.
func (s *Server) Ready(ctx context.Context) error {
	p := s.running
	if p == nil {
		return errors.New("etcd is not running")
	}
	// Connections that outlive a request would be goroutines that outlive the test.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second} // then it asks again
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if healthy(ctx, client, s.self.metrics) && listens(p.PID(), s.self.metrics) {
			return nil
		}
		select {
		case <-p.Done():
			s.running = nil
			tail := p.LogTail()
			if strings.Contains(tail, "address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("etcd ended at its start (%v):\n%s", p.Err(), tail)
		case <-ctx.Done():
			return fmt.Errorf("etcd at %s is not healthy: %w\n%s", s.self.client, ctx.Err(), p.LogTail())
		case <-tick.C:
		}
	}
}

func healthy(ctx context.Context, client *http.Client, addr string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/health", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
