package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/selvage-net/selvage/network/doctor/probe"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// diagnose finds what is wrong with the path to a peer. It goes from what is certain to what remains.
func (f Facts) diagnose(p probe.Path) diagnosis {
	again := p.Again
	if again == nil {
		again = &probe.Again{}
	}
	// A packet with one hop is answered by the node that would forward it, before its own packet filter.
	small := p.Overlay.Answered || expiredAtPeer(p, again.Hop) || delivered(p, p.Overlay)
	full := p.OverlayFull.Answered || expiredAtPeer(p, again.HopFull) || delivered(p, p.OverlayFull)
	switch {
	case small && full:
		return f.reached(p)
	case small:
		return f.tooLarge(p, *again)
	}
	if x, ok := f.Explained[p.Key]; ok && !x.OK {
		if slices.ContainsFunc(x.Steps, func(s status.Step) bool { return s.Mark == status.Foreign && s.Kind == "route" }) {
			return fail("%s: %s", them{}, x.Verdict).advise("selvaged explain %s; ip rule; remove what is not yours", x.Address)
		}
	}
	if p.Overlay.Failed != "" {
		return fail("this node's kernel sends nothing to pods of %s: %s", them{}, p.Overlay.Failed).
			advise("selvaged explain ADDRESS follows a packet to an address there")
	}
	if d, ok := f.droppedHere(p, *again); ok {
		return d
	}
	if p.Tunnel {
		return f.tunnelLost(p, *again)
	}
	return f.directLost(p)
}

// expiredAtPeer reports whether the peer answered that a packet's only hop was used up. Where a foreign route takes
// precedence, a router on the underlay answers that instead.
func expiredAtPeer(p probe.Path, e probe.Echo) bool {
	return e.Answered && (!p.Tunnel || p.Subnet.Contains(e.By) || e.By == p.Target.Underlay)
}

// port is the VXLAN port.
func (f Facts) port() string {
	for _, d := range f.devices() {
		return strconv.Itoa(int(d.Port))
	}
	return "8472"
}

// delivered reports whether an answer came out of the tunnel, or in by the uplink where there is none. If it was not
// received, this node's own packet filter drops ICMP: the overlay works.
func delivered(p probe.Path, e probe.Echo) bool {
	return slices.ContainsFunc(e.Came, func(a probe.Arrival) bool {
		return p.Tunnel && a.Interface == p.Link && !a.Outer.IsValid()
	})
}

// reached diagnoses a path on which packets of all sizes pass.
func (f Facts) reached(p probe.Path) diagnosis {
	if big := p.UnderlayFull; p.Tunnel && big.TooBigFor > 0 {
		return warn("packets of full size to %s are fragmented, which is slow: %s on the way takes at most %d bytes, "+
			"and they have %d", them{}, big.By, big.TooBigFor, big.Size).with(f.lowerMTU(p, big.TooBigFor-p.Overhead))
	}
	switch {
	case !p.Overlay.Answered:
		return pass("ICMP echo to %s is filtered in the overlay, which does no harm: packets pass in both directions", them{})
	case !p.Underlay.Answered && p.Underlay.Asked:
		return pass("ICMP echo to %s is filtered on the underlay, which does no harm: the overlay works", them{})
	}
	return pass("")
}

// tooLarge diagnoses a path on which small packets pass and full ones do not.
func (f Facts) tooLarge(p probe.Path, again probe.Again) diagnosis {
	if p.OverlayFull.Failed != "" {
		return fail("packets of %d bytes, as pods send them, do not fit through %s: %s",
			p.OverlayFull.Size, p.Link, p.OverlayFull.Failed).
			advise("systemctl restart selvaged; the device's MTU must be at least that of the subnet file")
	}
	fits := again.Fits
	if fits == 0 {
		fits = p.Overlay.Size
	}
	more := ""
	if p.Tunnel {
		more = fmt.Sprintf(", %d on the underlay", fits+p.Overhead)
	}
	if p.UnderlayFull.TooBigFor > 0 {
		more += fmt.Sprintf("; %s reports that it takes %d", p.UnderlayFull.By, p.UnderlayFull.TooBigFor)
	}
	return fail("large packets to %s are lost: pods send up to %d bytes, and up to %d get through%s",
		them{}, p.Full, fits, more).with(f.lowerMTU(p, fits))
}

// lowerMTU returns what to do if pods' packets of a size fit and larger ones do not.
func (f Facts) lowerMTU(p probe.Path, fits int) sentence {
	if f.Status != nil && f.Status.Backend != nil && f.Status.Backend.Type == "host-gw" {
		return say("let the underlay carry %d bytes; or ip link set %s mtu %d on every node", p.Full, p.Link, fits)
	}
	return say(`let the underlay carry %d bytes; or set "MTU": %d in Backend of the network config, %s in etcd, `+
		"and restart the pods", p.Full+p.Overhead, fits+p.Overhead, f.etcd().key("config"))
}

// droppedHere diagnoses a path whose answers arrived at this node.
func (f Facts) droppedHere(p probe.Path, again probe.Again) (diagnosis, bool) {
	for _, a := range slices.Concat(p.Overlay.Came, again.Hop.Came) {
		if p.Tunnel && !a.Outer.IsValid() {
			continue // not through the tunnel: see tunnelLost
		}
		strict := f.strict(a.Interface)
		switch {
		case a.Outer.IsValid() && a.Outer != p.Target.Underlay && f.Counted.Strangers > 0:
			return fail("packets of %s arrive from %s, which no lease has as its public IP, as behind NAT; the VTEP filter drops them",
				them{}, a.Outer).advise("start selvaged there with --public-ip=%s; or here with --vtep-allow=%s/%d",
				a.Outer, a.Outer, a.Outer.BitLen()), true
		case p.Family == subnet.IPv4 && strict && f.Counted.ReversePath > 0:
			return fail("packets of %s arrive on %s, while this node sends to it by another interface, "+
				"and the strict reverse path filter (rp_filter) drops them", them{}, a.Interface).
				advise("sysctl -w net.ipv4.conf.%s.rp_filter=2, and find what sets it to 1; or use one path on the underlay",
					a.Interface), true
		case f.Counted.Checksum > 0:
			return fail("UDP packets from %s arrive with wrong checksums, and the kernel drops them", them{}).
				advise("start selvaged there with --vxlan-tx-checksum=off; or ethtool -K its uplink tx off"), true
		case a.Outer.IsValid() && f.Counted.Strangers > 0:
			return fail("the VTEP filter drops packets of %s, which has a lease", them{}).
				advise("systemctl restart selvaged, and report it, with %s", log), true
		case a.Outer.IsValid():
			return fail("packets of %s arrive on %s, and this node's packet filter drops them", them{}, a.Interface).
				advise("allow UDP port %s in: iptables -I INPUT -p udp --dport %s -j ACCEPT, or the same in nftables or "+
					"firewalld; nft list ruleset shows what drops it", f.port(), f.port()), true
		case strict:
			return fail("answers of %s arrive on %s, and this node drops them", them{}, a.Interface).
				advise("sysctl -w net.ipv4.conf.%s.rp_filter=2; nft list ruleset shows whether a filter drops them",
					a.Interface), true
		}
	}
	return diagnosis{}, false
}

// strict reports whether an interface accepts only packets whose source it would send to. The kernel uses the higher of
// the values of the interface and of all (IN_DEV_RPFILTER).
func (f Facts) strict(link string) bool {
	return max(f.Sysctls["net/ipv4/conf/all/rp_filter"], f.Sysctls["net/ipv4/conf/"+link+"/rp_filter"]) == "1"
}

// tunnelLost diagnoses a path through a tunnel on which no answer arrived.
func (f Facts) tunnelLost(p probe.Path, again probe.Again) diagnosis {
	port, protocol := f.port(), f.device(p.Link).Protocol
	left := slices.ContainsFunc(slices.Concat(p.Overlay.Left, again.Hop.Left), func(link string) bool { return link != p.Link })
	silent := !p.Underlay.Answered && p.Underlay.Refused == ""
	refused, byPeer := again.Tunnel.Refused, again.Tunnel.By == p.Target.Underlay
	switch {
	case p.Again != nil && !left && len(p.Overlay.Left) > 0 && p.Underlay.Refused == "" && p.Underlay.Answered:
		return fail("no %s packet to %s leaves this node", protocol, them{}).
			advise("iptables -S OUTPUT and nft list ruleset show what drops UDP port %s", port)
	case refused == probe.PortUnreachable && byPeer:
		return fail("UDP port %s is closed at %s, though the underlay works: there is no %s device", port, them{}, protocol).
			advise("there: systemctl start selvaged; selvaged status")
	case refused != "" && !byPeer && !f.isOurs(again.Tunnel):
		return fail("%s, on the way to %s, refuses %s packets: %s", again.Tunnel.By, them{}, protocol, refused).
			advise("allow UDP port %s there", port)
	case refused != "" && byPeer:
		return fail("%s packets are refused by %s: %s", protocol, them{}, refused).advise("allow UDP port %s in there", port)
	case again.Outbound.Answered || len(again.Outbound.Came) > 0:
		return fail("%s packets of this node reach %s, and none come back", protocol, them{}).
			advise("allow UDP port %s from there to this node, in firewalls and security groups on the way; "+
				"there, selvaged peers shows whether it knows this node", port)
	case p.Underlay.Answered:
		return fail("%s packets (UDP port %s) to %s are lost, or dropped there, though the underlay works",
			protocol, port, them{}).
			advise("allow UDP port %s from this node to there, in firewalls and security groups on the way and there; "+
				"there, selvaged doctor", port)
	case f.isOurs(p.Underlay) || silent:
		return f.down(p)
	}
	return fail("no path to %s: %s reports %s", them{}, p.Underlay.By, p.Underlay.Refused).
		advise("ip route get %s; check that it is up and connected", p.Target.Underlay)
}

// isOurs reports whether this node itself refused a packet: its neighbour request was not answered.
func (f Facts) isOurs(e probe.Echo) bool {
	if !e.By.IsValid() || e.Refused == "" {
		return false
	}
	_, ours := f.holder(e.By)
	return ours
}

// directLost diagnoses a path without a tunnel on which no answer arrived.
func (f Facts) directLost(p probe.Path) diagnosis {
	switch {
	case p.Underlay.Answered && p.NoDevice: // it may have no address to answer from
		return warn("no answer for the pods of %s, though the underlay works: it does not forward, or has no pods yet, "+
			"with --ip-blackhole-route", them{}).advise("there: selvaged doctor")
	case p.Underlay.Answered:
		return fail("packets for the pods of %s are lost, though the underlay works", them{}).advise("there: selvaged doctor")
	}
	return f.down(p)
}

// down says that a peer does not answer at all.
func (f Facts) down(p probe.Path) diagnosis {
	d := fail("no answer from %s, neither in the overlay nor on the underlay: it is down, or disconnected", them{})
	if f.Unresolved[p.Target.Underlay] || f.isOurs(p.Underlay) {
		d = fail("no host on the link answers for the address of %s: it is down, or disconnected", them{})
	}
	return d.advise("check that it is up and connected; if it is gone for good, %s%s", f.etcd().release(""), theirSubnet{})
}

// leaseOf returns the first subnet of a peer's lease, by which the lease is named.
func (f Facts) leaseOf(p probe.Path) netip.Prefix {
	for _, x := range f.Peers {
		if x.Key == p.Key && len(x.Subnets) > 0 {
			return x.Subnets[0]
		}
	}
	return p.Subnet
}
