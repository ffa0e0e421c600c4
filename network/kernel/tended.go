package kernel

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// This file observes what this node's pods depend on: bridges, and the ends of the pods' links.

// tended is what is known of devices that pods depend on, beyond the tables.
type tended struct {
	names   map[string]network.PodDevice // see Tend
	stale   bool                         // see TendedStale
	again   map[int32]struct{}           // ports to read again
	indexes map[string]int32             // the last interface index of each device: one that was renamed keeps it
	macs    map[string]network.MAC       // of each bridge, see noteMAC
	veths   map[int32]int32              // all of this node: the index of the master of each; 0: none

	duplicates map[network.AddressKey]time.Time // see Duplicates
}

func newTended() tended {
	return tended{
		names: map[string]network.PodDevice{}, again: map[int32]struct{}{}, indexes: map[string]int32{},
		macs: map[string]network.MAC{}, veths: map[int32]int32{}, duplicates: map[network.AddressKey]time.Time{},
	}
}

// Duplicates returns the desired addresses that another host on the link had, by when they were last repaired, without
// those from before a time. The other host may still have it, and nothing reports whether it does.
func (k *Kernel) Duplicates(since time.Time) map[network.AddressKey]time.Time {
	maps.DeleteFunc(k.tended.duplicates, func(_ network.AddressKey, at time.Time) bool { return at.Before(since) })
	return k.tended.duplicates
}

// Tend names the devices that pods depend on, and what the pods know of their bridges, for one that was deleted or
// renamed before this program started. [Kernel.TendedStale] is about these devices from then on.
func (k *Kernel) Tend(names map[string]network.PodDevice) {
	k.tended.names = names
	for name, d := range names {
		if _, known := k.tended.macs[name]; !known && d.MAC.IsUnicast() {
			k.tended.macs[name] = d.MAC
		}
	}
	for name := range names {
		if index, there := k.byName[name]; there {
			k.tended.indexes[name] = index
		}
	}
	others := func(name string) bool { _, is := names[name]; return !is }
	maps.DeleteFunc(k.tended.indexes, func(name string, _ int32) bool { return others(name) })
	maps.DeleteFunc(k.tended.macs, func(name string, _ network.MAC) bool { return others(name) })
}

// TendedStale reports, once, whether one of the devices that pods depend on was added, removed or renamed.
func (k *Kernel) TendedStale() bool {
	stale := k.tended.stale
	k.tended.stale = false
	return stale
}

// HasLink reports whether there is a device of that name, or one that had the name before it was renamed.
func (k *Kernel) HasLink(name string) bool {
	if _, there := k.byName[name]; there {
		return true
	}
	_, renamed := k.renamedFrom(name)
	return renamed
}

// IsVeth reports whether the device of that name is an end of a veth pair.
func (k *Kernel) IsVeth(name string) bool {
	index, there := k.byName[name]
	_, is := k.tended.veths[index]
	return there && is
}

// VethsOn returns the veth devices that are attached to a bridge.
func (k *Kernel) VethsOn(bridge string) (names []string) {
	index, there := k.byName[bridge]
	for veth, master := range k.tended.veths {
		if there && master == index {
			names = append(names, k.links[veth])
		}
	}
	return names
}

// renamedFrom returns the index of a device that had the name, and has another one now.
func (k *Kernel) renamedFrom(name string) (index int32, ok bool) {
	if index, ok = k.tended.indexes[name]; !ok {
		return 0, false
	}
	now, there := k.links[index]
	return index, there && now != name
}

// tendedAdded and tendedGone note that a device was added, or that it lost its name.
func (k *Kernel) tendedAdded(m linkMessage) {
	if m.link.Kind == "veth" {
		k.portsStale = k.portsStale || k.tended.veths[m.index] != m.master
		k.tended.veths[m.index] = m.master
	}
	if _, is := k.tended.names[m.name]; is && k.tended.indexes[m.name] != m.index {
		k.tended.indexes[m.name], k.tended.stale = m.index, true
	}
}

func (k *Kernel) tendedGone(name string) {
	if _, is := k.tended.names[name]; is {
		k.tended.stale = true
	}
}

// observeTended takes a device that pods depend on into the tables.
func (k *Kernel) observeTended(m linkMessage) {
	t := k.tables
	if c := t.Bridges.Get(m.name); c.Wanted {
		t.Bridges.Observe(m.name, c.Want.Seen(network.Bridge{
			Kind: m.link.Kind, MTU: m.link.MTU, Master: k.links[m.master], Up: m.link.Up, Promisc: m.promisc,
			NoARP: m.noARP, STP: m.stp, VLANFiltering: m.vlans,
		}))
	}
	if c := t.Ports.Get(m.name); c.Wanted {
		p := m.port
		p.Master, p.MTU, p.Up, p.NoARP = k.links[m.master], m.link.MTU, m.link.Up, m.noARP
		t.Ports.Observe(m.name, c.Want.Seen(p))
	}
}

// noteMAC notes the MAC address by which pods know their bridge. It is taken from reads alone: a bridge that is being
// deleted changes it with each port that it loses (br_stp_recalculate_bridge_id in net/bridge/br_stp_if.c), and that is
// in its last notifications.
func (k *Kernel) noteMAC(m linkMessage) {
	if m.link.Kind == network.KindBridge && m.link.MAC.IsUnicast() && k.tables.Bridges.Get(m.name).Wanted {
		k.tended.macs[m.name] = m.link.MAC
	}
}

// bridgePort notes a notification about a port of a bridge (AF_BRIDGE): the port is read again, if a pod depends on it.
func (k *Kernel) bridgePort(b []byte) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_BRIDGE {
		return
	}
	index := int32(nl.NativeEndian().Uint32(b[4:]))
	if k.tables.Ports.Get(k.links[index]).Wanted {
		k.tended.again[index] = struct{}{}
	}
}

// ReadTended reads the devices of these names, their settings, and the addresses and permanent neighbours on them,
// after they have become desired.
func (k *Kernel) ReadTended(names []string) error {
	for _, name := range names {
		index, there := k.byName[name]
		if !there {
			continue
		}
		k.tended.again[index] = struct{}{}
		k.settingsStale(name)
		err := repeated(func() error {
			request := &addressRequest{index: index}
			return k.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, k.observeDumped, request)
		})
		if err == nil && k.tables.Bridges.Get(name).Wanted {
			err = repeated(func() error { return k.readNeighbours(index) })
		}
		if err != nil {
			return err
		}
	}
	k.readStaleSettings()
	return k.readAgain()
}

// readAgain reads the ports that were noted for it, one by one.
func (k *Kernel) readAgain() error {
	for index := range k.tended.again {
		delete(k.tended.again, index)
		k.requests++
		request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = index
		request.AddData(msg)
		request.Sockets = k.raw
		answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read device %s: %w", k.links[index], err)
		}
		for _, data := range answers {
			if m, ok := decodeLink(data); ok && k.links[m.index] == m.name {
				k.noteMAC(m)
				k.observeTended(m)
			}
		}
	}
	return nil
}

// addressRequest is a struct ifaddrmsg that requests one device's addresses. Before Linux 4.20 the kernel sends all.
type addressRequest struct{ index int32 }

func (*addressRequest) Len() int { return unix.SizeofIfAddrmsg }

func (r *addressRequest) Serialize() []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	nl.NativeEndian().PutUint32(b[4:], uint32(r.index))
	return b
}

// decodeBridge decodes a bridge's settings (IFLA_INFO_DATA): whether it runs a spanning tree, and filters VLANs.
func decodeBridge(b []byte) (stp, vlans bool) {
	for typ, data := range attributes(b) {
		switch typ {
		case nl.IFLA_BR_STP_STATE:
			stp = attrUint32(data) != 0
		case nl.IFLA_BR_VLAN_FILTERING:
			vlans = len(data) > 0 && data[0] != 0
		}
	}
	return stp, vlans
}

// decodePort decodes what a bridge says of its port (IFLA_INFO_SLAVE_DATA). carrier reports whether the device has one.
func decodePort(b []byte, carrier bool) network.Port {
	p := network.Port{Learning: true, Flood: true}
	for typ, data := range attributes(b) {
		on := len(data) > 0 && data[0] != 0
		switch typ {
		case nl.IFLA_BRPORT_MODE:
			p.Hairpin = on
		case nl.IFLA_BRPORT_ISOLATED:
			p.Isolated = on
		case nl.IFLA_BRPORT_LEARNING:
			p.Learning = on
		case nl.IFLA_BRPORT_UNICAST_FLOOD, nl.IFLA_BRPORT_BCAST_FLOOD, nl.IFLA_BRPORT_MCAST_FLOOD:
			p.Flood = p.Flood && on
		case nl.IFLA_BRPORT_LOCKED:
			p.Locked = on
		case nl.IFLA_BRPORT_STATE:
			p.Blocked = len(data) > 0 && data[0] != portForwarding && (data[0] != portDisabled || carrier)
		}
	}
	return p
}
