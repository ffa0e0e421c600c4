package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
)

// follow delivers all changes after the position until something breaks. It always returns an error.
//
// One stream carries two watches, of the leases and of the config, so that the rights to read these two are enough.
// etcd promises no order between watches; therefore only that of the leases advances the position.
func (w *watcher) follow(parent context.Context) (err error) {
	// A member that has lost its leader would otherwise stay silent.
	ctx, end := context.WithCancelCause(clientv3.WithRequireLeader(parent))
	var monitoring sync.WaitGroup
	defer func() {
		if cause := context.Cause(ctx); cause != nil && parent.Err() == nil {
			err = cause // the stream's own error is only that it was ended
		}
		end(nil)
		monitoring.Wait()
	}()
	slow := time.AfterFunc(2*w.opts.RequestTimeout, func() { end(w.opts.explain(context.DeadlineExceeded)) })
	defer slow.Stop()

	stream, err := w.watches.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch: %w", w.explain(parent, err))
	}
	start := w.where().seen + 1
	const none = -2 // etcd counts watches from 0, and -1 stands for all
	leases, config := int64(none), int64(none)
	var rest []*mvccpb.Event // of a revision of which more is to come
	if err := create(stream, w.keys.subnets, w.keys.end, start); err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		w.heard.Store(true)
		switch {
		case err != nil:
			return fmt.Errorf("watch: %w", w.explain(parent, err))
		case resp.CompactRevision != 0:
			return fmt.Errorf("watch: %w", rpctypes.ErrCompacted)
		case resp.Canceled:
			return fmt.Errorf("watch: %w", w.explain(parent, cancelled(resp.CancelReason)))
		case resp.Created && leases == none:
			leases = resp.WatchId
			if err := create(stream, w.keys.config, "", start); err != nil {
				return err
			}
		case resp.Created:
			config = resp.WatchId
			slow.Stop()
			w.contact.Over()
			monitoring.Go(func() { w.monitor(ctx, stream, end) })
		case resp.WatchId == config && len(resp.Events) > 0:
			err = w.configChanged(resp)
		case resp.WatchId == config: // the progress of the other watch counts
		case len(resp.Events) > 0:
			var whole []*mvccpb.Event
			whole, rest = settled(append(rest, resp.Events...), resp.Fragment)
			err = w.leasesChanged(whole)
		default:
			err = w.progressed(resp.Header.GetRevision())
		}
		if err != nil {
			return err
		}
	}
}

// create requests a watch of a key, or of the range up to end if that is not empty. With Fragment, etcd splits a
// response that exceeds its limit for a message.
func create(stream pb.Watch_WatchClient, key, end string, start int64) error {
	request := &pb.WatchCreateRequest{Key: []byte(key), StartRevision: start, ProgressNotify: true, Fragment: true}
	if end != "" {
		request.RangeEnd = []byte(end)
	}
	err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}})
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("watch: %w", err)
	}
	return nil // Recv returns why a stream broke
}

// cancelled makes an error of etcd's reason for ending a watch, which is the text of a gRPC error.
func cancelled(reason string) error {
	if _, description, ok := strings.Cut(reason, "desc = "); ok {
		reason = description
	}
	if reason == "" {
		reason = "etcd ended the watch without a reason"
	}
	return rpctypes.Error(errors.New(reason))
}

// leasesChanged delivers events of the watch of the leases. The response's header has the revision of the store, which
// a watch that is catching up has not reached; the position is that of the last event.
func (w *watcher) leasesChanged(events []*mvccpb.Event) error {
	if len(events) == 0 {
		return nil
	}
	p := w.where()
	p.seen = events[len(events)-1].Kv.ModRevision
	e := w.keys.changes(events)
	e.Revision = p.seen
	if slices.Contains(e.Deleted, p.mark) {
		p.marked = 0
	}
	for _, r := range e.Put {
		p.note(r)
	}
	if err := w.deliver(e); err != nil {
		return err
	}
	w.moveTo(p)
	return nil
}

// settled splits events before their last revision if more fragments follow: only a fragment can end inside a revision,
// and a revision is delivered as a whole.
func settled(events []*mvccpb.Event, fragment bool) (whole, rest []*mvccpb.Event) {
	if !fragment {
		return events, nil
	}
	i := len(events)
	for last := events[i-1].Kv.ModRevision; i > 0 && events[i-1].Kv.ModRevision == last; {
		i--
	}
	return events[:i:i], slices.Clone(events[i:])
}

// configChanged delivers a response of the watch of the config. A watch that was created again repeats what was past
// the position of the leases.
func (w *watcher) configChanged(resp *pb.WatchResponse) error {
	p := w.where()
	last := resp.Events[len(resp.Events)-1]
	if last.Kv.ModRevision <= p.configAt {
		return nil
	}
	e := subnet.Event{Type: subnet.Changed, Revision: p.seen, ConfigSet: true}
	p.config, p.configAt = 0, last.Kv.ModRevision
	if last.Type == mvccpb.Event_PUT {
		p.config, e.Config = last.Kv.ModRevision, present(last.Kv.Value)
	}
	if err := w.deliver(e); err != nil {
		return err
	}
	w.moveTo(p)
	return nil
}

// progressed delivers that nothing happened up to a revision.
func (w *watcher) progressed(revision int64) error {
	p := w.where()
	if revision < p.seen {
		return fmt.Errorf("watch: etcd is at revision %d and was at %d", revision, p.seen) // check finds out why
	}
	if revision == p.seen {
		return nil
	}
	p.seen = revision
	if err := w.deliver(subnet.Event{Type: subnet.Changed, Revision: revision}); err != nil {
		return err
	}
	w.moveTo(p)
	return nil
}

// changes makes an event of changes to leases, in the order of their revisions. Only the last state of a key that
// changed more than once counts.
func (k keyspace) changes(events []*mvccpb.Event) subnet.Event {
	e := subnet.Event{Type: subnet.Changed}
	var done map[string]bool
	if len(events) > 1 {
		done = make(map[string]bool, len(events))
	}
	for _, ev := range slices.Backward(events) {
		key, ok := k.lease(ev.Kv.Key)
		if !ok || done[key] {
			continue
		}
		if done != nil {
			done[key] = true
		}
		if ev.Type == mvccpb.Event_DELETE {
			e.Deleted = append(e.Deleted, key)
		} else {
			e.Put = append(e.Put, k.record(ev.Kv))
		}
	}
	slices.Reverse(e.Put)
	slices.Reverse(e.Deleted)
	return e
}
