package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/selvage-net/selvage/subnet"
)

// memStore is a lease store in memory, with faults that a test can switch on.
type memStore struct {
	mu      sync.Mutex
	events  []subnet.Event // one a revision, from revision 1 on
	records map[string]subnet.Record
	config  []byte
	changed chan struct{} // closed at the next change

	silent   bool  // Watch reports nothing
	claimErr error // what Claim returns
	claims   int   // that were tried
	held     map[string]func(error)
	written  int // updates that Hold wrote
}

func newMemStore() *memStore {
	return &memStore{records: map[string]subnet.Record{}, changed: make(chan struct{}), held: map[string]func(error){}}
}

// apply makes one change under the lock.
func (s *memStore) apply(e subnet.Event) {
	e.Type, e.Revision = subnet.Changed, int64(len(s.events)+1)
	for i := range e.Put {
		r := &e.Put[i]
		if r.Version = e.Revision; r.Order == 0 {
			r.Order = e.Revision
		}
		s.records[r.Name] = *r
	}
	for _, key := range e.Deleted {
		delete(s.records, key)
	}
	if e.ConfigSet {
		s.config = e.Config
	}
	s.events = append(s.events, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

// set runs f under the lock, for a test that changes how the store behaves.
func (s *memStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *memStore) putConfig(json string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(subnet.Event{ConfigSet: true, Config: []byte(json)})
}

// put writes a lease as another node does.
func (s *memStore) put(l subnet.Lease) (key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := subnet.Record{Lease: l, Name: l.Key(), Order: s.records[l.Key()].Order, LeaseID: 1}
	s.apply(subnet.Event{Put: []subnet.Record{r}})
	return r.Name
}

func (s *memStore) delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(subnet.Event{Deleted: []string{key}})
}

// Watch implements subnet.Store.
func (s *memStore) Watch(ctx context.Context, changed func(subnet.Event) error) error {
	seen := -1
	for {
		s.mu.Lock()
		wait, silent := s.changed, s.silent
		var events []subnet.Event
		if !silent {
			if seen < 0 {
				revision := int64(len(s.events))
				events = []subnet.Event{
					{Type: subnet.Page, Revision: revision, Put: slices.Collect(maps.Values(s.records))},
					{Type: subnet.Synced, Revision: revision, ConfigSet: true, Config: s.config},
				}
			} else {
				events = slices.Clone(s.events[seen:])
			}
			seen = len(s.events)
		}
		s.mu.Unlock()
		for _, e := range events {
			if err := changed(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		}
	}
}

// Claim implements subnet.Store.
func (s *memStore) Claim(_ context.Context, have *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims++
	if s.claimErr != nil {
		return subnet.Record{}, s.claimErr
	}
	r := subnet.Record{Lease: want, Name: want.Key(), LeaseID: 1}
	if old, taken := s.records[r.Name]; taken && (have == nil || have.Name != r.Name || have.Version != old.Version) {
		return subnet.Record{}, fmt.Errorf("claim %s: %w", r.Name, subnet.ErrTaken)
	}
	e := subnet.Event{Put: []subnet.Record{r}}
	if have != nil && have.Name == r.Name {
		e.Put[0].Order = have.Order
	} else if have != nil {
		e.Deleted = []string{have.Name}
	}
	s.apply(e)
	return s.records[r.Name], nil
}

// Hold implements subnet.Store.
func (s *memStore) Hold(ctx context.Context, held subnet.Record, changed <-chan subnet.Lease) error {
	ended := make(chan error, 1)
	s.mu.Lock()
	s.held[held.Name] = func(err error) { ended <- err }
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, held.Name)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case l := <-changed:
			s.put(l)
			s.mu.Lock()
			s.written++
			s.mu.Unlock()
		}
	}
}

// Release implements subnet.Store.
func (s *memStore) Release(_ context.Context, held subnet.Record) error {
	s.delete(held.Name)
	return nil
}

// lose ends a Hold as if the lease had expired.
func (s *memStore) lose(key string) {
	s.mu.Lock()
	end := s.held[key]
	s.mu.Unlock()
	end(fmt.Errorf("hold %s: %w", key, subnet.ErrLost))
}
