// Package vtepfilter lets the overlay's own nodes, and nobody else, send to the VXLAN port of this one.
//
// VXLAN has no notion of who may speak (RFC 7348, section 7): whoever gets a UDP packet to the port puts a frame into the
// overlay. So the port takes packets only from the public addresses of current leases, the peers, and VXLAN packets that
// come out of the overlay itself go nowhere outside of it: one that a pod forged would leave masqueraded, with its node's
// address, and every other node would let it in. What it does not stop is a stranger on the underlay who sends with a
// peer's address; that takes a filter in the underlay, or encryption.
//
// # The table
//
// It is one nf_tables table of our own, "inet selvage-vtep"; nothing else is ever touched. Two chains are called by the
// kernel and look at UDP to the port only, all else passes after two or three comparisons:
//
//	input    → arrived                 forward → forwarded → leaving
//	  by an overlay device: drop         by an overlay device: leaving     to a peer: drop
//	  from a peer: let in                from a peer: pass (it is routed)  into the overlay: pass
//	  from an overlay address: drop      from an overlay address: leaving  elsewhere: drop
//	  from an allowed prefix: let in     else: pass
//	  else: drop
//
// A pod may run a VXLAN of its own, pod to pod: that stays inside the overlay and is let through. A peer comes before the
// overlay's addresses since there are clusters whose underlay lies inside the network. Each drop is counted ([Dropped]).
// One thing is lost with all this: an answer from a pod to a client that sends from the very port number of VXLAN. To ask
// connection tracking would spare it, and let a pod out that first sends itself a packet with the right forged addresses.
//
// Both chains have the priority of mangle, -150: after connection tracking and any translation of the destination, so that
// port and source are what the VXLAN device is going to see; before the filter chains of others, so that a stranger's
// packet costs none of their rules. A drop is final in any chain, an accept in theirs changes nothing.
//
// Fragments: a match on the port never matches one without the UDP header, and no rule here drops what it does not match,
// so such fragments of other people's packets pass. The fragment that has the header is dropped, and the rest is never put
// together. IPv4 packets are whole anyway when they come to input (ip_local_deliver); IPv6 ones are not unless connection
// tracking is in use, but the kernel refuses a first fragment that does not hold the whole UDP header (RFC 8200, 4.5).
//
// # The peers
//
// They are levels like everything else: a [network.Table] says who is wanted and what [Filter.Read] found, [Filter.Apply]
// makes the difference, [Filter.Watch] wakes the loop when somebody else changed the table, and [Filter.Ensure] puts table
// and rules right. All of it fails open: [ErrUnsupported] means to go on without, and there is no moment in which rules
// drop and the peers known by then are not in the sets.
//
// Reading, comparing and setting the table is the work of package network/nft.
package vtepfilter
