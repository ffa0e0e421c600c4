package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// This file recognizes devices of pods that were renamed while the daemon did not run. While it runs, it knows
// a renamed device by its interface index: see renamedFrom.

// MissingPort is the end on the node of a running pod's link that has no device of its name.
type MissingPort struct {
	Name   string
	MAC    network.MAC // that it had when the pod was added; zero: not known
	Bridge string      // to which it was attached; empty: none
	NetNS  string      // path of the pod's network namespace
}

// FindPorts looks for ports under other names that this program has not seen before: by the MAC address; or, since udev
// may have changed that one, as the only port of the bridge whose other end is in the pod's namespace. From then on one
// that is found is a port that was renamed.
func (k *Kernel) FindPorts(missing []MissingPort) {
	missing = slices.DeleteFunc(missing, func(m MissingPort) bool {
		_, seen := k.tended.indexes[m.Name]
		return seen
	})
	if len(missing) == 0 {
		return // also if a port was deleted
	}
	links, err := k.handle.LinkList()
	if err != nil {
		return // as if they were gone
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool {
		_, named := k.tended.names[l.Attrs().Name]
		_, known := k.links[int32(l.Attrs().Index)]
		return named || !known || l.Type() != "veth"
	})
	for _, m := range missing {
		found := slices.IndexFunc(links, func(l netlink.Link) bool {
			return m.MAC.IsUnicast() && slices.Equal(l.Attrs().HardwareAddr, m.MAC[:])
		})
		if found < 0 {
			found = k.onlyPort(links, m)
		}
		if found >= 0 {
			k.tended.indexes[m.Name] = int32(links[found].Attrs().Index)
			links = slices.Delete(links, found, found+1)
		}
	}
}

// onlyPort returns the position of the only port of a pod's bridge whose other end is in the pod's namespace; -1: there
// is none, or there are several.
func (k *Kernel) onlyPort(links []netlink.Link, m MissingPort) int {
	bridge, there := k.byName[m.Bridge]
	if !there {
		return -1
	}
	ns, err := unix.Open(m.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(ns)
	id, err := netlink.GetNetNsIdByFd(ns)
	if err != nil || id < 0 {
		return -1
	}
	is := func(l netlink.Link) bool {
		return l.Attrs().NetNsID == id && int32(l.Attrs().MasterIndex) == bridge
	}
	found := slices.IndexFunc(links, is)
	if found >= 0 && slices.ContainsFunc(links[found+1:], is) {
		return -1
	}
	return found
}

// findBridge looks for a desired bridge under another name, by the MAC address or the addresses that its pods know. One
// to which a port of the desired bridge is attached is taken for a bridge that was renamed from then on. Beside any
// other one with such an address, no bridge is to be made: the error names it.
func (k *Kernel) findBridge(name string) error {
	links, err := k.handle.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	addresses, err := k.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() != network.KindBridge || k.tables.Bridges.Get(a.Name).Wanted {
			continue
		}
		holds := k.gatewayOn(name, a.Index, addresses)
		mac := k.tended.macs[name]
		if !holds.IsValid() && (!mac.IsUnicast() || !slices.Equal(a.HardwareAddr, net.HardwareAddr(mac[:]))) {
			continue
		}
		if slices.ContainsFunc(links, func(p netlink.Link) bool {
			return p.Attrs().MasterIndex == a.Index && k.isPortOf(name, int32(p.Attrs().Index))
		}) {
			k.tended.indexes[name] = int32(a.Index)
			return nil
		}
		if holds.IsValid() {
			return fmt.Errorf("bridge %s has %s, the address of the missing bridge %s, and none of its pods is "+
				"attached to it: %w; rename it (ip link set %[1]s name %[3]s), or remove the address "+
				"(ip address del %[2]s dev %[1]s)",
				a.Name, holds, name, network.ErrForeign)
		}
	}
	return nil
}

// gatewayOn returns an address that a device has and that pods of the bridge of that name know; invalid: there is none.
func (k *Kernel) gatewayOn(bridge string, index int, addresses []netlink.Addr) netip.Prefix {
	for _, a := range addresses {
		bits, _ := a.Mask.Size()
		p := netip.PrefixFrom(addrOf(a.IP), bits)
		if a.LinkIndex == index && slices.Contains(k.tended.names[bridge].Gateways, p) {
			return p
		}
	}
	return netip.Prefix{}
}

// isPortOf reports whether a device is a desired port of the bridge of that name, perhaps under another name.
func (k *Kernel) isPortOf(bridge string, index int32) bool {
	for name, i := range k.tended.indexes {
		if c := k.tables.Ports.Get(name); i == index && c.Wanted && c.Want.Master == bridge {
			return true
		}
	}
	return false
}
