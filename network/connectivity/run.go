package connectivity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/network/kubectl"
)

// Policies says whether a test tries network policies.
type Policies string

// Whether a test tries network policies.
const (
	PoliciesAuto Policies = "auto" // if all daemons of selvage enforce them
	PoliciesOn   Policies = "on"   // whoever enforces them
	PoliciesOff  Policies = "off"
)

// DefaultNamespace is created for a test, and removed.
const DefaultNamespace = "selvage-connectivity-test"

// Options of a test.
type Options struct {
	Kubectl   kubectl.Client
	Namespace string // is created and removed; there must be none of this name
	Image     string // of selvage, for the pods; empty: that of the daemons
	Policies  Policies
	// Restart: streams run during a rolling restart of the daemons' DaemonSet.
	Restart bool
	// Outside are addresses with TCP ports to connect to, which are not the cluster's.
	Outside []netip.AddrPort
	Keep    bool                // the pods and the namespace stay
	Timeout time.Duration       // for pods to become ready, and for a rolling restart
	Tell    func(string)        // reports the next step
	Warn    func(string, error) // reports what could not be removed
}

// settle is how long what others do, such as kube-proxy, may take until it has its effect.
const settle = 30 * time.Second

// callersAtOnce is how many places make calls at a time.
const callersAtOnce = 8

// run is a test in progress.
type run struct {
	Options
	containers map[string]kubectl.Container // of places, by their names
	outside    []target
	report     Report
}

// Run tests a cluster. The report has the failures; the error is that the cluster could not be tested.
func Run(ctx context.Context, o Options) (report Report, err error) {
	r := &run{Options: o, containers: map[string]kubectl.Container{}}
	began := time.Now()
	for _, at := range o.Outside {
		r.outside = append(r.outside, target{at.String(), at})
	}
	daemons, err := r.Kubectl.Daemons(ctx)
	if err != nil {
		return report, err
	}
	r.report.Image = cmp.Or(o.Image, daemons[0].Image)
	if err := r.create(ctx); err != nil {
		return report, err
	}
	defer func() {
		if failed := r.remove(ctx); failed != nil {
			r.Warn("namespace "+r.Namespace+" was not removed", failed)
		}
	}()
	t, err := r.start(ctx, daemons)
	if err == nil && t != nil {
		err = r.checks(ctx, t, daemons)
	}
	r.report.Took = time.Since(began)
	return r.report, err
}

// create creates the namespace and its objects. A namespace of that name is an error: another test runs, or was killed.
func (r *run) create(ctx context.Context) error {
	r.Tell("creating two pods on each node, in namespace " + r.Namespace)
	if err := r.Kubectl.Create(ctx, namespace(r.Namespace)); err != nil {
		var there struct{ Metadata struct{ Name string } }
		if r.Kubectl.Get(ctx, &there, "namespace", r.Namespace) == nil {
			return fmt.Errorf("namespace %s exists: another test runs, or was killed; in the second case, remove it "+
				"by kubectl delete namespace %s", r.Namespace, r.Namespace)
		}
		return err
	}
	if err := r.Kubectl.Apply(ctx, workload(r.Namespace, r.report.Image)...); err != nil {
		return errors.Join(err, r.remove(ctx))
	}
	return nil
}

// remove removes the namespace, and waits until it is gone, also if the test was interrupted.
func (r *run) remove(ctx context.Context) error {
	if r.Keep {
		return nil
	}
	r.Tell("removing namespace " + r.Namespace)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Timeout)
	defer cancel()
	_, err := r.Kubectl.Output(ctx, "delete", "namespace", r.Namespace, "--ignore-not-found")
	return err
}

// start waits for the pods. It returns nil if no node has both of its pods ready: the report says why.
func (r *run) start(ctx context.Context, daemons []kubectl.Daemon) (*topology, error) {
	began := time.Now()
	for _, name := range []string{firstName, secondName} {
		_, err := r.Kubectl.Output(ctx, "rollout", "status", "-n", r.Namespace, "daemonset/"+name,
			"--timeout="+r.Timeout.String())
		if ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			break // the pods say why
		}
	}
	var list podList
	if err := r.Kubectl.Get(ctx, &list, "pods", "-n", r.Namespace); err != nil {
		return nil, err
	}
	first, second, check := pair(list.parse())
	for _, p := range append(slices.Clone(first), second...) {
		r.containers[p.Name] = kubectl.Container{Namespace: r.Namespace, Pod: p.Name, Name: container}
	}
	check.Took = time.Since(began)
	r.report.Checks = append(r.report.Checks, check)
	if check.Probes == 0 {
		return nil, errors.New("no pod of the test was created: does the cluster have a node of Linux?")
	}
	if len(first) == 0 {
		return nil, nil
	}
	for _, p := range first {
		r.report.Nodes = append(r.report.Nodes, p.Node)
	}
	return r.learn(ctx, first, second, daemons)
}

// checks tries everything.
func (r *run) checks(ctx context.Context, t *topology, daemons []kubectl.Daemon) error {
	pods, services := t.nodePlans()
	for _, p := range []struct {
		tell string
		plan
		settle time.Duration
	}{
		{"pods call each other", t.podPlan(), 0},
		{"pods call nodes, and nodes call pods", t.podToNodePlan(), 0},
		{"", pods, 0},
		{"pods and nodes call Services", t.servicePlan(), settle},
		{"", services, settle},
		{"pods call the outside", t.outsidePlan(), settle},
	} {
		if err := r.try(ctx, p.tell, p.plan, p.settle); err != nil {
			return err
		}
	}
	if len(t.outside) == 0 {
		r.notRun(outside, "no address was given (--outside)")
	}
	for _, step := range []func(context.Context, *topology) error{r.tryDNS, r.tryPolicies} {
		if err := step(ctx, t); err != nil {
			return err
		}
	}
	return r.tryRestart(ctx, t, daemons)
}

func (r *run) tryDNS(ctx context.Context, t *topology) error {
	ok, err := r.hasDNS(ctx)
	if err != nil {
		return err
	}
	if !ok {
		r.notRun(dns, "the cluster has no Service k8s-app=kube-dns in kube-system")
		return nil
	}
	return r.try(ctx, "pods look up a name", t.dnsPlan(), settle)
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
