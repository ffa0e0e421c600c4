package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

const (
	// bridgedV4 is a setting without which packets between two pods of a node are not judged.
	bridgedV4 = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	// denyAll isolates the server; fromClient allows the pods with the label app=client to reach it.
	denyAll = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
`
	fromClient = denyAll + `  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
`
	// mute denies the pod late whatever it sends.
	mute = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: mute, namespace: default}
spec:
  podSelector: {matchLabels: {app: late}}
  policyTypes: [Egress]
`
)

// policies is the directory from which daemons take policies.
type policies struct {
	t   *testing.T
	dir string
}

// write replaces a file.
func (p policies) write(name, content string) {
	p.t.Helper()
	if err := lab.PolicyDir(p.dir).Write(name, content); err != nil {
		p.t.Fatal(err)
	}
}

// knowsPolicy waits until a node's daemon knows a policy: one that is not known yet selects no pod.
func knowsPolicy(ctx context.Context, t *testing.T, n *lab.Node, name string) {
	t.Helper()
	waitFor(ctx, t, n.Name()+" knows the policy", func() error {
		out, err := selvaged(ctx, t, n, "policy", "list")
		if err == nil && !strings.Contains(out, name) {
			err = errors.New(out)
		}
		return err
	})
}

// reaches waits until connections from one pod to another pass, or do not, in both families.
func reaches(ctx context.Context, t *testing.T, l *lab.Lab, from, to *lab.Pod, want bool) {
	t.Helper()
	wait := longEnough(ctx, t, l, from.Node.Endpoint, from.Node.Endpoint)
	for _, f := range subnet.Families() {
		waitFor(ctx, t, fmt.Sprintf("%s -> %s over %s: %t", from.Name(), to.Name(), f, want), func() error {
			short, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			err := l.ProbeFamily(short, f, from.Endpoint, to.Endpoint).Err
			switch {
			case want:
				return err
			case err == nil:
				return errors.New("it passes")
			}
			return nil
		})
	}
}

// exitCode returns the exit code of a program, by the error of its run; -1: it was not run.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// TestPolicies enforces network policies from a directory: between pods of one node, which share a bridge, and of two;
// across the end and the start of the daemon, changes of policies, and what other programs break. What a policy allows
// never loses a packet.
func TestPolicies(t *testing.T) {
	p := policies{t, t.TempDir()}
	families := []subnet.Family{subnet.IPv4, subnet.IPv6}
	l := start(t, lab.Options{
		Nodes: 2, Families: families, Namespace: "default",
		DaemonArgs: []string{"--network-policy=on", "--policy-dir=" + p.dir},
	})
	ctx := testctx.New(t)
	p.write("namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n")
	one, two := l.Nodes()[0], l.Nodes()[1]
	add := func(n *lab.Node, name string) *lab.Pod {
		t.Helper()
		pod, err := l.AddPod(ctx, n, name)
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
	// The plugin waits for the rules of a pod, so the pod has to be known: as in Kubernetes, before it has an address.
	p.write("pods", lab.PodYAML("server", "server", "node1", nil)+lab.PodYAML("near", "client", "node1", nil)+
		lab.PodYAML("stranger", "other", "node1", nil)+lab.PodYAML("far", "client", "node2", nil)+lab.PodYAML("spy", "other", "node2", nil))
	server, near, stranger := add(one, "server"), add(one, "near"), add(one, "stranger")
	far, spy := add(two, "far"), add(two, "spy")
	all := lab.PodYAML("server", "server", "node1", server.Endpoint) + lab.PodYAML("near", "client", "node1", near.Endpoint) +
		lab.PodYAML("stranger", "other", "node1", stranger.Endpoint) + lab.PodYAML("far", "client", "node2", far.Endpoint) +
		lab.PodYAML("spy", "other", "node2", spy.Endpoint)
	p.write("pods", all)
	for _, from := range []*lab.Pod{near, stranger, far, spy} {
		reaches(ctx, t, l, from, server, true)
	}

	endNear := stream(ctx, t, l, near.Endpoint, server.Endpoint)
	endFar := stream(ctx, t, l, far.Endpoint, server.Endpoint)
	p.write("server", fromClient)
	for _, from := range []*lab.Pod{stranger, spy} {
		reaches(ctx, t, l, from, server, false)
	}
	reaches(ctx, t, l, near, server, true)
	reaches(ctx, t, l, server, spy, true) // nothing isolates the server's own connections
	s, err := one.Status(ctx)
	if err != nil || s.Enforcement == nil || !s.Enforcement.Enforcing || !s.Enforcement.Synced || s.Enforcement.Pods != 3 {
		t.Errorf("the status is %+v, %v", s.Enforcement, err)
	}

	// The daemon says what it denies, and why.
	says := func(code int, want string, args ...string) error {
		out, err := selvaged(ctx, t, one, args...)
		if got := exitCode(err); got != code || !strings.Contains(out, want) {
			return fmt.Errorf("%q: exit code %d, %s; want %d, %q", args, got, out, code, want)
		}
		return nil
	}
	waitFor(ctx, t, "drops", func() error {
		return errors.Join(says(0, "ingress default/stranger (", "drops"), says(0, "isolated by default/server", "drops"),
			says(0, `"protocol":"UDP"`, "drops", "-o", "json"))
	})
	for _, err := range []error{
		says(0, "default/server", "policy", "list"), says(0, "by default/server ingress[0]", "policy", "explain", "default/near", "default/server"),
		says(2, "isolated by default/server", "policy", "explain", "default/stranger", "default/server:80"),
		says(0, "in force, chain ingress", "policy", "explain", "default/near", "default/server"),
		says(1, "default/nobody", "policy", "explain", "default/nobody", "default/server"),
		says(0, "network policies are enforced for 3 pods", "doctor", "--check", "policies", "--cni-conf-dir="),
	} {
		if err != nil {
			t.Error(err)
		}
	}

	// What others break is repaired.
	if err := one.Do(func() error { return os.WriteFile(bridgedV4, []byte("0"), 0) }); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the setting again", func() error {
		data, err := one.ReadFile(bridgedV4)
		if err == nil && string(data) != "1\n" {
			err = fmt.Errorf("it is %q", data)
		}
		return err
	})
	reaches(ctx, t, l, stranger, server, false)
	if _, err := one.Output(ctx, "nft", "flush", "table", "inet", enforce.Table); err != nil {
		t.Fatal(err)
	}
	for _, from := range []*lab.Pod{stranger, spy} {
		reaches(ctx, t, l, from, server, false)
	}

	// The end of the daemon opens nothing and shuts nothing.
	one.Kill()
	reaches(ctx, t, l, stranger, server, false)
	reaches(ctx, t, l, near, server, true)
	if err := one.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	waitForReady(ctx, t, one)
	reaches(ctx, t, l, stranger, server, false)
	endNear()
	endFar()

	// A pod is closed before its first packet.
	p.write("mute", mute)
	p.write("pods", all+lab.PodYAML("late", "late", "node1", nil))
	late := add(one, "late")
	wait := longEnough(ctx, t, l, one.Endpoint, one.Endpoint)
	for _, f := range families {
		short, cancel := context.WithTimeout(ctx, wait)
		if err := l.ProbeFamily(short, f, late.Endpoint, far.Endpoint).Err; err == nil {
			t.Errorf("a packet of a new pod passed over %s, which a policy denies", f)
		}
		cancel()
	}

	// Without policies, everything passes again, and there is no table.
	for _, name := range []string{"server", "mute"} {
		if err := os.Remove(filepath.Join(p.dir, name+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []*lab.Pod{stranger, spy, late} {
		reaches(ctx, t, l, from, server, true)
	}
	waitFor(ctx, t, "no table", func() error { return hasTable(one, enforce.Table, false) })
}

// TestPoliciesOff: a daemon that enforces no policies removes what an earlier run enforced, whether the flags say so or
// another engine's rules are there, and the CNI plugin does not wait any more.
func TestPoliciesOff(t *testing.T) {
	p := policies{t, t.TempDir()}
	p.write("objects", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---"+denyAll+
		lab.PodYAML("server", "server", "node1", nil)+lab.PodYAML("near", "client", "node1", nil)+lab.PodYAML("late", "client", "node1", nil))
	l := start(t, lab.Options{
		Nodes: 1, Families: []subnet.Family{subnet.IPv4, subnet.IPv6}, Namespace: "default",
		DaemonArgs: []string{"--network-policy=on", "--policy-dir=" + p.dir},
	})
	ctx := testctx.New(t)
	n := l.Nodes()[0]
	add := func(name string) *lab.Pod {
		t.Helper()
		pod, err := l.AddPod(ctx, n, name)
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
	nft := func(args ...string) {
		t.Helper()
		if _, err := n.Output(ctx, append([]string{"nft"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	server, near := add("server"), add("near")
	// enforces restarts the daemon with a mode, and waits until it enforces the policy, or not for a reason.
	enforces := func(mode string, off status.Reason) {
		t.Helper()
		n.SetDaemonArgs("--iface=eth0", "--peer-probe-interval=0", "--network-policy="+mode, "--policy-dir="+p.dir)
		if err := n.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		waitForReady(ctx, t, n)
		s, err := n.Status(ctx)
		if err != nil || s.PoliciesOff != off || (s.Enforcement == nil) != (off != "") {
			t.Fatalf("--network-policy=%s: %q, %+v, %v; want %q", mode, s.PoliciesOff, s.Enforcement, err, off)
		}
		reaches(ctx, t, l, near, server, off != "")
		waitFor(ctx, t, "the tables", func() error {
			var file subnetfile.Status
			err := n.Do(func() (err error) {
				file, err = subnetfile.ReadStatus(subnetFile)
				return err
			})
			if err == nil && (file.PolicySocket == "") != (off != "") {
				err = fmt.Errorf("the status file says %+v", file)
			}
			return errors.Join(err, hasTable(n, enforce.Table, off == ""))
		})
	}
	reaches(ctx, t, l, near, server, false)
	enforces("off", status.PolicyDisabled)
	reaches(ctx, t, l, add("late"), server, true)
	enforces("auto", "")
	nft("add", "table", "inet", "kube-network-policies")
	enforces("auto", status.PolicyOtherEngine)
	if out, err := selvaged(ctx, t, n, "drops"); exitCode(err) != 1 || !strings.Contains(out, "does not enforce network policies") {
		t.Errorf("drops: %v: %s", err, out)
	}
	enforces("on", "")
	out, err := selvaged(ctx, t, n, "doctor", "--check", "policies", "--cni-conf-dir=")
	if exitCode(err) != 3 || !strings.Contains(out, "nft delete table inet kube-network-policies") {
		t.Errorf("doctor beside another engine: %v: %s", err, out)
	}

	if err := n.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	reaches(ctx, t, l, near, server, false)
	if out, err := selvaged(ctx, t, n, "cleanup", "--rules"); err != nil || !strings.Contains(out, "removed table inet "+enforce.Table+"\n") {
		t.Errorf("cleanup: %v: %s", err, out)
	}
	reaches(ctx, t, l, near, server, true)
	nft("list", "table", "inet", "kube-network-policies") // it is not ours
}

// TestPoliciesKubernetes enforces policies from the API server, with --network-policy=auto: a pod is judged before its
// first packet, by what the API says of it before it has an address, and an API server that is down changes nothing.
func TestPoliciesKubernetes(t *testing.T) {
	l := start(t, lab.Options{
		Store: subnet.StoreKubernetes, Nodes: 2, Families: []subnet.Family{subnet.IPv4, subnet.IPv6}, Namespace: "default",
		DaemonArgs: []string{"--network-policy=auto"},
	})
	ctx := testctx.New(t)
	admin := l.Kube().Server().Admin()
	type fields = map[string]any
	create := func(path, kind, version, name string, labels, more fields) {
		t.Helper()
		o := fields{"kind": kind, "apiVersion": version, "metadata": fields{"name": name, "labels": labels}}
		maps.Copy(o, more)
		if _, err := admin.Create(ctx, path, o); err != nil {
			t.Fatal(err)
		}
	}
	const pods = "/api/v1/namespaces/default/pods"
	add := func(n *lab.Node, name, app string) *lab.Pod {
		t.Helper()
		create(pods, "Pod", "v1", name, fields{"app": app}, fields{"spec": fields{
			"nodeName": n.Name(), "containers": []any{fields{"name": "c", "image": "x"}},
		}})
		pod, err := l.AddPod(ctx, n, name)
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
	create("/api/v1/namespaces", "Namespace", "v1", "default", nil, nil)
	create("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", "NetworkPolicy", "networking.k8s.io/v1", "server", nil, fields{
		"spec": fields{"podSelector": fields{"matchLabels": fields{"app": "server"}}, "policyTypes": []string{"Ingress"},
			"ingress": []any{fields{"from": []any{fields{"podSelector": fields{"matchLabels": fields{"app": "client"}}}}}}},
	})
	one, two := l.Nodes()[0], l.Nodes()[1]
	for _, n := range l.Nodes() {
		knowsPolicy(ctx, t, n, "default/server")
	}
	server, near, stranger, far := add(one, "server", "server"), add(one, "near", "client"), add(one, "stranger", "other"), add(two, "far", "client")
	reaches(ctx, t, l, near, server, true)
	reaches(ctx, t, l, stranger, server, false)
	reaches(ctx, t, l, far, server, false) // the node of the server does not know its address yet
	var ips []any
	for _, f := range subnet.Families() {
		ips = append(ips, fields{"ip": far.Addr(f).String()})
	}
	if _, err := admin.Patch(ctx, pods+"/far/status", fields{"status": fields{"phase": "Running", "podIPs": ips}}); err != nil {
		t.Fatal(err)
	}
	reaches(ctx, t, l, far, server, true)

	l.Store().Kill()
	reason(ctx, t, one, status.PolicySourceLost)
	reaches(ctx, t, l, near, server, true)
	reaches(ctx, t, l, stranger, server, false)
	if err := l.Store().Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := admin.DeleteAll(ctx, "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/server"); err != nil {
		t.Fatal(err)
	}
	reaches(ctx, t, l, stranger, server, true)
	waitFor(ctx, t, "no table", func() error { return hasTable(one, enforce.Table, false) })
	waitFor(ctx, t, "ready again", func() error { return ready(ctx, one) })
}
