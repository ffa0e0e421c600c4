package explain

import (
	"fmt"
	"slices"

	"github.com/selvage-net/selvage/network/node/status"
)

// This file explains addresses that belong to no peer.

// outside explains an address outside the overlay.
func (e *explanation) outside() {
	a, f := e.address, e.facts
	if f.PeerAt != "" {
		e.step("lease", f.PeerKey, status.Note, "public IP of "+f.PeerAt)
	}
	hop, err := e.kernel.Route(a)
	if err != nil {
		e.step("route", "none", status.Missing, err.Error())
		e.conclude(false, "%s is outside the overlay, and this node has no route to it", a)
		return
	}
	e.step("route", fmt.Sprintf("%s %s", a, hop), status.Note, "the host's own")
	switch {
	case a.IsLoopback(), a.IsUnspecified():
		e.conclude(true, "%s is outside the overlay: for a pod, it is the pod itself", a)
	case hop.Broadcast:
		e.conclude(false, "%s is a broadcast address of the link behind %s: "+
			"no host has it, and packets of pods for it are dropped", a, hop.Link)
	case hop.Local:
		e.step("filter", "none: the packet stays on this node", status.Note, "")
		e.conclude(true, "%s is this node's own%s: pods on this node reach it with their own address", a, e.on())
	case a.IsMulticast():
		e.step("filter", "multicast is not masqueraded", e.filterMark(), f.Filter.Mode)
		e.conclude(true, "%s is a multicast group outside the overlay: "+
			"pods on this node reach it only if something here forwards multicast", a)
	case a.IsLinkLocalUnicast():
		e.conclude(true, "%s is outside the overlay and link-local: pods on this node cannot reach others by it", a)
	case f.Masquerade:
		e.step("filter", "masquerade what leaves the overlay", e.filterMark(), f.Filter.Mode)
		e.conclude(true, "%s is outside the overlay: pods on this node reach it through %s, with this node's address",
			a, hop.Link)
	default:
		e.conclude(true, "%s is outside the overlay: pods on this node reach it through %s", a, hop.Link)
	}
}

// on returns a phrase that names the interface with the address.
func (e *explanation) on() string {
	if link := e.kernel.LinkWith(e.address); link != "" {
		return ", on " + link
	}
	return ""
}

// own explains an address of this node's own subnet.
func (e *explanation) own() {
	a, f := e.address, e.facts
	e.step("lease", f.Lease, status.Right, "this node's own")
	if roleOf(a, f.Subnet) == broadcast {
		e.conclude(false, "%s is the broadcast address of this node's subnet %s: no pod can have it", a, f.Subnet)
	}
	hop, err := e.kernel.Route(a)
	if err != nil {
		e.step("route", "none", status.Missing, err.Error())
		e.conclude(false, "%s belongs to this node's subnet %s, and no interface has that subnet: "+
			"no pod was started here yet, or its bridge is gone", a, f.Subnet)
		return
	}
	if hop.Local {
		e.step("route", fmt.Sprintf("%s %s", a, hop), status.Note, "an address of the node itself")
		e.conclude(true, "%s belongs to this node's subnet %s, and is the node's own%s", a, f.Subnet, e.on())
		return
	}
	e.step("route", fmt.Sprintf("%s %s", a, hop), status.Note, "created with the pods' bridge")
	if hop.Link == f.Uplink || slices.Contains(f.Own, hop.Link) {
		e.conclude(false, "%s belongs to this node's subnet %s, and packets for it leave through %s: "+
			"no pod was started here yet, or its bridge is gone", a, f.Subnet, hop.Link)
		return
	}
	switch answers, err := e.kernel.Answers(a, hop.Link); {
	case err != nil:
		e.step("neighbour", fmt.Sprintf("%s dev %s", a, hop.Link), status.Note, err.Error())
	case answers:
		e.step("neighbour", fmt.Sprintf("%s dev %s", a, hop.Link), status.Note, "it answers")
	default:
		e.step("neighbour", fmt.Sprintf("%s dev %s", a, hop.Link), status.Missing, "it does not answer ARP or ND")
		e.conclude(false, "%s belongs to this node's subnet %s, and no pod on %s answers for it: the address is unused, "+
			"or its pod is cut off", a, f.Subnet, hop.Link)
	}
	e.conclude(true, "%s belongs to this node's subnet %s: a pod on %s", a, f.Subnet, hop.Link)
}

// unleased explains an address of the overlay that no accepted lease holds.
func (e *explanation) unleased() {
	verdict := fmt.Sprintf("no node has a lease on %s", e.address)
	if e.claims(); len(e.facts.Claims) > 0 {
		verdict = fmt.Sprintf("the lease on %s is rejected", e.address)
	} else {
		e.step("lease", "none", status.Missing, "")
	}
	if hop, err := e.kernel.Route(e.address); err != nil {
		e.step("route", "none", status.Note, err.Error())
	} else {
		e.step("route", fmt.Sprintf("%s %s", e.address, hop), status.Note, "the route that packets for it take")
	}
	e.conclude(false, "%s", verdict)
}
