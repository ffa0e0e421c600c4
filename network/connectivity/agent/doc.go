// Package agent is what runs in the pods of a test of connectivity, and how it is asked. An agent answers with what it
// sees of a caller, and calls others from where it is.
//
// It is asked in one of two ways, neither of which needs the network that is tested: by a second process in the same
// pod, see [Perform], or over its control port from the pod's own node, see [Do].
package agent
