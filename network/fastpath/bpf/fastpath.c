// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A fast path for packets between pods on two nodes, over VXLAN or without a tunnel (DirectRouting, host-gw). Packets
 * and underlay may each be IPv4 or IPv6.
 *
 *   pod ── eth0 ═ veth ──▶ from_pod ────── headers on ────────▶ uplink                    sending node
 *                   │                                             ▲
 *                   └▶ bridge, routing, netfilter, VXLAN device ──┴─ learn_sent
 *
 *   uplink ─▶ from_wire ─────────── headers off ──────────────▶ veth ═ eth0 ── pod        receiving node
 *                   │                                             ▲
 *                   └▶ UDP, VXLAN device, netfilter, bridge ──────┴─ learn_received
 *                             └▶ from_device
 *
 * Without a tunnel there are no headers to put on and take off, and no VXLAN device: the rest is the same.
 *
 * The upper path of each pair is fast, the lower one slow. The slow path decides, always. The fast path only repeats,
 * for at most a second, what the slow path did with an earlier packet of the same connection. The two learning programs
 * see a packet after all of the slow path: one that netfilter drops, the routes lead elsewhere, or the bridge gives to
 * another port never gets there. What they store for sending is the packet's own header, so whatever the kernel put
 * there (addresses, TTL, DF, source port) is what fast packets carry.
 *
 * Over IPv6 the outer UDP header has a checksum. No program can have the kernel compute it for a packet of several
 * segments: bpf_skb_adjust_room does not set SKB_GSO_UDP_TUNNEL_CSUM (net/core/filter.c). So from_pod gives
 * such packets to the VXLAN device, past the bridge, routing and netfilter. For all others the outer checksum follows
 * from the headers, because the packet in it has a checksum of its own (see covered).
 *
 * Without a tunnel, from_wire cannot check which node has sent a packet: like the slow path it knows only that the
 * packet came by the uplink, and whoever is on that link can send with a pod's address. What arrives that way has
 * entries of its own, which are made from such packets only, and only of the subnets of peers to which this node sends
 * without a tunnel, too. So a packet without headers never uses what was learned from the tunnel, where the sender's
 * address is checked, and the other way round.
 *
 * Only packets of established connections are fast, only plain ones, and only while the daemon is alive. Everything
 * else, and everything that is in any doubt, takes the slow path. The programs drop nothing.
 */
#include "kernel.h"

/* For so many lives of an entry it is known behind which port a pod is. */
#define PORT_LIVES 30

/* Marks a fast packet, in tc_index, for learn_sent, which it meets at the uplink: nothing to learn from it. The VXLAN
 * device keeps that field (skb_scrub_packet in net/core/skbuff.c). */
#define FAST 0x5e1f

/* The headers around a packet in VXLAN, on an underlay of IPv4 or IPv6. */
#define IP(v6) ((v6) ? sizeof(struct ipv6) : sizeof(struct ipv4))
#define OUTER(v6) (sizeof(struct ethernet) + IP(v6) + sizeof(struct udp) + sizeof(struct vxlan))
#define HEADER(v6) (OUTER(v6) + sizeof(struct ethernet))
#define ROOM(v6) (HEADER(v6) - sizeof(struct ethernet)) /* by how much a packet grows */

/* IPv4 addresses are kept as IPv6 has them, mapped (RFC 4291, section 2.5.5.2). */
#define MAPPED(ipv4) ((__u64)(ipv4) << 32 | 0xffff0000)
#define UNMAPPED(address) ((__be32)((address)[1] >> 32))

/* How packets get to another node and from there: in VXLAN over an underlay of IPv4 or IPv6, or without a tunnel. Each
 * has settings of its own. */
enum way { OVER_IPV4, OVER_IPV6, DIRECT, WAYS };

/* What became of packets. from_pod counts each IP packet of a pod once, from_wire each packet of the tunnel that
 * arrives, and without a tunnel each packet of a connection that it knows. The same packet may be counted again by
 * from_device, and by the program that learns from it. */
enum reason {
	SENT,                    /* fast, to another node */
	SENT_SEGMENTS,           /* fast as far as the VXLAN device: several segments in one, over IPv6 */
	RECEIVED,                /* fast, from another node */
	RECEIVED_DECAPSULATED,   /* fast, behind the VXLAN device */
	STOPPED,                 /* slow: no sign of life from the daemon */
	NOT_PLAIN,               /* slow: no plain TCP or UDP: fragments, options, VLAN tags, wrong lengths or checksums */
	TTL,                     /* slow: it is about to expire */
	TOO_LONG,                /* slow: longer than the MTU of the VXLAN device, or of the uplink without a tunnel */
	BEGIN_END,               /* slow: TCP with SYN, FIN or RST */
	CONGESTION,              /* slow: the underlay marked it (ECN) */
	SEGMENTS,                /* slow up to the VXLAN device: several segments in one */
	UNKNOWN,                 /* slow: nothing is known of the connection */
	EXPIRED,                 /* slow: it was learned more than a second ago */
	FLUSHED,                 /* slow: it was learned before the last flush */
	OTHER_PORT,              /* slow: sent by another port than the pod's */
	OTHER_PEER,              /* slow: sent by another node than the one that has the sender's subnet, or another way */
	OTHER_FRAME,             /* slow: other MAC addresses, DSCP or flow label than was learned */
	NO_ROOM,                 /* slow: the kernel has no room for the headers */
	LEARNED_SENT,
	LEARNED_RECEIVED,
	NOT_LEARNED_FLUSH,       /* too soon after a flush */
	NOT_LEARNED_PEER,        /* the other end is in no peer's subnet, or the packet does not go as to that peer */
	NOT_LEARNED_CONNECTION,  /* conntrack does not know the connection */
	NOT_LEARNED_ESTABLISHED, /* not established, or a helper has to see each packet */
	NOT_LEARNED_PORT,        /* the pod's port is not known: nothing was received by the slow path of late */
	REASONS,
};

struct control {
	__u64 learn_from;     /* CLOCK_MONOTONIC, ns: nothing is learned before */
	__u64 life;	      /* of what is learned, ns; then the slow path decides again */
	__u32 generation;     /* counts flushes */
	__u32 device;	      /* ifindex of the VXLAN device, or of the uplink without a tunnel; 0: nothing goes this way */
	__u32 mtu;	      /* of that */
	__u32 established_ms; /* conntrack's timeout of an established TCP connection; 0: leave it */
	__u8 way;	      /* its own key */
	__u8 pad;
	/* Only for VXLAN: */
	__be16 port;
	__be32 vni;	/* as in the header */
	__u64 local[2]; /* this node's address on the underlay */
	__u8 mac[6];	/* of the VXLAN device */
	__u8 segments;	/* several segments in one are fast from the uplink on, not only behind the VXLAN device */
	__u8 pad2;
};

struct tuple {
	__u64 source[2];
	__u64 destination[2];
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 version;
	__u8 pad[2];
};

/*
 * The key of an entry: to look up 16 bytes takes less time than to look up 40. The addresses are those of IPv4 but for
 * the order of bits, or digests of those of IPv6. Connections with the same key take it from each other: an entry is
 * used only if it has the whole tuple.
 */
struct key {
	__u32 source;
	__u32 destination;
	__u64 rest;
};

/* What both kinds of entries have. */
struct entry {
	struct tuple before;	/* with which it is looked up */
	__u64 until;		/* CLOCK_MONOTONIC, ns */
	__u32 generation;
	__u32 port;		/* ifindex of the pod's port */
	struct tuple after;	/* the addresses and ports that the packet leaves with */
	__u32 address_sum;	/* the differences that these make to checksums */
	__u32 port_sum;
	struct ethernet frame;	/* between pod and port: as the pod sends or gets it */
	__u8 way;
	__u8 translated;	/* after is not before */
	__u32 class;		/* of the packet that was learned from, see struct packet */
	__u8 pad[4];
};

struct sent {
	struct entry of;
	__u32 uplink; /* ifindex */
	__u32 mark;
	__u32 priority;
	__u32 sum; /* of what the checksum in the outer headers covers, without what differs for each packet */
	__u8 header[HEADER(1)]; /* of this, as many bytes as there are: without a tunnel, the Ethernet header */
	__u8 pad[4];
};

struct received {
	struct entry of;
	__u64 peer[2];
};

struct subnet {
	__u32 bits; /* of a mapped address for IPv4 */
	__u8 address[16];
};

struct peer {
	__u64 address[2];
	__u8 mac[6];
	__u8 direct; /* packets to it go without a tunnel */
	__u8 pad;
};

/* By the way. */
struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(max_entries, WAYS);
	TYPE(key, enum way);
	TYPE(value, struct control);
} control SEC(".maps");

/* Until when the daemon is to be taken for alive, CLOCK_MONOTONIC in ns. */
struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u64);
} heartbeat SEC(".maps");

/* The subnets of other nodes. */
struct {
	NUMBER(type, MAP_LPM_TRIE);
	NUMBER(max_entries, 65536);
	NUMBER(map_flags, NO_PREALLOC);
	TYPE(key, struct subnet);
	TYPE(value, struct peer);
} peers SEC(".maps");

/* By the addresses and ports with which pods send. */
struct {
	NUMBER(type, MAP_LRU_HASH);
	NUMBER(max_entries, 65536);
	TYPE(key, struct key);
	TYPE(value, struct sent);
} sent SEC(".maps");

/* By the addresses and ports with which packets arrive. */
struct {
	NUMBER(type, MAP_LRU_HASH);
	NUMBER(max_entries, 65536);
	TYPE(key, struct key);
	TYPE(value, struct received);
} received SEC(".maps");

struct {
	NUMBER(type, MAP_PERCPU_ARRAY);
	NUMBER(max_entries, REASONS);
	TYPE(key, enum reason);
	TYPE(value, __u64);
} counters SEC(".maps");

/* The next identification of an outer IP header, see RFC 6864: a router may cut a packet without DF. */
struct {
	NUMBER(type, MAP_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u32);
} identification SEC(".maps");

inline_always void count(enum reason why)
{
	__u32 key = why;
	__u64 *n = bpf_map_lookup_elem(&counters, &key);

	if (n)
		*n += 1;
}

inline_always int slow(enum reason why)
{
	count(why);
	return TCX_NEXT;
}

inline_always struct control *settings(enum way way)
{
	return bpf_map_lookup_elem(&control, &way);
}

/* The settings of the way by which packets leave or arrive through a device. */
inline_always struct control *settings_of(__u32 device)
{
#pragma unroll
	for (int way = 0; way < WAYS; way++) {
		struct control *c = settings(way);

		if (c && device && c->device == device)
			return c;
	}
	return 0;
}

inline_always int alive(__u64 now)
{
	__u32 key = 0;
	__u64 *until = bpf_map_lookup_elem(&heartbeat, &key);

	return until && now < *until;
}

/* A one's complement sum: addition, and the fold to 16 bits. */
inline_always __u32 add(__u32 a, __u32 b)
{
	a += b;
	return a + (a < b);
}

inline_always __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Adds up a header, or a part of it. */
inline_always __u32 words_sum(const void *from, const int words)
{
	const __u16 *word = from;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += word[i];
	return sum;
}

inline_always int same_mac(const __u8 *a, const __u8 *b)
{
	return *(const __u32 *)a == *(const __u32 *)b && *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

inline_always int same_frame(const struct ethernet *a, const struct ethernet *b)
{
	return *(const __u64 *)a == *(const __u64 *)b && *((const __u32 *)a + 2) == *((const __u32 *)b + 2);
}

inline_always int same_address(const __u64 *a, const __u64 *b)
{
	return a[0] == b[0] && a[1] == b[1];
}

inline_always int same_tuple(const struct tuple *a, const struct tuple *b)
{
	return same_address(a->source, b->source) && same_address(a->destination, b->destination) &&
	       *(const __u64 *)&a->source_port == *(const __u64 *)&b->source_port;
}

inline_always __u32 digest(const __u64 *address)
{
	return (__builtin_bswap64(address[0]) * 0x9e3779b97f4a7c15 >> 32) ^ (address[1] >> 32) ^ (__u32)address[1];
}

inline_always struct key key_of(const struct tuple *t)
{
	struct key k = {digest(t->source), digest(t->destination), *(const __u64 *)&t->source_port};

	return k;
}

/* Has the first n bytes where programs can read them, or as many as there are. */
inline_always void have(struct __sk_buff *skb, __u32 n)
{
	if (n > skb->len)
		n = skb->len;
	if ((void *)(long)skb->data + n > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, n);
	barrier(); /* else the compiler keeps skb->data as a number, of which the verifier knows nothing */
}

/* The same for the headers of the packet at an offset. No more than these: a sender's payload is not in one piece with
 * them, and to move it takes time. */
inline_always void have_packet(struct __sk_buff *skb, const __u32 at)
{
	struct ethernet *frame;

	have(skb, at + sizeof(struct ipv4) + sizeof(struct tcp));
	frame = (void *)(long)skb->data + at - sizeof(*frame);
	if ((void *)(frame + 1) <= (void *)(long)skb->data_end && unlikely(frame->type == htons(ETH_P_IPV6)))
		have(skb, at + sizeof(struct ipv6) + sizeof(struct tcp));
}

struct packet {
	struct tuple tuple;
	__u32 class;   /* DSCP, ECN and flow label, each where IPv6 has it */
	__u32 longest; /* segment, with its IP header */
	__u32 length;  /* behind the IP header */
	__u8 ttl;
	__u8 begin_end;
	__u8 unprotected; /* UDP without a checksum */
};

#define ECN(class) ((class) >> 20 & ECN_MASK)
#define WITHOUT_ECN(class) ((class) & ~(ECN_MASK << 20))

#define PLAIN REASONS /* no reason against the fast path */

/* Reads the packet at an offset, behind its Ethernet header. It has to fill the frame to the last byte. */
inline_always int parse(struct __sk_buff *skb, const __u32 at, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *frame = data + at - sizeof(*frame);
	struct ipv4 *ip = data + at;
	struct ipv6 *ip6 = data + at;
	struct udp *udp;
	__u32 header;

	if ((void *)(ip + 1) + sizeof(*udp) > end)
		return NOT_PLAIN;
	if (likely(frame->type == htons(ETH_P_IP))) {
		if (ip->version_length != 0x45 || (ip->fragment & ~htons(IP_DF)) || at + ntohs(ip->total) != skb->len)
			return NOT_PLAIN;
		p->tuple.source[0] = p->tuple.destination[0] = 0;
		p->tuple.source[1] = MAPPED(ip->source);
		p->tuple.destination[1] = MAPPED(ip->destination);
		p->tuple.protocol = ip->protocol;
		p->tuple.version = 4;
		p->class = ip->tos << 20;
		p->ttl = ip->ttl;
		udp = (void *)(ip + 1);
	} else if (frame->type == htons(ETH_P_IPV6)) {
		if ((void *)(ip6 + 1) + sizeof(*udp) > end || (ip6->flow & htonl(0xf0000000)) != htonl(0x60000000) ||
		    at + sizeof(*ip6) + ntohs(ip6->length) != skb->len)
			return NOT_PLAIN;
		copy(p->tuple.source, ip6->source, 2 * sizeof(ip6->source));
		p->tuple.protocol = ip6->next;
		p->tuple.version = 6;
		p->class = htonl(ip6->flow) & 0xfffffff;
		p->ttl = ip6->hop_limit;
		udp = (void *)(ip6 + 1);
	} else {
		return NOT_PLAIN;
	}
	p->tuple.source_port = udp->source;
	p->tuple.destination_port = udp->destination;
	p->tuple.pad[0] = p->tuple.pad[1] = 0;
	p->length = skb->len - ((void *)udp - data);
	p->begin_end = p->unprotected = 0;
	if (p->tuple.protocol == IPPROTO_UDP) {
		if (ntohs(udp->length) != p->length)
			return NOT_PLAIN;
		p->unprotected = udp->sum == 0;
		header = sizeof(*udp);
	} else if (p->tuple.protocol == IPPROTO_TCP) {
		struct tcp *tcp = (void *)udp;

		if ((void *)(tcp + 1) > end)
			return NOT_PLAIN;
		header = (tcp->length >> 4) * 4;
		if (header < sizeof(*tcp) || header > p->length)
			return NOT_PLAIN;
		p->begin_end = tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST);
		if (!p->begin_end && !(tcp->flags & TCP_ACK))
			return NOT_PLAIN;
	} else {
		return NOT_PLAIN;
	}
	p->longest = IP(p->tuple.version == 6) + (skb->gso_size ? header + skb->gso_size : p->length);
	return PLAIN;
}

/* The headers around a packet. */
struct outer {
	struct ethernet *ethernet;
	struct ipv4 *ip;
	struct ipv6 *ip6;
	struct udp *udp;
	struct vxlan *vxlan;
	struct ethernet *inner;
};

/* Returns 0 if there are fewer bytes. */
inline_always int outer_of(struct __sk_buff *skb, const int v6, struct outer *o)
{
	o->ethernet = (void *)(long)skb->data;
	o->ip = (void *)(o->ethernet + 1);
	o->ip6 = (void *)(o->ethernet + 1);
	o->udp = (void *)(o->ethernet + 1) + IP(v6);
	o->vxlan = (void *)(o->udp + 1);
	o->inner = (void *)(o->vxlan + 1);
	return (void *)(o->inner + 1) <= (void *)(long)skb->data_end;
}

/* Whether a packet is of the tunnel by all of these headers: from this node or to it. */
inline_always int is_overlay(const struct outer *o, const struct control *c, const int v6)
{
	if (v6 ? (o->ip6->flow & htonl(0xf0000000)) != htonl(0x60000000) || o->ip6->next != IPPROTO_UDP
	       : o->ip->version_length != 0x45 || o->ip->protocol != IPPROTO_UDP)
		return 0;
	return o->ethernet->type == htons(v6 ? ETH_P_IPV6 : ETH_P_IP) && o->udp->destination == c->port &&
	       o->vxlan->flags == htonl(VXLAN_HAS_VNI) && o->vxlan->vni == c->vni;
}

inline_always int is_between(const struct outer *o, const int v6, const __u64 *source, const __u64 *destination)
{
	if (v6)
		return same_address(o->ip6->source, source) && same_address(o->ip6->destination, destination);
	return MAPPED(o->ip->source) == source[1] && MAPPED(o->ip->destination) == destination[1] &&
	       !(source[0] | destination[0]);
}

/* The lengths of these headers, and what else the kernel checks. Over IPv4 a UDP checksum is the slow path's to verify:
 * RFC 7348 wants none, and the kernel sends none. Over IPv6 there has to be one. */
inline_always int plain_outer(struct __sk_buff *skb, const struct outer *o, const int v6)
{
	__u32 length = skb->len - sizeof(*o->ethernet) - IP(v6);

	if (ntohs(o->udp->length) != length || !o->udp->sum != !v6)
		return 0;
	if (v6)
		return ntohs(o->ip6->length) == length;
	return ntohs(o->ip->total) == sizeof(*o->ip) + length && !(o->ip->fragment & ~htons(IP_DF)) &&
	       fold(words_sum(o->ip, sizeof(*o->ip) / 2)) == 0xffff;
}

/*
 * What a packet adds to a checksum that covers all of it, if its own are right, or will be once an interface has
 * computed them: its TCP or UDP part makes up for its pseudo header, and its IPv4 header adds up to nothing.
 */
inline_always __u32 covered(const struct packet *p, const struct tuple *t, __u8 ttl)
{
	__u16 protocol = htons(t->protocol);

	if (t->version == 6) /* what is in the header and not in the pseudo header */
		return add(htonl(0x60000000 | p->class), htons(t->protocol << 8 | ttl) + (__u16)~protocol);
	return ~add(add(UNMAPPED(t->source), UNMAPPED(t->destination)), htons(p->length) + protocol);
}

/* The part of the outer headers that their UDP checksum covers over IPv6: from the addresses on. The length is covered
 * twice, and the protocol once. */
#define COVERED_FROM (sizeof(struct ethernet) + __builtin_offsetof(struct ipv6, source))
#define covered_sum(header) (words_sum((header) + COVERED_FROM, (HEADER(1) - COVERED_FROM) / 2) + htons(IPPROTO_UDP))

/*
 * Has a copy of an entry but for its tuple, and whether it is that of a tuple: the kernel may give the memory of an
 * entry to another connection while a program reads it (LRU maps are preallocated, kernel/bpf/hashtab.c). The tuple is
 * written first.
 */
#define read_entry(to, entry, tuple)                                                            \
	({                                                                                      \
		copy(&(to)->of.until, &(entry)->of.until, sizeof(*(to)) - sizeof((to)->of.before)); \
		barrier();                                                                      \
		same_tuple(&(entry)->of.before, tuple);                                         \
	})

/* Whether an entry is still in force. */
inline_always int check(const struct entry *e, const struct control *c, const struct packet *p, __u64 now)
{
	if (e->generation != c->generation)
		return FLUSHED;
	if (now >= e->until)
		return EXPIRED;
	if (WITHOUT_ECN(p->class) != e->class)
		return OTHER_FRAME;
	return p->longest > c->mtu ? TOO_LONG : PLAIN;
}

/* Does to the packet at an offset what routers and NAT do. Returns 0 if it cannot. */
inline_always int forward(struct __sk_buff *skb, const __u32 at, const struct entry *e, const struct tuple *t)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv4 *ip = data + at;
	struct ipv6 *ip6 = data + at;
	const int v6 = unlikely(t->version == 6);
	struct udp *udp = data + at + IP(v6);
	__u32 sum;

	if ((void *)(udp + 1) > end)
		return 0;
	if (unlikely(v6)) {
		if ((void *)(ip6 + 1) > end)
			return 0;
		ip6->hop_limit -= 1;
		if (e->translated)
			copy(ip6->source, e->after.source, 2 * sizeof(ip6->source));
	} else {
		if ((void *)(ip + 1) > end)
			return 0;
		/* As ip_decrease_ttl in include/net/ip.h, so that the checksum is the same bit for bit. */
		ip->ttl -= 1;
		sum = ip->sum + htons(0x0100);
		ip->sum = sum + (sum >= 0xffff);
		if (unlikely(e->translated)) {
			ip->sum = ~fold(add((__u16)~ip->sum, e->address_sum));
			ip->source = UNMAPPED(e->after.source);
			ip->destination = UNMAPPED(e->after.destination);
		}
	}
	if (unlikely(e->translated)) {
		udp->source = e->after.source_port;
		udp->destination = e->after.destination_port;

		/* A checksum that is left to the interface is of the addresses only, and so far. */
		int tcp = t->protocol == IPPROTO_TCP;
		__u32 where = at + IP(v6) + (tcp ? __builtin_offsetof(struct tcp, sum) : __builtin_offsetof(struct udp, sum));
		__u64 zero = tcp ? 0 : CSUM_MARK_MANGLED_0;

		if (bpf_l4_csum_replace(skb, where, 0, e->address_sum, CSUM_PSEUDO_HDR | zero) ||
		    bpf_l4_csum_replace(skb, where, 0, e->port_sum, zero))
			return 0;
	}
	/* A sum of the whole packet that an interface has made (CHECKSUM_COMPLETE): IPv6 has no checksum of its header that
	 * makes up for a change there, as the helper for changed addresses takes it to have. */
	if (unlikely(v6))
		bpf_csum_update(skb, add(e->address_sum, ~(__u32)htons(1)));
	return 1;
}

/* What netfilter set at the packet that was learned from. */
inline_always void mark(struct __sk_buff *skb, const struct sent *e)
{
	skb->tc_index = FAST;
	skb->mark = e->mark;
	skb->priority = e->priority;
}

/* Gives a packet to the uplink, with its outer headers. */
inline_always int send(struct __sk_buff *skb, const struct sent *e, const struct packet *p, const int v6)
{
	const __u64 layer3 = v6 ? ADJ_ROOM_ENCAP_L3_IPV6 : ADJ_ROOM_ENCAP_L3_IPV4;
	__u32 key = 0, ecn, *id = bpf_map_lookup_elem(&identification, &key);
	struct outer o;

	if (v6 && p->unprotected)
		return slow(NOT_PLAIN);
	if (!id || bpf_skb_adjust_room(skb, ROOM(v6), ADJ_ROOM_MAC,
				       ADJ_ROOM_FIXED_GSO | layer3 | ADJ_ROOM_ENCAP_L4_UDP | ADJ_ROOM_ENCAP_L2_ETH |
					       ADJ_ROOM_ENCAP_L2(sizeof(struct ethernet))))
		return slow(NO_ROOM);
	/* From here on the packet cannot take the slow path. What can still fail are checks for the verifier only. */
	if (!forward(skb, HEADER(v6), &e->of, &p->tuple) || !outer_of(skb, v6, &o))
		return TCX_DROP;
	copy_long(o.ethernet, e->header, HEADER(v6));
	/* As INET_ECN_encapsulate: the underlay sees the packet's ECN, but for CE, which is not its own. */
	ecn = ECN(p->class) == ECN_CE ? ECN_ECT_0 : ECN(p->class);
	o.udp->length = htons(skb->len - sizeof(*o.ethernet) - IP(v6));
	if (v6) {
		__u16 sum;

		o.ip6->flow |= htonl(ecn << 20);
		o.ip6->length = o.udp->length;
		sum = ~fold(add(e->sum + 2 * o.udp->length, covered(p, &e->of.after, p->ttl - 1)));
		o.udp->sum = sum ? sum : 0xffff;
	} else {
		o.ip->tos |= ecn;
		o.ip->total = htons(skb->len - sizeof(*o.ethernet));
		o.ip->id = htons(*id);
		*id += skb->gso_segs > 1 ? skb->gso_segs : 1;
		o.ip->sum = ~fold(e->sum + o.ip->total + o.ip->id + htons(ecn));
	}
	mark(skb, e);
	count(SENT);
	return bpf_redirect(e->uplink, 0);
}

/* Gives a packet to a device with an Ethernet header, as routing does. */
inline_always int send_as_is(struct __sk_buff *skb, const struct sent *e, const struct packet *p, __u32 device,
			     const __u8 *header, enum reason why)
{
	if (!forward(skb, sizeof(struct ethernet), &e->of, &p->tuple))
		return TCX_DROP;

	struct ethernet *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end)
		return TCX_DROP;
	copy(frame, header, sizeof(*frame));
	mark(skb, e);
	count(why);
	return bpf_redirect(device, 0);
}

/* At the pod's port, for packets from the pod. */
SEC("tcx/ingress")
int from_pod(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct sent *found, e;
	struct control *c;
	struct packet p;
	struct key key;
	int why;

	if (skb->protocol != htons(ETH_P_IP) && skb->protocol != htons(ETH_P_IPV6))
		return TCX_NEXT;
	if (!alive(now))
		return slow(STOPPED);
	if (skb->vlan_present)
		return slow(NOT_PLAIN);
	have_packet(skb, sizeof(struct ethernet));
	why = parse(skb, sizeof(struct ethernet), &p);
	if (why != PLAIN)
		return slow(why);
	key = key_of(&p.tuple);
	found = bpf_map_lookup_elem(&sent, &key);
	if (!found || !read_entry(&e, found, &p.tuple))
		return slow(UNKNOWN);
	if (skb->ifindex != e.of.port)
		return slow(OTHER_PORT);
	if (p.begin_end) {
		bpf_map_delete_elem(&sent, &key);
		return slow(BEGIN_END);
	}
	if (p.ttl <= 1)
		return slow(TTL);
	c = settings(e.of.way);
	if (!c)
		return slow(UNKNOWN);
	why = check(&e.of, c, &p, now);
	if (why != PLAIN)
		return slow(why);

	struct ethernet *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end || !same_frame(frame, &e.of.frame))
		return slow(OTHER_FRAME);
	if (likely(e.of.way == OVER_IPV4))
		return send(skb, &e, &p, 0);
	if (e.of.way == DIRECT)
		return send_as_is(skb, &e, &p, e.uplink, e.header, SENT);
	/* To the VXLAN device with the Ethernet header of the packet in it. */
	return skb->gso_size ? send_as_is(skb, &e, &p, c->device, e.header + OUTER(1), SENT_SEGMENTS)
			     : send(skb, &e, &p, 1);
}

/* Gives a packet without outer headers to a pod. */
inline_always int deliver(struct __sk_buff *skb, const struct received *e, const struct packet *p, enum reason why)
{
	if (!forward(skb, sizeof(struct ethernet), &e->of, &p->tuple))
		return TCX_DROP;

	struct ethernet *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end)
		return TCX_DROP;
	copy(frame, &e->of.frame, sizeof(*frame));
	count(why);
	return bpf_redirect_peer(e->of.port, 0);
}

/* A packet that arrives without a tunnel. Most are none of a pod's. */
inline_always int receive_direct(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings(DIRECT);
	struct received *found, e;
	struct packet p;
	struct key key;
	int why;

	if (!c || c->device != skb->ifindex)
		return TCX_NEXT;
	have_packet(skb, sizeof(struct ethernet));
	if (parse(skb, sizeof(struct ethernet), &p) != PLAIN)
		return TCX_NEXT;
	key = key_of(&p.tuple);
	found = bpf_map_lookup_elem(&received, &key);
	if (!found || !read_entry(&e, found, &p.tuple))
		return TCX_NEXT;
	if (!alive(now))
		return slow(STOPPED);
	if (e.of.way != DIRECT)
		return slow(OTHER_PEER);
	if (p.begin_end) {
		bpf_map_delete_elem(&received, &key);
		return slow(BEGIN_END);
	}
	if (p.ttl <= 1)
		return slow(TTL);
	why = check(&e.of, c, &p, now);
	if (why != PLAIN)
		return slow(why);
	return deliver(skb, &e, &p, RECEIVED);
}

/* Whether a packet is of the tunnel. Of others, only the headers are made one piece, if they are not yet. */
inline_always int in_tunnel(struct __sk_buff *skb, const struct control *c, struct outer *o, const int v6)
{
	const int all = HEADER(v6) + sizeof(struct ipv4) + sizeof(struct tcp);

	if (unlikely((void *)(long)skb->data + all > (void *)(long)skb->data_end)) {
		struct udp *udp;

		have(skb, sizeof(*o->ethernet) + IP(v6) + sizeof(*udp));
		udp = (void *)(long)skb->data + sizeof(*o->ethernet) + IP(v6);
		if ((void *)(udp + 1) > (void *)(long)skb->data_end || udp->destination != c->port)
			return 0;
	}
	have_packet(skb, HEADER(v6));
	return outer_of(skb, v6, o) && is_overlay(o, c, v6);
}

/* A packet that arrives by the tunnel. */
inline_always int receive(struct __sk_buff *skb, const struct control *c, const struct outer *o, const int v6)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct received *found, e;
	struct packet p;
	struct key key;
	__u64 layer3;
	int why;

	if (!alive(now))
		return slow(STOPPED);
	if (!plain_outer(skb, o, v6))
		return slow(NOT_PLAIN);
	why = parse(skb, HEADER(v6), &p);
	if (why != PLAIN)
		return slow(why);
	key = key_of(&p.tuple);
	found = bpf_map_lookup_elem(&received, &key);
	if (!found || !read_entry(&e, found, &p.tuple))
		return slow(UNKNOWN);
	if (e.of.way != v6 || !is_between(o, v6, e.peer, c->local) || !same_mac(o->inner->destination, c->mac))
		return slow(OTHER_PEER);
	/* Of several segments the kernel has checked the sum when it put them together, or it has to be computed yet. */
	if (v6 && !skb->gso_size &&
	    (p.unprotected ||
	     fold(add(covered_sum((void *)o->ethernet) + o->udp->length, covered(&p, &p.tuple, p.ttl))) != 0xffff))
		return slow(NOT_PLAIN);
	if (p.begin_end) {
		bpf_map_delete_elem(&received, &key);
		return slow(BEGIN_END);
	}
	if (p.ttl <= 1)
		return slow(TTL);
	if (ECN(v6 ? htonl(o->ip6->flow) : o->ip->tos << 20) == ECN_CE)
		return slow(CONGESTION);
	why = check(&e.of, c, &p, now);
	if (why != PLAIN)
		return slow(why);
	if (skb->gso_size && !c->segments)
		return slow(SEGMENTS);
	layer3 = p.tuple.version == 6 ? ADJ_ROOM_DECAP_L3_IPV6 : ADJ_ROOM_DECAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, -(__s32)ROOM(v6), ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO | layer3))
		return slow(NO_ROOM);
	return deliver(skb, &e, &p, RECEIVED);
}

/* At the uplink, for packets that arrive. */
SEC("tcx/ingress")
int from_wire(struct __sk_buff *skb)
{
	struct control *c;
	struct outer o;

	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return TCX_NEXT;
	if (likely(skb->protocol == htons(ETH_P_IP))) {
		c = settings(OVER_IPV4);
		if (c && in_tunnel(skb, c, &o, 0))
			return receive(skb, c, &o, 0);
	} else if (skb->protocol == htons(ETH_P_IPV6)) {
		c = settings(OVER_IPV6);
		if (c && in_tunnel(skb, c, &o, 1))
			return receive(skb, c, &o, 1);
	}
	return receive_direct(skb);
}

/* At the VXLAN device, for packets that the kernel has taken the outer headers off: those of several segments, on
 * which the kernel would leave traces of a tunnel if a program did so. Who may send to the device was the slow path's
 * to decide. */
SEC("tcx/ingress")
int from_device(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings_of(skb->ifindex);
	struct received *found, e;
	struct packet p;
	struct key key;

	if (!skb->gso_size || skb->pkt_type != PACKET_HOST || !c || !alive(now) || skb->vlan_present)
		return TCX_NEXT;
	have_packet(skb, sizeof(struct ethernet));
	if (parse(skb, sizeof(struct ethernet), &p) != PLAIN || p.begin_end || p.ttl <= 1)
		return TCX_NEXT;
	key = key_of(&p.tuple);
	found = bpf_map_lookup_elem(&received, &key);
	if (!found || !read_entry(&e, found, &p.tuple) || e.of.way != c->way || check(&e.of, c, &p, now) != PLAIN)
		return TCX_NEXT;
	return deliver(skb, &e, &p, RECEIVED_DECAPSULATED);
}

/* Asks conntrack for the connection of a packet that has passed all of netfilter. before becomes the addresses and
 * ports that the packet entered the node with. */
inline_always int connection(struct __sk_buff *skb, const struct control *c, const struct tuple *after,
			     struct tuple *before)
{
	/* What an answer looks like when it enters the node is in conntrack's table, whatever was translated. */
	const int v6 = after->version == 6;
	struct ct_tuple answer = {};
	struct bpf_ct_opts options = {.netns_id = CURRENT_NETNS, .l4proto = after->protocol};
	struct nf_conntrack_tuple *t;
	struct nf_conn *ct;
	int why = PLAIN;

	if (v6) {
		copy(answer.ipv6.source, after->destination, sizeof(answer.ipv6.source));
		copy(answer.ipv6.destination, after->source, sizeof(answer.ipv6.source));
		answer.ipv6.source_port = after->destination_port;
		answer.ipv6.destination_port = after->source_port;
	} else {
		answer.ipv4.source = UNMAPPED(after->destination);
		answer.ipv4.destination = UNMAPPED(after->source);
		answer.ipv4.source_port = after->destination_port;
		answer.ipv4.destination_port = after->source_port;
	}
	ct = bpf_skb_ct_lookup(skb, &answer, v6 ? sizeof(answer.ipv6) : sizeof(answer.ipv4), &options, sizeof(options));
	if (!ct)
		return NOT_LEARNED_CONNECTION;

	const __u64 needed = IPS_SEEN_REPLY | IPS_CONFIRMED;
	const __u64 against = IPS_SEQ_ADJUST | IPS_DYING | IPS_TEMPLATE | IPS_HELPER | IPS_OFFLOAD;
	__u64 status = ct->status;

	if ((status & (needed | against)) != needed) {
		why = NOT_LEARNED_ESTABLISHED;
	} else if (after->protocol == IPPROTO_TCP) {
		if (ct->proto.tcp.state != TCP_CONNTRACK_ESTABLISHED)
			why = NOT_LEARNED_ESTABLISHED;
		else if (c->established_ms)
			/* Conntrack does not see the acknowledgements of fast packets, and gives the connection only five
			 * minutes (nf_conntrack_tcp_timeout_unacknowledged). Done for each packet of the slow path, also when
			 * nothing is learned from it: its acknowledgement may be fast. */
			bpf_ct_change_timeout(ct, c->established_ms);
	}
	/* Of the answer: if it is a reply, the packet is from the end that opened the connection. */
	t = options.dir ? &ct->tuplehash[0].tuple : &ct->tuplehash[1].tuple;
	*before = *after;
	before->source_port = t->src.u.all;
	before->destination_port = t->dst.u.all;
	if (v6) {
		copy(before->source, t->src.u3.all, sizeof(before->source));
		copy(before->destination, t->dst.u3.all, sizeof(before->source));
	} else {
		before->source[1] = MAPPED(t->src.u3.all[0]);
		before->destination[1] = MAPPED(t->dst.u3.all[0]);
	}
	bpf_ct_release(ct);
	return why;
}

/* To be read before learn_from is: what is learned during a flush is of the generation before it, and so void. */
inline_always __u32 generation_of(const struct control *c)
{
	__u32 generation = c->generation;

	barrier();
	return generation;
}

inline_always void translate(struct entry *e, const struct tuple *after)
{
	const struct tuple *before = &e->before;
	const __u32 *from = (const void *)before->source, *to = (const void *)after->source;

	e->after = *after;
	e->translated = !same_tuple(before, after);
#pragma unroll
	for (int i = 0; i < 8; i++) /* source and destination */
		e->address_sum = add(e->address_sum, add(to[i], ~from[i]));
	e->port_sum = (__u32)after->source_port + (__u16)~before->source_port + after->destination_port +
		      (__u16)~before->destination_port;
}

inline_always struct peer *peer_of(const __u64 *address)
{
	struct subnet host = {.bits = 128};

	copy(host.address, address, sizeof(host.address));
	return bpf_map_lookup_elem(&peers, &host);
}

/* At the pod's port, for packets to the pod by the slow path. */
SEC("tcx/egress")
int learn_received(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings_of(skb->ingress_ifindex);
	struct received e = {};
	struct packet p;
	struct peer *peer;
	struct key key;
	int why;

	/* Nothing that came in otherwise than by the VXLAN device, such as from a neighbour with a forged address; without
	 * a tunnel, than by the uplink. */
	if (!c || skb->vlan_present || !alive(now))
		return TCX_NEXT;
	e.of.generation = generation_of(c);
	have_packet(skb, sizeof(struct ethernet));
	if (parse(skb, sizeof(struct ethernet), &p) != PLAIN || p.begin_end)
		return TCX_NEXT;
	why = connection(skb, c, &p.tuple, &e.of.before);
	if (why != PLAIN)
		return slow(why);
	if (now < c->learn_from)
		return slow(NOT_LEARNED_FLUSH);
	peer = peer_of(e.of.before.source);
	if (!peer || (c->way == DIRECT && !peer->direct))
		return slow(NOT_LEARNED_PEER);

	struct ethernet *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end)
		return TCX_NEXT;
	e.of.until = now + c->life;
	e.of.port = skb->ifindex;
	translate(&e.of, &p.tuple);
	copy(&e.of.frame, frame, sizeof(*frame));
	e.of.way = c->way;
	e.of.class = WITHOUT_ECN(p.class);
	copy(e.peer, peer->address, sizeof(e.peer));
	key = key_of(&e.of.before);
	bpf_map_update_elem(&received, &key, &e, 0);
	count(LEARNED_RECEIVED);
	return TCX_NEXT;
}

/* Whether a packet goes to a peer as its headers have to be, which are the packet's own without a tunnel. */
inline_always int is_to(const struct peer *peer, const struct outer *o, const struct control *c, const int way)
{
	const int v6 = way == OVER_IPV6;

	if (way == DIRECT)
		return peer->direct;
	return is_between(o, v6, c->local, peer->address) && !o->udp->sum == !v6 &&
	       (v6 || !(o->ip->fragment & ~htons(IP_DF))) && same_mac(o->inner->destination, peer->mac) &&
	       same_mac(o->inner->source, c->mac);
}

/* Keeps the headers around a packet, without what differs for each packet. */
inline_always void keep_headers(struct sent *e, const struct outer *o, const int v6)
{
	struct ipv4 *ip = (void *)(e->header + sizeof(*o->ethernet));
	struct ipv6 *ip6 = (void *)ip;
	struct udp *udp = (void *)ip + IP(v6);

	copy_long(e->header, o->ethernet, HEADER(v6));
	if (v6) {
		((__u8 *)&ip6->flow)[1] &= ~(ECN_MASK << 4); /* as a byte: the stack does not allow any address */
		ip6->length = udp->length = udp->sum = 0;
		e->sum = covered_sum(e->header);
	} else {
		ip->tos &= ~ECN_MASK;
		ip->total = ip->id = ip->sum = 0;
		e->sum = words_sum(ip, sizeof(*ip) / 2);
	}
}

inline_always int learn(struct __sk_buff *skb, const int way)
{
	const int v6 = way == OVER_IPV6, at = way == DIRECT ? sizeof(struct ethernet) : HEADER(v6);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings(way);
	struct sent e = {};
	struct received *r;
	struct tuple answer;
	struct packet p;
	struct peer *peer;
	struct key key;
	struct outer o;
	int why;

	if (!c || !alive(now) || (way == DIRECT && c->device != skb->ifindex))
		return TCX_NEXT;
	e.of.generation = generation_of(c);
	have_packet(skb, at);
	if (way != DIRECT && (!outer_of(skb, v6, &o) || !is_overlay(&o, c, v6)))
		return TCX_NEXT;
	if (parse(skb, at, &p) != PLAIN || p.begin_end)
		return TCX_NEXT;
	peer = peer_of(p.tuple.destination);
	if (!peer && way == DIRECT)
		return TCX_NEXT; /* to a host that is no pod */
	/* Where the pod is, the answers of the other end have shown. */
	answer = p.tuple;
	copy(answer.source, p.tuple.destination, sizeof(answer.source));
	copy(answer.destination, p.tuple.source, sizeof(answer.source));
	answer.source_port = p.tuple.destination_port;
	answer.destination_port = p.tuple.source_port;
	key = key_of(&answer);
	r = bpf_map_lookup_elem(&received, &key);
	if (r && !same_tuple(&r->of.before, &answer))
		r = 0;
	why = connection(skb, c, &p.tuple, &e.of.before);
	if (why != PLAIN)
		return slow(why);
	if (now < c->learn_from)
		return slow(NOT_LEARNED_FLUSH);
	if (!peer || !is_to(peer, &o, c, way))
		return slow(NOT_LEARNED_PEER);
	if (!r || r->of.generation != e.of.generation || now >= r->of.until + (PORT_LIVES - 1) * c->life)
		return slow(NOT_LEARNED_PORT);

	e.of.until = now + c->life;
	e.of.port = r->of.port;
	translate(&e.of, &p.tuple);
	copy(e.of.frame.destination, r->of.frame.source, sizeof(e.of.frame.source));
	copy(e.of.frame.source, r->of.frame.destination, sizeof(e.of.frame.source));
	e.of.frame.type = htons(p.tuple.version == 6 ? ETH_P_IPV6 : ETH_P_IP);
	e.of.way = way;
	e.of.class = WITHOUT_ECN(p.class);
	e.uplink = skb->ifindex;
	e.mark = skb->mark;
	e.priority = skb->priority;
	if (way == DIRECT) {
		struct ethernet *frame = (void *)(long)skb->data;

		if ((void *)(frame + 1) > (void *)(long)skb->data_end)
			return TCX_NEXT;
		copy(e.header, frame, sizeof(*frame));
	} else {
		keep_headers(&e, &o, v6);
	}
	key = key_of(&e.of.before);
	bpf_map_update_elem(&sent, &key, &e, 0);
	count(LEARNED_SENT);
	return TCX_NEXT;
}

/* At the uplink, for packets that the slow path sends. */
SEC("tcx/egress")
int learn_sent(struct __sk_buff *skb)
{
	if (skb->tc_index == FAST) {
		skb->tc_index = 0;
		return TCX_NEXT;
	}
	/* A packet that the VXLAN device made has no interface that it came in by (skb_scrub_packet); one that a pod made,
	 * whatever it looks like, has. One that came in by the uplink is no pod's. */
	if (skb->ingress_ifindex)
		return skb->ingress_ifindex == skb->ifindex ? TCX_NEXT : learn(skb, DIRECT);
	if (skb->protocol == htons(ETH_P_IP))
		return learn(skb, 0);
	return skb->protocol == htons(ETH_P_IPV6) ? learn(skb, 1) : TCX_NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
