package k8slab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/subnet"
)

// podNetworks are the overlay's, as lab.NetworkConfig has them; serviceNetworks are those of cluster IPs.
func podNetworks() [2]string {
	return [2]string{subnet.IPv4: "10.5.0.0/16", subnet.IPv6: "fd00:5::/56"}
}

func serviceNetworks() [2]string {
	return [2]string{subnet.IPv4: "10.96.0.0/16", subnet.IPv6: "fd00:96::/112"}
}

// joined has a value of each of the families, in their order and with commas, as Kubernetes' commands take them.
func joined[T any](families []subnet.Family, of func(subnet.Family) T) string {
	var all []string
	for _, f := range families {
		all = append(all, fmt.Sprint(of(f)))
	}
	return strings.Join(all, ",")
}

// of looks families up in a table.
func of(table [2]string) func(subnet.Family) string {
	return func(f subnet.Family) string { return table[f] }
}

type object = map[string]any

// kubeletConfig is a kubelet's configuration. What differs from the defaults, and why:
//
//   - Its cgroups are below one of the lab's. Since it shares the machine with others, it does not judge what is free of it.
//   - oomScoreAdj: a machine may not let go below its own score.
//   - syncFrequency: it passes a change of a ConfigMap on within this time; the default is a minute.
//   - Anybody may ask it, as the apiserver does for logs: there is nobody else in this network.
func kubeletConfig(cgroup string, families []subnet.Family) ([]byte, error) {
	return json.Marshal(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication":           object{"anonymous": object{"enabled": true}, "webhook": object{"enabled": false}},
		"authorization":            object{"mode": "AlwaysAllow"},
		"clusterDNS":               []netip.Addr{dnsAddr(families)},
		"clusterDomain":            "cluster.local",
		"containerRuntimeEndpoint": "unix://" + containerd.Socket,
		"cgroupDriver":             "cgroupfs", "cgroupRoot": cgroup, "failCgroupV1": false,
		"enforceNodeAllocatable":        []string{},
		"localStorageCapacityIsolation": false,
		"evictionHard":                  object{"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%"},
		"imageGCHighThresholdPercent":   100,
		"failSwapOn":                    false,
		"oomScoreAdj":                   0,
		"resolvConf":                    "",
		"staticPodPath":                 staticPods,
		"syncFrequency":                 "10s",
		"volumePluginDir":               "/var/lib/kubelet/volume-plugins",
	})
}

// proxyConfig is a kube-proxy's configuration. The sizes of the connection tracking table are the whole machine's, and are
// left alone.
func proxyConfig(node, mode string, families []subnet.Family) ([]byte, error) {
	return json.Marshal(object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": mode, "clusterCIDR": joined(families, of(podNetworks())), "hostnameOverride": node,
		"clientConnection": object{"kubeconfig": proxyKubeconfig},
		"conntrack":        object{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		"oomScoreAdj":      0,
	})
}
