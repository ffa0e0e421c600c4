package kernel

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// This file changes what this node's pods depend on, see tended.go.

// Bridge makes the desired bridge of pods, with the MAC address that they know of it, or repairs it. One that was
// renamed gets its name back. Another device of that name is left alone: [network.ErrForeign].
func (k *Kernel) Bridge(name string, c network.Change[network.Bridge]) (effects network.LinkEffects, err error) {
	if !c.Wanted {
		return effects, nil
	}
	if c.Present && c.Have.Kind != c.Want.Kind {
		return effects, noBridge(name, c.Have.Kind)
	}
	if !c.Present {
		if _, renamed := k.renamedFrom(name); !renamed {
			if err := k.findBridge(name); err != nil {
				return effects, err
			}
		}
		if effects.RenamedFrom, err = k.renameBack(name); err == nil && effects.RenamedFrom == "" {
			err = k.addBridge(name, c.Want)
		}
		if err != nil {
			return effects, err
		}
		c.Have = network.Bridge{Master: "?"} // all is set but what a new one has; a renamed one is read again
	}
	link, err := k.linkNamed(name)
	if err != nil {
		return effects, err
	}
	return effects, setEach(name, []step{
		{"master", c.Have.Master == "", func() error { return k.handle.LinkSetNoMaster(link) }},
		{"MTU", c.Want.MTU == 0 || c.Have.MTU == c.Want.MTU, func() error {
			return k.handle.LinkSetMTU(link, c.Want.MTU)
		}},
		{"spanning tree", c.Have.STP == c.Want.STP, func() error {
			return k.changeBridge(link, nl.IFLA_BR_STP_STATE, make([]byte, 4)) // off
		}},
		{"VLAN filtering", c.Want.VLANFiltering || !c.Have.VLANFiltering, func() error {
			return k.changeBridge(link, nl.IFLA_BR_VLAN_FILTERING, []byte{0})
		}},
		{"promiscuous mode", !c.Want.Promisc || c.Have.Promisc, func() error { return k.handle.SetPromiscOn(link) }},
		{"ARP", !c.Have.NoARP, func() error { return k.handle.LinkSetARPOn(link) }},
		{"state", c.Have.Up, func() error { return k.handle.LinkSetUp(link) }},
	})
}

// changeBridge sets one of a bridge's own settings (IFLA_INFO_DATA).
func (k *Kernel) changeBridge(l netlink.Link, attribute int, value []byte) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.Attrs().Index)
	request.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(network.KindBridge))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(attribute, value)
	request.AddData(info)
	request.Sockets = k.raw
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// noBridge is the error for a device of another kind that has the name of a bridge.
func noBridge(name, kind string) error {
	return fmt.Errorf("device %s is a %s, and pods need a bridge of that name: %w; rename or delete it",
		name, network.Link{Kind: kind}.Identity(), network.ErrForeign)
}

// newBridge describes a bridge that is to be made, with the MAC address that its pods have in their ARP tables, if that
// is known.
func newBridge(name string, want network.Bridge, mac network.MAC) *netlink.Bridge {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, want.MTU
	if mac.IsUnicast() {
		attrs.HardwareAddr = net.HardwareAddr(mac[:])
	}
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if want.VLANFiltering { // the plugin turns it on for a bridge that it makes, and not for one that exists
		bridge.VlanFiltering = &want.VLANFiltering
	}
	return bridge
}

// addBridge makes a bridge as the bridge plugin does.
func (k *Kernel) addBridge(name string, want network.Bridge) error {
	bridge := newBridge(name, want, k.tended.macs[name])
	if err := k.handle.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	link, err := k.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the new bridge %s: %w", name, err)
	}
	if link.Type() != network.KindBridge { // made by another process a moment ago
		return noBridge(name, link.Type())
	}
	k.named(int32(link.Attrs().Index), name)
	return refuseRouterAdvertisements(name)
}

// renameBack gives a device its name back, and returns the other name; empty: no device had it.
func (k *Kernel) renameBack(name string) (before string, err error) {
	index, ok := k.renamedFrom(name)
	if !ok {
		return "", nil
	}
	before = k.links[index]
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: before, Index: int(index)}}
	if err := k.setName(link, name); err != nil {
		return "", fmt.Errorf("rename device %s back to %s: %w", before, name, err)
	}
	k.named(index, name)
	k.RequestResync() // the objects on it have to be read under its new name
	return before, nil
}

// Port attaches the end of a pod's link to its bridge, and sets it up. It cannot be made again if it is gone.
func (k *Kernel) Port(name string, c network.Change[network.Port]) error {
	if !c.Wanted {
		return nil
	}
	all := !c.Present
	if all {
		if _, err := k.renameBack(name); err != nil {
			return err
		}
	}
	link, err := k.linkNamed(name)
	if err != nil {
		return err
	}
	have, want := c.Have, c.Want
	moved := all || have.Master != want.Master
	settings := moved || have.Hairpin != want.Hairpin || have.Isolated != want.Isolated ||
		have.Learning != want.Learning || have.Flood != want.Flood || have.Locked != want.Locked
	return setEach(name, []step{
		{"master", !moved, func() error {
			if want.Master == "" {
				return k.handle.LinkSetNoMaster(link)
			}
			master, err := k.index(want.Master)
			if err != nil {
				return err
			}
			return k.handle.LinkSetMasterByIndex(link, master)
		}},
		{"MTU", want.MTU == 0 || have.MTU == want.MTU, func() error { return k.handle.LinkSetMTU(link, want.MTU) }},
		{"ARP", !have.NoARP, func() error { return k.handle.LinkSetARPOn(link) }},
		{"port settings", want.Master == "" || !settings, func() error { return k.setPort(link, want) }},
		{"state", have.Up, func() error { return k.handle.LinkSetUp(link) }},
		{"port state", want.Master == "" || !have.Blocked, func() error { return k.unblock(link) }},
	})
}

// setPort sets what a port of a bridge has of its own. Kernels ignore the attributes that they do not know.
func (k *Kernel) setPort(l netlink.Link, want network.Port) error {
	flag := func(b bool) []byte {
		if b {
			return []byte{1}
		}
		return []byte{0}
	}
	return k.portRequest(l, func(info *nl.RtAttr) {
		info.AddRtAttr(nl.IFLA_BRPORT_MODE, flag(want.Hairpin))
		info.AddRtAttr(nl.IFLA_BRPORT_LEARNING, flag(want.Learning))
		info.AddRtAttr(nl.IFLA_BRPORT_UNICAST_FLOOD, flag(want.Flood))
		info.AddRtAttr(nl.IFLA_BRPORT_BCAST_FLOOD, flag(want.Flood))
		info.AddRtAttr(nl.IFLA_BRPORT_MCAST_FLOOD, flag(want.Flood))
		info.AddRtAttr(nl.IFLA_BRPORT_ISOLATED, flag(want.Isolated))
		info.AddRtAttr(nl.IFLA_BRPORT_LOCKED, flag(want.Locked))
	})
}

// Port states (BR_STATE_DISABLED and so on, include/uapi/linux/if_bridge.h).
const (
	portDisabled   = 0
	portForwarding = 3
)

// unblock has a port forward. It is no error if the kernel's spanning tree decides that, or the port has no carrier.
func (k *Kernel) unblock(l netlink.Link) error {
	err := k.portRequest(l, func(info *nl.RtAttr) { info.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{portForwarding}) })
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENETDOWN) {
		return nil
	}
	return err
}

func (k *Kernel) portRequest(l netlink.Link, fill func(info *nl.RtAttr)) error {
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(l.Attrs().Index)
	request.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	fill(info)
	request.AddData(info)
	request.Sockets = k.raw
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
