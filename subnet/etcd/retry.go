package etcd

import (
	"context"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet/outage"
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
// and each request goes to another member: that must cost a few attempts and no long wait.
func (s *Store) newRetry() retry {
	return retry{last: s.opts.retryLast, quick: 2 * (len(s.opts.Endpoints) - 1)}
}

// reset is for after a success.
func (r *retry) reset() { r.backoff.Reset() }

// wait returns how long to wait now: a random part, at least half, of the current step, so that nodes that failed
// together do not come back together.
func (r *retry) wait() time.Duration {
	return r.backoff.Next(backoff.Policy{Min: retryFirst, Max: r.last, Quick: r.quick, Jitter: 0.5}, time.Now())
}

// spread returns how long to wait before a list, of about so many leases, that every node wants.
func (o Options) spread(leases int) time.Duration {
	if o.ListSpread > 0 && o.turn != 0 {
		return o.turn
	}
	return outage.Spread(o.ListSpread, leases)
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
