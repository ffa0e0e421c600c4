package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// upper is a kind of device that carries the node's address on top of its NIC: a bridge stands for what has ports, such as
// a bond, a macvlan for what goes when its NIC goes, such as a VLAN. Not every kernel has those two. Either has the NIC's
// MAC address, as they have: with another the peers would send to the old one until their ARP entries expire.
type upper string

const (
	overBridge  upper = "bridge"
	overMacvlan upper = "macvlan"
)

// put makes the device on top of the NIC, without addresses.
func (u upper) put(h *host) error {
	nic, err := h.nl.LinkByName(uplinkName)
	if err != nil {
		return fmt.Errorf("%s: find the uplink: %w", h.Name(), err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = uplinkUpper, nic.Attrs().HardwareAddr
	switch u {
	case overBridge:
		err = h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
		if err == nil {
			err = h.nl.LinkSetMaster(nic, &netlink.Bridge{LinkAttrs: attrs})
		}
	case overMacvlan:
		attrs.ParentIndex, attrs.HardwareAddr = nic.Attrs().Index, nil // in this mode it takes the NIC's
		err = h.nl.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PASSTHRU})
	}
	if err != nil {
		return fmt.Errorf("%s: put a %s on the uplink: %w", h.Name(), u, err)
	}
	return nil
}

// carry makes the device and moves the node's address to it.
func (u upper) carry(h *host) error {
	if err := u.put(h); err != nil {
		return err
	}
	nic, err := h.nl.LinkByName(uplinkName)
	if err != nil {
		return err
	}
	return errors.Join(h.strip(nic), h.bringUp(uplinkUpper))
}

// strip takes addresses and routes off an interface.
func (h *host) strip(link netlink.Link) error {
	var errs []error
	for _, r := range h.uplink.routes {
		r.LinkIndex, r.Flags = link.Attrs().Index, 0
		if err := h.nl.RouteDel(&r); !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	for _, a := range h.uplink.addrs {
		if err := h.nl.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}); !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// again makes the device anew, with an MTU by which one sees that it is the new one that is followed.
func (u upper) again(h *host) error {
	if err := u.put(h); err != nil {
		return err
	}
	link, err := h.nl.LinkByName(uplinkUpper)
	if err != nil {
		return err
	}
	return errors.Join(h.nl.LinkSetMTU(link, smallMTU), h.bringUp(uplinkUpper))
}

// smallMTU is one that no uplink has at first.
const smallMTU = 1400

// removeUpper takes the device away, with the node's address on it.
func (h *host) removeUpper() error {
	if err := h.nl.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: uplinkUpper}}); err != nil {
		return fmt.Errorf("%s: remove %s: %w", h.Name(), uplinkUpper, err)
	}
	return nil
}

// restarted calls fn while the daemon does not run: what it does is how the machine was set up, and not the fault.
func restarted(fn func(*host) error) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		if err := t.Stop(ctx); err != nil {
			return err
		}
		return errors.Join(fn(t.host), t.Start(), t.WaitReady(ctx))
	}
}

// off gives the NIC its address back.
func (h *host) off() error { return errors.Join(h.removeUpper(), h.restoreUplink()) }

func stackedFaults() []Fault {
	const away = 300 * time.Millisecond
	on := func(u upper, f Fault) Fault {
		f.Class, f.Away, f.Unbroken = Uplink, away, true
		f.Before, f.After = restarted(u.carry), restarted((*host).off)
		return f
	}
	return []Fault{
		on(overBridge, Fault{Name: "uplink's bridge torn down, then made again (bond: ifdown, ifup)",
			Inject: func(_ context.Context, t *target) error {
				link, err := t.nl.LinkByName(uplinkUpper)
				if err != nil {
					return err
				}
				return errors.Join(t.strip(link), t.nl.LinkSetDown(link), t.removeUpper())
			},
			Undo: func(_ context.Context, t *target) error { return overBridge.again(t.host) }}),
		on(overBridge, Fault{Name: "NIC below the uplink's bridge down, then up",
			Inject: onUplink(func(t *target, nic netlink.Link) error { return t.nl.LinkSetDown(nic) }),
			Undo:   onUplink(func(t *target, nic netlink.Link) error { return t.nl.LinkSetUp(nic) })}),
		on(overMacvlan, Fault{Name: "NIC below the uplink's macvlan deleted, both made again (VLAN)",
			Inject: onUplink(func(t *target, nic netlink.Link) error { return t.nl.LinkDel(nic) }),
			Undo: func(_ context.Context, t *target) error {
				return errors.Join(t.plugIn(), overMacvlan.again(t.host))
			}}),
		{Name: "uplink's address moved to a bridge, later back", Class: Uplink, Follow: true, Running: true,
			Inject: func(_ context.Context, t *target) error {
				nic, err := t.nl.LinkByName(uplinkName)
				if err != nil {
					return err
				}
				return errors.Join(t.strip(nic), overBridge.again(t.host))
			},
			Undo: func(_ context.Context, t *target) error { return t.off() }},
	}
}
