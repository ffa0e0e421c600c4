// Package cyclonus pins cyclonus, whose tables of who reaches whom make conformance-policy compares with the policies,
// in a module of its own: its dependencies are older than those of Kubernetes.
package cyclonus
