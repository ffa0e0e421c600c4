package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// graced is a peer whose lease is gone and whose entries are kept for a while: etcd wiped and written anew, or an
// operator's slip, must not cost a packet. A live claim on its subnet goes first at once.
type graced struct {
	lease subnet.Lease
	until time.Time
}

// storeNews takes in one event of the store.
func (n *node) storeNews(e subnet.Event) {
	if e.Type == subnet.Synced {
		e.Regressed = n.heardStore(e) || e.Regressed
	}
	if e.Type == subnet.Synced || e.ConfigSet || len(e.Put)+len(e.Deleted) > 0 {
		n.cache.leasesChanged(time.Now())
	}
	n.takeIn(e)
}

// takeIn takes in one event, of the store or from what was kept of it.
func (n *node) takeIn(e subnet.Event) {
	changes := n.view.Apply(e)
	if e.ConfigSet {
		n.configNews(e.Config)
	}
	n.peersChanged(changes, n.graceOf(e), time.Now())
	if n.backend != nil && e.Type != subnet.Page {
		n.sayQuarantined(e, time.Now())
		n.sayShared()
	}
}

// graceOf is how long peers that are gone by an event are kept. A peer that is missing in a store that lost its memory has
// not gone: it may only not be back yet, and it has its subnet for as long as its lease would have run.
func (n *node) graceOf(e subnet.Event) time.Duration {
	if e.Regressed {
		return max(n.PeerGrace, n.LeaseTTL)
	}
	return n.PeerGrace
}

// sayShared says which peers have one public IP: this node cannot tell which of them is right, if not both.
func (n *node) sayShared() {
	shared := map[string]bool{}
	for ip, keys := range n.view.SamePublicIP {
		name := fmt.Sprint(ip, keys)
		shared[name] = true
		if !n.shared[name] {
			n.nameShared(ip, keys)
		}
	}
	n.shared = shared
}

// nameShared says so of one public IP, of not too many in a minute: each lease that comes makes it another list.
func (n *node) nameShared(ip netip.Addr, keys []string) {
	now, entry := time.Now(), n.Log.WithField("public_ip", ip)
	if now.Sub(n.sharedSince) > quarantineSaidEvery {
		n.sharedSince, n.sharedNamed = now, 0
	}
	switch n.sharedNamed++; {
	case n.sharedNamed <= manyQuarantined:
		if more := len(keys) - manyQuarantined; more > 0 {
			keys = append(slices.Clone(keys[:manyQuarantined]), fmt.Sprintf("and %d more", more))
		}
		entry.WithField("leases", keys).
			Warn("several leases have one public IP: a cloned machine, or what a node left that was set up anew. If only one of them is in use, delete the others")
	case n.sharedNamed == manyQuarantined+1:
		n.Log.Warn("more leases have one public IP with others; they are not named for now")
	}
}

// manyQuarantined is how many leases that are not let in are named within quarantineSaidEvery; of more, only the number is
// said. Whoever can write leases can write any number of bad ones.
const (
	manyQuarantined     = 10
	quarantineSaidEvery = time.Minute
)

// quarantine is what was said of leases that are not let in.
type quarantine struct {
	reasons map[string]string // by key, cut to length
	since   time.Time         // beginning of the time in which
	named   int               // so many were named
}

// sayQuarantined names the leases that an event brought and that are not let in, each once a reason. After a snapshot,
// it looks at all.
func (n *node) sayQuarantined(e subnet.Event, now time.Time) {
	q := &n.quarantine
	if now.Sub(q.since) > quarantineSaidEvery {
		q.since, q.named = now, 0
	}
	for _, key := range e.Deleted {
		delete(q.reasons, subnet.ShortKey(key))
	}
	if e.Type == subnet.Changed {
		for _, r := range e.Put {
			_, _, why := n.view.Get(r.Key)
			n.sayIfQuarantined(r.Key, why)
		}
		return
	}
	clear(q.reasons)
	for key, why := range n.view.Quarantined {
		n.sayIfQuarantined(key, why)
	}
}

func (n *node) sayIfQuarantined(key string, why error) {
	q := &n.quarantine
	key = subnet.ShortKey(key)
	if why == nil {
		delete(q.reasons, key)
		return
	}
	if q.reasons[key] == why.Error() {
		return
	}
	q.reasons[key] = why.Error()
	switch q.named++; {
	case q.named <= manyQuarantined:
		n.Log.WithField("lease", key).WithError(why).Warn("a lease is not let in")
	case q.named == manyQuarantined+1:
		_, quarantined := n.view.Len()
		n.Log.WithField("quarantined", quarantined).Warn("many leases are not let in; more are not named for now")
	}
}

// peersChanged brings changes among the peers into the tables.
func (n *node) peersChanged(changes []subnet.Change, grace time.Duration, now time.Time) {
	if n.backend == nil {
		return // adopt brings in all there are
	}
	if len(changes) > 0 {
		n.tables.Grow(len(changes), wanted(n.backend, changes[0].After))
	}
	came, went, changed := 0, 0, 0
	for _, c := range changes {
		last := wanted(n.backend, c.Before)
		if g, ok := n.grace[c.Key]; ok && c.Before == nil {
			last = wanted(n.backend, &g.lease)
			delete(n.grace, c.Key)
		}
		owner := network.Owner{Name: c.Key}
		if m, ok, _ := n.view.Get(c.Key); ok {
			owner.Age = m.Created
		}
		switch {
		case c.After != nil:
			if c.Before == nil {
				came++
			} else {
				changed++
			}
			n.tables.Replace(owner, last, wanted(n.backend, c.After))
		case grace > 0 && !n.isOurs(*c.Before):
			went++
			owner.Grace = true
			n.grace[c.Key] = graced{lease: *c.Before, until: now.Add(grace)}
			n.tables.Replace(owner, last, last)
		default:
			went++
			n.tables.Replace(owner, last, network.State{})
		}
	}
	if n.programmed {
		n.churn.came, n.churn.went, n.churn.changed = n.churn.came+came, n.churn.went+went, n.churn.changed+changed
	}
}

// churn is how many peers came, went and changed since that was last said.
type churn struct {
	came, went, changed int
	said                time.Time
	pause               time.Duration // to be kept after said
}

// Pauses between two lines about peers that come and go. They grow as long as that goes on: of 5,000 leases that are written anew one
// by one, a few lines tell as much as 5,000.
const (
	shortestChurnPause = time.Second
	longestChurnPause  = time.Minute
)

// any reports whether there is something to say.
func (c *churn) any() bool { return c.came+c.went+c.changed > 0 }

// due is when the next line may be said.
func (c *churn) due() time.Time { return c.said.Add(c.pause) }

// sayChurn says how many peers came, went and changed: the first at once, what follows soon after in one line.
func (n *node) sayChurn(now time.Time) {
	c := &n.churn
	if !c.any() || now.Before(c.due()) {
		return
	}
	n.Log.WithFields(logrus.Fields{"came": c.came, "went": c.went, "changed": c.changed}).Info("peers changed")
	if now.Sub(c.said) > 2*c.pause {
		c.pause = 0
	}
	*c = churn{said: now, pause: min(max(2*c.pause, shortestChurnPause), longestChurnPause)}
}

// wanted is what a peer's lease needs in the kernel; nothing for no lease, or before there is a backend.
func wanted(b backend.Backend, l *subnet.Lease) (s network.State) {
	if b != nil && l != nil {
		s, _ = b.Peer(*l) // the view lets in only what the backend can use
	}
	return s
}

// isOurs reports whether a lease is for a subnet that is ours now.
func (n *node) isOurs(l subnet.Lease) bool {
	for _, f := range subnet.Families() {
		if l.Has(f) && n.subnets[f].IsValid() && l.Endpoints[f].Subnet.Overlaps(n.subnets[f]) {
			return true
		}
	}
	return false
}

// endGrace drops the peers whose time is over, and those whose subnet has become ours.
func (n *node) endGrace(now time.Time) {
	for key, g := range n.grace {
		if now.Before(g.until) && !n.isOurs(g.lease) {
			continue
		}
		delete(n.grace, key)
		n.tables.Replace(network.Owner{Name: key}, wanted(n.backend, &g.lease), network.State{})
	}
}
