// Package kube keeps the leases of a cluster in the Kubernetes API: it is a [subnet.Store] that allocates. A lease is a
// Node: its subnets are spec.podCIDRs, which the controller manager gives it, and the rest is in annotations, which are
// flannel's. The network config is a file on each node. A lease lasts as long as its Node, and the older Node is the
// one that was created before.
//
// What is read is the metadata of the Nodes, as a stream: 2.5 kB of 12.8, of which a kubelet changes something every
// five minutes. A node also writes its podCIDRs into an annotation of its own, so that its peers need nothing but the
// metadata. The spec of a Node without that annotation, as flannel leaves it, is read once: podCIDRs never change.
//
// A user needs these rights, of the core API group: get, list and watch on nodes, and patch on nodes/status.
//
//	watch.go       the loop of Watch: list, follow, and again after a fault
//	listing.go     everything there is; what differs from what was known
//	follow.go      everything that changes
//	pending.go     Nodes whose spec has to be read
//	position.go    whether the store is still the one that was watched
//	netconf.go     the file with the network config
//	claim.go       Claim; hold.go Hold and Release
//	annotations.go how a lease is written down; decode.go how it is read
//	prefix.go      the prefix of the annotations' names
//	condition.go   the Node's condition NetworkUnavailable
//	examine.go     what may be wrong
//	store.go       the store; options.go its options, and which Node is this one
//
// Package apiserver is the client; package kubetest is a server for tests.
package kube
