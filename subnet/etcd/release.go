package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// Errors of [Store.ReleaseNode].
var (
	// ErrNoLease means that no lease is the one looked for.
	ErrNoLease = errors.New("no such lease")
	// ErrReservation means that the lease is a reservation, which an operator made and which is not released by
	// mistake.
	ErrReservation = errors.New("the lease is a reservation")
)

// ReleaseNode releases the lease that match picks, and returns its record: for a node that is taken out of service, so
// that its subnet is free at once and not a lease's lifetime later. Stop the node's daemon first: a running one claims
// again.
//
// It changes nothing if match picks none (ErrNoLease) or several, or a reservation (ErrReservation) unless forced.
func (s *Store) ReleaseNode(ctx context.Context, match func(subnet.Lease) bool, force bool) (subnet.Record, error) {
	found, unread, err := s.find(ctx, match)
	if err != nil {
		return subnet.Record{}, fmt.Errorf("release a lease: %w", err)
	}
	if len(found) == 0 {
		err := fmt.Errorf("release a lease: %w below %s", ErrNoLease, s.keys.subnets)
		if len(unread) > 0 {
			err = fmt.Errorf("%w; malformed records: %s. If one of them is meant, delete it with etcdctl del", err,
				strings.Join(unread, ", "))
		}
		return subnet.Record{}, err
	}
	if len(found) > 1 {
		return subnet.Record{}, fmt.Errorf("release a lease: %s all match: name one of them",
			strings.Join(namesOf(found), ", "))
	}
	r := found[0]
	if r.LeaseID == 0 && !force {
		return r, fmt.Errorf("release %s: %w: it is not deleted, and the subnet stays reserved for its node; "+
			"to delete it, use --force or etcdctl del %s", r.Name, ErrReservation, s.keys.subnets+r.Name)
	}
	if err := s.Release(ctx, r); errors.Is(err, subnet.ErrLost) {
		return r, fmt.Errorf("%w meanwhile: is its daemon still running? Stop it, then try again", err)
	} else if err != nil {
		return r, err
	}
	return r, nil
}

// find lists all leases and returns those that match picks, and the keys of malformed records.
func (s *Store) find(ctx context.Context, match func(subnet.Lease) bool) (
	found []subnet.Record, unread []string, err error) {
	list := &watcher{Store: s, changed: func(e subnet.Event) error {
		for _, r := range e.Put {
			switch {
			case r.Bad != nil:
				unread = append(unread, s.keys.subnets+r.Name)
			case match(r.Lease):
				found = append(found, r)
			}
		}
		return nil
	}}
	for try := 1; ; try++ {
		found, unread = nil, nil
		err := list.snapshot(ctx)
		// Of a list in the middle of which the store was compacted, and of an etcd that is just losing a member, there
		// is another try.
		if err == nil || try == 3 || ctx.Err() != nil {
			return found, unread, err
		}
		s.wait(ctx, retryFirst)
	}
}

func namesOf(records []subnet.Record) (names []string) {
	for _, r := range records {
		names = append(names, r.Name)
	}
	return names
}
