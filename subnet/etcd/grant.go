package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// grant is an etcd lease that we asked for and that no claim is known to have used. Races for subnets are lost often
// when many nodes start, and a lease for each attempt would be thousands that live on for a day.
type grant struct {
	id  int64
	ttl time.Duration // as etcd gave it
	// What a transaction of unknown outcome may have put on it, and for which instance. Both are empty if it is unused.
	key, instance string
}

// takeGrant returns an etcd lease for e: a spare one if there is one, else a new one.
func (s *Store) takeGrant(ctx context.Context, e entry) (*grant, error) {
	use, stale := s.takeSpares(e)
	for i, g := range stale {
		// It may hold another key of the same instance, which no claim would ever give back. Without its lease that key
		// is gone, and a transaction that is still on its way fails.
		if err := s.revoke(ctx, g.id); err != nil {
			s.addSpares(append(stale[i:], use)...)
			return nil, fmt.Errorf("give back the etcd lease of %s: %w", g.key, err)
		}
	}
	if use != nil {
		return use, nil
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	resp, err := s.client.Grant(ctx, int64(s.ttl()/time.Second))
	if err != nil {
		return nil, fmt.Errorf("get an etcd lease: %w", s.explain(ctx, err))
	}
	return &grant{id: int64(resp.ID), ttl: time.Duration(resp.TTL) * time.Second}, nil
}

// takeSpares takes the spare lease that is to be used for e, if there is one, and those that hold something else of the
// same instance. What other instances may have is theirs: several can share a store.
func (s *Store) takeSpares(e entry) (use *grant, stale []*grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unused := func(g *grant) bool { return g.key == "" }
	ours := func(g *grant) bool { return !unused(g) && g.instance == e.lease.InstanceID }
	for _, g := range s.spares {
		if ours(g) && g.key == e.key && use == nil {
			use = g
		} else if ours(g) {
			stale = append(stale, g)
		}
	}
	if i := slices.IndexFunc(s.spares, unused); use == nil && i >= 0 {
		use = s.spares[i]
	}
	s.spares = slices.DeleteFunc(s.spares, func(g *grant) bool { return g == use || ours(g) })
	return use, stale
}

// ttl is LeaseTTL in whole seconds, as etcd counts.
func (s *Store) ttl() time.Duration { return (s.opts.LeaseTTL + time.Second - 1).Truncate(time.Second) }

// keepUnused keeps a lease that nothing was put on, for the next claim.
func (s *Store) keepUnused(g *grant) { s.addSpares(&grant{id: g.id, ttl: g.ttl}) }

// keepUnsettled keeps a lease on which e may have been put.
func (s *Store) keepUnsettled(g *grant, e entry) {
	s.addSpares(&grant{id: g.id, ttl: g.ttl, key: e.key, instance: e.lease.InstanceID})
}

// addSpares adds to the spare leases those that are not nil.
func (s *Store) addSpares(grants ...*grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range grants {
		if g != nil {
			s.spares = append(s.spares, g)
		}
	}
}

// usedGrant notes that an etcd lease carries a claimed key.
func (s *Store) usedGrant(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spares = slices.DeleteFunc(s.spares, func(g *grant) bool { return g.id == id })
}

// keepAlive renews an etcd lease and returns the time it now has. The error is [rpctypes.ErrLeaseNotFound] if it does
// not exist (any more).
func (s *Store) keepAlive(ctx context.Context, id int64) (time.Duration, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	stream, err := s.leases.LeaseKeepAlive(ctx)
	if err != nil {
		return 0, fmt.Errorf("renew the etcd lease: %w", s.explain(ctx, err))
	}
	// Of a stream that broke, Send says only that it did (io.EOF), and Recv why.
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("renew the etcd lease: %w", s.explain(ctx, err))
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, fmt.Errorf("renew the etcd lease: %w", s.explain(ctx, rpctypes.Error(err)))
	}
	if resp.TTL <= 0 {
		return 0, fmt.Errorf("renew the etcd lease: %w", rpctypes.ErrLeaseNotFound)
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// revoke ends an etcd lease and deletes what hangs on it. One that is gone already is no error.
func (s *Store) revoke(ctx context.Context, id int64) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	_, err := s.client.Revoke(ctx, clientv3.LeaseID(id))
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return s.explain(ctx, err)
	}
	return nil
}
