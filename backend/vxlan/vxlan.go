// Package vxlan carries the overlay in VXLAN (RFC 7348), one device a family: flannel.<VNI> for an IPv4 overlay over an
// IPv4 underlay, flannel-v6.<VNI> for IPv6 over IPv6. The names are flannel's, so that a node can be taken over with
// the device in place.
//
// Every node advertises its device's MAC address in its lease. A peer then needs three entries, all permanent, and
// nothing is flooded or learned: see package network for how a packet meets them. With DirectRouting, a peer whose
// public IP is on-link on this node's uplink needs one route instead, to that address.
package vxlan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Type is the Backend.Type of configs that this package serves, and the BackendType of leases.
const Type = "vxlan"

// family is in what the two families differ.
type family struct {
	device string // format of the device's name
	minMTU int    // of the device: what every IP node must take in one piece (RFC 791, RFC 8200 section 5)
}

func families() [2]family {
	return [2]family{
		subnet.IPv4: {device: "flannel.%d", minMTU: 576},
		subnet.IPv6: {device: "flannel-v6.%d", minMTU: 1280},
	}
}

type vxlan struct {
	options  Options
	families [2]*tunnel // by subnet.Family; nil where the config has the family off
	underlay backend.Underlay
}

// tunnel is one family's device.
type tunnel struct {
	name     string
	link     network.Link
	settings network.VXLAN // of link
}

// leaseData is BackendData, as flannel writes it.
type leaseData struct {
	VNI     *uint32 `json:"VNI"` // missing in leases of old flannel versions
	VtepMAC string  `json:"VtepMAC"`
}

// Kind returns this kind of backend.
func Kind() backend.Kind {
	return backend.Kind{New: New, Check: check, Beside: true, Keys: keys()}
}

// check validates a config as far as it does not depend on the node.
func check(c subnet.Config) error {
	o, err := parseOptions(c.Backend.Options)
	if err != nil {
		return err
	}
	for _, f := range subnet.Families() {
		if !c.Ranges[f].Enabled() {
			continue
		}
		if err := checkName(families()[f].device, o.VNI); err != nil {
			return err
		}
		if overhead := overheadOver(f); o.MTU != 0 && o.MTU-overhead < families()[f].minMTU {
			return mtuError("Backend.MTU in the network config", o.MTU, f)
		}
	}
	return nil
}

// checkName returns an error if the device's name would be longer than the kernel allows (IFNAMSIZ in linux/if.h, which
// counts a final zero byte).
func checkName(format string, vni uint32) error {
	name := fmt.Sprintf(format, vni)
	if len(name) <= maxNameLength {
		return nil
	}
	digits := maxNameLength - len(fmt.Sprintf(format, 0)) + 1
	largest := strings.Repeat("9", digits)
	return fmt.Errorf("network config: Backend.VNI is %d, want at most %s: the device would be called %s, "+
		"of %d characters, and the kernel allows %d", vni, largest, name, len(name), maxNameLength)
}

// maxNameLength is the maximum length of a device's name.
const maxNameLength = 15

// New is this package's [backend.Factory].
func New(c subnet.Config, u backend.Underlay) (backend.Backend, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	o, err := parseOptions(c.Backend.Options)
	if err != nil {
		return nil, err
	}
	v := &vxlan{options: o, underlay: u}
	for _, f := range subnet.Families() {
		if !c.Ranges[f].Enabled() {
			continue
		}
		if v.families[f], err = newTunnel(f, o, u); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func newTunnel(f subnet.Family, o Options, u backend.Underlay) (*tunnel, error) {
	kind := families()[f]
	t := &tunnel{
		name:     fmt.Sprintf(kind.device, o.VNI),
		settings: network.VXLAN{VNI: o.VNI, Port: o.Port, Local: u.Local[f], Learning: o.Learning, GBP: o.GBP},
	}
	if !u.Local[f].IsValid() {
		return nil, fmt.Errorf("uplink %s has no %s address to carry the %s overlay; "+
			"add one, or choose another uplink with --iface", u.Link, f, f)
	}
	overhead := t.settings.Overhead()
	mtu, field := o.MTU, "Backend.MTU in the network config"
	if mtu == 0 || mtu > u.MTU {
		mtu, field = u.MTU, "the MTU of uplink "+u.Link
	}
	if mtu-overhead < kind.minMTU {
		return nil, mtuError(field, mtu, f)
	}
	var known network.MAC
	if u.Own != nil {
		known, _ = parseData(u.Own.Endpoints[f].Data, o.VNI) // invalid data counts as none
	}
	t.link = network.Link{
		Kind: network.KindVXLAN, Settings: t.settings, MTU: mtu - overhead, MAC: u.Keep.MAC(t.name, known),
		Alias: network.Alias, Up: true, TxChecksum: u.TxChecksum, // the node replaces the alias by its network's
	}
	return t, nil
}

// overheadOver returns the bytes that VXLAN adds to a packet over an underlay of a family.
func overheadOver(f subnet.Family) int {
	local := [...]netip.Addr{subnet.IPv4: netip.IPv4Unspecified(), subnet.IPv6: netip.IPv6Unspecified()}[f]
	return network.VXLAN{Local: local}.Overhead()
}

// mtuError returns the error for an MTU of the underlay that is too small for the overlay of a family.
func mtuError(field string, mtu int, f subnet.Family) error {
	overhead, least := overheadOver(f), families()[f].minMTU
	return fmt.Errorf("%s is %d, want at least %d: VXLAN takes %d bytes over %s and %d must remain",
		field, mtu, least+overhead, overhead, f, least)
}

// Advertise implements backend.Backend.
func (v *vxlan) Advertise() (endpoints [2]subnet.Endpoint) {
	for _, f := range subnet.Families() {
		if t := v.families[f]; t != nil {
			// A number and a string can be encoded.
			data, _ := json.Marshal(leaseData{VNI: &t.settings.VNI, VtepMAC: t.link.MAC.String()})
			endpoints[f] = subnet.Endpoint{PublicIP: v.underlay.PublicIP[f], Data: string(data)}
		}
	}
	return endpoints
}

// Device implements backend.Backend. The address is the subnet's first, as a host route: it is the source of packets
// that the node itself sends to pods on other nodes, and the gateway in peers' routes to this node.
//
// With DirectRouting, a peer may send through the tunnel what this node would send to it directly, and vice versa:
// while only one of them has switched, or for good where only one has the other on-link. A strict reverse path filter
// would drop that.
func (v *vxlan) Device(subnets [2]netip.Prefix) (s network.State) {
	for _, f := range subnet.Families() {
		t := v.families[f]
		if t == nil {
			continue
		}
		s.Links = append(s.Links, network.Item[string, network.Link]{Key: t.name, Value: t.link})
		if subnets[f].IsValid() {
			key := network.AddressKey{Link: t.name, Prefix: netip.PrefixFrom(subnets[f].Addr(), f.Bits())}
			s.Addresses = append(s.Addresses, network.Item[network.AddressKey, network.Address]{Key: key})
		}
		if v.options.DirectRouting && f == subnet.IPv4 { // IPv6 has no such filter
			s.Sysctls = append(s.Sysctls, backend.LooseReversePath(t.name))
			if v.underlay.ReversePath {
				s.Sysctls = append(s.Sysctls, backend.LooseReversePath(v.underlay.Link))
			}
		}
	}
	return s
}

// Describe implements backend.Backend. With both families the MTU is the smaller one: a pod has one interface for both.
func (v *vxlan) Describe() backend.Description {
	d := backend.Description{MTU: maxMTU}
	for _, t := range v.families {
		if t == nil {
			continue
		}
		d.MTU = min(d.MTU, t.link.MTU)
		d.Tunnels = append(d.Tunnels, backend.Tunnel{
			Device: t.name, Protocol: "VXLAN", Overhead: t.settings.Overhead(),
			Port: t.settings.Port, Local: t.settings.Local,
			Settings: []backend.Setting{{Name: "VNI", Value: strconv.FormatUint(uint64(t.settings.VNI), 10)}},
		})
	}
	return d
}

// Direct implements backend.Mixed.
func (v *vxlan) Direct() bool { return v.options.DirectRouting }

// Warning implements backend.Warner.
func (v *vxlan) Warning() string {
	return v.underlay.Exceeded(v.options.MTU)
}

// Peer implements backend.Backend. A peer that lacks a family is reached in the other.
func (v *vxlan) Peer(l subnet.Lease) (s network.State, err error) {
	for _, f := range subnet.Families() {
		t, e := v.families[f], l.Endpoints[f]
		if t == nil || !l.Has(f) {
			continue
		}
		mac, err := parseData(e.Data, v.options.VNI)
		if err != nil {
			return network.State{}, err
		}
		gateway := e.Subnet.Addr()
		s.VTEPs = append(s.VTEPs, network.Item[netip.Addr, network.VTEP]{Key: e.PublicIP})
		if v.options.DirectRouting && !v.underlay.InTunnel && v.underlay.Reaches(e.PublicIP) {
			v.underlay.Direct(&s, e)
			continue
		}
		s.FDB = append(s.FDB, network.Item[network.FDBKey, network.FDB]{
			Key:   network.FDBKey{Link: t.name, MAC: mac},
			Value: network.FDB{Remote: e.PublicIP, Permanent: true},
		})
		s.Neighbours = append(s.Neighbours, network.Item[network.NeighbourKey, network.Neighbour]{
			Key:   network.NeighbourKey{Link: t.name, IP: gateway},
			Value: network.Neighbour{MAC: mac, Permanent: true},
		})
		if v.underlay.FastPath {
			s.FastPeers = append(s.FastPeers, network.Item[netip.Prefix, network.FastPeer]{
				Key: e.Subnet, Value: network.FastPeer{Address: e.PublicIP, MAC: mac},
			})
		}
		route := network.Route{
			Link: t.name, Gateway: gateway, OnLink: true, Protocol: network.RouteProtocol, Type: network.Unicast,
		}
		if v.underlay.Nexthops && f == subnet.IPv4 {
			route = s.Via(route)
		}
		key := network.RouteKey{Prefix: e.Subnet, Metric: network.DefaultMetric(e.Subnet)}
		s.Routes = append(s.Routes, network.Item[network.RouteKey, network.Route]{Key: key, Value: route})
	}
	return s, nil
}

// Check implements backend.Backend. Unique are MAC addresses: a device accepts only packets for its own MAC address,
// and the FDB has one entry for an address, so of two nodes with one address, as clones of a machine have, peers would
// reach one.
func (v *vxlan) Check(l subnet.Lease) (unique []string, err error) {
	for _, f := range subnet.Families() {
		if v.families[f] == nil || !l.Has(f) {
			continue
		}
		mac, err := parseData(l.Endpoints[f].Data, v.options.VNI)
		if err != nil {
			return nil, err
		}
		unique = append(unique, "MAC "+mac.String()+" ("+f.String()+")")
	}
	return unique, nil
}

// parseData reads a lease's BackendData and returns the MAC address of the peer's device. Anyone with access
// to the store can write the data; an error repeats little of it.
func parseData(text string, vni uint32) (network.MAC, error) {
	if text == "" {
		return network.MAC{}, fmt.Errorf("no BackendData")
	}
	d, ok := parseUsual(text)
	if !ok {
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return network.MAC{}, fmt.Errorf("BackendData%w", describe(err))
		}
	}
	if d.VNI != nil && *d.VNI != vni {
		return network.MAC{}, fmt.Errorf("BackendData: VNI is %d, want %d", *d.VNI, vni)
	}
	if n := len(d.VtepMAC); n > 2*macLength {
		return network.MAC{}, fmt.Errorf(
			"BackendData: VtepMAC of %d bytes is not a MAC address such as 72:30:36:d0:8b:68", n)
	}
	mac, err := network.ParseMAC(d.VtepMAC)
	if err != nil {
		return mac, fmt.Errorf("BackendData: VtepMAC %w", err)
	}
	if !mac.IsUnicast() {
		return mac, fmt.Errorf("BackendData: VtepMAC %s is not the address of one device", mac)
	}
	return mac, nil
}

// parseUsual reads the one form in which flannel and selvage write BackendData:
// {"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"}. At a start there are thousands of them, each is read twice, and
// encoding/json takes ten times as long. What parseUsual accepts, encoding/json reads the same way.
func parseUsual(text string) (d leaseData, ok bool) {
	text, begins := strings.CutPrefix(text, `{"VNI":`)
	number, text, numbered := strings.Cut(text, `,"VtepMAC":"`)
	mac, ends := strings.CutSuffix(text, `"}`)
	if !begins || !numbered || !ends || len(mac) != macLength || strings.Trim(mac, "0123456789abcdefABCDEF:") != "" {
		return d, false
	}
	vni, err := strconv.ParseUint(number, 10, 32)
	if err != nil || strconv.FormatUint(vni, 10) != number { // 01, for instance, is not JSON
		return d, false
	}
	v := uint32(vni)
	return leaseData{VNI: &v, VtepMAC: mac}, true
}

// macLength is how many characters a MAC address has.
const macLength = len("72:30:36:d0:8b:68")
