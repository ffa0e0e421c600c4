package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// tables gives the faults below the objects they break, of one family.
type tables struct {
	*target
	family subnet.Family
	link   netlink.Link // the overlay's device
}

// tables are those of a family.
func (t *target) tables(f subnet.Family) (tables, error) {
	link, err := t.nl.LinkByName(t.backend.device(f))
	if err != nil {
		return tables{}, fmt.Errorf("%s: find %s: %w", t.Name(), t.backend.device(f), err)
	}
	return tables{t, f, link}, nil
}

// onDevice calls fn with the node's overlay device of each family that the fault is done in.
func onDevice(fn func(tables) error) step {
	return inEachFamily(func(t *target, f subnet.Family) error {
		on, err := t.tables(f)
		if err != nil {
			return err
		}
		return fn(on)
	})
}

// route returns the route to a lease's subnet.
func (t tables) route(l subnet.Lease) *netlink.Route {
	e := l.Endpoints[t.family]
	return &netlink.Route{LinkIndex: t.link.Attrs().Index, Dst: ipNet(e.Subnet), Gw: e.Subnet.Addr().AsSlice(),
		Flags: int(netlink.FLAG_ONLINK), Protocol: unix.RTPROT_STATIC}
}

// neighbour returns the ARP or ND entry for a lease's end of the tunnel.
func (t tables) neighbour(l subnet.Lease) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: t.link.Attrs().Index, Family: int(netlinkFamily(t.family)), State: unix.NUD_PERMANENT,
		HardwareAddr: macOf(l, t.family), IP: l.Endpoints[t.family].Subnet.Addr().AsSlice()}
}

// fdb returns the FDB entry for a lease's end of the tunnel.
func (t tables) fdb(l subnet.Lease) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: t.link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT,
		HardwareAddr: macOf(l, t.family), IP: l.Endpoints[t.family].PublicIP.AsSlice()}
}

// macOf is the MAC address that a lease names, nil if it names none; check says so then.
func macOf(l subnet.Lease, f subnet.Family) net.HardwareAddr {
	var data struct{ VtepMAC string }
	if json.Unmarshal([]byte(l.Endpoints[f].Data), &data) != nil {
		return nil
	}
	mac, _ := net.ParseMAC(data.VtepMAC)
	return mac
}

// nowhere is a lease of nobody.
func nowhere() subnet.Lease {
	l := subnet.Lease{}
	l.Endpoints[subnet.IPv4] = subnet.Endpoint{Subnet: netip.MustParsePrefix("10.5.255.0/24"),
		PublicIP: netip.MustParseAddr("172.31.0.250"), Data: `{"VtepMAC":"0e:99:99:99:99:99"}`}
	l.Endpoints[subnet.IPv6] = subnet.Endpoint{Subnet: netip.MustParsePrefix("fd00:5:0:ff::/64"),
		PublicIP: netip.MustParseAddr("fd00:31::250"), Data: `{"VtepMAC":"0e:99:99:99:99:96"}`}
	return l
}

// flush deletes all entries of all peers, as ip route, ip neigh and bridge fdb do with flush.
func (t tables) flush() error {
	for _, l := range t.peers {
		// The daemon may be putting back what was deleted first: what is gone by itself is gone.
		r := &netlink.Route{Dst: t.route(l).Dst} // a route that goes by a nexthop object has no gateway to match
		for _, err := range []error{t.nl.RouteDel(r), t.nl.NeighDel(t.neighbour(l)), t.nl.NeighDel(t.fdb(l))} {
			if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	return nil
}

func entryFaults() []Fault {
	fault := func(name string, do func(tables) error) Fault {
		return Fault{Name: name, Class: Entries, Families: both(), Inject: onDevice(do)}
	}
	return []Fault{
		fault("route deleted", func(t tables) error { return t.nl.RouteDel(&netlink.Route{Dst: t.route(t.peer).Dst}) }),
		fault("FDB entry deleted", func(t tables) error { return t.nl.NeighDel(t.fdb(t.peer)) }),
		fault("ARP entry deleted", func(t tables) error { return t.nl.NeighDel(t.neighbour(t.peer)) }),
		fault("route replaced by a blackhole", func(t tables) error {
			return t.nl.RouteReplace(&netlink.Route{Dst: t.route(t.peer).Dst, Type: unix.RTN_BLACKHOLE})
		}),
		fault("route with another next hop", func(t tables) error {
			r := t.route(t.peer)
			r.Gw = t.route(nowhere()).Gw
			return t.nl.RouteReplace(r)
		}),
		fault("another route put before ours", func(t tables) error {
			r := t.route(t.peer)
			r.Gw = t.route(nowhere()).Gw
			return t.nl.RouteAddEcmp(r) // neither exclusive nor appended: as ip route prepend does
		}),
		fault("another route put behind ours", func(t tables) error {
			r := t.route(t.peer)
			r.Gw = t.route(nowhere()).Gw
			return t.nl.RouteAppend(r)
		}),
		fault("route by another's nexthop object", func(t tables) error {
			return t.nl.routeVia(t.peer.Endpoints[t.family].Subnet, foreignNexthop(t.family), routeProtocol)
		}),
		fault("FDB entry with another VTEP", func(t tables) error {
			e := t.fdb(t.peer)
			e.IP = t.fdb(nowhere()).IP
			return t.nl.NeighSet(e)
		}),
		fault("ARP entry with another MAC", func(t tables) error {
			e := t.neighbour(t.peer)
			e.HardwareAddr = macOf(nowhere(), t.family)
			return t.nl.NeighSet(e)
		}),
		fault("FDB entry made to age", func(t tables) error {
			e := t.fdb(t.peer)
			e.State = unix.NUD_REACHABLE
			return t.nl.NeighSet(e)
		}),
		fault("ARP entry made to age", func(t tables) error {
			e := t.neighbour(t.peer)
			e.State = unix.NUD_REACHABLE
			return t.nl.NeighSet(e)
		}),
		fault("routes, ARP and FDB flushed", tables.flush),
		fault("stale entries added", func(t tables) error {
			l := nowhere()
			return errors.Join(t.nl.RouteAdd(t.route(l)), t.nl.NeighSet(t.neighbour(l)), t.nl.NeighSet(t.fdb(l)))
		}),
		fault("stale address added", func(t tables) error {
			stale := [...]string{"10.5.254.1/32", "fd00:5:0:fe::1/128"}[t.family]
			return t.nl.AddrAdd(t.link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(stale))})
		}),
	}
}

// nexthopCompat says whether the kernel repeats with each route what its nexthop object says, and tells of the routes when
// an object changes.
const nexthopCompat = "/proc/sys/net/ipv4/nexthop_compat_mode"

// nexthopFaults are about the nexthop objects that routes go by. With an object its routes go, and nobody says so.
func nexthopFaults() []Fault {
	ipv4 := []subnet.Family{subnet.IPv4} // only these routes go by one
	fault := func(name string, do func(tables) error) Fault {
		return Fault{Name: name, Class: Entries, Families: ipv4, Inject: onDevice(do)}
	}
	stale := func(name string, do func(tables) error) Fault {
		return Fault{Name: name, Class: Entries, Families: both(), Inject: onDevice(do)}
	}
	return []Fault{
		fault("route without its nexthop object", func(t tables) error {
			r := t.route(t.peer)
			r.Protocol = routeProtocol
			return t.nl.RouteReplace(r)
		}),
		fault("nexthop deleted", func(t tables) error { return t.nl.deleteNexthop(t.nexthop(t.peer).id) }),
		fault("nexthop with another gateway", func(t tables) error {
			n := t.nexthop(t.peer)
			n.gateway = t.nexthop(nowhere()).gateway
			return t.nl.setNexthop(n)
		}),
		fault("nexthop out of another's device", func(t tables) error {
			other, err := t.nl.LinkByName(foreignVXLAN)
			if err != nil {
				return err
			}
			n := t.nexthop(t.peer)
			n.link = other.Attrs().Index
			return t.nl.setNexthop(n)
		}),
		fault("nexthop made a blackhole", func(t tables) error {
			n := t.nexthop(t.peer)
			return t.nl.setNexthop(nexthop{id: n.id, family: n.family, protocol: n.protocol, blackhole: true})
		}),
		fault("nexthop made a group", func(t tables) error {
			// The kernel makes no group of an object that is none.
			n := t.nexthop(t.peer)
			return t.paused(func() error {
				return errors.Join(t.nl.deleteNexthop(n.id),
					t.nl.setNexthop(nexthop{id: n.id, protocol: n.protocol, members: []uint32{foreignNexthop(t.family)}}))
			})
		}),
		fault("nexthop of another's protocol", func(t tables) error {
			n := t.nexthop(t.peer)
			n.protocol = unix.RTPROT_ZEBRA
			return t.paused(func() error { return errors.Join(t.nl.deleteNexthop(n.id), t.nl.setNexthop(n)) })
		}),
		{Name: "all nexthop objects flushed", Class: Entries, Families: ipv4,
			Inject: onDevice(func(t tables) error { return t.nl.flushNexthops(func(nexthop) bool { return true }) }),
			After:  func(_ context.Context, t *target) error { return t.plantNexthops() }},
		{Name: "nexthop deleted while routes do not tell what it says", Class: Entries, Families: ipv4,
			Inject: onDevice(func(t tables) error {
				return errors.Join(t.write(nexthopCompat, "0"), t.nl.deleteNexthop(t.nexthop(t.peer).id))
			}),
			After: func(_ context.Context, t *target) error { return t.write(nexthopCompat, "1") }},
		stale("stale nexthop added", func(t tables) error { return t.nl.setNexthop(t.nexthop(nowhere())) }),
		stale("stale nexthop and route added", func(t tables) error {
			n := t.nexthop(nowhere())
			return t.paused(func() error {
				return errors.Join(t.nl.setNexthop(n), t.nl.routeVia(nowhere().Endpoints[t.family].Subnet, n.id, routeProtocol))
			})
		}),
		// Only of IPv4: a nexthop of IPv6 has no number of selvage's, so this one would belong to another program.
		fault("stale nexthop out of another's device added", func(t tables) error {
			other, err := t.nl.LinkByName(foreignVXLAN)
			if err != nil {
				return err
			}
			n := t.nexthop(nowhere())
			n.link = other.Attrs().Index
			return t.nl.setNexthop(n)
		}),
	}
}
