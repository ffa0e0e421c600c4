package userspace

import (
	"errors"
	"os/exec"
	"strings"
	"time"
)

// A process hangs if it has not answered so many reads in a row, in so long a time: each read waits for two seconds.
const (
	hungReads = 3
	hungTime  = 4 * time.Second
)

// silence is a series of reads that a process has not answered.
type silence struct {
	reads int
	since time.Time // the first one
}

// note adds a read that was not answered.
func (s *silence) note(now time.Time) {
	if s.reads == 0 {
		s.since = now
	}
	s.reads++
}

// hangs reports whether the process hangs.
func (s silence) hangs(now time.Time) bool {
	return s.reads >= hungReads && now.Sub(s.since) >= hungTime
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
