package node

import (
	"fmt"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
)

// topicRenewals is of problems to renew the sessions of WireGuard peers.
const topicRenewals = "WireGuard sessions"

// renewalDelay is how much later the second of two nodes begins that both have reason to begin a handshake: it then has
// a session already.
const renewalDelay = 300 * time.Millisecond

// renewals are WireGuard peers that are to be sent something, so that they have a session with this node and its
// present endpoint: see [kernel.Kernel.RenewedPeers].
type renewals struct {
	queue []renewal
	next  time.Time // when the next ones may be sent something
}

type renewal struct {
	peer network.PeerKey
	at   time.Time
}

// add queues peers. first says of which the node is to begin at once.
func (r *renewals) add(peers []network.PeerKey, first func(network.PeerKey) bool, now time.Time) {
	for _, second := range []bool{false, true} {
		for _, p := range peers {
			if first(p) == second {
				continue
			}
			at := now
			if second {
				at = now.Add(renewalDelay)
			}
			r.queue = append(r.queue, renewal{p, at})
		}
	}
}

// due returns the peers to send something now: few at once, as each begins a handshake. again is when to call it again;
// zero: not before add is called.
func (r *renewals) due(now time.Time) (peers []network.PeerKey, again time.Time) {
	if now.Before(r.next) {
		return nil, r.next
	}
	var later []renewal
	for _, x := range r.queue {
		if len(peers) < trialBurst && !now.Before(x.at) {
			peers = append(peers, x.peer)
			continue
		}
		later = append(later, x)
		if again.IsZero() || x.at.Before(again) {
			again = x.at
		}
	}
	r.queue = later
	if len(peers) == trialBurst {
		r.next = now.Add(trialPause)
	}
	if !again.IsZero() && again.Before(r.next) {
		again = r.next
	}
	return peers, again
}

// retry queues peers again that could not be sent anything. It returns when to call due.
func (r *renewals) retry(peers []network.PeerKey, now time.Time) (at time.Time) {
	at = now.Add(waitAfterFailure)
	for _, p := range peers {
		r.queue = append(r.queue, renewal{p, at})
	}
	return at
}

// renewSessions has peers notice at once that this node has repaired what their sessions depend on. Their packets to
// this node are lost until then. settled and repaired are of the pass that has just been made: that the node was in
// sync before, and that the pass has repaired something.
//
// It is not done for peers whose lease is new: they may not be ready, and WireGuard then waits for five seconds before
// it tries again. While the network moves to another backend, or a key changes, trials begin the handshakes.
func (n *node) renewSessions(wake *alarm, settled, repaired bool) {
	peers, others := n.kernel.RenewedPeers(wake.now)
	if repaired {
		peers = append(peers, others...)
	}
	if !settled || n.moving.old != nil || n.rotating.Stage != backend.Still {
		peers, n.renewals.queue = nil, nil
	}
	n.renewals.add(peers, n.kernel.First, wake.now)
	due, again := n.renewals.due(wake.now)
	if len(due) > 0 {
		if err := n.provoke(due, wake.now); err != nil {
			n.journal.problem(topicRenewals, fmt.Errorf("cannot send packets to %d WireGuard peers, whose packets may "+
				"be lost for 15 seconds after a repair: %w", len(due), err))
			wake.set(n.renewals.retry(due, wake.now))
		}
	}
	if wake.set(again); len(n.renewals.queue) == 0 {
		n.journal.resolved(topicRenewals)
	}
}
