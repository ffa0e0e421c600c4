package node

import (
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// peerView is the set of the cluster's leases. [subnet.View] implements it.
type peerView interface {
	Get(name string) (r subnet.Record, ok bool, why error)
	Peers(yield func(subnet.Record) bool)
}

// peerTables holds the desired state of the kernel. [network.Tables] implements it.
type peerTables interface {
	// Replace sets the desired state of an owner in place of the last one.
	Replace(o network.Owner, last, next network.State)
	// Grow allocates space for n more owners whose desired state is like the given one.
	Grow(n int, like network.State)
}

// retainedPeer is a peer whose lease was withdrawn and whose entries are retained for a grace period. So no packet is
// lost when etcd is wiped and restored, or an operator deletes a lease by mistake. A new lease on its subnet takes
// precedence at once.
type retainedPeer struct {
	lease subnet.Lease
	until time.Time
}

// peerSet translates the peers' leases into desired state by the backend, and retains withdrawn leases for their grace
// period. Only the loop's goroutine uses it.
type peerSet struct {
	view     peerView
	tables   peerTables
	backend  backend.Backend // nil until it is known; the tables have no peers until then
	own      [2]netip.Prefix // the node's subnets, by Family
	retained map[string]retainedPeer
}

func newPeerSet(v peerView, t peerTables) *peerSet {
	return &peerSet{view: v, tables: t, retained: map[string]retainedPeer{}}
}

// use replaces the desired state of all peers by that of another backend.
func (s *peerSet) use(b backend.Backend) {
	last := s.backend
	replace := func(o network.Owner, l *subnet.Lease) {
		s.tables.Replace(o, peerState(last, l), peerState(b, l))
	}
	for m := range s.view.Peers {
		replace(network.Owner{Name: m.Name, Age: m.Order}, &m.Lease)
	}
	for key, r := range s.retained {
		replace(network.Owner{Name: key, Grace: true}, &r.lease)
	}
	s.backend = b
}

// apply applies changes of the leases to the tables. Withdrawn leases are retained for the period grace. It returns the
// numbers of added, removed and changed leases.
func (s *peerSet) apply(changes []subnet.Change, grace time.Duration, now time.Time) (added, removed, changed int) {
	if s.backend == nil {
		return 0, 0, 0 // use will add all leases
	}
	if len(changes) > 0 {
		s.tables.Grow(len(changes), peerState(s.backend, changes[0].After))
	}
	for _, c := range changes {
		last := peerState(s.backend, c.Before)
		if r, ok := s.retained[c.Name]; ok && c.Before == nil {
			last = peerState(s.backend, &r.lease)
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
			s.tables.Replace(owner, last, peerState(s.backend, c.After))
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

// retain retains a peer of an earlier run whose lease is missing now.
func (s *peerSet) retain(m subnet.Record, until time.Time) {
	if _, ok, _ := s.view.Get(m.Name); ok || s.isOwn(m.Lease) {
		return
	}
	s.retained[m.Name] = retainedPeer{lease: m.Lease, until: until}
	owner := network.Owner{Name: m.Name, Grace: true, Age: m.Order}
	s.tables.Replace(owner, network.State{}, peerState(s.backend, &m.Lease))
}

// expire removes retained peers whose grace period has ended, and those whose subnet this node has now.
func (s *peerSet) expire(wake *alarm) {
	for key, r := range s.retained {
		if wake.now.Before(r.until) && !s.isOwn(r.lease) {
			wake.set(r.until)
			continue
		}
		delete(s.retained, key)
		s.tables.Replace(network.Owner{Name: key}, peerState(s.backend, &r.lease), network.State{})
	}
}

// isOwn reports whether a lease overlaps this node's own subnets.
func (s *peerSet) isOwn(l subnet.Lease) bool {
	for _, f := range subnet.Families() {
		if l.Has(f) && s.own[f].IsValid() && l.Endpoints[f].Subnet.Overlaps(s.own[f]) {
			return true
		}
	}
	return false
}

// peerState returns the desired state for a peer's lease. It is empty without a lease or a backend.
func peerState(b backend.Backend, l *subnet.Lease) (s network.State) {
	if b != nil && l != nil {
		s, _ = b.Peer(*l) // the view accepts only what the backend can use
	}
	return s
}
