package node

import (
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// The desired state of each part is derived here from what the loop knows.

// policy is what the packet filter is to do.
func (n *node) policy() filter.Policy {
	p := filter.Policy{
		Forward: n.Forward, Masquerade: n.IPMasq, RandomFully: n.RandomFully,
		Tag: n.scope.Tag(), Former: n.formerTags,
		Networks: networks(*n.config), NFTables: n.config.NFTables, Devices: n.ownDevices(),
	}
	if n.sendsDirectly() {
		p.Devices = append(p.Devices, n.uplink.Name)
	}
	for _, s := range n.subnets {
		if s.IsValid() {
			p.Own = append(p.Own, s)
		}
	}
	for _, bridge := range n.podBridges() {
		if !slices.Contains(p.Devices, bridge) {
			p.Bridges = append(p.Bridges, bridge)
		}
	}
	return p
}

// vtepConfig is the configuration of the VTEP filter; enabled is false if the node runs without one.
func (n *node) vtepConfig() (c vtepfilter.Config, enabled bool) {
	c = vtepfilter.Config{Networks: networks(*n.config), Allow: n.VTEPAllow, Devices: n.ownDevices()}
	for _, l := range n.device.Links {
		if v, ok := l.Value.Settings.(network.VXLAN); ok { // the filter knows VXLAN only
			c.Port, c.VNI = v.Port, v.VNI
		}
	}
	for _, bridge := range n.podBridges() {
		if bridge != n.uplink.Name && !slices.Contains(c.Devices, bridge) {
			c.Devices = append(c.Devices, bridge)
		}
	}
	return c, n.VTEPFilter && c.Port != 0
}

// podBridges are the bridges of this node's pods, as the records of attachments say; one of a pod without a record
// holds the node's subnet.
func (n *node) podBridges() (names []string) {
	for _, b := range n.ownSide.state.Bridges {
		names = append(names, b.Key)
	}
	for _, s := range n.subnets {
		if !s.IsValid() {
			continue
		}
		route := n.tables.Routes.Get(network.RouteKey{Prefix: s, Metric: network.ConnectedMetric(s)})
		if name := route.Have.Link; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// wantedVTEPs yields the peers that the VTEP filter is to accept.
func (n *node) wantedVTEPs(yield func(netip.Addr) bool) {
	for a, c := range n.tables.VTEPs.All {
		if c.Wanted && !yield(a) {
			return
		}
	}
}

// subnetFile is the content of the subnet file.
func (n *node) subnetFile() subnetfile.File {
	f := subnetfile.File{MTU: n.backend.Describe().MTU, IPMasq: n.IPMasq}
	for _, family := range subnet.Families() {
		if r := n.config.Ranges[family]; r.Enabled() {
			f.Networks[family] = []netip.Prefix{r.Network}
			f.Subnets[family] = subnet.Gateway(n.subnets[family])
		}
	}
	return f
}

// ownPending is how much of the node's own part of the overlay is out of sync: devices, addresses, settings. What only
// has to be removed does no harm, and what pods depend on is no part of it.
func (n *node) ownPending() (count int) {
	missing := func() { count++ }
	inSync(n.tables.Links, n.device.Links, func(string, network.Link) { missing() })
	inSync(n.tables.WireGuards, n.device.WireGuards, func(string, network.WireGuard) { missing() })
	inSync(n.tables.Addresses, n.device.Addresses, func(network.AddressKey, network.Address) { missing() })
	inSync(n.tables.Sysctls, n.device.Sysctls, func(string, network.Sysctl) { missing() })
	return count
}
