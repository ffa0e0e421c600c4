package connectivity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
)

// Policies says whether a test tries network policies.
type Policies string

// Whether a test tries network policies.
const (
	PoliciesAuto Policies = "auto" // if all daemons of selvage enforce them
	PoliciesOn   Policies = "on"   // whoever enforces them
	PoliciesOff  Policies = "off"
)

// Options of a test.
type Options struct {
	Policies Policies
	// Restart: streams run while the daemons are restarted, node by node.
	Restart bool
	// Outside are addresses with TCP ports to connect to, which are not the cluster's.
	Outside []netip.AddrPort
	Tell    func(string) // reports the next step
	Warn    func(error)  // reports what could not be removed
}

// settle is how long what others do, such as kube-proxy, may take until it has its effect.
const settle = 30 * time.Second

// callersAtOnce is how many places make calls at a time.
const callersAtOnce = 8

// run is a test in progress.
type run struct {
	Options
	cluster Cluster
	ends    Ends
	report  Report
}

// Run tests a cluster. The report has the failures; the error is that the cluster could not be tested.
func Run(ctx context.Context, c Cluster, o Options) (report Report, err error) {
	r := &run{Options: o, cluster: c}
	began := time.Now()
	defer func() {
		if failed := c.Remove(ctx); failed != nil {
			r.Warn(fmt.Errorf("remove what the test created: %w", failed))
		}
	}()
	ends, check, err := c.Start(ctx)
	r.ends = ends
	if err == nil {
		r.report.Checks = append(r.report.Checks, check)
	}
	if err == nil && len(ends.First) > 0 {
		for _, p := range ends.First {
			r.report.Nodes = append(r.report.Nodes, p.Node)
		}
		err = r.checks(ctx)
	}
	r.report.Took = time.Since(began)
	return r.report, err
}

// checks tries everything.
func (r *run) checks(ctx context.Context) error {
	pods, services := r.ends.nodePlans()
	for _, p := range []struct {
		tell string
		plan
		settle time.Duration
	}{
		{"pods call each other", r.ends.podPlan(), 0},
		{"pods call nodes, and nodes call pods", r.ends.podToNodePlan(), 0},
		{"", pods, 0},
		{"pods and nodes call Services", r.ends.servicePlan(), settle},
		{"", services, settle},
		{"pods call the outside", r.ends.outsidePlan(r.Outside), settle},
	} {
		if err := r.try(ctx, p.tell, p.plan, p.settle); err != nil {
			return err
		}
	}
	if why, err := r.cluster.Lacks(ctx, r.ends, Services); err != nil {
		return err
	} else if why != "" {
		r.notRun(service, why)
	}
	if len(r.Outside) == 0 {
		r.notRun(outside, "no address was given (--outside)")
	}
	for _, step := range []func(context.Context) error{r.tryDNS, r.tryPolicies, r.tryRestart} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) tryDNS(ctx context.Context) error {
	why, err := r.cluster.Lacks(ctx, r.ends, NameService)
	if err != nil {
		return err
	}
	if why != "" {
		r.notRun(dns, why)
		return nil
	}
	return r.try(ctx, "pods look up a name", r.ends.dnsPlan(), settle)
}

func (r *run) notRun(check, why string) {
	r.report.Checks = append(r.report.Checks, Check{Name: check, NotRun: why})
}

// try has the calls of a plan made, and adds its checks to the report. What fails is tried again for a while, for what
// takes its time.
func (r *run) try(ctx context.Context, tell string, p plan, patience time.Duration) error {
	if len(p.probes) == 0 {
		return nil
	}
	if tell != "" {
		r.Tell(tell)
	}
	began := time.Now()
	checks, err := r.judged(ctx, p, patience)
	for _, c := range checks {
		c.Took = time.Since(began)
		r.report.Checks = add(r.report.Checks, c)
	}
	return err
}

// judged has the calls of a plan made, those that fail again until patience ends.
func (r *run) judged(ctx context.Context, p plan, patience time.Duration) ([]Check, error) {
	results := make([]*agent.Result, len(p.probes))
	end := time.Now().Add(patience)
	for {
		failed := r.call(ctx, p, p.failed(results), results)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(p.failed(results)) == 0 || time.Now().After(end) {
			return p.judge(results, failed), nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// call has some of a plan's calls made, each caller's at once, and stores their results. It returns why callers could
// not be asked.
func (r *run) call(ctx context.Context, p plan, indices []int, results []*agent.Result) map[int]error {
	by := map[int][]int{} // indices by caller
	for _, i := range indices {
		by[p.probes[i].from] = append(by[p.probes[i].from], i)
	}
	failed := map[int]error{}
	var mu sync.Mutex
	var running sync.WaitGroup
	room := make(chan struct{}, callersAtOnce)
	for from, own := range by {
		var orders agent.Orders
		for _, i := range own {
			orders.Calls = append(orders.Calls, p.probes[i].call)
		}
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			answer, err := r.perform(ctx, p.callers[from], orders)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[from] = err
			}
			for k, i := range own {
				results[i] = nil
				if k < len(answer.Calls) {
					results[i] = &answer.Calls[k]
				}
			}
		})
	}
	running.Wait()
	return failed
}

// perform has a place make calls.
func (r *run) perform(ctx context.Context, at Place, orders agent.Orders) (results agent.Results, err error) {
	text, err := json.Marshal(orders)
	if err != nil {
		return results, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var out, problems bytes.Buffer
	if err := r.cluster.Probe(ctx, at, bytes.NewReader(text), &out, &problems); err != nil {
		return results, because(err, &problems)
	}
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		return results, fmt.Errorf("read the answer of %s: %w", at, err)
	}
	return results, nil
}

// because adds what a program printed to its error.
func because(err error, problems *bytes.Buffer) error {
	if text := strings.TrimSpace(problems.String()); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// askTime is how long a place may take for its calls, each of which ends in time by itself.
const askTime = 2 * time.Minute
