// Package tools pins Kubernetes' own commands, which make e2e-kubernetes builds and runs, in a module of its own: nothing else
// has to agree with their versions.
package tools
