// Package outage is what the stores share to cope with faults: the account and the log lines of an outage, and waits
// between attempts that differ from node to node.
package outage

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
)

// After is how long something has to fail before that is logged. A server that restarts while others serve costs an
// attempt or two, and the first errors of one that is stopping are misleading.
const After = time.Second

// Outage remembers since when something has failed and logs it: once, once more for each other reason, and once when it
// ends. It is safe for concurrent use.
type Outage struct {
	Log  logrus.FieldLogger
	Lost string // logged at its beginning
	Back string // logged at its end

	mu     sync.Mutex
	since  time.Time // of the first failure; zero: none
	cause  error
	logged map[string]bool // the kinds that were logged
	quiet  backoff.Backoff // after an outage that was logged
}

// LogBackoff spaces the log lines about events that recur.
var LogBackoff = backoff.Policy{Min: time.Second, Max: 10 * time.Minute, Settle: 60}

// Failure notes a failed attempt. Of failures of the same kind one is logged: errors may name the endpoint that was
// tried, which differs, while what to do stays the same.
func (o *Outage) Failure(err error, kind string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.since, o.logged = time.Now(), map[string]bool{}
	}
	o.cause = err
	now := time.Now()
	if now.Sub(o.since) < After || o.logged[kind] || len(o.logged) == 0 && !o.quiet.Due(now) {
		return
	}
	o.logged[kind] = true
	o.Log.WithField("since", o.since.Format(time.RFC3339)).WithError(err).Warn(o.Lost)
}

// Over notes a success.
func (o *Outage) Over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.logged) > 0 {
		o.Log.WithField("after", time.Since(o.since).Round(time.Second)).Info(o.Back)
		o.quiet.Next(LogBackoff, time.Now())
	}
	o.since, o.cause, o.logged = time.Time{}, nil, nil
}

// State returns since when and why it fails; zero values: it does not.
func (o *Outage) State() (time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since, o.cause
}
