// Package k8slab runs a real Kubernetes on the nodes of the lab, with selvage as its network: the control plane, and on each
// node a kubelet, a kube-proxy and a containerd. Then it goes through what a cluster goes through, and looks at what pods
// notice of it.
//
//	(lab)    172.31.0.1        etcd, kube-apiserver, kube-controller-manager, kube-scheduler
//	   |
//	   |-- node1   172.31.0.11  kubelet, kube-proxy, containerd
//	   |     |-- selvage-…      a pod of the DaemonSet, in the node's network
//	   |     `-- web-…          pods with an address of the node's subnet, see package agent
//	   |-- node2   172.31.0.12  the same
//	   `-- outside
//
// The leases are in the Kubernetes API, where the nodes cannot reach etcd; or in etcd, beside the API server's keys.
//
// In dual stack, which is the default of bin/k8s/k8slab, all of them have addresses of both families.
//
// Nothing stands in for anything: the commands are Kubernetes' own, see tools/go.mod. Images come from no registry; they are
// packed here and imported on each node.
//
// A migration ([Migration]) starts with kube-flannel as the network: flannel's own manifest and programs, which
// dist/migration.mk builds.
//
// It needs root, for what containerd and runc need, see package containerd, and leaves nothing behind.
package k8slab
