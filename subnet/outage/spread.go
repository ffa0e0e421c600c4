package outage

import (
	"context"
	"math/rand/v2"
	"time"
)

// Jitter returns a random time between d/2 and d, so that nodes that began together do not go on together.
func Jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// Sleep waits for d and reports whether ctx is still good.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// SpreadLeases is from how many leases on lists are spread over more than the usual time.
const SpreadLeases = 1000

// Spread returns how long to wait before a list, of about so many leases, that every node wants: a random part of
// usual, or of more where there are many. There is a node for each lease, so that all lists together grow with the
// square of the number: that way, what is asked of the store in a second grows with the number alone. Nothing if usual
// is not positive.
func Spread(usual time.Duration, leases int) time.Duration {
	if usual <= 0 {
		return 0
	}
	return rand.N(usual * time.Duration(max(leases, SpreadLeases)) / SpreadLeases)
}
