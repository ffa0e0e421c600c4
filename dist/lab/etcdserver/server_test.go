package etcdserver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/testctx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startContext(t *testing.T) context.Context {
	ctx := testctx.New(t)
	return ctx
}

func TestServerStopsAndStartsAgainOnTheSameAddress(t *testing.T) {
	s, err := Start(startContext(t), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	endpoint, pid := s.Endpoint(), s.PID()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if s.PID() != 0 {
		t.Errorf("a stopped server has process %d", s.PID())
	}
	if err := s.Pause(); err == nil {
		t.Error("a stopped server can be paused")
	}
	if err := s.Restart(startContext(t)); err != nil {
		t.Fatal(err)
	}
	if s.Endpoint() != endpoint || s.PID() == pid || s.PID() == 0 {
		t.Errorf("after the restart: %s, process %d; before: %s, process %d", s.Endpoint(), s.PID(), endpoint, pid)
	}
}

func TestPausedServerAnswersNothingAndCanBeStopped(t *testing.T) {
	s, err := Start(startContext(t), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Ready(short); err == nil {
		t.Error("a paused server is healthy")
	}
	if err := s.Continue(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(startContext(t)); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("stop while paused: %v", err)
	}
}

func TestClusterServesWithOneMemberDown(t *testing.T) {
	servers, err := StartCluster(startContext(t), 3, Options{Dir: t.TempDir(), Name: "member"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		defer s.Kill()
	}
	servers[0].Kill()
	for _, s := range servers[1:] {
		if err := s.Ready(startContext(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestPortThatIsTakenIsSaid(t *testing.T) {
	s, err := Start(startContext(t), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	dir := t.TempDir()
	other := &Server{opts: s.opts, self: s.self, all: s.all}
	other.opts.Dir = dir
	// The metrics port must be another: otherwise the first server would answer for the second.
	free, err := s.opts.choosePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	other.self.metrics = free[0].metrics
	if err := startAll(startContext(t), []*Server{other}); err != errPortTaken {
		other.Kill()
		t.Errorf("started on a port in use: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		opts Options
		want string
	}{
		{"no binary", Options{Dir: t.TempDir(), Binary: "/nonexistent/etcd"}, "run: make tools"},
		{"no directory", Options{Dir: "/nonexistent"}, "no such file"},
		{"file for a directory", Options{Dir: file}, "is not a directory"},
		{"unknown flag", Options{Dir: t.TempDir(), Flags: []string{"--nonsense"}}, "nonsense"},
		{"no such address", Options{Dir: t.TempDir(), Host: "192.0.2.1"}, "choose a port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Start(startContext(t), c.opts)
			if err == nil {
				s.Kill()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

// TestPortOfAnotherEtcd: a server whose port another etcd has taken is not ready because that one answers.
func TestPortOfAnotherEtcd(t *testing.T) {
	ctx := startContext(t)
	other, err := Start(ctx, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Kill()
	opts, err := Options{Dir: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	all, err := opts.choosePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	all[0].metrics = other.self.metrics
	s := &Server{opts: opts, self: all[0], all: all}
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	if err := s.Ready(ctx); !errors.Is(err, errPortTaken) {
		t.Errorf("ready with the error %v, want %v", err, errPortTaken)
	}
}
