// Package serverlog logs what an HTTP server of package net/http reports, and not too much of it.
package serverlog

import (
	"log"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
)

// How many lines are logged within window. A server writes one each second while it cannot accept connections, for
// example for lack of file descriptors, and one for each client that breaks the protocol or fails in a handshake.
const (
	lines  = 6
	window = 10 * time.Minute
)

// New returns a log for http.Server.ErrorLog, whose lines become warnings that begin with a prefix.
func New(to logrus.FieldLogger, prefix string, now func() time.Time) *log.Logger {
	return log.New(&writer{to: to, prefix: prefix, now: now}, "", 0)
}

// writer gets each line by one call, and not more than one at a time.
type writer struct {
	to     logrus.FieldLogger
	prefix string
	now    func() time.Time
	limit  backoff.Limiter
}

// Write implements io.Writer.
func (w *writer) Write(line []byte) (int, error) {
	switch w.limit.Allow(lines, window, w.now()) {
	case backoff.Pass:
		w.to.Warn(w.prefix + strings.TrimSpace(string(line)))
	case backoff.Last:
		w.to.Warn(w.prefix + "more warnings of the HTTP server; not logged for now")
	case backoff.Drop:
	}
	return len(line), nil
}
