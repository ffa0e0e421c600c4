package node

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
)

// loop waits for events, and after each one brings everything up to date.
func (n *node) loop(ctx context.Context) error {
	n.resyncAt = time.Now().Add(jitter(n.Resync))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-n.events:
			n.storeEvent(e)
		case <-n.notified:
			if n.foreignOnly() {
				continue // the timer runs on
			}
		case <-n.kernelChanged:
		case <-n.filesChanged:
			n.checkFiles(time.Now())
		case <-n.Policies.changes():
		case <-n.podsChanged:
			n.ownSide.due = true
		case c := <-n.holder.claims:
			n.holder.claimEnded(ctx, c)
		case r := <-n.holder.lossResults:
			n.holder.holdEnded(r)
		case err := <-n.cache.results:
			n.cache.writeEnded(err, time.Now())
		case err := <-n.announcer.results:
			n.announced(err, time.Now())
		case f := <-n.questions:
			f()
			continue // the timer runs on
		case <-timer.C:
		}
		n.drain()
		wake := alarm{now: time.Now()}
		n.step(ctx, &wake)
		timer.Reset(max(0, time.Until(wake.at)))
	}
}

// drain handles the store's events that are already queued, so that a burst causes one pass.
func (n *node) drain() {
	for {
		select {
		case e := <-n.events:
			n.storeEvent(e)
		default:
			return
		}
	}
}

// step does everything that follows from what is known now, and sets when it has to run again if nothing happens. Each
// part is idempotent.
func (n *node) step(ctx context.Context, wake *alarm) {
	n.resync(wake)
	if !n.observe(wake) {
		return
	}
	n.startFromCache(wake)
	if !n.setUp(wake) {
		return
	}
	n.followKeyFiles(wake)
	n.followUplink(wake)
	n.goDirect(wake)
	if !n.cache.inUse && n.holder.step(ctx, wake) {
		n.leaseGained()
	}
	n.journal.gotLease(n.holder.final, n.view, wake.now)
	n.newMACs(wake)
	n.newIdentity(wake)
	n.peerSet.expire(wake)
	if n.view.Synced() && n.holder.final {
		config, wanted := n.vtepConfig()
		n.vteps.step(ctx, wake, config, wanted, n.wantedVTEPs)
	}
	n.followPods(wake)
	n.followPolicies()
	n.followFastPath(ctx, wake)
	n.followWireGuard(wake)
	n.keepSecond(wake)
	n.pass(wake)
	n.followMove(wake)
	n.beatFastPath(wake)
	n.notePods(wake.now)
	n.publish(wake)
	n.followRotation(wake)
	n.announcer.step(ctx, wake, n.publisher.ready && n.holder.final)
	n.journal.shadowed(n.shadows(), n.shadowText, wake.now)
	n.followOverlaps(wake.now)
	n.journal.peersChanged(wake.now)
	n.followPaths(wake)
	n.journal.pathsChanged(n.pathProblems(), wake.now)
	n.noteState(wake.now)
	n.cacheLeases(ctx, wake)
	n.journal.wake(wake)
}

// resync has everything looked at again now and then: kernel, files and filter.
func (n *node) resync(wake *alarm) {
	if wake.now.After(n.resyncAt) {
		n.resyncAt = wake.now.Add(jitter(n.Resync))
		n.kernel.RequestResync()
		n.checkFiles(wake.now)
		n.vteps.resync()
		n.ownSide.due = true
	}
	wake.set(n.resyncAt)
}

// observe reads what the kernel has reported into the tables. It reports whether it succeeded.
func (n *node) observe(wake *alarm) bool {
	observe := n.kernel.Observe
	if n.backend == nil {
		observe = n.kernel.Prepare
	}
	if err := observe(); err != nil {
		n.journal.problem(topicKernel, err)
		wake.set(wake.now.Add(waitAfterFailure))
		return false
	}
	n.journal.resolved(topicKernel)
	return true
}

// foreignOnly takes in the kernel's notifications, and reports whether they concern nothing of this daemon's: then
// there is nothing else to do. On a busy container host most of them are of that kind.
func (n *node) foreignOnly() bool {
	if n.backend == nil || !n.programmed {
		return false
	}
	before := n.tables.Changes()
	if err := n.kernel.Observe(); err != nil {
		return false // it is tried again, and reported
	}
	n.followRouting(&alarm{now: time.Now()}) // the last step has set the alarm that it may need
	return n.tables.Changes() == before && !n.kernel.Concerned()
}

// pass makes the kernel what the tables want, and logs what it did.
func (n *node) pass(wake *alarm) {
	now := wake.now
	complete := n.view.Synced() && n.holder.final
	n.rec.KeepUnwanted = !complete || n.cache.inUse
	n.rec.PeersUnknown = !complete && !n.cache.inUse
	settled := n.programmed
	r := n.rec.Pass(now)
	wake.set(r.Retry)
	n.renewSessions(wake, settled, r.Repaired > 0)
	if complete && !n.programmed {
		n.programmed = true
		leases, quarantined := n.view.Len()
		n.Log.WithFields(logrus.Fields{
			"leases": leases, "quarantined": quarantined, "set": r.Set, "removed": r.Removed,
			"took": time.Since(now).Round(time.Microsecond).String(),
		}).Info("kernel in sync with the leases")
	}
	n.journal.pass(now, r, n.ownDevices())
	n.notePass(now, r)
}

// publish writes for others what they act on, once the node's own part of the overlay works: the packet filter rules
// first, then the subnet file, then readiness.
func (n *node) publish(wake *alarm) {
	n.pluginStatus(wake)
	if n.programmed && n.holder.final && n.ownPending() == 0 {
		n.rules.Set(n.policy())
		if n.rules.InForce() && n.holdsPods() {
			n.publisher.subnetFile(wake, n.subnetFile())
			n.settle()
			n.pluginStatus(wake)
		}
	}
}

// holdsPods reports whether the CNI plugin knows where new pods wait for the rules of network policies. It has to
// before there is a subnet file, from which on pods are started.
func (n *node) holdsPods() bool {
	return n.publisher.ready || n.publisher.status.PolicySocket == n.policySocket()
}

// pluginStatus tells the CNI plugin what it has to know of this node.
func (n *node) pluginStatus(wake *alarm) {
	since := n.history.pendingSince
	outOfSync := n.ownPending() > 0 && !since.IsZero() && wake.now.Sub(since) > pendingFor
	s := pluginStatus(outOfSync, n.holder.final)
	s.PolicySocket = n.policySocket()
	n.publisher.statusFile(wake, s)
}

// checkFiles has files that another process changed or removed written again.
func (n *node) checkFiles(now time.Time) {
	if cause := n.publisher.check(now); cause != "" {
		n.noteRepair(now, network.Repair{Kind: "subnet file", Cause: cause, Key: n.SubnetFile, Count: 1})
	}
	n.cache.checkFile(now)
	n.keysDue = true
}

// jitter returns d, give or take a tenth: nodes that started together shall not do everything together.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}
