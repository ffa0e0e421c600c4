package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/userspace"
)

// Link makes the desired device, or removes it. What the kernel can change on the live device is changed; one that
// differs in the rest is replaced if it is ours. A device of that name that is neither ours nor like the desired one
// is left alone: [network.ErrForeign].
func (k *Kernel) Link(name string, c network.Change[network.Link]) (effects network.LinkEffects, err error) {
	if !c.Wanted {
		err := k.deleteLink(name)
		effects.Deleted = err == nil
		return effects, err
	}
	kind := kindNamed(c.Want.Kind)
	if kind == nil {
		return effects, fmt.Errorf("device %s: selvage does not make devices of kind %q", name, c.Want.Kind)
	}
	if other, is := k.tables.Ownership().Other(c.Have.Alias); c.Present && is {
		differ := "VNI"
		if c.Want.Kind == network.KindWireGuard { // one name
			differ = "Backend.Type"
		}
		return effects, otherNetworks(name, other, differ)
	}
	if c.Present && k.servesWireGuard(name, c.Have) { // since it was reported
		c.Have.Kind = network.KindWireGuard
	}
	if c.Present && c.Have.Kind == kindTun && k.wireGuards.processes.Starting(name) {
		return effects, fmt.Errorf("make device %s: %w", name, userspace.ErrStarting)
	}
	if c.Present && !c.Have.SameDevice(c.Want) {
		if !k.tables.Ownership().OwnsAlias(c.Have.Alias) && !k.isOurs(name) {
			return effects, fmt.Errorf("device %s is a %s; want a %s: %w; rename or delete it",
				name, c.Have.Identity(), c.Want.Identity(), network.ErrForeign)
		}
		if err := k.deleteLink(name); err != nil {
			return effects, err
		}
		effects.Deleted, c.Present = true, false
	}
	if !c.Present {
		if c.Have, effects.RenamedFrom, err = k.addLink(kind, name, c.Want); err != nil {
			return effects, err
		}
	}
	effects.FDBFlushed, err = k.changeLink(kind, name, c.Have, c.Want)
	return effects, err
}

// explainPort says who has the UDP port of the device, if that is why the kernel refuses it.
func (k *Kernel) explainPort(name string, want network.Link, err error) error {
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EBUSY) && want.Kind == network.KindVXLAN {
		return errno.With(err, k.portInUse(name, want.Settings))
	}
	return err
}

// isOurs asks the kernel whether a device carries our alias. The kernel does not notify of an alias that is given to a
// device that is down (netdev_state_change in net/core/dev.c).
func (k *Kernel) isOurs(name string) bool {
	link, err := k.handle.LinkByName(name)
	return err == nil && k.tables.Ownership().OwnsAlias(link.Attrs().Alias)
}

// otherNetworks is the error for a device that another network of selvage has. differ names what the two must not
// share.
func otherNetworks(name string, s network.Scope, differ string) error {
	return fmt.Errorf("device %s belongs to another network of selvage on this node, %s: %w; "+
		"give one of the networks another %s", name, s, network.ErrForeign, differ)
}

func (k *Kernel) deleteLink(name string) error {
	if err := k.wireGuards.processes.End(name); err != nil {
		return err
	}
	err := k.handle.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}})
	if err == nil || isNotFound(err) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if _, gone := k.handle.LinkByName(name); isNotFound(gone) { // the library asks for index 0 then: EINVAL
		return nil
	}
	return fmt.Errorf("delete device %s: %w", name, err)
}

// addLink makes the device, down, and returns its state. Where one of our devices has the desired settings under
// another name, addLink renames that one instead, and returns the other name too.
func (k *Kernel) addLink(
	kind deviceKind, name string, want network.Link,
) (have network.Link, before string, err error) {
	if have, before, err = k.rename(kind, name, want); before != "" || err != nil {
		return have, before, err
	}
	if err := kind.create(k, name, want); err != nil {
		return have, "", fmt.Errorf("make device %s (%s): %w", name, want.Identity(), k.explainPort(name, want, err))
	}
	link, err := k.handle.LinkByName(name)
	if err != nil {
		return have, "", fmt.Errorf("find the new device %s: %w", name, err)
	}
	index := int32(link.Attrs().Index)
	k.named(index, name)
	k.fresh[index] = struct{}{}
	have = want
	have.Up, have.Alias, have.AddrGen, have.TxChecksum = false, "", true, network.AsItIs
	have.MTU = link.Attrs().MTU // a process that serves a device is not told the desired one
	return have, "", nil
}

// rename deals with a device under another name that excludes the desired one: the kernel allows one VXLAN device
// with a VNI and port, for instance. Ours gets its name back, and keeps the objects on it. before is the other name;
// empty: there is no such device.
func (k *Kernel) rename(kind deviceKind, name string, want network.Link) (have network.Link, before string, err error) {
	var found linkMessage
	err = repeated(func() error {
		found = linkMessage{}
		return k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, func(_ uint16, data []byte) {
			m, ok := decodeLink(data)
			if ok && found.name == "" && m.link.Kind == want.Kind && kind.excludes(m.settings, want.Settings) {
				found = m
			}
		}, nl.NewIfInfomsg(unix.AF_UNSPEC))
	})
	switch {
	case err != nil || found.name == "":
		return have, "", err
	case !k.tables.Ownership().OwnsAlias(found.link.Alias):
		if other, is := network.ParseAlias(found.link.Alias); is {
			return have, "", otherNetworks(found.name, other, "VNI or port")
		}
		return have, "", fmt.Errorf("make device %s (%s): device %s is a %s already: %w; "+
			"delete it, or give one of them other settings",
			name, want.Identity(), found.name, found.link.Identity(), network.ErrForeign)
	case !found.link.SameDevice(want):
		return have, "", k.deleteLink(found.name)
	}
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: found.name, Index: int(found.index)}}
	if err := k.setName(link, name); err != nil {
		return have, "", fmt.Errorf("rename device %s back to %s: %w", found.name, name, err)
	}
	k.named(found.index, name)
	k.RequestResync() // the objects on it have to be read under its new name
	return found.link, found.name, nil
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

// changeLink brings an existing device from have to want, changing only what differs. It reports whether that flushed
// the device's FDB.
func (k *Kernel) changeLink(kind deviceKind, name string, have, want network.Link) (flushed bool, err error) {
	link, err := k.linkNamed(name)
	if err != nil {
		return false, err
	}
	err = setEach(name, []step{
		{"master", have.Master == want.Master, func() error { return k.handle.LinkSetNoMaster(link) }},
		{"alias", have.Alias == want.Alias, func() error { return k.handle.LinkSetAlias(link, want.Alias) }},
		{"MAC address", have.MAC == want.MAC, func() error {
			return k.handle.LinkSetHardwareAddr(link, net.HardwareAddr(want.MAC[:]))
		}},
		{"MTU", have.MTU == want.MTU, func() error { return k.handle.LinkSetMTU(link, want.MTU) }},
		{want.Kind + " settings", have.Settings == want.Settings, func() (err error) {
			flushed, err = kind.change(k, name, link.Index, have.Settings, want.Settings)
			return err
		}},
		// Before it comes up: else the kernel gives it a link-local address, and a peer's router advertisement more.
		{"IPv6 address generation", have.AddrGen == want.AddrGen, func() error {
			if err := refuseRouterAdvertisements(name); err != nil {
				return err
			}
			err := k.handle.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
			if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
				return nil // this kernel or device has no IPv6
			}
			return err
		}},
		{"checksum offload", want.TxChecksum == network.AsItIs || have.TxChecksum == want.TxChecksum, func() error {
			return k.setTxChecksum(name, want.TxChecksum)
		}},
		{"state", have.Up == want.Up, func() error { return k.handle.LinkSetUp(link) }},
	})
	return flushed, k.explainPort(name, want, err)
}

func (k *Kernel) linkNamed(name string) (*netlink.GenericLink, error) {
	index, err := k.index(name)
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index}}, err
}

// step is one setting of a device.
type step struct {
	what   string
	inSync bool
	do     func() error
}

// setEach makes the settings of a device that are not in sync, in their order, up to the first that fails.
func setEach(device string, steps []step) error {
	for _, s := range steps {
		if s.inSync {
			continue
		}
		if err := s.do(); err != nil {
			return fmt.Errorf("set %s of device %s: %w", s.what, device, err)
		}
	}
	return nil
}

// refuseRouterAdvertisements keeps hosts in the overlay from configuring this node.
func refuseRouterAdvertisements(link string) error {
	err := writeSysctl(filepath.Join("net/ipv6/conf", link, "accept_ra"), "0")
	if err == nil || errors.Is(err, fs.ErrNotExist) { // no IPv6, no router advertisements
		return nil
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return nil // /proc/sys is read-only; without a link-local address the device sends no solicitation
	}
	return err
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
