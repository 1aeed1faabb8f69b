/*
 * sv_steer.bpf.c - the XDP side of ibv_create_flow(): a frame that matches a rule goes to the AF_XDP socket with the number of
 * its QP in front (XDP metadata), everything else to the kernel. "make steer-skeleton" turns it into sv_steer.lskel.h, which is
 * in the tree so that building needs neither clang nor bpftool.
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

/* Written by the library through its mapping: the idle half first, then `active`, so that a frame never sees half a change. */
struct sv_steer_conf conf[2];
volatile __u32 active;

struct ports {
	__be16 s, d;
};

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct sv_steer_conf *c = &conf[active & 1];
	struct ethhdr *eth = data;
	union sv_key4 p = {};
	union sv_key6 p6;
	struct ports *l4 = NULL;
	__u32 off = 14, l3 = 0, *hit = NULL;
	int i;

	if (c->n == 0 || (void *)(eth + 1) > end)
		return XDP_PASS;
	__builtin_memcpy(p.f.dmac, eth->h_dest, 12);
	p.f.etype = eth->h_proto;
	if (p.f.etype == bpf_htons(ETH_P_8021Q)) {
		if (data + 18 > end)
			return XDP_PASS;
		p.f.vlan = *(__be16 *)(data + 14);
		p.f.etype = *(__be16 *)(data + 16);
		off = 18;
	}
	if (p.f.etype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + off;

		if ((void *)(ip + 1) <= end) {
			l3 = 4;
			p.f.sip = ip->saddr;
			p.f.dip = ip->daddr;
			p.f.proto = ip->protocol;
			/* fragments and headers with options never match ports: the kernel's */
			if (ip->ihl == 5 && (ip->frag_off & bpf_htons(0x3fff)) == 0)
				l4 = (void *)(ip + 1);
		}
	} else if (p.f.etype == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + off;

		if ((void *)(ip + 1) <= end) {
			l3 = 6;
			p.f.proto = ip->nexthdr;
			l4 = (void *)(ip + 1);
			__builtin_memcpy(p6.f.sip, &ip->saddr, 32);
		}
	}
	if (l4 != NULL && (p.f.proto == 6 || p.f.proto == 17) && (void *)(l4 + 1) <= end) {
		p.f.sport = l4->s;
		p.f.dport = l4->d;
	}
	if (l3 == 6) {
		__builtin_memcpy(&p6, &p, 16);
		p6.f.sport = p.f.sport;
		p6.f.dport = p.f.dport;
		p6.f.proto = p.f.proto;
		p6.f.slot = 0;
		p6.f.pad[0] = p6.f.pad[1] = 0;
	}
	for (i = 0; i < SV_NCLASS; i++) {
		struct sv_class *k = &c->c[i];

		if (i >= c->n)
			break;
		if (k->l3 == 6) {
			union sv_key6 key;

			if (l3 != 6)
				continue;
			key.q[0] = p6.q[0] & k->mask6.q[0];
			key.q[1] = p6.q[1] & k->mask6.q[1];
			key.q[2] = p6.q[2] & k->mask6.q[2];
			key.q[3] = p6.q[3] & k->mask6.q[3];
			key.q[4] = p6.q[4] & k->mask6.q[4];
			key.q[5] = p6.q[5] & k->mask6.q[5];
			key.q[6] = p6.q[6] & k->mask6.q[6];
			key.f.slot = (__u8)k->slot;
			hit = bpf_map_lookup_elem(&flows6, &key);
		} else {
			union sv_key4 key;

			if (k->l3 == 4 && l3 != 4)
				continue;
			key.q[0] = p.q[0] & k->mask4.q[0];
			key.q[1] = p.q[1] & k->mask4.q[1];
			key.q[2] = p.q[2] & k->mask4.q[2];
			key.q[3] = p.q[3] & k->mask4.q[3];
			key.f.slot = (__u8)k->slot;
			hit = bpf_map_lookup_elem(&flows4, &key);
		}
		if (hit)
			break;
	}
	if (!hit)
		return XDP_PASS;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct sv_meta)) == 0) {
		struct sv_meta *m = (void *)(long)ctx->data_meta;

		if ((void *)(m + 1) <= (void *)(long)ctx->data) {
			m->magic = SV_META_MAGIC;
			m->qp = *hit;
		}
	}
	return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
