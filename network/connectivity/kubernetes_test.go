package connectivity

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/kubectl"
	"github.com/selvage-net/selvage/subnet"
)

// pods as kubectl get -o json has them: ready on node1, one that does not become ready on node2, and one without a node.
const podsJSON = `{"items": [
 {"metadata": {"name": "second-b", "labels": {"selvage.io/connectivity-test": "second"}}, "spec": {"nodeName": "node1"},
  "status": {"podIPs": [{"ip": "10.5.1.3"}, {"ip": "fd00:5:0:1::3"}], "conditions": [{"type": "Ready", "status": "True"}]}},
 {"metadata": {"name": "first-a", "labels": {"selvage.io/connectivity-test": "first"}}, "spec": {"nodeName": "node1"},
  "status": {"podIPs": [{"ip": "10.5.1.2"}, {"ip": "fd00:5:0:1::2"}], "conditions": [{"type": "Ready", "status": "True"}]}},
 {"metadata": {"name": "first-c", "labels": {"selvage.io/connectivity-test": "first"}}, "spec": {"nodeName": "node2"},
  "status": {"podIPs": [{"ip": "10.5.2.2"}], "conditions": [{"type": "Ready", "status": "True"}]}},
 {"metadata": {"name": "second-d", "labels": {"selvage.io/connectivity-test": "second"}}, "spec": {"nodeName": "node2"},
  "status": {"conditions": [{"type": "Ready", "status": "False", "message": "containers with unready status: [agent]"}],
   "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating", "message": ""}}}]}},
 {"metadata": {"name": "first-e", "labels": {"selvage.io/connectivity-test": "first"}},
  "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}}
]}`

func TestPair(t *testing.T) {
	var list podList
	if err := json.Unmarshal([]byte(podsJSON), &list); err != nil {
		t.Fatal(err)
	}
	first, second, check := pair(list.parse())
	if len(first) != 1 || len(second) != 1 || first[0].Name != "first-a" || second[0].Name != "second-b" ||
		first[0].Addrs != [2]netip.Addr{netip.MustParseAddr("10.5.1.2"), netip.MustParseAddr("fd00:5:0:1::2")} {
		t.Errorf("pairs: %v, %v", first, second)
	}
	var why []string
	for _, f := range check.Failures {
		why = append(why, f.String())
	}
	want := []string{"first-e: 0/3 nodes are available", "second-d on node2: ContainerCreating"}
	if check.Probes != 5 || check.Failed != 2 || !slices.Equal(why, want) {
		t.Errorf("%d pods, %q, want 5 and %q", check.Probes, why, want)
	}
	if f := familiesOf(append(first, second...)); len(f) != 2 {
		t.Errorf("families: %v", f)
	}
	one := first[0]
	one.Addrs[subnet.IPv6] = netip.Addr{}
	if f := familiesOf(append(second, one)); len(f) != 1 || f[0] != subnet.IPv4 {
		t.Errorf("families: %v", f)
	}
}

func TestNodes(t *testing.T) {
	var nodes nodeList
	if err := json.Unmarshal([]byte(`{"items": [
	 {"metadata": {"name": "node2"}, "status": {"addresses": [{"type": "Hostname", "address": "node2"},
	  {"type": "InternalIP", "address": "192.0.2.2"}, {"type": "ExternalIP", "address": "198.51.100.2"},
	  {"type": "InternalIP", "address": "2001:db8::2"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}]}`), &nodes); err != nil {
		t.Fatal(err)
	}
	addrs, ports := nodes.of([]Place{{Node: "node1"}, {Node: "node2"}})
	want := [][2]netip.Addr{{}, {netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}}
	if !slices.Equal(addrs, want) || !slices.Equal(ports, []uint16{0, 10250}) {
		t.Errorf("%v, %v", addrs, ports)
	}
	var l endpointSlices
	if err := json.Unmarshal([]byte(`{"items": [{"endpoints": [{"addresses": ["192.0.2.1"]}, {"addresses": ["2001:db8::1"]}],
	 "ports": [{"port": 6443}]}, {"endpoints": [{"addresses": ["192.0.2.9"]}]}]}`), &l); err != nil {
		t.Fatal(err)
	}
	if all := l.parse([]subnet.Family{subnet.IPv4}); !slices.Equal(all, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6443")}) {
		t.Errorf("%v", all)
	}
}

// fakeKubectl is a program in kubectl's place, which the cases of a shell script answer.
func fakeKubectl(t *testing.T, cases string) kubectl.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubectl")
	script := "#!/bin/sh\ncase \"$*\" in\n" + cases + "\n*) echo \"unexpected: $*\" >&2; exit 9;;\nesac\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return kubectl.Client{Path: path}
}

const daemonsJSON = `{"items": [{"metadata": {"name": "selvage-x", "namespace": "selvage"},
 "spec": {"nodeName": "node1", "containers": [{"name": "selvaged", "image": "selvage:v1"}]}}]}`

// TestNamespaceExists: an existing namespace is not touched, and the error says what to do.
func TestNamespaceExists(t *testing.T) {
	tool := fakeKubectl(t, `"get -o json pods --all-namespaces"*) echo '`+daemonsJSON+`';;
"create -f -") echo 'Error: namespaces "x" already exists' >&2; exit 1;;
"get -o json namespace x") echo '{"metadata": {"name": "x"}}';;`)
	_, err := Run(t.Context(), kubernetes(tool), options(t))
	if err == nil || !strings.Contains(err.Error(), "kubectl delete namespace x") {
		t.Errorf("%v", err)
	}
}

// TestNothingStarts: that no pod becomes ready is a result, with the reasons, and the namespace is removed.
func TestNothingStarts(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	tool := fakeKubectl(t, `"get -o json pods --all-namespaces"*) echo '`+daemonsJSON+`';;
"create -f -"|"apply -f -") cat >/dev/null;;
"rollout status"*) echo 'timed out waiting for the condition' >&2; exit 1;;
"get -o json pods -n x") echo '{"items": [{"metadata": {"name": "first-a"}, "spec": {"nodeName": "node1"},
 "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}}]}';;
"delete namespace x --ignore-not-found") touch `+gone+`;;`)
	r, err := Run(t.Context(), kubernetes(tool), options(t))
	if err != nil || r.OK() || len(r.Checks) != 1 || r.Checks[0].Failures[0].Error != "ErrImagePull: not found" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(gone); err != nil {
		t.Errorf("the namespace was not removed: %v", err)
	}
}

// TestRemovedWhenApplyFails: a test that cannot begin leaves nothing, either.
func TestRemovedWhenApplyFails(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	tool := fakeKubectl(t, `"get -o json pods --all-namespaces"*) echo '`+daemonsJSON+`';;
"create -f -") cat >/dev/null;;
"apply -f -") echo 'forbidden' >&2; exit 1;;
"delete namespace x --ignore-not-found") touch `+gone+`;;`)
	var failed *kubectl.Error
	if _, err := Run(t.Context(), kubernetes(tool), options(t)); !errors.As(err, &failed) || failed.Stderr != "forbidden" || failed.Code != 1 {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(gone); err != nil {
		t.Errorf("the namespace was not removed: %v", err)
	}
}

func kubernetes(tool kubectl.Client) *Kubernetes {
	return &Kubernetes{Kubectl: tool, Namespace: "x", Timeout: time.Minute, Tell: func(string) {}}
}

func options(t *testing.T) Options {
	return Options{Policies: PoliciesAuto, Tell: func(string) {},
		Warn: func(err error) { t.Errorf("warning: %v", err) }}
}
