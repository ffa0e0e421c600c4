package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/filter/blocking"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// diagnose finds what is wrong with the path to a peer. It tests the certain causes first.
func (f Facts) diagnose(p probe.Path) diagnosis {
	detail := p.Detail
	if detail == nil {
		detail = &probe.Detail{}
	}
	// A packet with a hop limit of one is answered by the node that would forward it, before its packet filter.
	small := p.Overlay.Answered || expiredAtPeer(p, detail.OneHop) || delivered(p, p.Overlay)
	full := p.OverlayFull.Answered || expiredAtPeer(p, detail.OneHopFull) || delivered(p, p.OverlayFull)
	switch {
	case small && full:
		return f.working(p)
	case small:
		return f.largeLost(p, *detail)
	}
	if x, ok := f.Explained[p.Key]; ok && !x.OK {
		foreign := func(s status.Step) bool { return s.Mark == status.Foreign && s.Kind == "route" }
		if slices.ContainsFunc(x.Steps, foreign) {
			return fail("%s: %s", peerNames{}, x.Verdict).
				advise("selvaged explain %s; ip rule; remove what is not yours", x.Address)
		}
	}
	if d, ok := f.misrouted(p); ok {
		return d
	}
	if p.Overlay.SendError != "" {
		return fail("this node's kernel sends nothing to pods of %s: %s", peerNames{}, p.Overlay.SendError).
			advise("selvaged explain ADDRESS follows a packet to an address there")
	}
	if d, ok := f.droppedHere(p, *detail); ok {
		return d
	}
	if p.Tunnel {
		return f.tunnelLost(p, *detail)
	}
	return f.directLost(p)
}

// misrouted diagnoses a path whose packets this node does not send by its uplink.
func (f Facts) misrouted(p probe.Path) (diagnosis, bool) {
	route, known := f.Underlay[p.Target.Underlay]
	up, ok := f.uplink()
	if !known || !ok {
		return diagnosis{}, false
	}
	switch {
	case route.Err != "":
		return fail("this node has no route to %s on the underlay: %s", peerNames{}, route.Err).
			advise("ip route add PREFIX via GATEWAY dev %s; ip rule; ip route show table all", up.Name), true
	case route.Link == "" || route.Link == up.Name || up.Name == loopback:
		return diagnosis{}, false
	case route.Link == loopback:
		return fail("the public IP of %s is an address of this node itself", peerNames{}).
			advise("ip address shows where; give one of the nodes another address, or another --public-ip"), true
	}
	via := ""
	if route.Via.IsValid() {
		via = " via " + route.Via.String()
	}
	return fail("packets to %s leave by %s%s, and not by the uplink %s", peerNames{}, route.Link, via, up.Name).
		advise("ip route add PREFIX via GATEWAY dev %s; or start selvaged with --iface=%s", up.Name, route.Link), true
}

// loopback is the name of the loopback interface.
const loopback = "lo"

// expiredAtPeer reports whether the peer answered that the hop limit was exceeded. Where a foreign route takes
// precedence, a router on the underlay answers that instead.
func expiredAtPeer(p probe.Path, e probe.Echo) bool {
	return e.Answered && (!p.Tunnel || p.Subnet.Contains(e.By) || e.By == p.Target.Underlay)
}

// port is the UDP port of a tunnel's device.
func (f Facts) port(link string) string {
	return strconv.Itoa(int(cmp.Or(f.device(link).Port, 8472)))
}

// delivered reports whether an answer left the tunnel on this node. If the probe's socket did not receive it, this
// node's packet filter drops ICMP, and the overlay works.
func delivered(p probe.Path, e probe.Echo) bool {
	return slices.ContainsFunc(e.Arrivals, func(a probe.Arrival) bool {
		return p.Tunnel && a.Interface == p.Link && !a.Outer.IsValid()
	})
}

// working diagnoses a path on which packets of all sizes pass.
func (f Facts) working(p probe.Path) diagnosis {
	if big := p.UnderlayFull; p.Tunnel && big.NextHopMTU > 0 {
		return warn("packets of full size to %s are fragmented, which is slow: %s on the way takes at most %d bytes, "+
			"and they have %d", peerNames{}, big.By, big.NextHopMTU, big.Size).
			with(f.lowerMTU(p, big.NextHopMTU-p.Overhead))
	}
	switch {
	case !p.Overlay.Answered:
		return pass("ICMP echo to %s is filtered in the overlay, which does no harm: packets pass in both directions",
			peerNames{})
	case !p.Underlay.Answered && p.Underlay.Sent:
		return pass("ICMP echo to %s is filtered on the underlay, which does no harm: the overlay works", peerNames{})
	}
	return pass("")
}

// largeLost diagnoses a path on which small packets pass and those of full size do not.
func (f Facts) largeLost(p probe.Path, detail probe.Detail) diagnosis {
	if p.OverlayFull.SendError != "" {
		return fail("packets of %d bytes, as pods send them, do not fit through %s: %s",
			p.OverlayFull.Size, p.Link, p.OverlayFull.SendError).
			advise("systemctl restart selvaged; the device's MTU must be at least that of the subnet file")
	}
	fits := detail.MaxSize
	if fits == 0 {
		fits = p.Overlay.Size
	}
	more := ""
	if p.Tunnel {
		more = fmt.Sprintf(", %d on the underlay", fits+p.Overhead)
	}
	if p.UnderlayFull.NextHopMTU > 0 {
		more += fmt.Sprintf("; %s reports that it takes %d", p.UnderlayFull.By, p.UnderlayFull.NextHopMTU)
	}
	return fail("large packets to %s are lost: pods send up to %d bytes, and up to %d get through%s",
		peerNames{}, p.FullSize, fits, more).with(f.lowerMTU(p, fits))
}

// lowerMTU returns the advice if pods' packets of up to a size pass and larger ones do not.
func (f Facts) lowerMTU(p probe.Path, fits int) phrase {
	if f.Status != nil && f.Status.Backend != nil && f.Status.Backend.Type == "host-gw" {
		return textf("let the underlay carry %d bytes; or ip link set %s mtu %d on every node",
			p.FullSize, p.Link, fits)
	}
	return textf(`let the underlay carry %d bytes; or set "MTU": %d in Backend of the network config, %s, `+
		"and restart the pods", p.FullSize+p.Overhead, fits+p.Overhead, f.store().configPlace())
}

// droppedHere diagnoses a path whose answers arrived at this node.
func (f Facts) droppedHere(p probe.Path, detail probe.Detail) (diagnosis, bool) {
	for _, a := range slices.Concat(p.Overlay.Arrivals, detail.OneHop.Arrivals) {
		if p.Tunnel && !a.Outer.IsValid() {
			continue // it bypassed the tunnel: see tunnelLost
		}
		strictRPFilter := f.strictRPFilter(a.Interface)
		switch {
		case a.Outer.IsValid() && a.Outer != p.Target.Underlay && f.Counters.Strangers > 0:
			return fail("packets of %s arrive from %s, which no lease has as its public IP, as behind NAT; "+
				"the VTEP filter drops them", peerNames{}, a.Outer).
				advise("start selvaged there with --public-ip=%s; or here with --vtep-allow=%s/%d",
					a.Outer, a.Outer, a.Outer.BitLen()), true
		case p.Family == subnet.IPv4 && strictRPFilter && f.Counters.ReversePath > 0:
			return fail("packets of %s arrive on %s, while this node sends to it by another interface, "+
				"and the strict reverse path filter (rp_filter) drops them", peerNames{}, a.Interface).
				advise("sysctl -w net.ipv4.conf.%s.rp_filter=2, and find what sets it to 1; "+
					"or use one path on the underlay", a.Interface), true
		case f.Counters.Checksum > 0:
			return fail("UDP packets from %s arrive with wrong checksums, and the kernel drops them", peerNames{}).
				advise("start selvaged there with --vxlan-tx-checksum=off; or ethtool -K its uplink tx off"), true
		case a.Outer.IsValid() && f.Counters.Strangers > 0:
			return fail("the VTEP filter drops packets of %s, which has a lease", peerNames{}).
				advise("systemctl restart selvaged, and report it, with %s", log), true
		case a.Outer.IsValid():
			if by, command, ok := f.discarded(f.arriving(p, a)); ok {
				return fail("packets of %s arrive on %s, and this node's packet filter drops them%s",
					peerNames{}, a.Interface, by).advise("%s", command), true
			}
			return fail("packets of %s arrive on %s, and this node's packet filter drops them",
				peerNames{}, a.Interface).
				advise("allow inbound UDP port %s: iptables -I INPUT -p udp --dport %s -j ACCEPT, "+
					"or the same in nftables or firewalld; nft list ruleset and tc filter show dev %s ingress "+
					"show what drops it", f.port(p.Link), f.port(p.Link), a.Interface), true
		case strictRPFilter:
			return fail("answers of %s arrive on %s, and this node drops them", peerNames{}, a.Interface).
				advise("sysctl -w net.ipv4.conf.%s.rp_filter=2; nft list ruleset shows whether a filter drops them",
					a.Interface), true
		}
	}
	return diagnosis{}, false
}

// maxDiscards is the maximum number of rules that are named of those that may drop packets.
const maxDiscards = 3

// discarded names the rules that drop the packets of a tunnel, or may drop them, with punctuation before them, and the
// commands against that.
func (f Facts) discarded(t blocking.Tunnel) (by, commands string, ok bool) {
	found := f.Discards[t]
	if len(found) == 0 {
		return "", "", false
	}
	var names, against []string
	for _, d := range found[:min(len(found), maxDiscards)] {
		names = append(names, d.String())
		if !slices.Contains(against, d.Command) {
			against = append(against, d.Command)
		}
	}
	by = ": "
	if !found[0].Sure {
		by = ", perhaps by "
	}
	return by + strings.Join(names, "; "), strings.Join(against, "; "), true
}

// strictRPFilter reports whether an interface's reverse path filter is strict (RFC 3704). The kernel uses the higher
// of the values of the interface and of "all" (IN_DEV_RPFILTER).
func (f Facts) strictRPFilter(link string) bool {
	return max(f.Sysctls["net/ipv4/conf/all/rp_filter"], f.Sysctls["net/ipv4/conf/"+link+"/rp_filter"]) == "1"
}

// tunnelLost diagnoses a path through a tunnel on which no answer arrived.
func (f Facts) tunnelLost(p probe.Path, detail probe.Detail) diagnosis {
	port, protocol := f.port(p.Link), f.device(p.Link).Protocol
	encrypts := f.encrypts(p.Link)
	if d, ok := f.encryptedDropped(p); ok {
		return d
	}
	left := slices.ContainsFunc(slices.Concat(p.Overlay.Egress, detail.OneHop.Egress), func(link string) bool {
		return link != p.Link
	})
	silent := !p.Underlay.Answered && p.Underlay.Refused == ""
	refused, byPeer := detail.Tunnel.Refused, detail.Tunnel.By == p.Target.Underlay
	switch {
	case p.Detail != nil && !encrypts && !left && len(p.Overlay.Egress) > 0 && p.Underlay.Refused == "" &&
		p.Underlay.Answered:
		if t, ok := f.leaving(p); ok {
			if by, command, ok := f.discarded(t); ok {
				return fail("no %s packet to %s leaves this node; its packet filter drops them%s",
					protocol, peerNames{}, by).advise("%s", command)
			}
		}
		return fail("no %s packet to %s leaves this node", protocol, peerNames{}).
			advise("iptables -S OUTPUT and nft list ruleset show what drops UDP port %s", port)
	case refused == probe.PortUnreachable && byPeer:
		return fail("UDP port %s is closed at %s, though the underlay works: there is no %s device",
			port, peerNames{}, protocol).
			advise("there: systemctl start selvaged; selvaged status")
	case refused != "" && !byPeer && !f.refusedLocally(detail.Tunnel):
		return fail("%s, on the way to %s, refuses %s packets: %s", detail.Tunnel.By, peerNames{}, protocol, refused).
			advise("allow UDP port %s there", port)
	case refused != "" && byPeer:
		return fail("%s packets are refused by %s: %s", protocol, peerNames{}, refused).
			advise("allow inbound UDP port %s there", port)
	case detail.Outbound.Answered || len(detail.Outbound.Arrivals) > 0:
		return fail("%s packets of this node reach %s, and none come back", protocol, peerNames{}).
			advise("allow UDP port %s from there to this node, in firewalls and security groups on the way; "+
				"there, selvaged peers shows whether it knows this node", port)
	case p.Underlay.Answered && encrypts:
		return fail("%s packets (UDP port %s) to %s are lost, or refused there, though the underlay works",
			protocol, port, peerNames{}).
			advise("the check wireguard reports what is known of the handshakes, after %s without an answer; allow "+
				"UDP port %s in firewalls and security groups on the way and there; there, selvaged doctor",
				answerTime, port)
	case p.Underlay.Answered:
		return fail("%s packets (UDP port %s) to %s are lost, or dropped there, though the underlay works",
			protocol, port, peerNames{}).
			advise("allow UDP port %s from this node to there, in firewalls and security groups on the way and there; "+
				"there, selvaged doctor", port)
	case f.refusedLocally(p.Underlay) || silent:
		return f.unreachable(p)
	}
	return fail("no path to %s: %s reports %s", peerNames{}, p.Underlay.By, p.Underlay.Refused).
		advise("ip route get %s; check that it is up and connected", p.Target.Underlay)
}

// encrypts reports whether a device is WireGuard's. What it sends and receives can be captured before encryption and
// after decryption only.
func (f Facts) encrypts(link string) bool { return f.device(link).Kind == network.KindWireGuard }

// encryptedDropped diagnoses a path through WireGuard whose packets this node's packet filter drops for certain.
func (f Facts) encryptedDropped(p probe.Path) (d diagnosis, ok bool) {
	for _, t := range f.encryptedTunnels(p) {
		if found := f.Discards[t]; len(found) == 0 || !found[0].Sure {
			continue
		}
		by, command, _ := f.discarded(t)
		what := "that arrive from"
		if t.Leaving {
			what = "to"
		}
		return fail("this node's packet filter drops the WireGuard packets %s %s%s", what, peerNames{}, by).
			advise("%s", command), true
	}
	return d, false
}

// refusedLocally reports whether this node itself refused a packet, because its neighbour request was not answered.
func (f Facts) refusedLocally(e probe.Echo) bool {
	if !e.By.IsValid() || e.Refused == "" {
		return false
	}
	_, ours := f.linkWithAddress(e.By)
	return ours
}

// directLost diagnoses a path without a tunnel on which no answer arrived.
func (f Facts) directLost(p probe.Path) diagnosis {
	switch {
	case p.Underlay.Answered && p.NoDevice: // the peer may have no address in its subnet
		return warn("no answer for the pods of %s, though the underlay works: "+
			"it does not forward, or has no pods yet, with --ip-blackhole-route", peerNames{}).
			advise("there: selvaged doctor")
	case p.Underlay.Answered:
		return fail("packets for the pods of %s are lost, though the underlay works", peerNames{}).
			advise("there: selvaged doctor")
	}
	return f.unreachable(p)
}

// unreachable returns the diagnosis of a peer that does not answer at all.
func (f Facts) unreachable(p probe.Path) diagnosis {
	d := fail("no answer from %s, neither in the overlay nor on the underlay: it is down, or disconnected", peerNames{})
	if f.Unresolved[p.Target.Underlay] || f.refusedLocally(p.Underlay) {
		d = fail("no host on the link answers for the address of %s: it is down, or disconnected", peerNames{})
	}
	release, name := f.store().releaseAny()
	return d.advise("check that it is up and connected; if it is gone for good, %s%s", release, name)
}

// leaseOf returns the first subnet of a peer's lease, which identifies the lease.
func (f Facts) leaseOf(p probe.Path) netip.Prefix {
	for _, x := range f.Peers {
		if x.Key == p.Key && len(x.Subnets) > 0 {
			return x.Subnets[0]
		}
	}
	return p.Subnet
}
