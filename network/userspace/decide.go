package userspace

import (
	"errors"
	"os/exec"
	"strings"
	"time"
)

// Reply is what came of a read of a device.
type Reply int

// The values of [Reply].
const (
	Answered Reply = iota // or refused
	NoAnswer              // in time
	NoSocket              // nothing listens at the socket of the device
)

// A process is of no use if so many reads in a row had the same failure, in so long a time: a read that is not answered
// waits for two seconds.
const (
	failedReads = 3
	failedTime  = 4 * time.Second
)

// failure is a series of reads that had the same failure.
type failure struct {
	reply Reply
	reads int
	since time.Time // the first one
}

// note adds a read, and reports whether the failure is final.
func (f *failure) note(reply Reply, now time.Time) (final bool) {
	if reply != f.reply || f.reads == 0 {
		*f = failure{reply: reply, since: now}
	}
	f.reads++
	return reply != Answered && f.reads >= failedReads && now.Sub(f.since) >= failedTime
}

// causeOf says why a process has ended, from the error of waiting for it and the last line that it wrote.
func causeOf(err error, last string) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "its device was deleted"
	case errors.As(err, &exit) && !exit.Exited() || last == "":
		return err.Error() // a signal, which says more than an earlier error
	}
	return strings.TrimPrefix(last, ProgramName+": ")
}

// lastOf returns the last line of a text that is not empty. A panic's message is more than its traces and registers,
// which follow it.
func lastOf(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "panic: ") || strings.HasPrefix(lines[i], "fatal error: ") {
			return lines[i]
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}
