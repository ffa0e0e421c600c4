package node

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach/echo"
	"github.com/selvage-net/selvage/network/userspace"
	"github.com/selvage-net/selvage/subnet"
)

const (
	// topicWireGuard is of problems to read WireGuard devices.
	topicWireGuard = "WireGuard"
	// topicDoubts is of problems to ask peers whether they have moved.
	topicDoubts = "WireGuard peers that may have moved"
)

// doubtInterval is how often peers are asked, and devices read, until it is known whether they have moved; less often
// where reading takes long.
const doubtInterval = 250 * time.Millisecond

// followWireGuard reads what is on WireGuard devices now and then: the kernel reports no change there. Until the next
// time, a change by another process stays.
func (n *node) followWireGuard(wake *alarm) {
	n.logUserSpace(wake.now)
	if len(n.device.WireGuards) == 0 {
		return
	}
	interval := n.kernel.WireGuardInterval()
	if !wake.now.Before(n.peersAt) {
		n.peersAt = wake.now.Add(interval)
		if err := n.kernel.ReadWireGuard(); err != nil {
			n.journal.problem(topicWireGuard, err)
		} else {
			n.journal.resolved(topicWireGuard)
		}
	}
	n.followDoubts(wake, max(doubtInterval, interval/4))
	wake.set(n.peersAt)
}

// followDoubts asks the peers that may have moved for an answer, every interval, and has it looked for.
func (n *node) followDoubts(wake *alarm, interval time.Duration) {
	doubted := n.kernel.DoubtedPeers()
	if len(doubted) == 0 {
		n.journal.resolved(topicDoubts)
		return
	}
	if wake.now.Before(n.doubtsAt) {
		return // it was asked for an answer, and has its time
	}
	err := n.provoke(doubted, wake.now)
	if err != nil {
		interval = max(interval, waitAfterFailure)
	}
	n.doubtsAt = wake.now.Add(interval)
	if n.peersAt.After(n.doubtsAt) {
		n.peersAt = n.doubtsAt
	}
	if err != nil {
		n.journal.problem(topicDoubts, fmt.Errorf("cannot find out whether another process has set the endpoints of "+
			"%d peers, or these have moved, so it takes longer: %w", len(doubted), err))
	}
}

// provoke sends what peers answer, in any of the ways that they do.
func (n *node) provoke(peers []network.PeerKey, now time.Time) (err error) {
	if n.asker == nil {
		if n.asker, err = echo.OpenSender(); err != nil {
			return err
		}
	}
	of := make(map[network.PeerKey][]netip.Prefix, len(peers))
	for _, k := range peers {
		of[k] = nil
	}
	for k, c := range n.tables.AllowedIPs.All {
		peer := network.PeerKey{Link: k.Link, PublicKey: c.Want}
		if prefixes, doubted := of[peer]; doubted && c.Wanted {
			of[peer] = append(prefixes, k.Prefix)
		}
	}
	for k, prefixes := range of {
		asked := len(prefixes) == 0 // nothing is sent to it, so it loses nothing
		for _, p := range prefixes {
			own := n.subnets[subnet.FamilyOf(p.Addr())]
			if !own.IsValid() {
				continue
			}
			for sent := range 2 * trialsNeeded {
				to, hops := target(p, sent)
				asked = n.asker.Provoke(n.kernel.Index(k.Link), own.Addr(), to, hops) == nil || asked
			}
		}
		if asked {
			n.kernel.AskedPeer(k, now)
		} // else it is asked again
	}
	return nil
}

// logUserSpace logs what happened to the processes that serve WireGuard devices.
func (n *node) logUserSpace(now time.Time) {
	for _, e := range n.userspace.Events() {
		log := n.Log.WithFields(logrus.Fields{"device": e.Device, "process": e.PID})
		n.journal.few("user-space WireGuard", now, func() {
			switch {
			case e.What == userspace.Started:
				log.Info("this kernel has no WireGuard: a process of its own serves the device in user space")
			case e.What == userspace.Ended:
				log.WithField("cause", e.Cause).
					Warn("the process that served the device has ended; starting another one")
			case e.What == userspace.Lost && e.Cause != "":
				log.WithField("cause", e.Cause).Error("another program removed the socket of the process that serves " +
					"the device, and the process cannot be killed")
			case e.What == userspace.Lost:
				log.Warn("another program removed the socket of the process that served the device: killed the " +
					"process; starting another one")
			case e.Cause != "":
				log.WithField("cause", e.Cause).Error("the process that serves the device hangs, and cannot be killed")
			default:
				log.Warn("the process that served the device did not answer and was killed; starting another one")
			}
		})
	}
}

// userSpaceStatus is who serves a device in user space; nil if no process does.
func (n *node) userSpaceStatus(device string) *status.UserSpace {
	s, ok := userspace.At(device)
	c := n.userspace.Counts(device)
	if !ok && c == (userspace.Counts{}) {
		return nil
	}
	return &status.UserSpace{PID: s.PID, Ours: s.Ours, Ended: c.Ended, Hung: c.Hung, Lost: c.Lost}
}
