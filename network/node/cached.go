package node

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/cache"
)

// A node that starts while the lease store is down comes up from what it last knew of it: it programs its peers, and if
// its own lease cannot have run out meanwhile it takes that for its own, writes the subnet file and is ready. Nothing is
// removed from the kernel before the store has been heard, and nothing is claimed.

const (
	// cacheFile is the file in the state directory that keeps the leases.
	cacheFile = "leases"
	// cachedStartAfter is how long the store is waited for before the leases that were kept are used.
	cachedStartAfter = 3 * time.Second
	// cacheEvery is how often leases that change are kept at the most, and cacheAfter how long after a change: others follow.
	cacheEvery = 10 * time.Second
	cacheAfter = time.Second
	// expiryPoll is how often it is looked whether the store knows the end of the own lease: it does after the first renewal,
	// at once as a rule.
	expiryPoll = 100 * time.Millisecond
)

// leaseCache is what the loop knows of the file.
type leaseCache struct {
	path    string
	startAt time.Time // when to start from it; zero: not any more
	inUse   bool      // what the view shows is from it: the store has not been heard yet
	stale   bool      // it does not say what the view does
	writeAt time.Time // not to be written before
	writes  int       // how many times it was written in this run
	pollAt  time.Time // when to look again for the end of the own lease
	written chan error
	writing bool
	expires time.Time      // of the own lease, as last kept
	own     *subnet.Member // the own lease, if it can be used

	kept      *cache.Snapshot // what an earlier run knew, as long as that matters
	cluster   uint64          // the store that was heard
	regressed bool            // it has lost its memory since the leases were kept
}

// readKept reads the file at the start. One that is damaged is set aside.
func (n *node) readKept() {
	kept, err := cache.Read(n.cache.path)
	switch {
	case err == nil:
		n.cache.kept = &kept
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, cache.ErrDamaged):
		aside, moveErr := cache.SetAside(n.cache.path)
		n.Log.WithError(errors.Join(err, moveErr)).WithField("moved_to", aside).Error("the leases kept from an earlier run are of no use")
	default:
		n.Log.WithError(err).Error("the leases kept from an earlier run are of no use")
	}
}

// startFromCache feeds the view from what was kept, once, when the store keeps silent.
func (n *node) startFromCache(now time.Time) {
	if n.cache.startAt.IsZero() || n.view.Synced() || now.Before(n.cache.startAt) {
		return
	}
	n.cache.startAt = time.Time{}
	kept := n.cache.kept
	if kept == nil || kept.Config == nil {
		return
	}
	n.cache.inUse = true
	n.Log.WithFields(logrus.Fields{"kept": kept.Written.Format(time.RFC3339), "leases": len(kept.Records)}).
		Warn("the lease store cannot be reached; this node comes up from the leases it kept, and compares when the store is back")
	n.takeIn(subnet.Event{Type: subnet.Page, Revision: kept.Revision, Put: kept.Records})
	n.takeIn(subnet.Event{Type: subnet.Synced, Revision: kept.Revision, ConfigSet: true, Config: kept.Config})
	m, ok, _ := n.view.Get(kept.OwnKey)
	if !ok {
		return
	}
	if m.LeaseID != 0 && !now.Before(kept.OwnExpires) {
		n.Log.WithFields(logrus.Fields{"lease": m.Key, "expired": kept.OwnExpires.Format(time.RFC3339)}).
			Error("this node's own lease may have run out while it was down, so that another can have its subnet: no subnet file until the lease store is back")
		return
	}
	n.cache.own = &m
}

// graceKept puts peers that were kept, and that the store does not have, into grace: a daemon that was restarted just after
// the store was wiped, or while a peer's lease was missing for a moment, is not to take out what one that ran on keeps.
func (n *node) graceKept(rules subnet.Rules, now time.Time) {
	kept := n.cache.kept
	if kept == nil || n.cache.inUse {
		return
	}
	n.cache.kept = nil
	until := now.Add(n.PeerGrace)
	if n.cache.regressed {
		until = later(until, kept.Written.Add(n.LeaseTTL))
	}
	if !now.Before(until) {
		return
	}
	missing := func(r subnet.Record) bool { _, there, _ := n.view.Get(r.Key); return !there }
	if !slices.ContainsFunc(kept.Records, missing) {
		return // as a rule
	}
	before := subnet.NewView()
	before.SetRules(rules)
	before.Apply(subnet.Event{Type: subnet.Page, Revision: kept.Revision, Put: kept.Records})
	before.Apply(subnet.Event{Type: subnet.Synced, Revision: kept.Revision})
	for m := range before.Peers {
		if _, there, _ := n.view.Get(m.Key); there || n.isOurs(m.Lease) {
			continue
		}
		n.grace[m.Key] = graced{lease: m.Lease, until: until}
		n.tables.Replace(network.Owner{Name: m.Key, Grace: true, Age: m.Created}, network.State{}, wanted(n.backend, &m.Lease))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// assumeOwn takes the own lease that was kept for ours, if this is still the node that it was given to.
func (n *node) assumeOwn() {
	if m := n.cache.own; m != nil && n.cache.inUse && m.InstanceID == n.identity.InstanceID {
		n.own.assume(*m)
		n.subnets = n.own.subnets
	}
	n.cache.own = nil
}

// heardStore ends what the cache was for. It reports whether the store has lost its memory since the leases were kept.
func (n *node) heardStore(e subnet.Event) (regressed bool) {
	n.cache.startAt, n.cache.cluster = time.Time{}, e.Cluster
	if kept := n.cache.kept; kept != nil {
		n.cache.regressed = e.Revision < kept.Revision || kept.Cluster != 0 && e.Cluster != kept.Cluster
		regressed = n.cache.regressed
	}
	if n.cache.inUse {
		n.cache.inUse, n.cache.kept = false, nil // the view knows them, and tells which are gone
		n.own.doubt()
		n.Log.Info("the lease store is back; its leases take the place of those that were kept")
	}
	return regressed
}

// leasesChanged notes that the file does not say any more what the view does.
func (c *leaseCache) leasesChanged(now time.Time) {
	if after := now.Add(cacheAfter); !c.stale && c.writeAt.Before(after) {
		c.writeAt = after
	}
	c.stale = true
}

// keepLeases writes the file, in the background, if it does not say any more what the view does.
func (n *node) keepLeases(ctx context.Context, now time.Time) {
	select {
	case err := <-n.cache.written:
		n.cache.writing = false
		if err != nil {
			n.sayOnce("leases kept", err)
			n.cache.leasesChanged(now)
		} else {
			n.forget("leases kept")
		}
	default:
	}
	// The first time it is at once: a node that is switched off right after its start has to come up again, too.
	if !n.view.Synced() || n.cache.inUse || !n.own.final || n.cache.writing || n.cache.writes > 0 && now.Before(n.cache.writeAt) {
		return
	}
	expires := n.ownExpires()
	if expires.IsZero() && n.own.record.LeaseID != 0 && now.Before(n.cache.writeAt.Add(cacheEvery)) {
		n.cache.stale = true // without the time of its end the own lease would be of no use at the next start
		n.cache.pollAt = now.Add(expiryPoll)
		return
	}
	// A renewal alone is worth a write when a good part of the lease's time has passed.
	if !n.cache.stale && expires.Sub(n.cache.expires) < n.LeaseTTL/8 {
		return
	}
	kept := cache.Snapshot{Written: now, Cluster: n.cache.cluster, Revision: n.view.Revision(), Config: n.configJSON, OwnKey: n.own.record.Key, OwnExpires: expires}
	valid, _ := n.view.Len()
	leases := slices.AppendSeq(make([]subnet.Shared, 0, valid+1), n.view.SharedPeers)
	if m, ok, _ := n.view.Get(n.own.record.Key); ok {
		leases = append(leases, subnet.Shared{Lease: &m.Lease, Key: m.Key, Created: m.Created, Modified: m.Modified, LeaseID: m.LeaseID})
	}
	kept.More = func(yield func(subnet.Record) bool) {
		var value []byte // of one after the other
		for _, l := range leases {
			r, err := l.Record(value[:0])
			if err == nil && !yield(r) { // it was read from one
				return
			}
			value = r.Value
		}
	}
	n.cache.stale, n.cache.expires, n.cache.writeAt, n.cache.writing = false, expires, now.Add(cacheEvery), true
	n.cache.writes++
	n.background.Go(func() { n.cache.written <- cache.Write(n.cache.path, kept) }) // there is room; to encode thousands takes its time
	if n.cache.writes == 1 {
		n.background.Go(func() { freeMemory(ctx) })
	}
}

// startedAfter is how long after the leases were kept for the first time a start is over.
const startedAfter = 3 * time.Second

// freeMemory gives back what a start took and a node at rest does not need. The Go runtime would, over some minutes.
func freeMemory(ctx context.Context) {
	if sleep(ctx, startedAfter); ctx.Err() == nil {
		debug.FreeOSMemory()
	}
}

// ownExpires is until when our own lease runs without another renewal, as far as the store says; zero for a reservation.
func (n *node) ownExpires() time.Time {
	if s, ok := n.Store.(interface{ Expires(subnet.Record) time.Time }); ok {
		return s.Expires(n.own.record)
	}
	return time.Time{}
}

func newLeaseCache(stateDir string, enabled bool, now time.Time) leaseCache {
	c := leaseCache{path: filepath.Join(stateDir, cacheFile), written: make(chan error, 1)}
	if enabled {
		c.startAt = now.Add(cachedStartAfter)
	}
	return c
}
