// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A fast path for packets between pods on two nodes, over VXLAN on IPv4.
 *
 *   pod ── eth0 ═ veth ──▶ from_pod ─────── 50 bytes on ──────▶ uplink                    sending node
 *                   │                                             ▲
 *                   └▶ bridge, routing, netfilter, VXLAN device ──┴─ learn_sent
 *
 *   uplink ─▶ from_wire ─────────── 50 bytes off ─────────────▶ veth ═ eth0 ── pod        receiving node
 *                   │                                             ▲
 *                   └▶ UDP, VXLAN device, netfilter, bridge ──────┴─ learn_received
 *                             └▶ from_device
 *
 * The upper path of each pair is fast, the lower one slow. The slow path decides, always. The fast path only repeats,
 * for at most a second, what the slow path did with an earlier packet of the same connection. The two learning programs
 * see a packet after all of the slow path: one that netfilter drops, the routes lead elsewhere, or the bridge gives to
 * another port never gets there. What they store for sending is the packet's own header, so whatever the kernel put
 * there (addresses, TTL, DF, source port) is what fast packets carry.
 *
 * Only packets of established connections are fast, only plain ones, and only while the daemon is alive. Everything
 * else, and everything that is in any doubt, takes the slow path. The programs drop nothing.
 */
#include "kernel.h"

/* For so many lives of an entry it is known behind which port a pod is. */
#define PORT_LIVES 30

#define FAST 0x73656c76 /* marks a fast packet for learn_sent, which it meets at the uplink: nothing to learn from it */

/* The headers around a packet in VXLAN. */
#define OUTER (sizeof(struct ethernet) + sizeof(struct ipv4) + sizeof(struct udp) + sizeof(struct vxlan))
#define HEADER (OUTER + sizeof(struct ethernet))
#define ROOM (HEADER - sizeof(struct ethernet)) /* by how much a packet grows */

/* What became of packets. from_pod counts each IPv4 packet of a pod once, from_wire each packet of the overlay that
 * arrives. The same packet may be counted again by from_device, and by the program that learns from it. */
enum reason {
	SENT,                    /* fast, to another node */
	RECEIVED,                /* fast, from another node */
	RECEIVED_DECAPSULATED,   /* fast, behind the VXLAN device */
	STOPPED,                 /* slow: no sign of life from the daemon */
	NOT_PLAIN,               /* slow: not TCP or UDP on IPv4, or a fragment, with options, a VLAN tag or a wrong length */
	TTL,                     /* slow: it is about to expire */
	TOO_LONG,                /* slow: longer than the overlay's MTU */
	BEGIN_END,               /* slow: TCP with SYN, FIN or RST */
	CONGESTION,              /* slow: the underlay marked it (ECN) */
	SEGMENTS,                /* slow up to the VXLAN device: several segments in one */
	UNKNOWN,                 /* slow: nothing is known of the connection */
	EXPIRED,                 /* slow: it was learned more than a second ago */
	FLUSHED,                 /* slow: it was learned before the last flush */
	OTHER_PORT,              /* slow: sent by another port than the pod's */
	OTHER_PEER,              /* slow: sent by another node than the one that has the sender's subnet */
	OTHER_FRAME,             /* slow: other MAC addresses, or another DSCP, than was learned */
	NO_ROOM,                 /* slow: the kernel has no room for the headers */
	LEARNED_SENT,
	LEARNED_RECEIVED,
	NOT_LEARNED_FLUSH,       /* too soon after a flush */
	NOT_LEARNED_PEER,        /* the other end is in no peer's subnet, or the header is not as for that peer */
	NOT_LEARNED_CONNECTION,  /* conntrack does not know the connection */
	NOT_LEARNED_ESTABLISHED, /* not established, or a helper has to see each packet */
	NOT_LEARNED_PORT,        /* the pod's port is not known: nothing was received by the slow path of late */
	REASONS,
};

struct control {
	__u64 learn_from;     /* CLOCK_MONOTONIC, ns: nothing is learned before */
	__u64 life;	      /* of what is learned, ns; then the slow path decides again */
	__u32 generation;     /* counts flushes */
	__u32 device;	      /* ifindex of the VXLAN device */
	__u32 mtu;	      /* of the overlay */
	__u32 established_ms; /* conntrack's timeout of an established TCP connection; 0: leave it */
	__be32 local;	      /* this node's address on the underlay */
	__be32 vni;	      /* as in the header */
	__be16 port;
	__u8 mac[6]; /* of the VXLAN device */
	__u8 direct; /* several segments in one are fast from the uplink on, not only behind the VXLAN device */
	__u8 pad[7];
};

struct tuple {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

/* What both kinds of entries have. */
struct entry {
	struct tuple before;	/* its own key */
	__u64 until;		/* CLOCK_MONOTONIC, ns */
	__u32 generation;
	__u32 port;		/* ifindex of the pod's port */
	struct tuple after;	/* the addresses and ports that the packet leaves with */
	__u32 address_sum;	/* the differences that these make to checksums */
	__u32 port_sum;
	struct ethernet frame;	/* between pod and port: as the pod sends or gets it */
	__u8 dscp;		/* of the packet that was learned from */
	__u8 translated;	/* after is not the key */
};

struct sent {
	struct entry of;
	__u32 uplink; /* ifindex */
	__u32 mark;
	__u32 priority;
	__u32 sum; /* of the outer IP header, without what differs for each packet */
	__u8 header[HEADER];
};

struct received {
	struct entry of;
	__be32 peer;
	__u8 pad[4];
};

struct subnet {
	__u32 bits;
	__be32 address;
};

struct peer {
	__be32 address;
	__u8 mac[6];
	__u8 pad[2];
};

struct {
	NUMBER(type, MAP_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
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
	TYPE(key, struct tuple);
	TYPE(value, struct sent);
} sent SEC(".maps");

/* By the addresses and ports with which packets arrive. */
struct {
	NUMBER(type, MAP_LRU_HASH);
	NUMBER(max_entries, 65536);
	TYPE(key, struct tuple);
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

inline_always struct control *settings(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&control, &key);
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

/* Adds up an IPv4 header without options. */
inline_always __u32 header_sum(const struct ipv4 *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
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

inline_always int same_tuple(const struct tuple *a, const struct tuple *b)
{
	return *(const __u64 *)a == *(const __u64 *)b && *((const __u64 *)a + 1) == *((const __u64 *)b + 1);
}

/* Has the first n bytes where programs can read them, or as many as there are. */
inline_always void have(struct __sk_buff *skb, __u32 n)
{
	if ((void *)(long)skb->data + n > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, skb->len < n ? skb->len : n);
}

struct packet {
	struct tuple key;
	__u8 tos;
	__u8 ttl;
	__u8 begin_end;
};

#define PLAIN REASONS /* no reason against the fast path */

/* Reads the IPv4 packet at an offset. It has to fill the frame to the last byte. */
inline_always int parse(struct __sk_buff *skb, const __u32 at, __u32 mtu, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv4 *ip = data + at;
	struct udp *udp = (void *)(ip + 1);
	__u32 longest, total, header;

	if ((void *)(udp + 1) > end)
		return NOT_PLAIN;
	total = ntohs(ip->total);
	if (ip->version_length != 0x45 || (ip->fragment & ~htons(IP_DF)) || at + total != skb->len)
		return NOT_PLAIN;
	p->key.source = ip->source;
	p->key.destination = ip->destination;
	p->key.source_port = udp->source;
	p->key.destination_port = udp->destination;
	p->key.protocol = ip->protocol;
	p->key.pad[0] = p->key.pad[1] = p->key.pad[2] = 0;
	p->tos = ip->tos;
	p->ttl = ip->ttl;
	p->begin_end = 0;
	if (ip->protocol == IPPROTO_UDP) {
		if (ntohs(udp->length) + sizeof(*ip) != total)
			return NOT_PLAIN;
		header = sizeof(*ip) + sizeof(*udp);
	} else if (ip->protocol == IPPROTO_TCP) {
		struct tcp *tcp = (void *)udp;

		if ((void *)(tcp + 1) > end)
			return NOT_PLAIN;
		header = (tcp->length >> 4) * 4;
		if (header < sizeof(*tcp) || sizeof(*ip) + header > total)
			return NOT_PLAIN;
		header += sizeof(*ip);
		p->begin_end = tcp->flags & (TCP_SYN | TCP_FIN | TCP_RST);
		if (!p->begin_end && !(tcp->flags & TCP_ACK))
			return NOT_PLAIN;
	} else {
		return NOT_PLAIN;
	}
	longest = skb->gso_size ? header + skb->gso_size : total;
	if (longest > mtu)
		return TOO_LONG;
	return PLAIN;
}

/* Reads the headers in front of a packet that is ours by all of them: from this node or to it. */
inline_always int parse_outer(struct __sk_buff *skb, const struct control *c)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *ethernet = data;
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct udp *udp = (void *)(ip + 1);
	struct vxlan *vxlan = (void *)(udp + 1);
	struct ethernet *inner = (void *)(vxlan + 1);

	return (void *)(inner + 1) <= end && skb->protocol == htons(ETH_P_IP) && !skb->vlan_present &&
	       ethernet->type == htons(ETH_P_IP) && ip->version_length == 0x45 && ip->protocol == IPPROTO_UDP &&
	       udp->destination == c->port && vxlan->flags == htonl(VXLAN_HAS_VNI) && vxlan->vni == c->vni;
}

/* The lengths and checksums of these headers, and what else the kernel checks. A UDP checksum is the slow path's to
 * verify: RFC 7348 wants none, and the kernel sends none. */
inline_always int plain_outer(struct __sk_buff *skb)
{
	struct ethernet *ethernet = (void *)(long)skb->data;
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct udp *udp = (void *)(ip + 1);
	struct vxlan *vxlan = (void *)(udp + 1);
	struct ethernet *inner = (void *)(vxlan + 1);

	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return 0;
	return sizeof(*ethernet) + ntohs(ip->total) == skb->len && ntohs(udp->length) + sizeof(*ip) == ntohs(ip->total) &&
	       !(ip->fragment & ~htons(IP_DF)) && udp->sum == 0 && fold(header_sum(ip)) == 0xffff &&
	       inner->type == htons(ETH_P_IP);
}

/*
 * Has a copy of an entry, and whether it is the whole one: the kernel may give the memory of an entry to another
 * connection while a program reads it (LRU maps are preallocated, kernel/bpf/hashtab.c). The key is written first.
 */
#define read_entry(to, entry, key)                           \
	({                                                   \
		copy(to, entry, sizeof(*(to)));              \
		barrier();                                   \
		same_tuple(&(entry)->of.before, key);        \
	})

/* Whether an entry is still in force. */
inline_always int check(const struct entry *e, const struct control *c, const struct packet *p, __u64 now)
{
	if (e->generation != c->generation)
		return FLUSHED;
	if (now >= e->until)
		return EXPIRED;
	if ((p->tos & ~ECN_MASK) != e->dscp)
		return OTHER_FRAME;
	return PLAIN;
}

/* Does to the packet at an offset what routers and NAT do. Returns 0 if it cannot. */
inline_always int forward(struct __sk_buff *skb, const __u32 at, const struct entry *e, __u8 protocol)
{
	void *data = (void *)(long)skb->data;
	struct ipv4 *ip = data + at;
	struct udp *udp = (void *)(ip + 1);
	__u32 sum;

	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return 0;
	/* As ip_decrease_ttl in include/net/ip.h, so that the checksum is the same bit for bit. */
	ip->ttl -= 1;
	sum = ip->sum + htons(0x0100);
	ip->sum = sum + (sum >= 0xffff);
	if (!e->translated)
		return 1;
	ip->sum = ~fold(add((__u16)~ip->sum, e->address_sum));
	ip->source = e->after.source;
	ip->destination = e->after.destination;
	udp->source = e->after.source_port;
	udp->destination = e->after.destination_port;

	/* A checksum that is left to the interface is of the addresses only, and so far. */
	__u32 where = at + sizeof(*ip) + (protocol == IPPROTO_TCP ? __builtin_offsetof(struct tcp, sum)
								  : __builtin_offsetof(struct udp, sum));
	__u64 zero = protocol == IPPROTO_TCP ? 0 : CSUM_MARK_MANGLED_0;

	return !bpf_l4_csum_replace(skb, where, 0, e->address_sum, CSUM_PSEUDO_HDR | zero) &&
	       !bpf_l4_csum_replace(skb, where, 0, e->port_sum, zero);
}

/* At the pod's port, for packets from the pod. */
SEC("tcx/ingress")
int from_pod(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings();
	struct sent *found, e;
	struct packet p;
	int why;

	if (skb->protocol != htons(ETH_P_IP))
		return TCX_NEXT;
	if (!c || !alive(now))
		return slow(STOPPED);
	if (skb->vlan_present)
		return slow(NOT_PLAIN);
	have(skb, sizeof(struct ethernet) + sizeof(struct ipv4) + sizeof(struct tcp));
	why = parse(skb, sizeof(struct ethernet), c->mtu, &p);
	if (why != PLAIN)
		return slow(why);
	found = bpf_map_lookup_elem(&sent, &p.key);
	if (!found || !read_entry(&e, found, &p.key))
		return slow(UNKNOWN);
	if (skb->ifindex != e.of.port)
		return slow(OTHER_PORT);
	if (p.begin_end) {
		bpf_map_delete_elem(&sent, &p.key);
		return slow(BEGIN_END);
	}
	if (p.ttl <= 1)
		return slow(TTL);
	why = check(&e.of, c, &p, now);
	if (why != PLAIN)
		return slow(why);

	struct ethernet *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end || !same_frame(frame, &e.of.frame))
		return slow(OTHER_FRAME);

	if (bpf_skb_adjust_room(skb, ROOM, ADJ_ROOM_MAC,
				ADJ_ROOM_FIXED_GSO | ADJ_ROOM_ENCAP_L3_IPV4 | ADJ_ROOM_ENCAP_L4_UDP | ADJ_ROOM_ENCAP_L2_ETH |
					ADJ_ROOM_ENCAP_L2(sizeof(struct ethernet))))
		return slow(NO_ROOM);
	/* From here on the packet cannot take the slow path. What can still fail are checks for the verifier only. */
	if (!forward(skb, HEADER, &e.of, p.key.protocol))
		return TCX_DROP;

	struct ethernet *outer = (void *)(long)skb->data;
	struct ipv4 *ip = (void *)(outer + 1);
	struct udp *udp = (void *)(ip + 1);
	__u32 key = 0, ecn, sum, *id = bpf_map_lookup_elem(&identification, &key);

	if ((void *)outer + HEADER > (void *)(long)skb->data_end || !id)
		return TCX_DROP;
	copy(outer, e.header, HEADER);
	/* As INET_ECN_encapsulate: the underlay sees the packet's ECN, but for CE, which is not its own. */
	ecn = (p.tos & ECN_MASK) == ECN_CE ? ECN_ECT_0 : p.tos & ECN_MASK;
	ip->tos |= ecn;
	ip->total = htons(skb->len - sizeof(*outer));
	ip->id = htons(*id);
	*id += skb->gso_segs > 1 ? skb->gso_segs : 1;
	udp->length = htons(skb->len - sizeof(*outer) - sizeof(*ip));
	sum = e.sum + ip->total + ip->id + htons(ecn);
	ip->sum = ~fold(sum);
	skb->cb[0] = FAST;
	skb->mark = e.mark;
	skb->priority = e.priority;
	count(SENT);
	return bpf_redirect(e.uplink, 0);
}

/* Gives a packet without its outer headers to a pod. */
inline_always int deliver(struct __sk_buff *skb, const struct received *e, __u8 protocol, enum reason why)
{
	if (!forward(skb, sizeof(struct ethernet), &e->of, protocol))
		return TCX_DROP;

	struct ethernet *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end)
		return TCX_DROP;
	copy(frame, &e->of.frame, sizeof(*frame));
	count(why);
	return bpf_redirect_peer(e->of.port, 0);
}

/* At the uplink, for packets that arrive. */
SEC("tcx/ingress")
int from_wire(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings();
	struct received *found, e;
	struct packet p;
	int why;

	if (skb->pkt_type != PACKET_HOST || !c)
		return TCX_NEXT;
	have(skb, HEADER + sizeof(struct ipv4) + sizeof(struct tcp));
	if (!parse_outer(skb, c))
		return TCX_NEXT; /* nothing of the overlay's */
	if (!alive(now))
		return slow(STOPPED);
	if (!plain_outer(skb))
		return slow(NOT_PLAIN);
	why = parse(skb, HEADER, c->mtu, &p);
	if (why != PLAIN)
		return slow(why);

	struct ethernet *outer = (void *)(long)skb->data;
	struct ipv4 *ip = (void *)(outer + 1);
	struct ethernet *inner = (void *)outer + OUTER;

	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return slow(NOT_PLAIN);
	found = bpf_map_lookup_elem(&received, &p.key);
	if (!found || !read_entry(&e, found, &p.key))
		return slow(UNKNOWN);
	if (ip->source != e.peer || ip->destination != c->local || !same_mac(inner->destination, c->mac))
		return slow(OTHER_PEER);
	if (p.begin_end) {
		bpf_map_delete_elem(&received, &p.key);
		return slow(BEGIN_END);
	}
	if (p.ttl <= 1)
		return slow(TTL);
	if ((ip->tos & ECN_MASK) == ECN_CE)
		return slow(CONGESTION);
	why = check(&e.of, c, &p, now);
	if (why != PLAIN)
		return slow(why);
	if (skb->gso_size && !c->direct)
		return slow(SEGMENTS);
	if (bpf_skb_adjust_room(skb, -(__s32)ROOM, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO))
		return slow(NO_ROOM);
	return deliver(skb, &e, p.key.protocol, RECEIVED);
}

/* At the VXLAN device, for packets that the kernel has taken the outer headers off: those of several segments, on
 * which the kernel would leave traces of a tunnel if a program did so. Who may send to the device was the slow path's
 * to decide. */
SEC("tcx/ingress")
int from_device(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings();
	struct received *found, e;
	struct packet p;
	int why;

	if (!skb->gso_size || skb->pkt_type != PACKET_HOST || !c || !alive(now) || skb->protocol != htons(ETH_P_IP) ||
	    skb->vlan_present)
		return TCX_NEXT;
	have(skb, sizeof(struct ethernet) + sizeof(struct ipv4) + sizeof(struct tcp));
	if (parse(skb, sizeof(struct ethernet), c->mtu, &p) != PLAIN || p.begin_end || p.ttl <= 1)
		return TCX_NEXT;
	found = bpf_map_lookup_elem(&received, &p.key);
	if (!found || !read_entry(&e, found, &p.key))
		return TCX_NEXT;
	why = check(&e.of, c, &p, now);
	if (why != PLAIN)
		return TCX_NEXT;
	return deliver(skb, &e, p.key.protocol, RECEIVED_DECAPSULATED);
}

/* Asks conntrack for the connection of a packet that has passed all of netfilter. before becomes the addresses and
 * ports that the packet entered the node with. */
inline_always int connection(struct __sk_buff *skb, const struct control *c, const struct tuple *after,
			     struct tuple *before)
{
	/* What an answer looks like when it enters the node is in conntrack's table, whatever was translated. */
	struct ct_tuple answer = {after->destination, after->source, after->destination_port, after->source_port};
	struct bpf_ct_opts options = {.netns_id = CURRENT_NETNS, .l4proto = after->protocol};
	struct nf_conn *ct = bpf_skb_ct_lookup(skb, &answer, sizeof(answer), &options, sizeof(options));
	int why = PLAIN;

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
	*before = *after;
	if (options.dir) { /* of the answer: the packet is from the end that opened the connection */
		before->source = ct->tuplehash[0].tuple.src.u3.ip;
		before->destination = ct->tuplehash[0].tuple.dst.u3.ip;
		before->source_port = ct->tuplehash[0].tuple.src.u.all;
		before->destination_port = ct->tuplehash[0].tuple.dst.u.all;
	} else {
		before->source = ct->tuplehash[1].tuple.src.u3.ip;
		before->destination = ct->tuplehash[1].tuple.dst.u3.ip;
		before->source_port = ct->tuplehash[1].tuple.src.u.all;
		before->destination_port = ct->tuplehash[1].tuple.dst.u.all;
	}
	bpf_ct_release(ct);
	return why;
}

inline_always void translate(struct entry *e, const struct tuple *before, const struct tuple *after)
{
	e->after = *after;
	e->translated = before->source != after->source || before->destination != after->destination ||
			before->source_port != after->source_port || before->destination_port != after->destination_port;
	e->address_sum = add(add(after->source, ~before->source), add(after->destination, ~before->destination));
	e->port_sum = (__u32)after->source_port + (__u16)~before->source_port + after->destination_port +
		      (__u16)~before->destination_port;
}

inline_always struct peer *peer_of(__be32 address)
{
	struct subnet host = {.bits = 32, .address = address};

	return bpf_map_lookup_elem(&peers, &host);
}

/* At the pod's port, for packets to the pod by the slow path. */
SEC("tcx/egress")
int learn_received(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings();
	struct received e = {};
	struct tuple before;
	struct packet p;
	struct peer *peer;
	int why;

	/* Nothing that came in otherwise than by the VXLAN device, such as from a neighbour with a forged address. */
	if (!c || skb->ingress_ifindex != c->device || skb->protocol != htons(ETH_P_IP) || skb->vlan_present || !alive(now))
		return TCX_NEXT;
	have(skb, sizeof(struct ethernet) + sizeof(struct ipv4) + sizeof(struct tcp));
	if (parse(skb, sizeof(struct ethernet), c->mtu, &p) != PLAIN || p.begin_end)
		return TCX_NEXT;
	why = connection(skb, c, &p.key, &before);
	if (why != PLAIN)
		return slow(why);
	if (now < c->learn_from)
		return slow(NOT_LEARNED_FLUSH);
	peer = peer_of(before.source);
	if (!peer)
		return slow(NOT_LEARNED_PEER);

	struct ethernet *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end)
		return TCX_NEXT;
	e.of.until = now + c->life;
	e.of.generation = c->generation;
	e.of.port = skb->ifindex;
	e.of.before = before;
	translate(&e.of, &before, &p.key);
	copy(&e.of.frame, frame, sizeof(*frame));
	e.of.dscp = p.tos & ~ECN_MASK;
	e.peer = peer->address;
	bpf_map_update_elem(&received, &before, &e, 0);
	count(LEARNED_RECEIVED);
	return TCX_NEXT;
}

/* At the uplink, for packets that the slow path sends. */
SEC("tcx/egress")
int learn_sent(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct control *c = settings();
	struct tuple before, answer;
	struct sent e = {};
	struct received *r;
	struct packet p;
	struct peer *peer;
	int why;

	if (skb->cb[0] == FAST) {
		skb->cb[0] = 0;
		return TCX_NEXT;
	}
	/* A packet that the VXLAN device made has no interface that it came in by (skb_scrub_packet); one that a pod made
	 * to look like that has. */
	if (!c || skb->ingress_ifindex || !alive(now))
		return TCX_NEXT;
	have(skb, HEADER + sizeof(struct ipv4) + sizeof(struct tcp));
	if (!parse_outer(skb, c) || parse(skb, HEADER, c->mtu, &p) != PLAIN || p.begin_end)
		return TCX_NEXT;
	why = connection(skb, c, &p.key, &before);
	if (why != PLAIN)
		return slow(why);
	if (now < c->learn_from)
		return slow(NOT_LEARNED_FLUSH);
	peer = peer_of(p.key.destination);
	if (!peer)
		return slow(NOT_LEARNED_PEER);

	struct ethernet *outer = (void *)(long)skb->data;
	struct ipv4 *ip = (void *)(outer + 1);
	struct udp *udp = (void *)(ip + 1);
	struct ethernet *inner = (void *)outer + OUTER;

	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return TCX_NEXT;
	if (ip->source != c->local || ip->destination != peer->address || (ip->fragment & ~htons(IP_DF)) || udp->sum ||
	    !same_mac(inner->destination, peer->mac) || !same_mac(inner->source, c->mac) ||
	    inner->type != htons(ETH_P_IP))
		return slow(NOT_LEARNED_PEER);

	/* Where the pod is, the answers of the other end have shown. */
	answer.source = p.key.destination;
	answer.destination = p.key.source;
	answer.source_port = p.key.destination_port;
	answer.destination_port = p.key.source_port;
	answer.protocol = p.key.protocol;
	answer.pad[0] = answer.pad[1] = answer.pad[2] = 0;
	r = bpf_map_lookup_elem(&received, &answer);
	if (!r || r->of.generation != c->generation || now >= r->of.until + (PORT_LIVES - 1) * c->life)
		return slow(NOT_LEARNED_PORT);

	e.of.until = now + c->life;
	e.of.generation = c->generation;
	e.of.port = r->of.port;
	e.of.before = before;
	translate(&e.of, &before, &p.key);
	copy(e.of.frame.destination, r->of.frame.source, sizeof(e.of.frame.source));
	copy(e.of.frame.source, r->of.frame.destination, sizeof(e.of.frame.source));
	e.of.frame.type = htons(ETH_P_IP);
	e.of.dscp = p.tos & ~ECN_MASK;
	e.uplink = skb->ifindex;
	e.mark = skb->mark;
	e.priority = skb->priority;
	copy(e.header, outer, HEADER);
	ip = (void *)(e.header + sizeof(*outer));
	ip->tos &= ~ECN_MASK;
	ip->total = ip->id = ip->sum = 0;
	e.sum = header_sum(ip);
	bpf_map_update_elem(&sent, &before, &e, 0);
	count(LEARNED_SENT);
	return TCX_NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
