package feed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/manifest"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// patience is how long a test waits for what must happen soon.
const patience = 2 * time.Minute

// thisNode is the node that follows.
const thisNode = "a"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/selvage-net/selvage/dist/lab/child.Start.func1"))
}

// sink keeps what is handed over, and needs peers when a compiler does.
type sink struct {
	t     *testing.T
	peers chan struct{}

	mu       sync.Mutex
	cluster  policy.Cluster
	compiler *policy.Compiler
	needs    bool
	synced   bool
	early    []string // pods of this node whose namespace was not known
	deleted  []string
}

func newSink(t *testing.T) *sink {
	return &sink{
		t: t, peers: make(chan struct{}, 1), cluster: manifest.New(manifest.Options{}).Cluster,
		compiler: policy.NewCompiler(thisNode),
	}
}

// objects are those of a sink whose mutex is held.
type objects struct{ *sink }

func (o objects) SetNamespace(n policy.Namespace) {
	o.cluster.Namespaces[n.Name] = n
	o.compiler.SetNamespace(n)
}

func (o objects) DeleteNamespace(name string) {
	delete(o.cluster.Namespaces, name)
	o.compiler.DeleteNamespace(name)
}

func (o objects) SetPod(p policy.Pod) {
	if _, known := o.cluster.Namespaces[p.Namespace]; !known && p.Node == thisNode {
		o.early = append(o.early, p.Name)
	}
	o.compiler.SetPod(p)
	o.cluster.Pods[p.UID] = &p
}

func (o objects) DeletePod(uid string) {
	if p := o.cluster.Pods[uid]; p != nil {
		o.deleted = append(o.deleted, p.Name)
	}
	delete(o.cluster.Pods, uid)
	o.compiler.DeletePod(uid)
}

func (o objects) SetPolicy(p policy.Policy) {
	o.cluster.Policies[p.Key()] = &p
	o.compiler.SetPolicy(p)
}

func (o objects) DeletePolicy(namespace, name string) {
	delete(o.cluster.Policies, namespace+"/"+name)
	o.deleted = append(o.deleted, name)
	o.compiler.DeletePolicy(namespace, name)
}

func (o objects) SetClusterPolicy(p policy.ClusterPolicy) {
	o.cluster.ClusterWide[p.Name] = &p
	o.compiler.SetClusterPolicy(p)
}

func (o objects) DeleteClusterPolicy(name string) {
	delete(o.cluster.ClusterWide, name)
	o.deleted = append(o.deleted, name)
	o.compiler.DeleteClusterPolicy(name)
}

// Update implements [Sink].
func (s *sink) Update(f func(policy.Objects)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(objects{s})
	if needs := s.compiler.NeedsPeers(); needs != s.needs {
		if s.needs = needs; needs {
			s.synced = false
		}
		select {
		case s.peers <- struct{}{}:
		default:
		}
	}
}

// SetSynced implements [Sink].
func (s *sink) SetSynced(synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = synced
}

// NeedsPeers implements [Sink].
func (s *sink) NeedsPeers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.needs
}

// PeersChanged implements [Sink].
func (s *sink) PeersChanged() <-chan struct{} { return s.peers }

// show returns all that was handed over as text, and whether it is in sync. Namespaces that a server has of itself are
// left out.
func (s *sink) show() (lines []string, synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.cluster.Namespaces {
		if name == "default" || strings.HasPrefix(name, "kube-") {
			continue
		}
		team, _ := n.Labels.Get("team")
		lines = append(lines, "namespace "+name+" "+team)
	}
	for _, p := range s.cluster.Pods {
		app, _ := p.Labels.Get("app")
		line := fmt.Sprintf("pod %s/%s on %s app=%s", p.Namespace, p.Name, p.Node, app)
		for _, a := range p.Addresses {
			if a.IsValid() {
				line += " " + a.String()
			}
		}
		if !p.Counts() {
			line += " does not count"
		}
		lines = append(lines, line)
	}
	for key, p := range s.cluster.Policies {
		lines = append(lines, fmt.Sprintf("policy %s %d+%d rules", key, len(p.Rules[0]), len(p.Rules[1])))
	}
	for name, p := range s.cluster.ClusterWide {
		lines = append(lines, fmt.Sprintf("cluster policy %s %s %d", name, p.Tier, p.Priority))
	}
	slices.Sort(lines)
	return lines, s.synced
}

// is waits until what was handed over is what is wanted, and in sync.
func (s *sink) is(want ...string) {
	s.t.Helper()
	slices.Sort(want)
	testctx.Eventually(s.t, func() string {
		lines, synced := s.show()
		if !synced || !slices.Equal(lines, want) {
			return fmt.Sprintf("in sync: %v\nhave %s\nwant %s", synced, strings.Join(lines, "\n     "), strings.Join(want, "\n     "))
		}
		return ""
	})
}

// taken returns what was deleted since the last call.
func (s *sink) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.deleted
	s.deleted = nil
	return list
}

// logged counts the lines of a log.
type logged struct {
	t     testing.TB
	mu    sync.Mutex
	lines []string
}

// Write implements [io.Writer].
func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(line))
	return l.t.Output().Write(line)
}

// count returns how many lines have a text.
func (l *logged) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func logger(t testing.TB) (*logrus.Logger, *logged) {
	l := &logged{t: t}
	log := logrus.New()
	log.SetOutput(l)
	return log, l
}

// backend is an API server that a test changes.
type backend struct {
	t       *testing.T
	options apiserver.Options
	admin   kubetest.Admin
	// define makes the server know ClusterNetworkPolicies.
	define func()
	backup func() (restore func())
	// forget makes the server forget its history.
	forget  func()
	standIn *kubetest.Server // nil: a real one
}

// standIn starts a stand-in.
func standIn(t *testing.T, o kubetest.Options) backend {
	t.Helper()
	s := kubetest.New(o)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	admin := s.Admin()
	admin.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // the server is restarted
	s.Lack(clusterPolicies.Name)
	b := backend{
		t: t, options: apiserver.Options{URL: s.URL(), ServiceAccount: t.TempDir()}, admin: admin, standIn: s,
		define: func() { s.Lack() }, forget: s.Compact,
	}
	b.backup = func() func() {
		saved := s.Backup()
		return func() {
			s.Stop()
			s.Restore(saved)
			b.start()
		}
	}
	return b
}

func (b backend) start() {
	b.t.Helper()
	if err := b.standIn.Start(); err != nil {
		b.t.Fatal(err)
	}
}

// follow runs Kubernetes until the test ends, or until end is called.
func (b backend) follow(change func(*KubernetesOptions)) (s *sink, end func()) {
	b.t.Helper()
	log, _ := logger(b.t)
	b.options.Log = log
	c, err := apiserver.New(b.options)
	if err != nil {
		b.t.Fatal(err)
	}
	s = newSink(b.t)
	o := KubernetesOptions{
		Client: c, Node: thisNode, Sink: s, Log: log, linger: time.Millisecond, absent: 20 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Kubernetes(ctx, o) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, c.Close()); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(end)
	return s, end
}

type fields = map[string]any

func (b backend) create(path, kind, version, name string, labels map[string]string, more fields) {
	b.t.Helper()
	o := fields{"kind": kind, "apiVersion": version, "metadata": fields{"name": name, "labels": labels}}
	maps.Copy(o, more)
	if _, err := b.admin.Create(b.t.Context(), path, o); err != nil {
		b.t.Fatal(err)
	}
}

func (b backend) namespace(name, team string) {
	b.t.Helper()
	b.create("/api/v1/namespaces", "Namespace", "v1", name, map[string]string{"team": team}, nil)
}

// pod creates a pod with an app label of its name, and sets its status.
func (b backend) pod(namespace, name, node, phase string, host bool, addresses ...string) {
	b.t.Helper()
	path := "/api/v1/namespaces/" + namespace + "/pods"
	b.create(path, "Pod", "v1", name, map[string]string{"app": name}, fields{"spec": fields{
		"nodeName": node, "hostNetwork": host, "automountServiceAccountToken": false,
		"containers": []any{fields{"name": "c", "image": "x", "ports": []any{
			fields{"name": "web", "containerPort": 80, "hostPort": 80, "protocol": "TCP"},
		}}},
	}})
	b.status(namespace, name, phase, addresses...)
}

func (b backend) status(namespace, name, phase string, addresses ...string) {
	b.t.Helper()
	status := fields{"phase": phase}
	if len(addresses) > 0 {
		var list []any
		for _, a := range addresses {
			list = append(list, fields{"ip": a})
		}
		status["podIP"], status["podIPs"] = addresses[0], list
	}
	path := "/api/v1/namespaces/" + namespace + "/pods/" + name + "/status"
	for _, patch := range []fields{{"podIP": nil, "podIPs": nil}, status} { // a patch only adds addresses
		if _, err := b.admin.Patch(b.t.Context(), path, fields{"status": patch}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// policy creates a policy for all pods of a namespace, with one rule if it has peers: namespaces of a team.
func (b backend) policy(namespace, name, team string) {
	b.t.Helper()
	spec := fields{"podSelector": fields{}, "policyTypes": []string{"Ingress"}}
	if team != "" {
		spec["ingress"] = []any{fields{"from": []any{
			fields{"namespaceSelector": fields{"matchLabels": fields{"team": team}}},
		}}}
	}
	b.create(policies(namespace), "NetworkPolicy", "networking.k8s.io/v1", name, nil, fields{"spec": spec})
}

func policies(namespace string) string {
	return "/apis/networking.k8s.io/v1/namespaces/" + namespace + "/networkpolicies"
}

const clusterPolicyPath = "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies"

func (b backend) clusterPolicy(name string, priority int) {
	b.t.Helper()
	b.create(clusterPolicyPath, "ClusterNetworkPolicy", "policy.networking.k8s.io/v1beta1", name, nil, fields{"spec": fields{
		"tier": "Admin", "priority": priority, "subject": fields{"namespaces": fields{}},
	}})
}

func (b backend) delete(path string) {
	b.t.Helper()
	if err := b.admin.DeleteAll(b.t.Context(), path); err != nil {
		b.t.Fatal(err)
	}
}
