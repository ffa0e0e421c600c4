package node

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// What is explained here are addresses that are not of another node's subnet.

// outside explains an address that no pod has.
func (e *explanation) outside(a netip.Addr) {
	if key, name, ok := e.nodeAt(a); ok {
		e.step("lease", key, status.Note, "it is the public IP of "+name)
	}
	w, err := e.look(a)
	if err != nil {
		e.step("route", "none", status.Missing, err.Error())
		e.verdict(false, fmt.Sprintf("%s is outside the overlay, and this node has no route to it", a))
		return
	}
	e.step("route", fmt.Sprintf("%s %s", a, w.text), status.Note, "as the host has it")
	switch {
	case a.IsLoopback(), a.IsUnspecified():
		e.verdict(true, fmt.Sprintf("%s is outside the overlay: whoever uses it means its own machine, a pod means itself", a))
	case w.local:
		e.step("filter", "none: it goes no further", status.Note, "")
		e.verdict(true, fmt.Sprintf("%s is this node's own%s: pods here reach it with their own address", a, e.on(a)))
	case a.IsMulticast():
		e.step("filter", "multicast is not masqueraded", e.filterMark(), e.filterStatus().Mode)
		e.verdict(true, fmt.Sprintf("%s is a multicast group outside the overlay: pods here reach it only if something on this node forwards multicast", a))
	case a.IsLinkLocalUnicast():
		e.verdict(true, fmt.Sprintf("%s is outside the overlay, and of one link only: pods here do not reach others by it", a))
	default:
		text := fmt.Sprintf("%s is outside the overlay: pods here reach it by %s", a, w.link)
		if e.IPMasq {
			e.step("filter", "masquerade what leaves the overlay", e.filterMark(), e.filterStatus().Mode)
			text += ", with this node's address"
		}
		e.verdict(true, text)
	}
}

// nodeAt finds the node whose public IP an address is, this one among them.
func (e *explanation) nodeAt(a netip.Addr) (key, name string, ok bool) {
	f := subnet.FamilyOf(a)
	for m := range e.view.Peers {
		if m.Endpoints[f].PublicIP == a {
			return m.Key, nodeName(m.Lease, f), true
		}
	}
	if e.uplink.PublicIP[f] == a {
		return e.own.record.Key, "this node", true
	}
	return "", "", false
}

// nodeName is what a node goes by: those of flannel's say no name.
func nodeName(l subnet.Lease, f subnet.Family) string {
	return cmp.Or(l.NodeName, l.Endpoints[f].PublicIP.String())
}

// on says which interface has an address.
func (e *explanation) on(a netip.Addr) string {
	all, err := e.kernel.Handle().AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "" // it is not worth more
	}
	for _, x := range all {
		if held, ok := netip.AddrFromSlice(x.IP); ok && held.Unmap() == a {
			if link, err := e.kernel.Handle().LinkByIndex(x.LinkIndex); err == nil {
				return ", on " + link.Attrs().Name
			}
		}
	}
	return ""
}

// here explains an address of this node's own subnet.
func (e *explanation) here(a netip.Addr) {
	f := subnet.FamilyOf(a)
	e.step("lease", e.own.record.Key, status.Right, "this node's own")
	w, err := e.look(a)
	if err != nil {
		e.step("route", "none", status.Missing, err.Error())
		e.verdict(false, fmt.Sprintf("%s is of this node's subnet %s, and no interface holds that: no pod was started here yet, or its bridge is gone", a, e.subnets[f]))
		return
	}
	if w.local {
		e.step("route", fmt.Sprintf("%s %s", a, w.text), status.Note, "the node itself has it")
		e.verdict(true, fmt.Sprintf("%s is of this node's subnet %s, and its own%s", a, e.subnets[f], e.on(a)))
		return
	}
	e.step("route", fmt.Sprintf("%s %s", a, w.text), status.Note, "made by whoever made the pods' bridge")
	if w.link == e.uplink.Name || e.tables.OwnsLink(w.link) {
		e.verdict(false, fmt.Sprintf("%s is of this node's subnet %s, and packets for it leave by %s: no pod was started here yet, or its bridge is gone", a, e.subnets[f], w.link))
		return
	}
	for _, known := range e.kernel.Hosts(netip.PrefixFrom(a, a.BitLen())) {
		e.step("neighbour", fmt.Sprintf("%s dev %s", known, w.link), status.Note, "it was seen")
	}
	e.verdict(true, fmt.Sprintf("%s is of this node's subnet %s: a pod on %s", a, e.subnets[f], w.link))
}

// nobodys explains an address of the overlay on which no lease is that counts.
func (e *explanation) nobodys(a netip.Addr) {
	text := fmt.Sprintf("no node has a lease on %s", a)
	if len(e.Steps) > 0 {
		text = fmt.Sprintf("the lease on %s is not let in", a)
	} else {
		e.step("lease", "none", status.Missing, "")
	}
	if w, err := e.look(a); err != nil {
		e.step("route", "none", status.Note, err.Error())
	} else {
		e.step("route", fmt.Sprintf("%s %s", a, w.text), status.Note, "where packets for it go meanwhile")
	}
	e.verdict(false, text)
}
