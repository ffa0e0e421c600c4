package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/kubeserver"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// requireServer is the environment variable with which the tests run against a real kube-apiserver as well, as those of
// make test-kube do.
const requireServer = "SELVAGE_TEST_KUBE"

// user is who the store is to the real server, with the rights that a node needs.
const user = "selvage"

// realServer is the kube-apiserver of all tests, which take turns.
type realServer struct {
	turn sync.Mutex
	*kubeserver.Server
}

// TestRealServer runs the suite against a real kube-apiserver.
func TestRealServer(t *testing.T) {
	if os.Getenv(requireServer) == "" {
		return // TestStore has the stand-in
	}
	program, err := kubeserver.Find()
	if err != nil {
		t.Fatal(err)
	}
	real := &realServer{}
	within(t, func(ctx context.Context) (err error) {
		real.Server, err = kubeserver.Start(ctx, kubeserver.Options{
			Binary: program, Dir: t.TempDir(), Users: map[string][]string{user: {"nodes"}},
		})
		return err
	})
	t.Cleanup(real.Kill)
	t.Run("Store", func(t *testing.T) {
		storetest.Run(t, kind, func(t *testing.T) storetest.Cluster { return real.fixture(t).cluster() })
	})
	t.Run("Harm", func(t *testing.T) {
		storetest.RunHarm(t, kind, func(t *testing.T) storetest.Cluster { return real.fixture(t).cluster() })
	})
}

// within fails the test if do fails, or takes too long.
func within(t *testing.T, do func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := do(ctx); err != nil {
		t.Fatal(err)
	}
}

// fixture waits for the test's turn, and is a server without a Node.
func (r *realServer) fixture(t *testing.T) *fixture {
	t.Helper()
	r.turn.Lock()
	t.Cleanup(r.turn.Unlock)
	pem, err := os.ReadFile(r.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	dir := t.TempDir()
	f := &fixture{
		t: t, conf: filepath.Join(dir, "net-conf.json"),
		admin: kubetest.Admin{
			URL: r.URL(), Token: r.Token(kubeserver.Admin), Client: &http.Client{Transport: transport},
		},
		api: apiserver.Options{Kubeconfig: filepath.Join(dir, "kubeconfig")},
	}
	if err := os.WriteFile(f.api.Kubeconfig, r.Kubeconfig(user), 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, func(ctx context.Context) error { return f.admin.DeleteAll(ctx, "/api/v1/nodes") })
	grant(t, f.admin)
	changed := func(t *testing.T, do func(ctx context.Context) error) {
		t.Helper()
		within(t, do)
		transport.CloseIdleConnections()
	}
	f.harm = &storetest.Harm{
		Restart: func(t *testing.T) {
			changed(t, func(ctx context.Context) error { r.Crash(); return r.Resume(ctx) })
		},
		Wipe: func(t *testing.T) {
			f.delete(t, "config")
			changed(t, func(ctx context.Context) error { return r.Restore(ctx, "") })
			grant(t, f.admin)
		},
		Backup: func(t *testing.T) func(t *testing.T) {
			saved := filepath.Join(t.TempDir(), "backup")
			changed(t, func(ctx context.Context) error { return r.Backup(ctx, saved) })
			return func(t *testing.T) {
				t.Helper()
				changed(t, func(ctx context.Context) error { return r.Restore(ctx, saved) })
			}
		},
		Compact: func(t *testing.T) { within(t, r.Compact) },
	}
	return f
}

// grant gives the store's user the rights that a node needs, and no more.
func grant(t *testing.T, admin kubetest.Admin) {
	t.Helper()
	const group = "rbac.authorization.k8s.io"
	var rules []map[string]any
	for _, r := range append(rights(), reviewRight()) {
		resource := r.Resource.Name
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		rules = append(rules, map[string]any{
			"apiGroups": []string{r.Resource.Group}, "resources": []string{resource}, "verbs": []string{r.Verb},
		})
	}
	for path, object := range map[string]map[string]any{
		"clusterroles": {"kind": "ClusterRole", "rules": rules},
		"clusterrolebindings": {
			"kind":     "ClusterRoleBinding",
			"roleRef":  map[string]any{"apiGroup": group, "kind": "ClusterRole", "name": user},
			"subjects": []map[string]any{{"apiGroup": group, "kind": "User", "name": user}},
		},
	} {
		object["apiVersion"], object["metadata"] = group+"/v1", map[string]any{"name": user}
		if _, err := admin.Create(t.Context(), "/apis/"+group+"/v1/"+path, object); err != nil && !strings.Contains(err.Error(), "409") {
			t.Fatal(err)
		}
	}
}
