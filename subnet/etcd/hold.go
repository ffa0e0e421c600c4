package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/outage"
)

// identity names a record as it was given to Hold, whatever becomes of it.
type identity struct {
	key   string
	order int64
}

// hold is a record that Hold keeps alive. What is due stays due until it has succeeded.
type hold struct {
	id      identity
	current subnet.Record // guarded by Store.mu, as Watch looks at it
	changed chan struct{} // holds a token if another process may have written the key

	renew bool    // due: to renew the etcd lease
	look  bool    // due: to read the key
	write *entry  // due: to be written
	tried []entry // written, or not: the answer was lost

	answers backoff.Backoff // between answers to questions of other nodes

	every time.Duration // the time between renewals: a third of the etcd lease's
	until time.Time     // when the etcd lease ends without another renewal; guarded by Store.mu
}

// answerBackoff spaces answers: another client that asks again and again must not make this node write as often. A node
// that asks waits several times as long.
var answerBackoff = backoff.Policy{Min: 50 * time.Millisecond, Max: time.Second, Settle: 8}

// Hold implements [subnet.Store].
//
// A renewal does not cover the key: an etcd lease can be kept alive long after its key was deleted. So the key is read
// with each renewal, and as soon as a Watch of the same Store sees that another process wrote it, or has listed all
// leases again.
func (s *Store) Hold(ctx context.Context, held subnet.Record, changed <-chan subnet.Lease) error {
	h := &hold{
		id: identity{held.Name, held.Order}, current: held, changed: make(chan struct{}, 1),
		renew: true, look: true, every: s.opts.LeaseTTL / 3,
	}
	s.mu.Lock()
	s.holds[h] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.holds, h)
		s.mu.Unlock()
	}()

	trouble := &outage.Outage{
		Log:  s.opts.Log.WithField("lease", held.Name),
		Lost: "cannot renew or update this node's lease; retrying until it expires",
		Back: "this node's lease is renewed again",
	}
	again := s.newRetry()
	for {
		err := s.keep(ctx, h)
		wait := outage.Jitter(h.every)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, subnet.ErrLost):
			return fmt.Errorf("hold %s: %w", held.Name, err)
		case err != nil:
			trouble.Failure(err, adviceOf(err))
			wait = min(again.wait(), wait)
		default:
			trouble.Over()
			again.reset()
			if h.look { // there is a question, which is answered later
				wait = min(wait, time.Until(h.answers.At()))
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
			h.renew = h.renew || err == nil
			h.look = h.look || err == nil
		case <-h.changed:
			h.look = true
		case lease, ok := <-changed:
			if !ok {
				changed = nil
				break
			}
			e, err := entryOf(lease)
			if err != nil {
				timer.Stop()
				return fmt.Errorf("hold %s: %w", held.Name, err)
			}
			h.write = &e
		}
		timer.Stop()
	}
}

// keep does what is due. The renewal comes first: it is the one that cannot wait.
func (s *Store) keep(ctx context.Context, h *hold) error {
	lease := h.current.LeaseID
	if h.renew && lease != 0 {
		asked := time.Now()
		ttl, err := s.keepAlive(ctx, lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("%w: its etcd lease expired or was revoked", subnet.ErrLost)
		}
		if err != nil {
			return err
		}
		h.every = ttl / 3
		s.mu.Lock()
		h.until = asked.Add(ttl)
		s.mu.Unlock()
	}
	h.renew = false
	if h.write != nil {
		if err := s.rewrite(ctx, h, *h.write); err != nil {
			return err
		}
		h.write, h.tried, h.look = nil, nil, false // the transaction has read the key
	}
	if h.look {
		return s.lookAt(ctx, h)
	}
	return nil
}

// rewrite replaces the record of h by e. A conflict with an earlier write of our own, whose answer was lost, is none.
func (s *Store) rewrite(ctx context.Context, h *hold, e entry) error {
	for {
		r, err := s.write(ctx, &h.current, e, h.current.LeaseID)
		var c *conflict
		switch {
		case err == nil:
			s.holding(h, r)
			return nil
		case errors.As(err, &c):
			// Another revision of the same lease is no loss here either: another node may have asked for the holder.
			mine := slices.IndexFunc(c.held, func(r subnet.Record) bool {
				another := r.Name == h.current.Name && r.Version != h.current.Version
				return h.wrote(r) || another && sameLease(r, h.current)
			})
			if mine < 0 && len(c.held) > 0 {
				return fmt.Errorf("%w: %w: %w", subnet.ErrLost, subnet.ErrRewritten, c)
			} else if mine < 0 {
				return fmt.Errorf("%w: %w", subnet.ErrLost, c)
			}
			s.holding(h, c.held[mine])
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return fmt.Errorf("%w: its etcd lease expired or was revoked", subnet.ErrLost)
		case unsettled(err):
			h.tried = append(h.tried, e)
			return err
		default:
			return err
		}
	}
}

// wrote reports whether r is what a write of unknown outcome would have made of the record.
func (h *hold) wrote(r subnet.Record) bool {
	return r.LeaseID == h.current.LeaseID && r.Version != h.current.Version &&
		slices.ContainsFunc(h.tried, func(e entry) bool { return e.is(r) })
}

// lookAt reads the key of h, and fails with ErrLost if it is not what we wrote. Another revision alone is no loss: a
// restored backup can have one, and so has a key in which another node asks whether we are alive. That is answered.
func (s *Store) lookAt(ctx context.Context, h *hold) error {
	kv, err := s.get(ctx, h.current.Name)
	if err != nil {
		return err
	}
	if kv == nil {
		return fmt.Errorf("%w: the key is gone", subnet.ErrLost)
	}
	r := s.keys.record(kv)
	if !sameLease(r, h.current) {
		return fmt.Errorf("%w: %w", subnet.ErrLost, subnet.ErrRewritten)
	}
	s.holding(h, r)
	if challengeOf(kv.Value) != "" {
		if !h.answers.Due(time.Now()) {
			return nil // and the key is read again
		}
		h.answers.Next(answerBackoff, time.Now())
		if err := s.answer(ctx, h); err != nil {
			return err
		}
	}
	h.look = false
	return nil
}

// sameLease reports whether two states of a key are of the same lease on the same etcd lease. Malformed ones are if
// they are of the same revision.
func sameLease(a, b subnet.Record) bool {
	if a.Bad != nil || b.Bad != nil {
		return a.Version == b.Version
	}
	return a.Lease == b.Lease && a.LeaseID == b.LeaseID
}

// Expires implements [subnet.Expirer].
func (s *Store) Expires(held subnet.Record) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.holds {
		if h.current.Name == held.Name {
			return h.until
		}
	}
	return time.Time{}
}

// holding notes what the record of h has become, also for Release, which gets the record that Hold got.
func (s *Store) holding(h *hold, r subnet.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.current = r
	s.latest[h.id] = r
}

// forget returns the latest state of a record that was held.
func (s *Store) forget(held subnet.Record) subnet.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := identity{held.Name, held.Order}
	latest, ok := s.latest[id]
	delete(s.latest, id)
	if ok && latest.Version > held.Version {
		return latest
	}
	return held
}

// notice wakes each Hold whose key the event may have changed, unless Hold did it itself. Its own write can be seen
// here before its answer: then the key is read once too often.
func (s *Store) notice(e subnet.Event) {
	if e.Type == subnet.Page {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.holds {
		if !concerns(e, h.current) {
			continue
		}
		select {
		case h.changed <- struct{}{}:
		default:
		}
	}
}

// concerns reports whether e may mean that the store does not hold r any more.
func concerns(e subnet.Event, r subnet.Record) bool {
	if e.Type == subnet.Synced || slices.Contains(e.Deleted, r.Name) {
		return true
	}
	return slices.ContainsFunc(e.Put, func(p subnet.Record) bool { return p.Name == r.Name && p.Version != r.Version })
}
