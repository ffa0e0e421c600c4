package bench

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"time"
)

// nodeImages is how many images a kubelet lists in the status of its Node (nodeStatusMaxImages).
const nodeImages = 50

// clusterImages is how many images there are in the cluster.
const clusterImages = 300

// object is one of the API's, or a part of one, as JSON.
type object = map[string]any

// nodeName is the name of the Node that does not exist and has the lease absent(i).
func nodeName(i int) string {
	return fmt.Sprintf("ip-10-64-%d-%d.eu-central-1.compute.internal", i>>8, i&0xff)
}

// nodeObject is a Node as a kubelet registers it and the controller manager and a CSI driver complete it, without
// annotations of an overlay.
func nodeObject(name, podCIDR, address string) object {
	return object{
		"kind": "Node", "apiVersion": "v1",
		"metadata": object{
			"name": name,
			"labels": object{
				"beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
				"kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
				"node.kubernetes.io/instance-type": "m6i.2xlarge", "beta.kubernetes.io/instance-type": "m6i.2xlarge",
				"topology.kubernetes.io/region": "eu-central-1",
				"topology.kubernetes.io/zone":   "eu-central-1b", "node-role.kubernetes.io/worker": "",
				"example.org/node-pool": "workers-general-purpose-b", "example.org/lifecycle": "on-demand",
			},
			"annotations": object{
				"node.alpha.kubernetes.io/ttl":                           "300",
				"volumes.kubernetes.io/controller-managed-attach-detach": "true",
				"csi.volume.kubernetes.io/nodeid":                        `{"csi.example.org":"i-0123456789abcdef0"}`,
			},
		},
		"spec":   object{"podCIDR": podCIDR, "podCIDRs": []string{podCIDR}, "providerID": "example:///b/i-0123456789"},
		"status": nodeStatus(name, address),
	}
}

func nodeStatus(name, address string) object {
	resources := func(cpu, memory string) object {
		return object{
			"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "104845292Ki",
			"hugepages-1Gi": "0", "hugepages-2Mi": "0",
		}
	}
	return object{
		"addresses": []object{{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}},
		"capacity":  resources("8", "32427504Ki"), "allocatable": resources("7910m", "31410672Ki"),
		"conditions":      conditions(time.Now(), true),
		"daemonEndpoints": object{"kubeletEndpoint": object{"Port": 10250}},
		"nodeInfo": object{
			"machineID": "ec2f9a1c4b0d4a6e8f7b3c2d1e0f9a8b", "systemUUID": "ec2f9a1c-4b0d-4a6e-8f7b-3c2d1e0f9a8b",
			"bootID": "0b7c1f3e-6a5d-4c2b-9e8f-1a2b3c4d5e6f", "kernelVersion": "6.1.0-28-amd64",
			"osImage":                 "Debian GNU/Linux 12 (bookworm)",
			"containerRuntimeVersion": "containerd://1.7.24", "kubeletVersion": "v1.34.4", "kubeProxyVersion": "",
			"operatingSystem": "linux", "architecture": "amd64",
		},
		"images": images(name),
	}
}

// conditions are a Node's; after the first time a kubelet patches their times alone.
func conditions(now time.Time, whole bool) (all []object) {
	for _, c := range []struct{ name, status, reason, message string }{
		{"MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		{"DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{"PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		{"Ready", "True", "KubeletReady", "kubelet is posting ready status"},
	} {
		o := object{"type": c.name, "lastHeartbeatTime": now.UTC().Format(time.RFC3339)}
		if whole {
			o["status"], o["reason"], o["message"] = c.status, c.reason, c.message
			o["lastTransitionTime"] = o["lastHeartbeatTime"]
		}
		all = append(all, o)
	}
	return all
}

// heartbeat is the patch of a Node's status in which a kubelet renews the times of its conditions.
func heartbeat(now time.Time) object {
	all := conditions(now, false)
	var order []object
	for _, c := range all {
		order = append(order, object{"type": c["type"]})
	}
	return object{"status": object{"$setElementOrder/conditions": order, "conditions": all}}
}

// images are those that a Node lists: a part of what the cluster runs, so that no two Nodes list the same.
func images(of string) (all []object) {
	first := crc32.ChecksumIEEE([]byte(of))
	for i := range uint32(nodeImages) {
		number := (first + i*(1+first%5)) % clusterImages
		name := fmt.Sprintf("registry.example.org/platform/team-%02d/service-%03d", number%7, number)
		digest := sha256.Sum256([]byte(name))
		all = append(all, object{
			"names":     []string{fmt.Sprintf("%s@sha256:%x", name, digest), name + ":v1.27.3"},
			"sizeBytes": 100_000_000 + number,
		})
	}
	return all
}
