package explain

import (
	"fmt"
	"slices"

	"github.com/selvage-net/selvage/network"
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
	if f.Pod != nil {
		e.pod()
		return
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
	if !e.answers(fmt.Sprintf("%s dev %s", a, hop.Link), hop.Link) {
		e.conclude(false, "%s belongs to this node's subnet %s, and no pod on %s answers for it: the address is "+
			"unused, or its pod is cut off", a, f.Subnet, hop.Link)
	}
	e.conclude(true, "%s belongs to this node's subnet %s: a pod on %s", a, f.Subnet, hop.Link)
}

// pod explains the address of a pod of this node that the CNI plugin stored a record of.
func (e *explanation) pod() {
	a, p := e.address, e.facts.Pod
	if !e.entries(p.Entries) {
		e.conclude(false, "%s belongs to %s on this node, but not all entries of the path are in sync", a, p.Name)
	}
	if p.Problem != "" {
		e.step("pod", p.Name, status.Missing, p.Problem)
		e.conclude(false, "%s belongs to %s on this node: %s", a, p.Name, p.Problem)
	}
	switch hop, err := e.kernel.Route(a); {
	case err != nil:
		e.step("route", fmt.Sprintf("the kernel: no route to %s", a), status.Foreign, e.ownShadow())
		e.conclude(false, "%s belongs to %s on this node, but a foreign route keeps packets from it", a, p.Name)
	case p.Link != "" && hop.Link != p.Link:
		e.step("route", fmt.Sprintf("the kernel: %s %s", a, hop), status.Foreign, e.ownShadow())
		e.conclude(false, "%s belongs to %s on this node, but packets for it leave through %s", a, p.Name, hop.Link)
	default:
		e.step("route", fmt.Sprintf("the kernel: %s %s", a, hop), status.Right, "")
		if !e.answers(fmt.Sprintf("%s lladdr %s dev %s", a, p.MAC, hop.Link), hop.Link) {
			e.conclude(false, "%s belongs to %s on this node, and it does not answer: see \"selvaged doctor\"", a,
				p.Name)
		}
	}
	e.conclude(true, "%s belongs to this node's subnet %s: a pod on %s, %s", a, e.facts.Subnet, p.Link, p.Name)
}

// answers adds a step that says whether a host answers for the address on an interface, and reports whether one does,
// as far as the kernel can tell.
func (e *explanation) answers(entry, link string) bool {
	switch answers, err := e.kernel.Answers(e.address, link); {
	case err != nil:
		e.step("neighbour", entry, status.Note, err.Error())
	case answers:
		e.step("neighbour", entry, status.Note, "it answers")
	default:
		e.step("neighbour", entry, status.Missing, "it does not answer ARP or ND")
		return false
	}
	return true
}

// ownShadow names the route that takes precedence over the one to this node's pods.
func (e *explanation) ownShadow() string {
	key := network.RouteKey{Prefix: e.facts.Subnet, Metric: network.ConnectedMetric(e.facts.Subnet)}
	switch route, ok, err := e.kernel.Shadowing(e.address, key); {
	case err != nil:
		return "see ip route and ip rule"
	case ok:
		return "because of " + route
	default:
		return "no route explains it: see ip rule"
	}
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
