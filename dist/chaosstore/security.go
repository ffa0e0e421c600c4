package chaosstore

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// security are faults of who may do what, and how that is shown.
func security() []Fault {
	return slices.Concat(
		everywhere(Fault{Name: "rights revoked, granted again after 10s", Do: func(ctx context.Context, r *run) error {
			if _, err := r.store.admin.RoleRevokePermission(ctx, "selvage", subnetKeys, clientv3.GetPrefixRangeEnd(subnetKeys)); err != nil {
				return err
			}
			r.rest(ctx, 10*time.Second, 2*time.Second)
			_, err := r.store.grantSubnets(ctx)
			return err
		}}, secure()),
		everywhere(Fault{Name: "certificates and authority replaced, members restarted", Brief: true, Do: func(ctx context.Context, r *run) error {
			var addrs []string
			for _, m := range r.store.members {
				addrs = append(addrs, m.addr)
			}
			if err := r.store.certs.renew(addrs); err != nil {
				return err
			}
			for _, m := range r.store.members {
				r.store.kill(m)
				if err := r.store.start(ctx); err != nil {
					return err
				}
			}
			return r.store.connect()
		}}, secure()),
	)
}
