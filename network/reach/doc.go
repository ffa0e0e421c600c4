// Package reach decides which other nodes a node probes, when, and what the answers mean. It is pure: it neither sends
// nor waits, and package echo does.
//
// Each node probes a few others, [Degree], however large the cluster is. Which ones follows from the names of the
// leases, without any coordination: [Choose] arranges all nodes in [Degree] circles by hash, and a node probes its
// successor in each. So each node is probed by as many others as it probes, and when a node joins or leaves, only
// its neighbours in the circles choose again.
//
// [Schedule] sends the probes of all peers together, since waking the process costs more than a probe. A peer is
// unreachable after [Misses] probes in a row without an answer, which follow each other faster than others, and
// reachable again with the first answer. A path is lossy once probes were lost [Losses] times among the latest
// [Remembered], until as many in a row are answered: one lost probe says nothing.
//
// Cost with the default interval of 10 s: a node sends four echo requests of 28 bytes (48 with IPv6), 78 (118) with
// VXLAN, every 10 s in each family, and answers as many, in a cluster of any size. At most [Degree] requests are
// without an answer at a time in each family.
package reach
