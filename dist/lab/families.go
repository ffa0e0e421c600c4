package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// The overlay's networks of [NetworkConfig], as they stand in it.
const (
	networkIPv4 = `"Network":"10.5.0.0/16"`
	networkIPv6 = `"EnableIPv6":true,"IPv6Network":"fd00:5::/56"`
)

// NFTables is the network configuration's EnableNFTables.
type NFTables string

// What it can say.
const (
	NodesChoose NFTables = "" // nothing
	NFTablesOn  NFTables = "true"
	NFTablesOff NFTables = "false"
)

// NetworkConfig is a network configuration, JSON, for an overlay of the given families; none means IPv4. backend is the
// Backend object, JSON, and vxlan's if it is empty.
func NetworkConfig(families []subnet.Family, backend string, nftables NFTables) string {
	families = orIPv4(families)
	var fields []string
	if slices.Contains(families, subnet.IPv4) {
		fields = append(fields, networkIPv4)
	} else {
		fields = append(fields, `"EnableIPv4":false`)
	}
	if slices.Contains(families, subnet.IPv6) {
		fields = append(fields, networkIPv6)
	}
	if nftables != NodesChoose {
		fields = append(fields, `"EnableNFTables":`+string(nftables))
	}
	fields = append(fields, `"Backend":`+orDefault(backend, `{"Type":"vxlan"}`))
	return "{" + strings.Join(fields, ",") + "}"
}

// ParseFamilies reads what [FamiliesName] writes: ipv4, ipv6 or dual.
func ParseFamilies(name string) ([]subnet.Family, error) {
	for _, families := range [][]subnet.Family{{subnet.IPv4}, {subnet.IPv6}, {subnet.IPv4, subnet.IPv6}} {
		if FamiliesName(families) == name {
			return families, nil
		}
	}
	return nil, fmt.Errorf("families %q: want ipv4, ipv6 or dual", name)
}

// FamiliesName is a list of families in one word; an empty one is IPv4.
func FamiliesName(families []subnet.Family) string {
	if len(families) > 1 {
		return "dual"
	}
	return strings.ToLower(orIPv4(families)[0].String())
}

func orIPv4(families []subnet.Family) []subnet.Family {
	if len(families) == 0 {
		return []subnet.Family{subnet.IPv4}
	}
	return families
}

// Families returns the families of the lab's overlay, see [Options.Families].
func (l *Lab) Families() []subnet.Family { return slices.Clone(orIPv4(l.options.Families)) }

// onUnderlay leaves out the addresses that the underlay does without: those of IPv4, if the overlay has none. IPv6 is
// always there, as on most networks.
func (l *Lab) onUnderlay(addrs [2]netip.Prefix) [2]netip.Prefix {
	if !slices.Contains(l.Families(), subnet.IPv4) {
		addrs[subnet.IPv4] = netip.Prefix{}
	}
	return addrs
}

// firstAddr is the address of the first family that there is.
func firstAddr(addrs [2]netip.Prefix) netip.Addr {
	for _, a := range addrs {
		if a.IsValid() {
			return a.Addr()
		}
	}
	return netip.Addr{}
}
