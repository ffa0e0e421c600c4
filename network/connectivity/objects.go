package connectivity

import (
	"time"

	"github.com/selvage-net/selvage/network/connectivity/agent"
	"github.com/selvage-net/selvage/network/kubectl"
)

// What is created in the cluster.
const (
	firstName   = "first" // names of DaemonSets, and values of roleLabel
	secondName  = "second"
	serviceName = "first"
	servicePort = 80
	container   = "agent"
	roleLabel   = "selvage.io/connectivity-test"
	madeBy      = "selvage-connectivity-test" // value of app.kubernetes.io/managed-by
)

// streamEvery is the interval of a stream's datagrams.
const streamEvery = 10 * time.Millisecond

type object = kubectl.Object

// namespace is where everything is, so that removing it removes everything.
func namespace(name string) object {
	return object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{
		"name": name,
		"labels": object{
			"app.kubernetes.io/managed-by":       madeBy,
			"pod-security.kubernetes.io/enforce": "restricted",
		},
	}}
}

// workload is the pods, two on each node, and the Service.
func workload(in, image string) []object {
	return []object{daemonSet(in, firstName, image), daemonSet(in, secondName, image), {
		"apiVersion": "v1", "kind": "Service",
		"metadata": object{"name": serviceName, "namespace": in},
		"spec": object{
			"ipFamilyPolicy": "PreferDualStack",
			"selector":       object{roleLabel: firstName},
			"ports": []object{
				{"name": "tcp", "port": servicePort, "targetPort": agent.EchoPort, "protocol": "TCP"},
				{"name": "udp", "port": servicePort, "targetPort": agent.EchoPort, "protocol": "UDP"},
			},
		},
	}}
}

// daemonSet runs one agent on each node of Linux, whatever taints it has: the daemons of selvage run there too.
func daemonSet(in, name, image string) object {
	labels := object{roleLabel: name}
	return object{
		"apiVersion": "apps/v1", "kind": "DaemonSet",
		"metadata": object{"name": name, "namespace": in},
		"spec": object{
			"selector": object{"matchLabels": labels},
			"template": object{
				"metadata": object{"labels": labels},
				"spec": object{
					"automountServiceAccountToken": false, "enableServiceLinks": false,
					"terminationGracePeriodSeconds": 1,
					"nodeSelector":                  object{"kubernetes.io/os": "linux"},
					"tolerations":                   []object{{"operator": "Exists"}},
					"securityContext": object{
						"runAsNonRoot": true, "runAsUser": 65534, "runAsGroup": 65534,
						"seccompProfile": object{"type": "RuntimeDefault"},
					},
					"containers": []object{{
						"name": container, "image": image, "imagePullPolicy": "IfNotPresent",
						"command": []string{kubectl.DaemonPath, "connectivity-test", "serve"},
						"securityContext": object{
							"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
							"capabilities": object{"drop": []string{"ALL"}},
						},
						"ports":          []object{{"containerPort": agent.EchoPort}},
						"readinessProbe": object{"tcpSocket": object{"port": agent.EchoPort}, "periodSeconds": 1},
						"resources": object{
							"requests": object{"cpu": "5m", "memory": "16Mi"}, "limits": object{"memory": "256Mi"},
						},
					}},
				},
			},
		},
	}
}

// policies let the first pods call the second only. No pod may call the first, and only the first may call the second.
// Their own nodes may call them anyway: kubelets do.
func policies(in string) []object {
	ports := []object{{"port": agent.EchoPort, "protocol": "TCP"}, {"port": agent.EchoPort, "protocol": "UDP"}}
	role := func(name string) object { return object{"matchLabels": object{roleLabel: name}} }
	return []object{{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": object{"name": firstName, "namespace": in},
		"spec": object{
			"podSelector": role(firstName), "policyTypes": []string{"Ingress", "Egress"},
			"egress": []object{{"to": []object{{"podSelector": role(secondName)}}, "ports": ports}},
		},
	}, {
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": object{"name": secondName, "namespace": in},
		"spec": object{
			"podSelector": role(secondName), "policyTypes": []string{"Ingress"},
			"ingress": []object{{"from": []object{{"podSelector": role(firstName)}}, "ports": ports}},
		},
	}}
}
