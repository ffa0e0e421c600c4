package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
)

// checkFilter looks for firewalls that drop forwarded overlay traffic.
func checkFilter(f Facts) (all []Finding) {
	for _, d := range f.Drops {
		all = append(all, failure(d.Advice(), "%s", d))
	}
	if f.Status != nil {
		for _, p := range f.Status.Problems {
			if p.Code == status.RulesNotSet {
				all = append(all, warning(log+" shows details", "%s", p.Text))
			}
		}
		for _, t := range f.Status.Filter.Troubles {
			all = append(all, warning(cmp.Or(fmt.Sprint(t.Advice), log+" shows details"), "%s", t.Text))
		}
	}
	if s := f.Status; s != nil && s.Lease != nil && !s.Filter.InForce && s.Pending() == 0 {
		all = append(all, failure("journalctl -u selvaged | grep 'packet filter' shows why; "+
			"it needs nftables in the kernel, or the program iptables",
			"selvaged's packet filter rules are not set, so the subnet file is not written either"))
	}
	if len(all) == 0 && len(f.networks()) > 0 {
		text := "no firewall blocks forwarded overlay traffic"
		vxlan := func(d status.Device) bool { return d.Kind == network.KindVXLAN }
		if s := f.Status; s != nil && !s.Filter.VTEPFilter && slices.ContainsFunc(f.devices(), vxlan) {
			text += "; VXLAN packets are accepted from any host"
		}
		all = append(all, passed("%s", text))
	}
	return all
}

func checkDevices(f Facts) (all []Finding) {
	devices := f.devices()
	if f.Status == nil && len(devices) == 0 && f.File.Err == nil && f.podMTU() != 0 {
		return []Finding{warning("systemctl start selvaged creates it",
			"selvage's VXLAN device does not exist; with the backend host-gw there is none")}
	}
	for _, d := range devices {
		all = append(all, f.checkDevice(d)...)
	}
	if up, ok := f.uplink(); ok && !up.Up {
		all = append(all, failure("ip link set "+up.Name+" up", "uplink %s is down", up.Name))
	}
	all = append(all, f.checkConfigMTU()...)
	if len(all) == 0 && len(devices) > 0 {
		all = append(all, passed("%s in sync", strings.Join(namesOf(devices), ", ")))
	}
	return all
}

func namesOf(devices []status.Device) (names []string) {
	for _, d := range devices {
		name := d.Name
		if d.UserSpace != nil {
			name += " " + d.UserSpace.String()
		}
		names = append(names, name)
	}
	return names
}

// checkDevice compares a device with its desired state.
func (f Facts) checkDevice(d status.Device) (all []Finding) {
	l, there := f.link(d.Name)
	if x, ok := f.conflictingDevice(d); ok {
		if other, is := network.ParseAlias(x.Alias); is {
			return []Finding{failure(
				"give one of the networks another VNI or port: Backend.VNI and Backend.Port in its config",
				"device %s of another network of selvage, %s, has VNI %d and port %d, so that %s cannot be created",
				x.Name, other, x.VNI, x.Port, d.Name)}
		}
		return []Finding{failure(fmt.Sprintf("ip link delete %s, or give it another VNI or port", x.Name),
			"device %s, which is not selvage's, has VNI %d and port %d, so that %s cannot be created",
			x.Name, x.VNI, x.Port, d.Name)}
	}
	switch {
	case !there:
		return []Finding{failure(log+" shows why it cannot be created", "device %s is missing", d.Name)}
	case !d.Present && f.others(l):
		return []Finding{failure("give one of the networks another VNI: Backend.VNI in its config",
			"device %s belongs to another network of selvage, %s",
			d.Name, strings.TrimPrefix(l.Alias, network.Alias+" "))}
	case !isOfKind(l, d) || l.Alias != f.scope().Alias() && !d.Present:
		return []Finding{failure(fmt.Sprintf("ip link delete %s, or rename it", d.Name),
			"device %s is not selvage's, and has the name that selvage's needs", d.Name)}
	case !l.Up:
		all = append(all, failure("systemctl restart selvaged, which brings it up", "device %s is down", d.Name))
	case !d.Present:
		all = append(all, failure(log+" shows why", "device %s is out of sync", d.Name))
	}
	if _, ok := f.linkWithAddress(d.Local); d.Local.IsValid() && !ok {
		all = append(all, failure("systemctl restart selvaged, which selects the uplink again",
			"device %s sends from %s, an address that this node does not have", d.Name, d.Local))
	}
	if up, ok := f.uplink(); ok && l.MTU+d.Overhead > up.MTU {
		needed := l.MTU + d.Overhead
		advice := fmt.Sprintf("ip link set %s mtu %d; or systemctl restart selvaged, "+
			"which adapts the device to the uplink's MTU", up.Name, needed)
		all = append(all, failure(advice,
			"device %s has MTU %d and sends packets of up to %d bytes on %s, which has MTU %d",
			d.Name, l.MTU, needed, up.Name, up.MTU))
	}
	return all
}

// isOfKind reports whether a link is of a device's kind: a user-space WireGuard makes a tun device.
func isOfKind(l Link, d status.Device) bool {
	return l.Kind == d.Kind || d.Kind == network.KindWireGuard && l.Kind == "tun"
}

// others reports whether a device belongs to another network of selvage.
func (f Facts) others(l Link) bool {
	_, is := network.ParseAlias(l.Alias)
	return is && l.Alias != f.scope().Alias()
}

// conflictingDevice finds a foreign device with the VNI and port of ours: the kernel allows only one (EEXIST).
func (f Facts) conflictingDevice(d status.Device) (Link, bool) {
	if d.Present {
		return Link{}, false
	}
	i := slices.IndexFunc(f.Links, func(l Link) bool {
		return d.VNI != 0 && l.Kind == d.Kind && l.Alias != f.scope().Alias() && l.VNI == d.VNI && l.Port == d.Port &&
			(!l.Local.IsValid() || l.Local.Is4() == d.Local.Is4())
	})
	if i < 0 {
		return Link{}, false
	}
	return f.Links[i], true
}

// checkConfigMTU checks the MTU in the network config: one above the uplink's is ignored.
func (f Facts) checkConfigMTU() []Finding {
	up, ok := f.uplink()
	if mtu := f.backendMTU(); ok && f.Status != nil && mtu > up.MTU {
		advice := fmt.Sprintf("ip link set %s mtu %d, if the network carries that; "+
			"or remove MTU from Backend in the network config", up.Name, mtu)
		return []Finding{warning(advice,
			"the network config's Backend.MTU is %d; uplink %s has only %d, which this node uses",
			mtu, up.Name, up.MTU)}
	}
	return nil
}

// checkEntries looks for desired entries that are not in the kernel. Entries that depend on a missing device are
// missing too, so the finding names the first cause, in the order in which entries are created.
func checkEntries(f Facts) []Finding {
	if f.Status == nil {
		return nil
	}
	var late []string
	var cause *status.Problem
	first, total := "", 0
	for _, kind := range network.Kinds() {
		c := f.Status.Entries[kind]
		total += c.Wanted
		if c.Pending == 0 {
			continue
		}
		late = append(late, fmt.Sprintf("%d %s", c.Pending, kind))
		if first == "" {
			first = kind
		}
		i := slices.IndexFunc(f.Status.Problems, func(p status.Problem) bool {
			return p.Kind == kind && p.Code != status.Conflict
		})
		if i >= 0 && cause == nil {
			cause, first = &f.Status.Problems[i], kind
		}
	}
	switch {
	case cause != nil:
		return []Finding{failure(entryRemedy(first, cause.Code),
			"out of sync: %s: %s", strings.Join(late, ", "), cause.Text)}
	case len(late) > 0 && f.Status.State != status.Starting: // while it starts, not all desired entries are known
		return []Finding{failure(entryRemedy(first, ""), "out of sync: %s", strings.Join(late, ", "))}
	case len(late) == 0 && total > 0:
		return []Finding{passed("all %d entries are in sync", total)}
	}
	return nil
}

func entryRemedy(kind string, code status.Reason) string {
	switch {
	case kind == "link" && code == status.Unsupported:
		return "modprobe vxlan, or wireguard for that backend; or boot a kernel with CONFIG_VXLAN or " +
			"CONFIG_WIREGUARD; or start selvaged with --wireguard-userspace, which serves WireGuard without the " +
			"kernel's, and is slower"
	case kind == "link" && code == status.NotPermitted:
		return "give selvaged CAP_NET_ADMIN and CAP_NET_RAW, or run it as root"
	case kind == "sysctl":
		return "let selvaged write to /proc/sys: mount it read-write, or set the values with sysctl yourself"
	case kind == "route":
		return "ip route show table all proto kernel shows what holds the subnet; remove that address or device"
	case kind == "link":
		return "ip -details link show type vxlan shows the conflicting device; delete or rename it"
	}
	return "selvaged status --watch shows whether it lasts; " + log + " shows why"
}

// checkRoutes looks for foreign addresses and routes that take precedence over the overlay's.
func checkRoutes(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil
	}
	for _, p := range f.Peers {
		if p.State == status.Quarantined {
			continue
		}
		for _, s := range p.Subnets {
			all = append(all, f.shadowing(s, nameOf(p))...)
		}
	}
	own := f.own()
	for _, s := range own {
		all = append(all, f.ownShadowing(s)...)
	}
	if len(all) == 0 && len(f.Peers)+len(own) > 0 {
		all = append(all, passed("no foreign route takes precedence over the overlay's"))
	}
	return all
}

// shadowing finds foreign addresses and routes that take precedence over the overlay's route to a peer's subnet.
func (f Facts) shadowing(s netip.Prefix, peer string) (all []Finding) {
	for _, l := range f.Links {
		for _, a := range l.Addresses {
			if l.Alias != f.scope().Alias() && s.Contains(a.Addr()) {
				all = append(all, failure(fmt.Sprintf("ip address del %s dev %s", a, l.Name),
					"device %s has the address %s, from %s's subnet %s: packets for pods there stay on this node",
					l.Name, a, peer, s))
			}
		}
	}
	for _, r := range f.Routes {
		if r.Kernel || !s.Contains(r.Prefix.Addr()) || r.Prefix.Bits() < s.Bits() ||
			r.Prefix.Bits() == s.Bits() && uint32(r.Metric) >= network.DefaultMetric(s) {
			continue
		}
		all = append(all, failure("ip route del "+r.Text,
			"route %s takes precedence over the overlay's route to %s, %s", r.Text, peer, s))
	}
	return all
}

func nameOf(p status.Peer) string {
	if p.Node != "" {
		return p.Node
	}
	return p.Key
}
