package node

import (
	"time"

	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// keepUsable tells the CNI plugin, by a file beside the subnet file, when this node cannot carry what a new pod sends. It is
// the plugin's STATUS: what is wrong with peers, or with etcd, is no reason.
func (n *node) keepUsable(now time.Time) {
	if n.published == "" && !n.ready {
		return // there is no subnet file of this run
	}
	s := n.usable(now)
	if s == n.told.usable {
		return
	}
	if err := subnetfile.WriteStatus(n.SubnetFile, s); err != nil {
		n.sayOnce("status file", err)
		return
	}
	n.forget("status file")
	n.told.usable = s
}

// ownPending is how much of the node's own part of the overlay is not as it is to be: device, addresses, settings. What only has to go
// does no harm.
func (n *node) ownPending() int {
	return n.tables.Links.Counts().Pending + n.tables.Addresses.Counts().Pending + n.tables.Sysctls.Counts().Pending
}

// usable says whether the node's own part of the overlay is in place, and has been within the last moment.
func (n *node) usable(now time.Time) subnetfile.Status {
	lost := n.ownPending() > 0 && !n.told.pendingSince.IsZero() && now.Sub(n.told.pendingSince) > pendingFor
	switch {
	case lost:
		return subnetfile.Status{Limited: true, Reason: "the overlay's device, or a setting it needs, is not as it is to be: see selvaged status"}
	case !n.own.final:
		return subnetfile.Status{Reason: "this node has no lease at the moment: see selvaged status"}
	default:
		return subnetfile.Status{Usable: true}
	}
}
