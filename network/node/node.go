package node

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// waitAfterFailure is how long something that failed outside the tables rests: choosing an uplink, a subscription.
const waitAfterFailure = time.Second

// node is the loop's state. Only the loop's goroutine touches it, but for the channels.
type node struct {
	Options
	tables *network.Tables
	kernel *kernel.Kernel
	rec    *network.Reconciler
	view   *subnet.View

	events     chan subnet.Event // from the store's watch
	kernelNews chan struct{}     // size one: there is something to observe
	fileNews   chan struct{}     // size one: somebody may have touched what we have written
	rulesSet   chan struct{}     // the filter's rules are in place for the first time
	questions  chan func()       // of others: see ask
	background sync.WaitGroup

	cache      leaseCache
	config     *subnet.Config // in force; nil until there is a usable one
	configJSON []byte         // the same as it was written
	identity   *identity
	backend    backend.Backend // nil until config and uplink are known
	uplink     uplink.Choice
	device     network.State   // what the node wants for itself in the tables
	subnets    [2]netip.Prefix // what it was last sure to hold, by subnet.Family
	own        ownLease
	grace      map[string]graced
	rules      *rulesKeeper
	vteps      vteps

	setupAt      time.Time // when to try again what failed outside the tables
	resyncAt     time.Time
	retryAt      time.Time // of the reconciler
	programmed   bool      // a pass has been made with all leases and our own known
	rulesInForce bool
	uplinkAt     time.Time // when a change of the uplink is to be followed
	uplinkLostAt time.Time // when it is said that there is none
	directAt     time.Time // when direct routes are to come, after a change of the config; zero: they are not put off
	published    string    // content of the subnet file as last written
	ready        bool
	quarantine   quarantine
	shared       map[string]bool // leases with one public IP, as logged
	sharedSince  time.Time       // beginning of the time in which
	sharedNamed  int             // so many were named
	churn        churn
	ahead        ahead
	renewed      int64 // the revision of our lease in which newMACs found a duplicate
	told         told
	said
}

// Run runs a node's daemon until ctx ends, and returns nil then; all that is in the kernel stays as it is, and so does
// the lease. It returns an error only for what waiting cannot cure.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	tables := network.NewTables()
	k, err := kernel.Open(tables)
	if err != nil {
		cancel()
		return err
	}
	n := &node{
		Options:    o,
		tables:     tables,
		kernel:     k,
		rec:        &network.Reconciler{Tables: tables, KeepUnwanted: true, Drain: k.Drain},
		view:       subnet.NewView(),
		events:     make(chan subnet.Event, 2),
		kernelNews: make(chan struct{}, 1),
		fileNews:   make(chan struct{}, 1),
		rulesSet:   make(chan struct{}, 1),
		questions:  make(chan func()),
		grace:      map[string]graced{},

		quarantine: quarantine{reasons: map[string]string{}}, shared: map[string]bool{},
		said: said{log: o.Log, once: map[string]trouble{}, repairedBy: map[string]bool{}, fights: map[string]fight{}, failing: map[string]*failing{}},
		told: told{started: time.Now()},
	}
	n.cache = newLeaseCache(o.StateDir, o.CachedStart, time.Now())
	n.own = ownLease{
		store: o.Store, view: n.view, log: o.Log, background: &n.background,
		claims: make(chan claimed), lost: make(chan heldLost), previous: n.previousSubnets(),
	}
	n.readKept()
	defer func() {
		cancel()
		n.background.Wait()
		_ = n.closeVTEPs() // a socket
		k.Close()
	}()
	n.background.Go(func() { n.watchKernel(ctx) })
	n.background.Go(func() { n.watchStore(ctx) })
	n.background.Go(func() { n.watchFiles(ctx) })
	if n.API != nil {
		n.background.Go(func() { n.API.Serve(ctx, n) })
	}
	return n.loop(ctx)
}

// watchKernel keeps a subscription to the kernel's notifications. Each new one begins with a full read, so that nothing
// is missed between two of them.
func (n *node) watchKernel(ctx context.Context) {
	for ctx.Err() == nil {
		err := n.kernel.Watch(ctx, func() { n.kernel.Distrust(); n.wakeForKernel() }, n.wakeForKernel)
		if err != nil {
			n.Log.WithError(err).Error("the kernel's notifications ended; subscribing again")
			sleep(ctx, waitAfterFailure)
		}
	}
}

func (n *node) wakeForKernel() {
	select {
	case n.kernelNews <- struct{}{}:
	default: // the loop will look anyway
	}
}

func (n *node) watchStore(ctx context.Context) {
	err := n.Store.Watch(ctx, func(e subnet.Event) error {
		select {
		case n.events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil && ctx.Err() == nil {
		n.Log.WithError(err).Error("the watch on the lease store ended")
	}
}

// loop takes in what is new, does all that follows from it, and waits for more.
func (n *node) loop(ctx context.Context) error {
	n.resyncAt = time.Now().Add(jitter(n.Resync))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-n.events:
			n.storeNews(e)
		case <-n.kernelNews:
		case <-n.fileNews:
			n.lookAtFiles(time.Now())
		case c := <-n.own.claims:
			n.own.claimEnded(ctx, c)
		case l := <-n.own.lost:
			n.own.holdEnded(l)
		case <-n.rulesSet:
			n.rulesInForce = true
		case f := <-n.questions:
			f()
			continue // the timer goes on
		case <-timer.C:
		}
		n.drain()
		now := time.Now()
		n.step(ctx, now)
		timer.Reset(max(0, time.Until(n.next(now))))
	}
}

// drain takes in the store's events that wait already, so that a burst makes one pass.
func (n *node) drain() {
	for {
		select {
		case e := <-n.events:
			n.storeNews(e)
		default:
			return
		}
	}
}

// step does everything that follows from what is known now. Each part is idempotent.
func (n *node) step(ctx context.Context, now time.Time) {
	if now.After(n.resyncAt) {
		n.resyncAt = now.Add(jitter(n.Resync))
		n.kernel.Distrust()
		n.lookAtFiles(now)
		n.vteps.news.Store(true)
	}
	observe := n.kernel.Observe
	if n.backend == nil {
		observe = n.kernel.Prepare
	}
	if err := observe(); err != nil {
		n.sayOnce("observe", err)
		n.setupAt = now.Add(waitAfterFailure) // to wake up and try again
		return
	}
	n.forget("observe")
	n.startFromCache(now)
	if !n.setUp(now) {
		return
	}
	n.followUplink(now)
	n.goDirect(now)
	if !n.cache.inUse && n.own.advance(ctx, now) {
		before := n.subnets
		if before == noSubnets {
			before = n.own.previous // of an earlier run
		}
		n.sayMoved(before, n.own.subnets)
		n.subnets = n.own.subnets
		n.wantDevice()
	}
	n.newMACs(now)
	n.endGrace(now)
	n.keepVTEPs(ctx, now)
	n.pass(now)
	n.publish(ctx)
	n.keepUsable(now)
	n.sayAhead(now)
	n.sayChurn(now)
	n.noteState(now)
	n.keepLeases(ctx, now)
}

// next is when the loop has to run again if nothing happens.
func (n *node) next(now time.Time) time.Time {
	at := n.resyncAt
	wakes := []time.Time{n.retryAt, n.setupAt, n.own.retryAt, n.uplinkAt, n.uplinkLostAt, n.directAt, n.cache.startAt, n.vteps.notBefore}
	if n.cache.stale {
		wakes = append(wakes, n.cache.writeAt, n.cache.pollAt)
	}
	if n.churn.any() {
		wakes = append(wakes, n.churn.due())
	}
	if n.repaired > 0 {
		wakes = append(wakes, n.repairsSaid.Add(repairsSaidEvery))
	}
	for _, t := range wakes {
		if t.After(now) && t.Before(at) {
			at = t
		}
	}
	for _, g := range n.grace {
		if g.until.Before(at) {
			at = g.until
		}
	}
	return at
}

// pass makes the kernel what the tables want, and says what came of it.
func (n *node) pass(now time.Time) {
	complete := n.view.Synced() && n.own.final
	n.rec.KeepUnwanted = !complete || n.cache.inUse
	r := n.rec.Pass(now)
	n.retryAt = r.Retry
	first := complete && !n.programmed
	n.programmed = n.programmed || complete
	if first {
		leases, quarantined := n.view.Len()
		n.Log.WithFields(logrus.Fields{
			"leases": leases, "quarantined": quarantined, "set": r.Set, "removed": r.Removed,
			"took": time.Since(now).Round(time.Microsecond).String(),
		}).Info("the kernel holds what the leases ask for")
	}
	n.sayPass(now, r)
	n.notePass(now, r)
}

// jitter returns d, give or take a tenth: nodes that started together shall not do everything together.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
