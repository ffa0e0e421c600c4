// Package fastpath takes packets between pods on two nodes past most of the kernel's network stack: past the bridge,
// routing, netfilter and the VXLAN device, by eBPF programs that put on and take off the same headers.
//
//	pod ── eth0 ═ veth ──▶ from_pod ────── headers on ────────▶ uplink                    sending node
//	                │                                             ▲
//	                └▶ bridge, routing, netfilter, VXLAN device ──┴─ learn_sent
//
//	uplink ─▶ from_wire ─────────── headers off ──────────────▶ veth ═ eth0 ── pod        receiving node
//	                │                                             ▲
//	                └▶ UDP, VXLAN device, netfilter, bridge ──────┴─ learn_received
//
// The slow path decides, the fast path repeats: an entry of a connection is made from a packet that has passed all of
// the slow path, and from what the slow path did to it. It is used for one second. Then the next packet takes the slow
// path again and renews it. So a change of a rule, a route or a lease takes effect within a second even if the daemon
// missed it, and at once if the daemon calls [Path.Flush]. Only connections that conntrack has seen packets of in both
// directions get an entry, and SYN, FIN, RST, fragments, IP options, IPv6 extension headers and everything that is not
// TCP or UDP always take the slow path. The packets on the wire are those of the slow path, so another node does not
// notice.
//
// Packets and underlay may each be IPv4 or IPv6, translated addresses and ports (services) included. A node with a
// VXLAN device over each has both in one Path. Peers that are reached without a tunnel (DirectRouting, host-gw) have
// the same two paths, without headers to put on and take off and without a VXLAN device ([Config.Direct],
// [Peer.Direct]).
//
// The programs stop by themselves, and leave all to the slow path, when [Path.Beat] has not been called for a while.
//
// bpf/fastpath.c has the programs. What differs between them and what a node's kernel holds is found by comparison, as
// for every kernel object ([Plan], [Path.Attachments], [Path.Peers]).
//
// # Over IPv6
//
// Over IPv6 the outer UDP header has a checksum. A program cannot have the kernel compute it for a packet of several
// segments (GSO), because bpf_skb_adjust_room does not set SKB_GSO_UDP_TUNNEL_CSUM, and the receiver's kernel drops
// packets without one (unless udp6zerocsumrx is set). So:
//
//   - from_pod gives a packet of several segments to the VXLAN device, past the bridge, routing and netfilter
//     ([SentSegments]).
//   - For every other packet from_pod computes the outer checksum from the headers: the checksum of the packet in it
//     makes up for the rest. If a pod sends a wrong TCP or UDP checksum, the outer one is wrong, too; then the
//     receiving kernel counts an error (Udp6InCsumErrors) and drops the packet, instead of the receiving pod.
//   - from_wire checks the outer checksum in the same way, and the pod's kernel checks the inner one.
//   - UDP packets without a checksum take the slow path.
//
// Between veth or virtio interfaces the kernel may leave the outer checksum uncomputed. It does so for packets that a
// pod without checksum offload sends by the slow path. The other node receives these by the slow path, too.
//
// # Limits
//
// Without a tunnel, from_wire cannot check which node has sent a packet. Nor can the slow path: it accepts a pod's
// address from every host on the uplink's link. See the comment that begins bpf/fastpath.c.
//
// Rules that look at single packets of an established connection (rate limits, lengths, payloads) see one packet a
// second of a connection that is fast. Counters of rules, of the bridge, of the VXLAN device and of the pod's port
// count only those, and those of the VXLAN device also what goes by [SentSegments] and [ReceivedDecapsulated]. After
// the fast path has been used, conntrack does not know the TCP windows of a connection:
// net.netfilter.nf_conntrack_tcp_be_liberal has to be 1, or conntrack takes later packets for invalid. Programs that
// another process attached with tc, and what tc and nftables do at the egress of the uplink or of a pod's port, do not
// see fast packets: where these are, the programs are not to be attached.
//
// A peer is received by the slow path if it sends UDP checksums over IPv4 (udpcsum, the default of ip link), or none
// over IPv6 (udp6zerocsumtx).
package fastpath

//go:generate make -C ../.. bpf
