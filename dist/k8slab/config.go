package k8slab

import (
	"encoding/json"

	"github.com/selvage-net/selvage/dist/containerd"
)

// The networks of the cluster.
const (
	podNetwork     = "10.5.0.0/16"
	serviceNetwork = "10.96.0.0/16"
	apiService     = "10.96.0.1:443" // the first address of it, by which pods reach the apiserver
)

type object = map[string]any

// kubeletConfig is a kubelet's configuration. What differs from the defaults, and why:
//
//   - Its cgroups are below one of the lab's. Since it shares the machine with others, it does not judge what is free of it.
//   - oomScoreAdj: a machine may not let go below its own score.
//   - Anybody may ask it, as the apiserver does for logs: there is nobody else in this network.
func kubeletConfig(cgroup string) ([]byte, error) {
	return json.Marshal(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication":           object{"anonymous": object{"enabled": true}, "webhook": object{"enabled": false}},
		"authorization":            object{"mode": "AlwaysAllow"},
		"containerRuntimeEndpoint": "unix://" + containerd.Socket,
		"cgroupDriver":             "cgroupfs", "cgroupRoot": cgroup, "failCgroupV1": false,
		"enforceNodeAllocatable":        []string{},
		"localStorageCapacityIsolation": false,
		"evictionHard":                  object{"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%"},
		"imageGCHighThresholdPercent":   100,
		"failSwapOn":                    false,
		"oomScoreAdj":                   0,
		"resolvConf":                    "",
		"volumePluginDir":               "/var/lib/kubelet/volume-plugins",
	})
}

// proxyConfig is a kube-proxy's configuration. The sizes of the connection tracking table are the whole machine's, and are
// left alone.
func proxyConfig(node, mode string) ([]byte, error) {
	return json.Marshal(object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": mode, "clusterCIDR": podNetwork, "hostnameOverride": node,
		"clientConnection": object{"kubeconfig": proxyKubeconfig},
		"conntrack":        object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		"oomScoreAdj":      0,
	})
}
