package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// typist types at a terminal and reads what is printed there.
type typist struct {
	t        *testing.T
	keys     *os.File // the other end of the terminal
	terminal *os.File
	before   *unix.Termios
	cmd      *exec.Cmd
	printed  chan string // is closed when the terminal is gone
	seen     string
}

// listen reads what is printed, so that no program waits for that.
func (ty *typist) listen() {
	ty.printed = make(chan string, 10_000)
	go func() {
		defer close(ty.printed)
		buffer := make([]byte, 4096)
		for {
			n, err := ty.keys.Read(buffer)
			if err != nil {
				return
			}
			ty.printed <- string(buffer[:n])
		}
	}()
}

// openTypist opens a terminal on which no program runs yet.
func openTypist(t *testing.T) *typist {
	t.Helper()
	keys, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close(); terminal.Close() })
	ty := &typist{t: t, keys: keys, terminal: terminal}
	ty.listen()
	ty.before = ty.settings()
	return ty
}

// newTypist starts a command as the only job of a terminal.
func newTypist(t *testing.T, cmd *exec.Cmd) *typist {
	t.Helper()
	ty := openTypist(t)
	ty.cmd = cmd
	if err := pty.Setsize(ty.keys, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = ty.terminal, ty.terminal, ty.terminal
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // fail only if it has ended
	return ty
}

func (ty *typist) settings() *unix.Termios {
	ty.t.Helper()
	s, err := unix.IoctlGetTermios(int(ty.terminal.Fd()), unix.TCGETS)
	if err != nil {
		ty.t.Fatal(err)
	}
	return s
}

// typeAndExpect types keys and waits until all of the texts have been printed, in this order. What follows the last one
// is left for the next call.
func (ty *typist) typeAndExpect(keys string, texts ...string) {
	ty.t.Helper()
	if _, err := ty.keys.WriteString(keys); err != nil {
		ty.t.Fatal(err)
	}
	ty.expect(texts...)
}

func (ty *typist) expect(texts ...string) {
	ty.t.Helper()
	late := time.After(time.Minute)
	for _, want := range texts {
		for {
			if _, after, found := strings.Cut(ty.seen, want); found {
				ty.seen = after
				break
			}
			select {
			case text, ok := <-ty.printed:
				if ty.seen += text; ok {
					continue
				}
			case <-late:
			}
			ty.t.Fatalf("%q is not printed; since the last match: %q", want, ty.seen)
		}
	}
}

// printedSoFar returns what has been printed since the last match, and forgets it.
func (ty *typist) printedSoFar() string {
	for len(ty.printed) > 0 {
		ty.seen += <-ty.printed
	}
	text := ty.seen
	ty.seen = ""
	return text
}

// ended waits until the command has ended, and looks whether the terminal is as it was.
func (ty *typist) ended(code int) {
	ty.t.Helper()
	ty.cmd.Wait()
	if got := ty.cmd.ProcessState.ExitCode(); got != code {
		ty.t.Errorf("exit code %d, want %d", got, code)
	}
	ty.expectSettings()
}

// expectSettings expects the terminal to be as it was.
func (ty *typist) expectSettings() {
	ty.t.Helper()
	if after := ty.settings(); *after != *ty.before {
		ty.t.Errorf("the terminal has the settings %+v, and had %+v", after, ty.before)
	}
}

// TestPrompt is a user at the prompt of lab up, and at another terminal.
func TestPrompt(t *testing.T) {
	const (
		ready = "lab node1> "
		up    = "\x1b[A"
		shell = "ready> " // as PS1 is set below; the echo of the assignment has quotes within
	)
	c := newLabCommand(t)
	ty := newTypist(t, c.command("up", "-n", "2", "--pods", "1", "--bin", binDir))
	ty.expect("node2/pod2", ready)

	// Completion: of a lab's command, of one of selvaged's and its flag, of names.
	ty.typeAndExpect("nod\t\t", "node1", "nodes", ready, "node")
	ty.typeAndExpect("s\r", "172.31.0.12", "node2/pod2", ready)
	ty.typeAndExpect("expl\tpod\t2\r", "explain pod2", "belongs to node2", ready)
	ty.typeAndExpect("explain node2\r", "belongs to node2", ready)
	ty.typeAndExpect("status --wat\t", "status --watch ")
	ty.typeAndExpect(string(rune(ctrlC))+"fault node2 daemon-k\t", "fault node2 daemon-kill ")
	ty.typeAndExpect(string(rune(ctrlC)), "\x1b")

	// History.
	ty.typeAndExpect(up+up+"\r", "pod2", "belongs to node2", ready)

	// selvaged's commands, here and on another node, and the node that is moved to.
	ty.typeAndExpect("status\r", "node1", "ready", "uplink", ready)
	ty.typeAndExpect("node2 peers\r", "node1", "programmed", ready)
	ty.typeAndExpect("node2\r", "lab node2> ")
	ty.typeAndExpect("doctor\r", "0 failures", "lab node2> ")
	ty.typeAndExpect("node1\r", ready)
	ty.typeAndExpect("statsu\r", "did you mean status?", ready)
	ty.typeAndExpect("explain\r", "ADDRESS", ready)
	ty.typeAndExpect("kernel\r", "usage: kernel NODE", ready)

	// Ctrl-C ends the command: one in the lab, and a program.
	ty.typeAndExpect("stream pod1 pod2 600\r", "600")
	ty.typeAndExpect(string(rune(ctrlC)), "^C", ready)
	ty.typeAndExpect("exec node1 sh -c 'echo ready; exec sleep 600'\r", "\nready\r")
	ty.typeAndExpect(string(rune(ctrlC)), ready)
	ty.typeAndExpect("status --watch\r", "uplink")
	ty.typeAndExpect(string(rune(ctrlC)), ready)

	// A shell with job control, and the terminal back after it: the next command is one of the lab.
	aShell := func(ty *typist) {
		t.Helper()
		ty.typeAndExpect("PS1='rea''dy> '\r", shell)
		ty.typeAndExpect("set -o | grep monitor\r", "monitor", "on", shell)
		ty.typeAndExpect("hostname; stty size; echo $TERM\r", "node1", "40 100", shell)
		ty.typeAndExpect(sleeper, "started")
		ty.typeAndExpect(string(rune(ctrlC)), shell)
		ty.killStoppedJob(shell)
		ty.typeAndExpect("exit 3\r", "exit 3")
	}
	ty.typeAndExpect("exec node1 bash --norc\r", "# ")
	aShell(ty)
	ty.expect(ready)
	ty.typeAndExpect("exec node2 hostname\r", "\nnode2\r", ready)
	ty.typeAndExpect("nodes\r", "172.31.0.12", ready)

	other := newTypist(t, c.command("exec", "node1", "bash", "--norc"))
	other.expect("# ")
	aShell(other)
	other.ended(3)
	newTypist(t, c.command("node2", "status")).expect("node2", "ready", "uplink")

	ty.typeAndExpect("\x04", "The lab is down")
	ty.ended(0)
	c.expectNothing()
}

// TestPromptIsGivenBack: a lab that is ended from another terminal, or killed, leaves the terminal as it was. One in the
// background of a terminal has no prompt, and is not stopped for reading.
func TestPromptIsGivenBack(t *testing.T) {
	c := newLabCommand(t)
	ty := newTypist(t, c.command("up", "-n", "1", "--pods", "0", "--bin", binDir))
	ty.expect("lab node1> ")
	if code, out := c.run("down"); code != 0 {
		t.Errorf("down: code %d, %s", code, out)
	}
	ty.expect("The lab is down")
	ty.ended(0)

	background := exec.Command("bash", "-mc", `"$@" & wait`, "bash", "/proc/self/exe", "up", "-n", "1", "--pods", "0", "--bin", binDir)
	background.Args[4] = "/proc/" + fmt.Sprint(os.Getpid()) + "/exe"
	background.Env = c.command().Env
	ty = newTypist(t, background)
	ty.expect("The lab is up. Try ")
	if code, out := c.run("down"); code != 0 {
		t.Errorf("down: code %d, %s", code, out)
	}
	ty.expect("The lab is down")
	ty.ended(0)
	c.expectNothing()
}
