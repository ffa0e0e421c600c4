package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/attachment"
)

const (
	// wideSubnets is a network config for nodes with more pods than a subnet of the usual length has addresses.
	wideSubnets = `{"Network":"10.5.0.0/16","SubnetLen":22,"EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`
	// onePlugin has no other plugin than selvage, whose time counts. %s is for more keys.
	onePlugin = `{"cniVersion":"1.0.0","name":"cbr0","plugins":[{"type":"selvage"%s,"delegate":{"hairpinMode":true,"isDefaultGateway":true}}]}`
	// friendsOnly: a new pod reaches its friends, and no other pod reaches it.
	friendsOnly = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: new, namespace: default}
spec:
  podSelector: {matchLabels: {app: new}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: friend}}}]}]
`
	defaultNamespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n"
)

// The numbers of pods that are started: as many as the machine can in the time.
const (
	mostPods, fewestPods = 200, 50
	mostPairs            = 50
	pairsTime            = 5 * time.Second
)

// podsTime is how long pods are started: $FIRST_PACKET_TIME, or 10 s.
func podsTime(t *testing.T) time.Duration {
	text := cmp.Or(os.Getenv("FIRST_PACKET_TIME"), "10s")
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("FIRST_PACKET_TIME: %v", err)
	}
	return d
}

// TestFirstPacket starts pods under a policy that allows them a few peers alone. Each sends when ADD returns, and
// before, and others send to its address from before it exists: no new connection passes that is denied, in both
// families, on one node and between two. It prints what the wait for the rules adds to ADD.
func TestFirstPacket(t *testing.T) {
	p := policies{t, t.TempDir()}
	l := start(t, lab.Options{
		Nodes: 2, Families: []subnet.Family{subnet.IPv4, subnet.IPv6}, Namespace: "default", Config: wideSubnets,
		CNI: fmt.Sprintf(onePlugin, ""), DaemonArgs: []string{"--network-policy=on", "--policy-dir=" + p.dir},
	})
	ctx := testctx.New(t)
	known := defaultNamespace
	for i, name := range peers() {
		known += lab.PodYAML(name, strings.Trim(name, "12"), l.Nodes()[i%2].Name(), nil)
	}
	p.write("peers", known)
	known = defaultNamespace
	x := newPlace(t, func(i int, name string) *lab.Pod {
		pod, err := l.AddPod(ctx, l.Nodes()[i%2], name)
		if err != nil {
			t.Fatal(err)
		}
		known += lab.PodYAML(name, strings.Trim(name, "12"), pod.Node.Name(), pod.Endpoint)
		return pod
	})
	p.write("peers", known)
	p.write("policy", friendsOnly)
	var pods strings.Builder
	for i := range max(mostPods, mostPairs) + 1 {
		pods.WriteString(lab.PodYAML(fmt.Sprint("new", i), "new", l.Nodes()[0].Name(), nil))
		pods.WriteString(lab.PodYAML(fmt.Sprint("timed", i), "new", l.Nodes()[0].Name(), nil))
	}
	p.write("pods", pods.String())
	knowsPolicy(ctx, t, l.Nodes()[0], "default/new")
	all := []*newcomer{x.add(ctx, t, l, "new0", func() {})} // with it, enforcement begins

	var waited, plain series
	for began := time.Now(); len(waited.took) < mostPairs && (len(waited.took) < 5 || time.Since(began) < pairsTime); {
		i := len(waited.took)
		for s, o := range map[*series]lab.PodOptions{
			&waited: {Name: fmt.Sprint("timed", i)}, &plain: {Name: fmt.Sprint("plain", i), Plain: true},
		} {
			x.expect(s.add(ctx, t, l, o))
		}
	}
	var added []time.Duration
	for i := range waited.took {
		added = append(added, waited.took[i]-plain.took[i])
	}
	t.Logf("ADD, in %d pairs: %s of a pod, with the wait for its rules; %s of a container without policies; differences %s",
		len(added), quartiles(waited.took), quartiles(plain.took), quartiles(added))
	t.Logf("processor time that a pod takes more: %v of the plugins, %v of the daemon",
		waited.mean(waited.plugins)-plain.mean(plain.plugins), waited.mean(waited.daemon)-plain.mean(plain.daemon))

	for _, from := range x.strangers {
		x.stalk(t, from)
	}
	for began, most := time.Now(), podsTime(t); len(all) <= mostPods && (len(all) <= fewestPods || time.Since(began) < most); {
		all = append(all, x.add(ctx, t, l, fmt.Sprint("new", len(all)), func() {}))
	}
	x.judge(t, all)
}

// series is what pods cost that are added alike.
type series struct {
	took            []time.Duration
	plugins, daemon time.Duration // of processor time
}

// add adds a pod to the first node.
func (s *series) add(ctx context.Context, t *testing.T, l *lab.Lab, o lab.PodOptions) *lab.Pod {
	t.Helper()
	node := l.Nodes()[0]
	daemon, plugins := processorTime(t, node.PID()), childrensTime(t)
	pod, err := l.AddPodWith(ctx, node, o)
	if err != nil {
		t.Fatal(err)
	}
	s.took = append(s.took, pod.Took)
	s.daemon, s.plugins = s.daemon+processorTime(t, node.PID())-daemon, s.plugins+childrensTime(t)-plugins
	return pod
}

func (s *series) mean(of time.Duration) time.Duration {
	return (of / time.Duration(len(s.took))).Round(10 * time.Microsecond)
}

// processorTime is that of a process so far, by its clock (clock_getcpuclockid(3)).
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	var now unix.Timespec
	const scheduled = 2 // CPUCLOCK_SCHED
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// childrensTime is the processor time of this process's children that have ended, and of theirs.
func childrensTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quartiles is the median of durations, and the quartiles.
func quartiles(list []time.Duration) string {
	list = slices.Sorted(slices.Values(list))
	at := func(i int) time.Duration { return list[i*(len(list)-1)/4].Round(10 * time.Microsecond) }
	return fmt.Sprintf("%v (%v to %v)", at(2), at(1), at(3))
}

// TestFirstPacketKubernetes: the same, with pods that the API server shows only while the plugin waits for their rules.
func TestFirstPacketKubernetes(t *testing.T) {
	l := start(t, lab.Options{
		Store: subnet.StoreKubernetes, Nodes: 2, Families: []subnet.Family{subnet.IPv4, subnet.IPv6}, Namespace: "default",
		CNI: fmt.Sprintf(onePlugin, `,"policyWait":60`), DaemonArgs: []string{"--network-policy=on"},
	})
	ctx := testctx.New(t)
	admin := l.Kube().Server().Admin()
	type fields = map[string]any
	create := func(path string, o fields) {
		t.Helper()
		if _, err := admin.Create(ctx, path, o); err != nil {
			t.Error(err)
		}
	}
	const inDefault = "/api/v1/namespaces/default/pods"
	show := func(name string, n *lab.Node, at *lab.Pod) {
		t.Helper()
		o := fields{"kind": "Pod", "apiVersion": "v1",
			"metadata": fields{"name": name, "labels": fields{"app": strings.TrimRight(name, "0123456789")}},
			"spec":     fields{"nodeName": n.Name(), "containers": []any{fields{"name": "c", "image": "x"}}}}
		if at != nil {
			var ips []any
			for _, f := range subnet.Families() {
				ips = append(ips, fields{"ip": at.Addr(f).String()})
			}
			o["status"] = fields{"phase": "Running", "podIPs": ips}
		}
		create(inDefault, o)
	}
	create("/api/v1/namespaces", fields{"kind": "Namespace", "apiVersion": "v1", "metadata": fields{"name": "default"}})
	x := newPlace(t, func(i int, name string) *lab.Pod {
		pod, err := l.AddPodWith(ctx, l.Nodes()[i%2], lab.PodOptions{Name: name, CNI: fmt.Sprintf(onePlugin, `,"policyWait":0`)})
		if err != nil {
			t.Fatal(err)
		}
		show(name, l.Nodes()[i%2], pod)
		return pod
	})
	create("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", fields{
		"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": fields{"name": "new"},
		"spec": fields{"podSelector": fields{"matchLabels": fields{"app": "new"}}, "policyTypes": []string{"Ingress", "Egress"},
			"egress": []any{fields{"to": []any{fields{"podSelector": fields{"matchLabels": fields{"app": "friend"}}}}}}},
	})
	one := l.Nodes()[0]
	knowsPolicy(ctx, t, one, "default/new")
	var all []*newcomer
	for i := range 10 {
		name, shown := fmt.Sprint("new", i), make(chan struct{})
		all = append(all, x.add(ctx, t, l, name, func() {
			go func() {
				defer close(shown)
				waitFor(ctx, t, name+" waits", func() error {
					s, err := one.Status(ctx)
					if err == nil && (s.Enforcement == nil || s.Enforcement.Waiting == 0) {
						err = errors.New("nothing waits")
					}
					return err
				})
				show(name, one, nil)
			}()
		}))
		<-shown
		if i == 0 {
			for _, from := range x.strangers {
				x.stalk(t, from)
			}
		}
	}
	x.judge(t, all)
}

// TestPolicyFailure: what follows if the rules of a pod are not in force in time, because the daemon does not know the
// pod or does not run: the pod is isolated, or not started.
func TestPolicyFailure(t *testing.T) {
	p := policies{t, t.TempDir()}
	p.write("objects", defaultNamespace+"---"+denyAll+lab.PodYAML("server", "server", "node1", nil)+lab.PodYAML("peer", "other", "node1", nil))
	l := start(t, lab.Options{
		Nodes: 1, Families: []subnet.Family{subnet.IPv4, subnet.IPv6}, Namespace: "default",
		DaemonArgs: []string{"--network-policy=on", "--policy-dir=" + p.dir},
	})
	ctx := testctx.New(t)
	n := l.Nodes()[0]
	add := func(name, keys string) (*lab.Pod, error) {
		return l.AddPodWith(ctx, n, lab.PodOptions{Name: name, CNI: fmt.Sprintf(onePlugin, keys)})
	}
	const isolate, fail, atOnce = `,"policyWait":0.1`, `,"policyWait":0.1,"policyFailure":"fail"`, `,"policyWait":0`
	started := func(name, keys string) *lab.Pod {
		t.Helper()
		pod, err := add(name, keys)
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
	started("server", "") // the node enforces the policy
	peer := started("peer", "")

	// The daemon runs, and does not know the pod.
	closed := started("closed", isolate)
	if !strings.Contains(closed.Stderr, "the pod is isolated until its network policies are in force") {
		t.Errorf("on standard error: %q", closed.Stderr)
	}
	reaches(ctx, t, l, closed, peer, false)
	reaches(ctx, t, l, peer, closed, false)
	reason(ctx, t, n, status.PolicyPodClosed)
	if _, err := add("failed", fail); err == nil || !strings.Contains(err.Error(), "the API server has not reported the pod yet") {
		t.Errorf("with policyFailure fail, a pod that is not known: %v", err)
	}
	p.write("late", lab.PodYAML("closed", "other", "node1", nil))
	reaches(ctx, t, l, closed, peer, true)
	reaches(ctx, t, l, peer, closed, true)

	// The daemon does not run: it alone could isolate the pod.
	n.Kill()
	for name, keys := range map[string]string{"isolate": isolate, "fail": fail} {
		if _, err := add(name, keys); err == nil || !strings.Contains(err.Error(), "no process listens on") {
			t.Errorf("with policyFailure %s, without a daemon: %v", name, err)
		}
	}
	if err := n.Do(func() error {
		all, err := attachment.Keys(attachment.Dir(subnetFile), "cbr0")
		if err == nil && len(all) != 3 {
			err = fmt.Errorf("there are records of %d pods, want those of the 3 that were started", len(all))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	open := started("open", atOnce)
	reaches(ctx, t, l, open, peer, true)
	if err := n.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	waitForReady(ctx, t, n)
	p.write("more", lab.PodYAML("isolate", "other", "node1", nil)+lab.PodYAML("open", "other", "node1", nil))
	reaches(ctx, t, l, started("isolate", ""), peer, true)
}
