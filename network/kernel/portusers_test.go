package kernel

import (
	"context"
	"testing"
	"time"
)

// TestPortUsers: the user of a port is looked for now and then and once at a time, however often a pass asks; an answer
// of an earlier conflict does not count, and nothing goes on after the end.
func TestPortUsers(t *testing.T) {
	u := newPortUsers()
	now := time.Now()
	ask := func(after time.Duration, wantText string, wantLook bool) {
		t.Helper()
		now = now.Add(after)
		if text, look := u.ask(8472, now); text != wantText || look != wantLook {
			t.Errorf("%q, %v, want %q, %v", text, look, wantText, wantLook)
		}
	}
	release := make(chan struct{})
	ask(0, "", true)
	u.look(8472, func(context.Context) string { <-release; return "pid 7" })
	ask(time.Second, "", false)
	ask(2*portUserAgain, "", false) // it goes on
	close(release)
	u.wait.Wait()
	ask(0, "pid 7", true)
	u.look(8472, func(context.Context) string { return "pid 8" })
	u.wait.Wait()
	ask(time.Second, "pid 8", false)
	ask(2*portUserKept, "", true)
	u.look(8472, func(ctx context.Context) string { <-ctx.Done(); return "" })
	u.close() // which ends it
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := socketUser(ended, []string{"4026531840"}); got != "" {
		t.Errorf("%q, want no search of all processes after the end", got)
	}
}
