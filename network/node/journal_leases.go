package node

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// How many rejected leases, and public IPs that several leases share, are named within leasesLogged; of more only the
// number is logged. Whoever can write leases can write any number of bad ones.
const (
	manyLeases   = 10
	leasesLogged = 10 * time.Minute
)

// rejectedLog is what was logged of rejected leases.
type rejectedLog struct {
	hasOwn  bool                 // the node has a lease
	reasons map[string]string    // by key, shortened
	ownIP   map[string]time.Time // those with this node's public IP, and since when
	limit   backoff.Limiter
}

// rejectedLeases names the rejected leases that an event brought, each once a reason. After a snapshot it looks at all.
// Without a lease of its own, the node may be about to take over one that has its public IP, such as that of the
// flannel that ran here: what is rejected for that is named only once the node has one, see [journal.gotLease].
func (j *journal) rejectedLeases(e subnet.Event, v *subnet.View, now time.Time) {
	forget := func(key string) {
		delete(j.rejected.reasons, key)
		delete(j.rejected.ownIP, key)
	}
	for _, key := range e.Deleted {
		forget(subnet.ShortName(key))
	}
	total := func() int { _, n := v.Len(); return n }
	if e.Type == subnet.Changed {
		for _, r := range e.Put {
			_, _, why := v.Get(r.Name)
			j.rejectedLease(r.Name, why, total, now)
		}
		return
	}
	rejected := map[string]bool{}
	for key, why := range v.Quarantined {
		j.rejectedLease(key, why, total, now)
		rejected[subnet.ShortName(key)] = true
	}
	for key := range j.rejected.reasons {
		if !rejected[key] {
			forget(key)
		}
	}
}

// gotLease notes whether the node has a lease of its own. Once it does, it looks at all leases that are rejected.
func (j *journal) gotLease(has bool, v *subnet.View, now time.Time) {
	before := j.rejected.hasOwn
	if j.rejected.hasOwn = has; has && !before {
		j.rejectedLeases(subnet.Event{Type: subnet.Synced}, v, now)
	}
}

// rejectedLease logs why a lease is rejected; nil: it is not. total counts all that are.
func (j *journal) rejectedLease(key string, why error, total func() int, now time.Time) {
	l := &j.rejected
	key = subnet.ShortName(key)
	if errors.Is(why, subnet.ErrOwnPublicIP) && !l.hasOwn {
		return
	}
	if _, known := l.ownIP[key]; !errors.Is(why, subnet.ErrOwnPublicIP) {
		delete(l.ownIP, key)
	} else if !known {
		l.ownIP[key] = now
	}
	if why == nil {
		delete(l.reasons, key)
		return
	}
	if l.reasons[key] == why.Error() {
		return
	}
	l.reasons[key] = why.Error()
	switch l.limit.Allow(manyLeases, leasesLogged, now) {
	case backoff.Pass:
		j.log.WithField("lease", key).WithError(why).Warn("lease rejected")
	case backoff.Last:
		j.log.WithField("quarantined", total()).Warn("many leases rejected; more are not listed for now")
	case backoff.Drop:
	}
}

// sharedLog is what was logged of public IPs that several leases have.
type sharedLog struct {
	named map[string]bool // as logged: the address and the keys
	limit backoff.Limiter
}

// sharedPublicIPs logs which leases have one public IP: this node cannot tell which of them is right, or whether all
// are.
func (j *journal) sharedPublicIPs(all iter.Seq2[netip.Addr, []string], now time.Time) {
	l := &j.shared
	named := map[string]bool{}
	for ip, keys := range all {
		name := fmt.Sprint(ip, keys)
		if named[name] = true; l.named[name] {
			continue
		}
		switch l.limit.Allow(manyLeases, leasesLogged, now) {
		case backoff.Pass:
			first, more := shorten(keys, manyLeases)
			if more > 0 {
				first = append(first, fmt.Sprintf("and %d more", more))
			}
			j.log.WithFields(logrus.Fields{"public_ip": ip, "leases": first}).
				Warn("several leases share one public IP: a cloned machine, or leftovers of a reinstalled node; " +
					"delete those not in use")
		case backoff.Last:
			j.log.Warn("more leases share a public IP; not listed for now")
		case backoff.Drop:
		}
	}
	l.named = named
}

// churn counts the peers that were added, removed and changed since that was last logged.
type churn struct {
	added, removed, changed int
	backoff                 backoff.Backoff
}

// churnBackoff spaces the lines about peers that are added and removed: if 5,000 leases are written one by one, a few
// lines tell as much as 5,000.
var churnBackoff = backoff.Policy{Min: time.Second, Max: time.Minute, Settle: 1}

// any reports whether there is something to log.
func (c *churn) any() bool { return c.added+c.removed+c.changed > 0 }

// count adds what one event brought.
func (c *churn) count(added, removed, changed int) {
	c.added, c.removed, c.changed = c.added+added, c.removed+removed, c.changed+changed
}

// peersChanged logs how many peers changed: the first at once, what follows soon in one line.
func (j *journal) peersChanged(now time.Time) {
	c := &j.churn
	if !c.any() || !c.backoff.Due(now) {
		return
	}
	j.log.WithFields(logrus.Fields{"added": c.added, "removed": c.removed, "changed": c.changed}).Info("peers changed")
	c.added, c.removed, c.changed = 0, 0, 0
	c.backoff.Next(churnBackoff, now)
}

// manyShadows is how many foreign routes that shadow ours are named, in the log within shadowsLogged, and in the
// status.
const (
	manyShadows   = 5
	shadowsLogged = 10 * time.Minute
)

// shadowLog is what was logged of foreign routes that take precedence over ours. They are left alone: a route to a part
// of a subnet, or one with a better metric, may be intended.
type shadowLog struct {
	since  map[network.Shadow]time.Time // those there are, and since when
	logged bool                         // that there are some
	limit  backoff.Limiter
}

// shadowed logs each such route once, and when all are gone. describe puts one into words.
func (j *journal) shadowed(all []network.Shadow, describe func(network.Shadow) string, now time.Time) {
	l := &j.shadows
	if len(all) == 0 {
		if l.logged {
			j.few("foreign routes", now, func() {
				j.log.Info("no foreign route takes precedence over the overlay's routes any more")
			})
		}
		l.since, l.logged = nil, false
		return
	}
	since := make(map[network.Shadow]time.Time, len(all))
	for _, x := range all {
		at, known := l.since[x]
		if known {
			since[x] = at
			continue
		}
		since[x] = now
		switch l.limit.Allow(manyShadows, shadowsLogged, now) {
		case backoff.Pass:
			l.logged = true
			j.log.Warn(describe(x))
		case backoff.Last:
			j.log.Warn("more foreign routes take precedence over the overlay's routes; not listed for now")
		case backoff.Drop:
		}
	}
	l.since = since
}

// describeShadow puts a foreign route that shadows the one to a node into words.
func describeShadow(x network.Shadow, node string) string {
	if node == "" {
		node = "another node"
	}
	return fmt.Sprintf("%s takes precedence over the overlay's route to %s, %s: remove it unless it is intended",
		x, node, x.Of)
}
