package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Backend says by what the overlay is carried.
type Backend string

// The backends.
const (
	VXLAN  Backend = "vxlan"
	Direct Backend = "direct" // vxlan with DirectRouting: by a tunnel only where a peer is behind a router
	HostGW Backend = "host-gw"
	// WireGuard has a device for each family (Mode separate).
	WireGuard Backend = "wireguard"
)

// config is the Backend object of the network config.
func (b Backend) config() string {
	return map[Backend]string{VXLAN: `{"Type":"vxlan"}`, Direct: `{"Type":"vxlan","DirectRouting":true}`,
		HostGW: `{"Type":"host-gw"}`, WireGuard: `{"Type":"wireguard"}`}[b]
}

// tunnels reports whether there are devices.
func (b Backend) tunnels() bool { return b != HostGW }

// filtersVTEPs reports whether there is a list of the nodes that VXLAN packets are accepted from.
func (b Backend) filtersVTEPs() bool { return b == VXLAN || b == Direct }

// overhead is how many bytes it may take of a packet over a family.
func (b Backend) overhead(f subnet.Family) int {
	switch b {
	case HostGW:
		return 0
	case WireGuard:
		return wireGuardOverhead
	default:
		return overheadOf(f)
	}
}

// goesDirect reports whether packets to a peer go by its underlay address, out of the uplink.
func (b Backend) goesDirect(public netip.Addr, u uplink) bool {
	return b == HostGW || b == Direct && u.reaches(public)
}

// reaches reports whether the uplink has an address on the same network.
func (u uplink) reaches(a netip.Addr) bool {
	return slices.ContainsFunc(u.addrs, func(own netlink.Addr) bool { return prefixOf(own.IPNet).Masked().Contains(a) })
}

// direct is where the faults below break routes out of the uplink, of one family.
type direct struct {
	*target
	family subnet.Family
	link   netlink.Link
}

// onDirect calls fn in each family that the fault is done in.
func onDirect(fn func(direct) error) step {
	return inEachFamily(func(t *target, f subnet.Family) error {
		link, err := t.nl.LinkByName(uplinkName)
		if err != nil {
			return fmt.Errorf("%s: find the uplink: %w", t.Name(), err)
		}
		return fn(direct{t, f, link})
	})
}

// route returns the route to a lease's subnet, of nobody's protocol.
func (d direct) route(l subnet.Lease) *netlink.Route {
	e := l.Endpoints[d.family]
	return &netlink.Route{LinkIndex: d.link.Attrs().Index, Dst: ipNet(e.Subnet), Gw: e.PublicIP.AsSlice(), Protocol: unix.RTPROT_STATIC}
}

// astray returns the same by another gateway: the underlay's router.
func (d direct) astray(l subnet.Lease) *netlink.Route {
	r := d.route(l)
	r.Gw = d.router()
	return r
}

// router is the gateway of the default route.
func (d direct) router() net.IP {
	for _, r := range d.uplink.routes {
		if subnet.FamilyOf(addrOf(r.Gw)) == d.family {
			return r.Gw
		}
	}
	return nil
}

func directEntryFaults() []Fault {
	fault := func(name string, do func(direct) error) Fault {
		return Fault{Name: name, Class: Entries, Families: both(), Inject: onDirect(do)}
	}
	return []Fault{
		fault("direct route deleted", func(d direct) error { return d.nl.RouteDel(&netlink.Route{Dst: d.route(d.peer).Dst}) }),
		fault("direct route by another gateway", func(d direct) error { return d.nl.RouteReplace(d.astray(d.peer)) }),
		fault("direct route of another protocol", func(d direct) error { return d.nl.RouteReplace(d.route(d.peer)) }),
		fault("direct route replaced by a blackhole", func(d direct) error {
			return d.nl.RouteReplace(&netlink.Route{Dst: d.route(d.peer).Dst, Type: unix.RTN_BLACKHOLE})
		}),
		fault("direct route out of another's device", func(d direct) error {
			other, err := d.nl.LinkByName(foreignVXLAN)
			if err != nil {
				return err
			}
			r := d.route(d.peer)
			r.LinkIndex, r.Gw, r.Scope = other.Attrs().Index, nil, [...]netlink.Scope{unix.RT_SCOPE_LINK, unix.RT_SCOPE_UNIVERSE}[d.family]
			return d.nl.RouteReplace(r)
		}),
		fault("direct route by another's nexthop object", func(d direct) error {
			return d.nl.routeVia(d.peer.Endpoints[d.family].Subnet, foreignNexthop(d.family), routeProtocol)
		}),
		fault("another route put before the direct one", func(d direct) error { return d.nl.RouteAddEcmp(d.astray(d.peer)) }),
		fault("another route put behind the direct one", func(d direct) error { return d.nl.RouteAppend(d.astray(d.peer)) }),
		fault("direct routes flushed", direct.flush),
		fault("stale direct route added", func(d direct) error {
			r := d.astray(nowhere())
			r.Protocol = routeProtocol
			return d.nl.RouteAdd(r)
		}),
		{Name: "direct routes flushed, daemon killed in the middle of its repair", Class: Daemon, Running: true,
			Inject: func(ctx context.Context, t *target) error {
				return errors.Join(onDirect(direct.flush)(ctx, t), t.restartKilled(ctx))
			}},
	}
}

// flush deletes the routes to all peers.
func (d direct) flush() error {
	for _, l := range d.peers {
		if err := d.nl.RouteDel(&netlink.Route{Dst: d.route(l).Dst}); !errors.Is(err, unix.ESRCH) && err != nil {
			return err
		}
	}
	return nil
}

// alone is a fault that leaves the uplink its address without the network around it, as some clouds have it: nothing but the
// router is on-link, and with DirectRouting the peers have to be reached by the tunnel. With host-gw they cannot be.
func alone() Fault {
	return Fault{Name: "uplink's address a single one (/32, /128), later with its network", Class: Uplink, Families: both(), Follow: true,
		Inject: onUplink(func(t *target, link netlink.Link) error {
			var errs []error
			for _, a := range t.addrs() {
				single := prefixOf(a.IPNet).Addr()
				errs = append(errs, t.nl.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}),
					t.nl.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(single, single.BitLen())), Flags: unix.IFA_F_NODAD}),
					t.nl.RouteReplace(t.toRouter(link, subnet.FamilyOf(single))))
			}
			return errors.Join(append(errs, t.replaceRoutes(link))...)
		}),
		Undo: onUplink(func(t *target, link netlink.Link) error {
			var errs []error
			for _, a := range t.addrs() {
				single := prefixOf(a.IPNet).Addr()
				errs = append(errs, t.nl.AddrDel(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(single, single.BitLen()))}))
				if err := t.nl.RouteDel(t.toRouter(link, subnet.FamilyOf(single))); !errors.Is(err, unix.ESRCH) {
					errs = append(errs, err) // unless it went with the address
				}
			}
			return errors.Join(append(errs, t.restoreUplink())...)
		})}
}

// toRouter is a route to the router alone.
func (t *target) toRouter(link netlink.Link, f subnet.Family) *netlink.Route {
	router := addrOf(direct{t, f, link}.router())
	return &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.PrefixFrom(router, router.BitLen())),
		Scope: [...]netlink.Scope{unix.RT_SCOPE_LINK, unix.RT_SCOPE_UNIVERSE}[f]}
}

// directFaults are those of a node that reaches its peers out of the uplink.
func directFaults(b Backend) []Fault {
	faults := slices.Concat(directEntryFaults(), uplinkFaults())
	if b.tunnels() {
		faults = append(append(faults, stackedFaults()...), alone())
		for _, f := range deviceFaults() {
			switch f.Name {
			case "device down", "device deleted", "device's MAC changed", "device's address flushed", "device renamed":
				faults = append(faults, f)
			}
		}
	}
	for _, f := range slices.Concat(daemonFaults(), agentFaults()) {
		switch f.Name {
		case "daemon killed, started again", "route deleted every millisecond",
			"a cloud agent renews the uplink's address: removed and added again":
			faults = append(faults, f)
		}
	}
	return faults
}
