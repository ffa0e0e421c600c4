package node

import "time"

// alarm is the earliest of the times at which the loop has to run again. Each step begins with a new one: a part that
// waits for a time sets it whenever it is asked to run.
type alarm struct{ now, at time.Time }

// set has the loop run at t unless something makes it run earlier. A time that is not after now is ignored: it is the
// zero time, or the end of a backoff that is over.
func (a *alarm) set(t time.Time) {
	if t.After(a.now) && (a.at.IsZero() || t.Before(a.at)) {
		a.at = t
	}
}
