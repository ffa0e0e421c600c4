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

func (d diagnosis) with(advice, format string, args ...any) diagnosis {
	return diagnosis{d.level, fmt.Sprintf(format, args...), advice}
}

func fail(advice, format string, args ...any) diagnosis {
	return diagnosis{level: Failure}.with(advice, format, args...)
}

// diagnose says what is wrong with the way to a peer. It goes from what is certain to what is left.
func (f Facts) diagnose(p probe.Path) diagnosis {
	again := p.Again
	if again == nil {
		again = &probe.Again{}
	}
	// One hop is answered by who would pass the packet on, before its own packet filter.
	small := p.Overlay.Answered || hopped(p, again.Hop) || delivered(p, p.Overlay)
	full := p.OverlayFull.Answered || hopped(p, again.HopFull) || delivered(p, p.OverlayFull)
	switch {
	case small && full:
		return f.reached(p)
	case small:
		return f.tooLarge(p, *again)
	}
	if x, ok := f.Explained[p.Key]; ok && !x.OK {
		if i := slices.IndexFunc(x.Steps, func(s status.Step) bool { return s.Mark == status.Foreign && s.Kind == "route" }); i >= 0 {
			return fail("selvaged explain "+x.Address.String()+"; ip rule; remove what is not yours", "%s: %s", them, x.Verdict)
		}
	}
	if p.Overlay.Failed != "" {
		return fail("selvaged explain, with an address there, follows a packet", "this node's kernel sends nothing to pods of %s: %s", them, p.Overlay.Failed)
	}
	if d, ok := f.droppedHere(p, *again); ok {
		return d
	}
	if p.Tunnel {
		return f.tunnelLost(p, *again)
	}
	return f.directLost(p)
}

// hopped reports whether it was the peer that said of a packet that its only hop was over: where a route of somebody else's goes first, a
// router on the underlay says so.
func hopped(p probe.Path, e probe.Echo) bool {
	return e.Answered && (!p.Tunnel || p.Subnet.Contains(e.By) || e.By == p.Target.Underlay)
}

// port is the VXLAN port in the words of rules.
func (f Facts) port() string {
	for _, d := range f.devices() {
		return strconv.Itoa(int(d.Port))
	}
	return "8472"
}

// delivered reports whether an answer came out of the tunnel, or in by the uplink where there is none. If it was not heard,
// then this node's own packet filter has no liking for ICMP: the overlay works.
func delivered(p probe.Path, e probe.Echo) bool {
	return slices.ContainsFunc(e.Came, func(a probe.Arrival) bool { return p.Tunnel && a.Interface == p.Link && !a.Outer.IsValid() })
}

// reached judges a path on which packets of all sizes pass.
func (f Facts) reached(p probe.Path) diagnosis {
	if big := p.UnderlayFull; p.Tunnel && big.TooBigFor > 0 {
		return diagnosis{level: Warning}.with(f.lowerMTU(p, big.TooBigFor-p.Overhead),
			"packets of full size to %s are sent in fragments, which is slow: %s on the way takes at most %d bytes, and they have %d", them, big.By, big.TooBigFor, big.Size)
	}
	if !p.Overlay.Answered {
		return diagnosis{Pass, "ICMP echo is filtered in the overlay to " + them + ", which does no harm: packets get there and back", ""}
	}
	if !p.Underlay.Answered && !p.Underlay.Asked {
		return diagnosis{level: Pass}
	}
	if !p.Underlay.Answered {
		return diagnosis{Pass, "ICMP echo is filtered on the underlay to " + them + ", which does no harm: the overlay works", ""}
	}
	return diagnosis{level: Pass}
}

// tooLarge judges a path on which small packets pass and full ones do not.
func (f Facts) tooLarge(p probe.Path, again probe.Again) diagnosis {
	if p.OverlayFull.Failed != "" {
		return fail("systemctl restart selvaged; the device's MTU is to be that of the subnet file at least",
			"packets of %d bytes, as pods send them, do not fit through %s: %s", p.OverlayFull.Size, p.Link, p.OverlayFull.Failed)
	}
	fits := again.Fits
	if fits == 0 {
		fits = p.Overlay.Size
	}
	says := ""
	if p.Tunnel {
		says = fmt.Sprintf(", %d on the underlay", fits+p.Overhead)
	}
	if p.UnderlayFull.TooBigFor > 0 {
		says += fmt.Sprintf("; %s says that it takes %d", p.UnderlayFull.By, p.UnderlayFull.TooBigFor)
	}
	return fail(f.lowerMTU(p, fits), "large packets to %s are lost: pods send up to %d bytes, and up to %d get through%s",
		them, p.Full, fits, says)
}

// lowerMTU is what to do if pods' packets of a size fit and larger ones do not.
func (f Facts) lowerMTU(p probe.Path, fits int) string {
	if f.Status != nil && f.Status.Backend != nil && f.Status.Backend.Type == "host-gw" {
		return fmt.Sprintf("let the underlay carry %d bytes; or ip link set %s mtu %d on every node", p.Full, p.Link, fits)
	}
	return fmt.Sprintf(`let the underlay carry %d bytes; or set "MTU": %d in Backend of the network config, `+etcdPrefix+`/config in etcd, and restart the pods`, p.Full+p.Overhead, fits+p.Overhead)
}

// droppedHere judges a path whose answers were seen to arrive at this node.
func (f Facts) droppedHere(p probe.Path, again probe.Again) (diagnosis, bool) {
	for _, a := range slices.Concat(p.Overlay.Came, again.Hop.Came) {
		if p.Tunnel && !a.Outer.IsValid() {
			continue // by another way than the tunnel: see tunnelLost
		}
		strict := f.strict(a.Interface)
		switch {
		case a.Outer.IsValid() && a.Outer != p.Target.Underlay && f.Counted.Strangers > 0:
			return fail(fmt.Sprintf("start selvaged there with --public-ip=%s; or here with --vtep-allow=%s/%d", a.Outer, a.Outer, a.Outer.BitLen()),
				"what comes from %s comes from %s, which no lease names, as by NAT, and the VTEP filter drops it", them, a.Outer), true
		case p.Family == subnet.IPv4 && strict && f.Counted.ReversePath > 0:
			return fail(fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2, and find who sets it to 1; or give the underlay one way", a.Interface),
				"what comes from %s comes in by %s, while this node sends to it by another interface, and the strict reverse path filter (rp_filter) drops it", them, a.Interface), true
		case f.Counted.Checksum > 0:
			return fail("start selvaged there with --vxlan-tx-checksum=off; or ethtool -K its uplink tx off",
				"UDP packets from %s arrive with wrong checksums, and the kernel drops them", them), true
		case a.Outer.IsValid() && f.Counted.Strangers > 0:
			return fail("systemctl restart selvaged, and report it, with "+log, "the VTEP filter drops what comes from %s, which has a lease", them), true
		case a.Outer.IsValid():
			return fail(fmt.Sprintf("let UDP port %s in: iptables -I INPUT -p udp --dport %s -j ACCEPT, or the like in nftables or firewalld; nft list ruleset shows who drops it", f.port(), f.port()),
				"what comes from %s arrives at %s, and this node's packet filter drops it", them, a.Interface), true
		case strict:
			return fail(fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2; nft list ruleset shows whether a filter does it", a.Interface),
				"answers of %s come in by %s, and are dropped on this node", them, a.Interface), true
		}
	}
	return diagnosis{}, false
}

// strict reports whether an interface takes only packets whose source it would send to. The kernel goes by the higher of what
// is set for it and for all (IN_DEV_RPFILTER).
func (f Facts) strict(link string) bool {
	return max(f.Sysctls["net/ipv4/conf/all/rp_filter"], f.Sysctls["net/ipv4/conf/"+link+"/rp_filter"]) == "1"
}

// tunnelLost judges a path by VXLAN on which nothing came back.
func (f Facts) tunnelLost(p probe.Path, again probe.Again) diagnosis {
	port := f.port()
	left := slices.ContainsFunc(slices.Concat(p.Overlay.Left, again.Hop.Left), func(link string) bool { return link != p.Link })
	silent := !p.Underlay.Answered && p.Underlay.Refused == ""
	switch {
	case p.Again != nil && !left && len(p.Overlay.Left) > 0 && p.Underlay.Refused == "" && p.Underlay.Answered:
		return fail("iptables -S OUTPUT; nft list ruleset show who drops UDP port "+port,
			"no VXLAN packet to %s leaves this node", them)
	case again.Tunnel.Refused == "port unreachable" && again.Tunnel.By == p.Target.Underlay:
		return fail("there: systemctl start selvaged; selvaged status", "nothing takes UDP port %s at %s, though the underlay works: there is no VXLAN device", port, them)
	case again.Tunnel.Refused != "" && again.Tunnel.By != p.Target.Underlay && !f.isOurs(again.Tunnel):
		return fail("let UDP port "+port+" pass there", "%s, on the way to %s, refuses VXLAN packets: %s", again.Tunnel.By, them, again.Tunnel.Refused)
	case again.Tunnel.Refused != "" && again.Tunnel.By == p.Target.Underlay:
		return fail("let UDP port "+port+" in there", "VXLAN packets are refused by %s: %s", them, again.Tunnel.Refused)
	case again.Forth.Answered || len(again.Forth.Came) > 0:
		return fail("let UDP port "+port+" pass from there to this node, in firewalls and security groups on the way; there, selvaged peers shows whether it knows this node",
			"VXLAN packets of this node get to %s, and none come back", them)
	case p.Underlay.Answered:
		return fail("let UDP port "+port+" pass from this node to there, in firewalls and security groups on the way and there; there, selvaged doctor",
			"VXLAN packets (UDP port %s) to %s are lost, or dropped there, though the underlay works", port, them)
	case f.isOurs(p.Underlay) || silent:
		return f.down(p)
	}
	return fail("ip route get "+p.Target.Underlay.String()+"; see that it is up and connected", "no way to %s: %s says %s", them, p.Underlay.By, p.Underlay.Refused)
}

// isOurs reports whether it is this node itself that refused a packet: nobody answered when it asked for the neighbour.
func (f Facts) isOurs(e probe.Echo) bool {
	if !e.By.IsValid() || e.Refused == "" {
		return false
	}
	_, ours := f.holder(e.By)
	return ours
}

// directLost judges a path without a tunnel on which nothing came back.
func (f Facts) directLost(p probe.Path) diagnosis {
	switch {
	case p.Underlay.Answered && p.NoDevice: // what it has not got, it cannot be asked for
		return diagnosis{level: Warning}.with("there: selvaged doctor",
			"nobody answers for the pods of %s, though the underlay works: it does not forward, or has no pods yet, with --ip-blackhole-route", them)
	case p.Underlay.Answered:
		return fail("there: selvaged doctor", "packets for the pods of %s are lost, though the underlay works", them)
	}
	return f.down(p)
}

// down says that a peer does not answer at all.
func (f Facts) down(p probe.Path) diagnosis {
	advice := "see that it is up and connected; if it is gone for good, selvaged release " + theirSubnet
	if f.Unresolved[p.Target.Underlay] || f.isOurs(p.Underlay) {
		return fail(advice, "nobody on the link answers for the address of %s: it is down, or not connected", them)
	}
	return fail(advice, "no answer from %s, neither in the overlay nor on the underlay: it is down, or cut off", them)
}

// leaseOf is the first subnet of a peer's lease, by which the lease is named.
func (f Facts) leaseOf(p probe.Path) netip.Prefix {
	for _, x := range f.Peers {
		if x.Key == p.Key && len(x.Subnets) > 0 {
			return x.Subnets[0]
		}
	}
	return p.Subnet
}
