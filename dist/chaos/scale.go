package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// leaseKeys is where leases are kept in the lab's etcd.
const leaseKeys = "/coreos.com/network/subnets/"

// MaxLeases is how many nodes there can be that do not exist, each with a /24 of the upper half of 10.0.0.0/8.
const MaxLeases = 1 << 15

// addLeases writes the leases of nodes that do not exist.
func (s *Suite) addLeases(ctx context.Context) error {
	const perRequest = 100 // etcd takes 128 operations in a transaction
	var puts []clientv3.Op
	for i := range s.options.Leases {
		l := absent(i)
		value, err := l.Value()
		if err != nil {
			return err
		}
		puts = append(puts, clientv3.OpPut(leaseKeys+l.Key(), string(value)))
		if len(puts) == perRequest || i == s.options.Leases-1 {
			if _, err := s.lab.Etcd().Client().Txn(ctx).Then(puts...).Commit(); err != nil {
				return fmt.Errorf("write leases: %w", err)
			}
			puts = puts[:0]
		}
	}
	return nil
}

// absent is the lease of a node that does not exist.
func absent(i int) subnet.Lease {
	mac := network.MAC{0x0e, 0xab, 0, byte(i >> 16), byte(i >> 8), byte(i)}
	l := subnet.Lease{BackendType: "vxlan", NodeName: fmt.Sprintf("absent%d", i)}
	l.Endpoints[subnet.IPv4] = subnet.Endpoint{
		Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + i>>8), byte(i), 0}), 24),
		PublicIP: netip.AddrFrom4([4]byte{100, byte(64 + i>>16), byte(i >> 8), byte(i)}), // RFC 6598
		Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"%s"}`, mac),
	}
	return l
}

// ManyLeasesFaults lists the faults for a suite with thousands of leases. Each is done once, so none is held against a median.
func ManyLeasesFaults() []Fault {
	const (
		replay = 350 * time.Millisecond // the kernel alone takes 230 ms for the entries of 5,000 leases
		worst  = 200 * time.Millisecond // as with few leases
	)
	many := []Fault{
		{Name: "route deleted", Class: Entries, Bound: worst,
			Inject: onDevice(func(t tables) error { return t.nl.RouteDel(&netlink.Route{Dst: t.route(t.peer).Dst}) })},
		{Name: "1,000 entries deleted at once", Class: Entries, Bound: worst, Inject: onDevice(func(t tables) error { return t.deleteMany(1000) })},
		{Name: "routes, ARP and FDB flushed", Class: Entries, Bound: replay, Inject: onDevice(tables.flushMany)},
		{Name: "nexthop deleted", Class: Entries, Bound: worst,
			Inject: onDevice(func(t tables) error { return t.nl.deleteNexthop(t.nexthop(t.peer).id) })},
		{Name: "all nexthop objects flushed", Class: Entries, Bound: replay,
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
			f.Bound = replay
			many = append(many, f)
		case "daemon killed, started again", "notifications lost, and what was told in them":
			many = append(many, f)
		}
	}
	return many
}

// deleteMany deletes n entries of the tables, a third in each.
func (t tables) deleteMany(n int) error {
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
	t.counts()
	return nil
}

// flushMany is flush, with the time counted from its end.
func (t tables) flushMany() error {
	defer t.counts()
	return t.flush()
}

// killHalfway deletes the device, and kills the daemon when it has put back a part of what hung on it.
func (t *target) killHalfway(ctx context.Context) error {
	if err := t.nl.LinkDel(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: device}}); err != nil {
		return err
	}
	for {
		if link, err := t.nl.LinkByName(device); err == nil {
			fdb, err := t.nl.NeighList(link.Attrs().Index, unix.AF_BRIDGE)
			if err == nil && len(fdb) > len(t.peers)/4 {
				break
			}
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
	t.remarks = append(t.remarks, fmt.Sprintf("killed with %d of %d entries missing", len(problems), 4*len(t.peers)))
	return errors.Join(t.Start(), t.WaitReady(ctx))
}
