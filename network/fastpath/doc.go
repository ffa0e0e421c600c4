// Package fastpath takes packets between pods on two nodes past most of the kernel's network stack: past the bridge,
// routing, netfilter and the VXLAN device, by eBPF programs that put on and take off the same headers.
//
//	pod ── eth0 ═ veth ──▶ from_pod ─────── 50 bytes on ──────▶ uplink                    sending node
//	                │                                             ▲
//	                └▶ bridge, routing, netfilter, VXLAN device ──┴─ learn_sent
//
//	uplink ─▶ from_wire ─────────── 50 bytes off ─────────────▶ veth ═ eth0 ── pod        receiving node
//	                │                                             ▲
//	                └▶ UDP, VXLAN device, netfilter, bridge ──────┴─ learn_received
//
// The slow path decides, the fast path repeats: an entry of a connection is made from a packet that has passed all of
// the slow path, and from what the slow path did to it. It is used for one second. Then the next packet takes the slow
// path again and renews it. So a change of a rule, a route or a lease takes effect within a second even if the daemon
// missed it, and at once if the daemon calls [Path.Flush]. Only connections that conntrack has seen packets of in both
// directions get an entry, and SYN, FIN, RST, fragments, IP options and everything that is not TCP or UDP always take
// the slow path. The packets on the wire are those of the slow path, so another node does not notice.
//
// The programs stop by themselves, and leave all to the slow path, when [Path.Beat] has not been called for a while.
//
// bpf/fastpath.c has the programs. What differs between them and what a node's kernel holds is found by comparison, as
// for every kernel object ([Plan], [Path.Attachments], [Path.Peers]).
//
// # Limits
//
// IPv4 over IPv4 only. Rules that look at single packets of an established connection (rate limits, lengths, payloads)
// see one packet a second of a connection that is fast. Counters of rules, of the bridge, of the VXLAN device and of
// the pod's port count only those. After the fast path has been used, conntrack does not know the TCP windows of a
// connection: net.netfilter.nf_conntrack_tcp_be_liberal has to be 1, or conntrack takes later packets for invalid.
// Programs that another process attached with tc, and what tc and nftables do at the egress of the uplink or of a pod's
// port, do not see fast packets: where these are, the programs are not to be attached.
//
// Another node that sends UDP checksums over IPv4 (udpcsum, as ip link has it by default) is heard by the slow path.
package fastpath

//go:generate make -C ../.. bpf
