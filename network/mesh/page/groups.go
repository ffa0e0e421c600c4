package page

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network/mesh"
)

const (
	// oneByOne is up to how many nodes the page shows each by itself.
	oneByOne = 250
	// mostGroups is how many groups it shows otherwise.
	mostGroups = 64
)

// grouped divides many nodes by the prefix of their public IPs: by the longest length that makes few groups, since a
// data centre's rack or zone often has a prefix of its own. It returns the groups' names, in the order of the prefixes,
// and each node's group; no names for few nodes.
func grouped(nodes []mesh.Node) (names []string, of []int) {
	names, of = []string{}, make([]int, len(nodes))
	if len(nodes) <= oneByOne {
		return names, of
	}
	var prefixes []netip.Prefix
	for bits := 32; ; bits-- { // with 0 bits there are three at most
		found := map[netip.Prefix]bool{}
		for _, n := range nodes {
			found[prefixOf(n, bits)] = true
		}
		if len(found) <= mostGroups {
			prefixes = slices.SortedFunc(maps.Keys(found), netip.Prefix.Compare)
			for i, n := range nodes {
				of[i], _ = slices.BinarySearchFunc(prefixes, prefixOf(n, bits), netip.Prefix.Compare)
			}
			break
		}
	}
	for _, p := range prefixes {
		if p.IsValid() {
			names = append(names, p.String())
		} else {
			names = append(names, "no address")
		}
	}
	return names, of
}

// prefixOf returns the prefix of a node's public IP: of an IPv6 address, four bits for each bit of an IPv4 address. It
// is invalid if the address is not known.
func prefixOf(n mesh.Node, bits int) netip.Prefix {
	if len(n.PublicIP) == 0 {
		return netip.Prefix{}
	}
	a := n.PublicIP[0].Unmap().WithZone("")
	if a.Is6() {
		bits *= 4
	}
	return netip.PrefixFrom(a, bits).Masked()
}
