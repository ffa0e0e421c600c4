package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/network/kubectl"
)

// tryPolicies applies policies, and deletes them again.
func (r *run) tryPolicies(ctx context.Context, t *topology) error {
	why := ""
	switch r.Policies {
	case PoliciesOff:
		why = "they were left out (--policies=off)"
	case PoliciesAuto:
		why = r.enforced(ctx, t)
	}
	if why != "" {
		r.notRun(policyAllows, why)
		return nil
	}
	r.Tell("network policies allow some of the pods to call others")
	objects := policies(r.Namespace)
	if err := r.Kubectl.Apply(ctx, objects...); err != nil {
		return err
	}
	ingress, egress := t.deniedPlans()
	if err := errors.Join(r.try(ctx, "", ingress, settle), r.try(ctx, "", egress, settle)); err != nil {
		return err
	}
	// The policies are in force once they deny. What they allow was allowed before, and has to be allowed meanwhile.
	if err := r.try(ctx, "", t.allowedPlan(), 0); err != nil {
		return err
	}
	if _, err := r.Kubectl.Output(ctx, "delete", "networkpolicies", "--all", "-n", r.Namespace); err != nil {
		return err
	}
	return r.try(ctx, "", t.repeatPlan(policyDeleted, t.second, t.first), settle)
}

// tryRestart restarts the daemons, node by node, under streams.
func (r *run) tryRestart(ctx context.Context, t *topology, daemons []kubectl.Daemon) error {
	if !r.Restart {
		r.notRun(rollingRestart, "it was not asked for (--restart)")
		return nil
	}
	sets := map[string]string{} // namespaces, by the name of the DaemonSet
	for _, d := range daemons {
		if d.Set != "" {
			sets[d.Set] = d.Namespace
		}
	}
	if len(sets) == 0 {
		r.notRun(rollingRestart, "the daemons' pods are of no DaemonSet")
		return nil
	}
	began := time.Now()
	r.Tell("the daemons are restarted, node by node")
	orders := t.streams()
	results := make([]agent.Results, len(orders))
	errs := make([]error, len(orders))
	all := r.startStreams(ctx, t.first, orders)
	restarted := all.ready(ctx, errs)
	if restarted == nil {
		restarted = r.restart(ctx, sets)
	}
	all.stop(results, errs)
	check := judgeStreams(t.first, orders, results, errs)
	if restarted != nil {
		check.Failures = append(check.Failures, Failure{From: "the restart", Error: restarted.Error()})
	}
	check.Took = time.Since(began)
	r.report.Checks = append(r.report.Checks, check)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.try(ctx, "", t.repeatPlan(afterTheRestart, t.first, t.second), 0)
}

func (r *run) restart(ctx context.Context, sets map[string]string) error {
	for name, namespace := range sets {
		what := "daemonset/" + name
		if _, err := r.Kubectl.Output(ctx, "rollout", "restart", "-n", namespace, what); err != nil {
			return err
		}
		_, err := r.Kubectl.Output(ctx, "rollout", "status", "-n", namespace, what, "--timeout="+r.Timeout.String())
		if err != nil {
			return err
		}
	}
	return nil
}

// streaming is the streams of all places, each sent by a process that ends with its standard input.
type streaming []*oneStreaming

type oneStreaming struct {
	input   *io.PipeWriter
	answers *json.Decoder
	done    chan error // of kubectl
}

func (r *run) startStreams(ctx context.Context, callers []Place, orders []agent.Orders) (all streaming) {
	for i, at := range callers {
		in, input := io.Pipe()
		out, output := io.Pipe()
		one := &oneStreaming{input: input, answers: json.NewDecoder(out), done: make(chan error, 1)}
		go func() {
			var problems strings.Builder
			err := r.Kubectl.Run(ctx, in, output, &problems, r.probeArgs(at)...)
			if err != nil {
				err = fmt.Errorf("%w: %s", err, strings.TrimSpace(problems.String()))
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
