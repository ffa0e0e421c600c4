package network

import (
	"net/netip"
	"strings"
)

// This file has the objects that this node's pods depend on. The CNI plugins make and own them: selvage repairs what
// another process changed, puts no mark on them, and never removes one.

// KindBridge is the kind of device that a bridge is, see [Link.Kind].
const KindBridge = "bridge"

// Bridge is a bridge of this node's pods; its key is its name.
type Bridge struct {
	Kind    string // of the device: [KindBridge], unless another device has the name
	MTU     int    // bytes; desired: 0 stands for any
	Master  string // the device that it is enslaved to; empty: none
	Up      bool
	Promisc bool // desired: false stands for either
	NoARP   bool // it asks for and answers with no MAC address, neither in ARP nor in neighbour discovery
	STP     bool // spanning tree, in the kernel or a daemon: ports forward after half a minute only, or never
	// VLANFiltering: it checks the VLANs of frames; desired: true stands for either.
	VLANFiltering bool
}

// PodDevice is what the records of attachments say of a device that pods depend on, beyond what is desired.
type PodDevice struct {
	MAC      MAC            // of a bridge, as its pods know it; zero: not known, or no bridge
	Gateways []netip.Prefix // the addresses of a bridge that its pods know; those of a former subnet, too
}

// Seen returns the actual bridge as it is compared with the desired one: without what that leaves open.
func (b Bridge) Seen(actual Bridge) Bridge {
	if b.MTU == 0 {
		actual.MTU = 0
	}
	actual.Promisc = actual.Promisc && b.Promisc
	actual.VLANFiltering = actual.VLANFiltering || b.VLANFiltering
	return actual
}

// Port is the end on the node of a pod's link; its key is its name. Without a master only MTU and Up are of concern.
type Port struct {
	Master string // the bridge that it is attached to; empty: none
	MTU    int    // bytes; desired: 0 stands for any
	Up     bool
	NoARP  bool // as of a bridge; that of a port of one does not matter
	// Of a port of a bridge, as ip-link(8) and bridge(8) name them.
	Hairpin, Isolated, Learning bool
	Flood                       bool // of frames to unknown, multicast and broadcast addresses
	Locked                      bool // it accepts frames only from known addresses
	Blocked                     bool // its state is neither forwarding nor, without a carrier, disabled
}

// Seen returns the actual port as it is compared with the desired one: without what that leaves open.
func (p Port) Seen(actual Port) Port {
	if p.MTU == 0 {
		actual.MTU = 0
	}
	actual.NoARP = actual.NoARP && p.Master == ""
	return actual
}

// addOwnSide adds the kinds of what pods depend on. Both are set before addresses and routes, which need them up.
func (t *Tables) addOwnSide() {
	t.Bridges = add(t, kind[string, Bridge]{
		name:    "bridge",
		items:   func(s *State) []Item[string, Bridge] { return s.Bridges },
		command: bridgeCommand,
	})
	t.Ports = add(t, kind[string, Port]{
		name:    "port",
		items:   func(s *State) []Item[string, Port] { return s.Ports },
		command: portCommand,
		link:    func(_ string, p Port) string { return p.Master },
	})
}

// Tends reports whether the device of that name is one that pods depend on.
func (t *Tables) Tends(name string) bool {
	return t.Bridges.Get(name).Wanted || t.Ports.Get(name).Wanted
}

// tendedReady is linkReady for what pods depend on.
func (t *Tables) tendedReady(name string) bool {
	if b := t.Bridges.Get(name); b.Wanted {
		return b.Present && b.Have.Kind == b.Want.Kind && b.Have.Up
	}
	p := t.Ports.Get(name)
	return !p.Wanted || p.Present && p.Have.Up
}

// settingReady makes the settings of a device that pods depend on wait for the device.
func (t *Tables) settingReady(path string) bool { return t.tendedReady(SettingDevice(path)) }

// SettingDevice returns the device in the path of a setting, such as net/ipv4/conf/cni0/forwarding; empty: none.
func SettingDevice(path string) string {
	if part := strings.Split(path, "/"); len(part) == 5 && part[2] == "conf" {
		return part[3]
	}
	return ""
}

// ApplyBridges registers how a pass changes bridges, as [Tables.ApplyLinks] does for devices.
func (t *Tables) ApplyBridges(f func(name string, c Change[Bridge]) (LinkEffects, error)) {
	t.Bridges.ApplyEach(func(name string, c Change[Bridge]) error {
		effects, err := f(name, c)
		if effects.RenamedFrom != "" {
			t.LinkGone(effects.RenamedFrom)
		}
		return err
	})
}
