package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// startMembers starts a cluster of three, and returns the endpoints too.
func startMembers(t *testing.T, o etcdserver.Options) (members []*etcdserver.Server, endpoints []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Dir = t.TempDir()
	o.Flags = append(o.Flags, "--heartbeat-interval=50", "--election-timeout=500")
	members, err := etcdserver.StartCluster(ctx, 3, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		t.Cleanup(m.Kill)
		endpoints = append(endpoints, m.Endpoint())
	}
	return members, endpoints
}

// works claims n-th subnet, as soon as that can be done, and waits until w has seen it.
func works(t *testing.T, s *Store, w *storetest.Watcher, n int) subnet.Record {
	t.Helper()
	var r subnet.Record
	testctx.Eventually(t, func() (missing string) {
		var err error
		if r, err = s.Claim(t.Context(), nil, lease(n, "a")); err != nil {
			return err.Error()
		}
		return ""
	})
	w.There(r.Name)
	return r
}

func commonName(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} }
}

// TestThreeMembersWithCertificatesAndRights is how a cluster ought to be run: TLS both ways, users by their certificates,
// and each may only what it must.
func TestThreeMembersWithCertificatesAndRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	serverCert, serverKey := ca.sign(filepath.Join(dir, "server"), nil)
	rootCert, rootKey := ca.sign(filepath.Join(dir, "root"), commonName("root"))
	clientCert, clientKey := ca.sign(filepath.Join(dir, "client"), commonName("selvage"))
	members, endpoints := startMembers(t, etcdserver.Options{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: ca.File})

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(ca.File)))
	root, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: quietZap(), TLS: &tls.Config{
		RootCAs: pool, Certificates: []tls.Certificate{must[tls.Certificate](t)(tls.LoadX509KeyPair(rootCert, rootKey))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	must[*clientv3.PutResponse](t)(root.Put(t.Context(), testPrefix+"/config", "{}"))
	access(t, root, "", map[string][]permission{"selvage": {readConfig, allSubnets}, "nobody": nil})

	log, kept := logger(t)
	s := open(t, Options{
		Endpoints: endpoints, Prefix: testPrefix, CAFile: ca.File, CertFile: clientCert, KeyFile: clientKey, Log: log,
		LeaseTTL: time.Minute, quiet: 200 * time.Millisecond, retryLast: retryFirst,
	})
	w := storetest.Watch(t, s, nil)
	w.Synced(1)
	h := startHold(t, s, works(t, s, w, 0))
	for i, m := range members {
		m.Kill()
		works(t, s, w, 1+i)
		restart(t, m)
	}
	h.change(lease(0, "b"))
	h.change(lease(0, "c"))

	// Another certificate, which is used as soon as there is another connection.
	reconnect := func() {
		t.Helper()
		for _, m := range members {
			restart(t, m)
		}
	}
	ca.sign(filepath.Join(dir, "client"), commonName("nobody"))
	reconnect()
	untilSaid(t, kept, "etcd denied the user that the client certificate "+clientCert+" names (its common name) access: it lacks read on /net/config and read on the prefix /net/subnets/.")
	ca.sign(filepath.Join(dir, "client"), commonName("selvage"))
	reconnect()
	works(t, s, w, 10)
	h.held()
	if state := w.Now(); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
	keepsSecret(t, kept.lines()...)
}

// TestMembersFail has each of three members hang or end in turn. One that accepts connections and answers nothing is the
// worst that a member can do.
func TestMembersFail(t *testing.T) {
	t.Parallel()
	members, endpoints := startMembers(t, etcdserver.Options{})
	_, o := cluster(t, members[0].Endpoint())
	o.Endpoints, o.LeaseTTL = endpoints, time.Minute
	s := open(t, o)
	w := storetest.Watch(t, s, nil)
	h := startHold(t, s, works(t, s, w, 0))
	var serves *etcdserver.Server
	for _, m := range members {
		if handled(t, m)["Watch"] > 0 {
			serves = m
		}
	}
	if serves == nil {
		t.Fatal("no member has a watch")
	}
	if err := serves.Pause(); err != nil {
		t.Fatal(err)
	}
	works(t, s, w, 1) // which needs another watch
	works(t, s, w, 2)
	if err := serves.Continue(); err != nil {
		t.Fatal(err)
	}
	works(t, s, w, 3)
	for i, m := range members {
		m.Kill()
		works(t, s, w, 4+i) // once there is a leader again
		restart(t, m)
	}
	h.held()
	if state := w.Now(); state.Synced != 1 {
		t.Errorf("%d snapshots", state.Synced)
	}
}

// TestRequestsWantALeader: a member that is parted from the others would otherwise have a request wait until its deadline.
func TestRequestsWantALeader(t *testing.T) {
	s := open(t, Options{Endpoints: []string{"http://127.0.0.1:1"}})
	ctx, cancel := s.deadline(t.Context())
	defer cancel()
	sent, _ := metadata.FromOutgoingContext(ctx)
	if got := sent.Get(rpctypes.MetadataRequireLeaderKey); len(got) != 1 || got[0] != rpctypes.MetadataHasLeader {
		t.Errorf("a request says %v", sent)
	}
	if _, ok := ctx.Deadline(); !ok {
		t.Error("a request has no deadline")
	}
}
