package chaosstore

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// secure makes the users that the certificates name, and turns authentication on, unless everybody may do everything.
func (s *store) secure(ctx context.Context) error {
	if s.certs == nil {
		return nil
	}
	type step func(ctx context.Context) (any, error)
	var steps []step
	for _, user := range []string{"root", "selvage"} {
		steps = append(steps,
			func(ctx context.Context) (any, error) { return s.admin.RoleAdd(ctx, user) },
			func(ctx context.Context) (any, error) {
				return s.admin.UserAddWithOptions(ctx, user, "", &clientv3.UserAddOptions{NoPassword: true})
			},
			func(ctx context.Context) (any, error) { return s.admin.UserGrantRole(ctx, user, user) },
		)
	}
	steps = append(steps, s.grantConfig, s.grantSubnets, func(ctx context.Context) (any, error) { return s.admin.AuthEnable(ctx) })
	for _, step := range steps {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := step(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("turn on authentication: %w", err)
		}
	}
	return nil
}

// grantConfig and grantSubnets give the daemons what they need, and no more.
func (s *store) grantConfig(ctx context.Context) (any, error) {
	return s.admin.RoleGrantPermission(ctx, "selvage", prefix+"/config", "", clientv3.PermissionType(clientv3.PermRead))
}

func (s *store) grantSubnets(ctx context.Context) (any, error) {
	return s.admin.RoleGrantPermission(ctx, "selvage", subnetKeys, clientv3.GetPrefixRangeEnd(subnetKeys), clientv3.PermissionType(clientv3.PermReadWrite))
}
