package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func deviceFaults() []Fault {
	fault := func(name string, do func(tables) error) Fault {
		return Fault{Name: name, Class: Device, Inject: onDevice(do)}
	}
	return []Fault{
		fault("device down", func(t tables) error { return t.nl.LinkSetDown(t.link) }),
		fault("device down and up", func(t tables) error { return errors.Join(t.nl.LinkSetDown(t.link), t.nl.LinkSetUp(t.link)) }),
		fault("device deleted", func(t tables) error { return t.nl.LinkDel(t.link) }),
		fault("device's MAC changed", func(t tables) error {
			return t.nl.LinkSetHardwareAddr(t.link, t.otherMAC())
		}),
		fault("device's MTU changed", func(t tables) error { return t.nl.LinkSetMTU(t.link, 1300) }),
		fault("device's address flushed", tables.flushAddresses),
		fault("device renamed", func(t tables) error { return t.rename(t.link, "vxlan-lost") }),
		fault("device's alias changed", func(t tables) error { return t.nl.LinkSetAlias(t.link, "uplink to nowhere") }),
		fault("device's local address changed", func(t tables) error {
			return t.changeVXLAN(netip.MustParseAddr("172.31.0.250"))
		}),
		{Name: "device deleted, another of the name in its place, later removed", Class: Device, Running: true,
			Inject:    onDevice(tables.impostor),
			Meanwhile: degraded,
			Undo: func(_ context.Context, t *target) error {
				return t.nl.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: device}})
			}},
	}
}

func (t tables) flushAddresses() error {
	addrs, err := t.nl.AddrList(t.link, netlink.FAMILY_V4)
	for _, a := range addrs {
		err = errors.Join(err, t.nl.AddrDel(t.link, &a))
	}
	return err
}

// otherMAC is an address that the device does not have, and no other node's has either: if the daemon is down it may be
// the node's from now on.
func (t tables) otherMAC() net.HardwareAddr {
	mac := slices.Clone(t.link.Attrs().HardwareAddr)
	mac[5]++
	return mac
}

// changeVXLAN sets the device's source address. netlink.LinkModify refuses VXLAN devices.
func (t tables) changeVXLAN(local netip.Addr) error {
	return t.host.Do(func() error {
		request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(t.link.Attrs().Index)
		request.AddData(msg)
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
		info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_VXLAN_LOCAL, local.AsSlice())
		request.AddData(info)
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// impostor puts a bridge in the device's place while the daemon does not look: it would be quicker than the second step.
func (t tables) impostor() error {
	return t.paused(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device
		return errors.Join(t.nl.LinkDel(t.link), t.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	})
}

// degraded waits until the daemon has said that something is in its way, and sees that it left that alone.
func degraded(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	said := func() bool { return strings.Contains(strings.Join(t.logSince(t.logged), "\n"), "not selvage's") }
	for !said() {
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("%s: the daemon did not say that another device is in its place: %q", t.Name(), t.logSince(t.logged))
		}
	}
	link, err := t.nl.LinkByName(device)
	if err != nil {
		return fmt.Errorf("%s: the device in the place of %s: %w", t.Name(), device, err)
	}
	if link.Type() != "bridge" || link.Attrs().Alias != "" || link.Attrs().Flags&net.FlagUp != 0 {
		return fmt.Errorf("%s: the device in the place of %s was changed: %+v", t.Name(), device, link.Attrs())
	}
	return nil
}

// pause waits for d and reports whether ctx still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
