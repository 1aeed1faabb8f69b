/*
 * labdp.bpf.c - the lab's data path: a two-port switch (wire <-> VM) with two ways into the VM, and the guest's transparent VF.
 *
 * tc programs, not a bridge: a redirect costs a fraction of a bridge hop, and every measurement made in the lab crosses this code twice.
 * tc, not XDP: on veth, XDP at the host ends would forbid the kernel's TSO frames and turn each into a copy.
 *
 * Compiled by `make labdp-regen` (clang, llvm-objcopy) into labdp.insns.h, which is in the tree: building and running the lab needs neither.
 * Each program is one section without calls, so that the raw instructions plus a map descriptor are all its loader needs.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include "labdp.h"

typedef __u64 u64;
typedef __u32 u32;
typedef __u16 u16;
typedef __u8 u8;

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)BPF_FUNC_redirect;
static long (*const bpf_skb_load_bytes)(const void *skb, u32 off, void *to, u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static u32 (*const bpf_get_hash_recalc)(struct __sk_buff *skb) = (void *)BPF_FUNC_get_hash_recalc;

/* Only its address is used; the loader replaces each reference by the descriptor of the real map. */
extern char dp __attribute__((section(".maps")));
char dp;

#define INLINE static inline __attribute__((always_inline))

INLINE u32 slot(u32 i)
{
	u64 *v = bpf_map_lookup_elem(&dp, &i);

	return v ? (u32)*(volatile u64 *)v : 0;
}

/* Port of a device chosen by flow, constant for a flow whatever path it came by. */
INLINE long out(struct __sk_buff *skb, u32 ifindex)
{
	u32 n;

	if (!ifindex)
		return TC_ACT_SHOT;
	n = slot(LABDP_QUEUES);
	if (n > 1)
		skb->queue_mapping = bpf_get_hash_recalc(skb) % (n & 0xff) + 1;
	return bpf_redirect(ifindex, 0);
}

/* Does Azure's host deliver this frame by the synthetic NIC even while the data path is on the VF? */
INLINE int exception_frame(struct __sk_buff *skb)
{
	u8 eth[14], b;
	u32 l4;
	u16 frag;

	if (bpf_skb_load_bytes(skb, 0, eth, sizeof(eth)))
		return 0;
	if (eth[0] & 1)
		return 1;
	if (eth[12] == 0x08 && eth[13] == 0x00) {
		if (bpf_skb_load_bytes(skb, 14 + 9, &b, 1) || b != 6)
			return 0;
		if (bpf_skb_load_bytes(skb, 14 + 6, &frag, 2) || (frag & __builtin_bswap16(0x1fff)))
			return 0;
		if (bpf_skb_load_bytes(skb, 14, &b, 1))
			return 0;
		l4 = 14 + (b & 15) * 4;
	} else if (eth[12] == 0x86 && eth[13] == 0xdd) {
		if (bpf_skb_load_bytes(skb, 14 + 6, &b, 1) || b != 6)
			return 0;
		l4 = 14 + 40;
	} else {
		return 0;
	}
	if (bpf_skb_load_bytes(skb, l4 + 13, &b, 1))
		return 0;
	return (b & 0x12) == 0x02;	/* SYN without ACK */
}

/* Host, from the wire: to the VM. */
__attribute__((section("tc/wire_in"), used)) int labdp_wire_in(struct __sk_buff *skb)
{
	if (slot(LABDP_ACTIVE) && !(slot(LABDP_SYN_ONLY) && exception_frame(skb)))
		return (int)out(skb, slot(LABDP_VF));
	return (int)out(skb, slot(LABDP_SYN));
}

/* Host, from either port of the VM: to the wire. */
__attribute__((section("tc/vm_in"), used)) int labdp_vm_in(struct __sk_buff *skb)
{
	return (int)out(skb, slot(LABDP_WIRE));
}

/* Guest, leaving by the synthetic NIC: netvsc sends through the VF instead while the data path is there. */
__attribute__((section("tc/vm_tx"), used)) int labdp_vm_tx(struct __sk_buff *skb)
{
	if (slot(LABDP_ACTIVE))
		return (int)out(skb, slot(LABDP_VM_VF));
	return TC_ACT_OK;
}

/* Guest without a master link: what the VF hands to the kernel arrives on eth0. */
__attribute__((section("tc/vf_rx"), used)) int labdp_vf_rx(struct __sk_buff *skb)
{
	u32 eth0 = slot(LABDP_VM_ETH0);

	(void)skb;
	return eth0 ? (int)bpf_redirect(eth0, BPF_F_INGRESS) : TC_ACT_SHOT;
}
