package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// What a node does when it shares what must be its own with another node: one of them is a clone.

// macBackoff spaces the choices of new MAC addresses while another node keeps taking them.
var macBackoff = backoff.Policy{Min: time.Second, Max: 5 * time.Minute, Jitter: 0.2, Settle: 64}

// newMACs gives the node's devices other MAC addresses if an older lease has one of them: one of two machines is a
// clone.
func (n *node) newMACs(wake *alarm) {
	if n.holder.conflict == 0 || n.holder.conflict == n.renewed {
		return
	}
	wake.set(n.macs.At())
	if !n.macs.Due(wake.now) {
		return
	}
	n.macs.Next(macBackoff, wake.now)
	_, _, why := n.view.Get(n.holder.record.Name)
	if !n.replaceIdentity(wake, *n.identity) {
		return
	}
	n.renewed = n.holder.conflict
	n.Log.WithError(why).
		Warn("another node has the MAC address or the key of this node's device (a cloned machine?); choosing a new " +
			"one")
}

// newIdentity gives the node another instance id and other MAC addresses if another live daemon has its own.
func (n *node) newIdentity(wake *alarm) {
	if !n.holder.cloned {
		return
	}
	wake.set(n.macs.At())
	if !n.macs.Due(wake.now) {
		return
	}
	n.macs.Next(macBackoff, wake.now)
	was := n.identity.InstanceID
	fresh := identity{InstanceID: randomID(), UplinkMAC: n.identity.UplinkMAC}
	if !n.replaceIdentity(wake, fresh) {
		return
	}
	n.holder.cloned, n.holder.instanceID = false, fresh.InstanceID
	wake.set(wake.now) // to claim
	n.Log.WithField("instance", fresh.InstanceID).WithField("was", was).
		Error("another live daemon has this node's instance id (a cloned machine, or a copied state directory); this " +
			"node has a new id now and claims another subnet")
}

// replaceIdentity puts an identity with new MAC addresses in place of the node's, and reports whether it could.
func (n *node) replaceIdentity(wake *alarm, fresh identity) bool {
	before := n.identity
	n.abandonRotation("another node has this node's identity, so it makes a new one")
	clear(n.secrets)
	fresh.MACs = maps.Clone(fresh.MACs)
	n.identity = &fresh
	u := n.underlay(n.uplink, nil)
	u.Keep = remembering{renewer{n.identity, n.StateDir, n.keyFiles()}, n.secrets}
	b, err := n.carrier(*n.config, u, n.moving)
	if err == nil {
		err = n.identity.save(n.StateDir)
	}
	if err != nil {
		n.identity = before
		clear(n.secrets)
		n.journal.problem(topicMAC, err)
		wake.set(n.macs.At())
		return false
	}
	n.journal.resolved(topicMAC)
	n.reform(n.uplink, b, wake.now)
	return true
}

// sharedIPProblems reports the leases of other nodes that have this node's public IP, as one problem. This node cannot
// reach these nodes, and what others send to one public IP arrives at one of them.
func (n *node) sharedIPProblems() []status.Problem {
	shared := n.journal.rejected.ownIP
	if len(shared) == 0 {
		return nil
	}
	const few = 3
	names, more := shorten(slices.Sorted(maps.Keys(shared)), few)
	text := "lease " + strings.Join(names, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	since := slices.MinFunc(slices.Collect(maps.Values(shared)), time.Time.Compare)
	return []status.Problem{{
		Topic: "lease", Code: status.PublicIPShared, Since: since, Text: status.Text(text +
			" of another node has this node's public IP " + strings.Join(addresses(n.uplink.PublicIP), ", ") +
			": give each node a public IP of its own; if that " +
			"node is gone, release its lease"),
	}}
}

// wasOurs reports whether something on this machine shows that it was the holder of a lease: the subnet file of an
// earlier run, or an address of the lease's subnet, as the overlay device and the bridge of the pods have.
func (n *node) wasOurs(l subnet.Lease) bool {
	for _, f := range subnet.Families() {
		if l.Has(f) && (n.previous[f] == l.Endpoints[f].Subnet || n.kernel.HasAddressIn(l.Endpoints[f].Subnet)) {
			return true
		}
	}
	return false
}
