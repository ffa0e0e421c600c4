package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	nodestatus "github.com/selvage-net/selvage/network/node/status"
)

// errRepair is returned when a fault is not repaired; which one has been printed.
var errRepair = errors.New("not every fault was repaired")

const (
	streamEvery   = 2 * time.Millisecond
	streamAround  = 250 * time.Millisecond // of a stream before a fault, and after its repair
	repairWithin  = 10 * time.Second
	withoutDaemon = 500 * time.Millisecond // how long the daemon, or the lease store, is gone
	lookEvery     = 5 * time.Millisecond
)

// trial is a fault of the demo, and its end.
type trial struct {
	name   string
	inject func(ctx context.Context, l *lab.Lab, node *lab.Node) error
	// after ends a fault that selvaged cannot end, and returns what ended it.
	after func(ctx context.Context, l *lab.Lab, node *lab.Node) (string, error)
	// undo is what the demo does if the fault is not repaired, so that the next one can be tried.
	undo func(node *lab.Node) error
}

// trials returns the faults of the demo, of a lab whose lease store texts call store.
func trials(store string) []trial {
	return []trial{
		{name: "VXLAN device deleted", inject: onNode((*lab.Node).DeviceDelete)},
		{name: "routes to peers flushed", inject: func(_ context.Context, l *lab.Lab, n *lab.Node) error {
			return n.DeleteRoutes(l.PeersOf(n)...)
		}},
		{name: "bridge cni0 set down", inject: onNode(func(n *lab.Node) error { return n.SetBridge(false) }),
			undo: func(n *lab.Node) error { return n.SetBridge(true) }},
		{name: "selvaged killed", after: restartDaemon,
			inject: onNode(func(n *lab.Node) error { n.Kill(); return nil })},
		{name: store + " stopped", after: restartStore,
			inject: func(_ context.Context, l *lab.Lab, _ *lab.Node) error { l.Store().Kill(); return nil }},
	}
}

// storeName is what texts call the lab's lease store.
func storeName(l *lab.Lab) string {
	if l.Kube() != nil {
		return "API server"
	}
	return "etcd"
}

func onNode(fn func(*lab.Node) error) func(context.Context, *lab.Lab, *lab.Node) error {
	return func(_ context.Context, _ *lab.Lab, n *lab.Node) error { return fn(n) }
}

// restartDaemon starts the daemon again, as systemd does.
func restartDaemon(ctx context.Context, _ *lab.Lab, n *lab.Node) (string, error) {
	if err := sleep(ctx, withoutDaemon); err != nil {
		return "", err
	}
	start := time.Now()
	if err := errors.Join(n.Start(), n.WaitReady(ctx)); err != nil {
		return "", err
	}
	return fmt.Sprintf("no repair needed: the kernel forwards without it; restarted by the demo, ready after %s",
		whole(time.Since(start))), nil
}

// restartStore starts the lease store again.
func restartStore(ctx context.Context, l *lab.Lab, n *lab.Node) (string, error) {
	if err := sleep(ctx, withoutDaemon); err != nil {
		return "", err
	}
	start := time.Now() // the daemon can be back before the lab knows that the store answers
	if err := l.Store().Start(ctx); err != nil {
		return "", err
	}
	err := eventually(ctx, func() error {
		s, err := n.Status(ctx)
		if err == nil && (s.State != nodestatus.Ready || !s.Store.LastContact.After(start)) {
			err = errors.New("selvaged has not reconnected to its lease store")
		}
		return err
	})
	return fmt.Sprintf("no repair needed: selvaged keeps all entries; %s restarted by the demo, reconnected after %s",
		storeName(l), whole(time.Since(start))), err
}

// outcome is how a trial went.
type outcome struct {
	outage     time.Duration // the longest time without an answered datagram, of each family alone
	lost       int           // datagrams
	repairedBy string
	err        error // it was not repaired
}

// showRepairs breaks things on the first node under a stream from its first pod to one of another node, and prints a
// line for each. It reports whether all faults were repaired. A lab without two such pods has nothing to show.
func showRepairs(ctx context.Context, w io.Writer, l *lab.Lab) (repaired bool, err error) {
	pods := l.Pods()
	other := slices.IndexFunc(pods, func(p *lab.Pod) bool { return p.Node != pods[0].Node })
	if other < 0 {
		return true, nil
	}
	from, to := pods[0], pods[other]
	fmt.Fprintf(w, "\nWhat selvage is for: faults on %s under a stream from %s to %s\n\n",
		from.Node.Name(), from.PodName(), to.PodName())
	printTrial(w, "FAULT", "OUTAGE", "LOST", "REPAIRED BY")
	repaired = true
	for _, t := range trials(storeName(l)) {
		o, err := t.run(ctx, l, from, to)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			return false, err
		}
		by := o.repairedBy
		if o.err != nil {
			repaired, by = false, verdict(w, false)+" not repaired: "+o.err.Error()
		}
		printTrial(w, t.name, whole(o.outage), fmt.Sprint(o.lost), by)
	}
	return repaired, nil
}

// printTrial prints a row of the table; the last column is folded.
func printTrial(w io.Writer, name, outage, lost, by string) {
	const before = "%-24s %8s %5s  "
	row := fmt.Sprintf(before, name, outage, lost)
	indent := len(row)
	line := row
	for i, word := range strings.Fields(by) {
		if i > 0 && len(line)+1+len(word) > lineWidth {
			fmt.Fprintln(w, line)
			line = strings.Repeat(" ", indent)
		} else if i > 0 {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, line)
}

// run injects the fault and waits until it is repaired. An error means that the trial could not be done.
func (t trial) run(ctx context.Context, l *lab.Lab, from, to *lab.Pod) (o outcome, err error) {
	node := from.Node
	before, err := node.Status(ctx)
	if err != nil {
		return o, err
	}
	type streams struct {
		reports []lab.StreamReport
		err     error
	}
	streaming, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan streams, 1)
	go func() {
		r, err := l.StreamShared(streaming, from.Endpoint, to.Endpoint, streamEvery)
		done <- streams{r, err}
	}()
	err = sleep(ctx, streamAround)
	if err == nil {
		err = t.inject(ctx, l, node)
	}
	if err == nil {
		o.repairedBy, o.err = t.wait(ctx, l, from, to, before)
	}
	if o.err != nil && t.undo != nil {
		err = errors.Join(err, t.undo(node))
	}
	err = errors.Join(err, sleep(ctx, streamAround))
	// Of several entries, one may have been repaired when the node was first seen in sync: count again.
	if now, statusErr := node.Status(ctx); statusErr == nil && t.after == nil && o.err == nil {
		if by := repairs(before.Repairs, now.Repairs); by != "" {
			o.repairedBy = by
		}
	}
	stop()
	s := <-done
	return t.judge(o, s.reports), errors.Join(err, s.err)
}

// judge adds up the streams. A fault that needs no repair must cost no datagram.
func (t trial) judge(o outcome, streams []lab.StreamReport) outcome {
	for _, r := range streams {
		o.lost += r.Lost
		o.outage = max(o.outage, r.Gap)
	}
	if t.after != nil && o.err == nil && o.lost > 0 {
		o.err = fmt.Errorf("%d datagrams lost, want none: the kernel's entries should have stayed", o.lost)
	}
	return o
}

// wait waits until the pods reach each other and the node's daemon is in sync, and returns what repaired the fault.
func (t trial) wait(ctx context.Context, l *lab.Lab, from, to *lab.Pod, before nodestatus.Status,
) (by string, err error) {
	ctx, cancel := context.WithTimeout(ctx, repairWithin)
	defer cancel()
	if t.after != nil {
		if by, err = t.after(ctx, l, from.Node); err != nil {
			return "", err
		}
	}
	err = eventually(ctx, func() error {
		s, err := from.Node.Status(ctx)
		if err != nil {
			return err
		}
		if t.after == nil {
			by = repairs(before.Repairs, s.Repairs)
		}
		return inSync(s, by)
	})
	if err != nil {
		return "", err
	}
	return by, eventually(ctx, func() error {
		for _, r := range l.ProbeShared(ctx, from.Endpoint, to.Endpoint) {
			if r.Err != nil {
				return r.Err
			}
		}
		return nil
	})
}

// inSync returns what is missing until a node is in sync and its daemon has reported what was repaired.
func inSync(s nodestatus.Status, by string) error {
	switch {
	case s.State != nodestatus.Ready && len(s.Problems) > 0:
		return fmt.Errorf("%s: %s", s.Problems[0].Topic, s.Problems[0].Text)
	case s.State != nodestatus.Ready || s.Pending() > 0:
		return fmt.Errorf("%s is not in sync", s.Node)
	case by == "":
		return errors.New("selvaged reports no repair")
	}
	return nil
}

// repairs says what was repaired between two states of a daemon; it is empty if nothing was.
func repairs(before, now nodestatus.Repairs) string {
	was := map[string]int{}
	for _, c := range before.Counts {
		was[c.Kind] += c.Count
	}
	is := map[string]int{}
	var kinds []string
	for _, c := range now.Counts {
		if is[c.Kind] == 0 {
			kinds = append(kinds, c.Kind)
		}
		is[c.Kind] += c.Count
	}
	var parts []string
	for _, kind := range kinds {
		if n := is[kind] - was[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "selvaged: " + strings.Join(parts, ", ")
}

// eventually calls ready until it returns nil. When ctx ends first, the error is the last that ready returned.
func eventually(ctx context.Context, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if sleep(ctx, lookEvery) != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whole is a time in whole milliseconds.
func whole(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
