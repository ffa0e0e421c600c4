package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// logOutput writes log lines to a file that may block or be gone: a terminal that is stopped, a pipe whose reader hangs
// or has ended, a journal that restarts. The daemon neither waits for it nor ends with it. Lines that find the queue
// full are dropped, and their number is written once the file takes lines again.
type logOutput struct {
	file    io.Writer
	lines   chan []byte
	dropped atomic.Int64
	ended   chan struct{}
}

// queuedLines is how many lines wait at most; some 200 bytes each.
const queuedLines = 1024

// flushTime is how long the end of the daemon waits for the lines that are queued.
const flushTime = time.Second

func newLogOutput(file io.Writer) *logOutput {
	o := &logOutput{file: file, lines: make(chan []byte, queuedLines), ended: make(chan struct{})}
	go o.run()
	return o
}

// Write implements io.Writer. It never blocks and never fails; logrus would write its failures to stderr.
func (o *logOutput) Write(line []byte) (int, error) {
	select {
	case o.lines <- append([]byte(nil), line...): // logrus uses its buffer again
	default:
		o.dropped.Add(1)
	}
	return len(line), nil
}

func (o *logOutput) run() {
	defer close(o.ended)
	for line := range o.lines {
		if line == nil {
			return
		}
		_, _ = o.file.Write(line) // there is nowhere to say that it failed
		if n := o.dropped.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(o.file, "%d log lines were dropped: stderr was blocked\n", n)
		}
	}
}

// close waits until the queued lines are written, for a moment at most. What is written from then on is lost.
func (o *logOutput) close() {
	timeout := time.After(flushTime)
	select {
	case o.lines <- nil:
	case <-timeout:
		return
	}
	select {
	case <-o.ended:
	case <-timeout:
	}
}

// isTerminal reports whether a file is a terminal: then the log has colours.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// surviveBrokenPipe keeps the process alive when it writes to a stdout or stderr whose reader is gone: it would end by
// SIGPIPE otherwise (os/signal, section SIGPIPE). The signal is not ignored, as the programs that the daemon starts
// would inherit that.
func surviveBrokenPipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// steadyFormatter removes from each line what differs between two attempts and has no meaning for the reader: the local
// port of a connection, as in "read tcp 192.0.2.1:39462->192.0.2.9:2379", and the address of an object in memory. So
// the same cause gives the same line.
type steadyFormatter struct{ logrus.Formatter }

// Format implements logrus.Formatter.
func (f steadyFormatter) Format(e *logrus.Entry) ([]byte, error) {
	line, err := f.Formatter.Format(e)
	return steady(line), err
}

var (
	localPort = regexp.MustCompile(`(\d|\]):\d{1,5}(->|-\\u003e)`) // the second one is JSON's form
	pointer   = regexp.MustCompile(`\b0xc[0-9a-f]{9}\b`)           // of Go's heap
)

func steady(line []byte) []byte {
	return pointer.ReplaceAll(localPort.ReplaceAll(line, []byte("$1$2")), []byte("0x…"))
}
