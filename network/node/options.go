// Package node assembles one node's daemon from its parts: the lease store, the uplink, a backend, the kernel, the
// packet filter and the subnet file. main, the lab and the tests all call [Run].
//
// One goroutine, the loop in node.go, owns everything that is decided: the view of the leases, the tables, the node's
// own lease. The others only report to it (the store's watch, the kernel's notifications, a claim that ended) or do
// slow work it ordered (a claim, the filter rules); each is waited for before Run returns.
package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// Options are what [Run] needs to know. All fields are required unless they say otherwise.
type Options struct {
	Store      subnet.Store
	Uplink     uplink.Options // Families is filled in from the network config
	NodeName   string         // for display only
	Version    string         // of the daemon, for display only
	Kernel     string         // its release, for display only
	SubnetFile string         // path
	StateDir   string         // path of the directory in which the node's identity is kept
	IPMasq     bool           // masquerade what crosses the overlay's edge
	// RandomFully has masquerading choose source ports at random throughout, where iptables can.
	RandomFully bool
	Forward     bool // accept forwarding from and to the overlay
	// RulesResync is how often the packet filter's rules are checked, since the kernel does not report every change of
	// them.
	RulesResync time.Duration
	// Resync is how often the kernel's tables are read in full, give or take a tenth. Notifications keep them right in
	// between.
	Resync time.Duration
	// PeerGrace is how long a peer whose lease vanished stays in the kernel. 0: not at all.
	PeerGrace time.Duration
	// BlackholeRoute has packets for pods of this node that do not exist dropped, and not sent to the default gateway.
	BlackholeRoute bool
	// TxChecksum is the checksum offload of VXLAN devices, see vxlan.TxChecksum.
	TxChecksum network.Offload
	// LeaseTTL is how long a lease runs without being renewed: a peer that is missing after the store lost its memory
	// may be back until then.
	LeaseTTL time.Duration
	// CachedStart has a node that starts while the store is silent come up from the leases that it kept.
	CachedStart bool
	// VTEPFilter lets VXLAN packets in from the public IPs of leases only, where nf_tables is there, and from
	// VTEPAllow.
	VTEPFilter bool
	VTEPAllow  []netip.Prefix // may be nil
	API        *api.Server    // tells what the daemon has to tell; may be nil
	Ready      func()         // called once, when everything is in place and the subnet file is written; may be nil
	Log        logrus.FieldLogger
}

// newBackend makes the backend that the network config names.
func newBackend(c subnet.Config, u backend.Underlay) (backend.Backend, error) {
	factory, ok := backends()[c.Backend.Type]
	if !ok {
		return nil, fmt.Errorf("network config: Backend.Type is %q, want one of %q", c.Backend.Type, slices.Sorted(maps.Keys(backends())))
	}
	return factory(c, u)
}
