package node

import (
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// peerView is what a peerSet has to know of the cluster's leases; [subnet.View] is the real one.
type peerView interface {
	Get(name string) (r subnet.Record, ok bool, why error)
	Peers(yield func(subnet.Record) bool)
}

// peerTables takes what peers need in the kernel; [network.Tables] are the real ones.
type peerTables interface {
	// Replace sets the desired state of an owner in place of the last one.
	Replace(o network.Owner, last, next network.State)
	// Grow makes room for n more owners whose desired state is like the given one.
	Grow(n int, like network.State)
}

// retainedPeer is a peer whose lease was withdrawn and whose entries stay for a grace period: etcd wiped and written
// again, or an operator's slip, must not cost a packet. A live claim on its subnet takes precedence at once.
type retainedPeer struct {
	lease subnet.Lease
	until time.Time
}

// peerSet brings the peers' leases into the tables, as the backend wants them, and keeps withdrawn ones for their grace
// period. It belongs to the loop's goroutine.
type peerSet struct {
	view     peerView
	tables   peerTables
	backend  backend.Backend // nil until it is known; nothing is in the tables then
	own      [2]netip.Prefix // the node's subnets, by Family
	retained map[string]retainedPeer
}

func newPeerSet(v peerView, t peerTables) *peerSet {
	return &peerSet{view: v, tables: t, retained: map[string]retainedPeer{}}
}

// use has all peers reached by another backend from now on.
func (s *peerSet) use(b backend.Backend) {
	last := s.backend
	replace := func(o network.Owner, l *subnet.Lease) {
		s.tables.Replace(o, wanted(last, l), wanted(b, l))
	}
	for m := range s.view.Peers {
		replace(network.Owner{Name: m.Name, Age: m.Order}, &m.Lease)
	}
	for key, r := range s.retained {
		replace(network.Owner{Name: key, Grace: true}, &r.lease)
	}
	s.backend = b
}

// apply brings changes among the leases into the tables. Peers that are gone are retained for grace. It returns how
// many were added, removed and changed.
func (s *peerSet) apply(changes []subnet.Change, grace time.Duration, now time.Time) (added, removed, changed int) {
	if s.backend == nil {
		return 0, 0, 0 // use brings in all there are
	}
	if len(changes) > 0 {
		s.tables.Grow(len(changes), wanted(s.backend, changes[0].After))
	}
	for _, c := range changes {
		last := wanted(s.backend, c.Before)
		if r, ok := s.retained[c.Name]; ok && c.Before == nil {
			last = wanted(s.backend, &r.lease)
			delete(s.retained, c.Name)
		}
		owner := network.Owner{Name: c.Name}
		if m, ok, _ := s.view.Get(c.Name); ok {
			owner.Age = m.Order
		}
		switch {
		case c.After != nil:
			if c.Before == nil {
				added++
			} else {
				changed++
			}
			s.tables.Replace(owner, last, wanted(s.backend, c.After))
		case grace > 0 && !s.isOwn(*c.Before):
			removed++
			owner.Grace = true
			s.retained[c.Name] = retainedPeer{lease: *c.Before, until: now.Add(grace)}
			s.tables.Replace(owner, last, last)
		default:
			removed++
			s.tables.Replace(owner, last, network.State{})
		}
	}
	return added, removed, changed
}

// retain keeps a peer of an earlier run whose lease is missing now.
func (s *peerSet) retain(m subnet.Record, until time.Time) {
	if _, there, _ := s.view.Get(m.Name); there || s.isOwn(m.Lease) {
		return
	}
	s.retained[m.Name] = retainedPeer{lease: m.Lease, until: until}
	s.tables.Replace(network.Owner{Name: m.Name, Grace: true, Age: m.Order}, network.State{}, wanted(s.backend, &m.Lease))
}

// expire removes the peers whose grace period is over, and those whose subnet has become ours.
func (s *peerSet) expire(wake *alarm) {
	for key, r := range s.retained {
		if wake.now.Before(r.until) && !s.isOwn(r.lease) {
			wake.set(r.until)
			continue
		}
		delete(s.retained, key)
		s.tables.Replace(network.Owner{Name: key}, wanted(s.backend, &r.lease), network.State{})
	}
}

// isOwn reports whether a lease is for a subnet that is ours now.
func (s *peerSet) isOwn(l subnet.Lease) bool {
	for _, f := range subnet.Families() {
		if l.Has(f) && s.own[f].IsValid() && l.Endpoints[f].Subnet.Overlaps(s.own[f]) {
			return true
		}
	}
	return false
}

// wanted returns what a peer's lease needs in the kernel; nothing for no lease, or before there is a backend.
func wanted(b backend.Backend, l *subnet.Lease) (s network.State) {
	if b != nil && l != nil {
		s, _ = b.Peer(*l) // the view accepts only what the backend can use
	}
	return s
}
