package pods

import (
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Desired returns what the kernel is to hold for these pods, the oldest first. Of two that differ about a bridge, the
// newer one counts: the bridge plugin changed the bridge last for that one.
//
// Only pods whose end on the node exists count. A pod that ended without a DEL leaves its record, and the plugins may
// change what it depended on.
func Desired(pods []Pod, n Node) (s network.State) {
	d := desired{node: n, bridges: map[string]*bridge{}}
	for _, p := range pods {
		if !p.Managed || !n.Live(p) {
			continue
		}
		port := network.Port{MTU: p.config.MTU, Up: true}
		if p.Bridge != "" {
			port.Master, port.Learning, port.Flood = p.Bridge, true, true
			port.Hairpin, port.Isolated = p.config.HairpinMode, p.config.PortIsolation
			d.bridge(p)
		} else {
			d.pointToPoint(p)
		}
		d.Ports = append(d.Ports, network.Item[string, network.Port]{Key: p.Port, Value: port})
	}
	for _, p := range pods {
		if b := d.bridges[p.Bridge]; b != nil && p.config.filtersVLANs() {
			b.VLANFiltering = true // the plugin turned it on, if it made the bridge
		}
	}
	for _, name := range d.order {
		d.finish(name, d.bridges[name])
	}
	return d.State
}

type desired struct {
	network.State
	node    Node
	bridges map[string]*bridge
	order   []string
}

// bridge is a bridge in the making.
type bridge struct {
	network.Bridge
	mac       network.MAC    // as it was when the newest pod was added; zero: not known
	addresses []netip.Prefix // the gateways'
}

// bridge adds what a pod wants of its bridge.
func (d *desired) bridge(p Pod) {
	b := d.bridges[p.Bridge]
	if b == nil {
		b = &bridge{Bridge: network.Bridge{Kind: network.KindBridge, Up: true}}
		d.bridges[p.Bridge] = b
		d.order = append(d.order, p.Bridge)
	}
	// The kernel gives a bridge the smallest MTU of its ports (br_mtu_auto_adjust in net/bridge/br_if.c).
	if mtu := p.config.MTU; mtu != 0 && (b.MTU == 0 || mtu < b.MTU) {
		b.MTU = mtu
	}
	b.Promisc = b.Promisc || p.config.PromiscMode
	if p.bridge.IsUnicast() {
		b.mac = p.bridge
	}
	for i, prefix := range p.Prefixes {
		gateway := p.gateway(i)
		if !gateway.IsValid() || d.node.elsewhere(prefix) {
			continue
		}
		// An IPv4 bridge has one address; of IPv6, the plugin replaces one that overlaps.
		b.addresses = slices.DeleteFunc(b.addresses, func(a netip.Prefix) bool {
			return a.Addr().Is4() && gateway.Addr().Is4() || a.Overlaps(gateway)
		})
		b.addresses = append(b.addresses, gateway)
	}
}

func (d *desired) finish(name string, b *bridge) {
	d.Bridges = append(d.Bridges, network.Item[string, network.Bridge]{Key: name, Value: b.Bridge})
	families := [2]bool{}
	for _, a := range b.addresses {
		families[subnet.FamilyOf(a.Addr())] = true
		d.address(name, a)
		d.route(network.RouteKey{Prefix: a.Masked(), Metric: network.ConnectedMetric(a)}, name, network.ProtocolKernel)
	}
	if families[subnet.IPv6] {
		d.linkLocal(name, b.mac)
	}
	d.settings(name, families)
}

// linkLocal adds the link-local address that the kernel makes of a bridge's MAC address. Without any, the kernel does
// not ask for the MAC addresses of pods that it forwards packets to (ndisc_send_ns in net/ipv6/ndisc.c). Bridges have
// none if the host's default is so (addr_gen_mode 1), and lose it with the others when addresses are flushed.
func (d *desired) linkLocal(link string, mac network.MAC) {
	if own := mac.LinkLocal(); mac.IsUnicast() && !d.node.LinkLocal(link, own) {
		d.address(link, netip.PrefixFrom(own, 64))
	}
}

// pointToPoint adds what a pod needs that the ptp plugin attached: on the node, the gateway's address alone and a route
// to each address of the pod.
func (d *desired) pointToPoint(p Pod) {
	families := [2]bool{}
	for i, prefix := range p.Prefixes {
		if d.node.elsewhere(prefix) {
			continue
		}
		families[subnet.FamilyOf(prefix.Addr())] = true
		if gateway := p.Gateways[i]; gateway.IsValid() {
			d.address(p.Port, netip.PrefixFrom(gateway, gateway.BitLen()))
		}
		host := netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen())
		d.route(network.RouteKey{Prefix: host, Metric: network.DefaultMetric(host)}, p.Port, network.ProtocolBoot)
	}
	d.settings(p.Port, families)
}

func (d *desired) address(link string, prefix netip.Prefix) {
	key := network.AddressKey{Link: link, Prefix: prefix}
	d.Addresses = append(d.Addresses, network.Item[network.AddressKey, network.Address]{Key: key})
}

func (d *desired) route(key network.RouteKey, link string, protocol uint8) {
	d.Routes = append(d.Routes, network.Item[network.RouteKey, network.Route]{
		Key: key, Value: network.Route{Link: link, Protocol: protocol, Type: network.Unicast},
	})
}

// settings adds those that a device inherits from the host's default, and without which it passes nothing on.
func (d *desired) settings(link string, families [2]bool) {
	want := func(path string, v network.Sysctl) {
		d.Sysctls = append(d.Sysctls, network.Item[string, network.Sysctl]{Key: path, Value: v})
	}
	if families[subnet.IPv4] && d.node.Families[subnet.IPv4] {
		want("net/ipv4/conf/"+link+"/forwarding", "1")
	}
	if families[subnet.IPv6] {
		want("net/ipv6/conf/"+link+"/disable_ipv6", "0")
		if d.node.Families[subnet.IPv6] {
			want("net/ipv6/conf/"+link+"/forwarding", "1")
		}
	}
}
