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

// logOutput writes log lines to a file that may block or be closed: a terminal that is stopped, a pipe whose reader
// hangs or has exited, a journal that restarts. The daemon neither waits for the file nor exits with its reader. If the
// queue is full, lines are dropped, and their number is logged once the file accepts lines again.
type logOutput struct {
	file    io.Writer
	log     *logrus.Logger // formats the line about dropped ones
	lines   chan []byte
	dropped atomic.Int64
	ended   chan struct{}
}

// queuedLines is the size of the queue. A line has some 200 bytes.
const queuedLines = 1024

// flushTime is how long the daemon waits for queued lines when it exits.
const flushTime = time.Second

func newLogOutput(file io.Writer, log *logrus.Logger) *logOutput {
	o := &logOutput{file: file, log: log, lines: make(chan []byte, queuedLines), ended: make(chan struct{})}
	go o.run()
	return o
}

// Write implements io.Writer. It never blocks and never fails; logrus would write its failures to stderr.
func (o *logOutput) Write(line []byte) (int, error) {
	select {
	case o.lines <- append([]byte{}, line...): // not nil, see close; logrus reuses its buffer
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
		_, _ = o.file.Write(line) // an error cannot be logged
		if n := o.dropped.Swap(0); n > 0 {
			_, _ = o.file.Write(o.droppedLine(n))
		}
	}
}

// droppedLine returns the log line about dropped lines.
func (o *logOutput) droppedLine(n int64) []byte {
	e := logrus.NewEntry(o.log).WithField("lines", n)
	e.Time, e.Level, e.Message = time.Now(), logrus.WarnLevel, "log lines were dropped: stderr was blocked"
	line, _ := o.log.Formatter.Format(e) // a number can be formatted
	return line
}

// close waits up to flushTime until the queued lines are written. Lines that are written after it are lost.
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

// isTerminal reports whether a file is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// surviveBrokenPipe keeps the process alive when it writes to a stdout or stderr whose reader has exited: otherwise
// SIGPIPE would end it (os/signal, section SIGPIPE). The signal is handled and not ignored, because programs that the
// daemon starts would inherit an ignored one.
func surviveBrokenPipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// steadyFormatter removes what differs between two attempts and does not matter to the reader: the local port of a
// connection, as in "read tcp 192.0.2.1:39462->192.0.2.9:2379", and the address of an object in memory. So the same
// cause gives the same line.
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

// logger returns the logger that the flags ask for.
func (f *flags) logger() (*logrus.Logger, error) {
	log := logrus.New()
	level, err := logrus.ParseLevel(f.logLevel)
	if err != nil {
		return nil, fmt.Errorf("--log-level: %q, want error, warning, info or debug", f.logLevel)
	}
	if f.verbosity > 0 {
		level = logrus.DebugLevel
	}
	log.SetLevel(level)
	switch f.logFormat {
	case "text":
		text := &logrus.TextFormatter{FullTimestamp: true, ForceColors: isTerminal(os.Stderr)}
		log.SetFormatter(steadyFormatter{text})
	case "json":
		log.SetFormatter(steadyFormatter{&logrus.JSONFormatter{}})
	default:
		return nil, fmt.Errorf("--log-format: %q, want text or json", f.logFormat)
	}
	return log, nil
}
