package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// RemoveIdleBridges removes the bridges that have one of some addresses, with its length, and no ports: those of a
// node's pods, by the gateway addresses, when the pods are gone. It returns their names. If dryRun is set, it removes
// none.
func RemoveIdleBridges(addresses []netip.Prefix, dryRun bool) (names []string, err error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	all, err := handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, l := range links {
		index := l.Attrs().Index
		holds := slices.ContainsFunc(all, func(a netlink.Addr) bool {
			ip, ok := netip.AddrFromSlice(a.IP)
			ones, _ := a.Mask.Size()
			return ok && a.LinkIndex == index && slices.Contains(addresses, netip.PrefixFrom(ip.Unmap(), ones))
		})
		used := slices.ContainsFunc(links, func(p netlink.Link) bool { return p.Attrs().MasterIndex == index })
		if l.Type() != network.KindBridge || !holds || used {
			continue
		}
		if !dryRun {
			if err := handle.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				return names, fmt.Errorf("remove bridge %s: %w", l.Attrs().Name, err)
			}
		}
		names = append(names, l.Attrs().Name)
	}
	return names, nil
}
