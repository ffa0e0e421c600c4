package etcd

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
)

// StoredConfig is the network config as etcd has it.
type StoredConfig struct {
	Key      string
	Data     []byte // JSON, as it was written; nil: there is none
	Revision int64  // of its last change; 0: there is none
}

// ErrConfigChanged means that the network config in etcd is not the one that was read before.
var ErrConfigChanged = errors.New("the network config has changed meanwhile: read it again")

// ReadConfig reads the network config.
func (s *Store) ReadConfig(ctx context.Context) (StoredConfig, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	c := StoredConfig{Key: s.keys.config}
	answer, err := s.client.Get(ctx, c.Key)
	if err != nil {
		return c, fmt.Errorf("read %s: %w", c.Key, problemOf(s.explain(ctx, err)).Err)
	}
	for _, kv := range answer.Kvs {
		c.Data, c.Revision = kv.Value, kv.ModRevision
	}
	return c, nil
}

// WriteConfig replaces the network config that was read before; if etcd has another one by now it changes nothing and
// returns [ErrConfigChanged].
func (s *Store) WriteConfig(ctx context.Context, before StoredConfig, data []byte) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	answer, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.keys.config), "=", before.Revision)).
		Then(clientv3.OpPut(s.keys.config, string(data))).Commit()
	switch {
	case err != nil:
		return fmt.Errorf("write %s: %w", s.keys.config, problemOf(s.explain(ctx, err)).Err)
	case !answer.Succeeded:
		return fmt.Errorf("write %s: %w", s.keys.config, ErrConfigChanged)
	}
	return nil
}

// Records lists all leases that are well formed.
func (s *Store) Records(ctx context.Context) ([]subnet.Record, error) {
	all, _, err := s.find(ctx, func(subnet.Lease) bool { return true })
	if err != nil {
		return nil, fmt.Errorf("list the leases: %w", err)
	}
	return all, nil
}
