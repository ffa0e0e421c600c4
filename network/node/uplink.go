package node

import (
	"time"

	"github.com/sirupsen/logrus"
)

// How long a change of the uplink must last before it is followed. Within one interface it is short: an address that is
// renewed goes and comes back at once. Another interface is chosen only when the first stays away: a flap must not move
// the node.
const (
	patienceSameUplink  = 50 * time.Millisecond
	patienceOtherUplink = 3 * time.Second
)

// followUplink looks, whenever the kernel told of something that bears on it, whether the overlay is still carried by the
// same interface, address and MTU, and follows a change that lasts: the device gets the new local address and MTU, and
// the lease the new public IP. Pods keep their subnet.
func (n *node) followUplink(now time.Time) {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if !n.kernel.UplinkStale() && !due(n.uplinkAt) && !due(n.uplinkLostAt) {
		return
	}
	choice, err := n.chooseUplink()
	if err != nil {
		// Nothing else could carry the overlay, so it stays as it is. What comes back is told. A reload of the interface is
		// over in less time than it takes to say that it is gone.
		n.uplinkAt = time.Time{}
		if n.uplinkLostAt.IsZero() {
			n.uplinkLostAt = now.Add(passingTrouble)
		} else if due(n.uplinkLostAt) {
			n.sayOnce("uplink", err)
		}
		return
	}
	n.uplinkLostAt = time.Time{}
	n.forget("uplink")
	if choice.Equal(n.uplink) {
		n.uplinkAt = time.Time{}
		return
	}
	if n.uplinkAt.IsZero() {
		patience := patienceSameUplink
		if choice.Name != n.uplink.Name && choice.Index != n.uplink.Index {
			patience = patienceOtherUplink
		}
		n.uplinkAt = now.Add(patience)
	}
	if now.Before(n.uplinkAt) {
		return
	}
	n.uplinkAt = time.Time{}
	b, err := newBackend(*n.config, n.underlay(choice, n.ownMember()))
	if err != nil {
		n.sayOnce("uplink", err)
		return
	}
	n.Log.WithFields(logrus.Fields{
		"uplink": choice.Name, "public_ip": addresses(choice.PublicIP), "mtu": choice.MTU,
		"was": n.uplink.Name, "was_public_ip": addresses(n.uplink.PublicIP), "was_mtu": n.uplink.MTU,
	}).Warn("the uplink changed; following it")
	n.reform(choice, b, now)
	if s, ok := n.Store.(interface{ AddressesChanged() }); ok {
		s.AddressesChanged()
	}
}
