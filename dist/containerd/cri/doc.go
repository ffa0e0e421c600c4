// Package cri drives a container runtime on a node of the lab as the kubelet does: by CRI, over the runtime's socket. What
// a pod is then is the runtime's doing: the sandbox, the network namespace, the call of the CNI plugins. It is told by its
// caller how to start the runtime and how to give it images, since each does that in a way of its own.
package cri
