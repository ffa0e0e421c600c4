package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
)

// leaseView is what a leaseHolder has to know of the cluster's leases; [subnet.View] is the real one.
type leaseView interface {
	// Synced reports whether all leases are known.
	Synced() bool
	// Revision is the store's revision up to which the view has seen everything.
	Revision() int64
	// Get returns the record of a name, and why it is rejected, if it is.
	Get(name string) (r subnet.Record, ok bool, why error)
	// Allocate chooses subnets for this node.
	Allocate(subnet.Request) (subnet.Allocation, error)
}

// leaseHolder gets the node a lease and keeps it. It belongs to one goroutine, which feeds the view and calls step
// whenever something is new. What takes time runs in the background; its results arrive on the channels, and that
// goroutine passes them on.
//
//	idle ── Allocate, Claim ──▶ claiming ──▶ holding ── our watch has passed the claim,   ──▶ final
//	  ▲                            │            │       and no older lease overlaps it          │
//	  └──── taken, or failed ──────┴── beaten ──┴──── deleted, taken or expired ────────────────┘
//
// A store that allocates (see [subnet.Allocator]) chooses the subnets instead. Then a claim waits until the store has
// given them, and a lease that an older one overlaps stays held and is not final: another claim would get the same
// subnets.
type leaseHolder struct {
	store  subnet.Store
	view   leaseView
	log    logrus.FieldLogger
	start  func(func())     // runs a function in the background
	claims chan claimResult // how a claim ended: for claimEnded
	losses chan holdResult  // a held lease ended: for holdEnded

	instanceID string
	publicIPs  [2]netip.Addr
	advertise  func(subnets [2]netip.Prefix) subnet.Lease // what the node advertises with those subnets

	phase    leasePhase
	final    bool
	record   subnet.Record
	subnets  [2]netip.Prefix // by Family; those of the last lease, even if it is not held any more
	previous [2]netip.Prefix // what to ask for if there is no record of ours
	avoid    []netip.Prefix  // found taken in this round of claims
	backoff  backoff.Backoff
	release  context.CancelFunc // ends Hold
	updates  chan subnet.Lease  // to Hold, size one: the latest
	round    int                // counts holds, to recognise the late end of an earlier one
	lastErr  string             // as logged
	// conflict is the revision in which our lease names something that an older lease has, such as a MAC address; 0:
	// none.
	conflict int64
}

type leasePhase int

const (
	idle leasePhase = iota
	claiming
	holding
)

// claimResult is how a claim ended.
type claimResult struct {
	asked  subnet.Allocation
	record subnet.Record
	err    error
}

// holdResult is how a Hold ended by itself.
type holdResult struct {
	round int
	err   error
}

// claimBackoff spaces claims that fail.
var claimBackoff = backoff.Policy{Min: 100 * time.Millisecond, Max: 10 * time.Second, Jitter: 0.2}

func newLeaseHolder(store subnet.Store, view leaseView, log logrus.FieldLogger, start func(func())) *leaseHolder {
	return &leaseHolder{
		store: store, view: view, log: log, start: start,
		claims: make(chan claimResult), losses: make(chan holdResult),
	}
}

// step follows what the view shows. It reports whether the lease has become final in this step.
func (h *leaseHolder) step(ctx context.Context, wake *alarm) (gained bool) {
	if h.phase == holding {
		gained = h.check()
	}
	if h.phase == idle && h.view.Synced() && h.backoff.Due(wake.now) { // at once after a lease was lost
		h.claim(ctx, wake.now)
	}
	wake.set(h.backoff.At())
	return gained
}

// storeAllocates reports whether the store chooses the node's subnets.
func (h *leaseHolder) storeAllocates() bool {
	a, ok := h.store.(subnet.Allocator)
	return ok && a.Allocates()
}

// claim chooses subnets, unless the store does, and claims them in the background.
func (h *leaseHolder) claim(ctx context.Context, now time.Time) {
	var a subnet.Allocation
	if !h.storeAllocates() {
		var err error
		a, err = h.view.Allocate(subnet.Request{
			InstanceID: h.instanceID, PublicIPs: h.publicIPs, Previous: h.previous, Avoid: h.avoid, Rand: rand.Uint64N,
		})
		if err != nil {
			h.avoid = nil // what was taken may be free again
			h.failed(err, now)
			return
		}
	}
	want := h.advertise(a.Subnets)
	h.phase = claiming
	h.start(func() {
		record, err := h.store.Claim(ctx, a.Have, want)
		select {
		case h.claims <- claimResult{a, record, err}:
		case <-ctx.Done():
		}
	})
}

// failed starts a pause before the next attempt, and logs the error if it is a new one.
func (h *leaseHolder) failed(err error, now time.Time) {
	if err.Error() != h.lastErr {
		h.lastErr = err.Error()
		h.log.WithError(err).Error("cannot get a lease; retrying")
	}
	h.backoff.Next(claimBackoff, now)
}

// adopt takes a cached lease for ours and final: it was ours, and cannot have been given to another node since. It is
// not held, which is for when the store can be reached.
func (h *leaseHolder) adopt(m subnet.Record) {
	h.final = true
	h.record = m
	for _, f := range subnet.Families() {
		h.subnets[f] = m.Endpoints[f].Subnet
	}
	h.previous = h.subnets
	h.log.WithField("lease", m.Name).Info("using this node's cached lease")
}

// reclaim ends what adopt began: the lease has to be claimed now.
func (h *leaseHolder) reclaim() {
	if h.phase == idle {
		h.final = false
	}
}

// claimEnded takes in how a claim ended. After a lost race the next choice follows at once, without a log line.
func (h *leaseHolder) claimEnded(ctx context.Context, c claimResult) {
	switch {
	case c.err == nil:
		h.backoff.Reset()
		h.avoid = nil
		h.hold(ctx, c)
	case errors.Is(c.err, subnet.ErrTaken) && !h.storeAllocates():
		h.phase = idle
		if c.asked.Have == nil {
			for _, p := range c.asked.Subnets {
				if p.IsValid() {
					h.avoid = append(h.avoid, p)
				}
			}
			return
		}
		// Our own record has changed since the view showed it; the view is about to show how.
		h.backoff.Next(claimBackoff, time.Now())
	default:
		h.phase = idle
		h.failed(c.err, time.Now())
	}
}

// hold keeps a claimed record alive in the background.
func (h *leaseHolder) hold(ctx context.Context, c claimResult) {
	holdCtx, cancel := context.WithCancel(ctx)
	h.phase, h.final = holding, false
	h.record, h.release = c.record, cancel
	for _, f := range subnet.Families() {
		h.subnets[f] = c.record.Endpoints[f].Subnet
	}
	h.round++
	round := h.round
	updates := make(chan subnet.Lease, 1)
	h.updates = updates
	h.start(func() {
		err := h.store.Hold(holdCtx, c.record, updates)
		if holdCtx.Err() != nil {
			return
		}
		select {
		case h.losses <- holdResult{round, err}:
		case <-ctx.Done():
		}
	})
}

// update writes what the node advertises now into the lease.
func (h *leaseHolder) update() {
	if h.phase != holding {
		return // the claim will
	}
	select {
	case <-h.updates: // an older one that was not written yet
	default:
	}
	h.updates <- h.advertise(h.subnets)
}

func (h *leaseHolder) holdEnded(r holdResult) {
	if r.round == h.round && h.phase == holding {
		h.lose(r.err)
	}
}

// lose goes back to having no lease. The same subnets are asked for again.
func (h *leaseHolder) lose(why error) {
	h.log.WithError(why).WithField("lease", h.record.Name).Warn("lease lost; claiming again")
	h.release()
	h.phase, h.final = idle, false
	h.previous = h.subnets
}

// check looks whether the view still shows the lease as ours.
func (h *leaseHolder) check() (gained bool) {
	if h.view.Revision() < h.record.Version {
		return false // the watch has not reached it yet
	}
	m, ok, why := h.view.Get(h.record.Name)
	h.conflict = 0
	switch {
	case !ok:
		h.lose(errors.New("its key was deleted"))
	case m.InstanceID != h.instanceID:
		h.lose(fmt.Errorf("its key belongs to another node: %s %s", m.NodeName, m.InstanceID))
	case errors.Is(why, subnet.ErrOverlap) && h.storeAllocates():
		h.final = false
		h.invalid(why)
	case errors.Is(why, subnet.ErrOverlap):
		// It was claimed at the same moment as an overlapping one, which the store cannot see, or an older one has
		// become valid since. The older one stays: every node decides so. The next claim takes over the record that
		// gives way.
		h.log.WithField("lease", h.record.Name).WithError(why).Info("yielding to an older lease; claiming another subnet")
		h.release()
		h.phase, h.final = idle, false
	case errors.Is(why, subnet.ErrDuplicate):
		// Of something else than the subnet, such as a MAC address: the node chooses another and updates the lease.
		h.conflict = m.Version
	case h.final:
	case why != nil:
		h.invalid(why)
	default:
		h.final = true
		h.lastErr = ""
		h.log.WithFields(logrus.Fields{
			"lease": strings.ReplaceAll(m.Name, "&", " "), "etcd_lease": m.LeaseID, "reservation": m.LeaseID == 0,
		}).Info("lease acquired")
		return true
	}
	return false
}

// invalid logs why the own lease cannot be used, if that is new.
func (h *leaseHolder) invalid(why error) {
	if why.Error() != h.lastErr {
		h.lastErr = why.Error()
		h.log.WithError(why).WithField("lease", h.record.Name).Error("this node's lease is invalid")
	}
}
