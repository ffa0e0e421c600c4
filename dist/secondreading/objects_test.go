package secondreading

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/policytest"
	"github.com/selvage-net/selvage/subnet"
)

// objects are the objects of a cluster as the API has them.
type objects struct {
	namespaces  []*corev1.Namespace
	pods        []*corev1.Pod
	policies    []*networkingv1.NetworkPolicy
	clusterWide []*policy.ClusterPolicy
}

// objectsOf returns the objects of a cluster, in the order of their names.
func objectsOf(c *policy.Cluster) (o objects) {
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		o.namespaces = append(o.namespaces, &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: maps.Collect(c.Namespaces[name].Labels.All())}})
	}
	for _, uid := range slices.Sorted(maps.Keys(c.Pods)) {
		o.pods = append(o.pods, podOf(c.Pods[uid]))
	}
	for _, key := range slices.Sorted(maps.Keys(c.Policies)) {
		o.policies = append(o.policies, networkPolicyOf(c.Policies[key]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.ClusterWide)) {
		o.clusterWide = append(o.clusterWide, c.ClusterWide[name])
	}
	return o
}

func podOf(p *policy.Pod) *corev1.Pod {
	start := metav1.NewTime(time.Unix(p.Since, 0))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID),
			Labels: maps.Collect(p.Labels.All())},
		Spec:   corev1.PodSpec{NodeName: p.Node, HostNetwork: p.HostNetwork},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &start},
	}
	if p.Deleting {
		pod.DeletionTimestamp = &start
	}
	if p.Ended {
		pod.Status.Phase = corev1.PodFailed
	}
	for _, f := range subnet.Families() {
		if a := p.Addresses[f]; a.IsValid() {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: a.String()})
		}
	}
	for port := range p.Ports.All() {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Ports: []corev1.ContainerPort{
			{Name: port.Name, ContainerPort: int32(port.Number), Protocol: corev1.Protocol(port.Protocol.String())}}})
	}
	return pod
}

// selectorOf reads the text of a selector as kubectl does.
func selectorOf(s policy.Selector) metav1.LabelSelector {
	list, err := labels.ParseToRequirements(s.String())
	if err != nil {
		panic(err)
	}
	l := metav1.LabelSelector{MatchLabels: map[string]string{}}
	for _, r := range list {
		values := slices.Sorted(maps.Keys(r.Values()))
		if _, twice := l.MatchLabels[r.Key()]; r.Operator() == selection.Equals && !twice {
			l.MatchLabels[r.Key()] = values[0]
			continue
		}
		operator, ok := map[selection.Operator]metav1.LabelSelectorOperator{
			selection.Equals: metav1.LabelSelectorOpIn, selection.In: metav1.LabelSelectorOpIn,
			selection.NotIn: metav1.LabelSelectorOpNotIn, selection.Exists: metav1.LabelSelectorOpExists,
			selection.DoesNotExist: metav1.LabelSelectorOpDoesNotExist}[r.Operator()]
		if !ok {
			panic(r.String())
		}
		l.MatchExpressions = append(l.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: r.Key(), Operator: operator, Values: values})
	}
	return l
}

func networkPolicyOf(p *policy.Policy) *networkingv1.NetworkPolicy {
	n := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: selectorOf(p.Subject.Pods)}}
	if p.Isolates[policy.Ingress] {
		n.Spec.PolicyTypes = append(n.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	}
	if p.Isolates[policy.Egress] {
		n.Spec.PolicyTypes = append(n.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	}
	for _, m := range p.Rules[policy.Ingress] {
		n.Spec.Ingress = append(n.Spec.Ingress,
			networkingv1.NetworkPolicyIngressRule{From: peersOf(m), Ports: portsOf(m)})
	}
	for _, m := range p.Rules[policy.Egress] {
		n.Spec.Egress = append(n.Spec.Egress,
			networkingv1.NetworkPolicyEgressRule{To: peersOf(m), Ports: portsOf(m)})
	}
	return n
}

func peersOf(m policy.Match) (list []networkingv1.NetworkPolicyPeer) {
	for _, p := range m.Peers {
		var peer networkingv1.NetworkPolicyPeer
		pods, namespaces := selectorOf(p.Group.Pods), selectorOf(p.Group.Namespaces)
		switch {
		case p.Block.IsValid():
			peer.IPBlock = &networkingv1.IPBlock{CIDR: p.Block.String()}
			for _, e := range p.Except {
				peer.IPBlock.Except = append(peer.IPBlock.Except, e.String())
			}
		case p.Group.Namespace != "":
			peer.PodSelector = &pods
		default:
			if peer.NamespaceSelector = &namespaces; p.Group.Pods.String() != "" {
				peer.PodSelector = &pods
			}
		}
		list = append(list, peer)
	}
	return list
}

func portsOf(m policy.Match) (list []networkingv1.NetworkPolicyPort) {
	for _, p := range m.Ports {
		protocol := corev1.Protocol(p.Protocol.String())
		port := networkingv1.NetworkPolicyPort{Protocol: &protocol}
		number, last := intstr.FromInt32(int32(p.First)), int32(p.Last)
		switch {
		case p.Name != "":
			number = intstr.FromString(p.Name)
			port.Port = &number
		case p.First > 0:
			if port.Port = &number; p.Last > p.First {
				port.EndPort = &last
			}
		}
		list = append(list, port)
	}
	return list
}

// decoded returns the cluster that the evaluator sees: what it decodes of the objects' JSON.
func decoded(t *testing.T, o objects) *policy.Cluster {
	t.Helper()
	c := policytest.NewCluster()
	for _, n := range o.namespaces {
		add(t, c, "Namespace", text(t, n))
	}
	for _, p := range o.pods {
		add(t, c, "Pod", text(t, p))
	}
	for _, p := range o.policies {
		add(t, c, "NetworkPolicy", text(t, p))
	}
	for _, p := range o.clusterWide {
		c.ClusterWide[p.Name] = p
	}
	return c
}

func text(t *testing.T, object any) []byte {
	t.Helper()
	b, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// add adds an object to a cluster from its JSON.
func add(t *testing.T, c *policy.Cluster, kind string, data []byte) {
	t.Helper()
	var problems []policy.Problem
	var err error
	switch kind {
	case "Namespace":
		var n policy.Namespace
		n, err = policy.DecodeNamespace(data)
		c.Namespaces[n.Name] = n
	case "Pod":
		var p policy.Pod
		p, problems, err = policy.DecodePod(data)
		c.Pods[p.UID] = &p
	case "NetworkPolicy":
		var p policy.Policy
		p, err = policy.DecodePolicy(data)
		c.Policies[p.Key()], problems = &p, p.Problems
	case "ClusterNetworkPolicy":
		var p policy.ClusterPolicy
		p, err = policy.DecodeClusterPolicy(data)
		c.ClusterWide[p.Name], problems = &p, p.Problems
	default:
		err = fmt.Errorf("kind %q", kind)
	}
	if err != nil || len(problems) > 0 {
		t.Fatalf("%s: %v %v", data, err, problems)
	}
}

// describe returns a cluster as text.
func describe(c *policy.Cluster) (s string) {
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		s += describeNamespace(c.Namespaces[name])
	}
	for _, uid := range slices.Sorted(maps.Keys(c.Pods)) {
		s += describePod(c.Pods[uid])
	}
	for _, key := range slices.Sorted(maps.Keys(c.Policies)) {
		s += fmt.Sprintf("%+v\n", *c.Policies[key])
	}
	for _, name := range slices.Sorted(maps.Keys(c.ClusterWide)) {
		s += fmt.Sprintf("%+v\n", *c.ClusterWide[name])
	}
	return s
}

func describeNamespace(n policy.Namespace) string {
	return fmt.Sprintln("namespace", n.Name, maps.Collect(n.Labels.All()))
}

func describePod(p *policy.Pod) string {
	q := *p
	q.Labels, q.Ports = policy.Labels{}, policy.Ports{}
	return fmt.Sprintf("pod %+v %v %v\n", q, maps.Collect(p.Labels.All()), slices.Collect(p.Ports.All()))
}
