package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// expectBroken makes sure that a fault breaks something that would be noticed, were it not repaired.
func (s *Suite) expectBroken(ctx context.Context, o *Outcome, targets []*target) error {
	for _, t := range targets {
		tables, err := t.check(s.leases)
		if err != nil {
			return err
		}
		around, err := t.checkAround(ctx)
		if err != nil {
			return err
		}
		own, err := t.checkOwnSide()
		if err != nil {
			return err
		}
		policies, err := t.checkPolicies()
		if err != nil {
			return err
		}
		fast, err := t.checkFast(s.leases)
		if err != nil {
			return err
		}
		if tables == nil && around.none() && own.none() && policies.none() && fast.none() {
			o.Wrong = append(o.Wrong, t.Name()+": the fault broke nothing")
		}
	}
	return nil
}

// askStuck has the daemons of nodes that are still not right say what they are doing.
func (s *Suite) askStuck(ctx context.Context, o *Outcome) error {
	for _, h := range s.hosts {
		if o.Wrong == nil || !h.Running() {
			continue
		}
		problems, err := h.check(s.leases)
		if err != nil {
			return err
		}
		own, err := h.checkOwnSide()
		if err != nil {
			return err
		}
		policies, err := h.checkPolicies()
		if err != nil {
			return err
		}
		fast, err := h.checkFast(s.leases)
		if err != nil {
			return err
		}
		if problems == nil && own.none() && policies.none() && fast.none() {
			continue
		}
		stacks, err := h.stacks(ctx)
		if err != nil {
			return fmt.Errorf("%s does not repair itself, and does not say why: %w", h.Name(), err)
		}
		for _, line := range stacks {
			o.Log = append(o.Log, h.Name()+": "+line)
		}
	}
	return nil
}

// judge holds an outcome against its bounds.
func (s *Suite) judge(o *Outcome) {
	bound := o.Fault.worst(o.Where)
	if o.Fault.PerFamily {
		bound *= time.Duration(len(s.families))
	}
	if bound > 0 && o.Where != Stopped && o.Took > bound {
		o.Late = append(o.Late, fmt.Sprintf("took longer than %s", bound))
	}
	s.judgePolicies(o, bound)
	s.judgeWireGuard(o)
	for _, r := range o.Traffic {
		switch {
		case r.Lost == 0:
		case o.Fault.NoLoss, o.Fault.Class == Policies && !o.Fault.Loses:
			o.Wrong = append(o.Wrong, fmt.Sprintf("%d datagrams of %s were lost", r.Lost, r.Family))
		case o.Fault.Families != nil && !slices.Contains(o.Families, r.Family):
			o.Wrong = append(o.Wrong, fmt.Sprintf("%d datagrams of %s were lost, which was not broken", r.Lost, r.Family))
		}
	}
}

// judgePolicies judges what came of connections between pods that policies are about.
func (s *Suite) judgePolicies(o *Outcome, bound time.Duration) {
	p := o.Policies
	if p == nil {
		return
	}
	if p.Passed > 0 && !o.Fault.Opens {
		o.Wrong = append(o.Wrong, fmt.Sprintf("%d packets passed that policies deny", p.Passed))
	}
	if p.Lost > 0 && !o.Fault.Loses {
		o.Wrong = append(o.Wrong, fmt.Sprintf("%d packets were lost that policies allow", p.Lost))
	}
	switch o.Where {
	case Stopped:
		return
	case AllNodes: // one machine does the work of all, and looks at all connections as often as there are nodes
		bound *= nodes
	}
	if p.Passing > bound {
		o.Late = append(o.Late, fmt.Sprintf("denied packets passed for longer than %s", bound))
	}
	if p.Losing > bound {
		o.Late = append(o.Late, fmt.Sprintf("allowed packets were lost for longer than %s", bound))
	}
}

// awaitCut waits until no connection is tracked on hosts that policies deny: one that began because of a fault goes on
// until it is cut.
func (s *Suite) awaitCut(ctx context.Context, o *Outcome, hosts []*host) error {
	problems, err := s.await(ctx, hosts, s.tracked)
	if len(problems) > 0 {
		o.Wrong = append(o.Wrong, problems[:min(len(problems), longestDiff)]...)
	}
	return err
}

// aftermath looks at everything else.
func (s *Suite) aftermath(ctx context.Context, o *Outcome) error {
	problems, err := s.whole(ctx)
	o.Wrong = append(o.Wrong, problems...)
	return err
}

// whole waits until all nodes' tables and rules are in sync, foreign objects are as they were, and all pods reach each
// other, by the fast path if it is used. The problems are what was still wrong at the end of its patience.
func (s *Suite) whole(ctx context.Context) (problems []string, err error) {
	problems, err = s.await(ctx, s.hosts, func(h *host) ([]string, error) {
		tables, err := h.check(s.leases)
		if err != nil {
			return nil, err
		}
		our, others, err := h.allRules(ctx)
		if err != nil {
			return nil, err
		}
		around, err := h.checkAroundWith(our)
		if err != nil {
			return nil, err
		}
		own, err := h.checkOwnSide()
		if err != nil {
			return nil, err
		}
		policies, err := h.checkPolicies()
		if err != nil {
			return nil, err
		}
		fast, err := h.checkFast(s.leases)
		if err != nil {
			return nil, err
		}
		foreign, err := h.checkForeignWith(others)
		return slices.Concat(tables, around.all(), own.all(), policies.all(), fast.all(), foreign), err
	})
	if len(problems) > 0 {
		problems = append([]string{fmt.Sprintf("after %s:", s.options.Patience)}, problems...)
	}
	problems = append(problems, s.reach(ctx)...)
	slow, failed := s.goesFast(ctx)
	return append(problems, slow...), errors.Join(err, failed)
}
