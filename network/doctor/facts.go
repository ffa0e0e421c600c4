package doctor

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// Facts is all that was found out. What could not be is zero, and no check makes anything of it.
type Facts struct {
	Now       time.Time
	Status    *status.Status // nil: DaemonErr says why
	DaemonErr error
	Peers     []status.Peer
	Etcd      *status.EtcdReport // nil: EtcdErr says why, or there is no daemon to ask
	EtcdErr   error
	Config    *subnet.Config // in force

	Kernel     Kernel
	Sysctls    map[string]string // by the path below /proc/sys; those that there are not are missing
	Links      []Link
	Routes     []Route // of others, to addresses of the overlay
	Drops      []blocking.Drop
	KubeProxy  bool           // its rules are in iptables
	Thresholds map[string]int // gc_thresh3 by table of neighbours, arp_cache and ndisc_cache
	File       SubnetFile
	CNI        CNI

	Paths     []probe.Path
	Counted   Counters                      // by how much they rose during the second look
	Explained map[string]status.Explanation // of some peers that are not reached, by lease key
	ProbeErr  error
	// Skipped are peers, by lease key, that do not answer and were not looked at closer, since too many do not.
	Skipped map[string]bool
	// Unresolved are addresses that this node asked for in vain on a link of its own.
	Unresolved map[netip.Addr]bool
}

// Kernel is what there is in it.
type Kernel struct {
	Release  string
	NFTables error // it cannot be used, and why
	Nexthops error // there are no nexthop objects
}

// Link is a network interface.
type Link struct {
	Name, Kind, Alias string
	Index             int
	MTU               int
	Up                bool
	Addresses         []netip.Prefix
	// Of VXLAN devices.
	VNI      uint32
	Port     uint16
	Local    netip.Addr
	MAC      string
	Overhead int // bytes that it adds to a packet on the underlay
}

// Route is a route that somebody else made.
type Route struct {
	Prefix netip.Prefix
	Link   string
	Text   string // as ip route takes it
	Metric int
	Kernel bool // the kernel made it for an address
}

// SubnetFile is what the daemon tells the CNI plugin.
type SubnetFile struct {
	Path    string
	Content subnetfile.File
	Err     error
}

// Counters are of what the kernel drops.
type Counters struct {
	Checksum    uint64 // UDP packets with a wrong one
	ReversePath uint64 // packets whose source would be sent to by another interface
	Strangers   uint64 // VXLAN packets that the VTEP filter did not let in
}

func (c Counters) since(before Counters) Counters {
	return Counters{c.Checksum - before.Checksum, c.ReversePath - before.ReversePath, c.Strangers - before.Strangers}
}

// link finds an interface.
func (f Facts) link(name string) (Link, bool) {
	i := slices.IndexFunc(f.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return f.Links[i], true
}

// holder finds the interface that has an address.
func (f Facts) holder(a netip.Addr) (Link, bool) {
	i := slices.IndexFunc(f.Links, func(l Link) bool {
		return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	})
	if i < 0 {
		return Link{}, false
	}
	return f.Links[i], true
}

// devices are the overlay's own, as they are wanted; without a daemon, as it left them.
func (f Facts) devices() (all []status.Device) {
	if f.Status != nil {
		if f.Status.Backend != nil {
			return f.Status.Backend.Devices
		}
		return nil
	}
	for _, l := range f.Links {
		if l.Alias == network.Alias {
			all = append(all, status.Device{
				Name: l.Name, Kind: l.Kind, VNI: l.VNI, Port: l.Port, MTU: l.MTU, Overhead: l.Overhead, MAC: l.MAC, Local: l.Local,
				Present: true,
			})
		}
	}
	return all
}

// own are the node's subnets, as leased; without a daemon, as the subnet file has them.
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

// networks are the overlay's.
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

// uses reports whether the overlay has a family.
func (f Facts) uses(family subnet.Family) bool {
	return slices.ContainsFunc(f.networks(), func(p netip.Prefix) bool { return subnet.FamilyOf(p.Addr()) == family })
}

// podMTU is what pods are to have; 0: nobody knows.
func (f Facts) podMTU() int {
	if f.Status != nil && f.Status.Backend != nil {
		return f.Status.Backend.PodMTU
	}
	return f.File.Content.MTU
}

// uplink is the interface that carries the overlay. Without a daemon, it is the one with the address that the device sends from.
func (f Facts) uplink() (Link, bool) {
	if f.Status != nil {
		if f.Status.Uplink == nil {
			return Link{}, false
		}
		return f.link(f.Status.Uplink.Name)
	}
	for _, d := range f.devices() {
		if l, ok := f.holder(d.Local); ok {
			return l, true
		}
	}
	return Link{}, false
}

// bridge is the pods', if there is one.
func (f Facts) bridge() (Link, bool) {
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

// backendMTU is what the network config wants of the uplink; 0: nothing.
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
