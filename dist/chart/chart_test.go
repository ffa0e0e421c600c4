package chart

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const dir = "selvage"

// everything sets every value that changes what is rendered with etcd; everythingKubernetes those that do with Kubernetes alone.
func everything(t *testing.T) map[string]any { return valuesOf(t, "everything.yaml") }

func everythingKubernetes(t *testing.T) map[string]any {
	return valuesOf(t, "everything-kubernetes.yaml")
}

func valuesOf(t *testing.T, file string) map[string]any {
	t.Helper()
	values, err := chartutil.ReadValuesFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// withEtcd are the defaults with etcd, withKubernetes with Kubernetes alone.
func withEtcd() map[string]any { return map[string]any{"store": "etcd"} }

func withKubernetes() map[string]any { return map[string]any{"store": "kubernetes"} }

// objects decodes what Kubernetes would be given, and refuses a field that it does not know.
func objects(t *testing.T, text string) (list []any) {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		into := map[string]any{
			"v1 Namespace": &corev1.Namespace{}, "v1 ServiceAccount": &corev1.ServiceAccount{}, "v1 ConfigMap": &corev1.ConfigMap{},
			"apps/v1 DaemonSet":                                                &appsv1.DaemonSet{},
			"apps/v1 Deployment":                                               &appsv1.Deployment{},
			"rbac.authorization.k8s.io/v1 ClusterRole":                         &rbacv1.ClusterRole{},
			"rbac.authorization.k8s.io/v1 ClusterRoleBinding":                  &rbacv1.ClusterRoleBinding{},
			"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy":        &admissionv1.ValidatingAdmissionPolicy{},
			"admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding": &admissionv1.ValidatingAdmissionPolicyBinding{},
			"monitoring.coreos.com/v1 PodMonitor":                              &monitoringv1.PodMonitor{},
			"monitoring.coreos.com/v1 PrometheusRule":                          &monitoringv1.PrometheusRule{},
		}[kind.APIVersion+" "+kind.Kind]
		if into == nil {
			t.Fatalf("an object of the unexpected kind %s %s:\n%s", kind.APIVersion, kind.Kind, doc)
		}
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Errorf("%s: %v\n%s", kind.Kind, err, doc)
		}
		list = append(list, into)
	}
}

func render(t *testing.T, values map[string]any) []any {
	t.Helper()
	text, err := Manifest(dir, Release{Name: "selvage", Namespace: "selvage", Values: values})
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, text)
}

func find[T any](t *testing.T, list []any) (found []*T) {
	t.Helper()
	for _, o := range list {
		if v, ok := o.(*T); ok {
			found = append(found, v)
		}
	}
	if len(found) == 0 {
		t.Fatalf("there is no %T", *new(T))
	}
	return found
}

// TestGenerated holds the plain manifests to the chart, and what the apiserver is shown.
func TestGenerated(t *testing.T) {
	for _, f := range Files() {
		want, err := f.Render(".")
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is not what the chart renders: run go generate in dist/chart", f.Path)
		}
		number := 5
		if strings.Contains(want, "SELVAGED_KUBE_SUBNET_MGR") {
			number = 10
		}
		if strings.Contains(want, "kind: PodMonitor") {
			number = 6
		}
		if strings.Contains(want, "kind: Deployment") {
			number++
		}
		if strings.Contains(want, "serviceAccountName: selvage-mesh\n") {
			number++
		}
		if n := len(objects(t, string(got))); n != number {
			t.Errorf("%s: %d objects, want %d", f.Path, n, number)
		}
	}
}

// TestEveryValue has no value of the chart be forgotten where all are to be set.
func TestEveryValue(t *testing.T) {
	all, err := chartutil.ReadValuesFile(filepath.Join(dir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	set := valuesOf(t, "monitoring.yaml")
	maps.Copy(set, everythingKubernetes(t))
	maps.Copy(set, everything(t))
	for name := range all {
		if _, ok := set[name]; !ok && name != "cni" { // whose directories a node has anyway
			t.Errorf("everything.yaml does not set %s", name)
		}
	}
}

// TestNotes reads what Helm says at the end.
func TestNotes(t *testing.T) {
	for _, tt := range []struct {
		values map[string]any
		want   []string
		not    string
	}{
		{withEtcd(), []string{"--endpoints=http://127.0.0.1:2379", "/coreos.com/network/config", "-n there exec daemonset/here", "No registry has the image"}, "ipMasq"},
		{withKubernetes(), []string{"--cluster-cidr=10.244.0.0/16. To see them", "podCIDRs", "-n there exec daemonset/here"}, "admission policy"},
		{map[string]any{"store": "kubernetes", "kubernetes": map[string]any{"admissionPolicy": false}}, []string{"admissionPolicy is false"}, "etcd"},
		{everything(t), []string{"--endpoints=https://10.0.0.1:2379,https://10.0.0.2:2379", "/a/b/config", "ipMasq is false",
			"-n there port-forward deployment/here-mesh 8474"}, "No registry"},
	} {
		files, err := renderAll(dir, Release{Name: "here", Namespace: "there", Values: tt.values})
		if err != nil {
			t.Fatal(err)
		}
		notes := files["selvage/templates/NOTES.txt"]
		for _, part := range tt.want {
			if !strings.Contains(notes, part) {
				t.Errorf("%q is not in:\n%s", part, notes)
			}
		}
		if strings.Contains(notes, tt.not) {
			t.Errorf("%q is in:\n%s", tt.not, notes)
		}
	}
}

// TestStrict makes sure that a misspelt field would be found.
func TestStrict(t *testing.T) {
	text, err := Files()[0].Render(".")
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.Replace(text, "terminationGracePeriodSeconds", "terminationGraceSeconds", 1)
	var d appsv1.DaemonSet
	_, daemonset, _ := strings.Cut(wrong, "---\napiVersion: apps/v1")
	if err := yaml.UnmarshalStrict([]byte("apiVersion: apps/v1"+daemonset), &d); err == nil {
		t.Error("a misspelt field was taken")
	}
}

func TestLint(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"defaults": {}, "etcd": withEtcd(), "kubernetes": withKubernetes(), "everything": everything(t), "everything of kubernetes": everythingKubernetes(t),
		"monitoring": valuesOf(t, "monitoring.yaml"),
	} {
		for _, m := range lint.All(dir, values, "selvage", true).Messages {
			if m.Severity > support.InfoSev { // the one of that severity: there is no icon
				t.Errorf("%s: %s", name, m)
			}
		}
	}
}

func TestEverything(t *testing.T) {
	list := render(t, everything(t))
	d := find[appsv1.DaemonSet](t, list)[0]
	if got := d.Spec.Template.Spec.Containers[0].Image; got != "registry.example/selvage:v1.2.3@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("the image is %s", got)
	}
	flags := configMap(t, list, "selvage-flags")
	for name, want := range map[string]string{
		"SELVAGED_ETCD_ENDPOINTS": "https://10.0.0.1:2379,https://10.0.0.2:2379", "SELVAGED_ETCD_PREFIX": "/a/b",
		"SELVAGED_ETCD_CAFILE": "/etc/selvage/etcd/ca.crt", "SELVAGED_IP_MASQ": "false", "SELVAGED_IFACE": "eth1",
		"SELVAGED_PEER_GRACE": "1m", "SELVAGED_VTEP_FILTER": "false", "SELVAGED_IPTABLES_RESYNC": "7",
		"SELVAGED_ETCD_PASSWORD_FILE": "/etc/selvage/etcd-user/password", "SELVAGED_METRICS_ADDR": ":9998",
		"SELVAGED_MESH_ADDR": ":9997", "SELVAGED_MESH_SERVER_NAME": "nodes.example", "SELVAGED_MESH_KEYFILE": "/etc/selvage/mesh/tls.key",
	} {
		if flags[name] != want {
			t.Errorf("%s is %q, want %q", name, flags[name], want)
		}
	}
}

// configMap is the content of one.
func configMap(t *testing.T, list []any, name string) map[string]string {
	t.Helper()
	for _, m := range find[corev1.ConfigMap](t, list) {
		if m.Name == name {
			return m.Data
		}
	}
	t.Fatalf("there is no ConfigMap %s", name)
	return nil
}

// TestFlags asks the daemon whether it knows the flags.
func TestFlags(t *testing.T) {
	help, err := exec.Command("../../bin/selvaged", "--help").Output()
	if err != nil {
		t.Fatalf("%v: make build makes it", err)
	}
	for _, values := range []map[string]any{everything(t), everythingKubernetes(t)} {
		for name := range configMap(t, render(t, values), "selvage-flags") {
			flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "SELVAGED_"), "_", "-"))
			if !regexp.MustCompile(`(?m)^ +` + flag + `\b`).Match(help) {
				t.Errorf("%s: selvaged has no flag %s", name, flag)
			}
		}
	}
}

// TestArguments asks the command that installs the plugin the same.
func TestArguments(t *testing.T) {
	help, err := exec.Command("../../bin/selvaged", "install-cni", "--help").Output()
	if err != nil {
		t.Fatalf("%v: make build makes it", err)
	}
	args := find[appsv1.DaemonSet](t, render(t, nil))[0].Spec.Template.Spec.Containers[1].Args
	if len(args) == 0 || args[0] != "install-cni" {
		t.Fatalf("arguments %q", args)
	}
	for _, arg := range args[1:] {
		flag, _, _ := strings.Cut(arg, "=")
		if !regexp.MustCompile(`(?m)^ +` + flag + `\b`).Match(help) {
			t.Errorf("selvaged install-cni has no flag %s", flag)
		}
	}
}

// TestPrivileges holds what the daemon may do on a node.
func TestPrivileges(t *testing.T) {
	t.Run("etcd", func(t *testing.T) { testPrivileges(t, withEtcd()) })
	t.Run("etcd with Secrets", func(t *testing.T) { testPrivileges(t, everything(t)) })
	t.Run("kubernetes", func(t *testing.T) { testPrivileges(t, withKubernetes()) })
}

func testPrivileges(t *testing.T, values map[string]any) {
	spec := find[appsv1.DaemonSet](t, render(t, values))[0].Spec.Template.Spec
	allowed := map[string][]corev1.Capability{"install-cni": nil, "selvaged": {"NET_ADMIN", "NET_RAW"}}
	if len(spec.InitContainers) != 0 || len(spec.Containers) != 2 {
		t.Fatalf("%d init containers and %d containers, want 0 and 2", len(spec.InitContainers), len(spec.Containers))
	}
	for _, c := range spec.Containers {
		s := c.SecurityContext
		want, known := allowed[c.Name]
		if !known || *s.Privileged || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, want) {
			t.Errorf("container %s: %+v", c.Name, s)
		}
	}
	if !spec.HostNetwork || spec.HostPID || spec.HostIPC || *spec.AutomountServiceAccountToken {
		t.Errorf("pod: %+v", spec)
	}
	for _, m := range spec.Containers[1].VolumeMounts {
		if strings.Contains(m.MountPath, "secrets") || strings.Contains(m.MountPath, "etcd") {
			t.Errorf("install-cni has credentials in %s", m.MountPath)
		}
	}
	mounts := map[string]bool{}
	for _, m := range slices.Concat(spec.Containers[0].VolumeMounts, spec.Containers[1].VolumeMounts) {
		mounts[m.Name] = true
	}
	for _, v := range spec.Volumes {
		if !mounts[v.Name] {
			t.Errorf("volume %s is mounted nowhere", v.Name)
		}
		delete(mounts, v.Name)
	}
	if len(mounts) > 0 {
		t.Errorf("mounts without a volume: %v", mounts)
	}
}

// TestPage: the pod of the page has no rights, is not one of the DaemonSet's, and serves on its loopback interface only.
func TestPage(t *testing.T) {
	t.Run("certificates", func(t *testing.T) { testPage(t, render(t, everything(t))) })
	t.Run("tokens", func(t *testing.T) { testPage(t, render(t, everythingKubernetes(t))) })
	for want, values := range map[string]map[string]any{
		"mesh.page needs mesh.enabled or mesh.secret": {"mesh": map[string]any{"page": true}},
		"mesh.enabled needs mesh.secret":              {"mesh": map[string]any{"enabled": true}, "store": "etcd"},
	} {
		if _, err := Manifest(dir, Release{Name: "selvage", Namespace: "selvage", Values: values}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", values, err, want)
		}
	}
}

func testPage(t *testing.T, list []any) {
	d := find[appsv1.Deployment](t, list)[0]
	spec, s := d.Spec.Template.Spec, d.Spec.Template.Spec.Containers[0].SecurityContext
	if spec.HostNetwork || spec.HostPID || *spec.AutomountServiceAccountToken || *s.Privileged || len(s.Capabilities.Add) > 0 || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%+v", spec)
	}
	if args := spec.Containers[0].Args; !slices.Equal(args, []string{"mesh", "--serve=127.0.0.1:8474"}) {
		t.Errorf("arguments %q", args)
	}
	for _, m := range spec.Containers[0].VolumeMounts {
		if !m.ReadOnly {
			t.Errorf("%s can be written", m.MountPath)
		}
	}
	selector := find[appsv1.DaemonSet](t, list)[0].Spec.Selector.MatchLabels
	if labels := d.Spec.Template.Labels; labels["app.kubernetes.io/name"] == selector["app.kubernetes.io/name"] {
		t.Errorf("the DaemonSet selects %v", labels)
	}
}

// TestMeshTokens: with mesh.enabled, the daemons and the page have tokens for an audience of our own where the flag says, the accounts of both are
// accepted, and the daemons may have tokens reviewed. Without it there is nothing of that.
func TestMeshTokens(t *testing.T) {
	list := render(t, everythingKubernetes(t))
	flags, daemons, page := configMap(t, list, "selvage-flags"), find[appsv1.DaemonSet](t, list)[0], find[appsv1.Deployment](t, list)[0]
	for name, spec := range map[string]corev1.PodSpec{"daemon": daemons.Spec.Template.Spec, "page": page.Spec.Template.Spec} {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == "mesh-token" })
		j := slices.IndexFunc(spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "mesh-token" })
		if i < 0 || j < 0 {
			t.Fatalf("%s: no volume with a token", name)
		}
		token := spec.Volumes[i].Projected.Sources[0].ServiceAccountToken
		if path := spec.Containers[0].VolumeMounts[j].MountPath + "/" + token.Path; path != flags["SELVAGED_MESH_TOKEN_FILE"] || token.Audience != "selvage.io/mesh" {
			t.Errorf("%s: %s for %s", name, path, token.Audience)
		}
		if account := "selvage/" + spec.ServiceAccountName; !slices.Contains(strings.Split(flags["SELVAGED_MESH_TOKEN_ACCOUNTS"], ","), account) {
			t.Errorf("%s: the account %s is not accepted", name, account)
		}
		if !slices.ContainsFunc(find[corev1.ServiceAccount](t, list), func(a *corev1.ServiceAccount) bool { return a.Name == spec.ServiceAccountName }) {
			t.Errorf("%s: there is no ServiceAccount %s", name, spec.ServiceAccountName)
		}
	}
	reviews := func(list []any) (n int) {
		for _, rule := range find[rbacv1.ClusterRole](t, list)[0].Rules {
			if slices.Contains(rule.Resources, "tokenreviews") {
				n++
				if !slices.Equal(rule.Verbs, []string{"create"}) || len(rule.Resources) > 1 {
					t.Errorf("%+v", rule)
				}
			}
		}
		return n
	}
	for _, b := range find[rbacv1.ClusterRoleBinding](t, list) {
		for _, s := range b.Subjects {
			if s.Name == page.Spec.Template.Spec.ServiceAccountName {
				t.Errorf("the page has the rights of %s", b.RoleRef.Name)
			}
		}
	}
	secret := everythingKubernetes(t)
	secret["mesh"] = map[string]any{"secret": "mesh", "enabled": true}
	if with, without, other := reviews(list), reviews(render(t, withKubernetes())), reviews(render(t, secret)); with != 1 || without != 0 || other != 0 {
		t.Errorf("%d, %d and %d rules for reviews", with, without, other)
	}
}

func TestConflist(t *testing.T) {
	data := configMap(t, render(t, nil), "selvage-cni")
	var list struct {
		CNIVersion  string
		CNIVersions []string
		Plugins     []struct{ Type string }
	}
	if err := json.Unmarshal([]byte(data["10-selvage.conflist"]), &list); err != nil {
		t.Fatal(err)
	}
	if list.CNIVersion != "1.0.0" || len(list.Plugins) != 2 || list.Plugins[0].Type != "selvage" {
		t.Errorf("%+v", list)
	}
}

// TestKubernetes looks at what there is with Kubernetes alone, and not with etcd.
func TestKubernetes(t *testing.T) {
	list := render(t, everythingKubernetes(t))
	flags := configMap(t, list, "selvage-flags")
	if flags["SELVAGED_KUBE_SUBNET_MGR"] != "true" || flags["SELVAGED_KUBE_ANNOTATION_PREFIX"] != "example.org/blue" ||
		flags["SELVAGED_NETWORK_POLICY"] != "on" || flags["SELVAGED_ETCD_ENDPOINTS"] != "" {
		t.Errorf("flags %v", flags)
	}
	var config struct {
		Network, IPv6Network string
		EnableIPv6           bool
		Backend              struct {
			Type          string
			DirectRouting bool
		}
	}
	if err := json.Unmarshal([]byte(configMap(t, list, "selvage-network")["net-conf.json"]), &config); err != nil {
		t.Fatal(err)
	}
	if config.Network != "10.42.0.0/16" || config.IPv6Network != "fd42::/56" || !config.EnableIPv6 || config.Backend.Type != "vxlan" || !config.Backend.DirectRouting {
		t.Errorf("network config %+v", config)
	}
	daemon := find[appsv1.DaemonSet](t, list)[0].Spec.Template.Spec.Containers[0]
	env := map[string]string{}
	for _, e := range daemon.Env {
		env[e.Name] = e.Value
		if e.ValueFrom != nil {
			env[e.Name] = e.ValueFrom.FieldRef.FieldPath
		}
	}
	if env["NODE_NAME"] != "spec.nodeName" || env["KUBERNETES_SERVICE_HOST"] != "127.0.0.1" || env["KUBERNETES_SERVICE_PORT"] != "7445" {
		t.Errorf("environment %v", env)
	}
	read := []string{"get", "list", "watch"}
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
		{APIGroups: []string{""}, Resources: []string{"namespaces", "pods"}, Verbs: read},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
		{APIGroups: []string{"policy.networking.k8s.io"}, Resources: []string{"clusternetworkpolicies"}, Verbs: read},
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
	}
	if rules := find[rbacv1.ClusterRole](t, list)[0].Rules; !reflect.DeepEqual(rules, want) {
		t.Errorf("rights %+v", rules)
	}
	policy := find[admissionv1.ValidatingAdmissionPolicy](t, list)[0].Spec
	if text := policy.Variables[3].Expression; !strings.Contains(text, `"example.org/blue-backend-data"`) {
		t.Errorf("the policy lets the daemon write %s", text)
	}
	status := policy.Validations[len(policy.Validations)-1].Expression
	for field := range reflect.TypeFor[corev1.NodeStatus]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "conditions" && !strings.Contains(status, ".?"+name+" == dyn(oldObject.status).?"+name) {
			t.Errorf("the policy lets the daemon write status.%s of its Node", name)
		}
	}
	for _, o := range render(t, withEtcd()) {
		switch o.(type) {
		case *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding, *admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding:
			t.Errorf("with etcd there is a %T", o)
		}
	}
}

// TestOldKubernetes leaves out what an API server before 1.30 does not have, and says so.
func TestOldKubernetes(t *testing.T) {
	files, err := renderAll(dir, Release{Name: "selvage", Namespace: "selvage", Values: withKubernetes(), Kubernetes: "v1.29.9"})
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.TrimSpace(files["selvage/templates/admissionpolicy.yaml"]); text != "" {
		t.Errorf("it has\n%s", text)
	}
	if !strings.Contains(files["selvage/templates/NOTES.txt"], "older than 1.30, so there is no admission policy") {
		t.Errorf("the notes do not say so:\n%s", files["selvage/templates/NOTES.txt"])
	}
}

// TestAnnotationPrefix makes of a prefix what the daemon makes of it.
func TestAnnotationPrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"flannel.alpha.coreos.com": "flannel.alpha.coreos.com/", "example.org/": "example.org/", "example.org/blue": "example.org/blue-", "example.org/blue-": "example.org/blue-",
	} {
		list := render(t, map[string]any{"store": "kubernetes", "kubernetes": map[string]any{"annotationPrefix": prefix}})
		if text := find[admissionv1.ValidatingAdmissionPolicy](t, list)[0].Spec.Variables[3].Expression; !strings.Contains(text, `"`+want+`public-ip",`) {
			t.Errorf("%s: the policy lets the daemon write %s", prefix, text)
		}
	}
}

// TestSchema gives values that must not be taken.
func TestSchema(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"misspelt":            {"ipMask": true},
		"store":               {"store": "consul"},
		"no network":          {"store": "kubernetes", "network": map[string]any{"Network": nil}},
		"network":             {"store": "kubernetes", "network": map[string]any{"Network": "10.244.0.0"}},
		"no backend":          {"store": "kubernetes", "network": map[string]any{"Backend": map[string]any{"Type": ""}}},
		"prefix":              {"store": "kubernetes", "kubernetes": map[string]any{"annotationPrefix": "Example.org"}},
		"prefix with slashes": {"store": "kubernetes", "kubernetes": map[string]any{"annotationPrefix": "example.org/a/b"}},
		"store by a flag":     {"flags": map[string]any{"kube-subnet-mgr": true}},
		"no endpoint":         {"etcd": map[string]any{"endpoints": []any{}}},
		"endpoint with path":  {"etcd": map[string]any{"endpoints": []any{"http://a/b"}}},
		"text for a bool":     {"ipMasq": "yes"},
		"password":            {"flags": map[string]any{"etcd-password": "secret"}},
		"flag with dashes":    {"flags": map[string]any{"--peer-grace": "1m"}},
		"port":                {"healthzPort": 70000},
		"conf name":           {"cni": map[string]any{"confName": "../x.conflist"}},
		"tag":                 {"image": map[string]any{"tag": "a:b"}},
		"digest":              {"image": map[string]any{"digest": "sha256:12"}},
		"strategy":            {"updateStrategy": map[string]any{"type": "Recreate"}},
		"share":               {"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"maxUnavailable": "all"}}},
		"monitoring":          {"monitoring": map[string]any{"serviceMonitor": map[string]any{"enabled": true}}},
		"interval":            {"monitoring": map[string]any{"podMonitor": map[string]any{"interval": "often"}}},
		"label":               {"monitoring": map[string]any{"dashboard": map[string]any{"labels": map[string]any{"grafana_dashboard": 1}}}},
		"resource":            {"resources": map[string]any{"request": map[string]any{"cpu": "1"}}},
	} {
		if _, err := Render(dir, Release{Name: "selvage", Namespace: "selvage", Values: values}); err == nil || !strings.Contains(err.Error(), "values") {
			t.Errorf("%s: %v", name, err)
		}
	}
	same := map[string]any{"metricsPort": 9470}
	if _, err := Render(dir, Release{Name: "selvage", Namespace: "selvage", Values: same}); err == nil || !strings.Contains(err.Error(), "are the same") {
		t.Errorf("one port for both: %v", err)
	}
	if _, err := Render(filepath.Join("no", "chart"), Release{}); err == nil {
		t.Error("a chart that is not there was rendered")
	}
}
