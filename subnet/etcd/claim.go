package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
)

// entry is a lease as a claim writes it to etcd.
type entry struct {
	key   string // below subnets/
	value []byte
	lease subnet.Lease // as it is decoded from value
}

func entryOf(l subnet.Lease) (entry, error) {
	value, err := l.Value()
	if err != nil {
		return entry{}, err
	}
	r := subnet.DecodeRecord(l.Key(), value)
	return entry{r.Name, value, r.Lease}, r.Bad
}

// is reports whether r is what e writes.
func (e entry) is(r subnet.Record) bool { return r.Name == e.key && r.Bad == nil && r.Lease == e.lease }

// conflict is the other outcome of a transaction: what etcd holds instead of what was expected.
type conflict struct {
	want entry
	held []subnet.Record // under the leading subnet of want, and under the key that was to be taken over
}

func (c *conflict) Error() string {
	names := make([]string, len(c.held))
	for i, r := range c.held {
		names[i] = r.Name
	}
	if len(names) == 0 {
		return "the key is gone"
	}
	return "there is now " + strings.Join(names, ", ")
}

// find returns what is held under key.
func (c *conflict) find(key string) (subnet.Record, bool) {
	for _, r := range c.held {
		if r.Name == key {
			return r, true
		}
	}
	return subnet.Record{}, false
}

// Claim implements [subnet.Store].
func (s *Store) Claim(ctx context.Context, have *subnet.Record, want subnet.Lease) (subnet.Record, error) {
	e, err := entryOf(want)
	if err != nil {
		return subnet.Record{}, err
	}
	var r subnet.Record
	if have == nil {
		r, err = s.create(ctx, e)
	} else {
		r, err = s.takeOver(ctx, *have, e)
	}
	var c *conflict
	switch {
	case errors.As(err, &c):
		return r, fmt.Errorf("claim %s: %w: %w", e.key, subnet.ErrTaken, c)
	case err != nil:
		return r, fmt.Errorf("claim %s: %w", e.key, err)
	}
	s.usedGrant(r.LeaseID)
	return r, nil
}

// create puts e on an etcd lease of its own if its leading subnet is free.
func (s *Store) create(ctx context.Context, e entry) (subnet.Record, error) {
	for try := 0; ; try++ {
		g, err := s.takeGrant(ctx, e)
		if err != nil {
			return subnet.Record{}, err
		}
		r, err := s.write(ctx, nil, e, g.id)
		var c *conflict
		switch {
		case err == nil:
			return r, nil
		case errors.Is(err, rpctypes.ErrLeaseNotFound) && try == 0:
			continue // a spare lease that has expired
		case errors.As(err, &c):
			if r, ok := c.find(e.key); ok && r.LeaseID == g.id {
				// An earlier claim of ours, with another value, whose answer was lost.
				s.keepUnsettled(g, e)
				return s.write(ctx, &r, e, g.id)
			}
			s.keepUnused(g)
		default:
			s.keepUnsettled(g, e)
		}
		return r, err
	}
}

// takeOver replaces the record have by e, on the same etcd lease unless that has expired or has another TTL than ours.
func (s *Store) takeOver(ctx context.Context, have subnet.Record, e entry) (subnet.Record, error) {
	if have.LeaseID == 0 {
		return s.write(ctx, &have, e, 0)
	}
	ttl, err := s.keepAlive(ctx, have.LeaseID)
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return subnet.Record{}, err
	}
	if err == nil && ttl == s.ttl() {
		return s.write(ctx, &have, e, have.LeaseID)
	}
	// Either the etcd lease has expired, and the key is about to vanish if it has not yet. Or it has another TTL than
	// it has to have now, and that cannot be changed.
	over := err != nil
	g, err := s.takeGrant(ctx, e)
	if err != nil {
		return subnet.Record{}, err
	}
	if !over && g.ttl == ttl { // etcd gives no other
		s.keepUnused(g)
		return s.write(ctx, &have, e, have.LeaseID)
	}
	r, err := s.write(ctx, &have, e, g.id)
	var c *conflict
	switch {
	case err == nil && !over:
		_ = s.revoke(ctx, have.LeaseID) // no key is on it any more; it would expire by itself
	case err == nil:
	case errors.As(err, &c) && len(c.held) == 0:
		s.keepUnused(g)
		return s.create(ctx, e)
	case errors.As(err, &c):
		s.keepUnused(g)
	default:
		s.keepUnsettled(g, e)
	}
	return r, err
}

// write replaces the record have by e, on an etcd lease, or creates e if have is nil: in one transaction, if have is
// unchanged and no other key holds the leading subnet of e. Otherwise the error is a *conflict. If have is already what
// e is, nothing is written.
//
// etcd may have executed a transaction whose answer was lost. So the other branch reads what exists: if that is e on
// our own etcd lease, it is a success. The transaction can therefore be sent again.
func (s *Store) write(ctx context.Context, have *subnet.Record, e entry, lease int64) (subnet.Record, error) {
	var (
		compare []clientv3.Cmp
		ops     []clientv3.Op
		put     = clientv3.OpPut(s.keys.subnets+e.key, string(e.value), clientv3.WithLease(clientv3.LeaseID(lease)))
		created int64 // 0: by this transaction
	)
	except := ""
	if have != nil {
		compare = append(compare, clientv3.Compare(clientv3.ModRevision(s.keys.subnets+have.Name), "=", have.Version))
		except = have.Name
	}
	switch {
	case have == nil || have.Name != e.key:
		compare = append(compare, s.keys.free(e.key, except)...)
		if have != nil {
			ops = append(ops, clientv3.OpDelete(s.keys.subnets+have.Name))
		}
		ops = append(ops, put)
	case !e.is(*have) || have.LeaseID != lease:
		created = have.Order
		ops = append(ops, put)
	}
	resp, err := s.commit(ctx, compare, ops, s.keys.look(e.key, except))
	if err != nil {
		return subnet.Record{}, err
	}
	if resp.Succeeded {
		if len(ops) == 0 {
			return *have, nil
		}
		r := subnet.Record{Lease: e.lease, Name: e.key, Order: created, Version: resp.Header.Revision, LeaseID: lease}
		if created == 0 {
			r.Order = r.Version
		}
		return r, nil
	}
	c := &conflict{want: e}
	for _, answer := range resp.Responses {
		for _, kv := range answer.GetResponseRange().GetKvs() {
			c.add(s.keys.record(kv))
		}
	}
	if r, ok := c.find(e.key); ok && e.is(r) && r.LeaseID == lease && (lease != 0 || have != nil) {
		return r, nil
	}
	return subnet.Record{}, c
}

func (c *conflict) add(r subnet.Record) {
	if _, ok := c.find(r.Name); !ok {
		c.held = append(c.held, r)
	}
}

// commit runs a transaction that can be sent again, until its outcome is known or three attempts have failed.
func (s *Store) commit(ctx context.Context, compare []clientv3.Cmp, ops, otherwise []clientv3.Op) (
	*clientv3.TxnResponse, error) {
	pause := retry{last: s.opts.retryLast}
	for try := 1; ; try++ {
		short, cancel := s.deadline(ctx)
		resp, err := s.client.Txn(short).If(compare...).Then(ops...).Else(otherwise...).Commit()
		cancel()
		if err == nil {
			return resp, nil
		}
		if try == 3 || !unsettled(err) || !s.wait(ctx, pause.wait()) {
			return nil, s.explain(ctx, err)
		}
	}
}

// Release implements [subnet.Store].
func (s *Store) Release(ctx context.Context, held subnet.Record) error {
	held = s.forget(held)
	key := s.keys.subnets + held.Name
	resp, err := s.commit(ctx,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", held.Version)},
		[]clientv3.Op{clientv3.OpDelete(key)},
		[]clientv3.Op{clientv3.OpGet(key, clientv3.WithKeysOnly())})
	if err != nil {
		return fmt.Errorf("release %s: %w", held.Name, err)
	}
	if !resp.Succeeded && len(resp.Responses[0].GetResponseRange().GetKvs()) > 0 {
		return fmt.Errorf("release %s: %w: another process changed it", held.Name, subnet.ErrLost)
	}
	if held.LeaseID != 0 {
		// The subnet is free already; an etcd lease without a key does no harm and expires.
		_ = s.revoke(ctx, held.LeaseID)
	}
	return nil
}

// leading returns the part of a lease key that other keys of the same subnet start with.
func leading(key string) string {
	lead, _, _ := strings.Cut(key, "&")
	return lead
}

// free returns comparisons that are true if there is no key of the leading subnet of key, other than except. Those keys
// are the leading subnet alone, and all that start with it and an "&". etcd compares every key of a range, and an empty
// range as one key that was never created.
func (k keyspace) free(key, except string) []clientv3.Cmp {
	lead := k.subnets + leading(key)
	from, to := lead+"&", lead+"'" // ' follows &
	except = k.subnets + except
	var compare []clientv3.Cmp
	if except != lead {
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(lead), "=", 0))
	}
	none := func(from, to string) {
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(from), "=", 0).WithRange(to))
	}
	if from <= except && except < to {
		if from < except {
			none(from, except)
		}
		from = except + "\x00"
	}
	none(from, to)
	return compare
}

// look returns reads of all the keys that free compares, and of except.
func (k keyspace) look(key, except string) []clientv3.Op {
	const few = 8 // enough to name the holder
	lead := k.subnets + leading(key)
	ops := []clientv3.Op{
		clientv3.OpGet(k.subnets + key), // in any case, however many others there are
		clientv3.OpGet(lead),
		clientv3.OpGet(lead+"&", clientv3.WithRange(lead+"'"), clientv3.WithLimit(few)),
	}
	if except != "" && except != key {
		ops = append(ops, clientv3.OpGet(k.subnets+except))
	}
	return ops
}
