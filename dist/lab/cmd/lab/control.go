package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
)

// call is a command from another terminal; stdin, stdout and stderr come with it as files (SCM_RIGHTS, unix(7)).
type call struct {
	Args     []string
	Terminal bool // stdin, stdout and stderr are one terminal, which is made for this call
}

// answer ends a call.
type answer struct {
	Code int // exit code
}

// maxMessage is the most that one packet can hold, in bytes.
const maxMessage = 64 << 10

// stdio is what a command reads and writes, wherever it was typed.
type stdio struct {
	in, out, err *os.File
	terminal     bool // in is a terminal that is made for this command
}

// forProgram is the same for a program that the command starts.
func (io stdio) forProgram() lab.Stdio {
	if io.terminal {
		return lab.Stdio{Terminal: io.in}
	}
	return lab.Stdio{In: io.in, Out: io.out, Err: io.err}
}

// serve answers calls on listener until ctx ends, each on a goroutine of its own. run's context ends when ctx does or the
// caller has gone.
func serve(ctx context.Context, listener *net.UnixListener, run func(context.Context, []string, stdio) int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			serveCall(ctx, conn, run)
		})
	}
}

func serveCall(ctx context.Context, conn *net.UnixConn, run func(context.Context, []string, stdio) int) {
	message, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(message, oob)
	if err != nil {
		return // the caller has gone
	}
	files, err := receivedFiles(oob[:oobn])
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var c call
	if err != nil || len(files) != 3 || json.Unmarshal(message[:n], &c) != nil {
		return // not one of ours
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conn.Read(make([]byte, 1)) // nothing more is sent: it returns when an end is closed
		cancel()
	}()
	code := run(ctx, c.Args, stdio{files[0], files[1], files[2], c.Terminal})
	reply, err := json.Marshal(answer{Code: code})
	if err == nil {
		conn.Write(reply) // fails only if the caller has gone
	}
	conn.CloseRead()
	<-gone
}

func receivedFiles(oob []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "caller's"))
		}
	}
	return files, nil
}

// request has a running lab execute a command, and returns the exit code.
func request(name string, args []string) int {
	dir, err := runDirOf(name)
	if err != nil {
		return fail(err)
	}
	code, err := requestIn(dir, args)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return fail(fmt.Errorf("%s: no lab named %s is running: start one with \"lab up\", or see \"lab help\"", args[0], name))
	}
	if err != nil {
		return fail(fmt.Errorf("%s: %w", args[0], err))
	}
	return code
}

// requestIn sends a command to the lab with that directory. A program that it starts there gets a terminal of its own
// if this process has one, since the lab has another session.
func requestIn(dir string, args []string) (int, error) {
	addr := socketOf(dir)
	conn, err := net.DialUnix(addr.Net, nil, addr)
	if err != nil {
		return 1, err
	}
	defer conn.Close()
	if !runsProgram(args) || !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
		return exchange(conn, dir, call{Args: args}, [3]*os.File{os.Stdin, os.Stdout, os.Stderr})
	}
	restore, err := keyByKey(os.Stdin)
	if err != nil {
		return 1, err
	}
	defer restore()
	// A signal ends this process once the terminal is restored. The lab kills the program when the connection is gone.
	ctx, stop := signals()
	defer stop()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	give := func(program io.Writer) {
		if program != nil {
			go io.Copy(program, os.Stdin) // ends with this process
		}
	}
	var failed error
	code, err := withTerminal(os.Stdout, give, func(program *os.File) (code int) {
		code, failed = exchange(conn, dir, call{args, true}, [3]*os.File{program, program, program})
		return code
	})
	if ctx.Err() != nil {
		return interrupted, nil
	}
	return code, errors.Join(err, failed)
}

// exchange sends a call with its stdin, stdout and stderr, and returns the exit code of the answer.
func exchange(conn *net.UnixConn, dir string, c call, files [3]*os.File) (int, error) {
	message, err := json.Marshal(c)
	if err != nil {
		return 1, err
	}
	rights := unix.UnixRights(int(files[0].Fd()), int(files[1].Fd()), int(files[2].Fd()))
	if _, _, err := conn.WriteMsgUnix(message, rights, nil); err != nil {
		return 1, fmt.Errorf("send the command: %w", err)
	}
	reply := make([]byte, maxMessage)
	n, err := conn.Read(reply)
	if err == nil && n == 0 || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return 1, errEnded
	}
	if err != nil {
		return 1, fmt.Errorf("wait for the command: %w", err)
	}
	var a answer
	if err := json.Unmarshal(reply[:n], &a); err != nil {
		return 1, fmt.Errorf("read the lab's answer: %w", err)
	}
	if c.Args[0] == "down" {
		waitGone(dir)
	}
	return a.Code, nil
}

// errEnded is when a lab ends before it has answered.
var errEnded = errors.New("the lab has ended")

// waitGone waits until no process has the directory of a lab locked.
func waitGone(dir string) {
	if lock, err := lockDir(dir, unix.LOCK_SH); err == nil {
		lock.Close()
	}
}
