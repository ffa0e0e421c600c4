package feed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/kubeserver"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// requireServer is the environment variable with which the tests run against a real kube-apiserver as well, as those of
// make test-kube do.
const requireServer = "SELVAGE_TEST_KUBE"

// user is who the feed is to the real server, with Rights.
const user = "selvage"

// realServer starts a real kube-apiserver; ok is false if that was not asked for.
func realServer(t *testing.T) (b backend, ok bool) {
	if os.Getenv(requireServer) == "" {
		return b, false
	}
	program, err := kubeserver.Find()
	if err != nil {
		t.Fatal(err)
	}
	within := func(do func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := do(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var s *kubeserver.Server
	within(func(ctx context.Context) (err error) {
		s, err = kubeserver.Start(ctx, kubeserver.Options{
			Binary: program, Dir: t.TempDir(), Users: map[string][]string{user: {"nodes"}},
		})
		return err
	})
	t.Cleanup(s.Kill)
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, s.Kubeconfig(user), 0o600); err != nil {
		t.Fatal(err)
	}
	b = backend{
		t: t, options: apiserver.Options{Kubeconfig: file},
		admin: kubetest.Admin{URL: s.URL(), Token: s.Token(kubeserver.Admin), Client: &http.Client{Transport: transport}},
		backup: func() func() {
			saved := filepath.Join(t.TempDir(), "backup")
			within(func(ctx context.Context) error { return s.Backup(ctx, saved) })
			return func() { within(func(ctx context.Context) error { return s.Restore(ctx, saved) }) }
		},
		forget: func() {
			within(func(ctx context.Context) error {
				if err := s.Compact(ctx); err != nil {
					return err
				}
				s.Crash() // its cache has the history too
				return s.Resume(ctx)
			})
		},
	}
	b.define = func() { defineClusterPolicies(t, b.admin) }
	grant(t, b.admin)
	return b, true
}

// grant gives the user Rights, and no more.
func grant(t *testing.T, admin kubetest.Admin) {
	t.Helper()
	const group = "rbac.authorization.k8s.io"
	var rules []fields
	for _, r := range Rights() {
		rules = append(rules, fields{
			"apiGroups": []string{r.Resource.Group}, "resources": []string{r.Resource.Name}, "verbs": []string{r.Verb},
		})
	}
	for path, object := range map[string]fields{
		"clusterroles": {"kind": "ClusterRole", "rules": rules},
		"clusterrolebindings": {
			"kind":     "ClusterRoleBinding",
			"roleRef":  fields{"apiGroup": group, "kind": "ClusterRole", "name": user},
			"subjects": []fields{{"apiGroup": group, "kind": "User", "name": user}},
		},
	} {
		object["apiVersion"], object["metadata"] = group+"/v1", fields{"name": user}
		if _, err := admin.Create(t.Context(), "/apis/"+group+"/v1/"+path, object); err != nil {
			t.Fatal(err)
		}
	}
}

// defineClusterPolicies creates the CustomResourceDefinition, without a schema, and waits until the server serves it.
func defineClusterPolicies(t *testing.T, admin kubetest.Admin) {
	t.Helper()
	names := fields{"plural": clusterPolicies.Name, "singular": "clusternetworkpolicy", "kind": "ClusterNetworkPolicy"}
	_, err := admin.Create(t.Context(), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", fields{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": fields{
			"name":        clusterPolicies.Name + "." + clusterPolicies.Group,
			"annotations": fields{"api-approved.kubernetes.io": "unapproved, for a test"},
		},
		"spec": fields{
			"group": clusterPolicies.Group, "names": names, "scope": "Cluster",
			"versions": []fields{{
				"name": clusterPolicies.Version, "served": true, "storage": true,
				"schema": fields{"openAPIV3Schema": fields{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	testctx.Eventually(t, func() string {
		if err := admin.DeleteAll(t.Context(), clusterPolicyPath); err != nil { // there are none
			return err.Error()
		}
		return ""
	})
}
