// Package testctx bounds how long a test waits.
//
// How long a step takes depends on the machine and on its load, so a step has no deadline of its own: it waits for a
// condition, and the test's context is the only limit. A step that never completes then fails the test with the step's
// own error.
package testctx

import (
	"context"
	"testing"
	"time"
)

const (
	// limit is far more than the slowest test takes on a slow and busy machine, and short enough for the tests after
	// one that hangs to run.
	limit = 10 * time.Minute
	// margin is what remains of go test's -timeout for a test that hangs to report its error and to clean up.
	margin = 30 * time.Second
)

// New returns a context that is canceled when the test ends (see [testing.T.Context]), after ten minutes, or shortly
// before go test's -timeout, whichever comes first. In a cleanup function, which runs when the test has ended, it is
// canceled at that function's end.
func New(t *testing.T) context.Context {
	t.Helper()
	end := time.Now().Add(limit)
	if deadline, ok := t.Deadline(); ok && deadline.Add(-margin).Before(end) {
		end = deadline.Add(-margin)
	}
	ctx := t.Context()
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	t.Cleanup(cancel)
	return ctx
}
