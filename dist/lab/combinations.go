package lab

import (
	"fmt"
	"slices"

	"github.com/selvage-net/selvage/subnet"
)

// Combination is one way to run an overlay, for [Combination.Run] to try.
type Combination struct {
	Families []subnet.Family
	Backend  Backend
	Filter   Filter
	Store    subnet.StoreKind // of the leases, see Options.Store
	Segments int
	MTU      int // of the uplinks; 0 means the default
}

// Backend is a Backend object of the network configuration, and what is expected of it.
type Backend struct {
	Name   string // in the matrix
	Config string // JSON
	// Direct: nodes on one segment reach each other without a tunnel.
	Direct bool
	// OneSegment: it cannot reach nodes on other segments.
	OneSegment bool
	// Overhead is by how much the pods' MTU is to be below the uplink's, by subnet.Family.
	Overhead [2]int
	// WireGuard are the devices that carry the families, by subnet.Family. Each needs a program where the kernel has no
	// WireGuard, see Options.WireGuard. Default none.
	WireGuard [2]string
}

// Filter is a way to have packets forwarded and masqueraded.
type Filter struct {
	Name     string // in the matrix
	IPTables string // see Options.IPTables
	NFTables NFTables
}

// Combinations lists what the matrix tries: each of these with each other, as far as that makes sense, and a few more. What
// is new in the daemon is a line here.
func Combinations() (all []Combination) {
	families := [][]subnet.Family{{subnet.IPv4}, {subnet.IPv6}, {subnet.IPv4, subnet.IPv6}}
	vxlanOverhead := [2]int{subnet.IPv4: 50, subnet.IPv6: 70}
	vxlan := Backend{Name: "vxlan", Config: `{"Type":"vxlan"}`, Overhead: vxlanOverhead}
	backends := []Backend{
		vxlan,
		{Name: "vxlan direct", Config: `{"Type":"vxlan","DirectRouting":true}`, Direct: true, Overhead: vxlanOverhead},
		{Name: "host-gw", Config: `{"Type":"host-gw"}`, Direct: true, OneSegment: true},
	}
	nft := Filter{Name: "iptables-nft", IPTables: "nft", NFTables: NFTablesOff}
	filters := []Filter{
		nft,
		{Name: "iptables-legacy", IPTables: "legacy", NFTables: NFTablesOff},
		{Name: "nftables", IPTables: "none", NFTables: NFTablesOn}, // without iptables, so that nothing but nftables can do it
	}
	add := func(c Combination) {
		for _, c.Store = range []subnet.StoreKind{subnet.StoreEtcd, subnet.StoreKubernetes} {
			all = append(all, c)
		}
	}
	for _, f := range families {
		for _, b := range backends {
			for _, r := range filters {
				for _, segments := range []int{1, 2} {
					if segments == 1 || !b.OneSegment {
						add(Combination{Families: f, Backend: b, Filter: r, Segments: segments})
					}
				}
			}
		}
	}
	for _, f := range families {
		add(Combination{Families: f, Backend: vxlan, Filter: nft, Segments: 2, MTU: 1400})
		for _, b := range backends {
			segments := 2
			if b.OneSegment {
				segments = 1
			}
			add(Combination{Families: f, Backend: b, Filter: nft, Segments: segments, MTU: 9000})
		}
	}
	for _, c := range wireGuardCombinations(families, filters) {
		add(c)
	}
	return all
}

// wireGuardCombinations are those of the backend wireguard. How packets are filtered does not depend on the mode, so
// only one mode is tried with all filters.
func wireGuardCombinations(families [][]subnet.Family, filters []Filter) (all []Combination) {
	const separate = "separate"
	for _, f := range families {
		for _, mode := range []string{separate, "auto", "ipv4", "ipv6"} {
			// The mode ipv4 sends everything over IPv4, and ipv6 over IPv6. In an overlay without that family, leases
			// have no address of it, and daemons refuse the config.
			if len(f) == 1 && (mode == "ipv4" || mode == "ipv6") && mode != FamiliesName(f) {
				continue
			}
			b := wireGuardBackend(mode)
			for _, r := range filters {
				for _, segments := range []int{1, 2} {
					if mode == separate || r == filters[0] {
						all = append(all, Combination{Families: f, Backend: b, Filter: r, Segments: segments})
					}
				}
			}
			for _, mtu := range []int{1400, 9000} {
				if mode == separate {
					all = append(all, Combination{Families: f, Backend: b, Filter: filters[0], Segments: 2, MTU: mtu})
				}
			}
		}
	}
	return all
}

// wireGuardBackend is the backend wireguard in a mode. Pods always get the MTU that is left over IPv6, so that it is
// the same on all nodes: 40 bytes of IP, 8 of UDP, 32 of WireGuard. In the mode separate, IPv6 has a device of its own.
func wireGuardBackend(mode string) Backend {
	b := Backend{
		Name: "wireguard " + mode, Config: fmt.Sprintf(`{"Type":"wireguard","Mode":%q}`, mode),
		Overhead:  [2]int{subnet.IPv4: 80, subnet.IPv6: 80},
		WireGuard: [2]string{subnet.IPv4: "flannel-wg", subnet.IPv6: "flannel-wg"},
	}
	if mode == "separate" {
		b.WireGuard[subnet.IPv6] = "flannel-wg-v6"
	}
	return b
}

// wireGuards returns the WireGuard devices of each node.
func (c Combination) wireGuards() (devices []string) {
	for _, f := range c.Families {
		if d := c.Backend.WireGuard[f]; d != "" && !slices.Contains(devices, d) {
			devices = append(devices, d)
		}
	}
	return devices
}

// String names a combination: "dual vxlan iptables-nft etcd segments=2 mtu=1500".
func (c Combination) String() string {
	return fmt.Sprintf("%s %s %s %s segments=%d mtu=%d",
		FamiliesName(c.Families), c.Backend.Name, c.Filter.Name, c.Store, c.Segments, c.UplinkMTU())
}

// UplinkMTU is the MTU of the uplinks.
func (c Combination) UplinkMTU() int { return orDefault(c.MTU, defaultMTU) }

// podMTU is what the pods' MTU is to be: they have one for all families.
func (c Combination) podMTU() int {
	overhead := 0
	for _, f := range c.Families {
		overhead = max(overhead, c.Backend.Overhead[f])
	}
	return c.UplinkMTU() - overhead
}

// options are those of the combination's lab; the rest is taken from o.
func (c Combination) options(o Options) Options {
	o.Families, o.Segments, o.MTU, o.IPTables = slices.Clone(c.Families), c.Segments, c.MTU, c.Filter.IPTables
	o.Store, o.WireGuard = c.Store, c.wireGuards()
	o.Config = NetworkConfig(c.Families, c.Backend.Config, c.Filter.NFTables)
	return o
}
