package lab

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is how often something is looked at that does not tell when it changes.
const pollEvery = 20 * time.Millisecond

// poll calls ready until it returns nil. When ctx ends first, the error is the last that ready returned. stop, if not nil,
// ends the waiting too: what is waited for then cannot come.
func poll(ctx context.Context, stop <-chan struct{}, ready func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-stop:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}
