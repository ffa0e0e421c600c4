package etcd

import (
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// outageAfter is how long something has to fail before that is said. A member that restarts while others are there costs
// an attempt or two, and of one that is just ending the first errors are misleading.
const outageAfter = time.Second

// outage remembers since when something does not work and says so: once, once more for each other reason that comes up,
// and once when it ends.
type outage struct {
	log  logrus.FieldLogger
	lost string // what to say at its beginning
	back string // what to say at its end

	mu    sync.Mutex
	since time.Time // of the first failure; zero: none
	cause error
	said  map[string]bool // the advice that was given
}

// failure notes a failed attempt.
func (o *outage) failure(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.since, o.said = time.Now(), map[string]bool{}
	}
	o.cause = err
	// Errors name the endpoint that was tried, which is another each time; the advice stays the same.
	advice := ""
	if f := (*fault)(nil); errors.As(err, &f) {
		advice = f.advice
	}
	if time.Since(o.since) < outageAfter || o.said[advice] {
		return
	}
	o.said[advice] = true
	o.log.WithField("since", o.since.Format(time.RFC3339)).WithError(err).Warn(o.lost)
}

// over notes that it works.
func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.said) > 0 {
		o.log.WithField("after", time.Since(o.since).Round(time.Second)).Info(o.back)
	}
	o.since, o.cause, o.said = time.Time{}, nil, nil
}

// state returns since when and why it does not work, or nothing.
func (o *outage) state() (time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since, o.cause
}
