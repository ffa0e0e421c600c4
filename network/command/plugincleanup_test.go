package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/kubectl"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/kube"
)

const daemonSetJSON = `{"spec": {"template": {"spec": {"hostNetwork": true, "nodeSelector": {"kubernetes.io/os": "linux"},
 "containers": [
  {"name": "selvaged", "image": "selvage:v1", "envFrom": [{"configMapRef": {"name": "flags"}}], "livenessProbe": {}, "readinessProbe": {}},
  {"name": "install-cni", "image": "selvage:v1", "args": ["install-cni", "--watch", "--cni-bin-dir=/host/cni/bin"]}],
 "volumes": [{"name": "state"}]}}}}`

func TestCleanupPods(t *testing.T) {
	var set kubectl.Object
	if err := json.Unmarshal([]byte(daemonSetJSON), &set); err != nil {
		t.Fatal(err)
	}
	pods, err := cleanupPods(set, "net", []kubectl.Daemon{{Node: "node1"}, {Node: "node2"}})
	if err != nil || len(pods) != 2 {
		t.Fatalf("%v, %v", pods, err)
	}
	golden(t, "plugin-cleanup-pod.json", indentedJSON(t, pods[1]))
	if a, b := pods[0]["spec"].(kubectl.Object)["nodeName"], pods[1]["spec"].(kubectl.Object)["nodeName"]; a != "node1" || b != "node2" {
		t.Errorf("on the nodes %v and %v", a, b)
	}
	if _, err := cleanupPods(kubectl.Object{}, "net", []kubectl.Daemon{{}}); err == nil {
		t.Error("a DaemonSet without containers was taken")
	}
}

func indentedJSON(t *testing.T, x any) string {
	t.Helper()
	text, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

// cleanupCluster is a cluster of one node with a daemon, and the pod of one that was deleted, whose kubectl notes each
// call that changes something, and lists the daemons once. pods are those of other applications, and phase is that in which cleanup's own pods end; "": they are deleted.
func cleanupCluster(t *testing.T, pods, phase string) (tool, calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	first := phase
	if phase == "Failed" {
		first = "Running"
	}
	s := ready()
	s.Lease = &status.Lease{Subnets: s.Lease.Subnets}
	for name, text := range map[string]string{"status": asJSON(t, s), "set": daemonSetJSON, "all": pods, "daemons": `{"items": [
 {"metadata": {"name": "p1", "namespace": "net", "ownerReferences": [{"kind": "DaemonSet", "name": "selvage"}]},
  "spec": {"nodeName": "node1", "containers": [{"name": "selvaged"}]}},
 {"metadata": {"name": "p2", "namespace": "net", "ownerReferences": [{"kind": "DaemonSet", "name": "selvage"}]},
  "spec": {"nodeName": "deleted", "containers": [{"name": "selvaged"}]}}]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tool = filepath.Join(dir, "kubectl")
	script := `#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
"get -o json pods --all-namespaces -l "*) mkdir listed && cat daemons;;
"get -o json pods --all-namespaces") cat all;;
"get -o json daemonset "*) cat set;;
"get -o json pods -n net -l "*) [ -e asked ] && phase=` + phase + ` || phase=` + first + `; : >asked
 [ -n "$phase" ] || { echo '{"items": []}'; exit; }
 echo '{"items": [{"metadata": {"name": "x"}, "spec": {"nodeName": "node1"}, "status": {"phase": "'$phase'"}}]}';;
"get -o json nodes") echo '{"items": [{"metadata": {"name": "node1"}}, {"metadata": {"name": "other"}}]}';;
"exec "*" p1 "*) cat status;;
"logs "*) echo why it failed;;
"create "*) cat > created; echo "$*" >> calls;;
"delete "*|"annotate "*) echo "$*" >> calls;;
*) echo "unexpected: $*" >&2; exit 9;;
esac
`
	if err := os.WriteFile(tool, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return tool, calls
}

func TestPluginCleanup(t *testing.T) {
	const (
		none    = `{"items": [{"metadata": {"name": "p1"}, "status": {"phase": "Running", "podIP": "192.0.2.5"}}]}`
		one     = `{"items": [{"metadata": {"namespace": "shop", "name": "web"}, "status": {"phase": "Running", "podIP": "10.5.29.7"}}]}`
		removes = "delete daemonset -n net selvage --cascade=foreground --timeout=5m0s\ncreate -f -\n" +
			"delete pods -n net -l selvage.io/cleanup --timeout=5m0s\nannotate nodes --all "
	)
	run := func(pods, phase string, args ...string) (out, calls string, code int, err error) {
		tool, file := cleanupCluster(t, pods, phase)
		out, code, err = pluginRun(t, tool, append([]string{"cleanup"}, args...)...)
		text, _ := os.ReadFile(file) // there is none if nothing was called
		return out, string(text), code, err
	}
	out, calls, code, err := run(none, "Succeeded")
	if err != nil || code != 0 || !strings.HasPrefix(calls, removes) || !strings.Contains(out, "all nodes are clean") ||
		!strings.Contains(out, "node deleted is no longer in the cluster") || !strings.Contains(out, "cleaning up 1 node") {
		t.Errorf("exit code %d, %v: %s%s", code, err, out, calls)
	}
	for _, key := range kube.Annotations(kube.DefaultPrefix) {
		if !strings.Contains(calls, " "+key+"-") {
			t.Errorf("the annotation %s is not removed: %s", key, calls)
		}
	}
	if _, calls, code, err = run(one, "Succeeded"); code != 1 || err == nil || !strings.Contains(err.Error(), "shop/web") || calls != "" {
		t.Errorf("with a pod: exit code %d, %v: %s", code, err, calls)
	}
	if _, calls, code, err = run(one, "Succeeded", "--force"); code != 0 || err != nil || !strings.HasPrefix(calls, removes) {
		t.Errorf("with a pod, by force: exit code %d, %v: %s", code, err, calls)
	}
	out, calls, code, err = run(none, "Failed")
	if code != ExitDegraded || err != nil || !strings.Contains(out, "node node1 is not clean") ||
		!strings.Contains(out, "why it failed") || !strings.HasPrefix(calls, removes) {
		t.Errorf("a node fails: exit code %d, %v: %s%s", code, err, out, calls)
	}
	out, _, code, err = run(none, "")
	if code != ExitDegraded || err != nil || !strings.Contains(out, "node node1 is not clean: its pod was deleted") {
		t.Errorf("a pod is deleted: exit code %d, %v: %s", code, err, out)
	}
	if _, _, code, err = run(none, "Succeeded", "--timeout=0s"); code != 1 || err == nil {
		t.Errorf("no time: exit code %d, %v", code, err)
	}
}
