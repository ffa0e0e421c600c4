package node

import (
	"fmt"
	"slices"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// This file follows changes of keys, the node's own and those of its peers: see [backend.Stage].

const (
	// secondRetry is how often second devices are looked at until they can be used.
	secondRetry = 50 * time.Millisecond
	// rotationPatience is how long peers that do not answer are waited for, in each stage, if they are not to be.
	rotationPatience = 10 * time.Second
)

// notePeers notes which peers change their keys.
func (r *rotating) notePeers(b backend.Backend, changes []subnet.Change) {
	t, ok := b.(*backend.Transition)
	if !ok {
		return
	}
	rotator := t.Rotator()
	for _, c := range changes {
		if c.After == nil || rotator == nil || !rotator.Rotates(*c.After) {
			delete(r.peers, c.Name) // as a rule, of none
			continue
		}
		if r.peers == nil {
			r.peers = map[string]struct{}{}
		}
		r.peers[c.Name] = struct{}{}
	}
}

// rotator returns the backend's part that can change its key, unless the network moves from one backend to another:
// then no change goes on.
func (n *node) rotator() backend.Rotator {
	if t, ok := n.backend.(*backend.Transition); ok && !isMoving(t) {
		return t.Rotator()
	}
	return nil
}

// applyRotation replaces the backend by one with another Rotation.
func (n *node) applyRotation(next backend.Rotation, now time.Time) error {
	before := n.rotating.Rotation
	n.rotating.Rotation = next
	b, err := n.carrier(*n.config, n.underlay(n.uplink, n.ownMember()), n.moving)
	if err == nil {
		err = n.takeScope(*n.config, b)
	}
	if err != nil {
		n.rotating.Rotation = before
		return err
	}
	if next.Beside && !before.Beside {
		n.kernel.RequestResync() // the devices may be there, and were not ours
	}
	n.reform(n.uplink, b, now)
	return nil
}

// keepSecond gives the node second devices while it or a peer changes its key. It has peers on them, and so offers them
// to others, once they are in sync and the packet filter accepts what arrives by them. At a start it has them at once:
// packets may go by them.
func (n *node) keepSecond(wake *alarm) {
	r := &n.rotating
	if n.rotator() == nil {
		return
	}
	needed := r.Stage != backend.Still || len(r.peers) > 0 || !n.programmed && !r.needed && n.hasSecond()
	if r.needed && !needed {
		r.lingers = wake.now.Add(lastPackets)
	}
	r.needed = needed
	wake.set(r.lingers)
	next := r.Rotation
	switch {
	case !needed && !r.Beside && r.noted.Stage == rotationRequested:
		n.resolveRotation(n.offerKey(wake))
		return
	case needed && !r.Beside:
		next.Beside, next.Ready = true, !n.programmed
	case needed && !r.Ready && n.programmed && n.ownPending() == 0 && n.rules.Applied():
		next.Ready = true
	case needed && !r.Ready:
		wake.set(wake.now.Add(secondRetry))
		return
	case !needed && r.Beside && !wake.now.Before(r.lingers):
		next = backend.Rotation{}
		n.trials.close()
	default:
		return
	}
	if err := n.applyRotation(next, wake.now); err != nil {
		n.journal.problem(topicRotation, err)
		wake.set(wake.now.Add(waitAfterFailure))
		return
	}
	n.journal.resolved(topicRotation)
	if !next.Ready {
		wake.set(wake.now.Add(secondRetry))
	}
}

// hasSecond reports whether an earlier run has left second devices.
func (n *node) hasSecond() bool {
	return slices.ContainsFunc(n.key().Second, func(name string) bool {
		return n.tables.Links.Get(name).Present && n.tables.OwnsLink(name)
	})
}

// followRotation finds out by which devices peers are reached while keys change, and takes the next step of the change
// of this node's key.
func (n *node) followRotation(wake *alarm) {
	r, rotator := &n.rotating, n.rotator()
	if t, ok := n.backend.(*backend.Transition); ok && t.Rotator() == nil && r.noted.Stage != "" {
		n.abandonRotation("the network has another backend now")
	}
	if rotator == nil || !r.Ready || !n.programmed || !n.holder.final || n.cache.inUse {
		return
	}
	if err := n.trials.step(wake, n.kernel.Index, n.subnets); err != nil {
		n.journal.problem(topicRotation, fmt.Errorf("cannot find out which nodes are reached by the second devices, "+
			"so packets go by the first ones: %w", err))
	}
	if wake.now.Before(r.checkAt) {
		wake.set(r.checkAt)
		return
	}
	leases, _ := n.view.Len()
	r.checkAt = wake.now.Add(max(moveInterval, time.Duration(leases)*moveEach))
	if r.Stage == backend.Still && len(r.peers) == 0 {
		n.trials.close()
		return
	}
	wake.set(r.checkAt)
	if own := n.ownMember(); own == nil || !sameData(*own, n.lease(n.subnets)) {
		r.stageAt = time.Time{}
		return
	}
	if r.stageAt.IsZero() { // what was seen before says nothing of those who have seen the lease of this stage
		r.stageAt, r.confirmed = wake.now, map[backend.Way]struct{}{}
		n.trials.forget()
	}
	answered, waiting := n.tryWays(rotator)
	switch {
	case len(answered) > 0:
		n.resolveRotation(n.applyRotation(r.With(answered), wake.now))
	case r.Stage == backend.Still || wake.now.Sub(r.stageAt) < lastPackets || !n.inSyncForRotation():
	case waiting == 0 || r.noted.Force && wake.now.Sub(r.stageAt) > rotationPatience:
		n.resolveRotation(n.nextStage(wake.now))
	}
}

func (n *node) resolveRotation(err error) {
	if err != nil {
		n.journal.problem(topicRotation, err)
		return
	}
	n.journal.resolved(topicRotation)
}

// inSyncForRotation reports whether the kernel sends and receives as the stage says.
func (n *node) inSyncForRotation() bool {
	t := n.tables
	return n.ownPending() == 0 && t.Peers.Counts().Pending == 0 && t.AllowedIPs.Counts().Pending == 0 &&
		t.Routes.Counts().Pending == 0
}

// tryWays takes in what is known of the ways to peers, and has the others tried. It returns the ways by which packets
// are known to arrive now, and the number of peers that the change of this node's key waits for.
func (n *node) tryWays(rotator backend.Rotator) (answered []backend.Way, waiting int) {
	r, s := &n.rotating, &n.trials.schedule
	s.mutual = r.Stage != backend.Still
	var untried []backend.Way
	try := func(l subnet.Lease) {
		ways, mutual := rotator.Ways(l)
		complete := true
		for _, w := range ways {
			_, arrives := r.Answered[w]
			if !arrives && s.arrives(w) {
				arrives = true
				answered = append(answered, w)
			}
			if s.works(w) || !mutual && s.arrives(w) {
				r.confirmed[w] = struct{}{}
			}
			if _, confirmed := r.confirmed[w]; !confirmed && (r.Stage != backend.Still || !arrives) {
				untried, complete = append(untried, w), false
			}
		}
		if !complete {
			waiting++
		}
	}
	if r.Stage != backend.Still {
		for x := range n.view.Peers {
			try(x.Lease)
		}
	} else {
		for name := range r.peers {
			if x, ok, _ := n.view.Get(name); ok {
				try(x.Lease)
			}
		}
	}
	s.set(untried)
	return answered, waiting
}

// nextStage takes the next step of the change of this node's key. What a restarted daemon has to know is written first.
func (n *node) nextStage(now time.Time) error {
	r := &n.rotating
	next := r.Rotation
	next.Stage, next.Resumed = r.Stage.Next(), false
	noted := r.noted
	noted.Stage = next.Stage.String()
	switch next.Stage {
	case backend.Still:
		if err := removeRotation(n.StateDir); err != nil {
			return err
		}
		next, noted = backend.Rotation{Beside: true, Ready: true}, notedRotation{}
	case backend.Returning:
		if err := n.replaceKey(noted.New); err != nil {
			return err
		}
		fallthrough
	default:
		if err := noted.write(n.StateDir); err != nil {
			return err
		}
	}
	r.stageAt, r.confirmed = time.Time{}, nil
	r.noted = noted
	if err := n.applyRotation(next, now); err != nil {
		return err
	}
	if next.Stage == backend.Still {
		n.Log.Info("the key of this node has been changed")
	} else {
		n.Log.WithField("stage", noted.Stage).Info("changing the key of this node")
	}
	return nil
}

// rotationStatus describes the changes of keys that are under way; nil: there are none.
func (n *node) rotationStatus() *status.Rotation {
	r := &n.rotating
	if r.noted.Stage == "" && len(r.peers) == 0 {
		return nil
	}
	s := &status.Rotation{Stage: r.noted.Stage, Peers: len(r.peers)}
	if s.Stage == "" {
		return s
	}
	s.Began, s.Force, s.Waiting = r.noted.Began, r.noted.Force, []status.Waiting{}
	if kind := n.key(); kind != nil {
		s.NewKey, _ = kind.Public(r.noted.New)
	}
	rotator := n.rotator()
	if rotator == nil || r.Stage == backend.Still {
		return s
	}
	const few = 3
	for x := range n.view.Peers {
		ways, _ := rotator.Ways(x.Lease)
		why := ""
		for _, w := range ways {
			_, arrives := r.Answered[w]
			_, confirmed := r.confirmed[w]
			switch {
			case confirmed || why != "":
			case arrives:
				why = "it has not been seen to send by " + w.Key.Link + " yet"
			default:
				why = "it has not answered by " + w.Key.Link + " yet"
			}
		}
		if why != "" && len(s.Waiting) < few {
			s.Waiting = append(s.Waiting, status.Waiting{Key: x.Name, Node: x.NodeName, Why: status.Text(why)})
		} else if why != "" {
			s.More++
		}
	}
	return s
}
