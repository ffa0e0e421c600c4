// Package crio puts a real CRI-O, conmon and runc on the nodes of the lab, and drives them as package cri does.
//
//	node1   selvaged, crio, /etc/cni/net.d, /opt/cni/bin
//	  |-- pod a   a network namespace that pinns has pinned, and containers that share it
//	  `-- pod b
//	node2   the same
//
// CRI-O comes from the Go module that the folder runtime pins. It keeps images where podman and skopeo do, so skopeo gives
// them to it. It needs root for what containers need, see package containerd.
package crio
