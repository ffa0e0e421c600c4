package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
)

// checkFilter looks at who drops what the overlay has forwarded.
func checkFilter(f Facts) (all []Finding) {
	for _, text := range f.Drops {
		what, advice, _ := strings.Cut(text, "; add: ")
		all = append(all, failure(advice, "%s", what))
	}
	if f.Status != nil {
		for _, p := range f.Status.Problems {
			if p.Topic == filterTopic && !strings.Contains(p.Text, "; add: ") { // that one was looked for above
				all = append(all, warning(log+" says more", "%s", p.Text))
			}
		}
		for _, text := range f.Status.Filter.Trouble {
			what, advice := cutAdvice(text)
			all = append(all, warning(advice, "%s", what))
		}
	}
	if s := f.Status; s != nil && s.Lease != nil && !s.Filter.InForce && s.Pending() == 0 {
		all = append(all, failure("journalctl -u selvaged | grep 'packet filter' says why; nftables in the kernel, or the program iptables, is needed",
			"selvaged's packet filter rules are not in, so the subnet file is not written either"))
	}
	if len(all) == 0 && len(f.networks()) > 0 {
		text := "nobody drops all of what the overlay has forwarded"
		if s := f.Status; s != nil && !s.Filter.VTEPFilter && len(f.devices()) > 0 {
			text += "; VXLAN packets are taken from anybody"
		}
		all = append(all, passed("%s", text))
	}
	return all
}

// cutAdvice parts a trouble of the packet filter from what its text says at the end, in parentheses, to do.
func cutAdvice(text string) (what, advice string) {
	i := strings.LastIndex(text, " (")
	if i < 0 || !strings.HasSuffix(text, ")") {
		return text, log + " says more"
	}
	return text[:i], text[i+len(" (") : len(text)-1]
}

func checkDevices(f Facts) (all []Finding) {
	devices := f.devices()
	if f.Status == nil && len(devices) == 0 && f.File.Err == nil && f.podMTU() != 0 {
		return []Finding{warning("systemctl start selvaged makes it", "there is no VXLAN device of selvage's, unless the backend is host-gw")}
	}
	for _, d := range devices {
		all = append(all, f.checkDevice(d)...)
	}
	if up, ok := f.uplink(); ok && !up.Up {
		all = append(all, failure("ip link set "+up.Name+" up", "uplink %s is down", up.Name))
	}
	all = append(all, f.checkConfigMTU()...)
	if len(all) == 0 && len(devices) > 0 {
		all = append(all, passed("%s as wanted", strings.Join(namesOf(devices), ", ")))
	}
	return all
}

func namesOf(devices []status.Device) (names []string) {
	for _, d := range devices {
		names = append(names, d.Name)
	}
	return names
}

// checkDevice compares a device with what is wanted of it.
func (f Facts) checkDevice(d status.Device) (all []Finding) {
	l, there := f.link(d.Name)
	if x, ok := f.inPlaceOf(d); ok {
		return []Finding{failure(fmt.Sprintf("ip link delete %s, or give it another VNI or port", x.Name),
			"device %s, which is not selvage's, has VNI %d and port %d, so that %s cannot be made", x.Name, x.VNI, x.Port, d.Name)}
	}
	switch {
	case !there:
		return []Finding{failure(log+" says why it cannot be made", "device %s is missing", d.Name)}
	case l.Kind != d.Kind || l.Alias != network.Alias && !d.Present:
		return []Finding{failure(fmt.Sprintf("ip link delete %s, or rename it", d.Name), "device %s is not selvage's, and stands where its own is to be", d.Name)}
	case !l.Up:
		all = append(all, failure("systemctl restart selvaged, which sets it up", "device %s is down", d.Name))
	case !d.Present:
		all = append(all, failure(log+" says why", "device %s is not as it is to be", d.Name))
	}
	if _, ok := f.holder(d.Local); d.Local.IsValid() && !ok {
		all = append(all, failure("systemctl restart selvaged, which chooses the uplink anew", "device %s sends from %s, an address that this node does not have", d.Name, d.Local))
	}
	if up, ok := f.uplink(); ok && l.MTU+d.Overhead > up.MTU {
		all = append(all, failure(fmt.Sprintf("ip link set %s mtu %d; or systemctl restart selvaged, which goes by the uplink's", up.Name, l.MTU+d.Overhead),
			"device %s has MTU %d, which takes %d bytes on %s, and that has %d", d.Name, l.MTU, l.MTU+d.Overhead, up.Name, up.MTU))
	}
	return all
}

// inPlaceOf finds a device of somebody else's with the VNI and port that ours is to have: the kernel allows one only.
func (f Facts) inPlaceOf(d status.Device) (Link, bool) {
	if d.Present {
		return Link{}, false
	}
	i := slices.IndexFunc(f.Links, func(l Link) bool {
		return d.VNI != 0 && l.Kind == d.Kind && l.Alias != network.Alias && l.VNI == d.VNI && l.Port == d.Port &&
			(!l.Local.IsValid() || l.Local.Is4() == d.Local.Is4())
	})
	if i < 0 {
		return Link{}, false
	}
	return f.Links[i], true
}

// checkConfigMTU: an MTU in the network config that is above the uplink's is not followed.
func (f Facts) checkConfigMTU() []Finding {
	up, ok := f.uplink()
	if mtu := f.backendMTU(); ok && f.Status != nil && mtu > up.MTU {
		return []Finding{warning(fmt.Sprintf("ip link set %s mtu %d, if the network carries that; or take MTU out of Backend in the network config", up.Name, mtu),
			"the network config's Backend.MTU is %d, and uplink %s takes %d only, by which this node goes", mtu, up.Name, up.MTU)}
	}
	return nil
}

// checkEntries looks at what is to be in the kernel and is not. What depends on a device that is not there is not there either,
// so the first of the causes, in the order in which entries are made, is named for all.
func checkEntries(f Facts) []Finding {
	if f.Status == nil {
		return nil
	}
	var late, causes []string
	first, total := "", 0
	for _, kind := range kinds() {
		c := f.Status.Entries[kind]
		total += c.Wanted
		if c.Pending == 0 {
			continue
		}
		late = append(late, fmt.Sprintf("%d %s", c.Pending, kind))
		if first == "" {
			first = kind
		}
		for _, p := range f.Status.Problems {
			if p.Topic != kind {
				continue
			}
			if causes = append(causes, p.Text); len(causes) == 1 {
				first = kind
			}
		}
	}
	switch {
	case len(causes) > 0:
		return []Finding{failure(entryCure(first, causes[0]), "not in place: %s: %s", strings.Join(late, ", "), causes[0])}
	case len(late) > 0 && f.Status.State != status.Starting: // what is not known to be wanted yet is not pending
		return []Finding{failure(entryCure(first, ""), "not in place: %s", strings.Join(late, ", "))}
	case len(late) == 0 && total > 0:
		return []Finding{passed("%d entries are in place", total)}
	}
	return nil
}

func entryCure(kind, text string) string {
	switch {
	case strings.Contains(text, "has no VXLAN"):
		return "modprobe vxlan; or boot a kernel with CONFIG_VXLAN"
	case strings.Contains(text, "CAP_NET_ADMIN"):
		return "give selvaged CAP_NET_ADMIN and CAP_NET_RAW, or run it as root"
	case kind == "sysctl":
		return "let selvaged write to /proc/sys: mount it read-write, or set what it wants by sysctl yourself"
	case kind == "route":
		return "ip route show table all proto kernel shows who holds the subnet; remove that address or device"
	case kind == "link":
		return "ip -details link show type vxlan shows who is in the way; delete or rename it"
	}
	return "selvaged status --watch shows whether it lasts; " + log + " says why"
}

// checkRoutes looks for what of others goes before the overlay's routes.
func checkRoutes(f Facts) (all []Finding) {
	if f.Status == nil {
		return nil
	}
	for _, p := range f.Peers {
		if p.State == status.Quarantined {
			continue
		}
		for _, s := range p.Subnets {
			all = append(all, f.inTheWay(s, nameOf(p))...)
		}
	}
	if len(all) == 0 && len(f.Peers) > 0 {
		all = append(all, passed("nobody's routes go before the overlay's"))
	}
	return all
}

// inTheWay finds addresses and routes of others that keep packets from a peer's subnet.
func (f Facts) inTheWay(s netip.Prefix, peer string) (all []Finding) {
	for _, l := range f.Links {
		for _, a := range l.Addresses {
			if l.Alias != network.Alias && s.Contains(a.Addr()) {
				all = append(all, failure(fmt.Sprintf("ip address del %s dev %s", a, l.Name),
					"device %s has the address %s, of %s's subnet %s: packets for pods there stay on this node", l.Name, a, peer, s))
			}
		}
	}
	for _, r := range f.Routes {
		if r.Kernel || !s.Contains(r.Prefix.Addr()) || r.Prefix.Bits() < s.Bits() ||
			r.Prefix.Bits() == s.Bits() && uint32(r.Metric) >= network.DefaultMetric(s) {
			continue
		}
		all = append(all, failure("ip route del "+r.Text, "route %s goes before the overlay's to %s, %s", r.Text, peer, s))
	}
	return all
}

func nameOf(p status.Peer) string {
	if p.Node != "" {
		return p.Node
	}
	return p.Key
}
