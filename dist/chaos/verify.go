package chaos

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// What every node of the lab has its overlay on, by the network config.
const (
	vni         = 1
	port        = 8472
	longestDiff = 6 // entries named one by one

	routeProtocol = 83 // on routes and nexthop objects: whose they are
)

// entry is one thing that is to be in a node's kernel, whole: two that differ in anything are two entries.
type entry struct {
	family subnet.Family // of the overlay that it is of
	kind   string        // device, address, fdb, neighbour, nexthop, route, or one of WireGuard: see wireguard.go
	link   string        // name of the device
	prefix netip.Prefix  // a route's destination; an address
	ip     netip.Addr    // a gateway, a neighbour's address, where an FDB entry or a device leads
	mac    network.MAC
	id     uint32 // of a nexthop object: its own, or the one a route goes by, which has no gateway then
	detail string // whatever else there is to say; of an entry that is as it should be, nothing but a device's attributes
}

func (e entry) String() string {
	switch e.kind {
	case "wireguard", "peer", "allowed IP", "backstop":
		return e.wireGuardText()
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
		if !e.ip.IsValid() {
			return fmt.Sprintf("route %s dev %s %s", e.prefix, e.link, e.detail)
		}
		return fmt.Sprintf("route %s via %s dev %s %s", e.prefix, e.ip, e.link, e.detail)
	}
}

// entries are a set, by family.
type entries [2]map[entry]struct{}

// newEntries returns an empty set, for about so many of each family.
func newEntries(n int) entries {
	return entries{make(map[entry]struct{}, n), make(map[entry]struct{}, n)}
}

func (s entries) add(e entry) { s[e.family][e] = struct{}{} }

func (s entries) len() int { return len(s[0]) + len(s[1]) }

// expected returns what the leases ask of the node called self, which has that uplink, for an overlay of the given families.
func expected(leases []subnet.Lease, self string, b Backend, families []subnet.Family, u uplink) (entries, error) {
	want := newEntries(4 * len(leases))
	for _, l := range leases {
		for _, f := range families {
			if err := want.lease(l, f, l.NodeName == self, b, u); err != nil {
				return want, fmt.Errorf("lease %s: %w", l.Key(), err)
			}
		}
	}
	return want, nil
}

// lease adds what one lease asks for in one family.
func (s entries) lease(l subnet.Lease, f subnet.Family, own bool, b Backend, u uplink) error {
	e, device := l.Endpoints[f], b.device(f)
	if !own && b.goesDirect(e.PublicIP, u) {
		s.add(entry{family: f, kind: "route", link: u.name, prefix: e.Subnet, ip: e.PublicIP})
		return nil
	}
	if !b.tunnels() {
		return nil
	}
	if b == WireGuard {
		return s.wireGuardLease(e, f, own, u)
	}
	var data struct{ VtepMAC string }
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	mac, err := network.ParseMAC(data.VtepMAC)
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	vtep := e.Subnet.Addr()
	if own {
		s.add(entry{family: f, kind: "device", link: device, ip: e.PublicIP, mac: mac,
			detail: attributes("vxlan", vni, port, u.mtu-overheadOf(f), network.Alias, true, false, 0)})
		s.add(entry{family: f, kind: "address", link: device, prefix: netip.PrefixFrom(vtep, vtep.BitLen())})
		return nil
	}
	s.add(entry{family: f, kind: "fdb", link: device, mac: mac, ip: e.PublicIP})
	s.add(entry{family: f, kind: "neighbour", link: device, ip: vtep, mac: mac})
	if f != subnet.IPv4 { // without nexthop objects
		s.add(entry{family: f, kind: "route", link: device, prefix: e.Subnet, ip: vtep})
		return nil
	}
	s.add(entry{family: f, kind: "nexthop", link: device, ip: vtep, id: nexthopID(vtep)})
	s.add(entry{family: f, kind: "route", link: device, prefix: e.Subnet, id: nexthopID(vtep)})
	return nil
}

func attributes(kind string, vni, port, mtu int, alias string, up, learning bool, lower int) string {
	return fmt.Sprintf("%s id %d port %d mtu %d alias %q up %t learning %t lower %d", kind, vni, port, mtu, alias, up, learning, lower)
}

// diff returns what is missing and what is too much of some families, in words.
func diff(want, have entries, families []subnet.Family) (p problems) {
	for _, f := range families {
		for e := range want[f] {
			if _, ok := have[f][e]; !ok {
				p.add(f, "missing: %s", e)
			}
		}
		for e := range have[f] {
			if _, ok := want[f][e]; !ok {
				p.add(f, "too much: %s", e)
			}
		}
		slices.Sort(p[f])
	}
	return p
}
