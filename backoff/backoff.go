// Package backoff decides when something is tried again, and when it is logged again. Both types hold no timer and
// start no goroutine: the caller passes the time, and a test passes any time it likes.
//
// [Backoff] spaces attempts: each one that follows soon after the last makes the next one wait longer. [Limiter] bounds
// how many log lines about one subject are written in a period.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Policy says how the pauses between attempts grow. A pause is twice the one before it, at least Min and at most Max.
type Policy struct {
	Min, Max time.Duration
	// First is the first pause; 0 means Min.
	First time.Duration
	// Quick is how many times First is repeated before the pauses grow.
	Quick int
	// Jitter is the part of a pause, from 0 to 1, of which a random share is left out, so that nodes that failed in one
	// moment do not try again in one.
	Jitter float64
	// Settle is for how many pauses nothing may happen after a pause has ended, so that the next one is the first
	// again; 0 means that only [Backoff.Reset] does that.
	Settle int
}

// Backoff is where one series of attempts has got to. The zero value has no pause. A Backoff is not safe for concurrent
// use.
type Backoff struct {
	at    time.Time // when the pause ends
	pause time.Duration
	taken int // pauses since the last reset
}

// Next begins the pause that follows an attempt made now, and returns its length.
func (b *Backoff) Next(p Policy, now time.Time) time.Duration {
	if p.Settle > 0 && b.Settled(p, now) {
		b.Reset()
	}
	switch {
	case b.taken > p.Quick:
		b.pause = min(max(2*b.pause, p.Min), p.Max)
	case p.First > 0:
		b.pause = p.First
	default:
		b.pause = p.Min
	}
	b.taken++
	wait := b.pause - time.Duration(p.Jitter*rand.Float64()*float64(b.pause))
	b.at = now.Add(wait)
	return wait
}

// Due reports whether the pause is over.
func (b *Backoff) Due(now time.Time) bool { return !now.Before(b.at) }

// At is when the pause ends or has ended; the zero time if there was none.
func (b *Backoff) At() time.Time { return b.at }

// Settled reports whether nothing has happened for so long that the next attempt begins a new series.
func (b *Backoff) Settled(p Policy, now time.Time) bool {
	return now.Sub(b.at) > time.Duration(p.Settle)*b.pause
}

// Limit shortens the current pause, and so those that follow, to at most d.
func (b *Backoff) Limit(d time.Duration) {
	if b.pause > d {
		b.at = b.at.Add(d - b.pause)
		b.pause = d
	}
}

// Reset ends the series: the next attempt may be made at once, and the pause after it is the first.
func (b *Backoff) Reset() { *b = Backoff{} }
