package secondreading

import (
	"context"
	"net"
	"slices"
	"testing"
	_ "unsafe" // for go:linkname

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/pkg/client/clientset/versioned"
	admininformers "sigs.k8s.io/network-policy-api/pkg/client/informers/externalversions"

	"github.com/selvage-net/selvage/network/policy"
)

// evaluatePacket is how kube-network-policies judges the packets that the kernel queues to it. Its package exports no
// other way to ask than such a queue.
//
//go:linkname evaluatePacket sigs.k8s.io/kube-network-policies/pkg/networkpolicy.(*Controller).evaluatePacket
func evaluatePacket(c *networkpolicy.Controller, ctx context.Context, p queuedPacket) bool

// queuedPacket has the fields of evaluatePacket's parameter, in version 0.8.0. Those without a name are for its log.
type queuedPacket struct {
	_           uint32 // number
	_           corev1.IPFamily
	source      net.IP
	destination net.IP
	protocol    corev1.Protocol
	_           int // source port
	port        int
	_           []byte // payload
}

// kubeNetworkPolicies is the engine that enforces policies in userspace. Its caches are filled here, and no API server
// is asked.
func kubeNetworkPolicies(t *testing.T) engine {
	t.Helper()
	config := &rest.Config{Host: "http://192.0.2.1"} // nothing is sent to it
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	adminClient, err := versioned.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	core := informers.NewSharedInformerFactory(client, 0)
	admin := admininformers.NewSharedInformerFactory(adminClient, 0).Policy().V1alpha1()
	policies, namespaces := core.Networking().V1().NetworkPolicies(), core.Core().V1().Namespaces()
	pods, nodes := core.Core().V1().Pods(), core.Core().V1().Nodes()
	c, err := networkpolicy.NewController(client, policies, namespaces, pods, nodes, adminClient,
		admin.AdminNetworkPolicies(), admin.BaselineAdminNetworkPolicies(),
		networkpolicy.Config{AdminNetworkPolicy: true, BaselineAdminNetworkPolicy: true, NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	return engine{load: func(o objects) func(policy.Packet) bool {
		replace(t, namespaces.Informer(), o.namespaces)
		replace(t, pods.Informer(), o.pods)
		replace(t, policies.Informer(), o.policies)
		adminPolicies, baseline := adminPoliciesOf(o.clusterWide)
		replace(t, admin.AdminNetworkPolicies().Informer(), adminPolicies)
		replace(t, admin.BaselineAdminNetworkPolicies().Informer(), baseline)
		return func(p policy.Packet) bool {
			return evaluatePacket(c, t.Context(), queuedPacket{source: net.IP(p.Source.AsSlice()),
				destination: net.IP(p.Destination.AsSlice()), protocol: protocolOf(p), port: int(p.Port)})
		}
	}, differences: append(common(), differencesOfKubeNetworkPolicies()...)}
}

// replace makes a list of objects all that an informer has.
func replace[T any](t *testing.T, informer cache.SharedIndexInformer, list []T) {
	t.Helper()
	all := make([]any, len(list))
	for i := range list {
		all[i] = list[i]
	}
	if err := informer.GetIndexer().Replace(all, ""); err != nil {
		t.Fatal(err)
	}
}

// adminPoliciesOf returns cluster policies as their predecessors.
func adminPoliciesOf(list []*policy.ClusterPolicy) (admin []*v1alpha1.AdminNetworkPolicy,
	baseline []*v1alpha1.BaselineAdminNetworkPolicy) {
	for _, p := range list {
		subject := v1alpha1.AdminNetworkPolicySubject{Pods: namespacedPodsOf(p.Subject)}
		a := &v1alpha1.AdminNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}
		a.Spec.Priority, a.Spec.Subject = p.Priority, subject
		b := &v1alpha1.BaselineAdminNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}
		b.Spec.Subject = subject
		for _, r := range p.Rules[policy.Ingress] {
			var from []v1alpha1.AdminNetworkPolicyIngressPeer
			for _, peer := range r.Peers {
				from = append(from, v1alpha1.AdminNetworkPolicyIngressPeer{Pods: namespacedPodsOf(peer.Group)})
			}
			action, baselineAction := actionsOf(r.Action)
			ports := adminPortsOf(r.Match)
			a.Spec.Ingress = append(a.Spec.Ingress,
				v1alpha1.AdminNetworkPolicyIngressRule{Action: action, From: from, Ports: ports})
			b.Spec.Ingress = append(b.Spec.Ingress,
				v1alpha1.BaselineAdminNetworkPolicyIngressRule{Action: baselineAction, From: from, Ports: ports})
		}
		for _, r := range p.Rules[policy.Egress] {
			var to []v1alpha1.AdminNetworkPolicyEgressPeer
			var baselineTo []v1alpha1.BaselineAdminNetworkPolicyEgressPeer
			for _, peer := range r.Peers {
				if peer.Block.IsValid() {
					networks := []v1alpha1.CIDR{v1alpha1.CIDR(peer.Block.String())}
					to = append(to, v1alpha1.AdminNetworkPolicyEgressPeer{Networks: networks})
					baselineTo = append(baselineTo, v1alpha1.BaselineAdminNetworkPolicyEgressPeer{Networks: networks})
					continue
				}
				pods := namespacedPodsOf(peer.Group)
				to = append(to, v1alpha1.AdminNetworkPolicyEgressPeer{Pods: pods})
				baselineTo = append(baselineTo, v1alpha1.BaselineAdminNetworkPolicyEgressPeer{Pods: pods})
			}
			action, baselineAction := actionsOf(r.Action)
			ports := adminPortsOf(r.Match)
			a.Spec.Egress = append(a.Spec.Egress,
				v1alpha1.AdminNetworkPolicyEgressRule{Action: action, To: to, Ports: ports})
			b.Spec.Egress = append(b.Spec.Egress,
				v1alpha1.BaselineAdminNetworkPolicyEgressRule{Action: baselineAction, To: baselineTo, Ports: ports})
		}
		if p.Tier == policy.Admin {
			admin = append(admin, a)
		} else {
			baseline = append(baseline, b)
		}
	}
	return admin, baseline
}

func namespacedPodsOf(g policy.Group) *v1alpha1.NamespacedPod {
	return &v1alpha1.NamespacedPod{NamespaceSelector: selectorOf(g.Namespaces), PodSelector: selectorOf(g.Pods)}
}

// actionsOf returns an action in the tiers Admin and Baseline. The predecessor of the latter cannot pass, which means
// the same as to allow, since no tier follows.
func actionsOf(a policy.Action) (admin v1alpha1.AdminNetworkPolicyRuleAction,
	baseline v1alpha1.BaselineAdminNetworkPolicyRuleAction) {
	switch a {
	case policy.Deny:
		return v1alpha1.AdminNetworkPolicyRuleActionDeny, v1alpha1.BaselineAdminNetworkPolicyRuleActionDeny
	case policy.Pass:
		return v1alpha1.AdminNetworkPolicyRuleActionPass, v1alpha1.BaselineAdminNetworkPolicyRuleActionAllow
	}
	return v1alpha1.AdminNetworkPolicyRuleActionAllow, v1alpha1.BaselineAdminNetworkPolicyRuleActionAllow
}

func adminPortsOf(m policy.Match) *[]v1alpha1.AdminNetworkPolicyPort {
	if m.AnyPort {
		return nil
	}
	var list []v1alpha1.AdminNetworkPolicyPort
	for _, p := range m.Ports {
		protocol := corev1.Protocol(p.Protocol.String())
		port := v1alpha1.AdminNetworkPolicyPort{}
		switch {
		case p.Name != "":
			port.NamedPort = &p.Name
		case p.First == p.Last:
			port.PortNumber = &v1alpha1.Port{Protocol: protocol, Port: int32(p.First)}
		default:
			port.PortRange = &v1alpha1.PortRange{Protocol: protocol, Start: int32(p.First), End: int32(p.Last)}
		}
		list = append(list, port)
	}
	return &list
}

func differencesOfKubeNetworkPolicies() []difference {
	return []difference{
		{
			name:   "a list of rules that is empty, and not missing, allows everything",
			reason: "both allow nothing, by the API's text; no object of the API server has an empty list",
			avoid:  func(*policy.Cluster) {}, // there is none in the objects of a cluster
			example: []string{`{"kind":"NetworkPolicy","metadata":{"namespace":"red","name":"p"},` +
				`"spec":{"podSelector":{},"policyTypes":["Ingress"],"ingress":[]}}`},
			packet: "a > b TCP 80", ours: false,
		},
		{
			name:    "a named port is also port 0",
			reason:  "a name is taken for the number 0; nothing listens at port 0",
			skip:    func(p policy.Packet) bool { return p.Port == 0 && p.Protocol.HasPorts() },
			example: []string{networkPolicy("ingress", `{"ports":[{"port":"http","protocol":"TCP"}]}`)},
			packet:  "a > b TCP 0", ours: false,
		},
		{
			name:   "ports of init containers that restart always have no names",
			reason: "they run beside the containers, and the API's text makes no difference",
			avoid:  func(*policy.Cluster) {}, // all ports are those of containers in the objects of a cluster
			example: []string{networkPolicy("ingress", `{"ports":[{"port":"side","protocol":"TCP"}]}`),
				`{"kind":"Pod","metadata":{"namespace":"red","name":"b","uid":"b"},"spec":{"initContainers":[` +
					`{"restartPolicy":"Always","ports":[{"name":"side","containerPort":80,"protocol":"TCP"}]}]},` +
					`"status":{"phase":"Running","podIPs":[{"ip":"10.0.0.2"}]}}`},
			packet: "a > b TCP 80", ours: true,
		},
		{
			name:   "a named port of a cluster policy is any port of a pod with the name, and in ingress the source's",
			reason: "the API's text: the name of a port of the destination, and so its number and protocol",
			avoid: func(c *policy.Cluster) {
				for _, p := range c.ClusterWide {
					for _, d := range policy.Directions() {
						for i := range p.Rules[d] {
							named := func(p policy.Port) bool { return p.Name != "" }
							m := &p.Rules[d][i].Match
							if m.Ports = slices.DeleteFunc(m.Ports, named); len(m.Ports) == 0 {
								m.AnyPort, m.Ports = true, nil
							}
						}
					}
				}
			},
			example: []string{clusterPolicy("Admin", `"egress":[{"action":"Deny","to":[{"namespaces":{}}],`+
				`"protocols":[{"destinationNamedPort":"http"}]}]`)},
			packet: "a > b TCP 81", ours: true,
		},
		{
			name:   "a NetworkPolicy that isolates in one direction keeps the tier Baseline out of both",
			reason: "the API's text: Baseline judges what no NetworkPolicy applies to, and a policy has directions",
			avoid: func(c *policy.Cluster) {
				onlyBaseline(c)
				for _, p := range c.ClusterWide {
					if p.Tier == policy.Baseline {
						for _, n := range c.Policies {
							n.Isolates = [2]bool{true, true}
						}
					}
				}
			},
			example: []string{networkPolicy("egress", `{}`),
				clusterPolicy("Baseline", `"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]`)},
			packet: "a > b TCP 80", ours: false,
		},
	}
}

// onlyBaseline leaves at most one policy of the tier Baseline, c0, since its predecessor has no priority.
func onlyBaseline(c *policy.Cluster) {
	for name, p := range c.ClusterWide {
		if p.Tier == policy.Baseline && name != "c0" {
			delete(c.ClusterWide, name)
		}
	}
}
