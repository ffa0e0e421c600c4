package etcd

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// grantAccess turns authentication on: root may do all, "selvage" what a node needs, "reader" only read, "nobody"
// nothing. All have the password "hunter2".
func grantAccess(t *testing.T, a *clientv3.Client, prefix string) {
	t.Helper()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	read, both := clientv3.PermissionType(clientv3.PermRead), clientv3.PermissionType(clientv3.PermReadWrite)
	subnets := prefix + "/subnets/"
	for _, user := range []string{"root", "selvage", "reader", "nobody"} {
		check(a.RoleAdd(ctx, user))
		check(a.UserAdd(ctx, user, "hunter2"))
		check(a.UserGrantRole(ctx, user, user))
	}
	check(a.RoleGrantPermission(ctx, "selvage", prefix+"/config", "", read))
	check(a.RoleGrantPermission(ctx, "selvage", subnets, clientv3.GetPrefixRangeEnd(subnets), both))
	check(a.RoleGrantPermission(ctx, "reader", prefix+"/config", "", read))
	check(a.RoleGrantPermission(ctx, "reader", subnets, clientv3.GetPrefixRangeEnd(subnets), read))
	check(a.AuthEnable(ctx))
}

func TestRightsAndPasswords(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	const prefix = "/net"
	grantAccess(t, admin(t, etcd.Endpoint()), prefix)

	for _, c := range []struct {
		name           string
		user, password string
		watch, claim   string // what is said; empty: it works
	}{
		{"nobody in particular", "", "", "give a user name and a password", "give a user name and a password"},
		{"unknown user", "stranger", "hunter2", `does not know user "stranger" by the password given`, `does not know user "stranger" by the password given`},
		{"wrong password", "selvage", "*******", `does not know user "selvage" by the password given`, `does not know user "selvage" by the password given`},
		{"no rights", "nobody", "hunter2", "read on /net/config, and readwrite on the prefix /net/subnets/", "does not let user \"nobody\" do this"},
		{"only to read", "reader", "hunter2", "", "readwrite on the prefix /net/subnets/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, kept := logger(t)
			s := open(t, Options{Endpoints: []string{etcd.Endpoint()}, Prefix: prefix, Username: c.user, Password: c.password, Log: log})
			w := storetest.Watch(t, s, nil)
			if c.watch == "" {
				w.Synced(1)
			} else {
				eventually(t, func() string {
					if len(kept.said(c.watch)) == 0 {
						return c.watch
					}
					return ""
				})
			}
			_, err := s.Claim(t.Context(), nil, lease(1, "a"))
			if err == nil || !strings.Contains(err.Error(), c.claim) {
				t.Errorf("the claim says %v, want %s", err, c.claim)
			}
			for _, line := range append(kept.lines(), err.Error()) {
				if strings.Contains(line, "hunter2") {
					t.Errorf("a secret is told: %s", line)
				}
			}
		})
	}

	t.Run("what a node needs is enough", func(t *testing.T) {
		s := open(t, Options{
			Endpoints: []string{etcd.Endpoint()}, Prefix: prefix, Username: "selvage", Password: "hunter2", LeaseTTL: 2 * time.Second,
		})
		w := storetest.Watch(t, s, nil)
		w.Synced(1)
		r, err := s.Claim(t.Context(), nil, lease(1, "a"))
		if err != nil {
			t.Fatal(err)
		}
		h := startHold(t, s, r)
		h.change(lease(1, "b"))
		// Tokens are kept in memory: after this, etcd knows none of them.
		restart(t, etcd)
		h.change(lease(1, "c"))
		h.change(lease(1, "d"))
		root := open(t, Options{Endpoints: []string{etcd.Endpoint()}, Prefix: prefix, Username: "root", Password: "hunter2"})
		other, err := root.Claim(t.Context(), nil, lease(9, "root"))
		if err != nil {
			t.Fatal(err)
		}
		state := w.There(other.Key)
		if state.Synced != 1 {
			t.Errorf("%d snapshots", state.Synced)
		}
		h.stop()
		<-h.ended
		if h.err != nil {
			t.Error(h.err)
		}
		if err := s.Release(t.Context(), r); err != nil {
			t.Error(err)
		}
		w.Gone(r.Key)
	})
}
