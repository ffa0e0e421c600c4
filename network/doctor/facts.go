package doctor

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/filter/engines"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// Facts is everything that was gathered. What could not be read is zero, and checks draw no conclusion from it.
type Facts struct {
	Now       time.Time
	Status    *status.Status // nil: DaemonErr says why
	DaemonErr error
	Peers     []status.Peer
	Store     *status.StoreReport // nil: StoreErr says why, or the daemon does not answer
	StoreErr  error
	Config    *subnet.Config // the network config that the daemon uses

	Kernel     Kernel
	Sysctls    map[string]string // by path below /proc/sys, only those that exist
	Links      []Link
	Routes     []Route // foreign routes to addresses of the overlay
	Drops      []blocking.Drop
	KubeProxy  bool             // kube-proxy's rules are in iptables
	Engines    []engines.Engine // others that enforce network policies
	Invalid    uint64           // packets that conntrack took for invalid, since the start of the machine
	Thresholds map[string]int   // gc_thresh3 by neighbour table, arp_cache and ndisc_cache
	File       SubnetFile
	CNI        CNI
	Pods       []Pod   // of this node, as recorded by the CNI plugin
	Damaged    []error // records that cannot be read

	Paths     []probe.Path
	Counters  DropCounters                  // their increase during the detailed probes
	Explained map[string]status.Explanation // of some unreachable peers, by lease key
	ProbeErr  error
	Losses    map[probedPath]probe.Losses // measured where the daemon's probes are lost
	// Skipped are unreachable peers, by lease key, beyond the maximum that is probed in detail.
	Skipped map[string]bool
	// Underlay is how the kernel sends packets to the public IPs of unreachable peers.
	Underlay map[netip.Addr]UnderlayRoute
	// Discards are rules of the packet filter that drop the packets of tunnels to unreachable peers.
	Discards map[blocking.Tunnel][]blocking.Discard
	// Unresolved are addresses on this node's links that no host answered for (ARP or neighbour discovery).
	Unresolved map[netip.Addr]bool

	selects func(check string) bool // whether a check is to be run
}

// Kernel is what the running kernel supports.
type Kernel struct {
	Release  string
	NFTables error // why nf_tables cannot be used, or nil
	Nexthops error // why nexthop objects cannot be used, or nil
}

// Link is a network interface.
type Link struct {
	Name, Kind, Alias string
	Index             int
	MTU               int
	Up                bool
	Ports             int // that are attached to it as their bridge
	Addresses         []netip.Prefix
	// For VXLAN devices only.
	VNI      uint32
	Port     uint16
	Local    netip.Addr
	MAC      string
	Overhead int // bytes that the device adds to each packet
}

// Route is a foreign route: selvage did not add it.
type Route struct {
	Prefix netip.Prefix
	Link   string
	Text   string // as an argument of ip route
	Metric int
	Kernel bool // the kernel added it for an address (proto kernel)
}

// UnderlayRoute is the kernel's route to a public IP.
type UnderlayRoute struct {
	Link string     // the interface; empty: there is no route
	Via  netip.Addr // the gateway; invalid: none
	Err  string     // why there is no route
}

// SubnetFile is the file that the daemon writes for the CNI plugin.
type SubnetFile struct {
	Path    string
	Content subnetfile.File
	Err     error
}

// DropCounters count packets that the kernel dropped.
type DropCounters struct {
	Checksum    uint64 // UDP packets with a wrong checksum
	ReversePath uint64 // packets that the reverse path filter (rp_filter) dropped
	Strangers   uint64 // VXLAN packets that the VTEP filter dropped, from sources without a lease
}

func (c DropCounters) since(before DropCounters) DropCounters {
	return DropCounters{
		Checksum: c.Checksum - before.Checksum, ReversePath: c.ReversePath - before.ReversePath,
		Strangers: c.Strangers - before.Strangers,
	}
}

// link finds an interface.
func (f Facts) link(name string) (Link, bool) {
	i := slices.IndexFunc(f.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return f.Links[i], true
}

// linkWithAddress finds the interface that has an address.
func (f Facts) linkWithAddress(a netip.Addr) (Link, bool) {
	i := slices.IndexFunc(f.Links, func(l Link) bool {
		return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	})
	if i < 0 {
		return Link{}, false
	}
	return f.Links[i], true
}

// scope returns the network that the node's daemon keeps; without a daemon, the default one.
func (f Facts) scope() network.Scope {
	if f.Status == nil {
		return network.Scope{}
	}
	return network.NewScope(f.Status.Prefix, f.Status.VNI)
}

// devices returns the desired state of the overlay's devices; without a daemon, the devices that it left behind.
func (f Facts) devices() (all []status.Device) {
	if f.Status != nil {
		if f.Status.Backend != nil {
			return f.Status.Backend.Devices
		}
		return nil
	}
	for _, l := range f.Links {
		if _, ok := network.ParseAlias(l.Alias); ok {
			all = append(all, status.Device{
				Name: l.Name, Kind: l.Kind, VNI: l.VNI, Port: l.Port, MTU: l.MTU, Overhead: l.Overhead,
				MAC: l.MAC, Local: l.Local, Present: true,
			})
		}
	}
	return all
}

// own returns the subnets of this node's lease; without a daemon, those of the subnet file.
func (f Facts) own() (all []netip.Prefix) {
	if f.Status != nil && f.Status.Lease != nil {
		return f.Status.Lease.Subnets
	}
	for _, p := range f.File.Content.Subnets {
		if p.IsValid() {
			all = append(all, p.Masked())
		}
	}
	return all
}

// networks returns the overlay's networks.
func (f Facts) networks() (all []netip.Prefix) {
	if f.Config != nil {
		for _, r := range f.Config.Ranges {
			if r.Enabled() {
				all = append(all, r.Network)
			}
		}
		return all
	}
	return slices.Concat(f.File.Content.Networks[:]...)
}

// uses reports whether the overlay has a network of the family.
func (f Facts) uses(family subnet.Family) bool {
	return slices.ContainsFunc(f.networks(), func(p netip.Prefix) bool { return subnet.FamilyOf(p.Addr()) == family })
}

// podMTU returns the MTU that pods should have, or 0 if it is not known.
func (f Facts) podMTU() int {
	if f.Status != nil && f.Status.Backend != nil {
		return f.Status.Backend.PodMTU
	}
	return f.File.Content.MTU
}

// uplink returns the interface that carries the overlay; without a daemon, the one that has the device's local address.
func (f Facts) uplink() (Link, bool) {
	if f.Status != nil {
		if f.Status.Uplink == nil {
			return Link{}, false
		}
		return f.link(f.Status.Uplink.Name)
	}
	for _, d := range f.devices() {
		if l, ok := f.linkWithAddress(d.Local); ok {
			return l, true
		}
	}
	return Link{}, false
}

// bridge returns the pods' bridge, if it exists: the one that pods are recorded on, or else that of the CNI
// configuration.
func (f Facts) bridge() (Link, bool) {
	if f.Status != nil && f.Status.Pods != nil {
		for _, b := range f.Status.Pods.Bridges {
			if l, ok := f.link(b.Name); ok && b.Name != "" {
				return l, true
			}
		}
	}
	own, ok := f.CNI.own()
	if ok && own.Bridge == "" {
		return Link{}, false
	}
	name := defaultBridge
	if ok {
		name = own.Bridge
	}
	return f.link(name)
}

// backendMTU returns Backend.MTU of the network config, or 0 if it is not set.
func (f Facts) backendMTU() int {
	var o struct{ MTU int }
	if f.Config == nil || json.Unmarshal(f.Config.Backend.Options, &o) != nil {
		return 0
	}
	return o.MTU
}

// device returns the overlay device of that name, or the zero value.
func (f Facts) device(name string) (d status.Device) {
	for _, d := range f.devices() {
		if d.Name == name {
			return d
		}
	}
	return d
}
