// Package node assembles one node's daemon from its parts: the lease store, the uplink, a backend, the kernel, the
// packet filter and the subnet file. main, the lab and the tests all call [Run].
//
// One goroutine, the loop in loop.go, owns the state and makes all decisions: the view of the leases, the tables, the
// node's own lease. The other goroutines only notify it (the store's watch, the kernel's notifications, a finished
// claim) or do slow work for it (a claim, the filter rules). Run waits for all of them before it returns.
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
	"github.com/selvage-net/selvage/network/mesh/exchange"
	"github.com/selvage-net/selvage/network/node/api"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/uplink"
	"github.com/selvage-net/selvage/subnet"
)

// Options configure [Run]. All fields are required unless their comments say otherwise.
type Options struct {
	Store subnet.Store
	// StorePrefix is the prefix of the network's keys in the store; empty: network.DefaultPrefix. StoreEndpoints are
	// the store's, as configured; empty: it has none. They distinguish networks and stores from each other.
	StorePrefix    string
	StoreEndpoints []string
	Uplink         uplink.Options // Families is filled in from the network config
	NodeName       string         // for display only
	Version        string         // of the daemon, for display only
	Kernel         string         // its release, for display only
	SubnetFile     string         // path
	StateDir       string         // path of the directory with the node's identity
	IPMasq         bool           // masquerade packets that cross the overlay's edge
	// RandomFully makes masquerading choose fully random source ports, if iptables supports it.
	RandomFully bool
	Forward     bool // accept forwarding from and to the overlay
	// RulesResync is the interval of checks of the packet filter's rules, since the kernel does not report every change
	// of them.
	RulesResync time.Duration
	// Resync is the interval of full resyncs with the kernel's tables, with a jitter of a tenth. In between,
	// notifications keep the tables up to date.
	Resync time.Duration
	// PeerGrace is how long the entries of a withdrawn lease are retained in the kernel. 0: they are removed at once.
	PeerGrace time.Duration
	// PeerProbeInterval is how often a few other nodes are probed through the overlay. 0: never.
	PeerProbeInterval time.Duration
	// BlackholeRoute drops packets for addresses of this node's subnet that no pod has, instead of sending them to the
	// default gateway.
	BlackholeRoute bool
	// TxChecksum is the checksum offload of VXLAN devices, see vxlan.TxChecksum.
	TxChecksum network.Offload
	// UserSpaceWireGuard has WireGuard devices served in user space, where the kernel has no WireGuard.
	UserSpaceWireGuard bool
	// KeyFiles are the paths of the files that hold secrets of a backend, such as the private key "wireguard", in
	// base64. Others are kept in StateDir, and flannel's are taken over at the first start.
	KeyFiles map[string]string
	// LeaseTTL is how long a lease lives without a keep-alive: a peer that is missing after the store lost its data
	// may claim its lease again within that time.
	LeaseTTL time.Duration
	// CachedStart makes a node that starts while the store is unreachable use its cached leases.
	CachedStart bool
	// VTEPFilter accepts VXLAN packets only from the public IPs of leases and from VTEPAllow, if nf_tables is
	// available.
	VTEPFilter bool
	VTEPAllow  []netip.Prefix // may be nil
	// Policies enforces network policies; nil: the node enforces none, and removes the tables of an earlier run.
	Policies *Policies
	// PoliciesOff says why the node enforces none.
	PoliciesOff status.Reason
	// FastPath says when the node uses the fast path, with pins in the BPF file system at the path BPFFS, if there is
	// one.
	FastPath FastPathMode
	BPFFS    string
	API      *api.Server      // serves the status; may be nil
	Mesh     *exchange.Server // serves a summary of it to other nodes; nil: none
	Ready    func()           // called once, when the node is in sync and the subnet file is written; may be nil
	AtRest   func()           // called once, some seconds after a start is over; may be nil
	Log      logrus.FieldLogger
}

// newBackend creates the backend that the network config names.
func newBackend(c subnet.Config, u backend.Underlay) (backend.Backend, error) {
	kind, err := backendKind(c)
	if err != nil {
		return nil, err
	}
	return kind.New(c, u)
}

// backendKind returns the kind of backend that the network config names.
func backendKind(c subnet.Config) (backend.Kind, error) {
	kind, ok := backends()[c.Backend.Type]
	if !ok {
		return kind, fmt.Errorf("network config: Backend.Type is %q, want one of %q",
			c.Backend.Type, slices.Sorted(maps.Keys(backends())))
	}
	return kind, nil
}
