package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

const (
	// manySpecs is from how many Nodes on whose spec is needed they are listed and not read one by one.
	manySpecs = 64
	// specTimeout bounds the read of one Node, and about how long a watch stands still for such reads.
	specTimeout = 3 * time.Second
	// completeFor is how long a list waits for the reads of Nodes. Those that were not read then follow it.
	completeFor = 10 * time.Second
)

// pendingNode is a Node with a lease whose subnets are not known, or not for certain: the cluster has not given it any
// yet, or its spec could not be read.
type pendingNode struct {
	object apiserver.Object
	verify bool  // its lease was handed over and is to be compared with its spec; object has the name alone
	again  bool  // there is a reason to read it again: it had an event since, or the read failed
	err    error // why the latest read failed; nil: it did not
	// postponed: it is disputed, and not read yet because others were to be read before it.
	postponed bool
	backoff   backoff.Backoff
}

// pendingBackoff spaces the reads of a Node without a subnet. One that gets its subnet has an event.
var pendingBackoff = backoff.Policy{Min: time.Second, Max: 30 * time.Second, Quick: 4, Jitter: 0.5}

// errUnread means that a Node's spec was not read: an earlier read failed and the next one is not due yet, there was no
// time left, or the Node was registered again meanwhile.
var errUnread = errors.New("the spec of the Node is not known")

// readPending reads the subnets of a Node that does not name them in its metadata, as flannel's. They are none if the
// Node has no podCIDR yet: then it stays pending, as it does after an error, which is why they are not known.
func (w *watcher) readPending(ctx context.Context, o *apiserver.Object, n *knownNode) (podCIDRs, error) {
	wait := w.pending[o.Name]
	if wait == nil {
		wait = &pendingNode{}
		w.pending[o.Name] = wait
	}
	wait.object, wait.verify, wait.again = *o, false, true
	if n.disputed && !w.mayRead(wait) {
		return podCIDRs{}, errUnread
	}
	cidrs, err := w.readSpec(ctx, wait, n)
	if err == nil && !cidrs.none() {
		w.settled(o.Name)
	}
	return cidrs, err
}

// readSpec reads the spec of a pending Node, and notes it in n: once in the life of a Node, since podCIDRs never
// change.
func (w *watcher) readSpec(ctx context.Context, wait *pendingNode, n *knownNode) (cidrs podCIDRs, err error) {
	now := time.Now()
	if !wait.backoff.Due(now) {
		return cidrs, errUnread
	}
	late := now.After(w.readUntil)
	if w.postpone(wait, late && n.disputed); late {
		return cidrs, errUnread
	}
	limited, cancel := context.WithTimeout(ctx, specTimeout)
	defer cancel()
	node, err := w.readNode(limited, wait.object.Name)
	switch {
	case err == nil && uidOf(&node.Object) != n.uid:
		err, wait.again = errUnread, false // it was registered again, and the watch will say so
	case err == nil:
		w.unreadChanged = w.unreadChanged || wait.err != nil
		wait.err = nil
		if cidrs = specOf(&node); !cidrs.none() {
			n.spec = &cidrs
			return cidrs, nil
		}
		wait.again = false
	case isNotFound(err):
		wait.again = false
	default:
		wait.again, wait.err, w.unreadChanged = true, err, true
		if w.unreadLog.Due(time.Minute, time.Now()) && ctx.Err() == nil {
			w.opts.Log.WithError(err).WithField("node", wait.object.Name).
				Warn("cannot read the podCIDRs of a Node; its lease stays as it was; retrying")
		}
	}
	wait.backoff.Next(pendingBackoff, time.Now())
	return cidrs, err
}

// settled notes that a Node is not pending any more.
func (w *watcher) settled(name string) {
	if wait := w.pending[name]; wait != nil {
		w.unreadChanged = w.unreadChanged || wait.err != nil || wait.postponed
		delete(w.pending, name)
	}
}

// retryPending reads Nodes again whose subnets are not known, for as long as one read may take.
func (w *watcher) retryPending(ctx context.Context) error {
	var b batch
	w.readUntil = time.Now().Add(specTimeout)
	for name, wait := range w.pending {
		n := w.nodes[name]
		switch {
		case n == nil || !wait.again || !wait.backoff.Due(time.Now()):
		case wait.verify:
			w.verify(ctx, name, n, &b)
		default:
			o := wait.object
			w.judge(ctx, &o, n, &b)
		}
		if time.Now().After(w.readUntil) {
			break
		}
	}
	return w.hand(&b, false)
}

// complete reads the specs that a list needs: flannel's Nodes do not name their subnets in their metadata. A Node that
// cannot be read stays lacking, and keeps no other away. The error is that of an API server that cannot be used.
func (w *watcher) complete(ctx context.Context, l *listing) error {
	count := 0
	for _, wait := range l.lacking {
		if wait.again {
			count++
		}
	}
	if count >= manySpecs {
		return w.completeMany(ctx, l)
	}
	answers := false
	for _, name := range slices.Sorted(maps.Keys(l.lacking)) {
		wait, n := l.lacking[name], l.nodes[name]
		cidrs, err := w.readSpec(ctx, wait, n)
		switch {
		case err == nil:
			l.complete(w, name, cidrs)
		case wait.again && !answers && !errors.Is(err, errUnread):
			if w.probe(ctx) != nil {
				return fmt.Errorf("read the podCIDRs of Node %s: %w", name, err)
			}
			answers = true
		}
	}
	return nil
}

// probe finds out whether the API server answers at all.
func (w *watcher) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, specTimeout)
	defer cancel()
	_, err := w.client.List(ctx, apiserver.Nodes, apiserver.ListOptions{Name: noNode},
		func(apiserver.Page) error { return nil })
	return err
}

// completeMany is complete for so many Nodes that a list costs less.
func (w *watcher) completeMany(ctx context.Context, l *listing) error {
	o := apiserver.ListOptions{NotOlderThan: l.p.seen}
	_, err := w.client.Nodes(ctx, o, func(page apiserver.PageOf[apiserver.Node]) error {
		for i := range page.Objects {
			node := &page.Objects[i]
			if l.lacking[node.Name] != nil && l.nodes[node.Name].uid == uidOf(&node.Object) {
				l.complete(w, node.Name, specOf(node))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the podCIDRs of %d Nodes: %w", len(l.lacking), err)
	}
	for _, wait := range l.lacking {
		wait.again = false // it has none yet, or is gone: there will be an event
	}
	return nil
}

// complete notes the spec of a Node that lacked it.
func (l *listing) complete(w *watcher, name string, cidrs podCIDRs) {
	wait, n := l.lacking[name], l.nodes[name]
	if cidrs.none() && !wait.verify {
		return
	}
	delete(l.lacking, name)
	if !cidrs.none() {
		n.spec = &cidrs
	}
	if !wait.verify {
		l.records[name] = w.names.record(&wait.object, cidrs.against(&wait.object))
		return
	}
	was := l.records[name]
	if r := n.verified(name, subnetsOf(&was), cidrs); r.Bad != nil {
		l.records[name] = r
	}
}

// retain keeps the subnets of a Node that was known before the list and cannot be read now: podCIDRs never change, and
// the rest of its lease is in the list.
func (l *listing) retain(w *watcher) {
	for name, wait := range l.lacking {
		old := w.nodes[name]
		if !wait.again || wait.verify || old == nil || !old.leased || old.uid != l.nodes[name].uid {
			continue
		}
		if old.cidrs != [2]netip.Prefix{} {
			l.records[name] = w.names.record(&wait.object, podCIDRs{subnets: old.cidrs})
		}
	}
}

// retryIn is when to call retryPending again.
func (w *watcher) retryIn() time.Duration {
	wait := advanceAfter
	for _, p := range w.pending {
		if p.again {
			wait = min(wait, time.Until(p.backoff.At()))
		}
	}
	return max(wait, retryFirst)
}

// reportUnread notes for the status which Nodes cannot be read, and which disputed ones are still to be, and reports
// whether that has changed.
func (w *watcher) reportUnread() bool {
	if !w.unreadChanged {
		return false
	}
	w.unreadChanged = false
	var u subnet.Unread
	for name, wait := range w.pending {
		switch {
		case wait.err != nil:
			u.Names = append(u.Names, name)
		case wait.postponed:
			u.Disputed = append(u.Disputed, name)
		}
	}
	slices.Sort(u.Names)
	slices.Sort(u.Disputed)
	if len(u.Names) > 0 {
		u.Problem = apiserver.ProblemOf(w.pending[u.Names[0]].err)
	}
	w.setUnread(u)
	return true
}
