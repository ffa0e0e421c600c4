package backoff

import "time"

// Limiter lets the first N lines of a period through. The zero value is ready for use. It is not safe for concurrent
// use.
type Limiter struct {
	since time.Time // beginning of the period
	n     int       // lines that were asked for since then
}

// Verdict is what a [Limiter] says of one line.
type Verdict int

const (
	Drop Verdict = iota // do not write it
	Pass                // write it
	Last                // the first one too many in the period: write that more are left out instead
)

// Allow asks for one line, of which n are written in each period.
func (l *Limiter) Allow(n int, period time.Duration, now time.Time) Verdict {
	if l.since.IsZero() || now.Sub(l.since) >= period {
		l.since, l.n = now, 0
	}
	l.n++
	switch {
	case l.n <= n:
		return Pass
	case l.n == n+1:
		return Last
	default:
		return Drop
	}
}

// Due asks for one line, of which one is written in each period.
func (l *Limiter) Due(period time.Duration, now time.Time) bool {
	return l.Allow(1, period, now) == Pass
}

// Next is when [Limiter.Due] passes the next line.
func (l *Limiter) Next(period time.Duration) time.Time { return l.since.Add(period) }
