package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
)

// pageSize is how many leases are requested at a time. One answer is a few hundred kilobytes then.
const pageSize = 1000

// snapshot delivers everything that exists at one revision. The first request reads the config as well and sets the
// revision. If that is compacted before the last page is there, the snapshot fails and has to be started over.
func (w *watcher) snapshot(ctx context.Context) error {
	var (
		p      position
		old    = w.where()
		synced = subnet.Event{Type: subnet.Synced, ConfigSet: true}
		from   = w.keys.subnets
		size   = int64(pageSize)
		leases = 0
	)
	for {
		options := []clientv3.OpOption{
			clientv3.WithRange(w.keys.end), clientv3.WithLimit(size), clientv3.WithRev(p.seen),
		}
		ops := []clientv3.Op{clientv3.OpGet(from, options...)}
		first := p.seen == 0
		if first {
			ops = append(ops, clientv3.OpGet(w.keys.config))
		}
		resp, err := w.read(ctx, ops)
		if oversized(err) && size > 1 {
			size = max(1, size/4) // there are values far larger than a lease's
			continue
		}
		if err != nil {
			return fmt.Errorf("list the leases: %w", err)
		}
		if first {
			p.cluster, p.seen = resp.Header.ClusterId, resp.Header.Revision
			if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
				synced.Config = present(kvs[0].Value)
				p.config, p.configAt = kvs[0].ModRevision, kvs[0].ModRevision
			}
			if old.contradicts(p) {
				w.regress()
			}
		}
		page := resp.Responses[0].GetResponseRange()
		if leases += len(page.Kvs); len(page.Kvs) > 0 {
			records := make([]subnet.Record, len(page.Kvs))
			for i, kv := range page.Kvs {
				records[i] = w.keys.record(kv)
				p.note(records[i])
				if old.contradictsLease(records[i]) {
					w.regress()
				}
			}
			from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
			if err := w.deliver(subnet.Event{Type: subnet.Page, Revision: p.seen, Put: records}); err != nil {
				return err
			}
		}
		if !page.More {
			break
		}
	}
	synced.Revision, synced.Cluster, synced.Regressed = p.seen, p.cluster, w.regressed
	w.leases = leases
	w.moveTo(p)
	return w.deliver(synced)
}

// read runs the reads given as one request: they see one revision.
func (s *Store) read(ctx context.Context, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	return resp, s.explain(ctx, err)
}

// present returns a value that exists: etcd's answer has nil for an empty one, which for us means that there is none.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}
