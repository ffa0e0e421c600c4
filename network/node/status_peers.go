package node

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// peerCounts counts peers. It costs O(what differs), and a look at each lease.
func (n *node) peerCounts() (c status.PeerCounts) {
	if n.backend == nil { // no lease has been judged
		return c
	}
	_, c.Quarantined = n.view.Len()
	c.Grace = len(n.peerSet.retained)
	peers := 0
	for range n.view.Peers {
		peers++
	}
	for name := range n.tables.PendingOwners() {
		if _, graced := n.peerSet.retained[name]; !graced && name != nodeOwner().Name {
			c.Pending++
		}
	}
	c.Programmed = max(0, peers-c.Pending)
	return c
}

// peers lists the other nodes in the order of their subnets.
func (n *node) peers() []status.Peer {
	all := []status.Peer{}
	if n.backend == nil {
		return all
	}
	for m := range n.view.Peers {
		p := n.peer(m.Name, m.Lease)
		if p.Why = n.whyPending(m.Lease); p.Why == "" {
			p.State = status.Programmed
		} else {
			p.State = status.Pending
		}
		all = append(all, p)
	}
	for key, g := range n.peerSet.retained {
		p := n.peer(key, g.lease)
		p.State, p.Why, p.Until = status.Grace, "its lease is gone; it is kept for a while, in case it comes back", g.until
		all = append(all, p)
	}
	for key, why := range n.view.Quarantined {
		m, _, _ := n.view.Get(key)
		p := n.peer(key, m.Lease)
		p.State, p.Why, p.Path = status.Quarantined, why.Error(), []string{} // nothing leads there
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b status.Peer) int {
		return cmp.Or(slices.CompareFunc(a.Subnets, b.Subnets, netip.Prefix.Compare), strings.Compare(a.Key, b.Key))
	})
	return all
}

// whyPending says why not all that leads to a peer is in place; empty if it is.
func (n *node) whyPending(l subnet.Lease) string {
	kind, key := n.tables.Lacks(wanted(n.backend, &l))
	if kind == "" {
		return ""
	}
	if f := n.journal.failures[kind]; f != nil && f.err != nil && f.key == key {
		return f.err.Error()
	}
	return kind + " " + key + status.NotInPlace
}

func (n *node) peer(key string, l subnet.Lease) status.Peer {
	p := status.Peer{Key: key, Node: l.NodeName, Subnets: []netip.Prefix{}, PublicIP: []netip.Addr{}, Path: []string{}}
	routes := wanted(n.backend, &l).Routes
	for _, f := range subnet.Families() {
		e := l.Endpoints[f]
		if !e.Subnet.IsValid() {
			continue
		}
		p.Subnets, p.PublicIP = append(p.Subnets, e.Subnet), append(p.PublicIP, e.PublicIP)
		path := ""
		for _, r := range routes {
			if r.Key.Prefix == e.Subnet {
				path = n.leadsOver(r.Value)
			}
		}
		p.Path = append(p.Path, path)
	}
	return p
}

// leadsOver names the device that a route leads out of.
func (n *node) leadsOver(r network.Route) string {
	if r.Link == n.uplink.Name {
		return r.Link + " (direct)"
	}
	return r.Link
}
