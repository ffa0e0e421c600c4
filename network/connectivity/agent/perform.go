package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Orders are what [Perform] is asked to do.
type Orders struct {
	Calls []Call `json:",omitempty"`
	// Streams run until the input ends.
	Streams []Stream `json:",omitempty"`
}

// Results are what came of orders, in their order.
type Results struct {
	Calls   []Result `json:",omitempty"`
	Streams []Losses `json:",omitempty"`
}

// Result is what came of one call.
type Result struct {
	Echo  Echo
	Error string `json:",omitempty"` // empty: the call was answered
}

// atOnce is how many calls Perform makes at a time.
const atOnce = 32

// Perform makes the calls that it reads from in, as [Orders] in JSON, and writes their [Results] to out. If there are
// streams among them, it writes the results of the calls first, then sends the streams until in ends, and then writes
// results again, with those of the streams.
func Perform(ctx context.Context, in io.Reader, out io.Writer) error {
	var orders Orders
	input := json.NewDecoder(in)
	if err := input.Decode(&orders); err != nil {
		return fmt.Errorf("read the orders: %w", err)
	}
	results := Results{Calls: callAll(ctx, orders.Calls)}
	answer := json.NewEncoder(out)
	if err := answer.Encode(results); err != nil || len(orders.Streams) == 0 {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &server{ctx: ctx}
	defer s.running.Wait()
	defer cancel()
	for _, stream := range orders.Streams {
		if err := s.start(stream); err != nil {
			return err
		}
	}
	if err := ended(ctx, in); err != nil {
		return err
	}
	report, err := s.report()
	if err != nil {
		return err
	}
	return answer.Encode(Results{Streams: report.Losses})
}

// ended waits until in ends.
func ended(ctx context.Context, in io.Reader) error {
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, in)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func callAll(ctx context.Context, calls []Call) []Result {
	results := make([]Result, len(calls))
	room := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for i, c := range calls {
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			var err error
			if results[i].Echo, err = call(ctx, c); err != nil {
				results[i].Error = err.Error()
			}
		})
	}
	running.Wait()
	return results
}
