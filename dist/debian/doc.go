// Package debian installs the Debian package on a node of the lab that is a whole Debian: made by debootstrap, with its
// own systemd as pid 1, its own units, dpkg and journal.
//
//	node1   Debian, with nothing of selvage but the package
//	  `-- pod   added by the plugin and the network configuration that install-cni installed
//	node2   the lab's own selvaged
//	  `-- pod
//
// The test follows Documentation/packages.md: installation, two pods that talk, upgrade, removal, purge. It needs root,
// for what containers need, see package containerd. Everything happens in namespaces that end with the process.
package debian
