package connectivity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
)

// tryPolicies applies policies, and deletes them again.
func (r *run) tryPolicies(ctx context.Context) (err error) {
	why := ""
	switch r.Policies {
	case PoliciesOff:
		why = "they were left out (--policies=off)"
	case PoliciesAuto:
		if why, err = r.cluster.Lacks(ctx, r.ends, Enforcement); err != nil {
			return err
		}
	}
	if why != "" {
		r.notRun(policyAllows, why)
		return nil
	}
	r.Tell("network policies allow some of the pods to call others")
	if err := r.cluster.ApplyPolicies(ctx); err != nil {
		return err
	}
	ingress, egress := r.ends.deniedPlans()
	if err := errors.Join(r.try(ctx, "", ingress, settle), r.try(ctx, "", egress, settle)); err != nil {
		return err
	}
	// The policies are in force once they deny. What they allow was allowed before, and has to be allowed meanwhile.
	if err := r.try(ctx, "", r.ends.allowedPlan(), 0); err != nil {
		return err
	}
	if err := r.cluster.DeletePolicies(ctx); err != nil {
		return err
	}
	return r.try(ctx, "", r.ends.repeatPlan(policyDeleted, r.ends.Second, r.ends.First), settle)
}

// tryRestart restarts the daemons, node by node, under streams.
func (r *run) tryRestart(ctx context.Context) error {
	if !r.Restart {
		r.notRun(rollingRestart, "it was not asked for (--restart)")
		return nil
	}
	if why, err := r.cluster.Lacks(ctx, r.ends, Restarting); err != nil {
		return err
	} else if why != "" {
		r.notRun(rollingRestart, why)
		return nil
	}
	began := time.Now()
	r.Tell("the daemons are restarted, node by node")
	first, orders := r.ends.First, r.ends.streams()
	results := make([]agent.Results, len(orders))
	errs := make([]error, len(orders))
	all := r.startStreams(ctx, first, orders)
	restarted := all.ready(ctx, errs)
	if restarted == nil {
		restarted = r.cluster.Restart(ctx)
	}
	all.stop(results, errs)
	check := judgeStreams(first, orders, results, errs)
	if restarted != nil {
		check.Failures = append(check.Failures, Failure{From: "the restart", Error: restarted.Error()})
	}
	check.Took = time.Since(began)
	r.report.Checks = append(r.report.Checks, check)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.try(ctx, "", r.ends.repeatPlan(afterTheRestart, first, r.ends.Second), 0)
}

// streaming is the streams of all places, each sent by a process that ends with its standard input.
type streaming []*oneStreaming

type oneStreaming struct {
	input   *io.PipeWriter
	answers *json.Decoder
	done    chan error // of the process
}

func (r *run) startStreams(ctx context.Context, callers []Place, orders []agent.Orders) (all streaming) {
	for i, at := range callers {
		in, input := io.Pipe()
		out, output := io.Pipe()
		one := &oneStreaming{input: input, answers: json.NewDecoder(out), done: make(chan error, 1)}
		go func() {
			var problems bytes.Buffer
			err := r.cluster.Probe(ctx, at, in, output, &problems)
			if err != nil {
				err = because(err, &problems)
			}
			output.CloseWithError(errors.Join(err, io.EOF))
			in.Close()
			one.done <- err
		}()
		go func() { // the other end reads when it begins
			_ = json.NewEncoder(input).Encode(orders[i]) // fails if the other end is gone, which done says
		}()
		all = append(all, one)
	}
	return all
}

// ready waits until all are sent.
func (s streaming) ready(ctx context.Context, errs []error) error {
	var begun agent.Results
	for i, one := range s {
		errs[i] = one.answers.Decode(&begun)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errors.New("it was not begun, since not all streams were")
	}
	return nil
}

// stop ends the streams, and stores their results.
func (s streaming) stop(results []agent.Results, errs []error) {
	var running sync.WaitGroup
	for i, one := range s {
		running.Go(func() {
			one.input.Close()
			if errs[i] == nil {
				errs[i] = one.answers.Decode(&results[i])
			}
			if err := <-one.done; errs[i] == nil {
				errs[i] = err
			}
		})
	}
	running.Wait()
}
