package node

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/cache"
)

const (
	// cacheFile is the file in the state directory that holds the cached leases.
	cacheFile = "leases"
	// cachedStartAfter is how long a start waits for the store before it uses the cached leases.
	cachedStartAfter = 3 * time.Second
	// cacheDelay is how long after a change the leases are written: more changes follow as a rule. cacheInterval is the
	// shortest time between two writes.
	cacheDelay    = time.Second
	cacheInterval = 10 * time.Second
	// expiryPoll is how often the store is asked when our own lease expires, until it knows: it does after the first
	// renewal, as a rule at once.
	expiryPoll = 100 * time.Millisecond
)

// leaseCache keeps the leases in a file, and decides when a start uses them and when the file is written. It belongs to
// the loop's goroutine; a write runs in the background, and its result is for writeEnded.
//
// A node that starts while the lease store is down programs the peers that it knew last. If its own lease cannot have
// expired meanwhile, it uses that too, writes the subnet file and is ready. Until the store is reached, it removes
// nothing from the kernel and claims nothing.
type leaseCache struct {
	path    string
	ttl     time.Duration // of the own lease
	journal *journal
	start   func(func()) // runs a function in the background
	results chan error   // how a write ended: for writeEnded

	startAt time.Time // when to start from the cached leases; zero: not, or not any more
	inUse   bool      // the view shows cached leases: the store has not been reached yet
	stale   bool      // the file does not say what the view does
	writeAt time.Time // not to be written before
	writes  int       // in this run
	writing bool
	expires time.Time      // of the own lease, as last written
	own     *subnet.Record // the own lease, if it can be used

	read      *cache.Snapshot // from an earlier run, as long as it matters
	cluster   uint64          // the store that was reached
	regressed bool            // it has lost data since the leases were written
	elsewhere bool            // the store is configured under other addresses than those of the earlier run
}

// newLeaseCache returns a cache in a directory. With enabled, a start uses the cached leases if the store does
// not answer after now.
func newLeaseCache(
	dir string, enabled bool, ttl time.Duration, now time.Time, j *journal, start func(func()),
) *leaseCache {
	c := &leaseCache{path: filepath.Join(dir, cacheFile), ttl: ttl, journal: j, start: start,
		results: make(chan error, 1)}
	if enabled {
		c.startAt = now.Add(cachedStartAfter)
	}
	return c
}

// load reads the file of an earlier run. A damaged one is renamed.
func (c *leaseCache) load() {
	s, err := cache.Read(c.path)
	switch {
	case err == nil:
		c.read = &s
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, cache.ErrDamaged):
		aside, moveErr := cache.SetAside(c.path)
		c.journal.log.WithError(errors.Join(err, moveErr)).WithField("moved_to", aside).
			Error("ignoring cached leases from an earlier run")
	default:
		c.journal.log.WithError(err).Error("ignoring cached leases from an earlier run")
	}
}

// begin returns the leases to start from, once, when the store has been silent for too long; nil otherwise.
func (c *leaseCache) begin(wake *alarm) *cache.Snapshot {
	wake.set(c.startAt)
	if c.startAt.IsZero() || wake.now.Before(c.startAt) {
		return nil
	}
	c.startAt = time.Time{}
	if c.read == nil || c.read.Config == nil {
		return nil
	}
	if c.elsewhere {
		c.ignore("the configured store has none of the addresses that the leases came from")
		return nil
	}
	c.inUse = true
	c.journal.log.WithFields(logrus.Fields{"written": c.read.Written.Format(time.RFC3339),
		"leases": len(c.read.Records)}).
		Warn("lease store unreachable; starting from cached leases until it is back")
	return c.read
}

// ignore drops the cached leases of an earlier run.
func (c *leaseCache) ignore(why string) {
	c.read = nil
	c.journal.log.WithField("file", c.path).Warn("ignoring cached leases from an earlier run: " + why)
}

// networks returns the overlay's networks at the time of the cached leases.
func (c *leaseCache) networks() []netip.Prefix {
	if c.read == nil || c.read.Config == nil {
		return nil
	}
	config, err := subnet.ParseAllocatedConfig(c.read.Config) // of either kind of store
	if err != nil {
		return nil
	}
	return networks(config)
}

// foundOwn notes the own lease among the cached ones, for takeOwn. One that may have expired is not used.
func (c *leaseCache) foundOwn(m subnet.Record, now time.Time) {
	if m.LeaseID != 0 && !now.Before(c.read.OwnExpires) {
		c.journal.log.WithFields(logrus.Fields{"lease": m.Name, "expired": c.read.OwnExpires.Format(time.RFC3339)}).
			Error("this node's lease may have expired while it was down, and its subnet be another node's: " +
				"no subnet file until the lease store is back")
		return
	}
	c.own = &m
}

// takeOwn returns the cached own lease, once, if it can be used and is still the lease of this instance.
func (c *leaseCache) takeOwn(instanceID string) (m subnet.Record, ok bool) {
	own := c.own
	c.own = nil
	if own == nil || !c.inUse || own.InstanceID != instanceID {
		return subnet.Record{}, false
	}
	return *own, true
}

// storeReached ends the use of the cached leases, after a snapshot of the store. regressed says whether the store has
// lost data since they were written, and wasInUse whether they were in use until now.
func (c *leaseCache) storeReached(e subnet.Event) (regressed, wasInUse bool) {
	c.startAt, c.cluster = time.Time{}, e.Cluster
	if c.read != nil && c.elsewhere && c.read.Cluster != 0 && e.Cluster != c.read.Cluster {
		c.ignore("they are from another store: it has another cluster id, and none of the addresses")
	}
	if c.read != nil {
		c.regressed = e.Revision < c.read.Revision || c.read.Cluster != 0 && e.Cluster != c.read.Cluster
		regressed = c.regressed
	}
	if wasInUse = c.inUse; wasInUse {
		c.inUse, c.read = false, nil // the view knows them, and reports which are gone
		c.journal.log.Info("reconnected to the lease store; its leases replace the cached ones")
	}
	return regressed, wasInUse
}

// takeMissing returns the leases of an earlier run, once, so that peers that the store does not have can be retained,
// and until when: nil if it is too late for that.
func (c *leaseCache) takeMissing(grace time.Duration, now time.Time) (s *cache.Snapshot, until time.Time) {
	if c.inUse {
		return nil, until
	}
	s, c.read = c.read, nil
	if s == nil {
		return nil, until
	}
	until = now.Add(grace)
	if lost := s.Written.Add(c.ttl); c.regressed && lost.After(until) {
		until = lost
	}
	if !now.Before(until) {
		return nil, until
	}
	return s, until
}

// changed notes that the file does not say any more what the view does.
func (c *leaseCache) changed(now time.Time) {
	if after := now.Add(cacheDelay); !c.stale && c.writeAt.Before(after) {
		c.writeAt = after
	}
	c.stale = true
}

// ownLease is what step has to know of the own lease.
type ownLease struct {
	final   bool
	expires bool      // it does, unless it is renewed: it is no reservation
	at      time.Time // when, if the store knows
}

// step writes the file in the background if it is stale and a write is due, and reports whether it does. snapshot
// returns what is to be written; it is called only then.
func (c *leaseCache) step(wake *alarm, own ownLease, snapshot func() cache.Snapshot) (writes bool) {
	if c.inUse || !own.final || c.writing {
		return false
	}
	now := wake.now
	// The first write is at once: a node that is switched off right after its start has to come up again, too.
	if c.writes > 0 && now.Before(c.writeAt) {
		if c.stale {
			wake.set(c.writeAt)
		}
		return false
	}
	if limit := c.writeAt.Add(cacheInterval); own.at.IsZero() && own.expires && now.Before(limit) {
		c.stale = true // without its expiry the own lease would be useless at the next start
		wake.set(now.Add(expiryPoll))
		return false
	}
	// A renewal alone is worth a write when a good part of the lease's time has passed.
	if !c.stale && own.at.Sub(c.expires) < c.ttl/8 {
		return false
	}
	s := snapshot()
	s.Written, s.Cluster, s.OwnExpires = now, c.cluster, own.at
	c.stale, c.expires, c.writeAt, c.writing = false, own.at, now.Add(cacheInterval), true
	c.writes++
	c.start(func() { c.results <- cache.Write(c.path, s) }) // it has room; encoding thousands of leases takes time
	return true
}

// writeEnded takes in how a write ended.
func (c *leaseCache) writeEnded(err error, now time.Time) {
	c.writing = false
	if err != nil {
		c.journal.problem(topicCache, errno.Written(c.path, err))
		c.changed(now)
		return
	}
	c.journal.resolved(topicCache)
}

// checkFile has the file written again if another process removed it.
func (c *leaseCache) checkFile(now time.Time) {
	if _, err := os.Stat(c.path); errors.Is(err, fs.ErrNotExist) && c.writes > 0 && !c.writing {
		c.changed(now)
	}
}
