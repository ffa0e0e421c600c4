package etcd

import (
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// outage remembers since when something does not work and says so: once when it begins, again if the reason changes,
// and once when it ends. A single failure is not an outage: a member that restarts costs one, and the next attempt
// finds another member.
type outage struct {
	log  logrus.FieldLogger
	lost string // what to say at its beginning
	back string // what to say at its end

	mu     sync.Mutex
	since  time.Time // of the first failure; zero: none
	cause  error
	failed int
	said   string // the advice that was given last
}

// failure notes a failed attempt.
func (o *outage) failure(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed == 0 {
		o.since = time.Now()
	}
	o.cause = err
	o.failed++
	// Errors name the endpoint that was tried, which is another each time; the advice stays the same.
	said := "?"
	if f := (*fault)(nil); errors.As(err, &f) {
		said = f.advice
	}
	if o.failed < 2 || said == o.said {
		return
	}
	o.said = said
	o.log.WithField("since", o.since.Format(time.RFC3339)).WithError(err).Warn(o.lost)
}

// over notes that it works.
func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said != "" {
		o.log.WithField("after", time.Since(o.since).Round(time.Second)).Info(o.back)
	}
	o.since, o.cause, o.failed, o.said = time.Time{}, nil, 0, ""
}

func (o *outage) state() (time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since, o.cause
}
