package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
)

// challengeField is the field of a lease's value by which a node asks the holder whether it is alive. Its content is
// random, so that the node recognises its own question. Nodes ignore the field, flannel's too, as any unknown field; a
// holder writes its value again without it.
const challengeField = "SelvageChallenge"

// challengePoll spaces the reads that wait for an answer.
var challengePoll = backoff.Policy{Min: 25 * time.Millisecond, Max: 400 * time.Millisecond}

// Challenge implements [subnet.Challenger]. It takes two writes: the question and the answer.
func (s *Store) Challenge(ctx context.Context, r subnet.Record, patience time.Duration) (
	now subnet.Record, alive bool, err error) {
	question := rand.Text()
	kv, err := s.pose(ctx, r, question)
	if err != nil {
		return r, false, fmt.Errorf("ask the holder of %s: %w", r.Name, err)
	}
	var poll backoff.Backoff
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if !outage.Sleep(ctx, poll.Next(challengePoll, time.Now())) {
			return r, false, ctx.Err()
		}
		next, err := s.get(ctx, r.Name)
		switch {
		case err != nil:
			// If this node cannot reach the store, the holder may not reach it either.
			return r, false, fmt.Errorf("ask the holder of %s: %w", r.Name, err)
		case next == nil:
			return r, false, fmt.Errorf("ask the holder of %s: %w: the key is gone", r.Name, subnet.ErrTaken)
		}
		kv = next
		now = s.keys.record(kv)
		switch {
		case !sameLease(now, r):
			return now, false, fmt.Errorf("ask the holder of %s: %w: its lease has changed", r.Name, subnet.ErrTaken)
		case challengeOf(kv.Value) == "":
			return now, true, nil
		} // otherwise the question, of this node or of another one, is not answered yet
	}
	return s.keys.record(kv), false, nil
}

// pose writes a question into the value of a record, if it is unchanged, and returns the key as it is then.
func (s *Store) pose(ctx context.Context, r subnet.Record, question string) (*mvccpb.KeyValue, error) {
	kv, err := s.get(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	if kv == nil || kv.ModRevision != r.Version {
		return nil, fmt.Errorf("%w: it has changed", subnet.ErrTaken)
	}
	value, err := withChallenge(kv.Value, question)
	if err != nil {
		return nil, err
	}
	put, err := s.replaceValue(ctx, r, value)
	if err != nil {
		return nil, err
	}
	if put == nil || challengeOf(put.Value) != question {
		return nil, fmt.Errorf("%w: it has changed", subnet.ErrTaken)
	}
	return put, nil
}

// replaceValue replaces the value of a record that is unchanged, on the same etcd lease, and returns the key as it is
// then, changed by this or by another process; nil: it is gone.
func (s *Store) replaceValue(ctx context.Context, r subnet.Record, value []byte) (*mvccpb.KeyValue, error) {
	key := s.keys.subnets + r.Name
	get := clientv3.OpGet(key)
	resp, err := s.commit(ctx,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", r.Version)},
		[]clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithIgnoreLease()), get},
		[]clientv3.Op{get})
	if err != nil {
		return nil, err
	}
	kvs := resp.Responses[len(resp.Responses)-1].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return nil, nil
	}
	return kvs[0], nil
}

// answer reverts a question in the value of the record of h. If another process has written the key meanwhile, it is
// read again.
func (s *Store) answer(ctx context.Context, h *hold) error {
	e, err := entryOf(h.current.Lease)
	if err != nil {
		return err
	}
	kv, err := s.replaceValue(ctx, h.current, e.value)
	if err != nil {
		return fmt.Errorf("answer another node: %w", err)
	}
	if kv == nil || !bytes.Equal(kv.Value, e.value) {
		select {
		case h.changed <- struct{}{}:
		default:
		}
		return nil
	}
	s.holding(h, s.keys.record(kv))
	return nil
}

// get reads the key of a record; nil: it does not exist.
func (s *Store) get(ctx context.Context, name string) (*mvccpb.KeyValue, error) {
	short, cancel := s.deadline(ctx)
	defer cancel()
	resp, err := s.client.Get(short, s.keys.subnets+name)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", s.explain(ctx, err))
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return resp.Kvs[0], nil
}

// withChallenge returns a lease's value with a question in it.
func withChallenge(value []byte, question string) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(value, &fields); err != nil {
		return nil, err
	}
	fields[challengeField], _ = json.Marshal(question) // a string
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // see subnet.Lease.Value
	err := enc.Encode(fields)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// challengeOf returns the question in a lease's value, or "".
func challengeOf(value []byte) string {
	if !bytes.Contains(value, []byte(challengeField)) {
		return "" // the usual case
	}
	var v struct{ SelvageChallenge string }
	_ = json.Unmarshal(value, &v) // a malformed value asks nothing
	return v.SelvageChallenge
}
