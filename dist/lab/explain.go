package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// Entry is a thing in a node's kernel, and what it is there for.
type Entry struct {
	Kind    string // device, address, route, neigh, fdb or rules
	Text    string // as ip and bridge would print it
	Meaning string
}

// Explain reads what a node's kernel holds of the overlay and says what each thing does.
func (l *Lab) Explain(ctx context.Context, node *Node) ([]Entry, error) {
	subnets := subnetsOf(l.nodes)
	o, err := node.readOverlay(subnets)
	if err != nil {
		return nil, err
	}
	entries := explain(node, l.PeersOf(node), o, subnets)
	rules, err := explainRules(ctx, node)
	return append(entries, rules...), err
}

// explain is the pure part.
func explain(node *Node, peers []*Node, o overlay, subnets map[netip.Prefix]*Node) []Entry {
	var entries []Entry
	add := func(kind, meaning, text string, args ...any) {
		entries = append(entries, Entry{kind, fmt.Sprintf(text, args...), meaning})
	}
	vxlan := map[int]bool{}
	for _, d := range o.devices {
		vxlan[d.Index] = true
		add("device", "VXLAN device",
			"%s vxlan id %d port %d mtu %d", d.Name, d.VxlanId, d.Port, d.MTU)
		add("", "its local VTEP, as leased", "  local %s  mac %s", addrOf(d.SrcAddr), d.HardwareAddr)
	}
	for _, a := range o.addrs {
		if a.Scope != unix.RT_SCOPE_LINK { // fe80:: is the kernel's own
			add("address", "source address towards pods", "%s dev %s", prefixOf(a.IPNet), o.links[a.LinkIndex])
		}
	}
	for _, r := range o.routes {
		if subnets[prefixOf(r.Dst)] == node {
			add("route", "own subnet, to the bridge", "%s dev %s", prefixOf(r.Dst), o.links[r.LinkIndex])
		}
	}
	// Peer by peer, in the order in which a packet makes use of them.
	vteps := vtepsOf(subnets)
	for _, peer := range peers {
		for _, r := range o.routes {
			if subnets[prefixOf(r.Dst)] != peer {
				continue
			}
			meaning := "to " + peer.name + "'s pods"
			if !vxlan[r.LinkIndex] {
				meaning += ", direct"
			}
			onlink := ""
			if r.Flags&unix.RTNH_F_ONLINK != 0 {
				onlink = " onlink"
			}
			add("route", meaning, "%s via %s dev %s%s", prefixOf(r.Dst), addrOf(r.Gw), o.links[r.LinkIndex], onlink)
		}
		for _, e := range o.neighbours {
			if vteps[addrOf(e.IP)] == peer {
				add("neigh", peer.name+"'s VTEP", "%s lladdr %s dev %s%s",
					addrOf(e.IP), e.HardwareAddr, o.links[e.LinkIndex], permanent(e))
			}
		}
		for _, e := range o.fdb {
			if addrOf(e.IP) == peer.Addr(subnet.FamilyOf(addrOf(e.IP))) {
				add("fdb", peer.name+"'s public IP", "%s dst %s dev %s%s",
					e.HardwareAddr, addrOf(e.IP), o.links[e.LinkIndex], permanent(e))
			}
		}
	}
	return entries
}

// permanent names the state of an entry that is not permanent.
func permanent(e netlink.Neigh) string {
	if e.State&netlink.NUD_PERMANENT != 0 {
		return "" // as all that the daemon makes
	}
	return " not permanent"
}
