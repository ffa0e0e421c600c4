package network

import (
	"fmt"
	"time"
)

// Result is the outcome of one pass.
type Result struct {
	Set, Removed int
	Repaired     int      // of Set: had been in sync, and another process changed them
	Repairs      []Repair // of Repaired: the first of each kind and cause, and how many
	Sysctls      []string // those of Set, as "net/ipv4/ip_forward=1": they concern the whole node
	Failures     []Failure
	Conflicts    []Conflict
	// Retry is when the next attempt at what is still pending is due; zero if there is nothing to wait for.
	Retry time.Time
}

// Failure is one change that could not be made.
type Failure struct {
	Kind string // as in [Kinds]
	Key  string
	Err  error
}

// Repair is a number of objects of one kind that were repaired.
type Repair struct {
	Kind  string // as in [Kinds]
	Cause string // "missing": it had been removed; "changed"
	Key   string // of the first
	Count int
	By    string // who had changed it, see [Tables.Attribute]; empty: unknown, or several
}

// Conflict is a key that another process keeps changing. It is repaired with a growing backoff.
type Conflict struct {
	Kind, Key  string // as in [Failure]
	Want, Have string // as Go prints the values; "nothing" for an object that is not desired, or missing
	By         string // who changed it last, as in [Repair]
}

// pass is a pass in the making.
type pass struct {
	Result
	now  time.Time
	busy busy
}

// busy is a time in which objects were set or removed that traffic depends on, again and again.
type busy struct {
	since, last time.Time
}

// calmAt returns when objects may be set that are so late.
func (b busy) calmAt(late time.Duration) time.Time {
	if most := b.since.Add(4 * late); most.Before(b.last.Add(late)) {
		return most
	}
	return b.last.Add(late)
}

// at notes that something was set or removed.
func (b *busy) at(now time.Time) {
	if now.Sub(b.last) > busyGap {
		b.since = now
	}
	b.last = now
}

func (p *pass) repaired(kind string, key any, present bool, by string) {
	p.Repaired++
	cause := "missing"
	if present {
		cause = "changed"
	}
	for i := range p.Repairs {
		if r := &p.Repairs[i]; r.Kind == kind && r.Cause == cause {
			if r.Count++; r.By != by {
				r.By = ""
			}
			return
		}
	}
	p.Repairs = append(p.Repairs, Repair{Kind: kind, Cause: cause, Key: fmt.Sprint(key), Count: 1, By: by})
}

func (p *pass) retryAt(at time.Time) {
	if p.Retry.IsZero() || at.Before(p.Retry) {
		p.Retry = at
	}
}
