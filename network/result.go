package network

import (
	"fmt"
	"time"
)

// Result is what one pass did.
type Result struct {
	Set, Removed int
	Repaired     int      // of Set: had been right before and were changed by somebody else
	Repairs      []Repair // of Repaired: the first of each kind and cause, and how many
	Sysctls      []string // those of Set, as "net/ipv4/ip_forward=1": they are the whole node's and not only ours
	Failures     []Failure
	Conflicts    []Conflict
	// Retry is when the next attempt at what is still pending is due; zero if there is nothing to wait for.
	Retry time.Time
}

// Failure is one change that could not be made.
type Failure struct {
	Kind string // as in [Tables.Counts]
	Key  string
	Err  error
}

// Repair is a number of objects of one kind that were set right.
type Repair struct {
	Kind  string // as in [Tables.Counts]
	Cause string // "missing": somebody had removed it; "changed"
	Key   string // of the first
	Count int
	By    string // who had changed it, see [Tables.Attribute]; empty: not known, or several
}

// Conflict is a key that somebody else keeps changing back. It is set right as before, only with growing pauses.
type Conflict struct {
	Kind, Key  string // as in [Failure]
	Want, Have string // ours and theirs, as Go prints the values; "nothing" for an object that is not to be there, or is not
	By         string // who changed it last, as in [Repair]
}

// pass is a pass in the making.
type pass struct {
	Result
	now time.Time
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
