package lab

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

// Status asks the node's daemon for its status, over its socket.
func (n *Node) Status(ctx context.Context) (status.Status, error) {
	pid := n.PID()
	if pid == 0 {
		return status.Status{}, fmt.Errorf("%s: %w", n.name, status.ErrNotRunning)
	}
	// Each node has a /run of its own.
	s, err := status.NewClient(fmt.Sprintf("/proc/%d/root%s", pid, status.DefaultSocket)).Status(ctx)
	if err != nil {
		return s, fmt.Errorf("%s: %w", n.name, err)
	}
	return s, nil
}

// askEvery is how often a daemon that is not ready is asked for its problems.
const askEvery = 100 * time.Millisecond

// refusal waits until the node's daemon reports a problem that keeps it from getting ready, one that it retries for
// patience, and returns it in the daemon's own words. It returns nil when ctx ends.
func (n *Node) refusal(ctx context.Context, patience time.Duration) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s, err := n.Status(ctx)
		if err != nil || s.State != status.Starting {
			continue // it has not opened its socket yet, or is ready
		}
		for _, p := range s.Problems {
			if stuck(p, time.Now(), patience) {
				return fmt.Errorf("%s: selvaged does not get ready: %s: %s", n.name, p.Topic, p.Text)
			}
		}
	}
}

// stuck reports whether a problem keeps a daemon from getting ready for as long as the network configuration stays.
func stuck(p status.Problem, now time.Time, patience time.Duration) bool {
	switch p.Code {
	case status.ConfigRejected:
		return true
	case status.NoUplink, status.StartFailed, status.NoLease:
		return now.Sub(p.Since) >= patience
	}
	return false
}

// waitStarted is [Lab.WaitReady] for the first start: it fails as well when a daemon says why it cannot get ready.
func (l *Lab) waitStarted(ctx context.Context) error {
	waiting, cancel := context.WithCancelCause(ctx)
	var asking sync.WaitGroup
	for _, n := range l.nodes {
		asking.Go(func() {
			if err := n.refusal(waiting, l.options.Patience); err != nil {
				cancel(err)
			}
		})
	}
	err := l.WaitReady(waiting)
	cause := context.Cause(waiting)
	cancel(nil)
	asking.Wait()
	if err != nil && cause != nil && !errors.Is(cause, context.Cause(ctx)) {
		return cause
	}
	return err
}
