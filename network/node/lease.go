package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// ownLease is where the node stands with its own lease:
//
//	none ── Allocate, Claim ──▶ claiming ──▶ claimed ── our watch has passed the claim,   ──▶ final
//	  ▲                            │            │       and no older lease overlaps it          │
//	  └──── taken, or failed ──────┴── beaten ──┴──── deleted, taken or expired ────────────────┘
type ownLease struct {
	phase    leasePhase
	final    bool
	record   subnet.Record
	subnets  [2]netip.Prefix // by Family; what was held last, also while it is not held
	previous [2]netip.Prefix // what to ask for if there is no record of ours
	avoid    []netip.Prefix  // found taken in this round of claims
	retryAt  time.Time
	pause    time.Duration
	release  context.CancelFunc // ends Hold
	round    int                // counts holds, to tell a late end of an old one
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

// nodeOwner owns what the node wants for itself in the tables: it goes before every peer.
func nodeOwner() network.Owner { return network.Owner{Name: "", Age: -1} }

// advanceLease moves the node's own lease on by what the view shows.
func (n *node) advanceLease(ctx context.Context, now time.Time) {
	switch n.own.phase {
	case none:
		if n.view.Synced() && !now.Before(n.own.retryAt) {
			n.claim(ctx, now)
		}
	case holding:
		n.checkHeld(ctx)
	case claiming: // claimEnded goes on
	}
}

// claim chooses subnets and claims them in the background.
func (n *node) claim(ctx context.Context, now time.Time) {
	a, err := n.view.Allocate(subnet.Request{
		InstanceID: n.identity.InstanceID,
		PublicIPs:  n.underlay.PublicIP,
		Previous:   n.own.previous,
		Avoid:      n.own.avoid,
		Rand:       rand.Uint64N,
	})
	if err != nil {
		n.sayOnce("lease", err)
		n.own.avoid = nil // what was taken may be free again
		n.claimLater(now)
		return
	}
	want := n.lease(a.Subnets)
	n.own.phase = claiming
	n.background.Go(func() {
		record, err := n.Store.Claim(ctx, a.Have, want)
		select {
		case n.claims <- claimed{a, record, err}:
		case <-ctx.Done():
		}
	})
}

// lease is what the node advertises with the given subnets.
func (n *node) lease(subnets [2]netip.Prefix) subnet.Lease {
	l := subnet.Lease{
		Endpoints: n.backend.Advertise(), BackendType: n.config.Backend.Type,
		InstanceID: n.identity.InstanceID, NodeName: n.NodeName,
	}
	for _, f := range subnet.Families() {
		l.Endpoints[f].Subnet = subnets[f]
	}
	return l
}

func (n *node) claimLater(now time.Time) {
	n.own.pause = min(max(2*n.own.pause, shortestClaimPause), longestClaimPause)
	n.own.retryAt = now.Add(jitter(n.own.pause))
}

// claimEnded takes in how a claim ended. A lost race is nothing to speak of: the next choice follows at once.
func (n *node) claimEnded(ctx context.Context, c claimed) {
	switch {
	case c.err == nil:
		n.own.pause, n.own.avoid = 0, nil
		n.hold(ctx, c)
	case errors.Is(c.err, subnet.ErrTaken):
		n.own.phase = none
		if c.asked.Have == nil {
			for _, p := range c.asked.Subnets {
				if p.IsValid() {
					n.own.avoid = append(n.own.avoid, p)
				}
			}
			return
		}
		// Our own record changed while we looked at it; the view is about to show how.
		n.claimLater(time.Now())
	default:
		n.own.phase = none
		n.sayOnce("lease", c.err)
		n.claimLater(time.Now())
	}
}

// hold keeps a claimed record alive in the background.
func (n *node) hold(ctx context.Context, c claimed) {
	holdCtx, cancel := context.WithCancel(ctx)
	n.own.phase, n.own.final = holding, false
	n.own.record, n.own.subnets, n.own.release = c.record, c.asked.Subnets, cancel
	n.own.round++
	round := n.own.round
	n.background.Go(func() {
		err := n.Store.Hold(holdCtx, c.record, nil)
		if holdCtx.Err() != nil {
			return
		}
		select {
		case n.lost <- heldLost{round, err}:
		case <-ctx.Done():
		}
	})
}

func (n *node) holdEnded(l heldLost) {
	if l.round == n.own.round && n.own.phase == holding {
		n.dropLease(l.err)
	}
}

// dropLease goes back to having none, and asks for the same subnets again.
func (n *node) dropLease(why error) {
	n.Log.WithError(why).WithField("lease", n.own.record.Key).Warn("the lease is lost; claiming again")
	n.own.release()
	n.own.phase, n.own.final = none, false
	n.own.previous = n.own.subnets
}

// checkHeld looks whether the view still shows the lease as ours.
func (n *node) checkHeld(ctx context.Context) {
	if n.view.Revision() < n.own.record.Modified {
		return // the watch has not come to it yet
	}
	m, ok, why := n.view.Get(n.own.record.Key)
	switch {
	case !ok:
		n.dropLease(errors.New("somebody deleted its key"))
	case m.InstanceID != n.identity.InstanceID:
		n.dropLease(errors.New("another node has its key: " + m.NodeName + " " + m.InstanceID))
	case why != nil && m.Created == n.own.record.Created && !n.own.final:
		// Claimed at the same moment as an overlapping one, which the store cannot see; the older one stays.
		n.Log.WithField("lease", n.own.record.Key).Infof("giving way: the lease %s", why)
		record := n.own.record
		n.own.release()
		n.own.phase = none
		n.own.previous = [2]netip.Prefix{}
		n.background.Go(func() {
			if err := n.Store.Release(ctx, record); err != nil && ctx.Err() == nil {
				n.Log.WithError(err).WithField("lease", record.Key).Warn("the lease that gave way stays until it expires")
			}
		})
	case !n.own.final:
		n.own.final = true
		n.forget("lease")
		n.Log.WithFields(logrus.Fields{"lease": strings.ReplaceAll(m.Key, "&", " "), "etcd_lease": m.LeaseID, "reservation": m.LeaseID == 0}).
			Info("this node's lease")
		n.tables.Replace(nodeOwner(), n.backend.Device([2]netip.Prefix{}), n.backend.Device(n.own.subnets))
		n.kernel.Distrust()
	}
}
