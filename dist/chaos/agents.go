package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// agentFaults are what programs do that manage a host's network, step by step.
func agentFaults() []Fault {
	fault := func(name string, do func(tables) error) Fault {
		return Fault{Name: name, Class: Device, Families: both(), Inject: onDevice(do)}
	}
	return []Fault{
		fault("systemd-networkd reloads: what is foreign on the device removed", tables.networkd),
		{Name: "udev gives the new device a MAC address by its policy", Class: Device, Families: both(), Running: true, Inject: onDevice(tables.udev)},
		fault("NetworkManager takes the device: down, flushed, up, settings", tables.networkManager),
		{Name: "a cloud agent renews the uplink's address: removed and added again", Class: Uplink, Families: both(), Unbroken: true,
			Away: 100 * time.Millisecond, Inject: renewAddress, Meanwhile: leaseUntouched,
			Undo: func(context.Context, *target) error { return nil }},
		firewallReplaced(),
		firewalldReload(),
		rulesetFlushed(),
		kubeProxy(),
	}
}

// try calls all steps. The daemon repairs what the first ones do while the last ones are done, so any may find nothing:
// each is a fault by itself.
func try(steps ...func() error) {
	for _, step := range steps {
		_ = step()
	}
}

// networkd does to a device that a .network file matches what systemd-networkd does when it starts or reloads, with
// ManageForeignRoutes= and ManageForeignNextHops= at their default, yes (networkd.conf(5); link_drop_unmanaged_nexthops
// and its like in src/network): routes, nexthop objects, addresses and neighbours that it did not make go, but for those
// that the kernel made. MACAddress= or a .link file's MACAddressPolicy=persistent change the MAC address.
func (t tables) networkd() error {
	index := t.link.Attrs().Index
	routes, err := t.nl.RouteList(t.link, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	try(
		func() error { return t.deleteRoutes(routes) },
		func() error { return t.nl.flushNexthops(func(n nexthop) bool { return n.link == index }) },
		t.flushAddresses,
		func() error {
			for _, l := range t.peers {
				_ = t.nl.NeighDel(t.neighbour(l))
			}
			return nil
		},
		func() error { return t.nl.LinkSetHardwareAddr(t.link, t.otherMAC()) },
	)
	return nil
}

// deleteRoutes deletes those of the routes that the kernel did not make.
func (t tables) deleteRoutes(routes []netlink.Route) error {
	for _, r := range routes {
		if r.Protocol != unix.RTPROT_KERNEL {
			_ = t.nl.RouteDel(&netlink.Route{Dst: r.Dst, Table: r.Table})
		}
	}
	return nil
}

// udev deletes the device, waits for the daemon's new one, and gives that another address at once, as a .link file with
// MACAddressPolicy=persistent says (99-default.link) for each virtual device that appears.
func (t tables) udev() error {
	socket, err := subscribe(t.host, unix.RTNLGRP_LINK)
	if err != nil {
		return err
	}
	defer socket.Close()
	mac := t.otherMAC()
	if err := t.nl.LinkDel(t.link); err != nil {
		return err
	}
	for {
		messages, _, err := socket.Receive()
		if err != nil {
			return fmt.Errorf("%s: wait for the new %s: %w", t.Name(), t.link.Attrs().Name, err)
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
				continue
			}
			link, err := netlink.LinkDeserialize(nil, m.Data)
			if err == nil && link.Attrs().Name == t.link.Attrs().Name && link.Attrs().Index != t.link.Attrs().Index {
				return t.nl.LinkSetHardwareAddr(link, mac)
			}
		}
	}
}

// subscribe listens to rtnetlink notifications of a node, none later than the longest that anything may take.
func subscribe(h *host, group uint) (socket *nl.NetlinkSocket, err error) {
	err = h.Do(func() error {
		socket, err = nl.Subscribe(unix.NETLINK_ROUTE, group)
		return err
	})
	if err != nil {
		return nil, err
	}
	return socket, socket.SetReceiveTimeout(&unix.Timeval{Sec: int64(h.patience / time.Second)})
}

// networkManager does to a device what NetworkManager does when it takes an unmanaged one over: it is set down, addresses
// and routes are flushed, IPv6 is configured by NetworkManager itself instead of the kernel, and it is set up with the
// profile's MTU and MAC address. When it lets go of the device, IPv6 is the kernel's again, with a link-local address.
func (t tables) networkManager() error {
	ipv6 := func(setting, value string) func() error {
		return func() error { return t.write(settings(subnet.IPv6)+"conf/"+deviceOf(t.family)+"/"+setting, value) }
	}
	const eui64, none = 0, 1 // IN6_ADDR_GEN_MODE_*
	addrGen := func(mode int) func() error {
		return func() error { return t.nl.LinkSetIP6AddrGenMode(t.link, mode) }
	}
	if err := t.nl.LinkSetDown(t.link); err != nil {
		return err
	}
	try(
		func() error { return t.flush() },
		t.flushAddresses,
		addrGen(none), ipv6("disable_ipv6", "0"), ipv6("accept_ra", "0"),
		func() error { return t.nl.LinkSetMTU(t.link, 1500) },
		func() error { return t.nl.LinkSetUp(t.link) },
		func() error { return t.nl.LinkSetHardwareAddr(t.link, t.otherMAC()) },
		func() error { return t.nl.LinkSetDown(t.link) },
		ipv6("accept_ra", "1"), addrGen(eui64),
		func() error { return t.nl.LinkSetUp(t.link) },
	)
	return nil
}

// renewAddress does to the uplink what dhclient-script and the agents of clouds do when they renew the address: all of a
// family are flushed, which takes the routes along, then the same is added, with the MTU that the server says and the
// default route.
func renewAddress(ctx context.Context, t *target) (err error) {
	if t.noted, err = t.leaseVersion(ctx); err != nil {
		return err
	}
	return onUplink(func(t *target, link netlink.Link) error {
		errs := []error{t.nl.LinkSetMTU(link, smallMTU)} // what it starts from, on some clouds
		for _, a := range t.addrs() {
			errs = append(errs, t.nl.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}))
		}
		for _, a := range t.addrs() {
			errs = append(errs, t.nl.AddrAdd(link, &netlink.Addr{IPNet: a.IPNet, Broadcast: broadcast(a.IPNet), Scope: a.Scope}))
		}
		errs = append(errs, t.nl.LinkSetMTU(link, t.uplink.mtu), t.replaceRoutes(link))
		return errors.Join(errs...)
	})(ctx, t)
}

// broadcast is the address to all of a network; IPv6 has none.
func broadcast(n *net.IPNet) net.IP {
	ip := n.IP.To4()
	if ip == nil {
		return nil
	}
	b := make(net.IP, len(ip))
	for i := range ip {
		b[i] = ip[i] | ^n.Mask[i]
	}
	return b
}

// leaseVersion changes when the node's lease is written.
func (t *target) leaseVersion(ctx context.Context) (int64, error) {
	return t.suite.lab.Store().Version(ctx, t.suite.lease(t.host))
}

// leaseUntouched makes sure that the peers heard nothing: each write of a lease is told to every node.
func leaseUntouched(ctx context.Context, t *target) error {
	now, err := t.leaseVersion(ctx)
	if err == nil && t.noted != now {
		err = fmt.Errorf("%s: its lease was written again, though its address is the same", t.Name())
	}
	return err
}
