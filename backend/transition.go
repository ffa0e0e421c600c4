package backend

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Part is one of the two backends of a [Transition].
type Part struct {
	Backend
	Type string // the Backend.Type of configs that it serves
}

// Transition is the [Backend] of a node whose network may move from one backend to another while nodes run, one after
// the other. Without an old one it does what the new one does.
//
// A node receives by both. It sends to a peer by the new one once both leases say that their nodes receive by it and,
// with WireGuard, once the peer has answered what was sent to it that way, see [Way]. A handshake is not enough: it
// says nothing of the prefixes that the peer accepts from this node, and handshakes that both ends began at once have
// left a user-space WireGuard with a session that the other end did not have.
//
// What the leases say goes through four levels, see [Levels]. Each of them depends on the last one of the others, so
// that no node stops receiving by a backend that another one may send by:
//
//	                      receives by    may send by
//	nothing offered       old            old
//	offered               old and new    old and new
//	not SendsOld          old and new    new
//	old one withdrawn     new            new
//
// A Transition does not change; another one takes its place.
type Transition struct {
	New, Old Part // Old has no backend: there is none
	Levels   Levels
	// Encrypted says that the network config requires encryption, which the new backend does: see [Transition.Strict].
	Encrypted bool
	// Answered are the ways of the new backend by which packets are known to reach peers.
	Answered map[Way]struct{}
}

// Way is how packets get to a prefix by WireGuard: on a device, to the peer that has a public key.
type Way = network.Item[network.AllowedIPKey, network.PublicKey]

// Levels are what a node's lease says in a [Transition].
type Levels struct {
	// First is the type of the part that the lease names first. Nodes that know of no second one read it alone, so it
	// changes when no peer needs the old one any more.
	First     string
	Offered   bool // the node receives by the new part
	SendsOld  bool // it may send by the old part
	Withdrawn bool // peers are not to send by the old part any more, which is still there for the last packets
}

// moving reports whether there is an old backend.
func (t *Transition) moving() bool { return t.Old.Backend != nil }

// parts returns the backends, in the order in which their devices are listed.
func (t *Transition) parts() []Part {
	if !t.moving() {
		return []Part{t.New}
	}
	return []Part{t.Old, t.New}
}

// LeaseType returns the BackendType of the node's lease.
func (t *Transition) LeaseType() string { return t.lease().BackendType }

// Advertise implements [Backend].
func (t *Transition) Advertise() [2]subnet.Endpoint { return t.lease().Endpoints }

func (t *Transition) lease() subnet.Lease {
	as := func(p Part) subnet.Lease { return subnet.Lease{BackendType: p.Type, Endpoints: p.Advertise()} }
	switch {
	case !t.moving() || t.Levels.Withdrawn:
		return as(t.New)
	case !t.Levels.Offered:
		return as(t.Old)
	case !t.Levels.SendsOld:
		return as(t.New).Add(as(t.Old), false)
	case t.Levels.First == t.New.Type:
		return as(t.New).Add(as(t.Old), true)
	}
	return as(t.Old).Add(as(t.New), true)
}

// Device implements [Backend]. What a peer sends by one device, this node may send by the other.
func (t *Transition) Device(subnets [2]netip.Prefix) (s network.State) {
	for _, p := range t.parts() {
		add(&s, p.Device(subnets))
	}
	if !t.moving() || t.Advertise()[subnet.IPv4].Data == "" {
		return s
	}
	for _, l := range s.Links {
		if loose := LooseReversePath(l.Key); !slices.Contains(s.Sysctls, loose) {
			s.Sysctls = append(s.Sysctls, loose)
		}
	}
	return s
}

// add adds what a device, or a peer that packets are sent to, has in the kernel, but for VTEPs.
func add(s *network.State, x network.State) {
	receive(s, x)
	s.Links = append(s.Links, x.Links...)
	s.WireGuards = append(s.WireGuards, x.WireGuards...)
	s.Addresses = append(s.Addresses, x.Addresses...)
	s.Sysctls = append(s.Sysctls, x.Sysctls...)
	s.FDB = append(s.FDB, x.FDB...)
	s.Neighbours = append(s.Neighbours, x.Neighbours...)
	s.Nexthops = append(s.Nexthops, x.Nexthops...)
	s.Routes = append(s.Routes, x.Routes...)
	s.FastPeers = append(s.FastPeers, x.FastPeers...)
}

// receive adds what a peer needs whose packets are only received.
func receive(s *network.State, x network.State) {
	s.Peers = append(s.Peers, x.Peers...)
	s.AllowedIPs = append(s.AllowedIPs, x.AllowedIPs...)
}

// Peer implements [Backend]. VXLAN packets are accepted from every peer: it may send them before this node knows that
// it has a device for them.
func (t *Transition) Peer(l subnet.Lease) (s network.State, err error) {
	byNew, isNew := l.As(t.New.Type)
	if !t.moving() {
		return t.New.Peer(byNew)
	}
	var old, next network.State
	byOld, isOld := l.As(t.Old.Type)
	if isNew {
		if next, err = t.New.Peer(byNew); err != nil {
			return s, err
		}
	}
	if isOld {
		if old, err = t.Old.Peer(byOld); err != nil {
			return s, err
		}
	}
	if isNew && (!isOld || t.Strict() || t.ready(next)) {
		add(&s, next)
		receive(&s, old)
	} else {
		add(&s, old)
		receive(&s, next)
	}
	for _, f := range subnet.Families() {
		if e := l.Endpoints[f]; l.Has(f) && e.PublicIP.IsValid() {
			s.VTEPs = append(s.VTEPs, network.Item[netip.Addr, network.VTEP]{Key: e.PublicIP})
		}
	}
	return s, nil
}

// Strict reports whether nothing is sent by the old backend any more: the network config requires encryption, and there
// was a time at which all peers were reached by the new one. A node whose lease has the old one only is no peer then.
func (t *Transition) Strict() bool {
	return t.moving() && t.Encrypted && t.Levels.Offered && !t.Levels.SendsOld
}

// ready reports whether packets can be sent to a peer by the new backend, if the peer receives by it.
func (t *Transition) ready(peer network.State) bool {
	return t.Levels.Offered && len(t.untried(peer)) == 0
}

// untried returns the ways to a peer by which it has not answered.
func (t *Transition) untried(peer network.State) (ways []Way) {
	for _, w := range peer.AllowedIPs {
		if _, answered := t.Answered[w]; !answered {
			ways = append(ways, w)
		}
	}
	return ways
}

// Expected returns the ways by which the node with a lease has to answer before packets are sent to it by the new
// backend, and has not done so. ok is false if the node does not receive by the new backend.
func (t *Transition) Expected(l subnet.Lease) (ways []Way, ok bool) {
	byNew, ok := l.As(t.New.Type)
	if !ok {
		return nil, false
	}
	s, _ := t.New.Peer(byNew) // only leases that can be used are asked about
	return t.untried(s), true
}

// Next returns the levels that follow from what is known of the kernel and of the peers, by [Transition.Expected].
// inSync says that the devices are as desired; sent, that all routes are as this Transition wants them.
func (t *Transition) Next(inSync, sent bool, peers []subnet.Lease) Levels {
	next := t.Levels
	next.Offered = next.Offered || inSync
	if next.SendsOld && sent && t.Levels.Offered && !slices.ContainsFunc(peers, t.needsOld) {
		next.SendsOld, next.First = false, t.New.Type
	}
	sends := func(l subnet.Lease) bool { return l.Sends(t.Old.Type) }
	next.Withdrawn = !t.Levels.SendsOld && !slices.ContainsFunc(peers, sends)
	return next
}

// needsOld reports whether packets are sent to a peer by the old backend.
func (t *Transition) needsOld(l subnet.Lease) bool { return t.Waits(l) != "" }

// Waits returns why packets are sent to a peer by the old backend; empty: they are not.
func (t *Transition) Waits(l subnet.Lease) string {
	waiting, isNew := t.Expected(l)
	_, isOld := l.As(t.Old.Type)
	switch {
	case !isNew:
		return "its lease has " + t.Old.Type + " only: its daemon does not run, or does not know the new network config"
	case isOld && t.Strict():
		return ""
	case isOld && len(waiting) > 0:
		return "it has not answered by " + t.New.Type + " yet"
	case isOld && !t.Levels.Offered:
		return "this node is not ready to receive by " + t.New.Type
	}
	return ""
}

// With returns a Transition that differs in its levels, and in more ways by which peers have answered.
func (t *Transition) With(next Levels, answered []Way) *Transition {
	other := *t
	other.Levels = next
	if len(answered) > 0 {
		other.Answered = maps.Clone(t.Answered)
		if other.Answered == nil {
			other.Answered = map[Way]struct{}{}
		}
		for _, w := range answered {
			other.Answered[w] = struct{}{}
		}
	}
	return &other
}

// Check implements [Backend].
func (t *Transition) Check(l subnet.Lease) (unique []string, err error) {
	for _, p := range t.parts() {
		as, ok := l.As(p.Type)
		if !ok {
			continue
		}
		names, err := p.Check(as)
		if err != nil {
			return nil, err
		}
		unique = append(unique, names...)
	}
	return unique, nil
}

// Describe implements [Backend]. The MTU is the smaller one: a packet may take either way.
func (t *Transition) Describe() Description {
	d := t.New.Describe()
	if t.moving() {
		old := t.Old.Describe()
		d.MTU, d.Tunnels = min(d.MTU, old.MTU), slices.Concat(old.Tunnels, d.Tunnels)
	}
	return d
}

// Warning implements [Warner].
func (t *Transition) Warning() string {
	if w, ok := t.New.Backend.(Warner); ok {
		return w.Warning()
	}
	return ""
}

// Direct implements [Mixed].
func (t *Transition) Direct() bool {
	return slices.ContainsFunc(t.parts(), func(p Part) bool {
		m, ok := p.Backend.(Mixed)
		return ok && m.Direct()
	})
}
