package network

import (
	"fmt"
	"net/netip"
)

// Link is a network device; its key is its name. It holds what every device has; what only one kind of device has is in
// Settings.
type Link struct {
	Kind       string       // as the kernel names it (IFLA_INFO_KIND), such as "vxlan"; empty: a physical device
	Settings   LinkSettings // of this kind of device; nil for a kind that selvage does not make
	MTU        int          // bytes, of the inner IP packet
	MAC        MAC          // zero for a kind without one
	Alias      string       // ifalias
	Master     string       // the device that it is enslaved to, which takes what it receives; empty: none
	AddrGen    bool         // the kernel gives the device an IPv6 link-local address by itself
	Up         bool
	TxChecksum Offload // of tx-checksum-ip-generic, as ethtool names it: the device computes checksums of sent packets
}

// LinkSettings are the settings of one kind of device. The value behind the interface is comparable: a struct without
// slices, maps or pointers. Two devices are the same if their Links are equal.
type LinkSettings interface {
	// SameDevice reports whether the kernel can change a live device with these settings into one with the given ones.
	// It reports false for settings of another kind.
	SameDevice(LinkSettings) bool
	// Identity returns the settings that SameDevice compares, as people read them: "VNI 1, port 8472".
	Identity() string
	// Args returns all settings, as "ip link add ... type KIND" takes them: "id 1 local 192.0.2.1 dstport 8472".
	Args() string
}

// SameDevice reports whether l and m agree in what the kernel cannot change on a live device.
func (l Link) SameDevice(m Link) bool {
	if l.Kind != m.Kind || l.Settings == nil || m.Settings == nil {
		return l.Kind == m.Kind && l.Settings == m.Settings
	}
	return l.Settings.SameDevice(m.Settings)
}

// Identity names the kind of a device and the settings that cannot be changed on a live one: "vxlan, VNI 1, port 8472".
func (l Link) Identity() string {
	switch {
	case l.Settings != nil:
		return l.Kind + ", " + l.Settings.Identity()
	case l.Kind != "":
		return l.Kind
	default:
		return "physical or unknown device"
	}
}

// KindVXLAN is the [Link.Kind] of VXLAN devices, whose settings are a [VXLAN].
const KindVXLAN = "vxlan"

// VXLAN are the settings of a VXLAN device.
type VXLAN struct {
	VNI      uint32
	Port     uint16     // UDP destination port
	Local    netip.Addr // underlay source address
	Learning bool
	GBP      bool // group based policy extension (draft-smith-vxlan-group-policy)
}

// SameDevice implements [LinkSettings]: VNI, port and GBP cannot be changed (vxlan_changelink in
// drivers/net/vxlan/vxlan_core.c).
func (v VXLAN) SameDevice(s LinkSettings) bool {
	w, ok := s.(VXLAN)
	return ok && v.VNI == w.VNI && v.Port == w.Port && v.GBP == w.GBP
}

// Identity implements [LinkSettings].
func (v VXLAN) Identity() string {
	return fmt.Sprintf("VNI %d, port %d%s", v.VNI, v.Port, when(v.GBP, ", GBP"))
}

// Args implements [LinkSettings].
func (v VXLAN) Args() string {
	return fmt.Sprintf("id %d local %s dstport %d %slearning%s", v.VNI, v.Local, v.Port,
		unless(v.Learning, "no"), when(v.GBP, " gbp"))
}

// Overhead is what the device adds to a packet on the underlay, in bytes: an IP header of 20 or 40, UDP 8, VXLAN 8 and
// Ethernet 14 (RFC 7348, section 5).
func (v VXLAN) Overhead() int {
	if v.Local.Is6() {
		return 70
	}
	return 50
}

// Offload is the desired or actual state of something that an interface can do in the kernel's stead.
type Offload uint8

// The values of [Offload].
const (
	AsItIs Offload = iota // not looked at
	Off
	On
)

// Drops is how many packets a device dropped, or could not send or receive because of an error, since it was made.
type Drops struct{ Received, Sent, ReceiveErrors, SendErrors uint64 }
