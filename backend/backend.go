// Package backend says what a backend is: it turns the network config and a node's place in the underlay into what the
// node advertises, and each peer's lease into what that peer needs in the kernel. A backend decides and does nothing:
// all of its methods are pure, and package network does the rest.
//
// A new backend is one folder here, and one line in network/node/registry.go. If its device is of a kind of its own,
// the settings of that kind implement [network.LinkSettings], and network/kernel/kinds.go gets a line.
package backend

import (
	"net/netip"
	"strconv"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Backend is one way of carrying packets between nodes.
type Backend interface {
	// Advertise returns what peers need to know to reach this node, by subnet.Family: PublicIP and Data of its lease.
	Advertise() [2]subnet.Endpoint
	// Device returns the node's own links, and the addresses they have once the node has those subnets; an invalid
	// prefix stands for a family that is off, or whose subnet is not known yet.
	Device(subnets [2]netip.Prefix) network.State
	// Peer returns what one peer needs in the kernel, including a route to each of its subnets: [Description.Path]
	// follows that route. The error says which field of the lease cannot be used, and is the one that Check returns.
	Peer(subnet.Lease) (network.State, error)
	// Check implements the contract of subnet.Rules.Check. unique depends on the lease and the network config alone, so
	// that all nodes agree; the error may depend on this node's underlay too.
	Check(subnet.Lease) (unique []string, err error)
	// Describe returns what users see of the backend. It does not change during the backend's life.
	Describe() Description
}

// Warner is a [Backend] that works, but may know something in config and underlay that an operator should change.
// Warning returns one sentence, or an empty string.
type Warner interface{ Warning() string }

// Mixed is a [Backend] with a tunnel that may send to some peers without it. Direct reports whether it does.
type Mixed interface{ Direct() bool }

// Description is what users see of a backend.
type Description struct {
	// MTU is the largest packet between pods, in bytes: the MTU of the subnet file.
	MTU int
	// Tunnels are the node's own devices, in the order of the links that Device returns; none for a backend without.
	Tunnels []Tunnel
}

// Tunnel describes one overlay device.
type Tunnel struct {
	Device   string     // its name
	Protocol string     // as people call it: "VXLAN"
	Overhead int        // bytes that it adds to a packet on the underlay, including the outer IP header
	Port     uint16     // UDP port on which it receives; 0: it does not use UDP
	Local    netip.Addr // underlay address from which it sends; invalid: the kernel chooses
	// Encrypts: no host on the underlay can read what it sends.
	Encrypts bool
	Settings []Setting // what else to show of it, in this order
}

// String returns "flannel.1 local 192.0.2.1 port 8472".
func (t Tunnel) String() string {
	text := t.Device
	if t.Local.IsValid() {
		text += " local " + t.Local.String()
	}
	if t.Port != 0 {
		text += " port " + strconv.Itoa(int(t.Port))
	}
	return text
}

// Setting is one setting of a device, as people read it.
type Setting struct{ Name, Value string }

// Path is how packets reach a peer's subnet.
type Path struct {
	Device string  // by which they leave; empty: nothing leads there
	Tunnel *Tunnel // nil: directly over the underlay
	// Remote is where the tunnel sends them; invalid: to the public IP of the subnet's family, and the tunnel's port.
	Remote netip.AddrPort
}

// Path returns how packets reach dst, one of a peer's subnets. peer is what Backend.Peer returned for the peer's lease.
func (d Description) Path(peer network.State, dst netip.Prefix) (p Path) {
	for _, r := range peer.Routes {
		if r.Key.Prefix == dst {
			p.Device = r.Value.Link
		}
	}
	for i := range d.Tunnels {
		if d.Tunnels[i].Device == p.Device {
			p.Tunnel = &d.Tunnels[i]
		}
	}
	for _, x := range peer.Peers {
		if x.Key.Link == p.Device {
			p.Remote = x.Value.Endpoint
		}
	}
	return p
}

// Direct reports whether packets are sent over the underlay without a tunnel.
func (p Path) Direct() bool { return p.Device != "" && p.Tunnel == nil }

// String returns "directly, through eth0" or "over VXLAN, flannel.1"; "not at all" if nothing leads there.
func (p Path) String() string {
	switch {
	case p.Device == "":
		return "not at all"
	case p.Tunnel == nil:
		return "directly, through " + p.Device
	default:
		return "over " + p.Tunnel.Protocol + ", " + p.Device
	}
}

// Kind is one kind of backend. network/node/registry.go lists all of them.
type Kind struct {
	New Factory
	// Check validates a config of this Backend.Type as far as it does not depend on the node. That includes what is
	// derived from a value, such as the name of a device.
	Check func(subnet.Config) error
	// Beside: a node can have its devices beside another such backend's. A network moves from one to the other while
	// nodes run: see [Transition].
	Beside bool
	// Encrypts: no host on the underlay can read what nodes send to each other.
	Encrypts bool
	// Keys are the keys of the config's Backend object that it reads, beside Type.
	Keys []string
	// Secrets are those of Keys whose values are never shown.
	Secrets []string
	// Key is that by which peers know a node; nil: there is none.
	Key *Key
	// Kept are the names of the secrets that it keeps, see [Keeper], each with the path of the file in which flannel
	// keeps that secret, in base64.
	Kept map[string]string
}

// Key is the kind of key by which peers know a node, and that a [Rotator] can change.
type Key struct {
	Secret string                       // the name of the private key, see [Keeper]
	Make   func() ([]byte, error)       // makes a private key
	Public func([]byte) (string, error) // returns the public key of a private one, for people
	Second []string                     // the names of all second devices: see [Stage]
}

// Factory makes a backend from a network config whose Backend.Type it serves. Its error names the field of the config
// that is wrong, or what the underlay lacks.
type Factory func(subnet.Config, Underlay) (Backend, error)
