package main

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
)

// TestPromptWithoutLab: the prompt's own part, with a lab that has no nodes.
func TestPromptWithoutLab(t *testing.T) {
	keys, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer terminal.Close()
	ty := &typist{t: t, keys: keys, terminal: terminal}
	ty.listen()
	ty.before = ty.settings()
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
	if after := ty.settings(); *after != *ty.before {
		t.Errorf("the terminal has the settings %+v, and had %+v", after, ty.before)
	}
}

// sleeper is a line for a shell that starts a job, which prints a word once the terminal's keys are its own.
const sleeper = "sh -c \"echo sta''rted; exec sleep 600\"\r"

// TestWithTerminal: a shell that is given the terminal has job control, and Ctrl-C ends what runs in it.
func TestWithTerminal(t *testing.T) {
	keys, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	defer terminal.Close()
	ty := &typist{t: t, keys: keys, terminal: terminal}
	ty.listen()
	if _, err := keyByKey(terminal); err != nil {
		t.Fatal(err)
	}
	keyboard := newKeyboard()
	go keyboard.listen(terminal)
	code := make(chan int, 1)
	go func() {
		c, err := withTerminal(terminal, keyboard.give, func(program *os.File) int {
			cmd := exec.Command("bash", "--norc")
			cmd.Env = append(os.Environ(), "PS1=ready> ")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
			cmd.Run()
			return cmd.ProcessState.ExitCode()
		})
		if err != nil {
			t.Error(err)
		}
		code <- c
	}()
	ty.expect("ready> ")
	ty.typeAndExpect(sleeper, "started")
	ty.typeAndExpect(string(rune(ctrlC)), "ready> ")
	ty.typeAndExpect(sleeper, "started")
	ty.typeAndExpect("\x1a", "Stopped", "ready> ")
	ty.typeAndExpect("kill -9 %1\r", "ready> ")
	ty.typeAndExpect("exit 3\r", "exit 3")
	if got := <-code; got != 3 {
		t.Errorf("exit code %d, want 3", got)
	}
	if _, err := keys.WriteString("next\r"); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 16)
	if n, err := keyboard.Read(buffer); string(buffer[:n]) != "next\r" {
		t.Errorf("after the shell, the prompt reads %q, %v", buffer[:n], err)
	}
}
