// Package network says what a node's kernel should hold, knows what it does hold, and makes the second equal to the
// first. It is pure: package network/kernel reads, watches and changes the real thing.
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
// The device then wraps the frame into UDP (RFC 7348) and sends it to 192.0.2.7. The other node's device unwraps it; the
// frame carries M, so it is taken in and routed to the pod. Nothing is ever flooded or learned: the leases say it all.
//
// # Levels, not events
//
// Each kind of object has a [Table] of what is wanted and what is there. Everything that happens, in the lease store or
// in the kernel, only changes one of the two sides; the [Reconciler] then applies the difference. So a lease that came,
// an entry that somebody deleted, a device that vanished and a restart are one and the same case.
package network
