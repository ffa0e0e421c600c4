package node

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node/paths"
	"github.com/selvage-net/selvage/network/node/rules"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach/echo"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/network/userspace"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

const (
	// waitAfterFailure is how long something that failed outside the tables rests: choosing an uplink, a subscription.
	waitAfterFailure = time.Second
	// startedAfter is how long after the leases were cached for the first time a start is over.
	startedAfter = 3 * time.Second
)

// node joins the parts. Only the loop's goroutine touches it, except for the channels.
type node struct {
	Options
	storeKind subnet.StoreKind
	words     subnet.StoreWords // how texts name the store
	tables    *network.Tables
	kernel    *kernel.Kernel
	rec       *network.Reconciler
	view      *subnet.View

	events        chan subnet.Event // from the store's watch
	notified      chan struct{}     // size one: the kernel has notified of something
	kernelChanged chan struct{}     // size one: a part of the daemon has changed something
	filesChanged  chan struct{}     // size one: another process may have changed what we have written
	podsChanged   chan struct{}     // size one: the CNI plugin may have changed the records of attachments
	questions     chan func()       // see ask
	background    sync.WaitGroup
	unwatched     atomic.Pointer[problem] // why the kernel's notifications are not received; nil: they are

	journal   *journal
	cache     *leaseCache
	holder    *leaseHolder
	announcer *announcer
	peerSet   *peerSet
	rules     *rules.Keeper
	paths     *paths.Keeper
	vteps     vtepKeeper
	uplinks   uplinkFollower
	publisher publisher
	ownSide   ownSide
	enforced  policies
	fast      fastPath
	userspace *userspace.Keeper     // of WireGuard devices; nil: the kernel's alone are used
	overlaps  map[overlap]time.Time // see followOverlaps

	state      *stateDir
	subnetLock *heldFile
	presence   presence
	scope      network.Scope // of the network, once there is a backend
	formerTags []string      // of scopes of earlier runs, whose packet filter rules are to be removed
	settled    bool          // nothing of earlier runs is left
	// cachedNetworks are the overlay's networks by the cached leases of an earlier run.
	cachedNetworks []netip.Prefix

	config      *subnet.Config // in force; nil until there is a usable one
	configJSON  []byte         // the same as the store has it
	identity    *identity
	introduced  bool            // the store has reported what it has of this node, see [subnet.Event.Own]
	backend     backend.Backend // nil until config and uplink are known
	moving      moving
	trials      trials
	rotating    rotating
	secrets     map[string][]byte // see remembering
	keysDue     bool              // the files of the secrets have to be looked at
	keysWritten published         // how the repair of these files goes
	noted       []notedBackend    // what noteBackends has written last
	judging     subnet.Rules      // of the view, once there is a backend
	uplink      uplink.Choice
	advised     subnet.NodeAdvice // what the uplink was last chosen by
	device      network.State     // what the node wants for itself in the tables
	subnets     [2]netip.Prefix   // of the node's lease as it was last final, by subnet.Family

	setupAt    time.Time // when to try setUp again
	resyncAt   time.Time
	peersAt    time.Time    // when to read WireGuard devices again
	doubtsAt   time.Time    // when to ask peers again that may have moved
	asker      *echo.Sender // asks them; nil: not open
	renewals   renewals
	directAt   time.Time       // when direct routes are added after a change of the config; zero: they are not deferred
	programmed bool            // a pass has been made with all leases and our own known
	previous   [2]netip.Prefix // of an earlier run, as its subnet file says
	macs       backoff.Backoff // between choices of MAC addresses
	renewed    int64           // the revision of our lease whose MAC addresses newMACs replaced
	history    history

	pathFollower pathFollower
}

// Run runs a node's daemon until ctx ends, and returns nil then; everything in the kernel stays as it is, and so does
// the lease. It returns an error only for what waiting cannot cure.
func Run(ctx context.Context, o Options) error {
	n, err := newNode(o)
	if err != nil {
		return err
	}
	return n.run(ctx)
}

// run starts what runs beside the loop, and the loop; it waits for all of them.
func (n *node) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		n.background.Wait()
		_ = n.vteps.close() // a socket
		n.closeFastPath()   // what is pinned works on
		n.trials.close()
		if n.asker != nil {
			n.asker.Close()
		}
		n.close()
	}()
	n.background.Go(func() { n.watchKernel(ctx, n.subscribe) })
	n.background.Go(func() { n.watchStore(ctx) })
	n.background.Go(func() { n.rules.Run(ctx) })
	n.background.Go(func() { n.paths.Run(ctx) })
	n.runPolicies(ctx)
	n.runFastPath(ctx)
	keys, namedKeys := n.keyPaths()
	n.background.Go(func() {
		watchFiles(ctx, n.Log, n.Resync, func() { notify(n.filesChanged) },
			append(keys, n.SubnetFile, subnetfile.StatusPath(n.SubnetFile), n.cache.path)...)
	})
	if len(namedKeys) > 0 { // separately, since their directories may not exist, or not be readable
		n.background.Go(func() {
			watchFiles(ctx, n.Log, n.Resync, func() { notify(n.filesChanged) }, namedKeys...)
		})
	}
	n.background.Go(func() {
		watchFiles(ctx, n.Log, n.Resync, func() { notify(n.podsChanged) }, n.ownSide.reader.Dir+"/")
	})
	if n.API != nil {
		n.background.Go(func() { n.API.Serve(ctx, n) })
	}
	if n.Mesh != nil {
		n.background.Go(func() { n.Mesh.Serve(ctx, n) })
	}
	return n.loop(ctx)
}

// close releases what newNode took.
func (n *node) close() {
	n.presence.close()
	n.subnetLock.close()
	n.state.close()
	n.kernel.Close()
}

// newNode returns a node with its parts. It has read what an earlier run left.
func newNode(o Options) (*node, error) {
	state, err := openStateDir(o.StateDir, o.StorePrefix)
	if err != nil {
		return nil, err
	}
	o.StateDir = state.path
	lock, err := holdSubnetFile(o.SubnetFile, state.binding.Prefix)
	if err != nil {
		state.close()
		return nil, err
	}
	tables := network.NewTables()
	k, err := kernel.Open(tables)
	if err != nil {
		lock.close()
		state.close()
		return nil, err
	}
	n := &node{
		Options:       o,
		storeKind:     subnet.KindOf(o.Store),
		state:         state,
		subnetLock:    lock,
		tables:        tables,
		kernel:        k,
		rec:           &network.Reconciler{Tables: tables, KeepUnwanted: true, Drain: k.Drain},
		view:          subnet.NewView(),
		events:        make(chan subnet.Event, 2),
		notified:      make(chan struct{}, 1),
		kernelChanged: make(chan struct{}, 1),
		filesChanged:  make(chan struct{}, 1),
		podsChanged:   make(chan struct{}, 1),
		questions:     make(chan func()),
		journal:       newJournal(o.Log),
		history:       history{started: time.Now()},
		secrets:       map[string][]byte{},
	}
	n.words = n.storeKind.Words()
	start, wake := n.background.Go, func() { notify(n.kernelChanged) }
	n.cache = newLeaseCache(o.StateDir, o.CachedStart, o.LeaseTTL, time.Now(), n.journal, start)
	n.holder = newLeaseHolder(o.Store, n.view, o.Log, start)
	n.previous = previousSubnets(o.SubnetFile, o.Log)
	n.holder.previous, n.holder.wasOurs = n.previous, n.wasOurs
	n.announcer = newAnnouncer(o.Store, start)
	n.peerSet = newPeerSet(n.view, tables)
	n.rules = rules.New(filter.NewKeeper(), o.Log, o.RulesResync, wake)
	n.paths = paths.New(o.PeerProbeInterval, o.Log, wake)
	n.trials.wake = wake
	if o.UserSpaceWireGuard {
		n.userspace = userspace.NewKeeper(wake)
		k.ServeWireGuard(n.userspace)
	}
	n.vteps = vtepKeeper{log: o.Log, open: n.openVTEPFilter, attach: n.attachVTEPFilter,
		retire: n.retireVTEPs, start: start, wake: wake}
	n.uplinks = uplinkFollower{journal: n.journal}
	n.publisher = publisher{path: o.SubnetFile, journal: n.journal, onReady: o.Ready}
	n.ownSide = newOwnSide(o.SubnetFile)
	n.enforced.problems = policyProblems{}
	n.fast.pins, n.fast.results = FastPathPins(o.BPFFS, o.StorePrefix), make(chan fastOpened, 1)
	if o.usesFastPath() {
		k.FollowPorts()
		n.rules.Changed = n.fast.flush
	}
	if o.Policies != nil {
		o.Policies.decided = n.fast.flush
	}
	n.logState()
	n.cache.elsewhere = state.elsewhere(o.StoreEndpoints)
	n.cache.load()
	n.cachedNetworks = n.cache.networks()
	if was := state.otherKind(n.storeKind); was != "" && n.cache.read != nil {
		n.cache.ignore("they are from " + was.Words().Name)
	}
	return n, nil
}

// notify wakes whoever waits on a channel of size one. If it is full, it will be read anyway.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// subscribeBackoff spaces subscriptions to the kernel's notifications.
var subscribeBackoff = backoff.Policy{Min: waitAfterFailure, Max: time.Minute, Settle: 8}

// watchKernel keeps a subscription to the kernel's notifications. watch calls begun once it has one, and returns when
// it ends.
func (n *node) watchKernel(ctx context.Context, watch func(ctx context.Context, begun func()) error) {
	var again backoff.Backoff
	var logged seldom
	for ctx.Err() == nil {
		err := watch(ctx, func() { n.unwatched.Store(nil) })
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		failed := &problem{err: err, since: now}
		if before := n.unwatched.Load(); before != nil {
			failed.since = before.since
		}
		n.unwatched.Store(failed)
		if logged.due(now) {
			n.Log.WithError(err).Error("kernel notifications ended; subscribing again")
		}
		sleep(ctx, again.Next(subscribeBackoff, now))
	}
}

// subscribe receives the kernel's notifications until the subscription ends. Each one begins with a full resync, so
// that nothing is missed between two of them.
func (n *node) subscribe(ctx context.Context, begun func()) error {
	wake := func() { notify(n.notified) }
	return n.kernel.Watch(ctx, func() { begun(); n.kernel.RequestResync(); wake() }, wake)
}

// watchProblems returns the problem that the kernel's notifications are not received: external changes are noticed by
// a full resync only.
func (n *node) watchProblems(now time.Time) []status.Problem {
	p := n.unwatched.Load()
	if p == nil || now.Sub(p.since) <= pendingFor {
		return nil
	}
	return []status.Problem{{
		Topic: topicKernel, Code: status.KernelUnread, Since: p.since, Text: status.Text(fmt.Sprintf(
			"no notifications from the kernel, so external changes are repaired every --resync only: %v", p.err)),
	}}
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

// attachVTEPFilter has the reconciler put peers into a filter; nil: into none.
func (n *node) attachVTEPFilter(f vtepFilter) error {
	real, _ := f.(*vtepfilter.Filter)
	n.kernel.Filter(real)
	return n.kernel.ReadVTEPs()
}

func (n *node) openVTEPFilter() (vtepFilter, error) {
	f, err := vtepfilter.Open(n.scope.Name(vtepfilter.Table))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// rest reports that a start is over.
func (n *node) rest(ctx context.Context) {
	if sleep(ctx, startedAfter); ctx.Err() == nil && n.AtRest != nil {
		n.AtRest()
	}
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
