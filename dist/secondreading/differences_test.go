package secondreading

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/policytest"
	"github.com/selvage-net/selvage/subnet"
)

// difference is what is known to be judged otherwise by an engine, and is right here.
type difference struct {
	name   string // what the engine does
	reason string // why the evaluator does not
	// One of these keeps it out of the comparison: avoid changes a cluster, skip leaves out packets.
	avoid func(*policy.Cluster)
	skip  func(policy.Packet) bool
	// The smallest case: JSON objects beside the pods red/a and red/b, and the evaluator's verdict on a packet.
	example []string
	packet  string // "a > b TCP 80"
	ours    bool
}

// networkPolicy returns a NetworkPolicy of the namespace red, with one rule in a direction.
func networkPolicy(direction, rule string) string {
	return fmt.Sprintf(`{"kind":"NetworkPolicy","metadata":{"namespace":"red","name":"p"},"spec":{"podSelector":{},`+
		`"policyTypes":[%q],%q:[%s]}}`, strings.ToUpper(direction[:1])+direction[1:], direction, rule)
}

// clusterPolicy returns a ClusterNetworkPolicy for all pods.
func clusterPolicy(tier, rules string) string {
	return fmt.Sprintf(`{"kind":"ClusterNetworkPolicy","metadata":{"name":"c0"},"spec":{"tier":%q,"priority":1,`+
		`"subject":{"namespaces":{}},%s}}`, tier, rules)
}

// pod returns a pod of a namespace, with the address 10.0.0.3.
func pod(namespace, name, metadata, phase string) string {
	return fmt.Sprintf(`{"kind":"Pod","metadata":{"namespace":%q,"name":%q,"uid":%[2]q%s},`+
		`"status":{"phase":%q,"podIPs":[{"ip":"10.0.0.3"}]}}`, namespace, name, metadata, phase)
}

// common are the differences of both engines.
func common() []difference {
	denyIngress := `{"kind":"NetworkPolicy","metadata":{"namespace":"red","name":"p"},` +
		`"spec":{"podSelector":{},"policyTypes":["Ingress"]}}`
	return []difference{
		{
			name:    "a pod is denied to reach itself",
			reason:  "through a Service it has its own address as source; Kubernetes' tests demand that it is allowed",
			skip:    func(p policy.Packet) bool { return p.Source == p.Destination },
			example: []string{denyIngress},
			packet:  "a > a TCP 80", ours: true,
		},
		{
			name:   "neighbour discovery is denied",
			reason: "without it no IPv6 packet is sent; neither engine gets the type of an ICMP message",
			skip: func(p policy.Packet) bool {
				return p.Protocol == policy.ICMPv6 && policy.AlwaysAllowed(p.ICMPType)
			},
			example: []string{denyIngress},
			packet:  "a@6 > b@6 ICMP 135", ours: true,
		},
		{
			name:   "a pod that has ended has its address",
			reason: "the address is given to the next pod, while the API still shows it at the former",
			avoid: func(c *policy.Cluster) {
				for uid, p := range c.Pods {
					if p.Ended {
						delete(c.Pods, uid)
					}
				}
			},
			example: []string{networkPolicy("ingress", `{"from":[{"podSelector":{}}]}`),
				pod("red", "old", "", "Failed")},
			packet: "10.0.0.3 > b TCP 80", ours: false,
		},
		{
			name:   "of two pods with one address the one that runs is found, else any",
			reason: "the API may show a deleted pod as running after the next one has its address",
			avoid: func(c *policy.Cluster) {
				for _, f := range subnet.Families() {
					for _, p := range c.Pods {
						if a := p.Addresses[f]; p.Counts() && a.IsValid() && policy.Owner(c, a) != p {
							p.Addresses[f] = netip.Addr{}
						}
					}
				}
			},
			example: []string{networkPolicy("ingress", `{"from":[{"podSelector":{"matchLabels":{"app":"new"}}}]}`),
				pod("red", "old", `,"deletionTimestamp":"2026-01-01T00:00:00Z"`, "Running"),
				pod("red", "new", `,"labels":{"app":"new"}`, "Pending")},
			packet: "10.0.0.3 > b TCP 80", ours: true,
		},
		{
			name:   "a namespace that is not known is selected by an empty selector",
			reason: "its labels are not known, and what is not known allows nothing; the API has every namespace",
			avoid: func(c *policy.Cluster) {
				for _, p := range c.Pods {
					if _, known := c.Namespaces[p.Namespace]; !known {
						c.Namespaces[p.Namespace] = policy.Namespace{Name: p.Namespace}
					}
				}
			},
			example: []string{networkPolicy("ingress", `{"from":[{"namespaceSelector":{}}]}`),
				pod("blue", "c", "", "Running")},
			packet: "10.0.0.3 > b TCP 80", ours: false,
		},
	}
}

// eachSelector changes all selectors of the NetworkPolicies.
func eachSelector(c *policy.Cluster, change func([]policy.Requirement) []policy.Requirement) {
	replace := func(s *policy.Selector) {
		var list []policy.Requirement
		l := selectorOf(*s)
		for key, value := range l.MatchLabels {
			list = append(list, policy.Requirement{Key: key, Operator: policy.In, Values: []string{value}})
		}
		for _, e := range l.MatchExpressions {
			list = append(list, policy.Requirement{Key: e.Key, Operator: policy.Operator(e.Operator), Values: e.Values})
		}
		*s = policy.MakeSelector(change(list)...)
	}
	for _, p := range c.Policies {
		replace(&p.Subject.Pods)
		for _, d := range policy.Directions() {
			for _, m := range p.Rules[d] {
				for i := range m.Peers {
					replace(&m.Peers[i].Group.Pods)
					replace(&m.Peers[i].Group.Namespaces)
				}
			}
		}
	}
}

// read returns the objects of an example as the engines and as the evaluator see them.
func read(t *testing.T, lines []string) (o objects, c *policy.Cluster) {
	t.Helper()
	lines = append([]string{
		`{"kind":"Namespace","metadata":{"name":"red"}}`,
		`{"kind":"Pod","metadata":{"namespace":"red","name":"a","uid":"a"},` +
			`"status":{"phase":"Running","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]}}`,
		`{"kind":"Pod","metadata":{"namespace":"red","name":"b","uid":"b"},"spec":{"containers":[{"ports":[` +
			`{"name":"http","containerPort":80,"protocol":"TCP"}]}]},` +
			`"status":{"phase":"Running","podIPs":[{"ip":"10.0.0.2"},{"ip":"fd00::2"}]}}`,
	}, lines...)
	c = policytest.NewCluster()
	for _, line := range lines {
		var kind metav1.TypeMeta
		into := func(object any) {
			if err := json.Unmarshal([]byte(line), object); err != nil {
				t.Fatal(err)
			}
		}
		into(&kind)
		add(t, c, kind.Kind, []byte(line))
		switch kind.Kind {
		case "Namespace":
			o.namespaces = append(o.namespaces, &corev1.Namespace{})
			into(o.namespaces[len(o.namespaces)-1])
		case "Pod":
			pod := &corev1.Pod{}
			into(pod)
			o.pods = slices.DeleteFunc(o.pods, func(p *corev1.Pod) bool { return p.UID == pod.UID })
			o.pods = append(o.pods, pod)
		case "NetworkPolicy":
			o.policies = append(o.policies, &networkingv1.NetworkPolicy{})
			into(o.policies[len(o.policies)-1])
		}
	}
	for _, p := range c.ClusterWide {
		o.clusterWide = append(o.clusterWide, p)
	}
	return o, c
}

// packetOf reads "a > b TCP 80". An end is a pod, its IPv6 address as "a@6", or an address.
func packetOf(t *testing.T, text string) (p policy.Packet) {
	t.Helper()
	ends := map[string]string{"a": "10.0.0.1", "b": "10.0.0.2", "a@6": "fd00::1", "b@6": "fd00::2"}
	var source, destination, protocol string
	var number uint16
	if _, err := fmt.Sscanf(text, "%s > %s %s %d", &source, &destination, &protocol, &number); err != nil {
		t.Fatal(err)
	}
	end := func(name string) netip.Addr {
		if address, ok := ends[name]; ok {
			name = address
		}
		return netip.MustParseAddr(name)
	}
	p.Source, p.Destination = end(source), end(destination)
	var ok bool
	if p.Protocol, ok = policy.ParseProtocol(protocol); ok {
		p.Port = number
	} else {
		p.Protocol, p.ICMPType = policy.ICMPv6, uint8(number)
	}
	return p
}

// TestDifferences: each known difference is there, and what keeps it out of the comparison does.
func TestDifferences(t *testing.T) {
	for name, e := range engines(t) {
		for _, d := range e.differences {
			t.Run(name+": "+d.name, func(t *testing.T) {
				o, c := read(t, d.example)
				p := packetOf(t, d.packet)
				if got := allowed(c, p); got != d.ours {
					t.Errorf("the evaluator allows: %t, want %t", got, d.ours)
				}
				if got := e.load(o)(p); got == d.ours {
					t.Errorf("the engine allows: %t, as the evaluator: this is no difference any more", got)
				}
				if d.skip != nil {
					if !d.skip(p) {
						t.Error("the comparison does not skip it")
					}
					return
				}
				e.avoid(c)
				if got, ours := e.load(objectsOf(c))(p), allowed(c, p); got != ours {
					t.Errorf("it is not avoided: the engine allows: %t, the evaluator %t", got, ours)
				}
			})
		}
	}
}
