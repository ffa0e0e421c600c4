package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
)

// TestPromptWithoutLab: the prompt's own part, with a lab that has no nodes.
func TestPromptWithoutLab(t *testing.T) {
	ty := openTypist(t)
	terminal := ty.terminal
	ctx, cancel := context.WithCancel(t.Context())
	s := &session{lab: new(lab.Lab), down: cancel}
	ended := make(chan error, 1)
	go func() { ended <- prompt(ctx, s, stdio{in: terminal, out: terminal, err: terminal}) }()
	ty.expect("lab > ")
	ty.typeAndExpect("hel\t\r", "help", "run a program on a node", "lab > ")
	ty.typeAndExpect("p\t", "pod    probe", "lab > p")
	ty.typeAndExpect("od \t", "add  del")
	ty.typeAndExpect(string(rune(ctrlC))+"kernel\r", "kernel", "usage: kernel NODE", "lab > ")
	ty.typeAndExpect("\x1b[A\r", "kernel", "usage: kernel NODE", "lab > ")
	ty.typeAndExpect("'\r", "a closing ' is missing", "lab > ")
	ty.typeAndExpect("\x04", "")
	if err := <-ended; err != nil || ctx.Err() == nil {
		t.Errorf("the prompt ended with %v, the lab with %v", err, ctx.Err())
	}
	ty.expectSettings()
}

// sleeper is a line for a shell that starts a job, which prints a word once the terminal's keys are its own.
const sleeper = "sh -c \"echo sta''rted; exec sleep 600\"\r"

// killStoppedJob stops a job in a shell and kills it. A shell refuses to exit until it has noticed that.
func (ty *typist) killStoppedJob(shell string) {
	ty.t.Helper()
	ty.typeAndExpect(sleeper, "started")
	ty.typeAndExpect("\x1a", "Stopped", shell)
	ty.typeAndExpect("while kill -9 %1 2>/dev/null; do :; done\r", shell)
}

// TestWithTerminal: a shell that is given the terminal has job control, and Ctrl-C ends what runs in it. However it ends,
// the prompt has the terminal back, and what the shell left running does not.
func TestWithTerminal(t *testing.T) {
	ty := openTypist(t)
	keys, terminal := ty.keys, ty.terminal
	if _, err := keyByKey(terminal); err != nil {
		t.Fatal(err)
	}
	ty.before = ty.settings()
	keyboard := newKeyboard()
	go keyboard.listen(terminal)
	const shell = "ready> "
	hungUp := filepath.Join(t.TempDir(), "hung-up") // is there when what was left running can no longer print
	for _, test := range []struct {
		name string
		end  func()
		code int
	}{
		{"exit", func() { ty.typeAndExpect("exit 3\r") }, 3},
		{"Ctrl-D", func() { ty.typeAndExpect("true\r", shell); ty.typeAndExpect("\x04") }, 0},
		{"killed", func() { ty.typeAndExpect("kill -9 $$\r") }, killed + int(unix.SIGKILL)},
		{"hung up", func() { ty.typeAndExpect("kill -HUP $$\r") }, killed + int(unix.SIGHUP)},
		{"a job that was killed", func() {
			ty.killStoppedJob(shell)
			ty.typeAndExpect("exit 3\r")
		}, 3},
		{"a stopped job", func() {
			ty.typeAndExpect(sleeper, "started")
			ty.typeAndExpect("\x1a", "Stopped", shell)
			ty.typeAndExpect("exit 3\r", "There are stopped jobs", shell)
			ty.typeAndExpect("exit 3\r")
		}, 3},
		{"killed with a stopped job", func() {
			ty.typeAndExpect(sleeper, "started")
			ty.typeAndExpect("\x1a", "Stopped", shell)
			ty.typeAndExpect("kill -9 $$\r")
		}, killed + int(unix.SIGKILL)},
		{"a job that ignores the end", func() {
			ty.typeAndExpect("(trap '' HUP; while echo la''te; do sleep .1; done; echo >"+hungUp+") &\r", "late")
			ty.typeAndExpect("exit 3\r")
		}, 3},
		{"raw mode", func() { ty.typeAndExpect("stty raw; kill -9 $$\r") }, killed + int(unix.SIGKILL)},
		{"more keys than it reads", func() {
			ty.typeAndExpect("stty raw; echo sta''rted; (sleep .5; kill -9 $$) & kill -STOP $$\r", "started")
			go keys.WriteString(strings.Repeat("key\r", 50_000))
		}, killed + int(unix.SIGKILL)},
	} {
		code := make(chan int, 1)
		go func() {
			c, err := withTerminal(terminal, keyboard.give, func(program *os.File) int {
				cmd := exec.Command("bash", "--norc")
				cmd.Env = append(os.Environ(), "PS1="+shell)
				cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
				cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
				return exitCode([]string{"exec"}, cmd.Run(), stdio{out: program, err: program})
			})
			if err != nil {
				t.Error(err)
			}
			code <- c
		}()
		ty.expect(shell)
		ty.typeAndExpect(sleeper, "started")
		ty.typeAndExpect(string(rune(ctrlC)), shell)
		test.end()
		select {
		case got := <-code:
			if got != test.code {
				t.Errorf("%s: exit code %d, want %d", test.name, got, test.code)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: the shell does not end; %q", test.name, ty.printedSoFar())
		}
		if after := ty.settings(); *after != *ty.before {
			t.Errorf("%s: the terminal has the settings %+v, and had %+v", test.name, after, ty.before)
		}
		const next = "ls -l\r"
		if _, err := keys.WriteString(next); err != nil {
			t.Fatal(err)
		}
		var read []byte // keys that the shell did not read are the prompt's, too
		for buffer := make([]byte, 16); !bytes.HasSuffix(read, []byte(next)); {
			n, err := keyboard.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			read = append(read, buffer[:n]...)
		}
		if rest := bytes.TrimSuffix(read, []byte(next)); strings.Trim(string(rest), "key\r") != "" {
			t.Errorf("%s: after the shell, the prompt reads %q", test.name, rest)
		}
		if ty.printedSoFar(); strings.Contains(test.name, "ignores") {
			for _, err := os.Stat(hungUp); err != nil; _, err = os.Stat(hungUp) {
				time.Sleep(10 * time.Millisecond)
			}
			if late := ty.printedSoFar(); late != "" {
				t.Errorf("%s: after the shell, %q is printed", test.name, late)
			}
		}
	}
}
