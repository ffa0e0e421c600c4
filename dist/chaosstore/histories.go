package chaosstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// histories are faults after which the store does not have the history that the daemons know, or not all of it.
func histories() []Fault {
	return slices.Concat(
		everywhere(Fault{Name: "etcd wiped, config written again after 2s", Brief: true, Within: afterRegress, Do: func(ctx context.Context, r *run) error {
			if err := r.store.replace(""); err != nil {
				return err
			}
			if err := errors.Join(r.store.start(ctx), r.store.secure(ctx)); err != nil {
				return err
			}
			pause(ctx, 2*time.Second)
			return r.store.put(ctx, "config", r.config)
		}}, single(), secure()),
		// A daemon that starts has nothing to compare with but what it kept in its state directory.
		everywhere(Fault{Name: "etcd wiped, daemon restarted before the others are back", Within: afterRegress, Do: func(ctx context.Context, r *run) error {
			if err := r.store.replace(""); err != nil {
				return err
			}
			r.hosts[0].Kill()
			if err := errors.Join(r.store.start(ctx), r.store.secure(ctx), r.store.put(ctx, "config", r.config)); err != nil {
				return err
			}
			r.over()
			return r.hosts[0].start()
		}}, single()),
		// In the backup, the lease of the first node is of another etcd lease than the one it has now, and that of the second
		// is missing.
		everywhere(Fault{Name: "etcd restored from an older backup", Within: afterRegress, Do: func(ctx context.Context, r *run) error {
			r.hosts[1].Kill()
			if err := r.store.delete(ctx, "subnets/"+keyOf(r, 1)); err != nil {
				return err
			}
			backup, err := r.store.backup(ctx)
			if err != nil {
				return err
			}
			for _, step := range []func() error{
				func() error { return r.hosts[1].start() },
				func() error { return r.store.delete(ctx, "subnets/"+keyOf(r, 0)) },
			} {
				if err := step(); err != nil {
					return err
				}
				if _, wrong := r.converge(ctx, r.before, time.Now()); wrong != nil {
					return fmt.Errorf("before the restore: %q", wrong)
				}
			}
			if err := r.store.replace(backup); err != nil {
				return err
			}
			return r.store.start(ctx)
		}}, single(), three()),
		everywhere(Fault{Name: "etcd compacted while a daemon does not read", Brief: true, Do: func(ctx context.Context, r *run) error {
			h := r.hosts[0]
			if err := h.signal(unix.SIGSTOP); err != nil {
				return err
			}
			var head int64
			busy := strange("busy", number(r.options.Families, 250), 70)
			value, err := busy.Value()
			for i := 0; i < 1000 && err == nil; i++ {
				var resp *clientv3.PutResponse
				if resp, err = r.store.admin.Put(ctx, subnetKeys+busy.Key(), string(value)); err == nil {
					head = resp.Header.Revision
				}
			}
			if err == nil {
				_, err = r.store.admin.Compact(ctx, head, clientv3.WithCompactPhysical())
			}
			err = errors.Join(err, r.store.delete(ctx, "subnets/"+busy.Key()))
			r.over()
			return errors.Join(err, h.signal(unix.SIGCONT))
		}}, single(), three()),
	)
}

// keyOf returns the lease key that a node had before the fault.
func keyOf(r *run, i int) string { return r.before[r.hosts[i].Name()].key() }
