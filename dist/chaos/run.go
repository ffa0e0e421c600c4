package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// Where says what is broken at once.
type Where string

// Where faults can be done.
const (
	OneNode  Where = "one node"
	AllNodes Where = "all nodes"
	// Stopped: on one node, and while its daemon does not run. All is to be right some time after it was started.
	Stopped Where = "stopped"
)

// Outcome is what came of a fault.
type Outcome struct {
	Fault   Fault
	Where   Where
	Took    time.Duration // from the fault, or from the end of one that lasts, until the tables were right
	Traffic *lab.StreamReport
	Remarks []string
	Wrong   []string // what is not as it should be, and will not become so
	Late    []string // bounds that were exceeded
	Log     []string // what the daemons said
}

// Applies reports whether a fault makes sense there.
func (w Where) Applies(f Fault) bool { return w != Stopped || !f.Running }

// Run does a fault to the host with the given index, modulo how many there are, or to all, and waits until all is right again. With traffic, it sends
// datagrams over a path that is affected. The error is for what keeps it from finding out.
func (s *Suite) Run(ctx context.Context, f Fault, where Where, index int, traffic bool) (Outcome, error) {
	o := Outcome{Fault: f, Where: where}
	index %= len(s.hosts)
	hosts := s.hosts[index : index+1]
	if where == AllNodes {
		hosts = s.hosts
	}
	var err error
	if s.leases, err = s.lab.Etcd().Leases(ctx); err != nil {
		return o, err
	}
	logged := map[*host]int64{}
	for _, h := range s.hosts {
		logged[h] = h.logSize()
	}
	targets := make([]*target, len(hosts))
	for i, h := range hosts {
		targets[i] = &target{host: h, suite: s, peer: s.lease(s.next(h)), logged: logged[h]}
		targets[i].peers = slices.DeleteFunc(slices.Clone(s.leases), func(l subnet.Lease) bool { return l.NodeName == h.Name() })
	}
	stop := func() error { return nil }
	if traffic {
		stop = s.stream(ctx, hosts[0], &o)
	}
	err = s.run(ctx, &o, targets)
	if e := stop(); err == nil {
		err = e
	}
	if err != nil {
		return o, fmt.Errorf("%s (%s): %w", f.Name, where, err)
	}
	for _, t := range targets {
		o.Remarks, o.Late = append(o.Remarks, t.remarks...), append(o.Late, t.late...)
	}
	s.judge(&o)
	if err := s.aftermath(ctx, &o); err != nil {
		return o, fmt.Errorf("after %s (%s): %w", f.Name, where, err)
	}
	for _, h := range s.hosts {
		for _, line := range h.logSince(logged[h]) {
			o.Log = append(o.Log, h.Name()+": "+line)
		}
	}
	return o, s.askStuck(ctx, &o)
}

// run is the fault's course.
func (s *Suite) run(ctx context.Context, o *Outcome, targets []*target) error {
	f := o.Fault
	if err := s.prepare(ctx, f, targets); err != nil {
		return err
	}
	started := o.Where != Stopped
	if !started {
		for _, t := range targets {
			t.Kill()
		}
	}
	start := time.Now()
	if err := each(ctx, targets, f.Inject); err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	if !started && !f.Unbroken {
		if err := s.expectBroken(ctx, o, targets); err != nil {
			return err
		}
	}
	startDaemons := func() error {
		if started {
			return nil
		}
		started, start = true, time.Now()
		return each(ctx, targets, func(_ context.Context, t *target) error { return t.Start() })
	}
	if f.Undo == nil || f.Follow {
		if err := startDaemons(); err != nil {
			return err
		}
		if err := s.untilRight(ctx, o, targets, start); err != nil {
			return err
		}
	}
	if f.Undo != nil {
		if err := each(ctx, targets, f.Meanwhile); err != nil {
			o.Wrong = append(o.Wrong, err.Error())
		}
		pause(ctx, f.Away)
		start = time.Now()
		if err := each(ctx, targets, f.Undo); err != nil {
			return fmt.Errorf("undo: %w", err)
		}
		if err := startDaemons(); err != nil {
			return err
		}
		if err := s.untilRight(ctx, o, targets, start); err != nil {
			return err
		}
	}
	if err := each(ctx, targets, f.After); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// prepare sets the scene, and waits until all is right on it.
func (s *Suite) prepare(ctx context.Context, f Fault, targets []*target) error {
	if f.Before == nil {
		return nil
	}
	if err := each(ctx, targets, f.Before); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	_, problems, err := s.await(ctx, s.hosts, func(h *host) (_ []string, err error) {
		// A node that starts may well change its lease.
		if h == s.hosts[0] {
			if s.leases, err = s.lab.Etcd().Leases(ctx); err != nil {
				return nil, err
			}
		}
		return h.check(s.leases)
	})
	if err == nil && problems != nil {
		err = fmt.Errorf("prepare: not right after %s: %q", deadline, problems)
	}
	return err
}

// each calls fn for all targets at once; nil is nothing to do.
func each(ctx context.Context, targets []*target, fn func(context.Context, *target) error) error {
	if fn == nil {
		return nil
	}
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() { errs[i] = fn(ctx, t) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// untilRight waits until what the fault's class is about is right, and notes how long that took since start. What
// changes a lease is to be followed by all nodes.
func (s *Suite) untilRight(ctx context.Context, o *Outcome, targets []*target, start time.Time) error {
	hosts := s.hosts
	if o.Fault.Class != Uplink && o.Where != Stopped {
		hosts = nil
		for _, t := range targets {
			hosts = append(hosts, t.host)
		}
	}
	right, problems, err := s.await(ctx, hosts, func(h *host) (problems []string, err error) {
		// A node that starts may well change its lease.
		if (o.Fault.Class == Uplink || o.Where == Stopped) && h == hosts[0] {
			if s.leases, err = s.lab.Etcd().Leases(ctx); err != nil {
				return nil, err
			}
		}
		problems, err = h.check(s.leases)
		if err == nil && o.Fault.Class == Rules && problems == nil {
			problems, err = h.checkAround(ctx)
		}
		return problems, err
	})
	if len(problems) > 0 {
		o.Wrong = append(o.Wrong, fmt.Sprintf("not right after %s:", deadline))
		o.Wrong = append(o.Wrong, problems[:min(len(problems), longestDiff)]...)
	}
	for _, t := range targets {
		if t.since.After(start) {
			start = t.since
		}
	}
	o.Took = max(o.Took, right.Sub(start))
	return err
}

// stream starts to send from a pod of h to one of the host that its path is broken to. The function returned ends that.
func (s *Suite) stream(ctx context.Context, h *host, o *Outcome) (stop func() error) {
	streaming, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		r, err := s.lab.Stream(streaming, h.pods[0].Endpoint, s.next(h).pods[0].Endpoint, probeEvery)
		o.Traffic = &r
		done <- err
	}()
	const around = 50 * time.Millisecond // what flows before and after shows that it is the fault that costs
	pause(ctx, around)
	return func() error {
		pause(ctx, around)
		cancel()
		return <-done
	}
}
