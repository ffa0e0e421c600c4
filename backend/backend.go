// Package backend says what a backend is: it turns the network config and a node's place in the underlay into what the
// node advertises, and each peer's lease into what that peer needs in the kernel. A backend decides and does nothing:
// all of its methods are pure, and package network does the rest.
//
// A new backend is one folder here, and one line in the map of package network/node.
package backend

import (
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Underlay is a node's place in the network that carries the overlay.
type Underlay struct {
	Link     string            // the uplink's name
	MTU      int               // the uplink's, in bytes
	Local    [2]netip.Addr     // addresses on the uplink, by subnet.Family; invalid where the node has none
	PublicIP [2]netip.Addr     // the addresses that peers send to: Local, or what is mapped to it
	OnLink   [2][]netip.Prefix // what the uplink reaches without a gateway, by subnet.Family
	// ReversePath: the uplink takes packets only from sources that it would send to (rp_filter), or did until it was told to
	// be less strict.
	ReversePath bool
	// InTunnel keeps peers in the tunnel that could be reached directly, for a moment: others, that this node could send to
	// directly, may not take that yet.
	InTunnel bool
	// TxChecksum is what VXLAN devices are to have the uplink do for them: see [network.Link].
	TxChecksum network.Offload
	// MAC returns the MAC address that the node's device of that name should have. lease is the one that the node's own
	// lease says, or zero: peers that know the node send to it.
	MAC func(device string, lease network.MAC) network.MAC
	// Nexthops: the kernel has nexthop objects, and routes over IPv4 are to go by them: see [network.State.Via].
	Nexthops bool
	// Own is the node's own lease from before, if there is one.
	Own *subnet.Lease
}

// Backend is one way of carrying packets between nodes.
type Backend interface {
	// Advertise returns what peers need to know to reach this node, by subnet.Family: PublicIP and Data of its lease.
	Advertise() [2]subnet.Endpoint
	// Device returns the node's own links, and the addresses they have once the node has those subnets; an invalid
	// prefix stands for a family that is off, or whose subnet is not known yet.
	Device(subnets [2]netip.Prefix) network.State
	// Peer returns what one peer needs in the kernel. The error says what in the lease cannot be used.
	Peer(subnet.Lease) (network.State, error)
	// Unique returns what no two nodes may share, for subnet.Rules.Unique: it hangs on the lease and the network config
	// alone, so that all nodes agree.
	Unique(subnet.Lease) []string
	// MTU is what fits through between pods, in bytes: the MTU of the subnet file.
	MTU() int
}

// Warner is a [Backend] that can say what in config and underlay an operator should see to, though it works: one sentence,
// or nothing.
type Warner interface{ Warning() string }

// Mixed is a [Backend] with a tunnel that may send to some peers past it.
type Mixed interface{ Direct() bool }

// Checker is a [Backend] that can tell with less effort than by Peer that it cannot use a lease. The error is the same.
type Checker interface{ Check(subnet.Lease) error }

// Check reports whether a backend can use a peer's lease.
func Check(b Backend, l subnet.Lease) error {
	if c, ok := b.(Checker); ok {
		return c.Check(l)
	}
	_, err := b.Peer(l)
	return err
}

// Factory makes a backend from a network config whose Backend.Type it serves. Its error names the field of the config
// that is wrong, or what the underlay lacks.
type Factory func(subnet.Config, Underlay) (Backend, error)

// Reaches reports whether the uplink reaches an address without a gateway.
func (u Underlay) Reaches(a netip.Addr) bool {
	return slices.ContainsFunc(u.OnLink[subnet.FamilyOf(a)], func(p netip.Prefix) bool { return p.Contains(a) })
}

// Direct returns the route to a peer's subnet by its underlay address, out of the uplink: no tunnel. It names the gateway
// itself and no nexthop object: the kernel deletes those that lead out of an interface when that loses its carrier
// (nexthop_flush_dev in net/ipv4/nexthop.c).
func (u Underlay) Direct(e subnet.Endpoint) network.Item[network.RouteKey, network.Route] {
	return network.Item[network.RouteKey, network.Route]{
		Key:   network.RouteKey{Prefix: e.Subnet, Metric: network.DefaultMetric(e.Subnet)},
		Value: network.Route{Link: u.Link, Gateway: e.PublicIP, Protocol: network.RouteProtocol, Type: network.Unicast},
	}
}
