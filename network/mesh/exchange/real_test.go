package exchange

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/dist/lab/kubeserver"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// requireServer is the environment variable with which this test runs, as by make test-kube.
const requireServer = "SELVAGE_TEST_KUBE"

// cluster is a kube-apiserver with a Node and ServiceAccounts.
type cluster struct {
	t      *testing.T
	server *kubeserver.Server
	client *http.Client
	role   map[string]any // of a daemon
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	program, err := kubeserver.Find()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := &cluster{t: t}
	c.server, err = kubeserver.Start(ctx, kubeserver.Options{Binary: program, Dir: t.TempDir(), Users: map[string][]string{"daemon": nil}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.server.Kill)
	authority, err := os.ReadFile(c.server.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(c.client.CloseIdleConnections)
	object := func(kind, name string) map[string]any {
		return map[string]any{"kind": kind, "metadata": map[string]any{"name": name}}
	}
	c.do("POST", "/api/v1/namespaces", object("Namespace", "selvage"), nil)
	for _, name := range []string{"selvage", "selvage-mesh", "other"} {
		c.do("POST", "/api/v1/namespaces/selvage/serviceaccounts", object("ServiceAccount", name), nil)
	}
	node := object("Node", "node1")
	node["spec"] = map[string]any{"podCIDRs": []string{"10.244.1.0/24"}, "podCIDR": "10.244.1.0/24"}
	c.do("POST", "/api/v1/nodes", node, nil)
	role := object("ClusterRole", "daemon") // as the chart's
	role["rules"] = []map[string]any{
		{"apiGroups": []string{""}, "resources": []string{"nodes"}, "verbs": []string{"get", "list", "watch"}},
		{"apiGroups": []string{""}, "resources": []string{"nodes/status"}, "verbs": []string{"patch"}},
		{"apiGroups": []string{"authentication.k8s.io"}, "resources": []string{"tokenreviews"}, "verbs": []string{"create"}},
	}
	c.do("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role, nil)
	c.role = role
	binding := object("ClusterRoleBinding", "daemon")
	binding["roleRef"] = map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "daemon"}
	binding["subjects"] = []map[string]any{{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "daemon"}}
	c.do("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding, nil)
	return c
}

// do sends a request as the administrator.
func (c *cluster) do(method, path string, body, answer any) {
	c.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.server.URL()+path, bytes.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.server.Token(kubeserver.Admin))
	r.Header.Set("Content-Type", "application/json")
	got, err := c.client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer got.Body.Close()
	all, err := io.ReadAll(got.Body)
	if err == nil && got.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", got.Status, all)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(all, answer)
	}
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// token has the API server issue a token.
func (c *cluster) token(account string, audiences ...string) string {
	c.t.Helper()
	var answer struct{ Status struct{ Token string } }
	c.do("POST", "/api/v1/namespaces/selvage/serviceaccounts/"+account+"/token", map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": map[string]any{"audiences": audiences, "expirationSeconds": 600},
	}, &answer)
	return answer.Status.Token
}

// store returns the lease store of a user.
func (c *cluster) store(user string) *kube.Store {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "kubeconfig")
	conf := filepath.Join(filepath.Dir(file), "net-conf.json")
	err := errors.Join(os.WriteFile(file, c.server.Kubeconfig(user), 0o600),
		os.WriteFile(conf, []byte(`{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`), 0o600))
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := kube.New(kube.Options{API: apiserver.Options{Kubeconfig: file}, Node: "node1", NetConfPath: conf})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = s.Close() })
	return s
}

// leased returns the key of a node's server, as others read it from the Node.
func (c *cluster) leased(s *kube.Store) (key string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	found := errors.New("found")
	err := s.Watch(ctx, func(e subnet.Event) error {
		for _, r := range e.Put {
			if r.Bad == nil && r.Name == "node1" {
				key = r.MeshKey
			}
		}
		if e.Type == subnet.Synced {
			return found
		}
		return nil
	})
	if !errors.Is(err, found) {
		c.t.Fatal(err)
	}
	return key
}

// TestRealTokens: with a real API server, a node learns the key of another one's server from its Node, shows that a token, and is told the
// summary, if the token is that of an allowed account and for the nodes.
func TestRealTokens(t *testing.T) {
	if os.Getenv(requireServer) == "" {
		return // TestTokens has a stand-in
	}
	c := newCluster(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	write(t, file, c.token("selvage", Audience))
	store := c.store("daemon")
	log, out := logrus.New(), &logged{}
	log.SetOutput(out)
	s := serveTokens(t, Options{Address: freePort(t, "127.0.0.1"), Log: log, Tokens: Tokens{
		File: file, Accounts: []Account{{"selvage", "selvage"}, {"selvage", "selvage-mesh"}},
		KeyFile: filepath.Join(dir, KeyFile), Review: store.Reviewer(Audience),
	}})
	lease := subnet.Lease{BackendType: "vxlan", NodeName: "node1", MeshKey: s.Key()}
	lease.Endpoints[subnet.IPv4].PublicIP = netip.MustParseAddr("192.0.2.1")
	if _, err := store.Claim(t.Context(), nil, lease); err != nil {
		t.Fatal(err)
	}
	key := c.leased(c.store("daemon"))
	if key != s.Key() {
		t.Fatalf("the Node names the key %q, want %q", key, s.Key())
	}
	var now clock
	now.at.Store(time.Now().UnixNano())
	s.gate.now = now.now
	page := c.token("selvage-mesh", Audience)
	for _, tt := range []struct {
		name, token string
		want        status.Reason
	}{
		{"a daemon's", c.token("selvage", Audience), ""},
		{"the page's", page, ""},
		{"one for other audiences, too", c.token("selvage", "https://kubernetes.default.svc", Audience), ""},
		{"one for the API server", c.token("selvage"), mesh.TokenRefused},
		{"one of another account", c.token("other", Audience), mesh.TokenRefused},
		{"one whose signature is changed", page[:len(page)-8] + "AAAAAAAA", mesh.TokenRefused},
		{"one of a user of the API server", c.server.Token(kubeserver.Admin), mesh.TokenRefused},
	} {
		write(t, file, tt.token)
		now.add(daemonGate.source.every)
		if got := showToken(t, s, file, key); got.Code != tt.want || (got.Summary != nil) != (tt.want == "") {
			t.Errorf("%s: %+v, want %q", tt.name, got, tt.want)
		}
	}
	// A token is void once its account is gone, when its review does not count any more.
	c.do("DELETE", "/api/v1/namespaces/selvage/serviceaccounts/selvage-mesh", map[string]any{}, nil)
	write(t, file, page)
	await(t, "the API server refuses it", func() bool { // its cache of accounts may be behind
		now.add(daemonGate.accepted)
		return showToken(t, s, file, key).Code == mesh.TokenRefused
	})
	if x := store.Examine(t.Context()); x.Rights.Err != nil {
		t.Errorf("with all rights: %v", x.Rights.Err)
	}
	// A daemon without the right to create tokenreviews says so.
	c.role["rules"] = c.role["rules"].([]map[string]any)[:2]
	c.do("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/daemon", c.role, nil)
	await(t, "a right is missing", func() bool { // the server's cache of roles may be behind
		x := store.Examine(t.Context())
		return x.Rights.Reason == subnet.ReasonForbidden && strings.Contains(x.Rights.Err.Error(), "missing: create tokenreviews:")
	})
	if x := c.store("daemon").Examine(t.Context()); x.Rights.Err != nil {
		t.Errorf("without tokens: %v", x.Rights.Err)
	}
	write(t, file, c.token("selvage", Audience))
	await(t, "no reviews any more", func() bool {
		now.add(2 * time.Hour) // for the limit, and past the token's end
		return showToken(t, s, file, key).Code == mesh.TokenNotReviewed
	})
	if !strings.Contains(out.String(), "tokenreviews") {
		t.Errorf("logged: %s", out)
	}
}
