package chaosstore

import (
	"context"
	"errors"
	"slices"
	"time"
)

// outages are faults in which the store is away and comes back as it was.
func outages() []Fault {
	return slices.Concat(
		everywhere(Fault{Name: "etcd killed, started again after 5s", Brief: true, Do: func(ctx context.Context, r *run) error {
			r.store.kill()
			r.rest(ctx, 5*time.Second, time.Second)
			return r.store.start(ctx)
		}}, single(), secure()),
		everywhere(Fault{Name: "etcd stopped by a signal for 20s", Brief: true, Do: func(ctx context.Context, r *run) error {
			return r.paused(ctx, r.store.members, func() { r.rest(ctx, 20*time.Second, 2*time.Second) })
		}}, single(), secure()),
		everywhere(Fault{Name: "etcd restarted in an orderly way", Do: func(ctx context.Context, r *run) error {
			for _, m := range r.store.members { // one after the other, as one does
				if err := errors.Join(m.stop(), r.store.start(ctx)); err != nil {
					return err
				}
			}
			return nil
		}}, single(), three()),
		everywhere(Fault{Name: "etcd killed, daemon restarted while it is away", Brief: true, Do: func(ctx context.Context, r *run) error {
			r.store.kill()
			h := r.hosts[0]
			began := time.Now()
			short, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			if err := h.restart(short); err != nil {
				r.wrong("without etcd, the daemon does not come up: %v", err)
			} else {
				r.remark("without etcd, the daemon is ready after %s", time.Since(began).Round(time.Millisecond))
			}
			return r.store.start(ctx)
		}}, single(), three()),
		everywhere(Fault{Name: "answers come 2s late", Do: func(ctx context.Context, r *run) error {
			late := func(d time.Duration) {
				for _, m := range r.store.members {
					m.proxy.delay.Store(int64(d))
				}
			}
			late(2 * time.Second)
			defer late(0)
			r.follows(ctx, "late")
			began := time.Now()
			if err := r.hosts[1].restart(ctx); err != nil {
				return err
			}
			r.remark("late: a daemon that is restarted is ready after %s", time.Since(began).Round(time.Millisecond))
			r.rest(ctx, 10*time.Second, 0)
			return nil
		}}, single(), three()),
	)
}

// paused stops the processes of members, and lets them go on when fn returns.
func (r *run) paused(ctx context.Context, which []*member, fn func()) error {
	var errs []error
	for _, m := range which {
		errs = append(errs, m.Pause())
	}
	fn()
	for _, m := range which {
		errs = append(errs, m.Continue())
	}
	r.over()
	for _, m := range which {
		errs = append(errs, m.Ready(ctx))
	}
	return errors.Join(errs...)
}
