// Package bench measures what selvage costs: how long a node takes to come up among thousands, how soon a changed lease is
// in the kernel, what all that takes of CPU, memory and etcd.
//
// Nothing in it is a model: etcd is etcd, the daemon is the selvaged binary, a node is a network namespace with mounts of
// its own, and that an entry is in the kernel is what the kernel says itself, by a notification to a socket of the
// benchmark's. Only the other nodes do not exist: their leases are written into etcd.
//
// A busy machine can make anything slow. So each figure has a floor beside it, measured in the same run: what iproute2 takes
// for the same entries, what a bare etcd watch takes for the same change, what the kernel takes for the same messages.
//
// Two parts are of their own kind, in a lab (dist/lab): soak has leases, pods and faults (dist/chaos) come and go, and looks whether
// anything grows, see [Series]; fleet has many daemons at once.
//
// [Parts] lists what can be measured; [Run] measures, and returns a [Report].
package bench
