package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/outage"
)

// identity names a record as it was given to Hold, whatever becomes of it. Nothing follows from which of two versions
// is the higher one: a store that was restored from a backup counts from there again.
type identity struct {
	name           string
	order, version int64
}

func identityOf(r subnet.Record) identity { return identity{r.Name, r.Order, r.Version} }

// hold is a record that Hold keeps.
type hold struct {
	id      identity
	current subnet.Record
	write   *subnet.Lease  // due: to be written
	tried   []subnet.Lease // written, or not: the answer was lost
}

// Hold implements [subnet.Store]. There is nothing to renew: it watches this node's Node, and reads it again after each
// fault.
func (s *Store) Hold(ctx context.Context, held subnet.Record, changed <-chan subnet.Lease) error {
	h := &hold{id: identityOf(held), current: held}
	return s.holdOn(ctx, h, changed, s.keep)
}

// holdOn repeats keep, with waits, until ctx ends or the lease is lost.
func (s *Store) holdOn(ctx context.Context, h *hold, changed <-chan subnet.Lease, keep keepFunc) error {
	held := h.current
	trouble := &outage.Outage{
		Log:  s.opts.Log.WithField("lease", held.Name),
		Lost: "cannot watch or update this node's lease; retrying", Back: "this node's lease is watched again",
	}
	var again backoff.Backoff
	for {
		began := time.Now()
		next, err := keep(ctx, h, changed, trouble)
		if changed = next; ctx.Err() != nil {
			return nil
		}
		var lost *loss
		if errors.As(err, &lost) {
			return fmt.Errorf("hold the lease of Node %s: %w", held.Name, lost.error)
		}
		if time.Since(began) > shortStream {
			again.Reset()
		}
		wait := again.Next(backoff.Policy{Min: retryFirst, Max: s.opts.retryLast, Jitter: 0.5}, time.Now())
		if !errors.Is(err, apiserver.ErrEnded) {
			trouble.Failure(err, string(apiserver.ProblemOf(err).Reason))
		}
		if changed, err = h.rest(ctx, obey(err, wait), changed); err != nil {
			return fmt.Errorf("hold the lease of Node %s: %w", held.Name, err)
		}
	}
}

// keepFunc is [Store.keep].
type keepFunc func(context.Context, *hold, <-chan subnet.Lease, *outage.Outage) (<-chan subnet.Lease, error)

// loss is an error that ends Hold.
type loss struct{ error }

// rest waits, and takes in what changes meanwhile.
func (h *hold) rest(ctx context.Context, wait time.Duration, changed <-chan subnet.Lease) (
	<-chan subnet.Lease, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return changed, nil
		case <-timer.C:
			return changed, nil
		case l, ok := <-changed:
			if !ok {
				changed = nil
				continue
			}
			if err := h.due(l); err != nil {
				return changed, err
			}
		}
	}
}

// due notes that a lease is to be written.
func (h *hold) due(l subnet.Lease) error {
	if _, err := l.Value(); err != nil {
		return err
	}
	h.write = &l
	return nil
}

// keep reads the Node, writes what is due, and follows the Node from there. It returns what is left of changed, and
// always an error: a *loss ends Hold.
func (s *Store) keep(ctx context.Context, h *hold, changed <-chan subnet.Lease, trouble *outage.Outage) (
	<-chan subnet.Lease, error) {
	var first []apiserver.Object
	from, err := s.client.List(ctx, apiserver.Nodes, apiserver.ListOptions{Name: h.id.name},
		func(p apiserver.Page) error {
			first = append(first[:0], p.Objects...)
			return nil
		})
	if err != nil {
		return changed, fmt.Errorf("read the Node: %w", err)
	}
	if len(first) == 0 {
		return changed, errGone
	}
	if err := s.look(h, &first[0]); err != nil {
		return changed, err
	}
	t := s.stream(ctx, apiserver.WatchOptions{From: from, Name: h.id.name})
	defer t.close()
	for {
		if h.write != nil {
			if err := s.rewrite(ctx, h); err != nil {
				return changed, err
			}
		}
		trouble.Over()
		select {
		case <-ctx.Done():
			return changed, ctx.Err()
		case l, ok := <-changed:
			if !ok {
				changed = nil
				continue
			}
			if err := h.due(l); err != nil {
				return changed, &loss{err}
			}
		case e, ok := <-t.events:
			switch {
			case !ok:
				return changed, t.err
			case e.Type == apiserver.Deleted:
				return changed, errGone
			case e.Type == apiserver.Added, e.Type == apiserver.Modified:
				// What is older than our own write was sent before it.
				if e.Version >= h.current.Version {
					if err := s.look(h, &e.Object); err != nil {
						return changed, err
					}
				}
			}
		}
	}
}

var errGone = &loss{fmt.Errorf("%w: the Node is gone", subnet.ErrLost)}

// look fails with a *loss if a Node's lease is not what we wrote.
func (s *Store) look(h *hold, o *apiserver.Object) error {
	if !s.names.isLease(o) {
		return &loss{fmt.Errorf("%w: its annotation %s is gone: the Node was registered again, or another process "+
			"removed it", subnet.ErrLost, s.names.managed)}
	}
	cidrs, ok := annotated(o)
	r := s.names.record(o, cidrs)
	mine := r.Bad == nil && (r.Lease == h.current.Lease || slices.Contains(h.tried, r.Lease))
	if !ok || !mine {
		return &loss{fmt.Errorf("%w: %w: its annotations are not ours", subnet.ErrLost, subnet.ErrRewritten)}
	}
	s.holding(h, r)
	return nil
}

// rewrite writes the lease that is due, if the Node still has ours.
func (s *Store) rewrite(ctx context.Context, h *hold) error {
	for try := 1; ; try++ {
		node, err := s.readNode(ctx, h.id.name)
		if isNotFound(err) {
			return errGone
		}
		if err != nil {
			return fmt.Errorf("read the Node: %w", err)
		}
		if err := s.look(h, &node.Object); err != nil {
			return err
		}
		l, err := given(&node, *h.write)
		if err != nil {
			return &loss{fmt.Errorf("%w: %w", subnet.ErrLost, err)}
		}
		h.tried = []subnet.Lease{l}
		r, err := s.write(ctx, &node, l)
		switch {
		case err == nil:
			h.write, h.tried = nil, nil
			s.holding(h, r)
			s.await(r.Version)
			return nil
		case !errors.Is(err, apiserver.ErrConflict) || try == conflicts:
			return fmt.Errorf("update the annotations: %w", err)
		}
	}
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
	if latest, ok := s.latest[identityOf(held)]; ok {
		delete(s.latest, identityOf(held))
		return latest
	}
	return held
}

// claimed forgets what was held before: another claim has replaced it.
func (s *Store) claimed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.latest)
}

// Release implements [subnet.Store]: the Node stays, and has no lease any more.
func (s *Store) Release(ctx context.Context, held subnet.Record) error {
	held = s.forget(held)
	for try := 1; ; try++ {
		err := s.release(ctx, held)
		if err == nil {
			return nil
		}
		if !errors.Is(err, apiserver.ErrConflict) || try == conflicts {
			return fmt.Errorf("release the lease of Node %s: %w", held.Name, err)
		}
	}
}

func (s *Store) release(ctx context.Context, held subnet.Record) error {
	node, err := s.readNode(ctx, held.Name)
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return err
	case !s.names.isLease(&node.Object):
		return nil
	}
	r := s.names.record(&node.Object, specOf(&node))
	if r.Bad != nil || r.Lease != held.Lease {
		return fmt.Errorf("%w: another process changed it", subnet.ErrLost)
	}
	c := s.names.released().differing(&node.Object)
	patch, err := c.patch(&node.Object)
	if err != nil {
		return err
	}
	_, err = s.client.PatchNodeStatus(ctx, held.Name, patch)
	if isNotFound(err) {
		return nil
	}
	return err
}
