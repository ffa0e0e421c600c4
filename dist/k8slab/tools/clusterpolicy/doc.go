// Package clusterpolicy pins the conformance suite of ClusterNetworkPolicy and its CRD, which make conformance-policy
// runs, in a module of its own: its dependencies are newer than those of Kubernetes.
package clusterpolicy
