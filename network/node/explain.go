package node

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node/explain"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// Explain implements api.Source. The loop only supplies the facts. The caller's goroutine queries the kernel, since a
// table of 100,000 routes takes long to read.
func (n *node) Explain(ctx context.Context, a netip.Addr) (status.Explanation, error) {
	var facts explain.Facts
	if err := n.ask(ctx, func() { facts = n.explainFacts(a) }); err != nil {
		return status.Explanation{}, err
	}
	lookup, err := kernel.OpenLookup()
	if err != nil {
		return status.Explanation{}, err
	}
	defer lookup.Close()
	return explain.Address(a, facts, lookup), nil
}

// explainFacts returns the loop's knowledge about an address.
func (n *node) explainFacts(a netip.Addr) explain.Facts {
	f := subnet.FamilyOf(a)
	facts := explain.Facts{
		Waiting: n.backend == nil, Family: f.String(), Subnet: n.subnets[f], Lease: n.holder.record.Name,
		Uplink: n.uplink.Name, MTU: n.uplink.MTU, Masquerade: n.IPMasq, Filter: n.filterStatus(),
		Fast: n.fastPathStatus(),
	}
	if n.backend == nil {
		return facts
	}
	if r := n.config.Ranges[f]; r.Enabled() {
		facts.Network = r.Network
	}
	for _, l := range n.device.Links {
		facts.Own = append(facts.Own, l.Key)
	}
	facts.PeerKey, facts.PeerAt = n.nodeAt(a)
	facts.Pod = n.explainPod(a)
	if !facts.Network.Contains(a) || facts.Subnet.IsValid() && facts.Subnet.Contains(a) {
		return facts
	}
	var lease *subnet.Lease
	accepted := ""
	for _, x := range n.view.Lookup(a) {
		facts.Claims = append(facts.Claims, explain.Claim{Lease: x.Name, Node: x.NodeName, Reason: x.Why})
		if x.Why == nil {
			lease, accepted = &x.Lease, x.Name
		}
	}
	for key, g := range n.peerSet.retained {
		if lease == nil && g.lease.Endpoints[f].Subnet.Contains(a) {
			facts.Claims = append(facts.Claims, explain.Claim{Lease: key, Until: g.until})
			lease = &g.lease
		}
	}
	if lease != nil {
		facts.Peer = n.explainPeer(*lease, f)
		facts.Peer.Reach = peerReach(n.paths.Status(), accepted, f)
	}
	return facts
}

// explainPod returns the loop's knowledge about the pod of this node with an address; nil if there is no record of one.
func (n *node) explainPod(a netip.Addr) *explain.Pod {
	p, depends, ok := n.podAt(a)
	if !ok {
		return nil
	}
	x := &explain.Pod{Name: podName(p), MAC: p.MAC, Link: cmp.Or(p.Bridge, p.Port), Entries: n.tables.Compare(depends)}
	neighbour := network.NeighbourKey{Link: p.Bridge, IP: a}.String()
	for _, y := range n.ownSide.problems {
		if y.Key == p.Key.String() || y.Key == neighbour {
			x.Problem = fmt.Sprint(y.Text)
		}
	}
	return x
}

// explainPeer returns the loop's knowledge about a peer, in one family.
func (n *node) explainPeer(l subnet.Lease, f subnet.Family) *explain.Peer {
	only := inFamily(l, f)
	want := peerState(n.backend, &only)
	entries := want
	entries.VTEPs, entries.FastPeers = nil, nil // these filter received packets, and are explained apart
	p := &explain.Peer{
		Name: nodeName(l, f), Subnet: l.Endpoints[f].Subnet, PublicIP: l.Endpoints[f].PublicIP,
		Entries: n.tables.Compare(entries),
	}
	for _, x := range want.FastPeers {
		c := n.tables.FastPeers.Get(x.Key)
		p.Fast = c.Present && c.Have == x.Value
	}
	path := n.backend.Describe().Path(want, l.Endpoints[f].Subnet)
	p.Underlay.To = p.PublicIP
	if path.Tunnel != nil {
		p.Underlay.From, p.Underlay.UDP = path.Tunnel.Local, path.Tunnel.Port
	}
	if path.Remote.IsValid() {
		p.PublicIP = path.Remote.Addr()
		p.Underlay.To, p.Underlay.UDP = p.PublicIP, path.Remote.Port()
	}
	p.Path = path.String()
	if len(want.Routes) == 0 {
		return p
	}
	p.Route, p.Link = want.Routes[0].Key, want.Routes[0].Value.Link
	p.Session = n.explainSession(want, p.Link)
	if path.Tunnel != nil {
		c := n.tables.Links.Get(p.Link)
		p.Device = &explain.Device{Text: path.Tunnel.String(), MTU: c.Want.MTU, InSync: c.Present && c.Have == c.Want}
		if c.Want.Kind == network.KindWireGuard {
			if u := n.userSpaceStatus(p.Link); u != nil {
				p.Device.Text += ", " + u.String()
			}
		}
	}
	return p
}

// explainSession returns what the last read of a WireGuard device says of a peer; nil for other devices.
func (n *node) explainSession(peer network.State, link string) *explain.Session {
	for _, x := range peer.Peers {
		s, ok := n.kernel.Session(x.Key)
		if x.Key.Link != link || !ok {
			continue
		}
		now := time.Now()
		session := &explain.Session{Handshake: -1, Received: s.Received, Sent: s.Sent,
			Silent: !s.UnansweredSince.IsZero() && now.Sub(s.UnansweredSince) > silentAfter}
		if !s.Handshake.IsZero() {
			session.Handshake = max(0, now.Sub(s.Handshake))
		}
		return session
	}
	return nil
}

// inFamily returns a lease with its subnet of one family alone. Its public IP of the other one stays: a tunnel may send
// there.
func inFamily(l subnet.Lease, f subnet.Family) subnet.Lease {
	l.Endpoints[1-f].Subnet = netip.Prefix{}
	return l
}

// nodeAt finds the node that has an address as public IP. It may be this node.
func (n *node) nodeAt(a netip.Addr) (key, name string) {
	f := subnet.FamilyOf(a)
	for m := range n.view.Peers {
		if m.Endpoints[f].PublicIP == a {
			return m.Name, nodeName(m.Lease, f)
		}
	}
	if n.uplink.PublicIP[f] == a {
		return n.holder.record.Name, "this node"
	}
	return "", ""
}

// nodeName returns the display name of a node: its public IP if the lease has no name, as flannel's.
func nodeName(l subnet.Lease, f subnet.Family) string {
	return cmp.Or(l.NodeName, l.Endpoints[f].PublicIP.String())
}
