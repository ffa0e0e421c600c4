// Package wireguard carries the overlay in WireGuard: encrypted, and authenticated by keys. In the mode "separate" a
// node has a device for each family, flannel-wg for IPv4 over IPv4 and flannel-wg-v6 for IPv6 over IPv6; in the other
// modes flannel-wg alone carries both. The names are flannel's, and so is all that nodes tell each other: a node of
// flannel can be taken over with the device in place.
//
// Every node advertises its public key and its UDP port in its lease. A peer then needs three objects: the peer itself
// (its public key, and the endpoint that packets are sent to), its subnets as prefixes that are encrypted for it, and
// accepted from it, alone, and a route to each of them out of the device. The route has no gateway: the device chooses
// the peer by the destination.
package wireguard

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Type is the Backend.Type of configs that this package serves, and the BackendType of leases.
const Type = "wireguard"

// secretName is the name of the private key, see [backend.Keeper], and flannelKey where flannel keeps it.
const (
	secretName = "wireguard"
	flannelKey = "/run/flannel/wgkey"
)

// Names of the devices.
const (
	deviceName   = "flannel-wg"
	deviceNameV6 = "flannel-wg-v6"
	secondSuffix = "-2" // of second devices: see backend.Stage
)

// Bytes that WireGuard adds to a packet, by the family of the underlay: an IP header of 20 or 40, UDP 8, and 32 of its
// own (section 5.4.6 of its paper). The MTU leaves room for those over IPv6, whatever the family: it is the same on all
// nodes, and in all modes.
const (
	overheadV4 = 60
	overheadV6 = 80
)

type wireguard struct {
	options   Options
	enabled   [2]bool // by subnet.Family
	networks  []netip.Prefix
	local     [2]netip.Addr
	underlay  backend.Underlay
	mtu       int
	first     keys // of the devices that are always there
	second    keys // of the second devices
	rotation  backend.Rotation
	devices   []*device
	backstops []netip.Prefix
}

// keys are a private key and its public key.
type keys struct {
	secret network.Secret
	public network.PublicKey
}

// device is one of the node's devices.
type device struct {
	name    string
	port    uint16
	carries [2]bool // which families of the overlay
	second  bool    // it is there while a node changes its key
}

// Kind returns this kind of backend.
func Kind() backend.Kind {
	return backend.Kind{
		New: New, Check: check, Beside: true, Encrypts: true, Keys: configKeys(), Secrets: []string{"PSK"},
		Kept: map[string]string{secretName: flannelKey},
		Key: &backend.Key{
			Secret: secretName, Make: newKey, Public: publicKey,
			Second: []string{deviceName + secondSuffix, deviceNameV6 + secondSuffix},
		},
	}
}

// check validates a config as far as it does not depend on the node.
func check(c subnet.Config) error {
	o, err := parseOptions(c.Backend.Options)
	if err != nil {
		return err
	}
	for mode, f := range map[Mode]subnet.Family{OverIPv4: subnet.IPv4, OverIPv6: subnet.IPv6} {
		if o.Mode == mode && !c.Ranges[f].Enabled() {
			return fmt.Errorf("network config: Backend.Mode is %q, which needs Enable%s: leases have no address of "+
				"that family without it", mode, f)
		}
	}
	both := c.Ranges[subnet.IPv4].Enabled() && c.Ranges[subnet.IPv6].Enabled()
	if o.Mode == Separate && both && o.ListenPort == o.ListenPortV6 {
		return fmt.Errorf("network config: Backend.ListenPort and Backend.ListenPortV6 are both %d: two devices of a "+
			"node cannot share a port", o.ListenPort)
	}
	if o.MTU != 0 {
		return checkMTU(c, o.MTU, "Backend.MTU in the network config")
	}
	return nil
}

// checkMTU returns an error for an MTU of the underlay that is too small for the overlay: each IP node must take 576
// bytes in one piece (RFC 791), or 1280 over IPv6 (RFC 8200, section 5).
func checkMTU(c subnet.Config, mtu int, field string) error {
	least, of := 576, subnet.IPv4
	if c.Ranges[subnet.IPv6].Enabled() {
		least, of = 1280, subnet.IPv6
	}
	if mtu-overheadV6 < least {
		return fmt.Errorf("%s is %d, want at least %d: WireGuard takes %d bytes and %d must remain for %s",
			field, mtu, least+overheadV6, overheadV6, least, of)
	}
	return nil
}

// New is this package's [backend.Factory].
func New(c subnet.Config, u backend.Underlay) (backend.Backend, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	o, err := parseOptions(c.Backend.Options)
	if err != nil {
		return nil, err
	}
	w := &wireguard{options: o, underlay: u, local: u.Local, mtu: u.MTU}
	field := "the MTU of uplink " + u.Link
	if o.MTU != 0 && o.MTU <= u.MTU {
		w.mtu, field = o.MTU, "Backend.MTU in the network config"
	}
	if err := checkMTU(c, w.mtu, field); err != nil {
		return nil, err
	}
	for _, f := range subnet.Families() {
		if !c.Ranges[f].Enabled() {
			continue
		}
		if !u.Local[f].IsValid() {
			return nil, fmt.Errorf("uplink %s has no %s address to carry the %s overlay; "+
				"add one, or choose another uplink with --iface", u.Link, f, f)
		}
		w.enabled[f] = true
		w.networks = append(w.networks, c.Ranges[f].Network)
		w.backstops = append(w.backstops, backstops(c.Ranges[f], u)...)
	}
	w.rotation = u.Rotation
	w.devices = devices(o, w.enabled)
	if w.rotation.Beside {
		w.devices = append(w.devices, secondDevices(o, w.devices)...)
	}
	if w.first, w.second, err = keysOf(u); err != nil {
		return nil, err
	}
	return w, nil
}

// backstops returns the prefixes of the overlay whose packets end at this node where no device takes them: while a
// device is gone, or down, and once a peer's lease has ended. The host's default route would send them in the clear.
// They hold no address of the underlay that this node knows of. Peers whose subnets they do not hold get one of their
// own.
func backstops(r subnet.Range, u backend.Underlay) (all []netip.Prefix) {
	all = r.Span()
	return slices.DeleteFunc(all, func(p netip.Prefix) bool {
		f := subnet.FamilyOf(p.Addr())
		return p.Contains(u.Local[f]) || p.Contains(u.PublicIP[f]) ||
			slices.ContainsFunc(u.OnLink[f], p.Overlaps)
	})
}

// backstop returns the route that ends packets to a prefix, which every other route takes precedence over. They are
// dropped without an ICMP error: after a repair, which takes milliseconds, a connection that was being opened goes on.
func backstop(p netip.Prefix) network.Item[network.RouteKey, network.Route] {
	return network.Item[network.RouteKey, network.Route]{
		Key:   network.RouteKey{Prefix: p, Metric: network.LastMetric},
		Value: network.Route{Protocol: network.RouteProtocol, Type: network.Blackhole},
	}
}

// devices returns the devices that a node has.
func devices(o Options, enabled [2]bool) (all []*device) {
	if o.Mode != Separate {
		return []*device{{name: deviceName, port: o.ListenPort, carries: enabled}}
	}
	if enabled[subnet.IPv4] {
		all = append(all, &device{name: deviceName, port: o.ListenPort, carries: only(subnet.IPv4)})
	}
	if enabled[subnet.IPv6] {
		all = append(all, &device{name: deviceNameV6, port: o.ListenPortV6, carries: only(subnet.IPv6)})
	}
	return all
}

func only(f subnet.Family) (families [2]bool) {
	families[f] = true
	return families
}

// Advertise implements backend.Backend.
func (w *wireguard) Advertise() (endpoints [2]subnet.Endpoint) {
	for _, d := range w.devices {
		for f, on := range d.carries {
			if on && !d.second {
				// Texts and numbers can be encoded.
				data, _ := json.Marshal(leaseData{w.first.public.String(), d.port, w.next(d)})
				endpoints[f] = subnet.Endpoint{PublicIP: w.underlay.PublicIP[f], Data: string(data)}
			}
		}
	}
	return endpoints
}

// Device implements backend.Backend. The addresses are the subnets' first ones, as host routes: the source of packets
// that the node itself sends to pods on other nodes.
func (w *wireguard) Device(subnets [2]netip.Prefix) (s network.State) {
	for _, d := range w.devices {
		s.Links = append(s.Links, network.Item[string, network.Link]{Key: d.name, Value: network.Link{
			Kind: network.KindWireGuard, MTU: w.mtu - overheadV6,
			Alias: network.Alias, Up: true, // the node replaces the alias by its network's
		}})
		s.WireGuards = append(s.WireGuards, network.Item[string, network.WireGuard]{
			Key: d.name, Value: network.WireGuard{PrivateKey: w.keys(d).secret, Port: d.port},
		})
		for _, f := range subnet.Families() {
			if d.carries[f] && subnets[f].IsValid() {
				key := network.AddressKey{Link: d.name, Prefix: netip.PrefixFrom(subnets[f].Addr(), f.Bits())}
				s.Addresses = append(s.Addresses, network.Item[network.AddressKey, network.Address]{Key: key})
			}
		}
		if w.rotation.Beside && d.carries[subnet.IPv4] { // what comes by one device may be answered by another
			s.Sysctls = append(s.Sysctls, backend.LooseReversePath(d.name))
		}
	}
	for _, p := range w.backstops {
		s.Routes = append(s.Routes, backstop(p))
	}
	return s
}

// Describe implements backend.Backend. The kernel chooses the address from which a device sends.
func (w *wireguard) Describe() backend.Description {
	d := backend.Description{MTU: w.mtu - overheadV6}
	for _, x := range w.devices {
		t := backend.Tunnel{
			Device: x.name, Protocol: "WireGuard", Overhead: overheadV6, Port: x.port, Encrypts: true,
			Settings: []backend.Setting{{Name: "Key", Value: w.keys(x).public.String()}},
		}
		if w.options.Mode == OverIPv4 || w.options.Mode == Separate && x.carries[subnet.IPv4] {
			t.Overhead = overheadV4
		}
		d.Tunnels = append(d.Tunnels, t)
	}
	return d
}

// Warning implements backend.Warner.
func (w *wireguard) Warning() string {
	return w.underlay.Exceeded(w.options.MTU)
}

// Peer implements backend.Backend. A peer that lacks a family is reached in the other.
func (w *wireguard) Peer(l subnet.Lease) (s network.State, err error) {
	p, err := w.parse(l)
	if err != nil {
		return s, err
	}
	if err := w.usable(l, p); err != nil {
		return s, err
	}
	bySecond := w.sendsBySecond(l, p)
	for _, d := range w.devices {
		if d.second && !w.onSecond(p) {
			continue
		}
		w.addPeer(&s, d, l, p, d.second == bySecond)
	}
	return s, nil
}

// addPeer adds what a peer needs on a device.
func (w *wireguard) addPeer(s *network.State, d *device, l subnet.Lease, p peer, routes bool) {
	key := p.keyOn(d)
	of := network.PeerKey{Link: d.name, PublicKey: key}
	for _, f := range subnet.Families() {
		if !d.carries[f] || !l.Has(f) {
			continue
		}
		if len(s.Peers) == 0 || s.Peers[len(s.Peers)-1].Key != of {
			to, _ := d.endpoint(w, l, f) // usable has tried it
			s.Peers = append(s.Peers, network.Item[network.PeerKey, network.Peer]{Key: of, Value: network.Peer{
				Endpoint:     netip.AddrPortFrom(to, d.portOf(w, p, f)),
				PresharedKey: w.options.PSK, Keepalive: w.options.Keepalive,
			}})
		}
		prefix := l.Endpoints[f].Subnet
		s.AllowedIPs = append(s.AllowedIPs, network.Item[network.AllowedIPKey, network.PublicKey]{
			Key: network.AllowedIPKey{Link: d.name, Prefix: prefix}, Value: key,
		})
		if !routes {
			continue
		}
		s.Routes = append(s.Routes, network.Item[network.RouteKey, network.Route]{
			Key:   network.RouteKey{Prefix: prefix, Metric: network.DefaultMetric(prefix)},
			Value: network.Route{Link: d.name, Protocol: network.RouteProtocol, Type: network.Unicast},
		})
		holds := func(p netip.Prefix) bool { return p.Overlaps(prefix) && p.Bits() <= prefix.Bits() }
		if !slices.ContainsFunc(w.backstops, holds) {
			s.Routes = append(s.Routes, backstop(prefix))
		}
	}
}

// portOf returns a peer's port. Of a lease that names none it is this node's own.
func (d *device) portOf(w *wireguard, p peer, f subnet.Family) uint16 {
	ports := p.ports
	if d.second {
		ports = p.nextPort
	}
	if w.options.Mode != Separate { // one device, and one port
		f = subnet.IPv4
		if ports[f] == 0 {
			f = subnet.IPv6
		}
	}
	if ports[f] == 0 {
		return d.port
	}
	return ports[f]
}

// Check implements backend.Backend. Unique are public keys: a device has one peer with a key.
func (w *wireguard) Check(l subnet.Lease) (unique []string, err error) {
	p, err := w.parse(l)
	if err != nil {
		return nil, err
	}
	for _, key := range p.publicKeys() {
		unique = append(unique, "public key "+key.String())
	}
	return unique, w.usable(l, p)
}
