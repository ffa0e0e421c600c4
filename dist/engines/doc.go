// Package engines has container engines that people run by hand, Docker and Podman, on the nodes of the lab, and looks at what
// their containers notice of selvage.
//
//	node1   systemd, selvaged.service, docker.service with our drop-in
//	  |-- container   an address of the node's subnet, on docker0 or cni0
//	node2   the same
//	outside
//
// All is as it is on a machine: a real systemd starts the units of the distribution and those of dist/systemd, and the engines
// are driven by their command lines. The image is packed here, since there is no registry.
//
// It also builds the Dockerfile of dist/image, as it is.
//
// It needs root, for what containers need, see package containerd. Everything happens in namespaces that end with the process.
// It is a module of its own, as package containerd is.
package engines
