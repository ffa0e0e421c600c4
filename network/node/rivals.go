package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/subnet"
)

// How a node decides about a lease that has its public IP, or its own instance id, and that another node may hold.
const (
	// answerTime is how long the holder of such a lease has to answer. A daemon that is connected to the store answers
	// within milliseconds, and one that has just lost its connection usually reconnects within this time.
	answerTime = 5 * time.Second
	// recently is how long after this node wrote a lease another process has to write it too, to be taken for a live
	// holder that takes back what is its own, even if it does not answer.
	recently = time.Minute
)

// rivals is what a node knows of the other holders of leases that could be its own. A lease is taken from each of them
// at most once, so two nodes that want one lease exchange it at most once.
type rivals map[string]rival // by rivalName

// rival is another holder.
type rival struct {
	alive   bool
	name    string // the record of which it is known that its holder is gone, and its version
	version int64
	taken   bool // a lease was taken from it in this run
}

// rivalName identifies the holder of a record. A flannel has no instance id; it is known by its lease.
func rivalName(r subnet.Record) string {
	if r.InstanceID == "" {
		return r.Name
	}
	return r.InstanceID
}

// holder says what is known of the holder of a record.
func (all rivals) holder(r subnet.Record) subnet.Holder {
	switch x := all[rivalName(r)]; {
	case x.alive:
		return subnet.HolderAlive
	case x.version != 0 && x.name == r.Name && x.version == r.Version:
		return subnet.HolderGone
	}
	return subnet.HolderUnknown
}

// answered notes that the holder of a record is alive.
func (all rivals) answered(r subnet.Record) {
	x := all[rivalName(r)]
	x.alive = true
	all[rivalName(r)] = x
}

// silent notes that the holder of a record, as the record is now, is gone. One from which a lease was taken before is
// not: it has written the record since.
func (all rivals) silent(r subnet.Record) {
	x := all[rivalName(r)]
	x.name, x.version, x.alive = r.Name, r.Version, x.taken
	all[rivalName(r)] = x
}

// took notes that this node has taken over a record.
func (all rivals) took(r subnet.Record) {
	x := all[rivalName(r)]
	x.taken = true
	all[rivalName(r)] = x
}

// request is what the node tells [subnet.View.Allocate] of itself.
func (h *leaseHolder) request() subnet.Request {
	return subnet.Request{
		InstanceID: h.instanceID, PublicIPs: h.publicIPs, Previous: h.previous, Avoid: h.avoid, Rand: rand.Uint64N,
		Holder: h.holderOf,
	}
}

// holderOf says what is known of the holder of a record that has this node's public IP. flannel answers no question, so
// a lease of flannel's is this node's only if something on this machine shows it.
func (h *leaseHolder) holderOf(r subnet.Record) subnet.Holder {
	known := h.rivals.holder(r)
	_, asks := h.store.(subnet.Challenger)
	switch {
	case known == subnet.HolderAlive:
	case r.InstanceID == "" && h.wasOurs != nil && !h.wasOurs(r.Lease):
		known = subnet.HolderAlive
		if h.rivals.holder(r) != known {
			h.rivals.answered(r)
			h.log.WithFields(logrus.Fields{"lease": r.Name, "public_ip": addresses(h.publicIPs)}).
				Warn("leaving a flannel node's lease with this node's public IP alone: nothing on this machine shows " +
					"that it was the holder. If it was, release that lease and restart selvaged to get that subnet")
		}
	case r.InstanceID == "" || !asks:
		known = subnet.HolderGone
		if h.rivals[rivalName(r)].taken {
			known = subnet.HolderAlive
		}
	}
	return known
}

// ask asks the holder of a record whether it is alive, in the background: before a claim, or beside a lease that the
// node holds.
func (h *leaseHolder) ask(ctx context.Context, r subnet.Record, beside bool) {
	store := h.store.(subnet.Challenger) // the callers ask no other
	if !beside {
		h.phase = claiming
	}
	h.question = fmt.Sprintf("lease %s could be this node's; asking its holder (node %q, instance %s) whether it is "+
		"alive",
		r.Name, r.NodeName, r.InstanceID)
	h.start(func() {
		now, alive, err := store.Challenge(ctx, r, answerTime)
		select {
		case h.claims <- claimResult{
			asked: subnet.Allocation{Ask: &r}, beside: beside, record: now, alive: alive, err: err,
		}:
		case <-ctx.Done():
		}
	})
}

// answered handles the answer of a holder, or its absence.
func (h *leaseHolder) answered(c claimResult) {
	h.question = ""
	if c.beside {
		h.answeredBeside(c)
		return
	}
	h.phase = idle
	fields := logrus.Fields{
		"lease": c.record.Name, "public_ip": addresses(h.publicIPs),
		"node": c.record.NodeName, "instance": c.record.InstanceID,
	}
	now := time.Now()
	switch {
	case errors.Is(c.err, subnet.ErrTaken): // the view is about to show how the record has changed
		h.backoff.Next(claimBackoff, now)
	case c.err != nil:
		h.failed(c.err, now)
	case c.record.InstanceID == h.instanceID && (c.alive || h.lost.recent && c.record.LeaseID != 0):
		// A daemon that has written the record a moment ago is alive, even if it cannot answer now. A reservation may
		// have been written by an operator.
		h.backoff.Reset()
		h.cloned, h.lost = true, lostLease{}
	case c.alive:
		h.backoff.Reset()
		h.rivals.answered(c.record)
		h.say(now, func() {
			h.log.WithFields(fields).Warn("another live node has this node's public IP; its lease is left alone and " +
				"another subnet is claimed. Give each node a public IP of its own")
		})
	default:
		h.backoff.Reset()
		h.rivals.silent(c.record)
		h.seen, h.lost = c.record.Version, lostLease{}
		h.say(now, func() {
			h.log.WithFields(fields).WithField("after", answerTime.String()).
				Info("the holder of a lease with this node's public IP did not answer; taking it over")
		})
	}
}

// wrote notes what a claim has replaced.
func (h *leaseHolder) wrote(c claimResult) {
	have := c.asked.Have
	if have == nil {
		return
	}
	if have.InstanceID != h.instanceID {
		h.rivals.took(*have)
	} else if have.Lease != c.record.Lease {
		h.wroteAt = time.Now()
	}
}

// lookForClone asks the holder of an older record with this node's instance id whether it is alive: two clones that
// start at one moment, without a lease, both get one. None looks for a younger record, so one of them gives way.
func (h *leaseHolder) lookForClone(ctx context.Context) {
	_, asks := h.store.(subnet.Challenger)
	oldest := h.view.ByInstance(h.instanceID)
	if !asks || oldest == nil || oldest.Key() == h.record.Name {
		h.alone = true
		return
	}
	r, ok, _ := h.view.Get(oldest.Key())
	if h.alone = !ok; ok {
		h.ask(ctx, r, true)
	}
}

// answeredBeside handles the answer of the holder of a record with this node's instance id. If it is alive, this node
// gives its own lease up, and claims it again under another id.
func (h *leaseHolder) answeredBeside(c claimResult) {
	now := time.Now()
	switch {
	case h.phase != holding:
	case c.err != nil: // it is asked again, if the record is still there
		h.backoff.Next(claimBackoff, now)
	case !c.alive:
		h.backoff.Reset()
		h.alone = true
	default:
		h.backoff.Reset()
		h.cloned = true
		if own, ok, _ := h.view.Get(h.record.Name); ok {
			h.rivals.silent(own)
		}
		h.end(now)
		h.previous = h.subnets
	}
}

// judgeLoss decides who has the lease that was lost, by what the view shows. What it returns is a record with this
// node's own instance id whose holder has to be asked, or nil. The loss is judged again before each claim until one
// succeeds: the view may not show yet what has happened, and a question may fail.
//
// A lease is its holder's until it ends. So a node whose lease was taken by one with the same public IP, because it was
// cut off from the store for a moment, takes it back once, and the other node then leaves it alone.
func (h *leaseHolder) judgeLoss(now time.Time) (clone *subnet.Record) {
	lost := h.lost
	if lost.name == "" {
		return nil
	}
	r, ok, _ := h.view.Get(lost.name)
	switch {
	case !ok || r.Bad != nil:
	case r.InstanceID == h.instanceID:
		// Another daemon has this identity, or an operator has written the record, or a backup was restored. If this
		// node wrote it before, it may have taken it from that daemon, which would have kept the record's etcd lease.
		_, asks := h.store.(subnet.Challenger)
		kept := (r.LeaseID == 0) == (h.record.LeaseID == 0)
		if asks && lost.rewritten && kept && r.Version >= h.record.Version {
			return &r
		}
	case h.rivals[rivalName(r)].taken:
		if h.rivals[rivalName(r)].alive {
			break
		}
		h.rivals.answered(r) // it has taken back what was taken from it
		h.say(now, func() {
			h.log.WithFields(logrus.Fields{"lease": r.Name, "node": r.NodeName, "instance": r.InstanceID}).
				Warn("the holder of a lease that this node took over is alive; claiming another subnet")
		})
	case lost.until.IsZero() || now.Before(lost.until):
		h.rivals.silent(r)
	}
	return nil
}

// expires is when the lease ends without a renewal; zero for a reservation, or if the store does not know.
func (h *leaseHolder) expires() time.Time {
	if s, ok := h.store.(subnet.Expirer); ok {
		return s.Expires(h.record)
	}
	return time.Time{}
}
