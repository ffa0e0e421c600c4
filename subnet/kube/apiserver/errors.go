package apiserver

import (
	"errors"
	"net/http"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Errors of requests. They are matched with errors.Is; what is returned says more. [ProblemOf] gives the reason code of
// any error of this package.
var (
	// ErrExpired means that the server has forgotten the version at which a watch should begin (410, reason Expired or
	// Gone): list again.
	ErrExpired = errors.New("the API server no longer has this version")
	// ErrBehind means that the server has not reached the version that was asked for: its cache is behind, or its etcd
	// was restored from a backup (504, cause ResourceVersionTooLarge).
	ErrBehind = errors.New("the API server has not reached this version")
	// ErrRegressed means that a watch has reported an older version than before, which no server should.
	ErrRegressed = errors.New("the API server has gone back to an older version")
	// ErrNoInitial means that the server has no streaming lists.
	ErrNoInitial = errors.New("the API server does not stream lists")
	// ErrNotFound means that there is no such object (404).
	ErrNotFound = errors.New("not found")
	// ErrConflict means that the object has changed since the version in the request (409).
	ErrConflict = errors.New("conflict")
	// ErrInvalid means that what the request would write is not valid (422).
	ErrInvalid = errors.New("invalid")
	// ErrMalformed means that an answer cannot be decoded, or is larger than this package accepts.
	ErrMalformed = errors.New("malformed answer")
	// ErrEnded means that the server ended a watch in an orderly way, as it does after the time that was asked for:
	// watch again from the last version.
	ErrEnded = errors.New("the watch has ended")
)

// Error is why a request failed, with what an operator can do about it.
type Error struct {
	Reason subnet.Reason
	Code   int    // HTTP status; 0: the server has not answered
	Status string // the reason in the server's answer, such as "Expired" or "Forbidden"; empty: none
	// RetryAfter is how long the server wants not to be asked again; 0: it does not say.
	RetryAfter time.Duration

	answer *http.Response // nil: the server has not answered; its body is closed
	stale  bool           // the connection was open before the request: the server may have restarted since
	advice string         // what it means and what to do; empty: err speaks for itself
	err    error
}

// Error returns what it means, what to do, and what was reported.
func (e *Error) Error() string {
	if e.advice == "" {
		return e.err.Error()
	}
	return e.advice + " (" + e.err.Error() + ")"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// ProblemOf returns an error of this package in neutral terms; the zero value for nil.
func ProblemOf(err error) subnet.Problem {
	if err == nil {
		return subnet.Problem{}
	}
	p := subnet.Problem{Reason: subnet.ReasonOther, Err: err}
	if e := (*Error)(nil); errors.As(err, &e) {
		p.Reason = e.Reason
	}
	return p
}

// RetryAfter returns how long the server that failed with err wants not to be asked again; 0: it does not say.
func RetryAfter(err error) time.Duration {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
