package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/cache"
)

// What an event means for several parts is brought to them here.

// storeEvent takes in one event of the store.
func (n *node) storeEvent(e subnet.Event) {
	if e.Type == subnet.Synced {
		regressed, wasCached := n.cache.storeReached(e)
		_ = n.state.reached(n.storeKind, n.StoreEndpoints) // tried again at the next snapshot
		e.Regressed = regressed || e.Regressed
		if wasCached {
			n.holder.reclaim()
		}
	}
	if e.Type == subnet.Synced || e.ConfigSet || len(e.Put)+len(e.Deleted) > 0 {
		n.cache.changed(time.Now())
	}
	if e.Own {
		n.introduced, n.holder.introduced = true, true
	}
	n.apply(e)
}

// apply takes in one event, of the store or from the cached leases.
func (n *node) apply(e subnet.Event) {
	now := time.Now()
	changes := n.view.Apply(e)
	if e.ConfigSet {
		n.configChanged(e.Config)
	}
	grace := n.PeerGrace
	if e.Regressed {
		// After the store has lost data, a missing peer may not have claimed its lease again yet. The subnet is its own
		// for as long as the lease would have run.
		grace = max(grace, n.LeaseTTL)
	}
	n.peersChanged(changes, grace, now)
	if n.backend != nil && e.Type == subnet.Synced {
		n.retainCached(now)
	}
	if n.backend != nil && e.Type != subnet.Page {
		n.journal.rejectedLeases(e, n.view, now)
		n.journal.sharedPublicIPs(n.view.SamePublicIP, now)
	}
}

// peersChanged brings changes among the peers into the tables. They are worth a log line once the node is up.
func (n *node) peersChanged(changes []subnet.Change, grace time.Duration, now time.Time) {
	added, removed, changed := n.peerSet.apply(changes, grace, now)
	n.rotating.notePeers(n.backend, changes)
	n.pathFollower.stale = n.pathFollower.stale || len(changes) > 0
	if n.programmed {
		n.journal.churn.count(added, removed, changed)
	}
}

// startFromCache feeds the view from the cached leases if the store stays silent.
func (n *node) startFromCache(wake *alarm) {
	if n.view.Synced() {
		return
	}
	s := n.cache.begin(wake)
	if s == nil {
		return
	}
	n.apply(subnet.Event{Type: subnet.Page, Revision: s.Revision, Put: s.Decoded()})
	n.apply(subnet.Event{Type: subnet.Synced, Revision: s.Revision, ConfigSet: true, Config: s.Config})
	if m, ok, _ := n.view.Get(s.Own); ok {
		n.cache.foundOwn(m, wake.now)
	}
	if n.backend != nil { // the store has been silent since it reported this node
		n.adoptCached()
		n.wantDevice()
	}
}

// retainCached retains cached peers that the store does not have: a daemon that was restarted just after the store was
// wiped, or while a peer's lease was missing for a moment, must not remove what one that ran on retains.
func (n *node) retainCached(now time.Time) {
	s, until := n.cache.takeMissing(n.PeerGrace, now)
	if s == nil {
		return
	}
	if was := n.cachedNetworks; was != nil && !slices.Equal(was, networks(*n.config)) {
		n.Log.WithFields(logrus.Fields{"was": was, "is": networks(*n.config)}).
			Warn("ignoring cached leases from an earlier run: they are of another Network")
		return
	}
	missing := func(r cache.Record) bool { _, there, _ := n.view.Get(r.Name); return !there }
	if !slices.ContainsFunc(s.Records, missing) {
		return // as a rule
	}
	before := subnet.NewView()
	before.SetRules(n.judging)
	before.Apply(subnet.Event{Type: subnet.Page, Revision: s.Revision, Put: s.Decoded()})
	before.Apply(subnet.Event{Type: subnet.Synced, Revision: s.Revision})
	for m := range before.Peers {
		n.peerSet.retain(m, until)
	}
}

// followUplink applies a change of the uplink: the device gets the new local address and MTU, and the lease the new
// public IP. Pods keep their subnet.
func (n *node) followUplink(wake *alarm) {
	stale := n.kernel.UplinkStale()
	choice, changed := n.uplinks.step(wake, stale || n.adviceChanged(), n.uplink, n.chooseUplink)
	if !changed {
		return
	}
	b, err := n.carrier(*n.config, n.underlay(choice, n.ownMember()), n.moving)
	if err != nil {
		n.journal.problem(topicUplink, err)
		return
	}
	log := func(level logrus.Level) {
		n.Log.WithFields(logrus.Fields{
			"uplink": choice.Name, "public_ip": addresses(choice.PublicIP), "mtu": choice.MTU,
			"was": n.uplink.Name, "was_public_ip": addresses(n.uplink.PublicIP), "was_mtu": n.uplink.MTU,
		}).Log(level, "uplink changed; applying it")
	}
	if sameUplink(choice, n.uplink) {
		log(logrus.DebugLevel)
	} else {
		n.journal.few("uplink", wake.now, func() { log(logrus.WarnLevel) })
	}
	n.reform(choice, b, wake.now)
	if s, ok := n.Store.(subnet.Networked); ok {
		s.AddressesChanged()
	}
}

// logUplink logs which interface carries the overlay, and why that one.
func (n *node) logUplink(c uplink.Choice) {
	fields := logrus.Fields{"uplink": c.Name, "public_ip": addresses(c.PublicIP), "mtu": c.MTU}
	if not := slices.Concat(c.Rejected, c.Others); len(not) > 0 {
		fields["not"] = not
	}
	n.Log.WithFields(fields).Info("uplink: " + c.Why)
}

// leaseGained follows a lease that has just become final.
func (n *node) leaseGained() {
	n.announcer.leaseGained()
	before := n.subnets
	if before == noSubnets {
		before = n.holder.previous // of an earlier run
	}
	n.logMoved(before, n.holder.subnets)
	n.setSubnets(n.holder.subnets)
	n.wantDevice()
}

// setSubnets notes which subnets are this node's.
func (n *node) setSubnets(s [2]netip.Prefix) {
	n.subnets, n.peerSet.own = s, s
}

// manyPods is how many pods are named.
const manyPods = 20

// logMoved logs that the node has other subnets now, and which pods have addresses of the old ones: other nodes send
// packets for these elsewhere.
func (n *node) logMoved(from, to [2]netip.Prefix) {
	for _, f := range subnet.Families() {
		// The subnet of a family that was turned off is not another node's.
		if from[f] == to[f] || !from[f].IsValid() || !to[f].IsValid() {
			continue
		}
		pods := n.kernel.Hosts(from[f])
		first, _ := shorten(pods, manyPods)
		what := fmt.Sprintf("this node lost its subnet %s to another node and now has %s", from[f], to[f])
		if n.holder.storeAllocates() {
			what = fmt.Sprintf("%s gave this node the subnet %s instead of %s", n.words.Name, to[f], from[f])
		}
		n.Log.WithFields(logrus.Fields{"was": from[f], "is": to[f], "pods_seen": len(pods), "pods": first}).
			Error(what + "; pods with addresses of the old subnet are unreachable from other nodes: restart them and " +
				"remove the old address from their bridge")
	}
}

// cacheLeases writes the cached leases if they differ from the view.
func (n *node) cacheLeases(ctx context.Context, wake *alarm) {
	if !n.view.Synced() {
		return
	}
	own := ownLease{final: n.holder.final, expires: n.holder.record.LeaseID != 0, at: n.holder.expires()}
	if n.cache.step(wake, own, n.snapshot) && n.cache.writes == 1 {
		n.background.Go(func() { n.rest(ctx) })
	}
}

// snapshot is what the cache keeps of the view. It is encoded in the background, from leases that do not change.
func (n *node) snapshot() cache.Snapshot {
	s := cache.Snapshot{Revision: n.view.Revision(), Config: n.configJSON, Own: n.holder.record.Name}
	valid, _ := n.view.Len()
	peers := slices.AppendSeq(make([]subnet.PeerLease, 0, valid), n.view.PeerLeases)
	own, ok, _ := n.view.Get(n.holder.record.Name)
	s.More = func(yield func(cache.Record) bool) {
		var value []byte // of one after the other
		write := func(r subnet.Record) bool {
			c, err := cache.Encode(r, value[:0])
			value = c.Value
			return err != nil || yield(c) // an accepted lease can be written
		}
		for _, p := range peers {
			if !write(p.Record()) {
				return
			}
		}
		if ok {
			write(own)
		}
	}
	return s
}
