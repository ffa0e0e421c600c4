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

	"github.com/selvage-net/selvage/subnet"
)

func deviceFaults() []Fault {
	fault := func(name string, do func(tables) error) Fault {
		return Fault{Name: name, Class: Device, Families: both(), Inject: onDevice(do)}
	}
	ipv6 := func(name string, do func(tables) error) Fault {
		return Fault{Name: name, Class: Device, Families: []subnet.Family{subnet.IPv6}, Inject: onDevice(do)}
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
		fault("device renamed", func(t tables) error { return t.rename(t.link, [...]string{"vxlan-lost", "vxlan-lost6"}[t.family]) }),
		otherBridge(fault("device enslaved to a bridge", func(t tables) error {
			bridge, err := t.nl.LinkByName(lostBridge)
			if err != nil {
				return err
			}
			return t.nl.LinkSetMaster(t.link, bridge)
		})),
		fault("device's alias changed", func(t tables) error { return t.nl.LinkSetAlias(t.link, "uplink to nowhere") }),
		fault("device's local address changed", func(t tables) error {
			return t.changeVXLAN(nowhere().Endpoints[t.family].PublicIP)
		}),
		{Name: "device deleted, another of the name in its place, later removed", Class: Device, Families: both(), Running: true,
			Inject:    onDevice(tables.impostor),
			Meanwhile: degraded,
			Undo: inEachFamily(func(t *target, f subnet.Family) error {
				return t.nl.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: deviceOf(f)}})
			})},
		// With either the kernel takes the device's IPv6 addresses and routes away, and its settings below net/ipv6 as well.
		ipv6("device without IPv6 (disable_ipv6)", func(t tables) error { return t.write(disableIPv6(deviceOf(t.family)), "1") }),
		ipv6("device's MTU below what IPv6 takes", func(t tables) error { return t.nl.LinkSetMTU(t.link, minIPv6MTU-1) }),
		ipv6("device without IPv6, then with it again", func(t tables) error {
			path := disableIPv6(deviceOf(t.family))
			return errors.Join(t.write(path, "1"), t.write(path, "0"))
		}),
	}
}

// minIPv6MTU is the smallest MTU of an interface that has IPv6: RFC 8200, section 5.
const minIPv6MTU = 1280

func (t tables) flushAddresses() error {
	addrs, err := t.nl.AddrList(t.link, int(netlinkFamily(t.family)))
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
		info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr([...]int{nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_LOCAL6}[t.family], local.AsSlice())
		request.AddData(info)
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// impostor puts a bridge in the device's place while the daemon does not look: it would be quicker than the second step.
func (t tables) impostor() error {
	return t.paused(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = deviceOf(t.family)
		return errors.Join(t.nl.LinkDel(t.link), t.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	})
}

// degraded waits until the daemon has said that something is in its way, and sees that it left that alone.
func degraded(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	said := func() bool { return strings.Contains(strings.Join(t.logSince(t.logged), "\n"), "not selvage's") }
	for !said() {
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("%s: the daemon did not say that another device is in its place: %q", t.Name(), t.logSince(t.logged))
		}
	}
	return t.eachFamily(func(f subnet.Family) error {
		device := deviceOf(f)
		link, err := t.nl.LinkByName(device)
		if err != nil {
			return fmt.Errorf("%s: the device in the place of %s: %w", t.Name(), device, err)
		}
		if link.Type() != "bridge" || link.Attrs().Alias != "" || link.Attrs().Flags&net.FlagUp != 0 {
			return fmt.Errorf("%s: the device in the place of %s was changed: %+v", t.Name(), device, link.Attrs())
		}
		return nil
	})
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
