// Package policytest makes random clusters, for tests that compare two implementations of network policies: the
// evaluator with the compiler, with the kernel, and with the engines of others.
//
//	random.go   the source of randomness; labels, selectors and addresses
//	objects.go  namespaces, pods and policies
//	cluster.go  clusters, and changes of them
//	tally.go    what the packets of a comparison were about
package policytest
