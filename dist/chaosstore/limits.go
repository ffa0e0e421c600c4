package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/subnet"
)

// limits are faults in which space or time is used up.
func limits() []Fault {
	shortLease := func(ctx context.Context, r *run) error {
		return r.hosts[0].restart(ctx, "--subnet-lease-ttl="+r.options.lasting(5*time.Second, 2*time.Second).String())
	}
	return slices.Concat(
		everywhere(Fault{Name: "etcd's space used up and freed", Brief: true, Do: func(ctx context.Context, r *run) error {
			if err := r.store.fill(ctx); err != nil {
				return err
			}
			began := time.Now()
			if err := r.hosts[1].restart(ctx); err != nil {
				r.wrong("without space, a daemon does not come up: %v", err)
			} else {
				r.remark("without space, a daemon that is restarted is ready after %s", time.Since(began).Round(time.Millisecond))
			}
			r.rest(ctx, 5*time.Second, 0)
			return r.store.free(ctx)
		}}, single(), three()),
		everywhere(Fault{Name: "daemon stopped for longer than its lease runs", Brief: true,
			Prepare: shortLease,
			Do: func(ctx context.Context, r *run) error {
				return r.outlived(ctx, func() error { return nil })
			},
			After: func(ctx context.Context, r *run) error { return r.hosts[0].restart(ctx) },
		}, single()),
		everywhere(Fault{Name: "the same, and another node takes its subnet", Brief: true, Moves: true, Spoils: true, Pairs: [][2]int{{1, 2}, {2, 1}},
			Prepare: shortLease,
			Do: func(ctx context.Context, r *run) error {
				return r.outlived(ctx, func() error { return r.write(ctx, intruder(r, 0)) })
			},
			Check: func(ctx context.Context, r *run) error { return r.yielded(ctx, r.hosts[0], intruder(r, 0)) },
		}, single()),
	)
}

// intruder is a node that does not exist and has the subnet that a node had before the fault.
func intruder(r *run, i int) subnet.Lease {
	return strange("intruder", r.before[r.hosts[i].Name()], 60)
}

// outlived stops the first node's daemon until its lease has run out and meanwhile is done.
func (r *run) outlived(ctx context.Context, meanwhile func() error) error {
	h := r.hosts[0]
	if err := h.signal(unix.SIGSTOP); err != nil {
		return err
	}
	err := insist(ctx, "see the lease of "+h.Name()+" run out", func(ctx context.Context) error {
		leases, err := r.store.leases(ctx)
		if err == nil && len(leases[h.Name()]) > 0 {
			return errors.New("it is still there")
		}
		return err
	})
	if err == nil {
		err = meanwhile()
	}
	pause(ctx, time.Second)
	r.over()
	return errors.Join(err, h.signal(unix.SIGCONT))
}

// yielded makes sure that a node has left its subnet to another, in etcd, in its subnet file and in the kernel.
func (r *run) yielded(ctx context.Context, h *host, to subnet.Lease) error {
	lost := subnetsOf(to)
	now, err := r.subnets(ctx)
	if err != nil {
		return err
	}
	leases, err := r.store.leases(ctx)
	if err != nil {
		return err
	}
	if len(leases[to.NodeName]) != 1 {
		r.wrong("the lease of %s is not there any more", to.NodeName)
	}
	if now[h.Name()].overlap(lost) {
		r.wrong("%s still has %s", h.Name(), lost)
	}
	addresses, err := h.overlayAddresses()
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if lost.contain(a) {
			r.wrong("an overlay's device of %s still has %s, of %s", h.Name(), a, lost)
		}
	}
	r.remark("%s had %s and has %s now", h.Name(), lost, now[h.Name()])
	return nil
}

// fill writes until etcd has no space left.
func (s *store) fill(ctx context.Context) error {
	block := strings.Repeat("x", 1<<20)
	for i := range 200 {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := s.admin.Put(short, fmt.Sprintf("/filler/%d", i), block)
		cancel()
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("use up etcd's space: %w", err)
		}
	}
	return errors.New("use up etcd's space: there is always more")
}

// free does what the error says to do.
func (s *store) free(ctx context.Context) error {
	resp, err := s.admin.Delete(ctx, "/filler/", clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("free etcd's space: %w", err)
	}
	if _, err := s.admin.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return fmt.Errorf("free etcd's space: compact: %w", err)
	}
	for _, m := range s.members {
		if _, err := s.admin.Defragment(ctx, m.Endpoint()); err != nil {
			return fmt.Errorf("free etcd's space: defragment: %w", err)
		}
	}
	if _, err := s.admin.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return fmt.Errorf("free etcd's space: disarm: %w", err)
	}
	return nil
}
