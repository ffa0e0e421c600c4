package node

import (
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// ownCuts returns the families whose traffic is cut because a device of the overlay, the bridge of the pods or its
// route, or a setting that makes the kernel forward, is out of sync.
func (n *node) ownCuts() (families []string) {
	var cut [2]bool
	for _, t := range n.backend.Describe().Tunnels {
		if c := n.tables.Links.Get(t.Device); c.Wanted && (!c.Present || !c.Have.Up) && t.Local.IsValid() {
			cut[subnet.FamilyOf(t.Local)] = true
		}
	}
	for _, x := range n.ownSide.state.Bridges { // a node has one bridge of pods as a rule
		if c := n.tables.Bridges.Get(x.Key); !c.Present || !c.Have.Up || c.Have.Kind != x.Value.Kind {
			for f, s := range n.subnets {
				cut[f] = cut[f] || s.IsValid()
			}
		}
	}
	inSync(n.tables.Routes, n.ownSide.state.Routes, func(k network.RouteKey, _ network.Route) {
		if f := subnet.FamilyOf(k.Prefix.Addr()); k.Prefix == n.subnets[f] {
			cut[f] = true
		}
	})
	for _, x := range slices.Concat(n.device.Sysctls, n.ownSide.state.Sysctls) {
		f, forwards := forwardingFamily(x.Key)
		if c := n.tables.Sysctls.Get(x.Key); forwards && c.Present && c.Have != x.Value {
			cut[f] = true
		}
	}
	return familyNames(cut)
}

// forwardingFamily returns the family that a kernel setting turns the forwarding of on and off; ok is false for any
// other setting.
func forwardingFamily(path string) (f subnet.Family, ok bool) {
	if strings.HasPrefix(path, "net/ipv6/") {
		f = subnet.IPv6
	}
	return f, path == "net/ipv4/ip_forward" || strings.HasSuffix(path, "/forwarding")
}

// familyNames returns the names of families, as the status has them.
func familyNames(set [2]bool) (names []string) {
	for _, f := range subnet.Families() {
		if set[f] {
			names = append(names, f.String())
		}
	}
	return names
}

// only returns a set with one family.
func only(f subnet.Family) (set [2]bool) {
	set[f] = true
	return set
}
