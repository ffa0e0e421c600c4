// Package network makes a node's kernel hold the desired objects: it knows the desired and the actual state, and
// applies the difference. It is pure: package network/kernel reads, watches and changes the kernel.
//
// # The tables of a VXLAN overlay
//
// For a packet from a pod here to a pod on another node, the kernel asks three tables in turn. Say the other node has
// the subnet 10.5.29.0/24, the underlay address 192.0.2.7, and a VXLAN device with the MAC address M:
//
//	route      10.5.29.0/24 via 10.5.29.0 dev flannel.1 onlink   which device, and which next hop on it
//	neighbour  10.5.29.0 lladdr M dev flannel.1 permanent         what MAC address that next hop has
//	FDB        M dev flannel.1 dst 192.0.2.7 self permanent       behind which underlay address that MAC is
//
// The device then wraps the frame into UDP (RFC 7348) and sends it to 192.0.2.7. The other node's device unwraps it;
// the frame carries M, so it is accepted and routed to the pod. Nothing is ever flooded or learned: the leases provide
// it all.
//
// # Levels, not events
//
// Each kind of object has a [Table] of the desired and the actual objects. Every event, in the lease store or in the
// kernel, only changes one of the two sides; the [Reconciler] then applies the difference. So a new lease, an entry
// that another process deleted, a device that vanished and a restart are one and the same case.
//
// # Kinds
//
// A kind of object is one entry in the list that [NewTables] makes: its name, its objects in a [State], and what they
// rest on. A pass, the counts and every report are loops over that list. Package network/kernel registers how it
// changes each kind ([Table.ApplyBatch]), and feeds what it reads ([Table.Observe]).
package network
