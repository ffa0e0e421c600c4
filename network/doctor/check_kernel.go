package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// minKernel returns the oldest kernel that supports a family: 4.12 added vxlan_changelink, 4.16 onlink IPv6 routes.
func minKernel(f subnet.Family) [2]int {
	return [...][2]int{subnet.IPv4: {4, 12}, subnet.IPv6: {4, 16}}[f]
}

// version parses the output of uname -r.
func version(release string) (v [2]int, ok bool) {
	_, err := fmt.Sscanf(release, "%d.%d", &v[0], &v[1])
	return v, err == nil
}

func older(a, b [2]int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }

func checkKernel(f Facts) (all []Finding) {
	v, known := version(f.Kernel.Release)
	for _, family := range subnet.Families() {
		if least := minKernel(family); known && f.uses(family) && older(v, least) {
			all = append(all, failure(fmt.Sprintf("boot Linux %d.%d or later", least[0], least[1]),
				"Linux %s is too old for an overlay of %s", f.Kernel.Release, family))
		}
	}
	if f.Kernel.NFTables != nil {
		all = append(all, warning(
			"modprobe nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET); or silence with --vtep-filter=false",
			"nf_tables cannot be used, so VXLAN packets are accepted from any host: %v", f.Kernel.NFTables))
	}
	if len(all) == 0 {
		text := fmt.Sprintf("Linux %s has all required features", f.Kernel.Release)
		if f.Kernel.Nexthops != nil {
			text += "; without nexthop objects (Linux 5.3), which matters from some 5,000 nodes on"
		}
		all = append(all, passed("%s", text))
	}
	return all
}

// sysctlName formats a path below /proc/sys for sysctl(8). A path that contains a dot, such as a VLAN's, keeps its
// slashes, which sysctl accepts.
func sysctlName(path string) string {
	if strings.Contains(path, ".") {
		return path
	}
	return strings.ReplaceAll(path, "/", ".")
}

// disabled returns a failure if a setting is 0. effect is the consequence.
func (f Facts) disabled(path, effect string) (all []Finding) {
	if f.Sysctls[path] == "0" {
		name := sysctlName(path)
		advice := fmt.Sprintf("sysctl -w %s=1; find what sets it to 0: "+
			"grep -rs forward /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d", name)
		all = append(all, failure(advice, "%s is 0: %s", name, effect))
	}
	return all
}

func checkForwarding(f Facts) (all []Finding) {
	if len(f.networks()) == 0 {
		return nil
	}
	var links []string
	if l, ok := f.uplink(); ok {
		links = append(links, l.Name)
	}
	for _, d := range f.devices() {
		links = append(links, d.Name)
	}
	if l, ok := f.bridge(); ok {
		links = append(links, l.Name)
	}
	for _, family := range subnet.Families() {
		if !f.uses(family) {
			continue
		}
		global := [...]string{subnet.IPv4: "net/ipv4/ip_forward", subnet.IPv6: "net/ipv6/conf/all/forwarding"}[family]
		bad := f.disabled(global, fmt.Sprintf("this node forwards no %s packets, from its pods or to them", family))
		if len(bad) > 0 {
			all = append(all, bad...)
			continue // the global setting changes that of each interface
		}
		for _, link := range links {
			base := [...]string{subnet.IPv4: "net/ipv4/conf/", subnet.IPv6: "net/ipv6/conf/"}[family]
			path := base + link + "/forwarding"
			effect := fmt.Sprintf("this node forwards no %s packets that arrive on %s", family, link)
			all = append(all, f.disabled(path, effect)...)
		}
	}
	all = append(all, f.checkDisabledIPv6(links)...)
	all = append(all, f.checkARP()...)
	if len(all) == 0 {
		all = append(all, passed("forwarding is on"))
	}
	return all
}

// checkARP looks for the setting by which the pods' bridge answers no ARP request, as new interfaces may inherit it.
// The kernel uses the higher of the values of the interface and of "all" (IN_DEV_ARP_IGNORE).
func (f Facts) checkARP() []Finding {
	l, ok := f.bridge()
	if !ok || !f.uses(subnet.IPv4) {
		return nil
	}
	for _, path := range []string{"net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/" + l.Name + "/arp_ignore"} {
		if name := sysctlName(path); f.Sysctls[path] == "8" {
			return []Finding{failure(fmt.Sprintf("sysctl -w %s=0", name),
				"%s is 8: %s answers no ARP request, so that pods do not find their gateway", name, l.Name)}
		}
	}
	return nil
}

// checkDisabledIPv6 looks for interfaces that take no IPv6 address. A bridge of pods inherits the default, and the CNI
// plugin corrects that; the link of a pod without a bridge keeps it.
func (f Facts) checkDisabledIPv6(links []string) (all []Finding) {
	if !f.uses(subnet.IPv6) {
		return nil
	}
	for _, link := range links {
		if path := "net/ipv6/conf/" + link + "/disable_ipv6"; f.Sysctls[path] == "1" {
			all = append(all, failure(fmt.Sprintf("sysctl -w %s=0", sysctlName(path)),
				"%s is 1: %s takes no IPv6 address or route", sysctlName(path), link))
		}
	}
	const path = "net/ipv6/conf/default/disable_ipv6"
	if list, ok := f.CNI.own(); f.Sysctls[path] == "1" && ok && list.Bridge == "" {
		all = append(all, failure(fmt.Sprintf("sysctl -w %s=0", sysctlName(path)),
			"%s is 1, and pods without a bridge need IPv6 on their links: no pod can be started", sysctlName(path)))
	}
	return all
}

func checkRouterAdvertisements(f Facts) []Finding {
	l, ok := f.uplink()
	if !ok || !f.uses(subnet.IPv6) {
		return nil
	}
	path := "net/ipv6/conf/" + l.Name + "/accept_ra"
	if f.Sysctls[path] == "1" && f.Sysctls["net/ipv6/conf/"+l.Name+"/forwarding"] == "1" {
		return []Finding{failure(fmt.Sprintf("sysctl -w %s=2", sysctlName(path)),
			"%s is 1: a forwarding node then ignores router advertisements, "+
				"and loses an IPv6 default route learnt from one", sysctlName(path))}
	}
	return []Finding{passed("router advertisements on %s are accepted, or not used", l.Name)}
}

// checkBridgeFilter checks br_netfilter: without it, packets between two ports of a bridge bypass iptables, and so
// kube-proxy's rules.
func checkBridgeFilter(f Facts) []Finding {
	if !f.KubeProxy {
		return nil
	}
	for _, family := range subnet.Families() {
		if !f.uses(family) {
			continue
		}
		setting := bridgeSetting(family)
		if value := f.Sysctls[setting]; value != "1" {
			if value == "" {
				value = "not available"
			}
			return []Finding{warning(fmt.Sprintf("modprobe br_netfilter; sysctl -w %s=1", sysctlName(setting)),
				"%s is %s, and kube-proxy uses iptables: "+
					"a pod gets no answer through a service from a pod of its own node", sysctlName(setting), value)}
		}
	}
	return []Finding{passed("kube-proxy's rules see packets between pods of this node")}
}

// bridgeSetting returns the path below /proc/sys of the setting by which packets between two ports of a bridge pass the
// packet filter.
func bridgeSetting(family subnet.Family) string {
	return [...]string{
		subnet.IPv4: "net/bridge/bridge-nf-call-iptables", subnet.IPv6: "net/bridge/bridge-nf-call-ip6tables",
	}[family]
}

// checkNeighbours checks the size of the neighbour tables. The kernel keeps at most gc_thresh3 neighbours for all
// interfaces and namespaces. Peers on the uplink's link count towards it; before Linux 5.0, permanent neighbours did
// as well.
func checkNeighbours(f Facts) (all []Finding) {
	if f.Status == nil || f.Status.Uplink == nil {
		return nil
	}
	v, known := version(f.Kernel.Release)
	most := 0
	for _, family := range subnet.Families() {
		table := [...]string{subnet.IPv4: "arp_cache", subnet.IPv6: "ndisc_cache"}[family]
		limit, ok := f.Thresholds[table]
		if !ok || !f.uses(family) {
			continue
		}
		n := f.onLink(family)
		if known && older(v, [2]int{5, 0}) {
			n += len(f.Peers)
		}
		most = max(most, n)
		if n >= limit {
			base := [...]string{subnet.IPv4: "net.ipv4", subnet.IPv6: "net.ipv6"}[family]
			setting := base + ".neigh.default.gc_thresh3"
			all = append(all, failure(fmt.Sprintf("sysctl -w %s=%d, and add it to /etc/sysctl.d", setting, 2*n),
				"%d nodes share a link with this one, and the kernel keeps %d neighbours (%s): "+
					"beyond that, packets are dropped", n, limit, setting))
		}
	}
	if len(all) == 0 {
		all = append(all, passed("the neighbour tables are large enough for the nodes on one link, %d", most))
	}
	return all
}

// onLink counts the peers on the uplink's link.
func (f Facts) onLink(family subnet.Family) (n int) {
	for _, p := range f.Peers {
		if p.State == status.Quarantined {
			continue
		}
		if slices.ContainsFunc(p.PublicIP, func(a netip.Addr) bool {
			return a.IsValid() && subnet.FamilyOf(a) == family &&
				slices.ContainsFunc(f.Status.Uplink.OnLink, func(p netip.Prefix) bool { return p.Contains(a) })
		}) {
			n++
		}
	}
	return n
}
