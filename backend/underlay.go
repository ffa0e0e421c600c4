package backend

import (
	"fmt"
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
	// ReversePath: the uplink accepts packets only from sources that it would send to (rp_filter), or did until selvage
	// loosened that.
	ReversePath bool
	// InTunnel keeps peers in the tunnel that could be reached directly, for a moment: others, that this node could
	// send to directly, may not accept that yet.
	InTunnel bool
	// TxChecksum is the desired checksum offload of overlay devices: see [network.Link].
	TxChecksum network.Offload
	// Nexthops: the kernel has nexthop objects, and routes over IPv4 use them: see [network.State.Via].
	Nexthops bool
	// FastPath: the node uses the fast path where it can, so its programs have to know the peers.
	FastPath bool
	// Own is the node's own lease from before, if there is one.
	Own *subnet.Lease
	// Rotation is a change of the node's key, or of a peer's: see [Rotator].
	Rotation Rotation
	// Keep is what the node keeps for the backend.
	Keep Keeper
}

// Keeper keeps what has to stay the same across restarts and reboots, as peers know the node by it. A node that turns
// out to share it with another one, as clones of a machine do, makes a new backend with a Keeper that chooses new
// values.
type Keeper interface {
	// MAC returns the MAC address of the node's device of that name. lease is the address in the node's own lease, or
	// zero: peers that know the node send to it.
	MAC(device string, lease network.MAC) network.MAC
	// Secret returns the secret of size bytes kept under a name, such as a private key: lower-case letters, digits and
	// dashes. If there is none, it keeps the one that generate returns. It never replaces a damaged one: the error
	// names the file, and says what to do. A secret is never logged, and no error repeats it; callers do the same.
	Secret(name string, size int, generate func() ([]byte, error)) ([]byte, error)
}

// Reaches reports whether the uplink reaches an address without a gateway.
func (u Underlay) Reaches(a netip.Addr) bool {
	return slices.ContainsFunc(u.OnLink[subnet.FamilyOf(a)], func(p netip.Prefix) bool { return p.Contains(a) })
}

// Exceeded returns the warning that the config's Backend.MTU is more than the uplink's; an empty string if it is not.
func (u Underlay) Exceeded(mtu int) string {
	if mtu <= u.MTU {
		return ""
	}
	return fmt.Sprintf("Backend.MTU in the network config is %d, more than the MTU of uplink %s, %d: "+
		"using the uplink's; raise the uplink's MTU or lower Backend.MTU", mtu, u.Link, u.MTU)
}

// Direct adds what a peer needs that is reached without a tunnel: the route to its subnet by its underlay address, out
// of the uplink. The route names the gateway itself and no nexthop object: the kernel deletes those that lead out of an
// interface when that loses its carrier (nexthop_flush_dev in net/ipv4/nexthop.c).
func (u Underlay) Direct(s *network.State, e subnet.Endpoint) {
	s.Routes = append(s.Routes, network.Item[network.RouteKey, network.Route]{
		Key:   network.RouteKey{Prefix: e.Subnet, Metric: network.DefaultMetric(e.Subnet)},
		Value: network.Route{Link: u.Link, Gateway: e.PublicIP, Protocol: network.RouteProtocol, Type: network.Unicast},
	})
	if u.FastPath {
		s.FastPeers = append(s.FastPeers, network.Item[netip.Prefix, network.FastPeer]{
			Key: e.Subnet, Value: network.FastPeer{Address: e.PublicIP, Direct: true},
		})
	}
}

// LooseReversePath makes the kernel accept packets on an interface if it has any route back to their source. The kernel
// uses the higher of the interface's value and the value of "all" (IN_DEV_RPFILTER).
func LooseReversePath(link string) network.Item[string, network.Sysctl] {
	return network.Item[string, network.Sysctl]{Key: "net/ipv4/conf/" + link + "/rp_filter", Value: "2"}
}
