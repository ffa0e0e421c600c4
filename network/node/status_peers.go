package node

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// peerCounts counts peers by state. It takes O(leases) time.
func (n *node) peerCounts() (c status.PeerCounts) {
	if n.backend == nil { // no lease has been validated
		return c
	}
	_, c.Quarantined = n.view.Len()
	c.Grace = len(n.peerSet.retained)
	peers := 0
	for range n.view.Peers {
		peers++
	}
	for name := range n.tables.PendingOwners() {
		if _, retained := n.peerSet.retained[name]; !retained && name != nodeOwner().Name {
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
	probed := n.paths.Status()
	for m := range n.view.Peers {
		p := n.peer(m.Name, m.Lease)
		n.pendingPeer(&p, m.Lease)
		for i, s := range p.Subnets {
			p.Reach[i] = peerReach(probed, m.Name, subnet.FamilyOf(s.Addr()))
		}
		all = append(all, p)
	}
	for key, g := range n.peerSet.retained {
		p := n.peer(key, g.lease)
		p.State, p.Code, p.Until = status.Grace, status.LeaseWithdrawn, g.until
		p.Why = "its lease was withdrawn; its entries are retained in case the lease returns"
		all = append(all, p)
	}
	for key, why := range n.view.Quarantined {
		m, _, _ := n.view.Get(key)
		p := n.peer(key, m.Lease)
		p.State, p.Code, p.Why = status.Quarantined, rejection(why), status.Text(why.Error())
		p.Path, p.Paths = []status.Text{}, []status.PeerPath{} // no entries lead there
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b status.Peer) int {
		return cmp.Or(slices.CompareFunc(a.Subnets, b.Subnets, netip.Prefix.Compare), strings.Compare(a.Key, b.Key))
	})
	return all
}

// pendingPeer sets the state of a peer whose lease is accepted: programmed or pending.
func (n *node) pendingPeer(p *status.Peer, l subnet.Lease) {
	p.State = status.Programmed
	kind, key := n.tables.Lacks(peerState(n.backend, &l))
	if kind == "" {
		return
	}
	p.State, p.Code, p.Why = status.Pending, status.EntryMissing, status.Text(kind+" "+key+" is missing")
	if f := n.journal.failures[kind]; f != nil && f.key == key && f.err != nil {
		p.Code, p.Why = entryReason(f.err), status.Text(f.err.Error())
	}
}

func (n *node) peer(key string, l subnet.Lease) status.Peer {
	name := l.NodeName
	if n.storeKind == subnet.StoreKubernetes {
		name = key // also of a lease that is malformed
	}
	p := status.Peer{
		Key: key, Node: name, Subnets: []netip.Prefix{}, PublicIP: []netip.Addr{},
		Path: []status.Text{}, Paths: []status.PeerPath{}, Reach: []status.Reach{}, MeshKey: l.MeshKey,
	}
	want, description := peerState(n.backend, &l), n.backend.Describe()
	for _, f := range subnet.Families() {
		e := l.Endpoints[f]
		if !e.Subnet.IsValid() {
			continue
		}
		p.Subnets, p.PublicIP = append(p.Subnets, e.Subnet), append(p.PublicIP, e.PublicIP)
		p.Reach = append(p.Reach, status.Reach{State: status.NotProbed, Code: status.NoPath})
		to := description.Path(want, e.Subnet)
		path := status.PeerPath{Device: to.Device, Direct: to.Direct()}
		p.Path, p.Paths = append(p.Path, status.Text(path.String())), append(p.Paths, path)
	}
	for _, x := range want.Peers {
		if s, ok := n.kernel.Session(x.Key); ok {
			p.Sessions = append(p.Sessions, status.Session{
				Device: x.Key.Link, Endpoint: s.Endpoint, Handshake: s.Handshake, Received: s.Received, Sent: s.Sent,
				UnansweredSince: s.UnansweredSince, LastReceived: s.LastReceived,
			})
		}
	}
	return p
}

// moveStatus adds to the status of the backend how many peers' packets are encrypted, and which ones a move to another
// backend waits for. It takes O(leases) time.
func (n *node) moveStatus(b *status.Backend, d backend.Description) {
	if n.config.Encrypted {
		b.Encryption = status.EncryptionRequired
		if leaving(n.backend) != "" {
			b.Encryption = status.EncryptionAwaited
		}
	}
	b.Rotation = n.rotationStatus()
	b.Sessions = n.sessions(time.Now())
	encrypts := slices.ContainsFunc(d.Tunnels, func(t backend.Tunnel) bool { return t.Encrypts })
	t, moving := n.backend.(*backend.Transition)
	if moving = moving && isMoving(t); moving {
		b.Move = &status.Move{From: t.Old.Type, Waiting: []status.Waiting{}}
	}
	if !encrypts && !moving {
		return
	}
	count := 0
	const few = 3
	for m := range n.view.Peers {
		if encrypted(peerState(n.backend, &m.Lease), m.Lease, d) {
			count++
		}
		if !moving {
			continue
		}
		if why := t.Waits(m.Lease); why != "" && len(b.Move.Waiting) < few {
			b.Move.Waiting = append(b.Move.Waiting,
				status.Waiting{Key: m.Name, Node: m.NodeName, Why: status.Text(why)})
		} else if why != "" {
			b.Move.More++
		}
	}
	if encrypts {
		b.Encrypted = &count
	}
}

// Of WireGuard's protocol, section 6.1 of its paper.
const (
	sessionLife = 180 * time.Second // Reject-After-Time: a peer with an older handshake has no session
	silentAfter = 15 * time.Second  // Keepalive-Timeout and Rekey-Timeout: within that a peer answers, or it does not
)

// sessions sums up what the last read of each WireGuard device says of its peers.
func (n *node) sessions(now time.Time) (all []status.Sessions) {
	for _, d := range n.device.WireGuards {
		total := n.kernel.WireGuardTraffic(d.Key)
		all = append(all, status.Sessions{Device: d.Key, Received: total.Received, Sent: total.Sent})
	}
	if len(all) == 0 {
		return nil
	}
	for key, c := range n.tables.Peers.All {
		i := slices.IndexFunc(all, func(s status.Sessions) bool { return s.Device == key.Link })
		x, ok := n.kernel.Session(key)
		if i < 0 || !ok || !c.Wanted {
			continue
		}
		switch s := &all[i]; {
		case !x.UnansweredSince.IsZero() && now.Sub(x.UnansweredSince) > silentAfter:
			s.Silent++
		case x.Handshake.IsZero() || now.Sub(x.Handshake) >= sessionLife:
			s.Idle++
		default:
			s.Live++
			if s.Oldest.IsZero() || x.Handshake.Before(s.Oldest) {
				s.Oldest = x.Handshake
			}
		}
	}
	return all
}

// encrypted reports whether all packets to a peer are encrypted.
func encrypted(peer network.State, l subnet.Lease, d backend.Description) bool {
	for _, f := range subnet.Families() {
		if !l.Has(f) {
			continue
		}
		if p := d.Path(peer, l.Endpoints[f].Subnet); p.Tunnel == nil || !p.Tunnel.Encrypts {
			return false
		}
	}
	return true
}
