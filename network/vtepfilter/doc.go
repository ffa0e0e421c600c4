// Package vtepfilter is the VTEP filter: it drops VXLAN packets to this node from any source that is not a node of
// the overlay.
//
// VXLAN has no authentication (RFC 7348, section 7): any host that can send a UDP packet to the port can inject
// frames into the overlay. The filter accepts packets to the port only from the public addresses of current leases,
// the peers. It also drops VXLAN packets that leave the overlay: a packet forged by a pod would be masqueraded with
// its node's address, and every other node would accept it. The filter does not stop a host on the underlay that
// forges a peer's source address; that needs a filter in the underlay, or encryption.
//
// # The table
//
// The filter is one nf_tables table, "inet selvage-vtep" in the default scope; it touches nothing else. Two base
// chains match UDP packets to the port. Other packets pass after two or three comparisons.
//
//	input    → arrived                 forward → forwarded → leaving
//	  in by an overlay device: drop      in by an overlay device: leaving  to a peer: drop
//	  with another VNI: accept           from a peer: accept (routed)      into the overlay: accept
//	  from a peer: accept                from an overlay address: leaving  elsewhere: drop
//	  from an overlay address: drop      else: accept
//	  from an allowed prefix: accept
//	  else: drop
//
// Two overlays can share a port: each filter accepts the packets with another VNI, and the other overlay's filter
// judges them. A VNI that no device here has leads nowhere (vxlan_rcv in drivers/net/vxlan/vxlan_core.c). Packets
// from this overlay's pods are dropped whatever their VNI.
//
// VXLAN between pods stays inside the overlay and is accepted. Peers take precedence over overlay addresses, because
// the underlay of some clusters lies inside the overlay's network. Each drop is counted ([Dropped]). The filter has
// one false positive: the reply of a pod to a client whose source port is the VXLAN port. Connection tracking would
// avoid it, but a pod could then get packets out by first sending itself a packet with the right forged addresses.
//
// Both base chains have the priority of mangle, -150. That is after connection tracking and destination NAT, so that
// they see the port and source that the VXLAN device will see, and before the filter chains of other programs, so
// that a rejected packet costs none of their rules. A drop is final in any chain; an accept in another chain does not
// override it.
//
// Fragments: only the first fragment has the UDP header, and only that one can match the port and be dropped; the
// packet is then never reassembled. Other fragments pass. In the input chain, IPv4 packets have been reassembled
// already (ip_local_deliver). IPv6 packets have not unless connection tracking is in use, but the kernel rejects a
// first fragment without the whole UDP header (RFC 8200, section 4.5).
//
// # The peers
//
// Peers are a kind of kernel object like any other. A [network.Table] holds the desired peers and those that
// [Filter.Read] found; [Filter.Apply] adds and removes the difference. [Filter.Watch] wakes the loop after an
// external change, and [Filter.Ensure] repairs the rest of the table. The filter fails open: [ErrUnsupported] means
// to run without it, and there is no moment at which the rules drop packets of a peer that is known.
//
// Package network/nft reads, compares and sets the table.
package vtepfilter
