package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Store is one node's client of a [Server].
type Store struct {
	server *Server
	node   string        // whose client it is; of a store that allocates
	ttl    time.Duration // of a lease without renewal; of a store in which the nodes allocate

	allocation atomic.Int64 // as Watch has last seen it

	mu     sync.Mutex
	latest map[identity]subnet.Record // what Hold has made of records, for Release
}

// identity names a record as it was given to Hold, whatever becomes of it.
type identity struct {
	name  string
	order int64
}

// Expiring is a [Store] whose leases expire.
type Expiring struct{ *Store }

var (
	_ subnet.Store     = (*Store)(nil)
	_ subnet.Allocator = (*Store)(nil)
	_ subnet.Store     = Expiring{}
	_ subnet.Expirer   = Expiring{}

	_ subnet.Challenger = Expiring{}
)

// Open returns a client of a server in which the nodes allocate, with leases that outlive their last renewal for ttl.
func (s *Server) Open(ttl time.Duration) Expiring {
	return Expiring{&Store{server: s, ttl: ttl, latest: map[identity]subnet.Record{}}}
}

// OpenNode returns the client of a node, of a server that allocates.
func (s *Server) OpenNode(name string) *Store {
	return &Store{server: s, node: name, latest: map[identity]subnet.Record{}}
}

// Allocates implements [subnet.Allocator].
func (s *Store) Allocates() bool { return s.server.allocates }

// Allocation implements [subnet.Allocator].
func (s *Store) Allocation() int64 { return s.allocation.Load() }

// Expires implements [subnet.Expirer].
func (s Expiring) Expires(held subnet.Record) time.Time {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if g := s.server.state.grants[held.LeaseID]; g != nil {
		return g.end
	}
	return time.Time{}
}

// pageSize is how many records a page of a snapshot has at most.
const pageSize = 1000

// Watch implements [subnet.Store].
func (s *Store) Watch(ctx context.Context, changed func(subnet.Event) error) error {
	v := s.server
	history, seen := -1, int64(0)
	for ctx.Err() == nil {
		v.mu.Lock()
		woken := v.changed
		var events []subnet.Event
		if history != v.history || seen < v.state.compacted {
			events = v.snapshot(history >= 0 && history != v.history)
			history = v.history
		} else {
			for _, e := range v.state.events {
				if e.Revision > seen {
					e.Put = slices.Clone(e.Put) // the callback's own
					events = append(events, e)
				}
			}
		}
		seen = v.state.revision
		if n, ok := v.state.nodes[s.node]; ok {
			s.allocation.Store(n.changed)
		}
		v.mu.Unlock()
		for _, e := range events {
			if err := changed(e); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
		}
		select {
		case <-woken:
		case <-ctx.Done():
		}
	}
	return nil
}

// snapshot returns the events of everything, with the lock held.
func (s *Server) snapshot(regressed bool) (events []subnet.Event) {
	records := slices.Collect(maps.Values(s.state.records))
	for page := range slices.Chunk(records, pageSize) {
		events = append(events, subnet.Event{Type: subnet.Page, Revision: s.state.revision, Put: page})
	}
	return append(events, subnet.Event{
		Type: subnet.Synced, Revision: s.state.revision, ConfigSet: true, Config: s.state.config, Regressed: regressed,
	})
}

// Claim implements [subnet.Store].
func (s *Store) Claim(_ context.Context, have *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	v := s.server
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.allocates {
		r, err := v.publish(s.node, want)
		if err != nil {
			return r, fmt.Errorf("claim for node %q: %w", s.node, err)
		}
		return r, nil
	}
	value, err := want.Value()
	if err != nil {
		return subnet.Record{}, fmt.Errorf("claim: %w", err)
	}
	want = subnet.DecodeRecord(want.Key(), value).Lease // as it will be read
	r, err := s.write(have, want)
	if err != nil {
		return r, fmt.Errorf("claim %s: %w", want.Key(), err)
	}
	return r, nil
}

// write makes a lease of the record have, or of a new one, with the lock held.
func (s *Store) write(have *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	v := s.server
	if have != nil {
		now, ok := v.state.records[have.Name]
		switch {
		case !ok && have.LeaseID != 0:
			have = nil // it expired: as if there had been none
		case !ok, now.Version != have.Version:
			return subnet.Record{}, fmt.Errorf("%w: %s has changed", subnet.ErrTaken, have.Name)
		default:
			have = &now
		}
	}
	name := want.Key()
	for other := range v.state.records {
		if (have == nil || have.Name != name && have.Name != other) && leading(other) == leading(name) {
			return subnet.Record{}, fmt.Errorf("%w: there is %s", subnet.ErrTaken, other)
		}
	}
	next := subnet.Record{Lease: want, Name: name}
	e := subnet.Event{}
	switch {
	case have == nil:
		next.LeaseID = v.grant(name, s.ttl)
	default:
		if next.LeaseID = have.LeaseID; next.LeaseID != 0 {
			v.renew(next.LeaseID, s.ttl)
		}
		if have.Name == name && have.Lease == want && have.Bad == nil {
			return *have, nil
		}
		if have.Name == name {
			next.Order = have.Order
		} else {
			e.Deleted = []string{have.Name}
			if g := v.state.grants[next.LeaseID]; g != nil {
				g.record = name
			}
		}
	}
	e.Put = []subnet.Record{next}
	v.step(e)
	return v.state.records[name], nil
}

// leading returns the part of a key that other keys of the same subnet start with.
func leading(key string) string {
	lead, _, _ := strings.Cut(key, "&")
	return lead
}

// Hold implements [subnet.Store].
func (s *Store) Hold(ctx context.Context, held subnet.Record, changed <-chan subnet.Lease) error {
	id := identity{held.Name, held.Order}
	renew := time.NewTicker(max(s.ttl/3, time.Millisecond))
	defer renew.Stop()
	if s.server.allocates {
		renew.Stop()
	}
	for {
		woken, err := s.keep(&held)
		if err != nil {
			return fmt.Errorf("hold %s: %w", held.Name, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-woken:
		case <-renew.C:
		case l, ok := <-changed:
			if !ok {
				changed = nil
				continue
			}
			if err := s.update(&held, l); err != nil {
				return fmt.Errorf("hold %s: %w", held.Name, err)
			}
			s.mu.Lock()
			s.latest[id] = held
			s.mu.Unlock()
		}
	}
}

// keep renews a record, if it is still ours, and returns what is closed at the next change of the store.
func (s *Store) keep(held *subnet.Record) (woken <-chan struct{}, err error) {
	v := s.server
	v.mu.Lock()
	defer v.mu.Unlock()
	now, ok := v.state.records[held.Name]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: it is gone", subnet.ErrLost)
	case now.LeaseID != held.LeaseID, (now.Bad != nil || now.Lease != held.Lease) && now.Version != held.Version:
		return nil, fmt.Errorf("%w: %w", subnet.ErrLost, subnet.ErrRewritten)
	}
	if now.LeaseID != 0 && !v.renew(now.LeaseID, s.ttl) {
		return nil, fmt.Errorf("%w: it has expired", subnet.ErrLost)
	}
	if v.state.asked[now.Name] {
		v.step(subnet.Event{Put: []subnet.Record{now}}) // the answer
		now = v.state.records[now.Name]
	}
	*held = now
	return v.changed, nil
}

// Challenge implements [subnet.Challenger].
func (s Expiring) Challenge(ctx context.Context, r subnet.Record, patience time.Duration) (subnet.Record, bool, error) {
	v := s.server
	v.mu.Lock()
	if v.state.records[r.Name] != r {
		v.mu.Unlock()
		return r, false, fmt.Errorf("ask the holder of %s: %w", r.Name, subnet.ErrTaken)
	}
	v.step(subnet.Event{Put: []subnet.Record{r}})
	v.state.asked[r.Name] = true
	v.mu.Unlock()
	end := time.NewTimer(patience)
	defer end.Stop()
	for over := false; ; {
		v.mu.Lock()
		woken, asked, now := v.changed, v.state.asked[r.Name], v.state.records[r.Name]
		v.mu.Unlock()
		switch {
		case now.Lease != r.Lease:
			return now, false, fmt.Errorf("ask the holder of %s: %w", r.Name, subnet.ErrTaken)
		case !asked || over:
			return now, !asked, nil
		}
		select {
		case <-woken:
		case <-end.C:
			over = true
		case <-ctx.Done():
			return r, false, ctx.Err()
		}
	}
}

// update writes another lease to a held record.
func (s *Store) update(held *subnet.Record, l subnet.Lease) error {
	if _, err := s.keep(held); err != nil {
		return err
	}
	v := s.server
	v.mu.Lock()
	defer v.mu.Unlock()
	var (
		r   subnet.Record
		err error
	)
	if v.allocates {
		r, err = v.publish(held.Name, l)
	} else {
		r, err = s.write(held, l)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", subnet.ErrLost, err)
	}
	*held = r
	return nil
}

// Release implements [subnet.Store].
func (s *Store) Release(_ context.Context, held subnet.Record) error {
	s.mu.Lock()
	id := identity{held.Name, held.Order}
	if latest, ok := s.latest[id]; ok {
		held = latest
		delete(s.latest, id)
	}
	s.mu.Unlock()
	v := s.server
	v.mu.Lock()
	defer v.mu.Unlock()
	if now, ok := v.state.records[held.Name]; !ok {
		return nil
	} else if now.Version != held.Version {
		return fmt.Errorf("release %s: %w: another process changed it", held.Name, subnet.ErrLost)
	}
	v.drop(held.Name)
	v.revoke(held.LeaseID)
	return nil
}
