package userspace

import (
	"errors"
	"os/exec"
	"testing"
	"time"
)

func TestIsCommand(t *testing.T) {
	for line, want := range map[string]bool{
		"selvage-wireguard\x00flannel-wg\x00":             true,
		"selvage-wireguard\x00flannel-wg-2\x00":           false,
		"selvage-wireguard\x00flannel-wg\x00--more\x00":   false,
		"selvage-wireguard\x00flannel-wg":                 false,
		"wireguard-go\x00flannel-wg\x00":                  false,
		"/usr/bin/selvage-wireguard\x00flannel-wg\x00":    false,
		"sh\x00-c\x00selvage-wireguard\x00flannel-wg\x00": false,
		"": false, // it has ended, or is a thread of the kernel
	} {
		if got := isCommand(line, "flannel-wg"); got != want {
			t.Errorf("%q: %t, want %t", line, got, want)
		}
	}
}

// TestFinal: a failure is final after three reads in a row, and four seconds.
func TestFinal(t *testing.T) {
	for _, reply := range []Reply{NoAnswer, NoSocket} {
		var f failure
		now := time.Unix(1e9, 0)
		for i, x := range []struct {
			after time.Duration
			want  bool
		}{{0, false}, {time.Second, false}, {time.Second, false}, {2*time.Second - 1, false}, {1, true}} {
			now = now.Add(x.after)
			if got := f.note(reply, now); got != x.want {
				t.Errorf("read %d: %t, want %t", i+1, got, x.want)
			}
		}
		for _, between := range []Reply{Answered, NoAnswer + NoSocket - reply} {
			f.note(between, now)
			for range failedReads - 1 {
				now = now.Add(time.Minute)
				if f.note(reply, now) {
					t.Error("two reads are enough, want three: the machine may have slept in between")
				}
			}
		}
		for range failedReads + 1 {
			now = now.Add(time.Minute)
			if f.note(Answered, now) {
				t.Error("an answer is a failure")
			}
		}
	}
}

func TestLastOf(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"\n\n":                   "",
		"one\ntwo\n":             "two",
		"one\ntwo":               "two",
		"panic: no\n\ngoroutine": "panic: no",
		"x\nfatal error: out of memory\nruntime: \n": "fatal error: out of memory",
	} {
		if got := lastOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestCauseOf(t *testing.T) {
	run := func(script string) error { return exec.Command("sh", "-c", script).Run() }
	for _, x := range []struct {
		err        error
		last, want string
	}{
		{nil, "an earlier error", "its device was deleted"},
		{run("exit 1"), "selvage-wireguard: no device", "no device"},
		{run("exit 1"), "", "exit status 1"},
		{run("kill -9 $$"), "an earlier error", "signal: killed"},
		{errors.New("wait: no child"), "", "wait: no child"},
	} {
		if got := causeOf(x.err, x.last); got != x.want {
			t.Errorf("%v, %q: %q, want %q", x.err, x.last, got, x.want)
		}
	}
}
