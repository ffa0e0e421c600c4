package etcd

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
)

// quietInterval is how long a stream may be silent before the store is asked whether nothing has happened.
const quietInterval = 30 * time.Second

var errSilent = errors.New("etcd's watch is silent")

// check asks the store whether it has the history that the watcher has seen, and returns its revision. The error is
// errHistory if it has another one, errMissed if it may have another one or the stream broke before all had arrived,
// and [rpctypes.ErrCompacted] if what follows the position is compacted. Each needs a new snapshot.
//
// A store that was wiped or restored from a backup keeps its cluster id if it is set up as before, and a watch that
// waits for a revision which it will reach in a month stays silent. It is recognised by a revision in its future, or by
// a config or lease that was not written when ours was.
func (w *watcher) check(ctx context.Context) (revision int64, err error) {
	p := w.where()
	at := clientv3.WithRev(max(p.seen, p.configAt))
	ops := []clientv3.Op{clientv3.OpGet(w.keys.config, clientv3.WithKeysOnly(), at)}
	if p.mark != "" {
		ops = append(ops, clientv3.OpGet(w.keys.subnets+p.mark, clientv3.WithKeysOnly(), clientv3.WithRev(p.seen)))
	}
	resp, err := w.read(ctx, ops)
	switch {
	case errors.Is(err, rpctypes.ErrFutureRev):
		return 0, errHistory
	case err != nil:
		return 0, err
	}
	modified := func(i int) int64 {
		if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			return kvs[0].ModRevision
		}
		return 0
	}
	config := modified(0)
	switch {
	case resp.Header.ClusterId != p.cluster, config < p.config, p.mark != "" && modified(1) != p.marked:
		return 0, errHistory
	case config > p.config:
		return 0, errMissed
	}
	return resp.Header.Revision, nil
}

// contradicts reports whether a snapshot that begins at p cannot be of the history that was followed up to old, whose
// end may be compacted: it is of another cluster, of an older revision, or has a config that existed at old's time and
// that old does not have. Nothing contradicts the zero position.
func (old position) contradicts(p position) bool {
	unknownConfig := p.config > 0 && p.config <= old.configAt && p.config != old.config
	return old.seen > 0 && (p.cluster != old.cluster || p.seen < old.seen || unknownConfig)
}

// contradictsLease does the same for a lease of the snapshot.
func (old position) contradictsLease(r subnet.Record) bool {
	return old.seen > 0 && r.Name == old.mark && r.Version <= old.seen && r.Version != old.marked
}

// monitor watches over a stream until ctx ends, and ends it with a reason if it has to be replaced. A silent stream can
// mean that nothing happens, that the store is another one, or that the watch is dead while its connection lives. A
// request distinguishes the first two. If the store's revision has grown, the watch is asked for its progress: etcd
// answers for each watch that is not behind (since 3.7 only once the store has reached the revision at which the watch
// began, which is why the revision has to have grown).
func (w *watcher) monitor(ctx context.Context, stream pb.Watch_WatchClient, end context.CancelCauseFunc) {
	asked := false
	for {
		timer := time.NewTimer(outage.Jitter(w.opts.quiet))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if w.heard.Swap(false) || w.busy.Load() {
			asked = false
			continue
		}
		if asked {
			end(errSilent)
			return
		}
		revision, err := w.check(ctx)
		if err != nil {
			end(err)
			return
		}
		if revision > w.where().seen {
			asked = true
			progress := &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}
			if err := stream.Send(&pb.WatchRequest{RequestUnion: progress}); err != nil {
				return // the stream has ended, and its reader has the reason
			}
		}
	}
}
