package manifest

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/policy"
)

// read adds the objects of files, each with its name, to a cluster.
func read(t *testing.T, o Options, files ...[2]string) (*Cluster, error) {
	t.Helper()
	c := New(o)
	for _, f := range files {
		all, err := Split(f[0], []byte(f[1]))
		if err != nil {
			return c, err
		}
		for _, d := range all {
			if err := c.Add(d); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

func file(text string) [2]string { return [2]string{"a.yaml", text} }

const (
	shop = `# the shop
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
---
# what is ignored
apiVersion: v1
kind: ConfigMap
metadata: {name: text, namespace: shop}
data:
  a: |
    ---
    kind: Pod
--- # a comment
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
`
	web = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop"}}`
)

func TestSplit(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"YAML":          {shop, "a.yaml:1 v1 Namespace, a.yaml:5 v1 ConfigMap, a.yaml:14 v1 Pod"},
		"CRLF":          {strings.ReplaceAll(shop, "\n", "\r\n"), "a.yaml:1 v1 Namespace, a.yaml:5 v1 ConfigMap, a.yaml:14 v1 Pod"},
		"JSON":          {"\n" + web + "\n\n" + web, "a.yaml:2 v1 Pod, a.yaml:4 v1 Pod"},
		"braces":        {"{apiVersion: v1, kind: Pod}", "a.yaml:1 v1 Pod"},
		"List":          {`{"apiVersion":"v1","kind":"List","items":[` + web + "," + web + "]}", "a.yaml:1 v1 Pod, a.yaml:1 v1 Pod"},
		"PodList":       {`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"web"}}]}`, "a.yaml:1 v1 Pod"},
		"empty":         {"", ""},
		"nothing":       {"---\n# nothing\n---", ""},
		"no items":      {"apiVersion: example.net/v1\nkind: WaitingList", "a.yaml:1 example.net/v1 WaitingList"},
		"separator, no": {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ---a\n", "a.yaml:1 v1 ConfigMap"},
	} {
		all, err := Split("a.yaml", []byte(tt.text))
		var got []string
		for _, d := range all {
			got = append(got, d.Place()+" "+d.APIVersion+" "+d.Kind)
		}
		if err != nil || strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
	}
}

func TestErrors(t *testing.T) {
	const policyOf = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {matchLabels: {a: "
	for name, tt := range map[string]struct{ text, want string }{
		"no object":   {"a: b", "a.yaml:1: "},
		"text":        {"hello", "a.yaml:1: "},
		"syntax":      {"---\na: [", "the document that begins at line 1"},
		"twice":       {"apiVersion: v1\nkind: Pod\nkind: Pod", `"kind" already set`},
		"no name":     {"apiVersion: v1\nkind: Pod\nmetadata: {}", "a.yaml:1: Pod: not an object"},
		"no metadata": {"apiVersion: v1\nkind: Pod", "a.yaml:1: Pod: not an object"},
		"item":        {"apiVersion: v1\nkind: List\nitems: [1]", "items[0]"},
		"differs":     {policyOf + "b}}}\n---\n" + policyOf + "c}}}", "a.yaml:5: NetworkPolicy default/a"},
		"no template": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}", "no template"},
	} {
		if _, err := read(t, Options{Workloads: true}, file(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
	if _, err := read(t, Options{}, file(policyOf+"b}}}\n---\n"+policyOf+"c}}}")); !errors.Is(err, ErrTwice) {
		t.Errorf("error %v, want ErrTwice", err)
	}
	if _, err := read(t, Options{}, file(shop), [2]string{"b.yaml", shop}); err != nil {
		t.Errorf("the same objects in two files: %v", err)
	}
}

// TestDefaults: what the API server fills in is filled in.
func TestDefaults(t *testing.T) {
	c, err := read(t, Options{Namespace: "mine"}, file(shop+`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Policies["mine/deny"]
	if p == nil || p.Subject.Namespace != "mine" || p.Isolates != [2]bool{policy.Ingress: true} {
		t.Errorf("policies %v", c.Policies)
	}
	labels := c.Namespaces["shop"].Labels
	if name, _ := labels.Get(NameLabel); name != "shop" {
		t.Errorf("the namespace has the name label %q", name)
	}
	if team, _ := labels.Get("team"); team != "red" {
		t.Errorf("the namespace has the label team=%q", team)
	}
	if err := c.Complete(DefaultNetwork()); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Namespaces["mine"]; !ok || len(c.Notes) != 1 || c.Notes[0].Reason != ReasonNamespace {
		t.Errorf("namespaces %v, notes %v", c.Namespaces, c.Notes)
	}
}

// TestWorkloads: a workload stands for one pod, if that was asked for, and pods without an address get one each.
func TestWorkloads(t *testing.T) {
	text := shop + `
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{name: cart, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup, namespace: shop}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: backup}}, spec: {}}}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: shop}
spec: {template: {metadata: {labels: {app: agent}}, spec: {hostNetwork: true}}}
---
apiVersion: apps/v1
kind: ControllerRevision
metadata: {name: agent, namespace: shop}
`
	c, err := read(t, Options{}, file(text))
	if err != nil || len(c.Pods) != 1 {
		t.Errorf("without workloads: %d pods, %v", len(c.Pods), err)
	}
	if c, err = read(t, Options{Workloads: true}, file(text)); err != nil {
		t.Fatal(err)
	}
	if err := c.Complete(netip.MustParsePrefix("10.0.0.0/29"), netip.MustParsePrefix("fd00::/64")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range c.Pods {
		app, _ := p.Labels.Get("app")
		got = append(got, strings.Join([]string{p.Name, app, p.Addresses[0].String(), p.Addresses[1].String()}, " "))
	}
	slices.Sort(got)
	want := []string{"agent agent invalid IP invalid IP", "backup backup 10.0.0.2 fd00::2", "cart cart 10.0.0.3 fd00::3", "web web 10.0.0.1 fd00::1"}
	if !slices.Equal(got, want) {
		t.Errorf("pods %q\nwant %q", got, want)
	}
	cart := slices.Collect(c.Pods["shop/cart"].Ports.All())
	if len(cart) != 1 || cart[0] != (policy.NamedPort{Name: "http", Protocol: policy.TCP, Number: 8080}) {
		t.Errorf("ports %v", cart)
	}
	c, err = read(t, Options{Workloads: true}, file(text))
	if err := errors.Join(err, c.Complete(netip.MustParsePrefix("10.0.0.0/31"))); err == nil {
		t.Error("two pods got an address of 10.0.0.0/31 without its first")
	}
}

// TestNotes: what was not understood is reported with its place.
func TestNotes(t *testing.T) {
	c, err := read(t, Options{}, file(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: a, namespace: shop}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{podSelektor: {}}]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range c.Notes {
		got = append(got, n.String())
	}
	want := []string{
		"a.yaml:1: CiliumNetworkPolicy shop/a: is of cilium.io/v2, which selvage does not know: want networking.k8s.io/v1, or " +
			"policy.networking.k8s.io/v1beta1",
		`a.yaml:4: NetworkPolicy shop/deny: spec.ingress[0].from[0]: has the field "podSelektor", which this version does not know`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("notes %q\nwant %q", got, want)
	}
}
