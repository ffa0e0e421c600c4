package node

import (
	"context"
	"sync"
	"time"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest/memstore"
)

// memStore is a node's client of a store in memory, with faults that a test can switch on. It knows no expiry of a
// lease, and asks no holder.
type memStore struct {
	*memstore.Store
	server *memstore.Server

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change of what follows
	silent   bool          // Watch reports nothing
	claimErr error         // what Claim returns
	claims   int           // that were tried
}

func newMemStore() *memStore {
	server := memstore.New()
	return &memStore{Store: server.Open(24 * time.Hour).Store, server: server, changed: make(chan struct{})}
}

// set runs f under the lock, for a test that changes how the store behaves.
func (s *memStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *memStore) putConfig(json string) { s.server.Write("config", json) }

// put writes a lease as another node does.
func (s *memStore) put(l subnet.Lease) (key string) { return s.server.Put(l, 0) }

func (s *memStore) delete(key string) { s.server.Delete("subnets/" + key) }

// record returns the record of a name, or the zero value.
func (s *memStore) record(name string) subnet.Record {
	for _, r := range s.server.Records() {
		if r.Name == name {
			return r
		}
	}
	return subnet.Record{}
}

// Watch implements subnet.Store. What happens while the store is silent is reported later.
func (s *memStore) Watch(ctx context.Context, changed func(subnet.Event) error) error {
	return s.Store.Watch(ctx, func(e subnet.Event) error {
		for {
			s.mu.Lock()
			wait, silent := s.changed, s.silent
			s.mu.Unlock()
			if !silent {
				return changed(e)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-wait:
			}
		}
	})
}

// Claim implements subnet.Store.
func (s *memStore) Claim(ctx context.Context, have *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	s.mu.Lock()
	s.claims++
	err := s.claimErr
	s.mu.Unlock()
	if err != nil {
		return subnet.Record{}, err
	}
	return s.Store.Claim(ctx, have, want)
}
