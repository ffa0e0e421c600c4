// Package memstore is a lease store in memory, for tests: a small but complete [subnet.Store] that passes all of
// storetest for its kind. It stands for the stores that exist and for those to come, since it rests on nothing but the
// interfaces of package subnet:
//
//   - made with [New], it is like etcd: the nodes choose their subnets, a record's name is the lease's key, and a lease
//     that is not renewed expires;
//   - made with [NewAllocating], it is like the Kubernetes API: a node is known by its name, the store gives it its
//     subnets, and its lease lasts as long as the node is known.
package memstore

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Server is what all clients of a store share. It is safe for concurrent use. Close it when it is of no use any more.
type Server struct {
	allocates bool

	mu      sync.Mutex
	changed chan struct{} // closed at each change, and replaced
	state   state
	history int // counts wipes and restored backups
}

// state is what a backup of a server holds.
type state struct {
	revision  int64
	compacted int64          // changes up to this revision are forgotten
	events    []subnet.Event // changes after compacted, one a revision
	config    []byte         // nil: none
	records   map[string]subnet.Record
	nodes     map[string]node // of a store that allocates, by name
	grants    map[int64]*grant
	lastGrant int64
	asked     map[string]bool // records whose holders are asked whether they are alive, by name
}

// node is a node that the store knows.
type node struct {
	since   int64
	changed int64
	subnets [2]netip.Prefix
}

// grant is a time for which a record is kept.
type grant struct {
	record string // its name
	end    time.Time
	timer  *time.Timer
}

// New returns an empty store in which the nodes allocate.
func New() *Server { return &Server{changed: make(chan struct{}), state: empty()} }

// NewAllocating returns an empty store that allocates.
func NewAllocating() *Server {
	s := New()
	s.allocates = true
	return s
}

func empty() state {
	return state{
		revision: 1, compacted: 1,
		records: map[string]subnet.Record{}, nodes: map[string]node{}, grants: map[int64]*grant{},
		asked: map[string]bool{},
	}
}

// Close stops the server's timers.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimers()
}

func (s *Server) stopTimers() {
	for _, g := range s.state.grants {
		g.timer.Stop()
	}
}

// step makes one change, with the lock held.
func (s *Server) step(e subnet.Event) {
	s.state.revision++
	e.Type, e.Revision = subnet.Changed, s.state.revision
	for i := range e.Put {
		r := &e.Put[i]
		if r.Version = e.Revision; r.Order == 0 {
			r.Order = e.Revision
		}
		s.state.records[r.Name] = *r
		delete(s.state.asked, r.Name)
	}
	for _, name := range e.Deleted {
		delete(s.state.records, name)
		delete(s.state.asked, name)
	}
	if e.ConfigSet {
		s.state.config = e.Config
	}
	s.state.events = append(s.state.events, e)
	s.wake()
}

func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Write sets "config", or a key such as "subnets/10.5.1.0-24" by hand, without a lease. Other keys are ignored.
func (s *Server) Write(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == "config" {
		s.step(subnet.Event{ConfigSet: true, Config: []byte(value)})
	} else if name, ok := strings.CutPrefix(key, "subnets/"); ok {
		r := subnet.DecodeRecord(name, []byte(value))
		r.Order = s.state.records[name].Order
		s.step(subnet.Event{Put: []subnet.Record{r}})
	}
}

// Put sets a record of a lease by hand, with the order given; 0: the one that it has, or that of a new record.
func (s *Server) Put(l subnet.Lease, order int64) (name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := subnet.Record{Lease: l, Name: l.Key(), Order: order}
	if order == 0 {
		r.Order = s.state.records[r.Name].Order
	}
	s.step(subnet.Event{Put: []subnet.Record{r}})
	return r.Name
}

// Delete removes what Write or Put set.
func (s *Server) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key == "config" {
		s.step(subnet.Event{ConfigSet: true})
	} else if name, ok := strings.CutPrefix(key, "subnets/"); ok {
		s.drop(name)
	}
}

// drop removes a record, if there is one.
func (s *Server) drop(name string) {
	if _, ok := s.state.records[name]; ok {
		s.step(subnet.Event{Deleted: []string{name}})
	}
}

// Expire ends a record's lease at once.
func (s *Server) Expire(r subnet.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoke(r.LeaseID)
}

// Records returns all records, in the order of their names.
func (s *Server) Records() []subnet.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.state.records), func(a, b subnet.Record) int {
		return strings.Compare(a.Name, b.Name)
	})
}

// AddNode makes a node known to a store that allocates.
func (s *Server) AddNode(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.state.nodes[name]; !ok {
		s.step(subnet.Event{})
		s.state.nodes[name] = node{since: s.state.revision, changed: s.state.revision}
	}
}

// Allocate gives a known node its subnets.
func (s *Server) Allocate(name string, subnets ...netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.state.nodes[name]
	for _, p := range subnets {
		n.subnets[subnet.FamilyOf(p.Addr())] = p
	}
	s.step(subnet.Event{})
	n.changed = s.state.revision
	s.state.nodes[name] = n
}

// Publish writes a known node's lease, as another client could: all but its subnets, which are the node's.
func (s *Server) Publish(name string, l subnet.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.publish(name, l)
}

// publish is Publish with the lock held, and its result.
func (s *Server) publish(name string, l subnet.Lease) (subnet.Record, error) {
	n := s.state.nodes[name]
	for _, f := range subnet.Families() {
		e := &l.Endpoints[f]
		if !e.PublicIP.IsValid() {
			*e = subnet.Endpoint{}
			continue
		}
		if e.Subnet = n.subnets[f]; !e.Subnet.IsValid() {
			return subnet.Record{}, subnet.ErrNotAllocated
		}
	}
	if r, ok := s.state.records[name]; ok && r.Lease == l {
		return r, nil
	}
	s.step(subnet.Event{Put: []subnet.Record{{Lease: l, Name: name, Order: n.since}}})
	return s.state.records[name], nil
}

// RemoveNode makes a node unknown, and ends its lease.
func (s *Server) RemoveNode(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.state.nodes, name)
	s.drop(name)
}

// Wipe makes the server empty.
func (s *Server) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.become(empty())
}

// Backup returns what makes the server as it is now.
func (s *Server) Backup() (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	saved := s.state
	saved.events, saved.compacted = nil, saved.revision
	saved.asked = maps.Clone(saved.asked)
	saved.records, saved.nodes = maps.Clone(saved.records), maps.Clone(saved.nodes)
	saved.grants = maps.Clone(saved.grants)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.become(saved)
	}
}

func (s *Server) become(next state) {
	s.stopTimers()
	s.state = next
	for id, g := range next.grants {
		left := time.Until(g.end)
		g.timer = time.AfterFunc(left, func() { s.expired(id, g) })
	}
	s.history++
	s.wake()
}

// Compact forgets all changes so far.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.events, s.state.compacted = nil, s.state.revision
}

// grant makes a lease of a record's.
func (s *Server) grant(record string, ttl time.Duration) int64 {
	s.state.lastGrant++
	id := s.state.lastGrant
	g := &grant{record: record, end: time.Now().Add(ttl)}
	g.timer = time.AfterFunc(ttl, func() { s.expired(id, g) })
	s.state.grants[id] = g
	return id
}

// renew lets a lease run for ttl from now on, and reports whether there is one.
func (s *Server) renew(id int64, ttl time.Duration) bool {
	g := s.state.grants[id]
	if g == nil || !g.timer.Stop() {
		return false
	}
	g.end = time.Now().Add(ttl)
	g.timer.Reset(ttl)
	return true
}

// revoke ends a lease, and with it the record that has it.
func (s *Server) revoke(id int64) {
	g := s.state.grants[id]
	if g == nil {
		return
	}
	g.timer.Stop()
	delete(s.state.grants, id)
	if s.state.records[g.record].LeaseID == id {
		s.drop(g.record)
	}
}

// expired is called by a lease's timer.
func (s *Server) expired(id int64, g *grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.grants[id] == g {
		s.revoke(id)
	}
}
