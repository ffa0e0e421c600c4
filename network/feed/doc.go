// Package feed keeps what network policies are about up to date: it follows namespaces, pods and policies, and hands
// them over to a [Sink].
//
//	API server ──▶ [Kubernetes] ─┐
//	                             ├──▶ Sink: the compiler, and what follows from it
//	files      ──▶ [Directory]  ─┘
//
// # Kubernetes
//
// A node always follows namespaces (their metadata alone), NetworkPolicies, ClusterNetworkPolicies if the API server
// has them, and its own pods. The pods of all other nodes are most of it. They are followed only while a policy that
// selects a pod of this node names other pods, and for a while after.
//
// What was seen stays in force: an API server that cannot be reached, that restarts, forgets its history or is restored
// from a backup removes nothing. An object is removed when the API server reports its deletion, or when a complete list
// is without it. See apiserver.Follow.
//
// # What is handed over when
//
// A pod of this node is handed over once its namespace is known, since a ClusterNetworkPolicy selects no namespace that
// is not known. Objects of other kinds are handed over as they arrive. The sink is in sync once all first
// lists are complete, and is not while it needs the pods of other nodes and they are not all known: without them a
// policy would deny what it allows.
//
// # Memory
//
// Of the pods of other nodes nothing is kept but names and UIDs: 184 bytes a pod, and 541 with what a compiler keeps of
// it (go test ./network/feed -run '^$' -bench Peers). Of namespaces, the names are kept. A pod that has ended, and one
// that is not scheduled, is not followed.
package feed
