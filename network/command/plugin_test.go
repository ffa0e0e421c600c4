package command

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

// cluster is a program in kubectl's place: the answers of a cluster with three nodes. What a daemon prints is in files
// that are named after the command and the node.
func cluster(t *testing.T, files map[string]string) (kubectl string) {
	t.Helper()
	dir := t.TempDir()
	files["pods"] = `{"items": [
 {"metadata": {"name": "p1", "namespace": "selvage"}, "spec": {"nodeName": "node1", "containers": [{"name": "selvaged"}]}},
 {"metadata": {"name": "p2", "namespace": "selvage"}, "spec": {"nodeName": "node2", "containers": [{"name": "selvaged"}]}},
 {"metadata": {"name": "p3", "namespace": "selvage"}, "spec": {"nodeName": "node3", "containers": [{"name": "selvaged"}]}}]}`
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const script = `#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
"get -o json pods --all-namespaces -l"*) cat pods;;
"get -o json pods -n "*) f=${6}.${7#--field-selector=metadata.name=}; if [ -e "$f" ]; then cat "$f"; else echo '{}'; fi;;
"get -o json pods --all-namespaces --field-selector=status.podIP="*) echo '{}';;
"get -o json nodes --field-selector=metadata.name="*) f=${5#*=metadata.name=}; if [ -e "$f" ]; then cat "$f"; else echo '{}'; fi;;
"get crd "*) ;;
"get networkpolicies,namespaces,pods --all-namespaces -o json") cat objects;;
"exec -i -n selvage p"*)
	f=${10}.${5}; case ${10} in explain) f=$f.${11};; esac
	if [ -e "$f" ]; then cat "$f"; else echo "error: no $f" >&2; exit 1; fi
	if [ -e "$f.code" ]; then exit "$(cat "$f.code")"; fi;;
*) echo "unexpected: $*" >&2; exit 9;;
esac
`
	kubectl = filepath.Join(dir, "kubectl")
	if err := os.WriteFile(kubectl, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return kubectl
}

// pluginRun runs the plugin, and returns what it printed and its exit code; 1 with an error.
func pluginRun(t *testing.T, kubectl string, args ...string) (out string, code int, err error) {
	t.Helper()
	c := Plugin("v1.2.3")
	var text strings.Builder
	c.SetOut(&text)
	c.SetErr(&text)
	c.SetArgs(append(args, "--kubectl="+kubectl))
	err = c.ExecuteContext(t.Context())
	var exit Exit
	switch {
	case errors.As(err, &exit):
		code, err = exit.Code, nil
	case err != nil:
		code = 1
	}
	return text.String(), code, err
}

func asJSON(t *testing.T, x any) string {
	t.Helper()
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPluginStatus has a node that is ready, one whose traffic is cut, and one that does not answer.
func TestPluginStatus(t *testing.T) {
	cut := ready()
	cut.Node, cut.State, cut.Cut = "node2", status.Degraded, []string{"IPv6"}
	cut.Problems = []status.Problem{{Topic: "device", Text: "flannel-v6.1 is gone"}, {Topic: "store", Text: "no contact"}}
	tool := cluster(t, map[string]string{"status.p1": asJSON(t, ready()), "status.p2": asJSON(t, cut), "status.p2.code": "2"})
	out, code, err := pluginRun(t, tool, "status")
	if err != nil || code != ExitDegraded {
		t.Errorf("exit code %d, %v", code, err)
	}
	one, code, err := pluginRun(t, tool, "status", "node1")
	if err != nil || code != 0 || !strings.Contains(one, "10.5.29.0/24") || !strings.Contains(one, "uplink") {
		t.Errorf("exit code %d, %v: %s", code, err, one)
	}
	golden(t, "plugin-status.txt", out)
	text, _, err := pluginRun(t, tool, "status", "-o", "json")
	var all []NodeStatus
	if err := errors.Join(err, json.Unmarshal([]byte(text), &all)); err != nil || len(all) != 3 || all[0].Node != "node3" ||
		all[0].Error == "" || all[1].Node != "node2" || all[1].Status == nil || all[2].Error != "" {
		t.Errorf("%+v, %v", all, err)
	}
	if _, code, err := pluginRun(t, tool, "status", "node9"); code != 1 || err == nil || !strings.Contains(err.Error(), "did you mean node1") {
		t.Errorf("node9: exit code %d, %v", code, err)
	}
}

// TestPluginDoctor has each exit code of a node.
func TestPluginDoctor(t *testing.T) {
	files := map[string]string{"doctor.p1": "all well\n", "doctor.p2": "warning  x: y\n1 warning\n", "doctor.p2.code": "3"}
	tool := cluster(t, files)
	out, code, err := pluginRun(t, tool, "doctor", "node1", "node2")
	if err != nil || code != ExitWarning || out != "node1: all passed\nnode2:\n  warning  x: y\n  1 warning\n" {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	out, code, err = pluginRun(t, tool, "doctor")
	if err != nil || code != 1 || !strings.Contains(out, "node3: could not be diagnosed: ") || !strings.Contains(out, "no doctor.p3") {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	files["doctor.p3"], files["doctor.p3.code"] = "FAILURE  x: y\n", "2"
	if _, code, err := pluginRun(t, cluster(t, files), "doctor"); err != nil || code != ExitFailure {
		t.Errorf("exit code %d, %v", code, err)
	}
	if _, code, err := pluginRun(t, cluster(t, files), "doctor", "node1"); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// TestPluginPassed runs a command as it is.
func TestPluginPassed(t *testing.T) {
	tool := cluster(t, map[string]string{"peers.p2": "the peers\n", "drops.p2": "", "drops.p2.code": "4"})
	if out, code, err := pluginRun(t, tool, "peers", "node2"); err != nil || code != 0 || out != "the peers\n" {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	if _, code, err := pluginRun(t, tool, "drops", "node2"); err != nil || code != 4 {
		t.Errorf("exit code %d, %v", code, err)
	}
	if _, code, err := pluginRun(t, tool, "peers"); code != 1 || err == nil || !strings.Contains(err.Error(), "NODE is missing") {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// objects are two pods, one of which a policy isolates from all but the other.
const pluginObjects = `{"kind": "List", "apiVersion": "v1", "items": [
 {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}},
 {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
  "spec": {"nodeName": "node1"}, "status": {"phase": "Running", "podIP": "10.5.1.2", "podIPs": [{"ip": "10.5.1.2"}]}},
 {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "db", "namespace": "default", "labels": {"app": "db"}},
  "spec": {"nodeName": "node2"}, "status": {"phase": "Running", "podIP": "10.5.2.2", "podIPs": [{"ip": "10.5.2.2"}]}},
 {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "near", "namespace": "default"},
  "spec": {"nodeName": "node1"}, "status": {"phase": "Running", "podIP": "10.5.1.3", "podIPs": [{"ip": "10.5.1.3"}]}},
 {"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "db", "namespace": "default"},
  "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
   {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]}}]}`

func TestPluginExplain(t *testing.T) {
	pod := func(name, node, ip string) string {
		return `{"items": [{"metadata": {"namespace": "default", "name": "` + name + `"}, "spec": {"nodeName": "` + node +
			`"}, "status": {"podIPs": [{"ip": "` + ip + `"}]}}]}`
	}
	way := func(ok bool) string { return asJSON(t, status.Explanation{Verdict: "a verdict", OK: ok}) }
	files := map[string]string{
		"default.web": pod("web", "node1", "10.5.1.2"), "default.db": pod("db", "node2", "10.5.2.2"),
		"default.near": pod("near", "node1", "10.5.1.3"), "default.pending": pod("pending", "", "10.5.1.4"),
		"node3":               `{"items": [{"metadata": {"name": "node3"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.3"}]}}]}`,
		"objects":             pluginObjects,
		"explain.p1.10.5.2.2": way(true), "explain.p2.10.5.1.2": way(true),
		"explain.p1.192.0.2.3": way(true), "explain.p3.10.5.1.2": way(true),
		"explain.p1.203.0.113.9": way(true),
	}
	tool := cluster(t, files)
	run := func(args ...string) (text string, code int) {
		t.Helper()
		text, code, err := pluginRun(t, tool, append([]string{"explain"}, args...)...)
		if err != nil {
			text += err.Error()
		}
		return text, code
	}
	out, code := run("web", "db:5432")
	if code != 0 {
		t.Errorf("allowed: exit code %d: %s", code, out)
	}
	golden(t, "plugin-explain.txt", out)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"web", "default/db:80"}, ExitDegraded, "denied"},
		{[]string{"db", "web"}, 0, "from node2 to 10.5.1.2 (default/web on node1)"},
		{[]string{"web", "node3"}, 0, "from node3 to 10.5.1.2"},
		{[]string{"web", "203.0.113.9:443"}, 0, "from node1 to 203.0.113.9 (203.0.113.9)"},
		{[]string{"web", "near"}, 0, "Both ends are on node1"},
		{[]string{"web", "nobody"}, 1, "no pod of namespace default and no node"},
		{[]string{"web", "shop/nobody"}, 1, "there is no pod shop/nobody"},
		{[]string{"web", "pending"}, 1, "has no address yet"},
		{[]string{"web"}, 1, "DST[:PORT] is missing"},
	} {
		if out, code := run(test.args...); code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("%q: exit code %d, want %d and %q: %s", test.args, code, test.code, test.want, out)
		}
	}
	for _, broken := range []string{way(false), "nonsense"} { // the way back
		files["explain.p2.10.5.1.2"] = broken
		tool = cluster(t, files)
		if out, code := run("web", "db:5432"); code != ExitDegraded {
			t.Errorf("%s: exit code %d: %s", broken, code, out)
		}
	}
}
