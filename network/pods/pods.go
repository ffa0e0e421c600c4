// Package pods derives what this node's pods depend on from the records of their attachments: bridges with their
// addresses and routes, the ends of the pods' links, settings. It decides and does no I/O.
//
// The CNI plugins own these objects, and their configuration says what they are to be: the record of an attachment has
// it as the delegate got it. What a plugin that is not known here made is not desired, only named.
package pods

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/attachment"
)

// Pod is one attachment: an interface of a pod.
type Pod struct {
	attachment.Key
	Identity attachment.Pod // the pod of Kubernetes; zero: not known
	NetNS    string
	Delegate string
	Managed  bool           // the plugin is known, and its objects are desired
	Why      string         // why it is not managed, for people
	Bridge   string         // to which it is attached; empty: none
	Port     string         // its end on the node; empty: not known
	PortMAC  network.MAC    // of Port, as it was at ADD; zero: not known
	MAC      network.MAC    // the pod's; zero: not known
	Prefixes []netip.Prefix // its addresses
	Gateways []netip.Addr   // of Prefixes, in their order; invalid: none

	defaults []netip.Addr // see DefaultGateways
	config   config
	bridge   network.MAC // of the bridge, as it was at ADD
}

// config is what matters of a delegate's configuration. The keys are those of the reference plugins bridge and ptp.
type config struct {
	Bridge           string `json:"bridge"`
	MTU              int    `json:"mtu"`
	IsGateway        bool   `json:"isGateway"`
	IsDefaultGateway bool   `json:"isDefaultGateway"`
	HairpinMode      bool   `json:"hairpinMode"`
	PromiscMode      bool   `json:"promiscMode"`
	PortIsolation    bool   `json:"portIsolation"`
	Vlan             int    `json:"vlan"`
	VlanTrunk        []any  `json:"vlanTrunk"`
	DisableInterface bool   `json:"disableContainerInterface"`
}

// vlans reports whether the bridge plugin attaches a pod to VLANs.
func (c config) vlans() bool { return c.Vlan != 0 || len(c.VlanTrunk) > 0 }

// filtersVLANs reports whether the bridge plugin makes a bridge that filters VLANs. An empty list of them is enough.
func (c config) filtersVLANs() bool { return c.Vlan != 0 || c.VlanTrunk != nil }

// result is what matters of a delegate's result, from version 0.3.0 of the CNI spec on.
type result struct {
	Interfaces []struct {
		Name    string `json:"name"`
		MAC     string `json:"mac"`
		Sandbox string `json:"sandbox"`
	} `json:"interfaces"`
	IPs []struct {
		Address netip.Prefix `json:"address"`
		Gateway string       `json:"gateway"`
	} `json:"ips"`
	Routes []struct {
		Dst netip.Prefix `json:"dst"`
		GW  string       `json:"gw"`
	} `json:"routes"`
}

const (
	bridgePlugin  = "bridge"
	ptpPlugin     = "ptp"
	defaultBridge = "cni0" // of the bridge plugin
)

// Parse reads what a record says of a pod. The error says what is wrong with the record.
func Parse(r attachment.Record) (Pod, error) {
	p := Pod{Key: r.Key, Identity: r.Pod, NetNS: r.NetNS, Delegate: r.Delegate}
	if err := json.Unmarshal(r.Config, &p.config); err != nil {
		return p, fmt.Errorf("the record of %s: configuration of %s: %w", r.Key, r.Delegate, err)
	}
	var made result
	if err := json.Unmarshal(r.Result, &made); err != nil {
		return p, fmt.Errorf("the record of %s: result of %s: %w", r.Key, r.Delegate, err)
	}
	if r.Delegate == bridgePlugin {
		if p.Bridge = p.config.Bridge; p.Bridge == "" {
			p.Bridge = defaultBridge
		}
	}
	for _, i := range made.Interfaces {
		mac, err := network.ParseMAC(i.MAC)
		switch {
		case err != nil:
		case i.Sandbox != "" && i.Name == r.Interface:
			p.MAC = mac
		case i.Sandbox == "" && i.Name == p.Bridge:
			p.bridge = mac
		case i.Sandbox == "" && p.Port == "":
			p.Port, p.PortMAC = i.Name, mac
		}
	}
	for _, ip := range made.IPs {
		if !ip.Address.IsValid() {
			continue
		}
		gateway, _ := netip.ParseAddr(ip.Gateway)
		p.Prefixes, p.Gateways = append(p.Prefixes, ip.Address), append(p.Gateways, gateway)
	}
	for _, route := range made.Routes {
		if !route.Dst.IsValid() || route.Dst.Bits() != 0 {
			continue
		}
		via, err := netip.ParseAddr(route.GW)
		for i, prefix := range p.Prefixes { // without a gateway of its own it leads to that of the address
			if err != nil && prefix.Addr().Is4() == route.Dst.Addr().Is4() {
				via = p.Gateways[i]
			}
		}
		if via.IsValid() && !slices.Contains(p.defaults, via) {
			p.defaults = append(p.defaults, via)
		}
	}
	p.Why = p.unmanaged()
	p.Managed = p.Why == ""
	return p, nil
}

// unmanaged returns why nothing is desired for the pod.
func (p Pod) unmanaged() string {
	switch {
	case p.Delegate != bridgePlugin && p.Delegate != ptpPlugin:
		return fmt.Sprintf("plugin %s is not known to the daemon", p.Delegate)
	case p.config.vlans():
		return "the daemon does not know VLANs of a bridge"
	case p.Port == "":
		return "the plugin's result does not name its interface on the node"
	}
	return ""
}

// DefaultGateways returns the gateways of the default routes that the pod was given.
func (p Pod) DefaultGateways() []netip.Addr { return p.defaults }

// Addresses returns the pod's first address of each family, by subnet.Family; invalid: none.
func (p Pod) Addresses() (addresses [2]netip.Addr) {
	for _, x := range p.Prefixes {
		a := x.Addr().Unmap()
		if family := subnet.FamilyOf(a); !addresses[family].IsValid() {
			addresses[family] = a
		}
	}
	return addresses
}

// Families returns those of the pod's addresses.
func (p Pod) Families() (families [2]bool) {
	for _, x := range p.Prefixes {
		families[subnet.FamilyOf(x.Addr())] = true
	}
	return families
}

// Node is what desired state depends on beside the records.
type Node struct {
	Networks []netip.Prefix           // of the overlay
	Own      [2]netip.Prefix          // the node's subnets; invalid: none
	Families [2]bool                  // of the overlay: IPv4, IPv6
	HasLink  func(device string) bool // whether a device exists, perhaps under another name
	// LinkLocal reports whether a device has an IPv6 link-local address other than one.
	LinkLocal func(device string, but netip.Addr) bool
}

// Live reports whether the pod's end on the node exists. It vanishes with the pod, and cannot be made again.
func (n Node) Live(p Pod) bool { return p.Port != "" && n.HasLink(p.Port) }

// elsewhere reports whether an address is another node's by now: this node had another subnet when the pod was added.
func (n Node) elsewhere(p netip.Prefix) bool {
	holds := func(x netip.Prefix) bool { return x.IsValid() && x.Contains(p.Addr()) }
	return slices.ContainsFunc(n.Networks, holds) && !slices.ContainsFunc(n.Own[:], holds)
}

// Former returns the subnets of a pod's addresses that this node had when the pod was added and does not have any more.
// As long as the node has no subnet, there are none.
func (n Node) Former(p Pod) (all []netip.Prefix) {
	for _, x := range p.Prefixes {
		if n.Own[subnet.FamilyOf(x.Addr())].IsValid() && n.elsewhere(x) {
			all = append(all, x.Masked())
		}
	}
	return all
}

// gateway returns the address that a pod's bridge has for one of the pod's addresses; invalid: none.
func (p Pod) gateway(i int) netip.Prefix {
	if p.Bridge == "" || !p.config.IsGateway && !p.config.IsDefaultGateway {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(p.Gateways[i], p.Prefixes[i].Bits())
}

// Devices returns the devices that pods depend on, by name.
func Devices(pods []Pod) map[string]network.PodDevice {
	all := map[string]network.PodDevice{}
	for _, p := range pods { // the newest is last
		if !p.Managed {
			continue
		}
		all[p.Port] = network.PodDevice{}
		if p.Bridge == "" {
			continue
		}
		b := all[p.Bridge]
		if p.bridge.IsUnicast() {
			b.MAC = p.bridge
		}
		for i := range p.Prefixes {
			if g := p.gateway(i); g.IsValid() && !slices.Contains(b.Gateways, g) {
				b.Gateways = append(b.Gateways, g)
			}
		}
		all[p.Bridge] = b
	}
	return all
}
