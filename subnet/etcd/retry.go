package etcd

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"
)

const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 10 * time.Second
)

// retry spaces attempts: 0.1 s after the first failure, doubling to last.
type retry struct{ last, next time.Duration }

// reset is for after a success.
func (r *retry) reset() { r.next = 0 }

// pause returns how long to wait now: a random part, at least half, of the current step. What broke for all nodes in
// one moment must not bring all of them back in one.
func (r *retry) pause() time.Duration {
	r.next = min(max(2*r.next, retryFirst), r.last)
	return jitter(r.next)
}

// jitter returns a random time between d/2 and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// spread returns how long to wait before a list that every node wants: a random part of ListSpread.
func (o Options) spread() time.Duration {
	if o.ListSpread <= 0 {
		return 0
	}
	return rand.N(o.ListSpread)
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
