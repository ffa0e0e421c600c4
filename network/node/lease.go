package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/subnet"
)

// ownLease gets the node a lease and keeps it. It belongs to one goroutine, which feeds the view and calls advance
// whenever something is new; what takes time runs in the background and comes back on the channels.
//
//	none ── Allocate, Claim ──▶ claiming ──▶ holding ── our watch has passed the claim,   ──▶ final
//	  ▲                            │            │       and no older lease overlaps it          │
//	  └──── taken, or failed ──────┴── beaten ──┴──── deleted, taken or expired ────────────────┘
type ownLease struct {
	store      subnet.Store
	view       *subnet.View
	log        logrus.FieldLogger
	background *sync.WaitGroup
	claims     chan claimed  // how a claim ended: to be given to claimEnded
	lost       chan heldLost // a held lease ended: to be given to holdEnded

	instanceID string
	publicIPs  [2]netip.Addr
	advertise  func(subnets [2]netip.Prefix) subnet.Lease // what the node says of itself with those subnets

	phase    leasePhase
	final    bool
	record   subnet.Record
	subnets  [2]netip.Prefix // by Family; what was held last, also while it is not held
	previous [2]netip.Prefix // what to ask for if there is no record of ours
	avoid    []netip.Prefix  // found taken in this round of claims
	retryAt  time.Time
	pause    time.Duration
	release  context.CancelFunc // ends Hold
	updates  chan subnet.Lease  // to Hold, size one: the latest
	round    int                // counts holds, to tell a late end of an old one
	trouble  string             // what was logged last, so that it is not logged again
	// duplicate is the revision in which our lease names something that another has; 0: it does not.
	duplicate int64
}

type leasePhase int

const (
	none leasePhase = iota
	claiming
	holding
)

// claimed is how a claim ended.
type claimed struct {
	asked  subnet.Allocation
	record subnet.Record
	err    error
}

// heldLost says that a Hold ended by itself.
type heldLost struct {
	round int
	err   error
}

const (
	shortestClaimPause = 100 * time.Millisecond
	longestClaimPause  = 10 * time.Second
)

// advance moves on by what the view shows. It reports whether the lease has become final just now.
func (o *ownLease) advance(ctx context.Context, now time.Time) (gained bool) {
	switch o.phase {
	case none:
		if o.view.Synced() && !now.Before(o.retryAt) {
			o.claim(ctx, now)
		}
	case holding:
		return o.check(ctx)
	case claiming: // claimEnded goes on
	}
	return false
}

// claim chooses subnets and claims them in the background.
func (o *ownLease) claim(ctx context.Context, now time.Time) {
	a, err := o.view.Allocate(subnet.Request{
		InstanceID: o.instanceID, PublicIPs: o.publicIPs, Previous: o.previous, Avoid: o.avoid, Rand: rand.Uint64N,
	})
	if err != nil {
		o.avoid = nil // what was taken may be free again
		o.failed(err, now)
		return
	}
	want := o.advertise(a.Subnets)
	o.phase = claiming
	o.background.Go(func() {
		record, err := o.store.Claim(ctx, a.Have, want)
		select {
		case o.claims <- claimed{a, record, err}:
		case <-ctx.Done():
		}
	})
}

// failed waits a while before the next try, and says why if that is new.
func (o *ownLease) failed(err error, now time.Time) {
	if err.Error() != o.trouble {
		o.trouble = err.Error()
		o.log.WithError(err).Error("no lease yet; trying again")
	}
	o.later(now)
}

func (o *ownLease) later(now time.Time) {
	o.pause = min(max(2*o.pause, shortestClaimPause), longestClaimPause)
	o.retryAt = now.Add(jitter(o.pause))
}

// assume takes a lease for ours and final that was ours before, and that nobody can have been given meanwhile. It is not
// held: that is for when the store can be asked.
func (o *ownLease) assume(m subnet.Member) {
	o.final = true
	o.record = subnet.Record{Key: m.Key, Created: m.Created, Modified: m.Modified, LeaseID: m.LeaseID}
	for _, f := range subnet.Families() {
		o.subnets[f] = m.Endpoints[f].Subnet
	}
	o.previous = o.subnets
	o.log.WithField("lease", m.Key).Info("this node's lease, as it was kept")
}

// doubt ends what assume began: the lease is to be claimed now.
func (o *ownLease) doubt() {
	if o.phase == none {
		o.final = false
	}
}

// claimEnded takes in how a claim ended. A lost race is nothing to speak of: the next choice follows at once.
func (o *ownLease) claimEnded(ctx context.Context, c claimed) {
	switch {
	case c.err == nil:
		o.pause, o.avoid = 0, nil
		o.hold(ctx, c)
	case errors.Is(c.err, subnet.ErrTaken):
		o.phase = none
		if c.asked.Have == nil {
			for _, p := range c.asked.Subnets {
				if p.IsValid() {
					o.avoid = append(o.avoid, p)
				}
			}
			return
		}
		// Our own record changed while we looked at it; the view is about to show how.
		o.later(time.Now())
	default:
		o.phase = none
		o.failed(c.err, time.Now())
	}
}

// hold keeps a claimed record alive in the background.
func (o *ownLease) hold(ctx context.Context, c claimed) {
	holdCtx, cancel := context.WithCancel(ctx)
	o.phase, o.final = holding, false
	o.record, o.subnets, o.release = c.record, c.asked.Subnets, cancel
	o.round++
	round := o.round
	updates := make(chan subnet.Lease, 1)
	o.updates = updates
	o.background.Go(func() {
		err := o.store.Hold(holdCtx, c.record, updates)
		if holdCtx.Err() != nil {
			return
		}
		select {
		case o.lost <- heldLost{round, err}:
		case <-ctx.Done():
		}
	})
}

// update has the lease say what the node advertises now.
func (o *ownLease) update() {
	if o.phase != holding {
		return // the claim will say it
	}
	select {
	case <-o.updates: // an older one that was not taken yet
	default:
	}
	o.updates <- o.advertise(o.subnets)
}

func (o *ownLease) holdEnded(l heldLost) {
	if l.round == o.round && o.phase == holding {
		o.drop(l.err)
	}
}

// drop goes back to having none, and asks for the same subnets again.
func (o *ownLease) drop(why error) {
	o.log.WithError(why).WithField("lease", o.record.Key).Warn("the lease is lost; claiming again")
	o.release()
	o.phase, o.final = none, false
	o.previous = o.subnets
}

// check looks whether the view still shows the lease as ours.
func (o *ownLease) check(ctx context.Context) (gained bool) {
	if o.view.Revision() < o.record.Modified {
		return false // the watch has not come to it yet
	}
	m, ok, why := o.view.Get(o.record.Key)
	o.duplicate = 0
	switch {
	case !ok:
		o.drop(errors.New("somebody deleted its key"))
	case m.InstanceID != o.instanceID:
		o.drop(errors.New("another node has its key: " + m.NodeName + " " + m.InstanceID))
	case errors.Is(why, subnet.ErrOverlap):
		// Claimed at the same moment as an overlapping one, which the store cannot see, or one that is older has become
		// valid since; the older one stays, and everybody else sees it so. The next claim takes over the record that gives way.
		o.log.WithField("lease", o.record.Key).Infof("giving way: it %s", why)
		o.release()
		o.phase, o.final = none, false
	case errors.Is(why, subnet.ErrDuplicate):
		// Of something else than the subnet, such as a MAC address: the node chooses another and changes the lease.
		o.duplicate = m.Modified
	case o.final:
	case why != nil:
		if why.Error() != o.trouble {
			o.trouble = why.Error()
			o.log.WithError(why).WithField("lease", o.record.Key).Error("this node's own lease is not valid")
		}
	default:
		o.final = true
		o.trouble = ""
		o.log.WithFields(logrus.Fields{"lease": strings.ReplaceAll(m.Key, "&", " "), "etcd_lease": m.LeaseID, "reservation": m.LeaseID == 0}).
			Info("this node's lease")
		return true
	}
	return false
}
