package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// MaxLeases is how many nodes there can be that do not exist, each with a /24 of the upper half of 10.0.0.0/8
// and a /64 of fd00:5:1::/48.
const MaxLeases = 1 << 15

// addLeases writes the leases of nodes that do not exist.
func (s *Suite) addLeases(ctx context.Context) error {
	leases := make([]subnet.Lease, s.options.Leases)
	for i := range leases {
		leases[i] = absent(i)
		for _, f := range subnet.Families() {
			if !slices.Contains(s.families, f) {
				leases[i].Endpoints[f] = subnet.Endpoint{}
			}
		}
	}
	return s.lab.Store().PutLeases(ctx, leases)
}

// absent is the lease of a node that does not exist.
func absent(i int) subnet.Lease {
	mac := network.MAC{0x0e, 0xab, 0, byte(i >> 16), byte(i >> 8), byte(i)}
	l := subnet.Lease{BackendType: "vxlan", NodeName: fmt.Sprintf("absent%d", i)}
	l.Endpoints[subnet.IPv6] = subnet.Endpoint{
		Subnet:   netip.MustParsePrefix(fmt.Sprintf("fd00:5:1:%x::/64", i)),
		PublicIP: netip.MustParseAddr(fmt.Sprintf("fd00:64::%x", i+1)),
		Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"%s"}`, mac),
	}
	l.Endpoints[subnet.IPv4] = subnet.Endpoint{
		Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + i>>8), byte(i), 0}), 24),
		PublicIP: netip.AddrFrom4([4]byte{100, byte(64 + i>>16), byte(i >> 8), byte(i)}), // RFC 6598
		Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"%s"}`, mac),
	}
	return l
}

// manyLeasesFaults lists the faults for a suite with thousands of leases. Each is done once, so none is held against a median.
func manyLeasesFaults() []Fault {
	const (
		replay = 350 * time.Millisecond // the kernel alone takes 230 ms for the entries of 5,000 leases
		worst  = 200 * time.Millisecond // as with few leases
	)
	ipv4 := []subnet.Family{subnet.IPv4}
	many := []Fault{
		{Name: "route deleted", Class: Entries, Families: both(), Bound: worst,
			Inject: onDevice(func(t tables) error { return t.nl.RouteDel(&netlink.Route{Dst: t.route(t.peer).Dst}) })},
		{Name: "1,000 entries deleted at once", Class: Entries, Families: both(), Bound: worst, Inject: onDevice(func(t tables) error { return t.deleteMany(1000) })},
		{Name: "routes, ARP and FDB flushed", Class: Entries, Families: both(), Bound: replay, PerFamily: true, Inject: onDevice(tables.flushMany)},
		{Name: "nexthop deleted", Class: Entries, Families: ipv4, Bound: worst,
			Inject: onDevice(func(t tables) error { return t.nl.deleteNexthop(t.nexthop(t.peer).id) })},
		{Name: "all nexthop objects flushed", Class: Entries, Families: ipv4, Bound: replay,
			Inject: onDevice(func(t tables) error {
				defer t.counts()
				return t.nl.flushNexthops(func(n nexthop) bool { return n.protocol == routeProtocol })
			})},
		{Name: "device deleted, daemon killed in the middle of its repair", Class: Daemon, Running: true,
			Inject: func(ctx context.Context, t *target) error { return t.killHalfway(ctx) }},
	}
	for _, f := range slices.Concat(deviceFaults(), daemonFaults()) {
		switch f.Name {
		case "device down and up", "device deleted", "device renamed":
			f.Bound, f.PerFamily = replay, true
			many = append(many, f)
		case "daemon killed, started again", "notifications lost, and what was told in them":
			many = append(many, f)
		}
	}
	return many
}

// counts is [target.counts] for the one family.
func (t tables) counts() { t.since[t.family] = time.Now() }

// deleteMany deletes n entries of the tables, a third in each.
func (t tables) deleteMany(n int) error {
	defer t.counts()
	for i, l := range t.peers[:min(n, len(t.peers))] {
		err := []func() error{
			func() error { return t.nl.RouteDel(&netlink.Route{Dst: t.route(l).Dst}) },
			func() error { return t.nl.NeighDel(t.neighbour(l)) },
			func() error { return t.nl.NeighDel(t.fdb(l)) },
		}[i%3]()
		if err != nil {
			return err
		}
	}
	return nil
}

// flushMany is flush, with the time counted from its end.
func (t tables) flushMany() error {
	defer t.counts()
	return t.flush()
}

// killHalfway deletes the devices, and kills the daemon when it has put back a part of what hung on them.
func (t *target) killHalfway(ctx context.Context) error {
	err := t.eachFamily(func(f subnet.Family) error {
		return t.nl.LinkDel(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: deviceOf(f)}})
	})
	if err != nil {
		return err
	}
	for {
		there := 0
		for _, f := range t.families {
			if on, err := t.tables(f); err == nil {
				fdb, _ := t.nl.NeighList(on.link.Attrs().Index, unix.AF_BRIDGE) // what cannot be listed is being changed
				there += len(fdb)
			}
		}
		if there > len(t.families)*len(t.peers)/4 {
			break
		}
		if !pause(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
	t.Kill()
	problems, err := t.check(t.suite.leases)
	if err != nil {
		return err
	}
	t.remarks = append(t.remarks, fmt.Sprintf("killed with %d of %d entries missing", len(problems), t.plan.want.len()))
	return errors.Join(t.Start(), t.WaitReady(ctx))
}
