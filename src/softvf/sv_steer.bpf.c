/*
 * sv_steer.bpf.c - the XDP side of ibv_create_flow(): a frame that matches a rule goes to the AF_XDP socket, with the number of
 * its QP in front (XDP metadata) if there can be several, everything else to the kernel. "make steer-skeleton" turns it into
 * sv_steer.lskel.h, which is in the tree so that building needs neither clang nor bpftool.
 *
 * Runs once for each frame on the sender's way: keys are put together in registers (narrow stores that are read back wide stall),
 * and IPv4, which nearly everything is, has a path of its own: what matched lately is found without a search. Each CPU remembers for
 * itself, an entry is one cache line, and it holds as long as no rule has come or gone.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "sv_steer.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SV_FLOWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, union sv_key4);
	__type(value, __u32);
} flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SV_FLOWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, union sv_key6);
	__type(value, __u32);
} flows6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct recent {
	__u64 q[4];
	__u32 gen, qp; /* gen 0: empty */
	__u32 meta;
	__u32 pad;
	__u64 pads[2];
} __attribute__((aligned(64)));

struct recents {
	struct recent r[SV_RECENT];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recents);
} recent SEC(".maps");

/* Written by the library through its mapping: the idle half first, then `active`, so that a frame never sees half a change. */
struct sv_steer_conf conf[2] __attribute__((aligned(64)));
volatile __u32 active;
volatile __u32 gen; /* never 0 once frames come; another after every change of the rules, before the change is reported as done */

/* Fields of the third and fourth word of a key by their place in memory. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define AT(v, octet, size) ((__u64)(v) << (octet) * 8)
#else
#define AT(v, octet, size) ((__u64)(v) << (8 - (octet) - (size)) * 8)
#endif
#define U16(p) (*(__u16 *)(p))
#define U32(p) (*(__u32 *)(p))

struct words { /* octets of a packet are aligned to two at best */
	__u64 v;
} __attribute__((packed));
#define U64(p) (((struct words *)(p))->v)

static __always_inline __u32 *find4(struct sv_steer_conf *c, __u32 l3, __u64 q0, __u64 q1, __u64 q2, __u64 q3)
{
	union sv_key4 key;
	__u32 *hit;
	int i;

	for (i = 0; i < SV_NCLASS; i++) {
		struct sv_class *k = &c->c[i];

		if (i >= c->n)
			break;
		if (k->l3 != 0 && k->l3 != l3)
			continue;
		key.q[0] = q0 & k->mask4.q[0];
		key.q[1] = q1 & k->mask4.q[1];
		key.q[2] = q2 & k->mask4.q[2];
		key.q[3] = (q3 & k->mask4.q[3]) | k->slot4;
		hit = bpf_map_lookup_elem(&flows4, &key);
		if (hit)
			return hit;
	}
	return NULL;
}

static __always_inline __u32 *find6(struct sv_steer_conf *c, union sv_key4 *p, union sv_key6 *p6)
{
	__u32 *hit = NULL;
	int i;

	for (i = 0; i < SV_NCLASS; i++) {
		struct sv_class *k = &c->c[i];

		if (i >= c->n)
			break;
		if (k->l3 == 6) {
			union sv_key6 *m = &c->mask6[i], key;

			key.q[0] = p6->q[0] & m->q[0];
			key.q[1] = p6->q[1] & m->q[1];
			key.q[2] = p6->q[2] & m->q[2];
			key.q[3] = p6->q[3] & m->q[3];
			key.q[4] = p6->q[4] & m->q[4];
			key.q[5] = p6->q[5] & m->q[5];
			key.q[6] = p6->q[6] & m->q[6];
			key.f.slot = (__u8)k->slot;
			hit = bpf_map_lookup_elem(&flows6, &key);
		} else if (k->l3 == 0) {
			union sv_key4 key;

			key.q[0] = p->q[0] & k->mask4.q[0];
			key.q[1] = p->q[1] & k->mask4.q[1];
			key.q[2] = p->q[2] & k->mask4.q[2];
			key.q[3] = (p->q[3] & k->mask4.q[3]) | k->slot4;
			hit = bpf_map_lookup_elem(&flows4, &key);
		}
		if (hit)
			break;
	}
	return hit;
}

/* off: of the IPv6 header, which is there as a whole */
static __noinline __u32 steer6(struct xdp_md *ctx, struct sv_steer_conf *c, __u32 off, __u32 vlan)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	union sv_key4 p = {};
	union sv_key6 p6;
	struct ipv6hdr *ip;
	__u32 *hit;

	if (!c)
		return 0;
	ip = data + (off == 18 ? 18 : 14);
	if ((void *)(ip + 1) > end)
		return 0;
	__builtin_memcpy(p.f.dmac, data, 12);
	p.f.etype = bpf_htons(ETH_P_IPV6);
	p.f.vlan = (__be16)vlan;
	p.f.proto = ip->nexthdr;
	if ((p.f.proto == 6 || p.f.proto == 17) && (void *)(ip + 1) + 4 <= end) {
		p.f.sport = U16(ip + 1);
		p.f.dport = U16((void *)(ip + 1) + 2);
	}
	__builtin_memcpy(&p6, &p, 16);
	__builtin_memcpy(p6.f.sip, &ip->saddr, 32);
	p6.f.sport = p.f.sport;
	p6.f.dport = p.f.dport;
	p6.f.proto = p.f.proto;
	p6.f.slot = 0;
	p6.f.pad[0] = p6.f.pad[1] = 0;
	hit = find6(c, &p, &p6);
	return hit ? *hit : 0;
}

static __always_inline struct recent *place(struct recents *all, __u64 q2, __u64 q3)
{
	return &all->r[((q2 ^ q3) * 0x9e3779b97f4a7c15ull) >> 32 & (SV_RECENT - 1)];
}

/* The rules are searched; what matches is remembered. 0: none. */
static __noinline __u32 search(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *ip;
	struct sv_steer_conf *c = &conf[active & 1];
	__u64 q0, q1, q2 = 0, q3 = 0;
	__u32 l3 = 0, off = 14, qp, *hit, vlan = 0, proto, now = gen, zero = 0;
	struct recents *all;
	struct recent *r;
	__u16 etype;

	if (c->n == 0 || data + 14 > end)
		return 0;
	etype = U16(data + 12);
	ip = data + 14;
	if (etype == bpf_htons(ETH_P_8021Q)) {
		if (data + 18 > end)
			return 0;
		vlan = U16(data + 14);
		etype = U16(data + 16);
		ip = data + 18;
		off = 18;
	}
	if (etype == bpf_htons(ETH_P_IP) && ip + 20 <= end) {
		l3 = 4;
		q2 = U64(ip + 12);
		proto = *(__u8 *)(ip + 9);
		q3 = AT(proto, 4, 1);
		/* fragments and headers with options never match ports: the kernel's */
		if ((*(__u8 *)ip & 15) == 5 && (U16(ip + 6) & bpf_htons(0x3fff)) == 0 && (proto == 6 || proto == 17) && ip + 24 <= end)
			q3 |= AT(U32(ip + 20), 0, 4);
	} else if (etype == bpf_htons(ETH_P_IPV6) && ip + 40 <= end) {
		return steer6(ctx, c, off, vlan);
	}
	q0 = U64(data);
	q1 = (__u64)AT(U32(data + 8), 0, 4) | AT(etype, 4, 2) | AT(vlan, 6, 2);
	hit = find4(c, l3, q0, q1, q2, q3);
	qp = hit ? *hit : 0;
	all = bpf_map_lookup_elem(&recent, &zero);
	if (qp != 0 && all) {
		r = place(all, q2, q3);
		r->q[0] = q0;
		r->q[1] = q1;
		r->q[2] = q2;
		r->q[3] = q3;
		r->qp = qp;
		r->meta = c->meta;
		r->gen = now;
	}
	return qp;
}

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 qp, meta, zero = 0;
	struct recents *all;
	struct recent *r;
	__u64 q2, q3;

	/* No tag, no options, no fragment: what is remembered has ports only if it is TCP or UDP. */
	if (data + 38 > end || (U32(data + 12) & bpf_htonl(0xffffff00)) != bpf_htonl(0x08004500) || (U16(data + 20) & bpf_htons(0x3fff)) != 0)
		goto any;
	q2 = U64(data + 26);
	q3 = AT(U32(data + 34), 0, 4) | AT(*(__u8 *)(data + 23), 4, 1);
	all = bpf_map_lookup_elem(&recent, &zero);
	if (!all)
		return XDP_PASS;
	r = place(all, q2, q3);
	if (r->gen != gen || r->q[2] != q2 || r->q[3] != q3 || r->q[0] != U64(data) ||
	    r->q[1] != ((__u64)AT(U32(data + 8), 0, 4) | AT(bpf_htons(ETH_P_IP), 4, 2)))
		goto any;
	qp = r->qp;
	meta = r->meta;
found:
	if (meta && bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct sv_meta)) == 0) {
		struct sv_meta *m = (void *)(long)ctx->data_meta;

		if ((void *)(m + 1) <= (void *)(long)ctx->data) {
			m->magic = SV_META_MAGIC;
			m->qp = qp;
		}
	}
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
any:
	qp = search(ctx);
	if (qp == 0)
		return XDP_PASS;
	meta = conf[active & 1].meta;
	goto found;
}

char _license[] SEC("license") = "GPL";
