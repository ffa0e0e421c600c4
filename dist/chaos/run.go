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

// Case is one way to do a fault.
type Case struct {
	Fault    Fault
	Where    Where
	Families []subnet.Family // one of what [Suite.Turns] returns
	Host     int             // number of the host, modulo how many there are; of no matter where it is all
	Traffic  bool            // send datagrams, in every family that the overlay has, over a path that is affected
}

// Outcome is what came of a fault.
type Outcome struct {
	Case
	// Took is the time from the fault, or from the end of one that lasts, until the tables were right; By is that of each
	// family that it was done in.
	Took    time.Duration
	By      [2]time.Duration
	Lasted  time.Duration      // how long the fault itself lasted, until selvage could repair it
	Traffic []lab.StreamReport // by family; nil if there was none
	// Policies is what came of connections that policies are about; nil: none were made.
	Policies *PolicyTraffic
	Remarks  []string
	Wrong    []string // what is out of sync, and stays so
	Late     []string // bounds that were exceeded
	Log      []string // what the daemons said
}

// Applies reports whether a fault makes sense there.
func (w Where) Applies(f Fault) bool { return w != Stopped || !f.Running }

// Run does a fault and waits until all is right again. The error is for what keeps it from finding out.
func (s *Suite) Run(ctx context.Context, c Case) (Outcome, error) {
	o, f := Outcome{Case: c}, c.Fault
	index := c.Host % len(s.hosts)
	hosts := s.hosts[index : index+1]
	if c.Where == AllNodes {
		hosts = s.hosts
	}
	var err error
	if s.leases, err = s.lab.Store().Leases(ctx); err != nil {
		return o, err
	}
	logged := map[*host]int64{}
	for _, h := range s.hosts {
		logged[h] = h.logSize()
	}
	targets := make([]*target, len(hosts))
	for i, h := range hosts {
		targets[i] = &target{host: h, suite: s, families: c.Families, peer: s.lease(s.next(h)), logged: logged[h]}
		targets[i].peers = slices.DeleteFunc(slices.Clone(s.leases), func(l subnet.Lease) bool { return l.NodeName == h.Name() })
	}
	var policies *policyStream
	if c.Traffic && f.Class == Policies {
		if policies, err = s.streamPolicies(ctx, hosts[0]); err != nil {
			return o, err
		}
	}
	stop := func() (wait func() error) { return func() error { return nil } }
	if c.Traffic {
		stop = s.stream(ctx, hosts[0], &o)
	}
	err = s.run(ctx, &o, targets)
	if policies != nil && err == nil {
		err = s.awaitCut(ctx, &o, hosts)
	}
	if c.Traffic && s.options.Backend == WireGuard && err == nil && o.Wrong == nil {
		s.awaitPath(ctx, &o, hosts[0])
	}
	wait := stop()
	if policies != nil {
		err = errors.Join(err, policies.end())
		traffic, wrong := policies.result(targets[0].fault, targets[0].from(o.Families))
		o.Policies, o.Wrong = &traffic, append(o.Wrong, wrong...)
	}
	if err != nil {
		err = errors.Join(err, wait())
		return o, fmt.Errorf("%s (%s): %w", f.Name, c.place(), err)
	}
	for _, t := range targets {
		o.Lasted = max(o.Lasted, t.lasted())
		o.Remarks, o.Late = append(o.Remarks, t.remarks...), append(o.Late, t.late...)
	}
	// Answers are waited for meanwhile.
	if err := errors.Join(s.aftermath(ctx, &o), wait()); err != nil {
		return o, fmt.Errorf("after %s (%s): %w", f.Name, c.place(), err)
	}
	s.judge(&o)
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
	begin := func() (start time.Time) {
		start = time.Now()
		for _, t := range targets {
			t.start = start
		}
		return start
	}
	start := begin()
	for _, t := range targets {
		t.fault = start
	}
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
		started, start = true, begin()
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
		start = begin()
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
	problems, err := s.await(ctx, s.hosts, func(h *host) (_ []string, err error) {
		// A node that starts may well change its lease.
		if h == s.hosts[0] {
			if s.leases, err = s.lab.Store().Leases(ctx); err != nil {
				return nil, err
			}
		}
		return h.check(s.leases)
	})
	if err == nil && problems != nil {
		err = fmt.Errorf("prepare: not right after %s: %q", s.options.Patience, problems)
	}
	return err
}

// each calls fn for all targets at once; nil is nothing to do.
func each(ctx context.Context, targets []*target, fn step) error {
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
	hosts, leasesChange := s.hosts, o.Fault.Class == Uplink || o.Where == Stopped // a node that starts may well change its lease
	if !leasesChange {
		hosts = nil
		for _, t := range targets {
			hosts = append(hosts, t.host)
		}
	}
	var right moments
	problems, err := s.await(ctx, hosts, func(h *host) (_ []string, err error) {
		if leasesChange && h == hosts[0] {
			if s.leases, err = s.lab.Store().Leases(ctx); err != nil {
				return nil, err
			}
		}
		problems, err := h.checkTables(s.leases, o.Families)
		if err == nil && o.Fault.Class == Rules && problems.none() {
			problems, err = h.checkAround(ctx)
		}
		if err == nil && o.Fault.Class == OwnSide && problems.none() {
			problems, err = h.checkOwnSide()
		}
		if err == nil && o.Fault.Class == Policies && problems.none() {
			problems, err = h.checkPolicies()
		}
		if err == nil && o.Fault.Class == FastPath && problems.none() {
			problems, err = h.checkFast(s.leases)
		}
		right.note(problems, h == hosts[len(hosts)-1])
		return problems.all(), err
	})
	if len(problems) > 0 {
		o.Wrong = append(o.Wrong, fmt.Sprintf("not right after %s:", s.options.Patience))
		o.Wrong = append(o.Wrong, problems[:min(len(problems), longestDiff)]...)
	}
	for _, f := range o.Families {
		from := start
		for _, t := range targets {
			if t.since[f].After(from) {
				from = t.since[f]
			}
		}
		until := right.at[f]
		if until.IsZero() {
			until = time.Now() // it was never right
		}
		o.By[f] = max(o.By[f], until.Sub(from))
		o.Took = max(o.Took, o.By[f])
	}
	return err
}

// moments are when each family became right, of several looks at several hosts.
type moments struct {
	at  [2]time.Time // the end of the first look since which nothing was wrong
	bad [2]bool      // in the look that goes on
}

// note takes in what was found at a host; last says that it is the last one of a look.
func (m *moments) note(p problems, last bool) {
	for f := range m.bad {
		m.bad[f] = m.bad[f] || len(p[f]) > 0
	}
	if !last {
		return
	}
	for f, bad := range m.bad {
		switch {
		case bad:
			m.at[f] = time.Time{}
		case m.at[f].IsZero():
			m.at[f] = time.Now()
		}
	}
	m.bad = [2]bool{}
}

// stream starts to send, in every family of the overlay, from a pod of h to one of the host that its path is broken to. The
// function returned ends that; what it returns waits for the last answers.
func (s *Suite) stream(ctx context.Context, h *host, o *Outcome) (stop func() (wait func() error)) {
	streaming, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		r, err := s.lab.StreamShared(streaming, h.pods[0].Endpoint, s.next(h).pods[0].Endpoint, probeEvery)
		o.Traffic = r
		done <- err
	}()
	const around = 50 * time.Millisecond // what flows before and after shows that it is the fault that costs
	pause(ctx, around)
	return func() (wait func() error) {
		pause(ctx, around)
		cancel()
		return func() error { return <-done }
	}
}

// place says where and in what it is done: "one node", "one node, IPv6".
func (c Case) place() string {
	if c.Fault.Families == nil {
		return string(c.Where)
	}
	return fmt.Sprintf("%s, %s", c.Where, names(c.Families))
}
