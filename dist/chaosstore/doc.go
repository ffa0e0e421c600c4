// Package chaosstore breaks the lease store of a running lab in every way we know, and shows what that costs: how many
// packets between pods (none is wanted), how long after its end all is right again, and how many requests etcd gets then.
//
// The lab is three nodes with a pod each, and an etcd of one member or of three: real ones, which are killed, stopped, wiped
// and restored. Two things stand between the nodes and them:
//
//	node1 ─┐                 ┌─ proxy 192.0.2.11:2379 ── etcd 192.0.2.11:12379
//	node2 ─┼─ 172.31.0.1 ────┼─ proxy 192.0.2.12:2379 ── etcd 192.0.2.12:12379
//	node3 ─┘                 └─ proxy 192.0.2.13:2379 ── etcd 192.0.2.13:12379
//
// The overlay is one of IPv4 and IPv6, unless [Options.Families] says otherwise: what is looked at and sent is of both.
//
// A [proxy] for each member, so that answers can be delayed; it refuses connections while its member is down. And the daemons
// are started by a script that gives them the arguments of this suite, see daemon.go.
//
// Right is decided by nobody of the product: converge.go reads the leases, the kernel's routes and the subnet files, and
// adds the lease of a node that does not exist, which all nodes have to follow: so a daemon that has lost its watch is found
// although nothing else changes.
//
// [Faults] lists what can be broken; to add a fault, add a line there. [All] does them, each in a lab that fits.
package chaosstore
