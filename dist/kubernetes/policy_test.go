//go:build kube

package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/kubeserver"
	"github.com/selvage-net/selvage/network/feed"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/kube"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// patience is how long anything is waited for.
const patience = time.Minute

// manifests are those with leases in Kubernetes, and what the names of the lease's annotations begin with there.
var manifests = map[string]string{
	"selvage.yaml": kube.DefaultPrefix,
	"../chart/testdata/everything-kubernetes.yaml": "example.org/blue-",
}

type object = map[string]any

// cluster is an API server to which the manifest was applied, with the Nodes a and b.
type cluster struct {
	*testing.T
	server *kubeserver.Server
	client *http.Client
	prefix string // of the lease's annotations
}

func newCluster(t *testing.T, manifest, prefix string) *cluster {
	t.Helper()
	binary, err := kubeserver.Find()
	if err != nil {
		t.Fatalf("%v: make test-kube builds it", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	server, err := kubeserver.Start(ctx, kubeserver.Options{
		Binary: binary, Dir: t.TempDir(), Users: map[string][]string{"system:node:a": {"system:nodes"}},
		Flags: []string{"--enable-admission-plugins=NodeRestriction", "--allow-privileged"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	authority, err := os.ReadFile(server.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	c := &cluster{t, server, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: patience}, prefix}
	c.apply(manifest)
	for i, name := range []string{"a", "b"} {
		cidr := fmt.Sprintf("10.244.%d.0/24", i)
		c.create("/api/v1/nodes", object{
			"metadata": object{"name": name, "annotations": object{"other": "stays", "gone": "soon"}, "labels": object{"kubernetes.io/os": "linux"}},
			"spec":     object{"podCIDR": cidr, "podCIDRs": []string{cidr}},
		})
		c.must(c.admin(), "/api/v1/nodes/"+name+"/status", object{"status": object{
			"capacity": object{"cpu": "2"}, "addresses": []object{{"type": "InternalIP", "address": "192.0.2.1"}},
			"images":     []object{{"names": []string{"registry.example/a:1"}, "sizeBytes": 5}},
			"conditions": []object{{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}, {"type": "Ready", "status": "True", "reason": "KubeletReady"}},
		}})
	}
	return c
}

// paths are where the API server has the kinds of objects in a manifest.
var paths = map[string]string{
	"Namespace":                        "/api/v1/namespaces/",
	"ServiceAccount":                   "/api/v1/namespaces/selvage/serviceaccounts/",
	"ConfigMap":                        "/api/v1/namespaces/selvage/configmaps/",
	"DaemonSet":                        "/apis/apps/v1/namespaces/selvage/daemonsets/",
	"Deployment":                       "/apis/apps/v1/namespaces/selvage/deployments/",
	"ClusterRole":                      "/apis/rbac.authorization.k8s.io/v1/clusterroles/",
	"ClusterRoleBinding":               "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/",
	"ValidatingAdmissionPolicy":        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/",
	"ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/",
}

var (
	kindOf = regexp.MustCompile(`(?m)^kind: (\w+)$`)
	nameOf = regexp.MustCompile(`(?m)^metadata:\n  name: (\S+)$`)
)

// apply applies a manifest as kubectl apply --server-side --validate=strict does.
func (c *cluster) apply(file string) {
	c.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		c.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(data), "\n---\n") {
		kind, name := kindOf.FindStringSubmatch(doc), nameOf.FindStringSubmatch(doc)
		if kind == nil || name == nil || paths[kind[1]] == "" {
			c.Fatalf("%s: an object of an unknown kind:\n%s", file, doc)
		}
		path := paths[kind[1]] + name[1] + "?fieldManager=test&fieldValidation=Strict"
		if status, answer := c.send(c.admin(), http.MethodPatch, path, "application/apply-patch+yaml", doc); status != http.StatusCreated {
			c.Fatalf("PATCH %s: %d: %s", path, status, answer)
		}
	}
}

func (c *cluster) admin() string { return c.server.Token(kubeserver.Admin) }

// do sends an object and returns the answer's status and content.
func (c *cluster) do(token, method, path, contentType string, o object) (status int, answer string) {
	c.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		c.Fatal(err)
	}
	return c.send(token, method, path, contentType, string(data))
}

func (c *cluster) send(token, method, path, contentType, body string) (status int, answer string) {
	c.Helper()
	request, err := http.NewRequestWithContext(c.Context(), method, c.server.URL()+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", contentType)
	response, err := c.client.Do(request)
	if err != nil {
		c.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		c.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// create creates an object as the administrator.
func (c *cluster) create(path string, o object) (created struct {
	Metadata struct{ UID string }
	Status   struct{ Token string }
}) {
	c.Helper()
	status, answer := c.do(c.admin(), http.MethodPost, path, "application/json", o)
	if status != http.StatusCreated {
		c.Fatalf("POST %s: %d: %s", path, status, answer)
	}
	if err := json.Unmarshal([]byte(answer), &created); err != nil {
		c.Fatal(err)
	}
	return created
}

func (c *cluster) patch(token, path string, o object) (int, string) {
	c.Helper()
	return c.do(token, http.MethodPatch, path, "application/strategic-merge-patch+json", o)
}

// must sends a patch that has to be accepted.
func (c *cluster) must(token, path string, o object) {
	c.Helper()
	if status, answer := c.patch(token, path, o); status != http.StatusOK {
		c.Errorf("PATCH %s with %v: %d: %s", path, o, status, answer)
	}
}

// denied sends a patch that has to be denied, with a message.
func (c *cluster) denied(token, path string, o object, message string) {
	c.Helper()
	status, answer := c.patch(token, path, o)
	if (status != http.StatusForbidden && status != http.StatusUnprocessableEntity) || !strings.Contains(answer, message) {
		c.Errorf("PATCH %s with %v: %d: %s, want it to be denied: %s", path, o, status, answer, message)
	}
}

// daemon returns the token of the daemon on a node, as its kubelet has it made for the pod.
func (c *cluster) daemon(node string) string {
	c.Helper()
	pod := c.create("/api/v1/namespaces/selvage/pods", object{
		"metadata": object{"name": "selvage-" + node},
		"spec": object{"nodeName": node, "serviceAccountName": "selvage", "automountServiceAccountToken": false,
			"containers": []object{{"name": "selvaged", "image": "localhost/selvage:devel"}}},
	})
	return c.token(object{"kind": "Pod", "apiVersion": "v1", "name": "selvage-" + node, "uid": pod.Metadata.UID})
}

// token returns one of the daemons' service account, bound to an object.
func (c *cluster) token(bound object) string {
	c.Helper()
	return c.create("/api/v1/namespaces/selvage/serviceaccounts/selvage/token", object{
		"spec": object{"boundObjectRef": bound, "expirationSeconds": 3600},
	}).Status.Token
}

func annotations(m object) object { return object{"metadata": object{"annotations": m}} }

func (c *cluster) lease(cidrs string) object {
	return annotations(object{
		c.prefix + "kube-subnet-manager": "true", c.prefix + "backend-type": "vxlan", c.prefix + "public-ip": "192.0.2.1",
		c.prefix + "backend-data": `{"VNI":1,"VtepMAC":"8e:8f:a1:00:00:01"}`, c.prefix + "backend-v6-data": nil,
		"selvage.io/lease": `{"UID":"1"}`, "selvage.io/pod-cidrs": cidrs,
	})
}

// store is that of the daemon on a node, with the token of a pod and the environment that the kubelet gives it.
func (c *cluster) store(node, token string) *kube.Store {
	c.Helper()
	dir := c.TempDir()
	authority, err := os.ReadFile(c.server.CAFile())
	if err != nil {
		c.Fatal(err)
	}
	for name, content := range map[string]string{"token": token, "ca.crt": string(authority), "namespace": "selvage"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o400); err != nil {
			c.Fatal(err)
		}
	}
	server, err := url.Parse(c.server.URL())
	if err != nil {
		c.Fatal(err)
	}
	environment := map[string]string{"KUBERNETES_SERVICE_HOST": server.Hostname(), "KUBERNETES_SERVICE_PORT": server.Port()}
	s, err := kube.New(kube.Options{
		Node: node, Prefix: c.prefix, NetworkCondition: true,
		API: apiserver.Options{ServiceAccount: dir, Lookup: func(name string) (string, bool) { v, ok := environment[name]; return v, ok }},
	})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { s.Close() })
	return s
}

func TestPolicy(t *testing.T) {
	for manifest, prefix := range manifests {
		t.Run(filepath.Base(manifest), func(t *testing.T) { testPolicy(t, manifest, prefix) })
	}
}

// testPolicy sends what the daemon of node a sends, and what a process that stole its token could.
func testPolicy(t *testing.T, manifest, prefix string) {
	c := newCluster(t, manifest, prefix)
	a, b := c.daemon("a"), c.daemon("b")
	const statusOfA, statusOfB = "/api/v1/nodes/a/status", "/api/v1/nodes/b/status"
	condition := func(kind, status, at string) object {
		return object{"status": object{"conditions": []object{{"type": kind, "status": status, "reason": "FlannelIsUp",
			"message": "Flannel is running on this node", "lastTransitionTime": at, "lastHeartbeatTime": at}}}}
	}
	const now = "2026-01-02T03:04:05Z"

	// The API server needs a moment to learn of a policy.
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if status, _ := c.patch(b, statusOfA, annotations(object{"selvage.io/lease": "x"})); status != http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the policy does not come into force")
		}
	}

	t.Run("own", func(t *testing.T) {
		c := *c
		c.T = t
		c.must(a, statusOfA, c.lease("10.244.0.0/24"))
		c.must(a, statusOfA, condition("NetworkUnavailable", "False", now))
		c.must(a, statusOfA, annotations(object{prefix + "public-ip": "192.0.2.9"}))
		c.must(b, statusOfB, c.lease("10.244.1.0/24"))
		c.must(a, statusOfA, annotations(object{prefix + "kube-subnet-manager": nil, "selvage.io/lease": nil, "selvage.io/pod-cidrs": nil}))
		c.must(a, statusOfA, c.lease("10.244.0.0/24"))
	})

	t.Run("daemon", func(t *testing.T) {
		c := *c
		c.T = t
		s := c.store("a", a)
		want := subnet.Lease{BackendType: "vxlan", InstanceID: "0123", NodeName: "a"}
		want.Endpoints[subnet.IPv4] = subnet.Endpoint{PublicIP: netip.MustParseAddr("192.0.2.1"), Data: `{"VNI":1,"VtepMAC":"8e:8f:a1:00:00:01"}`}
		r, err := s.Claim(t.Context(), nil, want)
		if err != nil || r.Endpoints[subnet.IPv4].Subnet != netip.MustParsePrefix("10.244.0.0/24") {
			t.Fatalf("claimed %+v, %v", r, err)
		}
		if err := s.AnnounceNetwork(t.Context()); err != nil {
			t.Error(err)
		}
		if found := s.Examine(t.Context()); found.Rights.Err != nil {
			t.Errorf("its rights: %v", found.Rights.Err)
		}
		if _, err := c.store("b", a).Claim(t.Context(), nil, want); err == nil || !strings.Contains(err.Error(), "may change its own Node only") {
			t.Errorf("a claim for another Node: %v", err)
		}
		if err := s.Release(t.Context(), r); err != nil {
			t.Error(err)
		}
	})

	t.Run("denied", func(t *testing.T) {
		c := *c
		c.T = t
		c.denied(a, statusOfB, c.lease("10.244.1.0/24"), "may change its own Node only, and its token is bound to Node a")
		c.denied(a, statusOfB, condition("NetworkUnavailable", "True", now), "may change its own Node only")
		c.denied(a, statusOfA, c.lease("10.244.1.0/24"), "selvage.io/pod-cidrs differs from spec.podCIDRs")
		c.denied(a, statusOfA, annotations(object{"selvage.io/pod-cidrs": ""}), "selvage.io/pod-cidrs differs from spec.podCIDRs")
		c.denied(a, statusOfA, annotations(object{"other": "changed"}), "may not change the annotation other")
		c.denied(a, statusOfA, annotations(object{"gone": nil}), "may not change the annotation gone")
		c.denied(a, statusOfA, annotations(object{prefix + "public-ip-overwrite": "192.0.2.7"}), "may not change the annotation "+prefix+"public-ip-overwrite")
		c.denied(a, statusOfA, object{"metadata": object{"labels": object{"node-role.kubernetes.io/control-plane": ""}}}, "may change no label")
		c.denied(a, statusOfA, object{"metadata": object{"finalizers": []string{"example.org/stay"}}}, "may change no label")
		c.denied(a, statusOfA, object{"metadata": object{"ownerReferences": []object{
			{"apiVersion": "v1", "kind": "Namespace", "name": "selvage", "uid": "00000000-0000-4000-8000-000000000001"}}}}, "may change no label")
		c.denied(a, statusOfA, condition("Ready", "False", now), "may change no condition")
		c.denied(a, statusOfA, condition("Other", "True", now), "may change no condition")
		c.denied(a, statusOfA, object{"status": object{"capacity": object{"cpu": "64"}}}, "may change nothing of its Node's status")
		c.denied(a, statusOfA, object{"status": object{"addresses": []object{{"type": "InternalIP", "address": "192.0.2.3"}}}}, "may change nothing of its Node's status")
		c.denied(a, statusOfA, object{"status": object{"images": []object{}}}, "")
	})

	t.Run("rights", func(t *testing.T) {
		c := *c
		c.T = t
		for _, path := range []string{
			"/api/v1/nodes", "/api/v1/nodes/b", "/api/v1/nodes?watch=true&timeoutSeconds=1", "/api/v1/pods",
			"/api/v1/pods?watch=true&timeoutSeconds=1", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies",
		} {
			if status, answer := c.do(a, http.MethodGet, path, "", nil); status != http.StatusOK {
				t.Errorf("GET %s: %d: %s", path, status, answer)
			}
		}
		for _, r := range [][2]string{
			{http.MethodPatch, "/api/v1/nodes/a"}, {http.MethodDelete, "/api/v1/nodes/a"}, {http.MethodPut, statusOfA}, {http.MethodPost, "/api/v1/nodes"},
			{http.MethodDelete, "/api/v1/namespaces/selvage/pods/selvage-a"}, {http.MethodPatch, "/api/v1/namespaces/selvage/pods/selvage-a/status"},
			{http.MethodPatch, "/api/v1/namespaces/selvage"}, {http.MethodDelete, "/apis/networking.k8s.io/v1/namespaces/selvage/networkpolicies"},
			{http.MethodGet, "/api/v1/secrets"}, {http.MethodGet, "/api/v1/namespaces/selvage/configmaps"},
			{http.MethodDelete, "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/selvage"},
		} {
			if status, answer := c.do(a, r[0], r[1], "application/strategic-merge-patch+json", object{}); status != http.StatusForbidden {
				t.Errorf("%s %s: %d: %s, want it to be forbidden", r[0], r[1], status, answer)
			}
		}
		for _, right := range feed.Rights() { // also of what the server does not have
			attributes := object{"verb": right.Verb, "group": right.Resource.Group, "resource": right.Resource.Name}
			review := object{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": object{"resourceAttributes": attributes}}
			if status, answer := c.do(a, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", review); status != http.StatusCreated || !strings.Contains(answer, `"allowed":true`) {
				t.Errorf("%s: %d: %s", right, status, answer)
			}
		}
		review := object{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": object{
			"resourceAttributes": object{"verb": "patch", "resource": "nodes", "subresource": "status"}}}
		if status, answer := c.do(a, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", review); status != http.StatusCreated || !strings.Contains(answer, `"allowed":true`) {
			t.Errorf("its own rights: %d: %s", status, answer)
		}
	})

	t.Run("tokens of no pod", func(t *testing.T) {
		c := *c
		c.T = t
		c.denied(c.token(nil), statusOfA, c.lease("10.244.0.0/24"), "its token is bound to none")
	})

	// The policy is about the daemons alone.
	t.Run("others", func(t *testing.T) {
		c := *c
		c.T = t
		kubelet := c.server.Token("system:node:a")
		c.must(kubelet, statusOfA, condition("Ready", "False", now))
		c.must(kubelet, statusOfA, object{"status": object{"capacity": object{"cpu": "4"}}})
		c.must(c.admin(), statusOfB, annotations(object{"other": "changed", prefix + "public-ip-overwrite": "192.0.2.7"}))
	})
}
