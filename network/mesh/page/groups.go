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

// grouping is one way to divide many nodes into groups.
type grouping struct {
	By     string   `json:"by"`     // zone or prefix
	Groups []string `json:"groups"` // their names
}

// The values of grouping.By.
const (
	byZone   = "zone"
	byPrefix = "prefix"
)

// grouped divides many nodes into groups: by the zones that they say that they are in, if there are several, and by
// the prefix of their public IPs. It returns each node's group in each of the groupings, which are none for few nodes.
// zones are those that nodes have said earlier, by key.
func grouped(nodes []mesh.Node, zones map[string]string) (all []grouping, of [][]int) {
	all, of = []grouping{}, make([][]int, len(nodes))
	for i := range of {
		of[i] = []int{}
	}
	if len(nodes) <= oneByOne {
		return all, of
	}
	add := func(by string, names []string, groups []int) {
		all = append(all, grouping{by, names})
		for i, g := range groups {
			of[i] = append(of[i], g)
		}
	}
	if names, groups := zoned(nodes, zones); len(names) > 1 && len(names) <= mostGroups {
		add(byZone, names, groups)
	}
	names, groups := prefixed(nodes)
	add(byPrefix, names, groups)
	return all, of
}

// zoned divides nodes by their zones, in the order of the names. Those that have none are the last group.
func zoned(nodes []mesh.Node, zones map[string]string) (names []string, of []int) {
	const none = "no zone"
	of = make([]int, len(nodes))
	found := map[string]bool{}
	for _, n := range nodes {
		found[zoneOf(n, zones)] = true
	}
	without := found[""]
	delete(found, "")
	names = slices.Sorted(maps.Keys(found))
	for i, n := range nodes {
		if zone := zoneOf(n, zones); zone != "" {
			of[i], _ = slices.BinarySearch(names, zone)
		} else {
			of[i] = len(names)
		}
	}
	if without && len(names) > 0 {
		names = append(names, none)
	}
	return names, of
}

// zoneOf returns the zone of a node. One that is missing now is in that which it has said before.
func zoneOf(n mesh.Node, zones map[string]string) string {
	if n.Summary != nil {
		return n.Summary.Zone
	}
	return zones[n.Key]
}

// prefixed divides nodes by the prefix of their public IPs: by the longest length that makes few groups, since a data
// centre's rack or zone often has a prefix of its own. The groups are in the order of the prefixes.
func prefixed(nodes []mesh.Node) (names []string, of []int) {
	of = make([]int, len(nodes))
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
