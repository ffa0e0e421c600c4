package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// grant is an etcd lease that we asked for and that no claim is known to have used. Races for subnets are lost often
// when many nodes start, and a lease for each try would be thousands that live on for a day.
type grant struct {
	id  int64
	ttl time.Duration // as etcd gave it
	key string        // what a transaction of unknown outcome may have put on it; empty: nothing
}

// takeGrant returns an etcd lease for key: the spare one if there is one, else a new one.
func (s *Store) takeGrant(ctx context.Context, key string) (*grant, error) {
	s.mu.Lock()
	g := s.spare
	s.spare = nil
	s.mu.Unlock()
	if g != nil && (g.key == "" || g.key == key) {
		return g, nil
	}
	if g != nil {
		// It may hold another key, which nobody would ever give back. Without its lease that key is gone, and a
		// transaction that is still on its way fails.
		if err := s.revoke(ctx, g.id); err != nil {
			s.keepGrant(g)
			return nil, fmt.Errorf("give back the etcd lease of %s: %w", g.key, err)
		}
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	resp, err := s.client.Grant(ctx, int64(s.ttl()/time.Second))
	if err != nil {
		return nil, fmt.Errorf("get an etcd lease: %w", s.explain(ctx, err))
	}
	return &grant{id: int64(resp.ID), ttl: time.Duration(resp.TTL) * time.Second}, nil
}

// ttl is LeaseTTL in whole seconds, as etcd counts.
func (s *Store) ttl() time.Duration { return (s.opts.LeaseTTL + time.Second - 1).Truncate(time.Second) }

// keepGrant keeps g for the next claim.
func (s *Store) keepGrant(g *grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = g
}

// usedGrant notes that the etcd lease id carries a claimed key, if it was the spare one.
func (s *Store) usedGrant(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare != nil && s.spare.id == id {
		s.spare = nil
	}
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
