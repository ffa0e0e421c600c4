package node

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/paths"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// entryCuts returns the families whose traffic is cut because entries are out of sync: a device of the overlay, what
// each peer needs, what each pod depends on, or a setting without which the kernel does not forward.
func (n *node) entryCuts() (families []string) {
	cut := n.peerCuts()
	for _, t := range n.backend.Describe().Tunnels {
		c := n.tables.Links.Get(t.Device)
		if c.Wanted && t.Local.IsValid() && (!c.Present || !carries(c.Have, c.Want)) {
			cut[subnet.FamilyOf(t.Local)] = true
		}
	}
	inSync(n.tables.WireGuards, n.device.WireGuards, func(link string, _ network.WireGuard) {
		for _, a := range n.device.Addresses { // the families that the device carries
			if a.Key.Link == link {
				cut[subnet.FamilyOf(a.Key.Prefix.Addr())] = true
			}
		}
	})
	pods := n.podCuts()
	for _, f := range subnet.Families() {
		cut[f] = cut[f] || pods.all[f] && pods.entries[f]
	}
	for _, x := range n.device.Sysctls {
		f, needed := settingFamily(x.Key)
		if c := n.tables.Sysctls.Get(x.Key); needed && c.Present && c.Have != x.Value {
			cut[f] = true
		}
	}
	return familyNames(cut)
}

// carries reports whether a device carries the overlay's packets as the leases say: peers send to its MAC address, and
// accept packets from its local address only. A master takes what it receives.
func carries(have, want network.Link) bool {
	a, tunnel := have.Settings.(network.VXLAN)
	b, _ := want.Settings.(network.VXLAN)
	return have.Up && have.Master == want.Master && have.SameDevice(want) && have.MAC == want.MAC &&
		(!tunnel || a.Local == b.Local)
}

// peerCuts returns the families in which all peers lack an entry.
func (n *node) peerCuts() (cut [2]bool) {
	pending := n.tables.PendingOwners()
	var whole [2]bool
	for m := range n.view.Peers {
		_, late := pending[m.Name]
		for _, f := range subnet.Families() {
			if !m.Has(f) || whole[f] {
				continue
			}
			one, kind := inFamily(m.Lease, f), ""
			if late {
				kind, _ = n.tables.Lacks(peerState(n.backend, &one))
			}
			whole[f] = kind == ""
			cut[f] = !whole[f]
		}
		if whole[subnet.IPv4] && whole[subnet.IPv6] {
			break
		}
	}
	return cut
}

// podCuts says in which families no packet reaches any of this node's pods that are known.
type podCuts struct {
	all     [2]bool
	entries [2]bool // for some of these pods, because entries are out of sync
}

// podCuts examines the pods with addresses in the node's own subnets. What keeps packets from one pod can differ from
// what does from another one.
func (n *node) podCuts() (c podCuts) {
	o := &n.ownSide
	var blocked map[netip.Addr]struct{}
	if n.paths != nil {
		blocked = n.paths.Status().Blocked
	}
	if len(blocked)+len(o.begun) == 0 && n.tables.Holds(o.state) {
		return c // as a rule
	}
	broken := n.brokenLinks()
	var open [2]bool
	var examined [2]int
	for _, p := range o.pods {
		_, detached := o.begun[string(status.PodDetached)+p.Key.String()]
		live := p.Managed && o.node.Live(p)
		if !live && !detached {
			continue // not known, or it has ended
		}
		for _, x := range p.Prefixes {
			a := x.Addr()
			f := subnet.FamilyOf(a)
			if !n.subnets[f].IsValid() || !n.subnets[f].Contains(a) {
				continue
			}
			holds := func(x netip.Prefix) bool { return x.Contains(a) }
			lacks := slices.ContainsFunc(broken[p.Port], holds) || slices.ContainsFunc(broken[p.Bridge], holds)
			_, lost := blocked[a]
			_, shadowed := o.begun[string(status.NeighbourShadowed)+neighbourKey(p, a).String()]
			_, silent := o.begun[string(status.ARPIgnored)+p.Bridge]
			examined[f]++
			switch {
			case detached, lost, shadowed, lacks, silent && f == subnet.IPv4:
				c.all[f], c.entries[f] = true, c.entries[f] || lacks
			case examined[f] <= paths.MaxPods: // else nothing is known of it
				open[f] = true
			}
		}
	}
	for f, is := range open {
		c.all[f] = c.all[f] && !is
	}
	return c
}

// brokenLinks returns the prefixes whose packets do not pass by a pod's bridge or link, because entries are out of
// sync.
func (n *node) brokenLinks() map[string][]netip.Prefix {
	t, want, broken := n.tables, n.ownSide.state, map[string][]netip.Prefix{}
	everything := []netip.Prefix{ // by family
		netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0),
	}
	inSync(t.Bridges, want.Bridges, func(name string, b network.Bridge) {
		c := t.Bridges.Get(name)
		lost := !c.Present || !c.Have.Up || c.Have.NoARP
		if lost || c.Have.Kind != b.Kind || c.Have.Master != b.Master {
			broken[name] = everything
		}
	})
	inSync(t.Ports, want.Ports, func(name string, p network.Port) {
		c := t.Ports.Get(name)
		lost := !c.Present || !c.Have.Up || c.Have.NoARP || c.Have.Master != p.Master
		if lost || c.Have.Locked || c.Have.Blocked {
			broken[name] = everything
		}
	})
	inSync(t.Addresses, want.Addresses, func(k network.AddressKey, _ network.Address) {
		p := k.Prefix.Masked()
		if p.IsSingleIP() { // of a pod's own link, which has no bridge
			p = everything[subnet.FamilyOf(p.Addr())]
		}
		broken[k.Link] = append(broken[k.Link], p)
	})
	inSync(t.Routes, want.Routes, func(k network.RouteKey, r network.Route) {
		broken[r.Link] = append(broken[r.Link], k.Prefix)
	})
	inSync(t.Sysctls, want.Sysctls, func(path string, _ network.Sysctl) {
		if f, needed := settingFamily(path); needed && t.Sysctls.Get(path).Present {
			link := network.SettingDevice(path)
			broken[link] = append(broken[link], everything[f])
		}
	})
	return broken
}

// leaseCuts returns the families whose traffic is cut because the node has no lease that other nodes accept: these
// retain its entries for a while.
func (n *node) leaseCuts(since, now time.Time) (families []string) {
	var cut [2]bool
	if n.publisher.ready && now.Sub(since) > n.PeerGrace {
		for f, s := range n.subnets {
			cut[f] = s.IsValid()
		}
	}
	return familyNames(cut)
}

// settingFamily returns the family that a kernel setting turns on and off, or the forwarding of it; ok is false for any
// other setting.
func settingFamily(path string) (f subnet.Family, ok bool) {
	if strings.HasPrefix(path, "net/ipv6/") {
		f = subnet.IPv6
	}
	return f, path == "net/ipv4/ip_forward" || strings.HasSuffix(path, "/forwarding") ||
		strings.HasSuffix(path, "/disable_ipv6")
}

// familyNames returns the names of families, as the status has them.
func familyNames(set [2]bool) (names []string) {
	for _, f := range subnet.Families() {
		if set[f] {
			names = append(names, f.String())
		}
	}
	return names
}

// only returns a set with one family.
func only(f subnet.Family) (set [2]bool) {
	set[f] = true
	return set
}
