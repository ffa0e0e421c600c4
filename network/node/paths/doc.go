// Package paths watches the paths from this node to other nodes, from a goroutine of its own: [Keeper.Set] says which
// peers and interfaces matter, [Keeper.Run] watches them, and [Keeper.Status] has the results.
//
// It does so in two ways. It probes a few peers through the overlay, as package reach decides. And it asks the kernel
// how it routes packets to and from these peers and to this node's pods (RTM_GETROUTE): the packets of the tunnel,
// those that pods send, and those that arrive for pods. So it sees what the daemon's own tables do not show: other
// programs' policy rules and routing tables, and an uplink that the kernel does not send by.
package paths

import (
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach"
	"github.com/selvage-net/selvage/subnet"
)

// Order says what to watch.
type Order struct {
	Peers   []Peer
	Uplink  string
	Tunnels bool            // the overlay has devices on which nodes have an address
	Port    uint16          // UDP port of the tunnels; 0: none
	Local   [2]netip.Addr   // this node's address on the underlay, by subnet.Family
	Own     [2]netip.Prefix // this node's subnets
	Bridges [2]string       // the interfaces that lead to this node's pods; empty: there is none
	Pods    []Pod           // of this node, as far as they are known
}

// Peer is another node. Its zero paths are not watched.
type Peer struct {
	Key   string // of its lease
	Name  string
	Paths [2]Path // by subnet.Family
}

// Path is the desired path to a peer.
type Path struct {
	Subnet   netip.Prefix
	PublicIP netip.Addr
	Link     string // the device that its route leads out of
	Tunnel   bool
}

// Status is what is known of the paths.
type Status struct {
	Results [2]map[string]reach.Result // by subnet.Family and key of the lease
	Totals  [2]reach.Totals
	Off     status.Reason // why no peer is probed; empty: they are probed
	Faults  []Fault
	Unread  error     // why the kernel's routing cannot be checked, so that Faults is old; nil: it can
	Since   time.Time // of Unread
	// Blocked are the examined addresses of this node's pods that get no packets, because of one or the other fault.
	Blocked map[netip.Addr]struct{}
}

// Fault is something in the kernel that keeps packets from a path.
type Fault struct {
	Code   status.Reason
	Family subnet.Family
	Text   string
	Own    bool // it concerns the way to this node's pods; false: that to other nodes
	Sure   bool // packets are lost for certain; false: they take another way
	// All: it concerns all examined peers or pods; if it is sure, together with other faults that are.
	All bool
	// Main: a foreign route in the main table rejects or diverts the packets. The tables show it, so Text is empty.
	Main  bool
	Since time.Time // when it was first seen
}

// Kernel answers questions about routing. Lookup in package network/kernel implements it.
type Kernel interface {
	// Flow returns the kernel's route for a flow, or an error that says why there is none.
	Flow(network.Flow) (network.Hop, error)
	// Rejecting returns the rule or route that rejects a flow.
	Rejecting(network.Flow) (network.Rejection, error)
	// FixedAt returns the port to which a bridge forwards frames for a MAC address because of an FDB entry that it did
	// not learn; empty: there is none.
	FixedAt(bridge string, mac network.MAC) (port string, err error)
}
