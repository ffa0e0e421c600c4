// Package containerd puts a real containerd and runc on the nodes of the lab, and drives them as the kubelet does: by CRI,
// over containerd's socket, see package cri. What a pod is then is the runtime's doing: a sandbox that the pause container
// holds, a network namespace that containerd makes, CNI plugins that containerd calls.
//
//	node1   selvaged, containerd, /etc/cni/net.d, /opt/cni/bin
//	  |-- pod a   pause, and containers that share its network namespace
//	  `-- pod b
//	node2   the same
//
// Images come from no registry: [cri.Image] packs one from a static program of this folder (cmd/pod).
//
// runc makes cgroups and mounts a sysfs, which the kernel allows nobody in a user namespace. So, other than the rest of the
// lab, this needs root; everything else stays as it is there, in namespaces that end with the process.
//
// It is a module of its own, so that the product's go.mod has nothing of Kubernetes in it.
package containerd
