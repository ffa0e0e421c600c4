package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// testPrefix is where the leases are in an etcd of a test's own.
const testPrefix = "/net"

// secret is the password of all users. It is to be seen nowhere.
const secret = "hunter2"

// permission is what a role may do.
type permission struct {
	key, end string
	may      clientv3.PermissionType
}

// What a node needs, and parts of it.
var (
	readConfig   = permission{testPrefix + "/config", "", clientv3.PermissionType(clientv3.PermRead)}
	allSubnets   = permission{testPrefix + "/subnets/", testPrefix + "/subnets0", clientv3.PermissionType(clientv3.PermReadWrite)}
	readSubnets  = permission{allSubnets.key, allSubnets.end, clientv3.PermissionType(clientv3.PermRead)}
	writeSubnets = permission{allSubnets.key, allSubnets.end, clientv3.PermissionType(clientv3.PermWrite)}
)

// access makes users, each with a role that has the permissions given, and turns authentication on. root may do all. A user
// without a password is one whom a certificate names.
func access(t *testing.T, a *clientv3.Client, password string, users map[string][]permission) {
	t.Helper()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	check(a.UserAdd(ctx, "root", secret))
	check(a.RoleAdd(ctx, "root"))
	check(a.UserGrantRole(ctx, "root", "root"))
	for user, permissions := range users {
		check(a.RoleAdd(ctx, user))
		check(a.UserAddWithOptions(ctx, user, password, &clientv3.UserAddOptions{NoPassword: password == ""}))
		check(a.UserGrantRole(ctx, user, user))
		for _, p := range permissions {
			check(a.RoleGrantPermission(ctx, user, p.key, p.end, p.may))
		}
	}
	check(a.AuthEnable(ctx))
}

// rootOf is a client that may do all.
func rootOf(t *testing.T, config clientv3.Config) *clientv3.Client {
	t.Helper()
	config.Username, config.Password, config.Logger = "root", secret, quietZap()
	c, err := clientv3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// forget has etcd forget all tokens of the user selvage, and restarts it. A restart alone would not do: the latest tokens
// come back with the write-ahead log.
func forget(t *testing.T, root *clientv3.Client, etcd *etcdserver.Server) {
	t.Helper()
	must[*clientv3.AuthUserChangePasswordResponse](t)(root.UserChangePassword(t.Context(), "selvage", secret))
	restart(t, etcd)
}

// keepsSecret fails the test if the password is in what was said.
func keepsSecret(t *testing.T, said ...string) {
	t.Helper()
	for _, line := range said {
		if strings.Contains(line, secret) {
			t.Errorf("a secret is told: %s", line)
		}
	}
}

// untilSaid waits for a line of the log.
func untilSaid(t *testing.T, kept *logged, text string) {
	t.Helper()
	testctx.Eventually(t, func() string {
		if len(kept.said(text)) == 0 {
			return "word that " + text
		}
		return ""
	})
}

// untilCause waits until Watch has failed for that reason, which is said only if it goes on for a while.
func untilCause(t *testing.T, s *Store, text string) {
	t.Helper()
	testctx.Eventually(t, func() string {
		if cause := s.Outage().Problem.Err; cause == nil || !strings.Contains(cause.Error(), text) {
			return fmt.Sprintf("an outage because %s; it is %v", text, cause)
		}
		return ""
	})
}

func TestWhoIsLetInAndToWhat(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	access(t, admin(t, etcd.Endpoint()), secret, map[string][]permission{
		"selvage":   {readConfig, allSubnets},
		"nobody":    nil,
		"reader":    {readConfig, readSubnets},
		"writer":    {readConfig, writeSubnets},
		"noconfig":  {allSubnets},
		"onlyread":  {readSubnets},
		"onlyconf":  {readConfig},
		"noprefix":  {readConfig, {allSubnets.key, "", allSubnets.may}},
		"otherkeys": {readConfig, {testPrefix + "/subnets/10.5.1", testPrefix + "/subnets/10.5.2", allSubnets.may}},
	})
	const (
		grantConfig  = "etcdctl role grant-permission ROLE read /net/config"
		grantSubnets = "etcdctl role grant-permission ROLE --prefix=true readwrite /net/subnets/"
	)
	for _, c := range []struct {
		name           string
		user, password string
		watch, claim   []string // what is said; nil: it works
	}{
		{"what a node needs", "selvage", secret, nil, nil},
		{"nobody in particular", "", "", []string{"give a user name and a password"}, []string{"give a user name and a password"}},
		{"unknown user", "stranger", secret, []string{`etcd rejected the password of user "stranger"`}, []string{`etcd rejected the password of user "stranger": check`}},
		{"wrong password", "selvage", "*******", []string{`etcd rejected the password of user "selvage"`}, []string{`etcd rejected the password of user "selvage": check`}},
		{"no rights", "nobody", secret,
			[]string{`etcd denied user "nobody" access: it lacks read on /net/config and read on the prefix /net/subnets/.`, grantConfig + "; " + grantSubnets},
			[]string{`etcd denied user "nobody" access`, grantSubnets}},
		{"only to read", "reader", secret, nil, []string{"it lacks write on the prefix /net/subnets/. ", grantSubnets}},
		{"not to read leases", "writer", secret,
			[]string{"it lacks read on the prefix /net/subnets/. ", grantSubnets}, []string{"it lacks read on the prefix /net/subnets/. ", grantSubnets}},
		{"not to read the config", "noconfig", secret, []string{"it lacks read on /net/config. ", grantConfig}, nil},
		{"only to read leases", "onlyread", secret,
			[]string{"it lacks read on /net/config and write on the prefix /net/subnets/. ", grantConfig + "; " + grantSubnets},
			[]string{"it lacks read on /net/config and write on the prefix /net/subnets/. "}},
		{"only to read the config", "onlyconf", secret, []string{"it lacks read on the prefix /net/subnets/. ", grantSubnets}, []string{"it lacks read on the prefix /net/subnets/. "}},
		{"the prefix as one key", "noprefix", secret, []string{"it lacks read on the prefix /net/subnets/. ", grantSubnets}, []string{grantSubnets}},
		{"a part of the subnets", "otherkeys", secret, []string{"it lacks read on the prefix /net/subnets/. ", grantSubnets}, []string{grantSubnets}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, kept := logger(t)
			s := open(t, Options{Endpoints: []string{etcd.Endpoint()}, Prefix: testPrefix, Username: c.user, Password: c.password, Log: log, retryLast: retryFirst})
			w := storetest.Watch(t, s, nil)
			if c.watch == nil {
				w.Synced(1)
			}
			for _, text := range c.watch {
				untilCause(t, s, text)
			}
			r, err := s.Claim(t.Context(), nil, lease(20, "a"))
			for _, text := range c.claim {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("the claim says\n     %v\nwant %s", err, text)
				}
			}
			if c.claim == nil && err != nil {
				t.Error(err)
			} else if err == nil {
				if err := s.Release(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
			keepsSecret(t, append(kept.lines(), fmt.Sprint(err))...)
		})
	}
}

// TestLeastRightsAreEnough does all that a node does.
func TestLeastRightsAreEnough(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	a := admin(t, etcd.Endpoint())
	must[*clientv3.PutResponse](t)(a.Put(t.Context(), testPrefix+"/config", "{}"))
	access(t, a, secret, map[string][]permission{"selvage": {readConfig, allSubnets}})
	root := rootOf(t, clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	put := func(key, value string) {
		t.Helper()
		must[*clientv3.PutResponse](t)(root.Put(t.Context(), testPrefix+"/"+key, value))
	}
	o := Options{
		Endpoints: []string{etcd.Endpoint()}, Prefix: testPrefix, Username: "selvage", Password: secret,
		LeaseTTL: 6 * time.Second,       // a busy machine has to renew in that time
		quiet:    50 * time.Millisecond, // so that the history is checked all the time
	}
	log, kept := logger(t)
	o.Log = log
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = s.Claim(t.Context(), &r, lease(2, "a")); err != nil {
		t.Fatalf("another subnet: %v", err)
	}
	h := startHold(t, s, r)
	h.change(lease(2, "b"))
	forget(t, root, etcd)
	h.change(lease(2, "c"))
	h.change(lease(2, "d"))
	other := storetest.Watch(t, open(t, o), nil)
	other.There(r.Name)
	// It is held for longer than it lives without.
	unheld, err := s.Claim(t.Context(), nil, lease(3, "b"))
	if err != nil {
		t.Fatal(err)
	}
	other.There(unheld.Name)
	other.Gone(unheld.Name)
	h.held()
	put("subnets/10.5.9.0-24", "{}")
	put("config", `{"Network":"10.5.0.0/16"}`)
	w.There("10.5.9.0-24")
	state := w.Until(func(s storetest.State) string {
		if string(s.Config) == "{}" {
			return "the other config"
		}
		return ""
	})
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
	w.Gone(r.Name)
	if _, err := s.ReleaseNode(t.Context(), func(l subnet.Lease) bool { return l.InstanceID == "nobody" }, false); !errors.Is(err, ErrNoLease) {
		t.Errorf("the release of nothing: %v", err)
	}
	if denied := kept.said("etcd denied"); len(denied) > 0 {
		t.Errorf("said %q", denied)
	}
	keepsSecret(t, kept.lines()...)
}

// TestRightsThatAreTakenAwayComeBack: what is followed goes on, is checked, is said, and goes on where it was.
func TestRightsThatAreTakenAwayComeBack(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	a := admin(t, etcd.Endpoint())
	access(t, a, secret, map[string][]permission{"selvage": {readConfig, allSubnets}})
	root := rootOf(t, clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	log, kept := logger(t)
	s := open(t, Options{
		Endpoints: []string{etcd.Endpoint()}, Prefix: testPrefix, Username: "selvage", Password: secret, Log: log,
		LeaseTTL: time.Minute, quiet: 50 * time.Millisecond, retryLast: retryFirst,
	})
	w := storetest.Watch(t, s, nil)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	h := startHold(t, s, r)
	w.There(r.Name)
	must[*clientv3.AuthRoleRevokePermissionResponse](t)(root.RoleRevokePermission(t.Context(), "selvage", allSubnets.key, allSubnets.end))
	untilSaid(t, kept, "it lacks read on the prefix /net/subnets/. ")
	h.change(lease(1, "b"))
	h.change(lease(1, "c"))
	h.held()
	must[*clientv3.PutResponse](t)(root.Put(t.Context(), testPrefix+"/subnets/10.5.9.0-24", "{}"))
	must[*clientv3.AuthRoleGrantPermissionResponse](t)(root.RoleGrantPermission(t.Context(), "selvage", allSubnets.key, allSubnets.end, allSubnets.may))
	if state := w.There("10.5.9.0-24"); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
	w.Until(func(s storetest.State) string {
		if s.Leases[r.Name].InstanceID != "c" {
			return "our own change"
		}
		return ""
	})
	// And authentication itself can go and come.
	must[*clientv3.AuthDisableResponse](t)(root.AuthDisable(t.Context()))
	h.change(lease(1, "d"))
	h.change(lease(1, "e"))
	must[*clientv3.AuthEnableResponse](t)(a.AuthEnable(t.Context()))
	h.change(lease(1, "f"))
	h.change(lease(1, "g"))
	w.Until(func(s storetest.State) string {
		if s.Leases[r.Name].InstanceID != "g" {
			return "our last change"
		}
		return ""
	})
	h.held()
	keepsSecret(t, kept.lines()...)
}

func TestPasswordFileIsReadAnew(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	access(t, admin(t, etcd.Endpoint()), secret, map[string][]permission{"selvage": {readConfig, allSubnets}})
	root := rootOf(t, clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	file := filepath.Join(t.TempDir(), "password")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func(password string) {
		t.Helper()
		must[*clientv3.AuthUserChangePasswordResponse](t)(root.UserChangePassword(t.Context(), "selvage", password))
	}
	write(secret + "\n")
	log, kept := logger(t)
	s := open(t, Options{
		Endpoints: []string{etcd.Endpoint()}, Prefix: testPrefix, Username: "selvage", PasswordFile: file, Log: log,
		LeaseTTL: time.Minute, quiet: 50 * time.Millisecond, retryLast: retryFirst,
	})
	w := storetest.Watch(t, s, nil)
	n := 0
	works := func() {
		t.Helper()
		n++
		var r subnet.Record
		testctx.Eventually(t, func() (missing string) {
			var err error
			if r, err = s.Claim(t.Context(), nil, lease(n, "a")); err != nil {
				return err.Error()
			}
			return ""
		})
		w.There(r.Name)
	}
	works()

	rotate(secret + "2") // in etcd first
	untilSaid(t, kept, `etcd rejected the password of user "selvage"`)
	write(secret + "2\r\n")
	works()

	write(secret + "3") // in the file first
	works()             // by the token that there is
	rotate(secret + "3")
	works()

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	rotate(secret + "4")
	untilSaid(t, kept, `the file with the password for user "selvage" cannot be used`)
	write("")
	untilCause(t, s, file+": is empty")
	write(secret + "4")
	works()
	if state := w.Synced(1); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
	keepsSecret(t, kept.lines()...)
}

// TestTokenIsAskedForOnce: to check a password is the most expensive thing that etcd is ever asked.
func TestTokenIsAskedForOnce(t *testing.T) {
	t.Parallel()
	etcd := server(t, etcdserver.Options{})
	access(t, admin(t, etcd.Endpoint()), secret, map[string][]permission{"selvage": {readConfig, allSubnets}})
	root := rootOf(t, clientv3.Config{Endpoints: []string{etcd.Endpoint()}})
	s := open(t, Options{Endpoints: []string{etcd.Endpoint()}, Prefix: testPrefix, Username: "selvage", Password: secret, LeaseTTL: time.Minute})
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	w.There(r.Name)
	h := startHold(t, s, r)
	h.change(lease(1, "b"))
	h.change(lease(1, "c"))
	if got := handled(t, etcd)["Authenticate"]; got != 2 { // ours, and root's
		t.Errorf("%d tokens were asked for from the start to the lease, want one", got-1)
	}
	forget(t, root, etcd)
	h.change(lease(1, "d"))
	h.change(lease(1, "e"))
	testctx.Eventually(t, func() string {
		if handled(t, etcd)["Watch"] == 0 || !s.Outage().Since.IsZero() {
			return "another watch"
		}
		return ""
	})
	if got := handled(t, etcd)["Authenticate"]; got != 1 {
		t.Errorf("%d tokens were asked for after a restart of etcd, want one", got)
	}
}

func TestTokenIsWaitedForNoLongerThanMayBe(t *testing.T) {
	l := newLogin("")
	l.started.Store(true)
	l.asking <- struct{}{} // another request is under way
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := l.unary(ctx, "", &pb.AuthenticateRequest{}, &pb.AuthenticateResponse{}, nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestMissingConfigIsSaidOnceWithWhereToPutIt(t *testing.T) {
	t.Parallel()
	c, o := cluster(t, shared.server.Endpoint())
	log, kept := logger(t)
	o.Log = log
	w := storetest.Watch(t, open(t, o), nil)
	w.Synced(1)
	said := func(want int) {
		t.Helper()
		lines := kept.said("etcdctl put " + o.Prefix + "/config '{\"Network\":")
		if len(lines) != want {
			t.Errorf("said %q", lines)
		}
		for _, line := range lines {
			if !strings.Contains(line, "separate v2 store and has to be written again") {
				t.Errorf("said %q", line)
			}
		}
	}
	said(1)
	there := func(want bool) {
		t.Helper()
		w.Until(func(s storetest.State) string {
			if (s.Config != nil) != want {
				return "a change of the config"
			}
			return ""
		})
	}
	c.Write(t, "config", "{}")
	there(true)
	said(1)
	c.Delete(t, "config")
	there(false)
	said(2)
}

func TestOptionsDoNotTellThePassword(t *testing.T) {
	o := Options{Endpoints: []string{"http://a:1"}, Prefix: "/net", Username: "selvage", Password: secret}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		text := fmt.Sprintf(format, o)
		keepsSecret(t, text, fmt.Sprintf(format, &o), fmt.Sprintf(format, []Options{o}))
		if !strings.Contains(text, "selvage") {
			t.Errorf("%s gives %s", format, text)
		}
	}
}
