/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs use of the kernel's interface, and no more: types, headers of packets, helper functions by their
 * numbers (include/uapi/linux/bpf.h), and the few members of conntrack's structures that are read. The loader relocates
 * the latter to the running kernel's layout (CO-RE), so only the names and types of the members have to be right here.
 */
#ifndef SELVAGE_KERNEL_H
#define SELVAGE_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;

#define SEC(name) __attribute__((section(name), used))
#define inline_always static inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define barrier() __asm__ volatile("" ::: "memory")
#define copy(to, from, n) __builtin_memcpy(to, from, n)
/* The same for packets: the machines for which this is built allow any address there; the compiler cannot know. */
#define copy_long(to, from, n) __builtin_memcpy((__u64 *)(to), (const __u64 *)(from), n)

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "built for little endian machines only"
#endif
#define htons(x) ((__be16)__builtin_bswap16(x))
#define ntohs(x) ((__u16)__builtin_bswap16(x))
#define htonl(x) ((__be32)__builtin_bswap32(x))

/* Maps are declared as the loader expects: numbers are lengths of arrays. */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, type) type *name

enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LRU_HASH = 9, MAP_LPM_TRIE = 11, NO_PREALLOC = 1 };

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

/* Verdicts of a program at a tcx hook. The legacy tc reads -1 in the same way: go on with the next program. */
enum { TCX_NEXT = -1, TCX_DROP = 2 };

enum { PACKET_HOST = 0 }; /* pkt_type: the frame is addressed to the interface it came in by */

enum { ADJ_ROOM_MAC = 1 };
enum {
	ADJ_ROOM_FIXED_GSO = 1 << 0,
	ADJ_ROOM_ENCAP_L3_IPV4 = 1 << 1,
	ADJ_ROOM_ENCAP_L3_IPV6 = 1 << 2,
	ADJ_ROOM_ENCAP_L4_UDP = 1 << 4,
	ADJ_ROOM_ENCAP_L2_ETH = 1 << 6,
	ADJ_ROOM_DECAP_L3_IPV4 = 1 << 7,
	ADJ_ROOM_DECAP_L3_IPV6 = 1 << 8,
};
#define ADJ_ROOM_ENCAP_L2(length) ((__u64)(length) << 56)

enum { CSUM_PSEUDO_HDR = 1 << 4, CSUM_MARK_MANGLED_0 = 1 << 5 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static long (*bpf_l4_csum_replace)(struct __sk_buff *, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_skb_pull_data)(struct __sk_buff *, __u32 length) = (void *)39;
static __s64 (*bpf_csum_update)(struct __sk_buff *, __u32 difference) = (void *)40;
static long (*bpf_skb_adjust_room)(struct __sk_buff *, __s32 difference, __u32 mode, __u64 flags) = (void *)50;
static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;

/* Packets. None of these has padding. A field is read as a whole: the machines for which this is built allow any
 * address. */

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct ipv4 {
	__u8 version_length;
	__u8 tos;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 sum;
	__be32 source;
	__be32 destination;
};

struct ipv6 {
	__be32 flow; /* version, traffic class and flow label */
	__be16 length; /* of what follows */
	__u8 next;
	__u8 hop_limit;
	__u64 source[2];
	__u64 destination[2];
};

struct udp {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 sum;
};

struct tcp {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 length; /* of the header, in the upper half, in units of 4 bytes */
	__u8 flags;
	__be16 window;
	__be16 sum;
	__be16 urgent;
};

struct vxlan {
	__be32 flags;
	__be32 vni; /* in the upper 24 bits */
};

enum { IPPROTO_TCP = 6, IPPROTO_UDP = 17 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };
enum { ETH_P_IP = 0x0800, ETH_P_IPV6 = 0x86dd };
enum { IP_DF = 0x4000 };
enum { ECN_MASK = 3, ECN_CE = 3, ECN_ECT_0 = 2 };
#define VXLAN_HAS_VNI 0x08000000u

/* Conntrack: net/netfilter/nf_conntrack_bpf.c, include/net/netfilter/nf_conntrack.h. */

enum {
	IPS_SEEN_REPLY = 1 << 1,
	IPS_CONFIRMED = 1 << 3,
	IPS_SEQ_ADJUST = 1 << 6,
	IPS_DYING = 1 << 9,
	IPS_TEMPLATE = 1 << 11,
	IPS_HELPER = 1 << 13,
	IPS_OFFLOAD = 1 << 14,
};
enum { TCP_CONNTRACK_ESTABLISHED = 3 };

#define RELOCATED __attribute__((preserve_access_index))

struct nf_conntrack_tuple {
	struct {
		union {
			__be32 all[4];
		} u3;
		union {
			__be16 all;
		} u;
	} src;
	struct {
		union {
			__be32 all[4];
		} u3;
		union {
			__be16 all;
		} u;
	} dst;
} RELOCATED;

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} RELOCATED;

struct ip_ct_tcp {
	__u8 state;
} RELOCATED;

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} RELOCATED;

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
	union nf_conntrack_proto proto;
} RELOCATED;

struct ct_tuple {
	union {
		struct {
			__be32 source;
			__be32 destination;
			__be16 source_port;
			__be16 destination_port;
		} ipv4;
		struct {
			__u64 source[2];
			__u64 destination[2];
			__be16 source_port;
			__be16 destination_port;
		} __attribute__((packed, aligned(4))) ipv6;
	};
};

struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};
enum { CURRENT_NETNS = -1 };

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *, struct ct_tuple *, __u32 tuple_size, struct bpf_ct_opts *,
					 __u32 opts_size) __attribute__((section(".ksyms")));
extern void bpf_ct_release(struct nf_conn *) __attribute__((section(".ksyms")));
extern int bpf_ct_change_timeout(struct nf_conn *, __u32 milliseconds) __attribute__((section(".ksyms")));

#endif
