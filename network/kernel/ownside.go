package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
)

// This file observes and changes what this node's pods depend on: bridges, and the ends of the pods' links.

// tended is what is known of devices that pods depend on, beyond the tables.
type tended struct {
	names   map[string]struct{}    // see Tend
	stale   bool                   // see TendedStale
	again   map[int32]struct{}     // ports to read again
	indexes map[string]int32       // the last interface index of each device: one that was renamed keeps it
	macs    map[string]network.MAC // of each bridge, see noteMAC
	veths   map[int32]struct{}     // all of this node, by interface index
}

func newTended() tended {
	return tended{
		names: map[string]struct{}{}, again: map[int32]struct{}{}, indexes: map[string]int32{},
		macs: map[string]network.MAC{}, veths: map[int32]struct{}{},
	}
}

// Tend names the devices that pods depend on, and the MAC addresses that the pods know of their bridges, for one that
// was deleted before this program started. [Kernel.TendedStale] is about these devices from then on.
func (k *Kernel) Tend(names map[string]struct{}, macs map[string]network.MAC) {
	k.tended.names = names
	for name, mac := range macs {
		if _, known := k.tended.macs[name]; !known {
			k.tended.macs[name] = mac
		}
	}
	for name := range names {
		if index, there := k.byName[name]; there {
			k.tended.indexes[name] = index
		}
	}
	for name := range k.tended.indexes {
		if _, is := names[name]; !is {
			delete(k.tended.indexes, name)
			delete(k.tended.macs, name)
		}
	}
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
		k.tended.veths[m.index] = struct{}{}
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
		}))
	}
	if c := t.Ports.Get(m.name); c.Wanted {
		p := m.port
		p.Master, p.MTU, p.Up = k.links[m.master], m.link.MTU, m.link.Up
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

// ReadTended reads the devices of these names, and the addresses and permanent neighbours on them, after they have
// become desired.
func (k *Kernel) ReadTended(names []string) error {
	for _, name := range names {
		index, there := k.byName[name]
		if !there {
			continue
		}
		k.tended.again[index] = struct{}{}
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

// Bridge makes the desired bridge of pods, with the MAC address that they know of it, or repairs it. One that was
// renamed gets its name back. Another device of that name is left alone: [network.ErrForeign].
func (k *Kernel) Bridge(name string, c network.Change[network.Bridge]) (effects network.LinkEffects, err error) {
	if !c.Wanted {
		return effects, nil
	}
	if c.Present && c.Have.Kind != c.Want.Kind {
		return effects, fmt.Errorf("device %s is a %s, and pods need a bridge of that name: %w; rename or delete it",
			name, network.Link{Kind: c.Have.Kind}.Identity(), network.ErrForeign)
	}
	if !c.Present {
		if effects.RenamedFrom, err = k.renameBack(name); err == nil && effects.RenamedFrom == "" {
			err = k.addBridge(name, c.Want)
		}
		if err != nil {
			return effects, err
		}
		c.Have = network.Bridge{Master: "?"} // all is set
	}
	link, err := k.linkNamed(name)
	if err != nil {
		return effects, err
	}
	return effects, k.steps(name, []step{
		{"master", c.Have.Master == "", func() error { return k.handle.LinkSetNoMaster(link) }},
		{"MTU", c.Want.MTU == 0 || c.Have.MTU == c.Want.MTU, func() error { return k.handle.LinkSetMTU(link, c.Want.MTU) }},
		{"promiscuous mode", !c.Want.Promisc || c.Have.Promisc, func() error { return k.handle.SetPromiscOn(link) }},
		{"state", c.Have.Up, func() error { return k.handle.LinkSetUp(link) }},
	})
}

// addBridge makes a bridge as the bridge plugin does.
func (k *Kernel) addBridge(name string, want network.Bridge) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, want.MTU
	if mac := k.tended.macs[name]; mac.IsUnicast() { // pods have it in their ARP tables
		attrs.HardwareAddr = net.HardwareAddr(mac[:])
	}
	if err := k.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	link, err := k.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the new bridge %s: %w", name, err)
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
	return k.steps(name, []step{
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
		{"port settings", want.Master == "" || !settings, func() error { return k.setPort(link, want) }},
		{"state", have.Up, func() error { return k.handle.LinkSetUp(link) }},
		{"port state", want.Master == "" || !have.Blocked, func() error { return k.unblock(link) }},
	})
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

func (*Kernel) steps(name string, all []step) error {
	for _, s := range all {
		if s.inSync {
			continue
		}
		if err := s.do(); err != nil {
			return fmt.Errorf("set %s of device %s: %w", s.what, name, err)
		}
	}
	return nil
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

// encodeConnected appends a request to set a route as the kernel makes it for an address: with that as its source, by
// which the kernel finds it when the address is removed (fib_del_ifaddr in net/ipv4/fib_frontend.c).
func (k *Kernel) encodeConnected(b []byte, key network.RouteKey, r network.Route, index int) []byte {
	start := len(b)
	b = encodeRoute(b, unix.RTM_NEWROUTE, key, r, index)
	if source := k.sourceOn(r.Link, key.Prefix); source.IsValid() {
		b = end(attributeAddr(b, unix.RTA_PREFSRC, source), start)
	}
	return b
}

// sourceOn returns the IPv4 address of a device in a subnet.
func (k *Kernel) sourceOn(link string, subnet netip.Prefix) (source netip.Addr) {
	if !subnet.Addr().Is4() {
		return source
	}
	for key, c := range k.tables.Addresses.All {
		if c.Present && c.Wanted && key.Link == link && key.Prefix.Masked() == subnet {
			return key.Prefix.Addr()
		}
	}
	return source
}

// heldToo returns the name of another device whose address has made a route under a key; empty: none.
func (k *Kernel) heldToo(key network.RouteKey, index int) string {
	filter := &netlink.Route{Dst: ipNet(key.Prefix), Table: unix.RT_TABLE_MAIN}
	mask := netlink.RT_FILTER_DST | netlink.RT_FILTER_TABLE
	routes, err := k.handle.RouteListFiltered(int(familyOf(key.Prefix.Addr())), filter, mask)
	if err != nil {
		return ""
	}
	for _, r := range routes {
		if r.LinkIndex != index && uint32(r.Priority) == key.Metric && r.Protocol == unix.RTPROT_KERNEL {
			return k.links[int32(r.LinkIndex)]
		}
	}
	return ""
}
