package node

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/node/status"
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
	// ByInstance returns the oldest lease of an instance id, or nil.
	ByInstance(id string) *subnet.Lease
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
// A record with this node's public IP and another instance id is taken over only if its holder is gone, see rivals:
// then "claiming" begins with a question to the holder. After a lease was lost, the next claim waits: longer each time
// that it is lost soon again.
//
// A store that allocates (see [subnet.Allocator]) chooses the subnets instead. Then a claim waits until the store has
// given them, and a lease that an older one overlaps stays held and is not final: another claim would get the same
// subnets.
type leaseHolder struct {
	store       subnet.Store
	view        leaseView
	words       subnet.StoreWords
	log         logrus.FieldLogger
	start       func(func())     // runs a function in the background
	claims      chan claimResult // how a claim ended: for claimEnded
	lossResults chan holdResult  // a held lease ended: for holdEnded

	instanceID string
	publicIPs  [2]netip.Addr
	advertise  func(subnets [2]netip.Prefix) subnet.Lease // what the node advertises with those subnets
	// wasOurs reports whether something on this machine shows that a lease without an instance id, a flannel's, is that
	// of this machine. nil: they all are.
	wasOurs func(subnet.Lease) bool

	// introduced: the store has reported what it has of this node, see [subnet.Event.Own]. A store that allocates needs
	// no more for a claim.
	introduced bool

	phase    leasePhase
	final    bool
	record   subnet.Record
	subnets  [2]netip.Prefix // by Family; those of the last lease, even if it is not held any more
	previous [2]netip.Prefix // what to ask for if there is no record of ours
	avoid    []netip.Prefix  // found taken in this round of claims
	races    int             // that were lost for free subnets since the last success
	backoff  backoff.Backoff // between claims that fail
	losses   backoff.Backoff // between the loss of a lease and the next claim
	logged   backoff.Limiter // leases acquired and lost
	rivals   rivals
	seen     int64              // the revision that the view has to show before the next claim
	question string             // what is asked of the holder of another lease, for the status; empty: nothing
	lost     lostLease          // what the next claim has to judge first
	until    time.Time          // when the held lease ends without a renewal, as last known; zero: unknown, or never
	wroteAt  time.Time          // when a held record was last written with another content; zero: not in this run
	alone    bool               // no older record with this node's instance id is there, or its holder is gone
	release  context.CancelFunc // ends Hold
	updates  chan subnet.Lease  // to Hold, size one: the latest
	round    int                // counts holds, to recognise the late end of an earlier one
	lastErr  string             // as logged
	reason   status.Reason      // of lastErr
	found    int64              // what the store had of this node before the latest claim, see allocation
	rejected error              // why other nodes reject the held lease; nil: they accept it
	badSince time.Time          // since when that is so, or the lease is lost; zero: it is good, or there was none yet
	// conflict is the revision in which our lease names something that an older lease has, such as a MAC address; 0:
	// none.
	conflict int64
	// cloned says that another live daemon has this node's instance id. No lease is claimed before the id was replaced.
	cloned bool
}

// lostLease is a lease that was held.
type lostLease struct {
	name      string    // of its record; empty: there is nothing to judge
	rewritten bool      // another process has written the record, after this node had written it
	recent    bool      // and it has within [recently]
	until     time.Time // it would have run until then; zero: unknown, or for ever
}

type leasePhase int

const (
	idle leasePhase = iota
	claiming
	holding
)

// claimResult is how a claim ended, or the question that comes before one.
type claimResult struct {
	asked  subnet.Allocation // with Ask: what follows is the answer
	beside bool              // with Ask: the question was asked while the node holds a lease
	record subnet.Record
	alive  bool
	err    error
}

// holdResult is how a Hold ended by itself.
type holdResult struct {
	round int
	err   error
}

// claimBackoff spaces claims that fail.
var claimBackoff = backoff.Policy{Min: 100 * time.Millisecond, Max: 10 * time.Second, Jitter: 0.2}

// allocatedWait is the wait after a claim that found no subnet once the store may have one: the least, since another
// process can change what the store has of this node as often as it likes.
const allocatedWait = time.Second

// lossBackoff spaces claims after a lease was lost. A lease that lasts for 64 waits begins a new series.
var lossBackoff = backoff.Policy{Min: 100 * time.Millisecond, Max: time.Minute, Jitter: 0.2, Settle: 64}

const (
	// manyRaces is after how many lost races for free subnets the next claim waits, and how many are avoided then.
	manyRaces = 16
	// leaseLines is how many lines about leases that were acquired and lost are logged within leaseLogged.
	leaseLines  = 10
	leaseLogged = 10 * time.Minute
)

func newLeaseHolder(store subnet.Store, view leaseView, log logrus.FieldLogger, start func(func())) *leaseHolder {
	return &leaseHolder{
		store: store, view: view, words: subnet.KindOf(store).Words(), log: log, start: start,
		claims: make(chan claimResult), lossResults: make(chan holdResult), rivals: rivals{},
	}
}

// step follows what the view shows. It reports whether the lease has become final in this step.
func (h *leaseHolder) step(ctx context.Context, wake *alarm) (gained bool) {
	if h.phase == holding {
		if until := h.expires(); !until.IsZero() {
			h.until = until
		}
		gained = h.check(wake.now)
	}
	if h.phase == holding && h.final && !h.alone && h.question == "" && h.backoff.Due(wake.now) {
		h.lookForClone(ctx)
	}
	if h.reason == status.NotAllocated && h.allocation() != h.found {
		h.backoff.Limit(allocatedWait)
	}
	due := h.backoff.Due(wake.now) && h.losses.Due(wake.now)
	known := h.view.Synced() && h.view.Revision() >= h.seen || h.introduced && h.storeAllocates()
	if h.phase == idle && due && !h.cloned && known {
		h.claim(ctx, wake.now)
	}
	wake.set(h.backoff.At())
	wake.set(h.losses.At())
	return gained
}

// storeAllocates reports whether the store chooses the node's subnets.
func (h *leaseHolder) storeAllocates() bool {
	a, ok := h.store.(subnet.Allocator)
	return ok && a.Allocates()
}

// allocation returns [subnet.Allocator.Allocation]; 0 if the store does not allocate.
func (h *leaseHolder) allocation() int64 {
	if a, ok := h.store.(subnet.Allocator); ok {
		return a.Allocation()
	}
	return 0
}

// claim chooses subnets, unless the store does, and claims them in the background.
func (h *leaseHolder) claim(ctx context.Context, now time.Time) {
	var a subnet.Allocation
	if !h.storeAllocates() {
		if clone := h.judgeLoss(now); clone != nil {
			h.ask(ctx, *clone, false)
			return
		}
		var err error
		a, err = h.view.Allocate(h.request())
		if err != nil {
			h.avoid = nil // what was taken may be free again
			h.failed(err, now)
			return
		}
		if a.Ask != nil {
			h.ask(ctx, *a.Ask, false)
			return
		}
	}
	want := h.advertise(a.Subnets)
	h.phase, h.found = claiming, h.allocation()
	h.start(func() {
		record, err := h.store.Claim(ctx, a.Have, want)
		select {
		case h.claims <- claimResult{asked: a, record: record, err: err}:
		case <-ctx.Done():
		}
	})
}

// failed starts a pause before the next attempt, and logs the error if it is a new one.
func (h *leaseHolder) failed(err error, now time.Time) {
	if err.Error() != h.lastErr {
		h.lastErr, h.reason = err.Error(), status.NoLease
		line := func() { h.log.WithError(err).Error("cannot get a lease; retrying") }
		if errors.Is(err, subnet.ErrNotAllocated) {
			h.reason = status.NotAllocated
			line = func() { h.log.WithError(err).Warn("waiting for " + h.words.Name + " to give this node a subnet") }
		}
		h.say(now, line)
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
func (h *leaseHolder) reclaim() { h.final = false }

// claimEnded takes in how a claim ended. After a lost race the next choice follows at once, without a log line.
func (h *leaseHolder) claimEnded(ctx context.Context, c claimResult) {
	switch {
	case c.asked.Ask != nil:
		h.answered(c)
	case c.err == nil:
		h.backoff.Reset()
		h.avoid, h.races = nil, 0
		h.wrote(c)
		h.hold(ctx, c)
	case errors.Is(c.err, subnet.ErrTaken) && !h.storeAllocates():
		h.phase = idle
		if c.asked.Have == nil {
			for _, p := range c.asked.Subnets {
				if p.IsValid() {
					h.avoid = append(h.avoid, p)
				}
			}
			if h.races++; h.races > manyRaces { // a store that refuses whatever is claimed
				h.backoff.Next(claimBackoff, time.Now())
				h.avoid = h.avoid[max(0, len(h.avoid)-manyRaces):]
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
	// A cached lease that is in use stays final until the store shows all leases.
	h.final = h.final && subnetsOf(c.record.Lease) == h.subnets
	h.phase, h.alone, h.until = holding, h.storeAllocates(), time.Time{}
	h.lost = lostLease{}
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
		case h.lossResults <- holdResult{round, err}:
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
	h.wroteAt = time.Now()
}
