package cniplugin

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExecute(t *testing.T) {
	environ := append(os.Environ(), "GREETING=hello")
	in := strings.Repeat("0123456789", 100_000) // more than a pipe holds
	stdout, stderr, err := execute(t.Context(), script(t, `cat; cat </dev/null; echo "$GREETING" >&2`), environ, []byte(in))
	if err != nil || string(stdout) != in || string(stderr) != "hello\n" {
		t.Errorf("got %d bytes, %q and %v", len(stdout), stderr, err)
	}
	for body, want := range map[string]string{
		"echo no; exit 7":        "exit status 7",
		"echo no; kill -TERM $$": "killed by signal: terminated",
	} {
		stdout, _, err := execute(t.Context(), script(t, body), environ, nil)
		if _, ok := errors.AsType[exitError](err); !ok || err.Error() != want || string(stdout) != "no\n" {
			t.Errorf("%s: got %q and %v, want %s", body, stdout, err, want)
		}
	}
	if _, _, err := execute(t.Context(), "/nonexistent", nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestRunIsKilled ends the context while the program runs: it says so by a file.
func TestExecuteIsKilled(t *testing.T) {
	dir := t.TempDir()
	running := filepath.Join(dir, "running")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for {
			if _, err := os.Stat(running); err == nil || t.Context().Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, _, err := execute(ctx, script(t, "echo >"+running+"; exec sleep 1000"), os.Environ(), nil)
	if _, ok := errors.AsType[exitError](err); !ok || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want killed and cancelled", err)
	}
	if _, _, err := execute(ctx, "/nonexistent", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("started all the same: %v", err)
	}
}

func TestAssign(t *testing.T) {
	old := []string{"A=1", "CNI_COMMAND=ADD", "CNI_NETNS=/x", "CNI_NETNS_OVERRIDE=1", "odd"}
	got := assign(old, []string{"CNI_COMMAND=DEL", "CNI_NETNS="})
	if want := []string{"A=1", "CNI_NETNS_OVERRIDE=1", "odd", "CNI_COMMAND=DEL", "CNI_NETNS="}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if old[1] != "CNI_COMMAND=ADD" {
		t.Error("the environment itself was changed")
	}
}

// TestSleepUntilEnd: whenever a child ends, before it is looked at or meanwhile, nobody waits for it for ever.
func TestSleepUntilEnd(t *testing.T) {
	const children = 300
	poll := make(chan struct{}) // the poller is busy with others, too: what it has been told once, it does not say again
	defer close(poll)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	go func() {
		for b := make([]byte, 1); ; {
			select {
			case <-poll:
				return
			default:
			}
			if _, err := w.Write(b); err != nil {
				return
			}
			if _, err := r.Read(b); err != nil {
				return
			}
		}
	}()
	for i := range children {
		cmd := exec.Command("true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		if i%2 == 0 { // it has ended, and is not reaped
			if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan struct{})
		go func() { sleepUntilEnd(pid); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("child %d has ended, and it is still waited for", i)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}
