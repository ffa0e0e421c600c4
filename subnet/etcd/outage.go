package etcd

import (
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
)

// outageAfter is how long something has to fail before that is logged. A member that restarts while others serve costs
// an attempt or two, and the first errors of one that is stopping are misleading.
const outageAfter = time.Second

// outage remembers since when something has failed and logs it: once, once more for each other reason, and once when it
// ends.
type outage struct {
	log  logrus.FieldLogger
	lost string // logged at its beginning
	back string // logged at its end

	mu     sync.Mutex
	since  time.Time // of the first failure; zero: none
	cause  error
	logged map[string]bool // the advice that was logged
	quiet  backoff.Backoff // after an outage that was logged
}

// logBackoff spaces the log lines about events that recur.
var logBackoff = backoff.Policy{Min: time.Second, Max: 10 * time.Minute, Settle: 60}

// failure notes a failed attempt.
func (o *outage) failure(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.since, o.logged = time.Now(), map[string]bool{}
	}
	o.cause = err
	// Errors name the endpoint that was tried, which differs; the advice stays the same.
	advice := ""
	if f := (*fault)(nil); errors.As(err, &f) {
		advice = f.advice
	}
	now := time.Now()
	if now.Sub(o.since) < outageAfter || o.logged[advice] || len(o.logged) == 0 && !o.quiet.Due(now) {
		return
	}
	o.logged[advice] = true
	o.log.WithField("since", o.since.Format(time.RFC3339)).WithError(err).Warn(o.lost)
}

// over notes a success.
func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.logged) > 0 {
		o.log.WithField("after", time.Since(o.since).Round(time.Second)).Info(o.back)
		o.quiet.Next(logBackoff, time.Now())
	}
	o.since, o.cause, o.logged = time.Time{}, nil, nil
}

// state returns since when and why it fails; zero values: it does not.
func (o *outage) state() (time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since, o.cause
}
