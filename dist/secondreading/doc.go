// Package secondreading compares the evaluator of network policies with engines that others wrote from the same text
// of the API. It has tests only, in a module of its own, since these engines depend on much of Kubernetes.
//
// The engines are that of sigs.k8s.io/kube-network-policies, which judges the packets of a cluster, and that of
// github.com/mattfenwick/cyclonus, which says what a test of a cluster has to expect. Each gets random clusters as
// typed objects of the API, and the evaluator gets the same objects as JSON. Where an engine is known to differ, its
// table of differences has the reason and the smallest case. Everything else must be judged alike.
//
// Neither engine judges packets of known connections or of none, the node's own packets, or what is not understood of a
// policy. The model tests of network/policy and network/enforce do.
//
// Neither engine knows ClusterNetworkPolicy. Its two predecessors, AdminNetworkPolicy and BaselineAdminNetworkPolicy,
// mean the same as far as they go, and kube-network-policies gets the rules as these.
package secondreading
