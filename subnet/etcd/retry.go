package etcd

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/selvage-net/selvage/backoff"
)

const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 10 * time.Second
)

// retry spaces attempts: 0.1 s after each of the first quick failures, then doubling to last.
type retry struct {
	last  time.Duration
	quick int

	backoff backoff.Backoff
}

// newRetry returns one for Watch or Hold. One of several members can be unusable, for example cut off from the others,
// and each request goes to another member: that must cost a few attempts and no long pause.
func (s *Store) newRetry() retry {
	return retry{last: s.opts.retryLast, quick: 2 * (len(s.opts.Endpoints) - 1)}
}

// reset is for after a success.
func (r *retry) reset() { r.backoff.Reset() }

// pause returns how long to wait now: a random part, at least half, of the current step, so that nodes that failed
// together do not come back together.
func (r *retry) pause() time.Duration {
	return r.backoff.Next(backoff.Policy{Min: retryFirst, Max: r.last, Quick: r.quick, Jitter: 0.5}, time.Now())
}

// jitter returns a random time between d/2 and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// spreadLeases is from how many leases on the lists are spread over more than ListSpread.
const spreadLeases = 1000

// spread returns how long to wait before a list, of about so many leases, that every node wants: a random part of
// ListSpread, or of more where there are many. There is a node for each lease, so that all lists together grow with the
// square of the number: that way, what is asked of etcd in a second grows with the number alone.
func (o Options) spread(leases int) time.Duration {
	if o.ListSpread <= 0 {
		return 0
	}
	if o.turn != 0 {
		return o.turn
	}
	return rand.N(o.ListSpread * time.Duration(max(leases, spreadLeases)) / spreadLeases)
}

// sleep waits for d and reports whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// wait waits for the pause, or less if a lost connection is back before, and reports whether ctx is still good.
func (s *Store) wait(ctx context.Context, pause time.Duration) bool {
	short, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	conn := s.client.ActiveConnection()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(short, state) {
			return ctx.Err() == nil
		}
		if conn.GetState() == connectivity.Ready {
			return ctx.Err() == nil
		}
	}
	<-short.Done()
	return ctx.Err() == nil
}
