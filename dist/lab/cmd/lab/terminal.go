package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// isForeground reports whether the calling process has the terminal: a background job would be stopped for reading it.
// It must be asked outside the sandbox, in whose pid namespace the process group has no number.
func isForeground(f *os.File) bool {
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// keepSettings returns a function that restores the terminal's present settings, in case the process that changes them
// is killed.
func keepSettings(terminal *os.File) (restore func()) {
	fd := int(terminal.Fd())
	settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return func() {
		if err == nil && isForeground(terminal) {
			unix.IoctlSetTermios(fd, unix.TCSETS, settings) // fails only if the terminal is gone
		}
	}
}

// keyByKey sets a terminal so that each key is read as it is typed, Ctrl-C too, and is not echoed. Output is processed
// as before. restore undoes that.
func keyByKey(terminal *os.File) (restore func(), err error) {
	fd := int(terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read the terminal's settings: %w", err)
	}
	keys := *before
	keys.Iflag &^= unix.BRKINT | unix.ICRNL | unix.IGNCR | unix.INLCR | unix.ISTRIP | unix.IXON
	keys.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	keys.Cc[unix.VMIN], keys.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &keys); err != nil {
		return nil, fmt.Errorf("set the terminal: %w", err)
	}
	return func() { unix.IoctlSetTermios(fd, unix.TCSETSW, before) }, nil // fails only if the terminal is gone
}

// lastOutput is the time limit for the remaining output of a program that has ended.
const lastOutput = time.Second

// normalText resets what a program that was killed can leave set on a terminal: colours, a hidden cursor, bracketed
// paste.
const normalText = "\x1b[0m\x1b[?25h\x1b[?2004l"

// openTerminal makes a pty. Reads and writes of ours, its master, end when that is closed.
func openTerminal() (ours, program *os.File, err error) {
	master, program, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer master.Close()
	// Package pty leaves the master in blocking mode, in which a read outlasts Close.
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		if err = unix.SetNonblock(fd, true); err == nil {
			return os.NewFile(uintptr(fd), master.Name()), program, nil
		}
		unix.Close(fd)
	}
	program.Close()
	return nil, nil, err
}

// withTerminal runs a program on a terminal of its own, a pty that is connected to the user's: so it can be a shell
// with job control, and this process stays in control of the user's terminal. give connects what is typed to the pty. The
// user's terminal must be set by [keyByKey]. When the program has ended, its terminal is hung up, as by a remote login:
// processes that it left running can neither print nor read there.
func withTerminal(out *os.File, give func(io.Writer), run func(program *os.File) int) (int, error) {
	ours, program, err := openTerminal()
	if err != nil {
		return 1, fmt.Errorf("make a terminal for the program: %w", err)
	}
	defer ours.Close()
	resize := func() {
		if size, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ); err == nil {
			unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, size) // fails only if it is gone
		}
	}
	resize()
	resized, ended, resizer := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	go func() {
		defer close(resizer)
		for {
			select {
			case <-resized:
				resize()
			case <-ended:
				return
			}
		}
	}()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(out, ours) // until no process has the pty open, or the deadline below
	}()
	give(ours)
	code := run(program)
	give(nil)
	close(ended)
	<-resizer
	program.Close()
	ours.SetReadDeadline(time.Now().Add(lastOutput)) // a process that the program left running can have it open
	<-copied
	if code > killed {
		io.WriteString(out, normalText)
	}
	return code, nil
}
