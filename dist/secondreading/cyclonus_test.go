package secondreading

import (
	"slices"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"

	"github.com/selvage-net/selvage/network/policy"
)

// cyclonus is the evaluator of a suite that tests clusters. It knows NetworkPolicy only. It has no list of pods: it is
// told which pod an address belongs to, and the name of the destination's port.
func cyclonus(*testing.T) engine {
	return engine{load: func(o objects) func(policy.Packet) bool {
		policies := matcher.BuildNetworkPolicies(false, o.policies)
		namespaces := map[string]*corev1.Namespace{}
		for _, n := range o.namespaces {
			namespaces[n.Name] = n
		}
		peer := func(address string) (*matcher.TrafficPeer, *corev1.Pod) {
			pod := podAt(o.pods, address)
			if pod == nil {
				return &matcher.TrafficPeer{IP: address}, nil
			}
			internal := &matcher.InternalPeer{Namespace: pod.Namespace, PodLabels: pod.Labels}
			if n := namespaces[pod.Namespace]; n != nil {
				internal.NamespaceLabels = n.Labels
			}
			return &matcher.TrafficPeer{IP: address, Internal: internal}, pod
		}
		return func(p policy.Packet) bool {
			traffic := &matcher.Traffic{ResolvedPort: int(p.Port), Protocol: protocolOf(p)}
			traffic.Source, _ = peer(p.Source.String())
			var destination *corev1.Pod
			traffic.Destination, destination = peer(p.Destination.String())
			// A port has one name there. Policies only allow, so a port with several is allowed by any of them.
			var ingress, egress bool
			for _, name := range append(portNames(destination, p), "") {
				traffic.ResolvedPortName = name
				v := policies.IsTrafficAllowed(traffic)
				ingress, egress = ingress || v.Ingress.IsAllowed(), egress || v.Egress.IsAllowed()
			}
			return ingress && egress
		}
	}, differences: append(common(), []difference{
		{
			name:   "NotIn does not match where the label is missing",
			reason: "labels.Selector of Kubernetes matches it, and its documentation says so",
			avoid: func(c *policy.Cluster) {
				eachSelector(c, func(list []policy.Requirement) []policy.Requirement {
					for _, q := range slices.Clone(list) {
						if q.Operator == policy.NotIn {
							list = append(list, policy.Requirement{Key: q.Key, Operator: policy.Exists})
						}
					}
					return list
				})
			},
			example: []string{networkPolicy("ingress", `{"from":[{"podSelector":{"matchExpressions":[`+
				`{"key":"none","operator":"NotIn","values":["a"]}]}}]}`)},
			packet: "a > b TCP 80", ours: true,
		},
		{
			name:    "there is no ClusterNetworkPolicy",
			reason:  "cyclonus is older",
			avoid:   func(c *policy.Cluster) { clear(c.ClusterWide) },
			example: []string{clusterPolicy("Admin", `"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]`)},
			packet:  "a > b TCP 80", ours: false,
		},
	}...)}
}

// portNames returns the names of the port that a packet goes to.
func portNames(pod *corev1.Pod, p policy.Packet) (names []string) {
	if pod == nil {
		return nil
	}
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.ContainerPort == int32(p.Port) && port.Protocol == protocolOf(p) {
				names = append(names, port.Name)
			}
		}
	}
	return names
}

// podAt returns the pod with an address, as kube-network-policies finds it: a running one, if there are several.
func podAt(pods []*corev1.Pod, address string) (found *corev1.Pod) {
	for _, pod := range pods {
		has := func(a corev1.PodIP) bool { return a.IP == address }
		if pod.Spec.HostNetwork || !slices.ContainsFunc(pod.Status.PodIPs, has) {
			continue
		}
		if pod.Status.Phase == corev1.PodRunning {
			return pod
		}
		if found == nil {
			found = pod
		}
	}
	return found
}

// protocolOf returns the API's name of a packet's protocol; ICMP has none.
func protocolOf(p policy.Packet) corev1.Protocol {
	if !p.Protocol.HasPorts() {
		return ""
	}
	return corev1.Protocol(p.Protocol.String())
}
