package chaos

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// What every node of the lab has its overlay on, by the lab's default network config.
const (
	device      = "flannel.1"
	vni         = 1
	port        = 8472
	overhead    = 50 // of VXLAN over IPv4
	longestDiff = 6  // entries named one by one

	routeProtocol = 83 // on routes and nexthop objects: whose they are
)

// entry is one thing that is to be in a node's kernel, whole: two that differ in anything are two entries.
type entry struct {
	kind   string       // device, address, fdb, neighbour, nexthop or route
	link   string       // name of the device
	prefix netip.Prefix // a route's destination; an address
	ip     netip.Addr   // a gateway, a neighbour's address, where an FDB entry or a device leads
	mac    network.MAC
	id     uint32 // of a nexthop object: its own, or the one a route goes by, which has no gateway then
	detail string // whatever else there is to say; of an entry that is as it should be, nothing but a device's attributes
}

func (e entry) String() string {
	switch e.kind {
	case "device":
		return fmt.Sprintf("device %s local %s mac %s %s", e.link, e.ip, e.mac, e.detail)
	case "address":
		return fmt.Sprintf("address %s dev %s", e.prefix, e.link)
	case "fdb":
		return fmt.Sprintf("fdb %s dst %s dev %s %s", e.mac, e.ip, e.link, e.detail)
	case "neighbour":
		return fmt.Sprintf("neighbour %s lladdr %s dev %s %s", e.ip, e.mac, e.link, e.detail)
	case "nexthop":
		return fmt.Sprintf("nexthop id %d via %s dev %s %s", e.id, e.ip, e.link, e.detail)
	default:
		if e.id != 0 {
			return fmt.Sprintf("route %s nhid %d dev %s %s", e.prefix, e.id, e.link, e.detail)
		}
		return fmt.Sprintf("route %s via %s dev %s %s", e.prefix, e.ip, e.link, e.detail)
	}
}

type entries map[entry]struct{}

func (s entries) add(e entry) { s[e] = struct{}{} }

// expected returns what the leases ask of the node called self, whose uplink has the given MTU.
func expected(leases []subnet.Lease, self string, uplinkMTU int) (entries, error) {
	want := make(entries, 4*len(leases))
	for _, l := range leases {
		e := l.Endpoints[subnet.IPv4]
		var data struct{ VtepMAC string }
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
			return nil, fmt.Errorf("lease %s: %w", l.Key(), err)
		}
		mac, err := network.ParseMAC(data.VtepMAC)
		if err != nil {
			return nil, fmt.Errorf("lease %s: %w", l.Key(), err)
		}
		vtep := e.Subnet.Addr()
		if l.NodeName == self {
			want.add(entry{kind: "device", link: device, ip: e.PublicIP, mac: mac,
				detail: attributes("vxlan", vni, port, uplinkMTU-overhead, network.Alias, true, false, 0)})
			want.add(entry{kind: "address", link: device, prefix: netip.PrefixFrom(vtep, 32)})
			continue
		}
		want.add(entry{kind: "fdb", link: device, mac: mac, ip: e.PublicIP})
		want.add(entry{kind: "neighbour", link: device, ip: vtep, mac: mac})
		want.add(entry{kind: "nexthop", link: device, ip: vtep, id: nexthopID(vtep)})
		want.add(entry{kind: "route", link: device, prefix: e.Subnet, id: nexthopID(vtep)})
	}
	return want, nil
}

func attributes(kind string, vni, port, mtu int, alias string, up, learning bool, lower int) string {
	return fmt.Sprintf("%s id %d port %d mtu %d alias %q up %t learning %t lower %d", kind, vni, port, mtu, alias, up, learning, lower)
}

// diff returns what is missing and what is too much, in words; nil if nothing.
func diff(want, have entries) []string {
	var problems []string
	for e := range want {
		if _, ok := have[e]; !ok {
			problems = append(problems, "missing: "+e.String())
		}
	}
	for e := range have {
		if _, ok := want[e]; !ok {
			problems = append(problems, "too much: "+e.String())
		}
	}
	slices.Sort(problems)
	return problems
}
