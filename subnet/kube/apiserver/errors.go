package apiserver

import (
	"errors"

	"github.com/selvage-net/selvage/subnet"
)

// Errors of requests. They are matched with errors.Is; what is returned says more. [ProblemOf] gives the reason code of
// any error of this package.
var (
	// ErrExpired means that the server has forgotten the version a watch should begin at (410, reason Expired or Gone):
	// list again.
	ErrExpired = errors.New("the API server no longer has this version")
	// ErrBehind means that the server has not reached the version that was asked for: its cache is behind, or its etcd
	// was restored from a backup (504, cause ResourceVersionTooLarge).
	ErrBehind = errors.New("the API server has not reached this version")
	// ErrNoInitial means that the server has no streaming lists.
	ErrNoInitial = errors.New("the API server does not stream lists")
	// ErrNotFound means that there is no such object (404).
	ErrNotFound = errors.New("not found")
	// ErrConflict means that the object has changed since the version in the request (409).
	ErrConflict = errors.New("conflict")
	// ErrMalformed means that an answer cannot be decoded, or is larger than this package accepts.
	ErrMalformed = errors.New("malformed answer")
	// ErrEnded means that the server ended a watch in an orderly way, as it does after the time that was asked for:
	// watch again from the last version.
	ErrEnded = errors.New("the watch has ended")
)

// ProblemOf returns an error of this package in neutral terms; the zero value for nil.
func ProblemOf(err error) subnet.Problem {
	if err == nil {
		return subnet.Problem{}
	}
	return subnet.Problem{Reason: subnet.ReasonOther, Err: err}
}
