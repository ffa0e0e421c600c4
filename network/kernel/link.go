package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// Link makes the VXLAN device called name as it is wanted, or removes it. What can be changed on the living device is;
// VNI, port and GBP cannot (vxlan_changelink in drivers/net/vxlan/vxlan_core.c), and a device that is wrong there is
// replaced if it is ours. One that is not ours and not a VXLAN device of the wanted kind stays: [network.ErrForeign].
func (k *Kernel) Link(name string, c network.Change[network.Link]) (effects network.LinkEffects, err error) {
	if !c.Wanted {
		err := k.deleteLink(name)
		effects.Deleted = err == nil
		return effects, err
	}
	if c.Present && !c.Have.SameDevice(c.Want) {
		if c.Have.Alias != network.Alias && !k.isOurs(name) {
			return effects, fmt.Errorf("device %s is a %s (VNI %d, port %d), wanted is a %s (VNI %d, port %d): %w; rename or delete it",
				name, kindOf(c.Have), c.Have.VNI, c.Have.Port, c.Want.Kind, c.Want.VNI, c.Want.Port, network.ErrForeign)
		}
		if err := k.deleteLink(name); err != nil {
			return effects, err
		}
		effects.Deleted, c.Present = true, false
	}
	if !c.Present {
		if c.Have, effects.RenamedFrom, err = k.addLink(name, c.Want); err != nil {
			return effects, err
		}
	}
	effects.FDBFlushed, err = k.changeLink(name, c.Have, c.Want)
	return effects, err
}

// isOurs asks whether a device carries our alias by now: one that is given to a device that is down is not told
// (netdev_state_change in net/core/dev.c).
func (k *Kernel) isOurs(name string) bool {
	link, err := k.handle.LinkByName(name)
	return err == nil && link.Attrs().Alias == network.Alias
}

func kindOf(l network.Link) string {
	if l.Kind == "" {
		return "physical or unknown device"
	}
	return l.Kind
}

func (k *Kernel) deleteLink(name string) error {
	err := k.handle.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}})
	if err == nil || isNotFound(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("delete device %s: %w", name, err)
}

// addLink makes the device, down, and returns how it then is. Where there is one of ours under another name, which it returns
// too, that one is renamed.
func (k *Kernel) addLink(name string, want network.Link) (have network.Link, before string, err error) {
	if have, before, err = k.rename(name, want); before != "" || err != nil {
		return have, before, err
	}
	err = k.makeVXLAN(name, want)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return have, "", fmt.Errorf("make VXLAN device %s: %w; this kernel has no VXLAN (CONFIG_VXLAN, module vxlan)", name, err)
	case errors.Is(err, unix.EPERM):
		return have, "", fmt.Errorf("make VXLAN device %s: %w; the daemon needs CAP_NET_ADMIN", name, err)
	case err != nil:
		return have, "", fmt.Errorf("make VXLAN device %s (VNI %d, port %d, local %s): %w", name, want.VNI, want.Port, want.Local, err)
	}
	link, err := k.handle.LinkByName(name)
	if err != nil {
		return have, "", fmt.Errorf("find the new device %s: %w", name, err)
	}
	k.named(int32(link.Attrs().Index), name)
	have = want
	have.Up, have.Alias, have.AddrGen, have.TxChecksum = false, "", true, network.AsItIs
	return have, "", nil
}

// rename deals with a device that has the wanted VNI and port under another name: the kernel allows one only. Ours gets
// its name back, and keeps what hangs on it. before is the other name; empty: there is no such device.
func (k *Kernel) rename(name string, want network.Link) (have network.Link, before string, err error) {
	links, err := k.handle.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return have, "", fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		v, ok := l.(*netlink.Vxlan)
		if !ok || v.VxlanId != int(want.VNI) || v.Port != int(want.Port) || isIPv6(v) == want.Local.Is4() {
			continue
		}
		if v.Alias != network.Alias {
			return have, "", fmt.Errorf("make VXLAN device %s: device %s has VNI %d and port %d already: %w; delete it, or give one of them another VNI",
				name, v.Name, want.VNI, want.Port, network.ErrForeign)
		}
		if v.GBP != want.GBP {
			return have, "", k.deleteLink(v.Name)
		}
		if err := k.setName(v, name); err != nil {
			return have, "", fmt.Errorf("rename device %s back to %s: %w", v.Name, name, err)
		}
		k.named(int32(v.Index), name)
		k.Distrust() // what hangs on it is to be read under its new name
		have = network.Link{
			Kind: want.Kind, VNI: want.VNI, Port: want.Port, MTU: v.MTU, Learning: v.Learning, GBP: v.GBP, Alias: v.Alias,
			AddrGen: true, // the library does not say
			Up:      v.Flags&net.FlagUp != 0,
		}
		have.Local, _ = netip.AddrFromSlice(v.SrcAddr)
		have.Local = have.Local.Unmap()
		copy(have.MAC[:], v.HardwareAddr)
		return have, v.Name, nil
	}
	return have, "", nil
}

// isIPv6 reports whether a VXLAN device runs over IPv6. One that says nothing runs over IPv4.
func isIPv6(v *netlink.Vxlan) bool {
	return v.SrcAddr != nil && v.SrcAddr.To4() == nil || v.Group != nil && v.Group.To4() == nil
}

// setName renames a device. Before Linux 6.2 that takes setting it down.
func (k *Kernel) setName(l netlink.Link, name string) error {
	err := k.handle.LinkSetName(l, name)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := k.handle.LinkSetDown(l); err != nil {
		return err
	}
	if err := k.handle.LinkSetName(l, name); err != nil {
		return err
	}
	return k.handle.LinkSetUp(l)
}

// changeLink brings a device that exists from have to want, touching only what differs. It reports whether that took
// flushing the device's FDB.
func (k *Kernel) changeLink(name string, have, want network.Link) (flushed bool, err error) {
	index, err := k.index(name)
	if err != nil {
		return false, err
	}
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}}
	steps := []struct {
		what  string
		right bool
		do    func() error
	}{
		{"alias", have.Alias == want.Alias, func() error { return k.handle.LinkSetAlias(link, want.Alias) }},
		{"MAC address", have.MAC == want.MAC, func() error {
			return k.handle.LinkSetHardwareAddr(link, net.HardwareAddr(want.MAC[:]))
		}},
		{"MTU", have.MTU == want.MTU, func() error { return k.handle.LinkSetMTU(link, want.MTU) }},
		{"local address and learning", have.Local == want.Local && have.Learning == want.Learning, func() error {
			if err := k.changeVXLAN(index, want); err != nil || !want.Local.Is6() || have.Local == want.Local {
				return err
			}
			flushed = true
			return k.flushFDB(name, index)
		}},
		// Before it comes up: else the kernel gives it a link-local address, and a peer's router advertisement more.
		{"IPv6 address generation", have.AddrGen == want.AddrGen, func() error {
			if err := refuseRouterAdvertisements(name); err != nil {
				return err
			}
			err := k.handle.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
			if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
				return nil // there is no IPv6 here
			}
			return err
		}},
		{"checksum offload", want.TxChecksum == network.AsItIs || have.TxChecksum == want.TxChecksum, func() error {
			return k.setTxChecksum(name, want.TxChecksum)
		}},
		{"state", have.Up == want.Up, func() error { return k.handle.LinkSetUp(link) }},
	}
	for _, s := range steps {
		if s.right {
			continue
		}
		if err := s.do(); err != nil {
			return flushed, fmt.Errorf("set %s of device %s: %w", s.what, name, err)
		}
	}
	return flushed, nil
}

// refuseRouterAdvertisements keeps whoever is in the overlay from configuring this node.
func refuseRouterAdvertisements(link string) error {
	err := writeSysctl(filepath.Join("net/ipv6/conf", link, "accept_ra"), "0")
	if err == nil || errors.Is(err, fs.ErrNotExist) { // without IPv6 there are none
		return nil
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return nil // /proc/sys is not ours to write; without an address of its own the device sends no solicitation
	}
	return err
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
