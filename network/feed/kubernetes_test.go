package feed

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// TestKubernetes: what is followed and when, with the stand-in and with a real kube-apiserver.
func TestKubernetes(t *testing.T) {
	t.Run("stand-in", func(t *testing.T) { t.Parallel(); testKubernetes(t, standIn(t, kubetest.Options{})) })
	t.Run("without streaming lists", func(t *testing.T) {
		t.Parallel()
		testKubernetes(t, standIn(t, kubetest.Options{NoStreamingLists: true}))
	})
	if b, ok := realServer(t); ok {
		t.Run("kube-apiserver", func(t *testing.T) { b.t = t; testKubernetes(t, b) })
	}
}

func testKubernetes(t *testing.T, b backend) {
	b.namespace("red", "r")
	b.namespace("blue", "b")
	b.pod("red", "own", thisNode, "Running", false, "10.5.1.2", "fd00::2")
	b.pod("blue", "peer", "b", "Running", false, "10.5.2.2")
	b.pod("blue", "ended", "b", "Succeeded", false, "10.5.2.2")
	b.pod("blue", "host", "b", "Running", true, "192.0.2.2")
	b.pod("blue", "waiting", "", "Pending", false)
	report := &Report{}
	s, end := b.follow(func(o *KubernetesOptions) { o.Report = report })
	base := []string{"namespace red r", "namespace blue b", "pod red/own on a app=own 10.5.1.2 fd00::2"}
	s.is(base...)

	// A policy without peers needs no pods of other nodes, and one with peers does.
	b.policy("red", "closed", "")
	s.is(append(base, "policy red/closed 0+0 rules")...)
	b.policy("blue", "elsewhere", "r") // selects no pod of this node
	b.policy("red", "open", "b")
	peers := []string{"pod blue/peer on b app=peer 10.5.2.2", "pod blue/host on b app=host 192.0.2.2 does not count"}
	withPolicies := append(base, "policy red/closed 0+0 rules", "policy blue/elsewhere 1+0 rules", "policy red/open 1+0 rules")
	all := append(withPolicies, peers...)
	s.is(all...)
	if got := sources(report); got != "clusternetworkpolicies:0 namespaces networkpolicies:3 peers:2 pods:1" {
		t.Errorf("sources %s", got)
	}

	b.define()
	b.clusterPolicy("wide", 7)
	all = append(all, "cluster policy wide Admin 7")
	s.is(all...)

	// A store that is restored from a backup, and one that forgets its history, is as it says.
	restore := b.backup()
	b.pod("blue", "second", "b", "Running", false, "10.5.2.3")
	b.delete(policies("red") + "/closed")
	b.delete(clusterPolicyPath + "/wide")
	s.is(append(slices.DeleteFunc(slices.Clone(all), func(line string) bool {
		return line == "policy red/closed 0+0 rules" || strings.HasPrefix(line, "cluster")
	}), "pod blue/second on b app=second 10.5.2.3")...)
	restore()
	s.is(all...)
	b.forget()
	b.status("blue", "peer", "Running", "10.5.2.9")
	all = slices.DeleteFunc(all, func(line string) bool { return strings.HasPrefix(line, "pod blue/peer") })
	all = append(all, "pod blue/peer on b app=peer 10.5.2.9")
	s.is(all...)

	// The end of the need for peers withdraws them; the end of a pod, and its deletion, too.
	b.delete(policies("red") + "/open")
	left := []string{"namespace red r", "namespace blue b", "policy red/closed 0+0 rules", "policy blue/elsewhere 1+0 rules",
		"cluster policy wide Admin 7"}
	own := "pod red/own on a app=own 10.5.1.2 fd00::2"
	s.is(append(left, own)...)
	testctx.Eventually(t, func() string {
		if got := sources(report); got != "clusternetworkpolicies:1 namespaces networkpolicies:2 pods:1" {
			return got
		}
		return ""
	})
	b.status("red", "own", "Failed", "10.5.1.2", "fd00::2")
	s.is(append(left, own+" does not count")...)
	b.delete("/api/v1/namespaces/red/pods/own?gracePeriodSeconds=0")
	s.is(left...)
	b.pod("red", "next", thisNode, "Running", false, "10.5.1.2")
	s.is(append(left, "pod red/next on a app=next 10.5.1.2")...)
	b.policy("red", "open", "b")
	s.is(append(left, append(peers[1:], "pod blue/peer on b app=peer 10.5.2.9", "pod red/next on a app=next 10.5.1.2",
		"policy red/open 1+0 rules")...)...)

	// The end of all removes nothing.
	s.taken()
	end()
	if gone := s.taken(); gone != nil {
		t.Errorf("deleted at the end: %v", gone)
	}
	if len(s.early) > 0 {
		t.Errorf("pods without their namespace: %v", s.early)
	}
}

// sources shows the sources of a report: those that are complete, with how many objects they have. A real server has
// namespaces of its own.
func sources(r *Report) string {
	var list []string
	for _, s := range r.State().Sources {
		switch {
		case !s.Complete || !s.Since.IsZero():
			list = append(list, fmt.Sprintf("%s: %v", s.Source, s.Problem.Err))
		case s.Source == Namespaces:
			list = append(list, string(s.Source))
		default:
			list = append(list, fmt.Sprintf("%s:%d", s.Source, s.Objects))
		}
	}
	return strings.Join(list, " ")
}

// TestOwnNodeOnly: without a policy that needs peers, no pod of another node is read.
func TestOwnNodeOnly(t *testing.T) {
	b := standIn(t, kubetest.Options{})
	b.namespace("red", "r")
	b.pod("red", "own", thisNode, "Running", false, "10.5.1.2")
	b.pod("red", "peer", "b", "Running", false, "10.5.2.2")
	b.policy("red", "closed", "")
	s, _ := b.follow(nil)
	want := []string{"namespace red r", "pod red/own on a app=own 10.5.1.2", "policy red/closed 0+0 rules"}
	s.is(want...)
	asked := map[string]bool{}
	for _, r := range b.standIn.Requests() {
		asked[r.Path+" "+r.Query.Get("fieldSelector")] = true
	}
	for what := range asked {
		if strings.HasPrefix(what, "/api/v1/pods") && what != "/api/v1/pods spec.nodeName=a" {
			t.Errorf("asked for %s", what)
		}
	}
}

// TestNamespaceFirst: a pod of this node waits for its namespace.
func TestNamespaceFirst(t *testing.T) {
	b := standIn(t, kubetest.Options{})
	b.pod("red", "own", thisNode, "Running", false, "10.5.1.2")
	s, _ := b.follow(nil)
	s.is()
	b.pod("red", "second", thisNode, "Running", false, "10.5.1.3")
	b.policy("red", "closed", "")
	s.is("policy red/closed 0+0 rules")
	b.namespace("red", "r")
	s.is("policy red/closed 0+0 rules", "namespace red r", "pod red/own on a app=own 10.5.1.2", "pod red/second on a app=second 10.5.1.3")
	if len(s.early) > 0 {
		t.Errorf("pods without their namespace: %v", s.early)
	}
}

// TestOutage: what was handed over stays while the API server is away, and one line is logged about it.
func TestOutage(t *testing.T) {
	b := standIn(t, kubetest.Options{})
	b.define()
	b.namespace("red", "r")
	b.pod("red", "own", thisNode, "Running", false, "10.5.1.2")
	b.pod("red", "peer", "b", "Running", false, "10.5.2.2")
	b.policy("red", "open", "r")
	b.clusterPolicy("wide", 7)
	log, lines := logger(t)
	report := &Report{}
	s, _ := b.follow(func(o *KubernetesOptions) { o.Log, o.Report = log, report })
	want := []string{"namespace red r", "pod red/own on a app=own 10.5.1.2", "pod red/peer on b app=peer 10.5.2.2",
		"policy red/open 1+0 rules", "cluster policy wide Admin 7"}
	s.is(want...)
	b.standIn.Stop()
	testctx.Eventually(t, func() string {
		for _, source := range report.State().Sources {
			if source.Since.IsZero() || source.Problem.Reason == "" {
				return string(source.Source) + " does not fail"
			}
		}
		if lines.count("cannot follow") == 0 {
			return "no line in the log"
		}
		return ""
	})
	s.is(want...)
	b.start()
	testctx.Eventually(t, func() string {
		for _, source := range report.State().Sources {
			if !source.Since.IsZero() {
				return string(source.Source) + " fails"
			}
		}
		return ""
	})
	s.is(want...)
	if gone := s.taken(); gone != nil {
		t.Errorf("deleted: %v", gone)
	}
	if n := lines.count("are followed again"); n != 1 {
		t.Errorf("%d lines about the end of the outage", n)
	}
}

// TestForbidden: without a right, it is not in sync, and the report says what is missing.
func TestForbidden(t *testing.T) {
	b := standIn(t, kubetest.Options{})
	b.standIn.Deny("list networkpolicies", "watch networkpolicies")
	b.namespace("red", "r")
	report := &Report{}
	s, _ := b.follow(func(o *KubernetesOptions) { o.Report = report })
	testctx.Eventually(t, func() string {
		for _, source := range report.State().Sources {
			forbidden := source.Problem.Reason.AboutUser()
			if want := source.Source == NetworkPolicies; forbidden != want || source.Complete == want {
				return fmt.Sprintf("%+v", source)
			}
		}
		return ""
	})
	if _, synced := s.show(); synced {
		t.Error("in sync without policies")
	}
	b.standIn.Deny()
	s.is("namespace red r")
}

// TestNotes: what is not understood is reported, and logged once for each version.
func TestNotes(t *testing.T) {
	b := standIn(t, kubetest.Options{})
	log, lines := logger(t)
	report := &Report{}
	s, _ := b.follow(func(o *KubernetesOptions) { o.Log, o.Report = log, report })
	b.namespace("red", "r")
	b.create(policies("red"), "NetworkPolicy", "networking.k8s.io/v1", "odd", nil, fields{"spec": fields{
		"podSelector": fields{}, "ingress": []any{fields{"from": []any{fields{"podSelektor": fields{}}}}},
	}})
	b.pod("red", "own", thisNode, "Running", false, "10.5.1.300")
	want := []string{"namespace red r", "policy red/odd 1+0 rules", "pod red/own on a app=own"}
	s.is(want...)
	notes := func() (list []string) {
		for _, n := range report.State().Notes {
			list = append(list, n.Object+" "+string(n.Reason))
		}
		return list
	}
	testctx.Eventually(t, func() string {
		if got := notes(); !slices.Equal(got, []string{"NetworkPolicy red/odd unknown-field", "Pod red/own invalid-address"}) {
			return fmt.Sprintf("notes %q", got)
		}
		return ""
	})
	b.standIn.Stop() // all is listed again
	b.start()
	b.policy("red", "late", "")
	s.is(append(want, "policy red/late 0+0 rules")...)
	if n := lines.count("not all of an object"); n != 2 {
		t.Errorf("%d lines, want one for each object", n)
	}
	b.status("red", "own", "Running", "10.5.1.3")
	b.delete(policies("red"))
	s.is("namespace red r", "pod red/own on a app=own 10.5.1.3")
	if got := notes(); len(got) > 0 { // they change before what is handed over
		t.Errorf("notes %q", got)
	}
}

// TestPodOf: what of a pod is malformed is left out.
func TestPodOf(t *testing.T) {
	o := apiserver.Pod{NodeName: "a", Phase: "Running", Started: time.Unix(7, 0), Addresses: []string{"10.0.0.1", "x", "10.0.0.2", "fd00::1"}}
	o.UID, o.Namespace, o.Name, o.Created = "u", "red", "web", time.Unix(5, 0)
	o.Ports = []apiserver.PodPort{{Name: "web", Number: 80, Protocol: "TCP"}, {Name: "no", Number: 0, Protocol: "UDP"}, {Name: "odd", Number: 1, Protocol: "ICMP"}}
	p, problems := podOf(&o)
	var reasons []string
	for _, x := range problems {
		reasons = append(reasons, string(x.Reason))
	}
	if !slices.Equal(reasons, []string{"invalid-address", "invalid-pod-port", "invalid-protocol"}) {
		t.Errorf("problems %v", problems)
	}
	ports := slices.Collect(p.Ports.All())
	if p.Since != 7 || p.Addresses[0].String() != "10.0.0.1" || p.Addresses[1].String() != "fd00::1" ||
		!slices.Equal(ports, []policy.NamedPort{{Name: "web", Protocol: policy.TCP, Number: 80}}) {
		t.Errorf("%+v with ports %v", p, ports)
	}
}

// TestConverges: after any changes and faults, what was handed over is what the API has.
func TestConverges(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 17))
			b := standIn(t, kubetest.Options{NoStreamingLists: seed%2 == 1})
			b.define()
			s, _ := b.follow(nil)
			w := world{backend: b, random: random, objects: map[string]string{}, pods: map[string]string{}}
			for range 40 {
				w.step()
			}
			// A policy for each namespace with a pod of this node makes all peers needed.
			w.settle()
			s.is(w.want()...)
		})
	}
}

// world is what the API has, by the paths of the objects.
type world struct {
	backend
	random  *rand.Rand
	objects map[string]string // namespaces and policies, as a sink shows them
	pods    map[string]string
	saved   []world
	restore []func()
}

func (w *world) pick(n int) int { return w.random.IntN(n) }

func (w *world) step() {
	ns := []string{"red", "blue", "green"}[w.pick(3)]
	name := fmt.Sprint("x", w.pick(4))
	switch w.pick(10) {
	case 0:
		w.toggle(w.objects, "/api/v1/namespaces/"+ns, func() string {
			team := fmt.Sprint("t", w.pick(2))
			w.namespace(ns, team)
			return "namespace " + ns + " " + team
		})
	case 1, 2:
		w.toggle(w.objects, policies(ns)+"/"+name, func() string {
			team := []string{"", "t0", "t1"}[w.pick(3)]
			w.policy(ns, name, team)
			return fmt.Sprintf("policy %s/%s %d+0 rules", ns, name, min(len(team), 1))
		})
	case 3:
		w.toggle(w.objects, clusterPolicyPath+"/"+name, func() string {
			w.clusterPolicy(name, len(ns))
			return fmt.Sprintf("cluster policy %s Admin %d", name, len(ns))
		})
	case 4, 5, 6, 7:
		w.toggle(w.pods, "/api/v1/namespaces/"+ns+"/pods/"+name, func() string {
			node, address := []string{thisNode, "b"}[w.pick(2)], fmt.Sprint("10.5.1.", w.pick(200))
			w.pod(ns, name, node, "Running", false, address)
			return fmt.Sprintf("pod %s/%s on %s app=%s %s", ns, name, node, name, address)
		})
	case 8:
		w.fault()
	case 9:
		w.standIn.Compact()
	}
}

func (w *world) toggle(all map[string]string, path string, create func() string) {
	w.t.Helper()
	if _, ok := all[path]; ok {
		w.delete(path)
		delete(all, path)
	} else {
		all[path] = create()
	}
}

// fault restarts the server, or restores a backup that was made before.
func (w *world) fault() {
	clone := func() world {
		c := world{objects: map[string]string{}, pods: map[string]string{}}
		for k, v := range w.objects {
			c.objects[k] = v
		}
		for k, v := range w.pods {
			c.pods[k] = v
		}
		return c
	}
	switch w.pick(3) {
	case 0:
		w.standIn.Stop()
		w.start()
	case 1:
		w.saved, w.restore = append(w.saved, clone()), append(w.restore, w.backup())
	case 2:
		if n := len(w.saved); n > 0 {
			w.restore[n-1]()
			w.objects, w.pods = w.saved[n-1].objects, w.saved[n-1].pods
			w.saved, w.restore = w.saved[:n-1], w.restore[:n-1]
		}
	}
}

// settle makes sure that there is a pod of this node with a policy that has peers, and all namespaces.
func (w *world) settle() {
	for _, ns := range []string{"red", "blue", "green"} {
		if path := "/api/v1/namespaces/" + ns; w.objects[path] == "" {
			w.namespace(ns, "t0")
			w.objects[path] = "namespace " + ns + " t0"
		}
	}
	w.pod("red", "last", thisNode, "Running", false, "10.5.1.222")
	w.pods["last"] = "pod red/last on a app=last 10.5.1.222"
	w.policy("red", "last", "t0")
	w.objects["last"] = "policy red/last 1+0 rules"
}

func (w *world) want() (list []string) {
	for _, line := range w.objects {
		list = append(list, line)
	}
	for _, line := range w.pods {
		list = append(list, line)
	}
	return list
}
