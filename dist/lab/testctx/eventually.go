package testctx

import (
	"testing"
	"time"
)

// Eventually waits until check returns "", for what nothing notifies of: it polls. Its limit is that of [New]. What
// check says is missing is the test's failure then.
func Eventually(t *testing.T, check func() string) {
	t.Helper()
	const pause = 10 * time.Millisecond
	ctx := New(t)
	for missing := check(); missing != ""; missing = check() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", missing)
		case <-time.After(pause):
		}
	}
}
