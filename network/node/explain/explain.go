// Package explain describes how a node reaches an address, step by step as a packet travels: the state that the leases
// ask for, the part of it that the kernel holds, and the kernel's actual routing decision.
//
// It has two inputs. [Facts] is the daemon's knowledge: its loop fills them in, in time that does not depend on the
// number of routes. [Kernel] queries the kernel, which can take long with many routes, so [Address] runs on the
// caller's goroutine.
package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// Kernel queries the kernel about an address. Lookup in package network/kernel implements it.
type Kernel interface {
	// Route returns the kernel's route for an address, or an error that says why there is none.
	Route(netip.Addr) (network.Hop, error)
	// Flow returns the kernel's route for a flow, or an error that says why there is none.
	Flow(network.Flow) (network.Hop, error)
	// Shadowing returns the foreign route that shadows the route under a key for an address.
	Shadowing(netip.Addr, network.RouteKey) (route string, ok bool, err error)
	// LinkWith returns the name of the interface that has an address; empty if there is none.
	LinkWith(netip.Addr) string
	// Answers reports whether a host with an address answers ARP or ND on an interface. An error: this cannot be asked.
	Answers(a netip.Addr, link string) (bool, error)
}

// Facts is the daemon's knowledge about one address.
type Facts struct {
	Waiting bool         // the network config is not known yet; no other field is set
	Family  string       // of the address: "IPv4" or "IPv6"
	Network netip.Prefix // the overlay's in this family; invalid if the config disables the family
	Subnet  netip.Prefix // this node's own; invalid if it has none
	Lease   string       // name of this node's own lease
	Claims  []Claim      // leases on a subnet that holds the address: the accepted one first, then by age
	Peer    *Peer        // the node that the address belongs to; nil if it is no peer's
	Pod     *Pod         // the pod of this node with the address, if the CNI plugin stored its record
	PeerAt  string       // name of the node whose public IP the address is; empty if there is none
	PeerKey string       // name of that node's lease
	Uplink  string       // name of the interface that carries the overlay
	MTU     int          // the uplink's, in bytes
	Own     []string     // names of this node's overlay devices
	// Masquerade: packets that leave the overlay get this node's address.
	Masquerade bool
	Filter     status.Filter
	Fast       *status.FastPath // nil: the fast path is off
}

// Claim is a lease on a subnet that holds the address.
type Claim struct {
	Lease  string
	Node   string
	Reason error     // why it is rejected; nil: it is accepted
	Until  time.Time // end of its grace period if it was withdrawn; else zero
}

// Peer is another node, and the path to it.
type Peer struct {
	Name     string
	Subnet   netip.Prefix // that holds the address
	PublicIP netip.Addr
	Underlay network.Flow         // the packets on the underlay
	Path     string               // how it is reached, such as "over VXLAN, flannel.1"
	Entries  []network.Comparison // the kernel objects of the path
	Route    network.RouteKey     // of its subnet
	Link     string               // the device that its route leads out of; empty if it needs no route
	Device   *Device              // that device; nil if it is not selvage's
	Session  *Session             // with WireGuard; nil: there is none to show
	Reach    status.Reach         // whether it answers through the overlay; the zero value: not known
	Fast     bool                 // the fast path knows it
}

// Session is what a WireGuard device has exchanged with a peer.
type Session struct {
	Handshake      time.Duration // the age of the last one; below 0: there was none
	Received, Sent uint64        // bytes
	Silent         bool          // the peer leaves packets unanswered
}

// Pod is a pod of this node, and what it depends on.
type Pod struct {
	Name    string
	MAC     network.MAC          // zero: not known
	Link    string               // the bridge, or the pod's own link without one; empty: not known
	Entries []network.Comparison // empty: the daemon does not know what its plugin made
	Problem string               // what is wrong with it that is not among Entries; empty: nothing
}

// Device is one of this node's overlay devices.
type Device struct {
	Text   string // its name and settings
	MTU    int    // in bytes
	InSync bool
}

// Address explains how a node reaches a, from the node's facts.
func Address(a netip.Addr, f Facts, k Kernel) status.Explanation {
	e := &explanation{
		Explanation: status.Explanation{Address: a, OK: true, Steps: []status.Step{}},
		address:     a, facts: f, kernel: k,
	}
	switch {
	case f.Waiting:
		e.conclude(false, "this node does not know the network config yet: run selvaged status")
	case !f.Network.IsValid():
		e.conclude(false, "the network config disables %s", f.Family)
	case !f.Network.Contains(a):
		e.outside()
	case f.Subnet.IsValid() && f.Subnet.Contains(a):
		e.own()
	case f.Peer != nil:
		e.peer()
	default:
		e.unleased()
	}
	return e.Explanation
}

type explanation struct {
	status.Explanation
	address netip.Addr
	facts   Facts
	kernel  Kernel
}

// conclude sets the verdict, unless an earlier one is bad.
func (e *explanation) conclude(ok bool, format string, args ...any) {
	if e.OK {
		e.OK, e.Verdict = ok, status.Text(fmt.Sprintf(format, args...))
	}
}

func (e *explanation) step(kind, text string, mark status.Mark, note string) {
	e.Steps = append(e.Steps, status.Step{Kind: kind, Text: status.Text(text), Mark: mark, Note: status.Text(note)})
}

func (e *explanation) claims() {
	for _, c := range e.facts.Claims {
		switch {
		case c.Reason != nil:
			e.step("lease", c.Lease, status.Foreign, "rejected: "+c.Reason.Error())
		case !c.Until.IsZero():
			e.step("lease", c.Lease, status.Missing,
				"withdrawn; its entries are retained until "+c.Until.Format("15:04:05"))
		default:
			note := c.Node
			if note == c.Lease { // as with leases in Kubernetes
				note = ""
			}
			e.step("lease", c.Lease, status.Right, note)
		}
	}
}

// peer explains an address of another node's subnet.
func (e *explanation) peer() {
	p := e.facts.Peer
	e.claims()
	if !e.entries(p.Entries) {
		e.conclude(false, "%s belongs to %s, but not all entries of the path are in sync", e.address, p.Name)
	}
	e.actualRoute()
	e.device()
	e.session()
	e.underlay()
	e.step("filter", "inside the overlay: not masqueraded", e.filterMark(), e.facts.Filter.Mode)
	e.foreignFilter()
	e.fastPath()
	e.reach()
	switch role := roleOf(e.address, p.Subnet); {
	case role == broadcast:
		e.conclude(false, "%s is the broadcast address of %s's subnet %s: no pod can have it", e.address, p.Name,
			p.Subnet)
	case role == firstAddress && p.Device != nil:
		e.conclude(true, "%s belongs to %s: the address of its overlay device, reached %s", e.address, p.Name, p.Path)
	case role == firstAddress:
		e.conclude(false, "%s is the network address of %s's subnet %s: no pod can have it", e.address, p.Name,
			p.Subnet)
	case role == gateway:
		e.conclude(true, "%s belongs to %s: the gateway of its pods, reached %s", e.address, p.Name, p.Path)
	default:
		e.conclude(true, "%s belongs to %s, reached %s", e.address, p.Name, p.Path)
	}
}

// role is what an address is in its subnet.
type role int

const (
	podAddress   role = iota
	firstAddress      // the network's, which a node's VXLAN device has
	gateway           // of the pods, on the node's bridge
	broadcast         // of an IPv4 subnet
)

// roleOf returns the role of an address in a subnet. In one that is not known, or too small for other roles, each
// address is a pod's.
func roleOf(a netip.Addr, s netip.Prefix) role {
	switch {
	case !s.IsValid() || s.Addr().BitLen()-s.Bits() < 2:
		return podAddress
	case a == s.Masked().Addr():
		return firstAddress
	case a == subnet.Gateway(s).Addr():
		return gateway
	case a.Is4() && !s.Contains(a.Next()):
		return broadcast
	}
	return podAddress
}

// entries adds a step for each command of each object, and reports whether all are in sync.
func (e *explanation) entries(all []network.Comparison) (ok bool) {
	ok = true
	for _, x := range all {
		mark, note := status.Right, ""
		if !x.InSync {
			ok, mark = false, status.Missing
			if len(x.Actual) > 0 {
				note = "actual: " + strings.Join(x.Actual, "; ")
			}
		}
		for _, line := range x.Desired {
			e.step(x.Kind, line, mark, note)
		}
	}
	return ok
}

// actualRoute compares the kernel's routing decision with the desired one. A foreign route that is more specific or has
// a better metric takes precedence, and so does a rule of policy routing.
func (e *explanation) actualRoute() {
	p := e.facts.Peer
	if p.Link == "" {
		return
	}
	switch hop, err := e.kernel.Route(e.address); {
	case err != nil:
		e.step("route", fmt.Sprintf("the kernel: no route to %s", e.address), status.Foreign, e.shadow())
		e.conclude(false, "%s belongs to %s, but a foreign route keeps packets from it", e.address, p.Name)
	case hop.Link != p.Link:
		e.step("route", fmt.Sprintf("the kernel: %s %s", e.address, hop), status.Foreign, e.shadow())
		e.conclude(false, "%s belongs to %s, but a foreign route sends packets for it out of %s", e.address, p.Name,
			hop.Link)
	default:
		e.step("route", fmt.Sprintf("the kernel: %s %s", e.address, hop), status.Right, "")
	}
}

// shadow names the route that shadows the peer's route.
func (e *explanation) shadow() string {
	switch route, ok, err := e.kernel.Shadowing(e.address, e.facts.Peer.Route); {
	case err != nil:
		return "see ip route and ip rule"
	case ok:
		return "because of " + route
	default:
		return "no route explains it: see ip rule"
	}
}

// device describes the device that packets leave by.
func (e *explanation) device() {
	p := e.facts.Peer
	switch {
	case p.Link == "":
	case p.Device == nil:
		e.step("mtu", fmt.Sprint(e.facts.MTU), status.Note, "of "+p.Link)
	default:
		mark := status.Right
		if !p.Device.InSync {
			mark = status.Missing
			e.conclude(false, "device %s differs from its desired state", p.Link)
		}
		e.step("device", p.Device.Text, mark, "")
		e.step("mtu", fmt.Sprint(p.Device.MTU), status.Note, fmt.Sprintf("of %s; the uplink has %d", p.Link,
			e.facts.MTU))
	}
}

// session describes the session with a WireGuard peer. One without a handshake begins with the next packet.
func (e *explanation) session() {
	s := e.facts.Peer.Session
	if s == nil {
		return
	}
	text, mark := "no handshake yet", status.Note
	if s.Handshake >= 0 {
		text = fmt.Sprintf("last handshake %s ago", s.Handshake.Round(time.Second))
	}
	note := fmt.Sprintf("%d bytes received, %d sent", s.Received, s.Sent)
	if s.Silent {
		mark, note = status.Missing, "packets are not answered; "+note
	}
	e.step("session", text, mark, note)
}

// underlay explains how the peer's public IP is reached.
func (e *explanation) underlay() {
	p := e.facts.Peer
	if !p.PublicIP.IsValid() {
		return
	}
	hop, err := e.kernel.Flow(p.Underlay)
	text := fmt.Sprintf("%s %s", p.PublicIP, hop)
	switch up := e.facts.Uplink; {
	case err != nil:
		e.step("uplink", p.PublicIP.String(), status.Missing, err.Error())
		e.conclude(false, "%s belongs to %s, but this node has no route to its public IP %s", e.address, p.Name,
			p.PublicIP)
	case hop.Link != "" && hop.Link != up && up != loopback:
		e.step("uplink", text, status.Foreign, "not by "+up)
		if p.Reach.State != status.Reachable {
			e.conclude(false, "%s belongs to %s, but packets to its public IP %s leave by %s, and not by the uplink %s",
				e.address, p.Name, p.PublicIP, hop.Link, up)
		}
	default:
		e.step("uplink", text, status.Note, "to "+p.Name)
	}
}

// reach says whether the node answers probes. A node that does not is the last thing that can be wrong.
func (e *explanation) reach() {
	switch r := e.facts.Peer.Reach; r.State {
	case status.Reachable:
		e.step("probe", "answered", status.Right, "in "+r.RTT.Round(10*time.Microsecond).String())
	case status.Unreachable:
		e.step("probe", "not answered", status.Missing, "since "+r.Since.Format("15:04:05"))
		e.conclude(false, "%s belongs to %s, reached %s, which does not answer: selvaged doctor finds out why",
			e.address, e.facts.Peer.Name, e.facts.Peer.Path)
	}
}

// loopback is the name of the loopback interface. As the uplink, it has the node's address, and packets leave by other
// interfaces.
const loopback = "lo"

func (e *explanation) filterMark() status.Mark {
	if e.facts.Filter.InForce {
		return status.Right
	}
	return status.Missing
}

func (e *explanation) foreignFilter() {
	for _, rule := range e.facts.Filter.Foreign {
		e.step("filter", fmt.Sprint(rule), status.Foreign, "")
		e.conclude(false, "%s belongs to %s, but a foreign packet filter on this node drops what is sent to it",
			e.address, cmp.Or(e.facts.Peer.Name, "another node"))
	}
}
