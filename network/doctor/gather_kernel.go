package doctor

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/nft"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

func gatherKernel() (k Kernel) {
	var u unix.Utsname
	_ = unix.Uname(&u) // fails for a bad pointer only
	k.Release = unix.ByteSliceToString(u.Release[:])
	conn, err := nft.Dial()
	if k.NFTables = err; err == nil {
		_ = conn.Close() // a socket
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP)
	request.AddRawData(make([]byte, 8)) // struct nhmsg
	_, k.Nexthops = request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEXTHOP)
	return k
}

// gatherLinks lists the interfaces with their addresses.
func gatherLinks() (all []Link) {
	links, err := netlink.LinkList()
	if err != nil && len(links) == 0 {
		return nil
	}
	addresses := map[int][]netip.Prefix{}
	list, _ := netlink.AddrList(nil, netlink.FAMILY_ALL) // on an error the addresses are not known
	for _, a := range list {
		if p, ok := prefixOf(a.IPNet); ok {
			addresses[a.LinkIndex] = append(addresses[a.LinkIndex], p)
		}
	}
	ports := map[int]int{}
	for _, l := range links {
		ports[l.Attrs().MasterIndex]++
	}
	for _, l := range links {
		a := l.Attrs()
		one := Link{
			Name: a.Name, Kind: l.Type(), Alias: a.Alias, Index: a.Index, MTU: a.MTU, MAC: a.HardwareAddr.String(),
			Up: a.Flags&net.FlagUp != 0, Addresses: addresses[a.Index], Ports: ports[a.Index],
		}
		if v, ok := l.(*netlink.Vxlan); ok {
			one.VNI, one.Port = uint32(v.VxlanId), uint16(v.Port)
			if local, ok := netip.AddrFromSlice(v.SrcAddr); ok {
				one.Local = local.Unmap()
			}
			one.Overhead = network.VXLAN{Local: one.Local}.Overhead()
		}
		if _, ok := l.(*netlink.Tuntap); ok {
			one.Kind = "tun" // as the kernel names it
		}
		all = append(all, one)
	}
	return all
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok
}

// gatherRoutes lists foreign routes to addresses of the overlay in the main table. The effect of policy routing and
// other tables is found by probing.
func gatherRoutes(networks []netip.Prefix) (all []Route) {
	if len(networks) == 0 {
		return nil
	}
	inMain := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	routes, _ := netlink.RouteListFiltered(netlink.FAMILY_ALL, inMain, netlink.RT_FILTER_TABLE)
	names := map[int]string{}
	for _, r := range routes {
		p, ok := prefixOf(r.Dst)
		if !ok || r.Protocol == network.RouteProtocol || !inside(p, networks) {
			continue
		}
		if _, known := names[r.LinkIndex]; !known && r.LinkIndex != 0 {
			if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				names[r.LinkIndex] = l.Attrs().Name
			}
		}
		all = append(all, Route{
			Prefix: p, Link: names[r.LinkIndex], Metric: r.Priority, Kernel: r.Protocol == unix.RTPROT_KERNEL,
			Text: routeText(p, r, names[r.LinkIndex]),
		})
	}
	return all
}

// routeText formats a route as arguments of ip route.
func routeText(p netip.Prefix, r netlink.Route, link string) string {
	text := p.String()
	switch r.Type {
	case unix.RTN_BLACKHOLE:
		text = "blackhole " + text
	case unix.RTN_UNREACHABLE:
		text = "unreachable " + text
	case unix.RTN_PROHIBIT:
		text = "prohibit " + text
	}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		text += " via " + via.Unmap().String()
	}
	if link != "" && r.Type == unix.RTN_UNICAST {
		text += " dev " + link
	}
	if r.Priority != 0 {
		text += fmt.Sprintf(" metric %d", r.Priority)
	}
	return text
}

// NeighbourLimits returns the kernel's maximum number of neighbours (gc_thresh3) by table, arp_cache and ndisc_cache.
// The limits hold for the whole machine. Netlink reports them in each network namespace, /proc/sys only in the initial
// one.
func NeighbourLimits() map[string]int {
	const name, thresh3, header = 1, 4, 4 // NDTA_NAME, NDTA_THRESH3, struct ndtmsg
	request := nl.NewNetlinkRequest(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP)
	request.AddRawData(make([]byte, header))
	answers, _ := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGHTBL) // on an error the limits are not known
	all := map[string]int{}
	for _, a := range answers {
		attrs, err := nl.ParseRouteAttr(a[header:])
		if err != nil {
			continue
		}
		table, limit := "", 0
		for _, x := range attrs {
			switch {
			case x.Attr.Type == name:
				table = unix.ByteSliceToString(x.Value)
			case x.Attr.Type == thresh3 && len(x.Value) == 4:
				limit = int(nl.NativeEndian().Uint32(x.Value))
			}
		}
		if table != "" && limit > 0 {
			all[table] = limit
		}
	}
	return all
}

// gatherUnderlay looks up how packets are sent to the public IPs of paths that do not work: those of a tunnel with
// their source and port, by which policy rules may select them.
func (f *Facts) gatherUnderlay() map[netip.Addr]UnderlayRoute {
	all := map[netip.Addr]UnderlayRoute{}
	lookup, err := kernel.OpenLookup()
	if err != nil {
		return nil
	}
	defer lookup.Close()
	for _, p := range f.Paths {
		if p.Detail == nil || p.Works() {
			continue
		}
		flow := network.Flow{To: p.Target.Underlay}
		if d := f.device(p.Link); p.Tunnel && d.Local.IsValid() {
			flow.From, flow.UDP = d.Local, d.Port
		}
		hop, err := lookup.Flow(flow)
		if err != nil {
			all[p.Target.Underlay] = UnderlayRoute{Err: err.Error()}
			continue
		}
		all[p.Target.Underlay] = UnderlayRoute{Link: hop.Link, Via: hop.Gateway}
	}
	return all
}

// gatherUnresolved returns the neighbours whose address resolution failed or is incomplete.
func gatherUnresolved() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, _ := netlink.NeighList(0, family) // on an error the neighbours are not known
		for _, n := range list {
			if a, ok := netip.AddrFromSlice(n.IP); ok && n.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) != 0 {
				all[a.Unmap()] = true
			}
		}
	}
	return all
}

// readRuleset reads the packet filter, with nf_tables if there is one. Rules are read as they are needed: until done.
func readRuleset() (seen *blocking.Ruleset, done func(), err error) {
	conn, err := nft.Dial()
	if err != nil {
		seen, err = blocking.Read(nil)
		return seen, func() {}, err
	}
	seen, err = blocking.Read(conn)
	return seen, func() { _ = conn.Close() }, err // a socket
}

// gatherFilter looks for firewall rules that drop forwarded overlay traffic, and for kube-proxy's rules.
func (f *Facts) gatherFilter() (found []blocking.Drop, kubeProxy bool) {
	seen, done, err := readRuleset()
	defer done()
	if err != nil {
		return nil, false
	}
	o := blocking.Overlay{Networks: f.networks(), Own: f.own()}
	for _, d := range f.devices() {
		o.Devices = append(o.Devices, d.Name)
	}
	if b, ok := f.bridge(); ok {
		o.Bridges = []string{b.Name}
	}
	if uplink, ok := f.uplink(); ok && (len(o.Devices) == 0 || f.direct()) {
		o.Devices = append(o.Devices, uplink.Name)
	}
	found, _ = seen.Find(o, f.scope().Name(filter.Table))
	for _, c := range seen.Chains {
		kubeProxy = kubeProxy || c.Table == "nat" && c.Name == "KUBE-SERVICES"
	}
	for _, tables := range seen.Legacy {
		for _, t := range tables {
			for _, c := range t.Chains {
				kubeProxy = kubeProxy || t.Name == "nat" && c.Name == "KUBE-SERVICES"
			}
		}
	}
	return found, kubeProxy
}

// gatherDiscards looks for rules of this node that drop the packets of tunnels to peers that do not answer.
func (f *Facts) gatherDiscards() map[blocking.Tunnel][]blocking.Discard {
	seen, done, err := readRuleset()
	defer done()
	if err != nil {
		return nil
	}
	all := map[blocking.Tunnel][]blocking.Discard{}
	for _, p := range f.Paths {
		if p.Detail == nil || p.Works() {
			continue
		}
		tunnels := []blocking.Tunnel{}
		for _, a := range slices.Concat(p.Overlay.Arrivals, p.Detail.OneHop.Arrivals) {
			tunnels = append(tunnels, f.arriving(p, a))
		}
		if t, ok := f.leaving(p); ok {
			tunnels = append(tunnels, t)
		}
		tunnels = append(tunnels, f.encryptedTunnels(p)...)
		for _, t := range tunnels {
			if _, known := all[t]; known || !t.From.IsValid() || !t.To.IsValid() {
				continue
			}
			found, err := seen.Discards(t, f.scope().Name(vtepfilter.Table))
			if err != nil {
				return all // the rest is not known
			}
			all[t] = found
		}
	}
	return all
}

// arriving returns the tunnel of a packet that arrived from a peer.
func (f *Facts) arriving(p probe.Path, a probe.Arrival) blocking.Tunnel {
	d := f.device(p.Link)
	return blocking.Tunnel{From: a.Outer, To: d.Local, Port: d.Port, Device: a.Interface}
}

// leaving returns the tunnel of the packets to a peer, if the uplink is known.
func (f *Facts) leaving(p probe.Path) (t blocking.Tunnel, ok bool) {
	d := f.device(p.Link)
	up, ok := f.uplink()
	return blocking.Tunnel{
		From: d.Local, To: p.Target.Underlay, Port: d.Port, Device: up.Name, Leaving: true,
	}, ok && p.Tunnel
}

// encryptedTunnels returns the tunnels of the packets of a peer that is reached by WireGuard, and to it. They cannot be
// captured, so these are between this node's address on the uplink and where WireGuard sends to.
func (f *Facts) encryptedTunnels(p probe.Path) (both []blocking.Tunnel) {
	up, ok := f.uplink()
	if !ok || !p.Tunnel || !f.encrypts(p.Link) || f.Status.Uplink == nil {
		return nil
	}
	for _, x := range f.Peers {
		for _, s := range x.Sessions {
			if x.Key != p.Key || s.Device != p.Link {
				continue
			}
			for _, local := range f.Status.Uplink.Local {
				if to := s.Endpoint.Addr(); local.Is4() == to.Is4() {
					both = append(both,
						blocking.Tunnel{From: to, To: local, Port: f.device(p.Link).Port, Device: up.Name},
						blocking.Tunnel{From: local, To: to, Port: s.Endpoint.Port(), Device: up.Name, Leaving: true})
				}
			}
		}
	}
	return both
}

// direct reports whether this node has a path without a tunnel to any peer.
func (f *Facts) direct() bool {
	return slices.ContainsFunc(f.Peers, func(p status.Peer) bool {
		return slices.ContainsFunc(p.Paths, func(path status.PeerPath) bool { return path.Direct })
	})
}

// readDropCounters reads the current values of the counters.
func readDropCounters(scope network.Scope) (c DropCounters) {
	c.Checksum = columnCounter("/proc/net/snmp", "Udp:", "InCsumErrors") +
		lineCounter("/proc/net/snmp6", "Udp6InCsumErrors")
	c.ReversePath = columnCounter("/proc/net/netstat", "TcpExt:", "IPReversePathFilter")
	if v, err := vtepfilter.Open(scope.Name(vtepfilter.Table)); err == nil {
		defer v.Close()
		if d, err := v.Dropped(); err == nil {
			c.Strangers = d.Strangers
		}
	}
	return c
}

// columnCounter reads a counter from a file that has a line of names above each line of numbers, such as
// /proc/net/snmp. It returns 0 if the counter does not exist.
func columnCounter(path, line, name string) uint64 {
	data, _ := os.ReadFile(path) // a missing file has no counters
	var names []string
	for text := range bytes.Lines(data) {
		fields := strings.Fields(string(text))
		if len(fields) == 0 || fields[0] != line {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, n := range names {
			if n == name && i < len(fields) {
				value, _ := strconv.ParseUint(fields[i], 10, 64)
				return value
			}
		}
	}
	return 0
}

// lineCounter reads a counter from a file that has a name and a number in each line, such as /proc/net/snmp6. It
// returns 0 if the counter does not exist.
func lineCounter(path, name string) uint64 {
	data, _ := os.ReadFile(path)
	for text := range bytes.Lines(data) {
		if fields := strings.Fields(string(text)); len(fields) == 2 && fields[0] == name {
			value, _ := strconv.ParseUint(fields[1], 10, 64)
			return value
		}
	}
	return 0
}
