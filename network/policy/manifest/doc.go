// Package manifest reads what network policies are about from files: policies, namespaces and pods as kubectl writes
// them, in YAML or JSON. It is pure: its callers read the files.
//
// [Split] returns the objects of a file. A [Cluster] collects those that policies are about, and ignores all others. It
// fills in what the API server would: the namespace of an object that names none, and the label of a namespace with its
// name. What no file says is reported as a [Note].
//
// For tests of policies without a cluster, a workload such as a Deployment can stand for one pod of its template, and
// [Cluster.Complete] adds namespaces that no file has, and gives addresses to pods without one.
package manifest
