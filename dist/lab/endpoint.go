package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Endpoint is a place in the lab that probes go from and to: a pod, a node or the outside.
type Endpoint struct {
	name  string
	addrs [2]netip.Addr // by subnet.Family
	do    func(func() error) error
	echo  *echoServer

	// source says what is wrong with the source address that this endpoint's packets showed to another; nil if all is
	// right. It is a field because it is where the kinds of endpoint differ.
	source func(seen netip.Addr, to *Endpoint) error
	// inOverlay: the endpoint's addresses are of the overlay, so a packet to it is not masqueraded.
	inOverlay bool
}

// newEndpoint starts an echo server on the valid ones of addrs.
func newEndpoint(name string, do func(func() error) error, addrs [2]netip.Addr) (*Endpoint, error) {
	e := &Endpoint{name: name, addrs: addrs, do: do}
	e.source = func(seen netip.Addr, _ *Endpoint) error {
		if seen == addrs[subnet.FamilyOf(seen)] {
			return nil
		}
		return fmt.Errorf("the source address seen is %s, want %s", seen, addrs[subnet.FamilyOf(seen)])
	}
	var err error
	if e.echo, err = newEchoServer(do, addrs); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}

// Name is "node1" for a node, "node1/pod1" for a pod, "outside" for the outside.
func (e *Endpoint) Name() string { return e.name }

// Addr is the address at which the endpoint answers; the invalid one if it has none in that family. A node's is the underlay's.
func (e *Endpoint) Addr(f subnet.Family) netip.Addr { return e.addrs[f] }

// Do calls fn on a thread of its own in the endpoint's namespaces, see [sandbox.Host.Do].
func (e *Endpoint) Do(fn func() error) error { return e.do(fn) }

// ReadFile reads a file as the endpoint sees it: each node has a /run and a /var/lib of its own, which its pods share.
func (e *Endpoint) ReadFile(path string) ([]byte, error) {
	return in(e.do, func() ([]byte, error) { return os.ReadFile(path) })
}

// Stdio is what a program reads and writes. What is nil is /dev/null.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
	// Terminal, if set, stands in for all three. The program gets a session of its own, with this as its controlling
	// terminal, which must be no other session's.
	Terminal *os.File
}

// Exec runs a program in the endpoint's namespaces until it ends, or kills it when ctx ends. The error of one that ran and
// failed is an [exec.ExitError].
func (e *Endpoint) Exec(ctx context.Context, argv []string, stdio Stdio) error {
	if len(argv) == 0 {
		return errors.New("no program is given")
	}
	cmd, err := in(e.do, func() (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio.In, stdio.Out, stdio.Err
		if t := stdio.Terminal; t != nil {
			cmd.Stdin, cmd.Stdout, cmd.Stderr = t, t, t
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		}
		cmd.WaitDelay = time.Second // for what the program started and left, should it hold a pipe of ours
		return cmd, cmd.Start()
	})
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", e.name, argv[0], err)
	}
	return nil
}

// Output runs a program and returns what it printed; an error carries what it printed on stderr.
func (e *Endpoint) Output(ctx context.Context, argv ...string) ([]byte, error) {
	var out, problems bytes.Buffer
	err := e.Exec(ctx, argv, Stdio{Out: &out, Err: &problems})
	if err != nil && problems.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(problems.Bytes()))
	}
	return out.Bytes(), err
}

func (e *Endpoint) close() { e.echo.close() }
