package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Names of a node's uplink. Its daemon takes each of them, see [Options.daemonArgs].
const (
	uplinkName  = "eth0"
	uplinkOther = "wan0"
	uplinkUpper = "bond0"     // a device on top of eth0: see stacked.go
	bridgeName  = "underlay0" // of the lab, which the uplinks' other ends are ports of
)

// uplink is what a node's uplink has.
type uplink struct {
	name   string
	mtu    int
	mac    net.HardwareAddr
	addrs  []netlink.Addr
	routes []netlink.Route // what is neither the kernel's own nor selvage's
}

// readUplink reads the uplink as it is: the interface that has the node's address, else the first there is. One that is
// not there is as it was made, without addresses: what follows from it is to stay.
func (h *host) readUplink() (uplink, error) {
	first := uplink{mtu: h.uplink.mtu}
	for _, name := range []string{uplinkName, uplinkOther, uplinkUpper} {
		link, err := h.nl.LinkByName(name)
		if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return uplink{}, fmt.Errorf("%s: find the uplink: %w", h.Name(), err)
		}
		u := uplink{name: name, mtu: link.Attrs().MTU, mac: link.Attrs().HardwareAddr}
		addrs, err := again(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, netlink.FAMILY_ALL) })
		if gone(err) != nil {
			return u, fmt.Errorf("%s: list addresses: %w", h.Name(), err)
		}
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() {
				u.addrs = append(u.addrs, a)
			}
		}
		if len(u.addrs) > 0 {
			return u, nil
		}
		if first.name == "" {
			first = u
		}
	}
	return first, nil
}

// addr is the uplink's address of a family, the invalid one if it has none.
func (u uplink) addr(f subnet.Family) netip.Addr {
	for _, a := range u.addrs {
		if ip := addrOf(a.IP); subnet.FamilyOf(ip) == f {
			return ip
		}
	}
	return netip.Addr{}
}

// addrs are the addresses that the uplink was made with, of the families that the fault is done in.
func (t *target) addrs() (addrs []netlink.Addr) {
	for _, a := range t.uplink.addrs {
		if slices.Contains(t.families, subnet.FamilyOf(addrOf(a.IP))) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// replaceRoutes puts the routes out of the uplink back, of those families.
func (t *target) replaceRoutes(link netlink.Link) error {
	for _, r := range t.uplink.routes {
		if slices.Contains(t.families, subnet.FamilyOf(addrOf(r.Gw))) {
			r.LinkIndex, r.Flags = link.Attrs().Index, 0
			if err := t.nl.RouteReplace(&r); err != nil {
				return err
			}
		}
	}
	return nil
}

// rememberUplink notes how the uplink was made, for restoreUplink.
func (h *host) rememberUplink() (err error) {
	if h.uplink, err = h.readUplink(); err != nil {
		return err
	}
	link, err := h.nl.LinkByName(uplinkName)
	if err != nil {
		return err
	}
	routes, err := h.nl.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("%s: list routes: %w", h.Name(), err)
	}
	for _, r := range routes {
		if r.Protocol != unix.RTPROT_KERNEL && r.Protocol != routeProtocol {
			h.uplink.routes = append(h.uplink.routes, r)
		}
	}
	return nil
}

// restoreUplink does what a network manager does when an interface comes up: addresses and routes.
func (h *host) restoreUplink() error { return h.bringUp(uplinkName) }

// bringUp does that with the interface of the given name.
func (h *host) bringUp(name string) error {
	link, err := h.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: restore the uplink: %w", h.Name(), err)
	}
	errs := []error{h.nl.LinkSetUp(link)}
	for _, a := range h.uplink.addrs {
		errs = append(errs, h.nl.AddrReplace(link, &netlink.Addr{IPNet: a.IPNet, Flags: a.Flags &^ unix.IFA_F_PERMANENT, Scope: a.Scope}))
	}
	for _, r := range h.uplink.routes {
		r.LinkIndex, r.Flags = link.Attrs().Index, 0
		errs = append(errs, h.nl.RouteReplace(&r))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: restore the uplink: %w", h.Name(), err)
	}
	return nil
}

// plugIn makes an uplink with the MAC address of the first, set up and without addresses.
func (h *host) plugIn() error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find %s: %w", bridgeName, err)
	}
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: h.Name(), MTU: h.uplink.mtu, MasterIndex: bridge.Attrs().Index})
	veth.PeerName, veth.PeerNamespace, veth.PeerMTU = uplinkName, netlink.NsFd(h.netns.Fd()), uint32(h.uplink.mtu)
	veth.PeerHardwareAddr = h.uplink.mac
	err = errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth),
		h.nl.LinkSetUp(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: uplinkName}}))
	if err != nil {
		return fmt.Errorf("%s: plug the uplink in: %w", h.Name(), err)
	}
	return nil
}

// onUplink calls fn with the uplink.
func onUplink(fn func(t *target, link netlink.Link) error) func(context.Context, *target) error {
	return func(_ context.Context, t *target) error {
		link, err := t.nl.LinkByName(uplinkName)
		if err != nil {
			return fmt.Errorf("%s: find the uplink: %w", t.Name(), err)
		}
		return fn(t, link)
	}
}

func restoreUplink(_ context.Context, t *target) error { return t.restoreUplink() }

// renumber gives the uplink another address in the place of its own: host 111 for host 11, with the default route that
// goes with it. The kernel drops the routes together with the last address of their network.
func renumber(_ context.Context, t *target) error {
	link, err := t.nl.LinkByName(uplinkName)
	if err != nil {
		return err
	}
	for _, a := range t.addrs() {
		renumbered := slices.Clone(addrOf(a.IP).AsSlice())
		renumbered[len(renumbered)-1] += 100
		err := errors.Join(t.nl.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}),
			t.nl.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: renumbered, Mask: a.Mask}}))
		if err != nil {
			return err
		}
	}
	return t.replaceRoutes(link)
}

// numberBack undoes renumber.
func numberBack(_ context.Context, t *target) error {
	u, err := t.readUplink()
	if err != nil {
		return err
	}
	link, err := t.nl.LinkByName(uplinkName)
	if err != nil {
		return err
	}
	for _, a := range u.addrs {
		if slices.Contains(t.families, subnet.FamilyOf(addrOf(a.IP))) {
			if err := t.nl.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}); err != nil {
				return err
			}
		}
	}
	return t.restoreUplink()
}

func uplinkFaults() []Fault {
	const away = 300 * time.Millisecond
	return []Fault{
		{Name: "uplink down, then up", Class: Uplink, Away: away, Unbroken: true,
			Inject: onUplink(func(t *target, l netlink.Link) error { return t.nl.LinkSetDown(l) }), Undo: restoreUplink},
		{Name: "uplink's address removed, then back", Class: Uplink, Families: both(), Away: away, Unbroken: true,
			Inject: onUplink(func(t *target, l netlink.Link) error {
				var errs []error
				for _, a := range t.addrs() {
					errs = append(errs, t.nl.AddrDel(l, &netlink.Addr{IPNet: a.IPNet}))
				}
				return errors.Join(errs...)
			}), Undo: restoreUplink},
		{Name: "uplink gets another address, later its own", Class: Uplink, Families: both(), Follow: true, Inject: renumber, Undo: numberBack},
		{Name: "uplink without IPv6 (disable_ipv6), then with it", Class: Uplink, Families: []subnet.Family{subnet.IPv6}, Away: away, Unbroken: true,
			Inject: func(_ context.Context, t *target) error { return t.write(disableIPv6(uplinkName), "1") },
			Undo: func(_ context.Context, t *target) error {
				return errors.Join(t.write(disableIPv6(uplinkName), "0"), t.restoreUplink())
			}},
		{Name: "uplink's MTU 1400, later 1500", Class: Uplink, Follow: true,
			Inject: onUplink(func(t *target, l netlink.Link) error { return t.nl.LinkSetMTU(l, smallMTU) }),
			Undo:   onUplink(func(t *target, l netlink.Link) error { return t.nl.LinkSetMTU(l, t.uplink.mtu) })},
		{Name: "uplink renamed, later back", Class: Uplink, Follow: true, Unbroken: true,
			Inject: onUplink(func(t *target, l netlink.Link) error { return t.rename(l, uplinkOther) }),
			Undo: func(_ context.Context, t *target) error {
				link, err := t.nl.LinkByName(uplinkOther)
				if err != nil {
					return err
				}
				return errors.Join(t.rename(link, uplinkName), t.restoreUplink())
			}},
		{Name: "uplink deleted, then recreated", Class: Uplink, Away: away, Unbroken: true,
			Inject: onUplink(func(t *target, l netlink.Link) error { return t.nl.LinkDel(l) }),
			Undo:   func(_ context.Context, t *target) error { return errors.Join(t.plugIn(), t.restoreUplink()) }},
	}
}

// rename renames an interface, which before Linux 6.2 takes setting it down.
func (h *host) rename(l netlink.Link, name string) error {
	err := h.nl.LinkSetName(l, name)
	if errors.Is(err, unix.EBUSY) {
		err = errors.Join(h.nl.LinkSetDown(l), h.nl.LinkSetName(l, name), h.nl.LinkSetUp(l))
	}
	return err
}
