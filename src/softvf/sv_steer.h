/*
 * sv_steer.h - what the XDP program and the library share: keys, mask classes, the metadata in front of a frame.
 *
 * Steering is a tuple-space search. Every distinct pair (mask, priority) of the installed rules is a class; classes are tried in
 * order of priority, so the first hit is the answer. Rules with an IPv6 specification have a map of their own with longer keys.
 */
#ifndef SV_STEER_H
#define SV_STEER_H

#include <linux/types.h>

#define SV_NCLASS 16
#define SV_FLOWS_MAX 131072
#define SV_RECENT 64 /* a power of two */
#define SV_META_MAGIC 0x31767673u

/* all fields in network order; a field that the mask leaves out is zero */
union sv_key4 {
	struct {
		__u8 dmac[6], smac[6];
		__be16 etype, vlan;
		__be32 sip, dip;
		__be16 sport, dport;
		__u8 proto, slot, pad[2];
	} f;
	__u64 q[4];
};

union sv_key6 {
	struct {
		__u8 dmac[6], smac[6];
		__be16 etype, vlan;
		__u8 sip[16], dip[16];
		__be16 sport, dport;
		__u8 proto, slot, pad[2];
	} f;
	__u64 q[7];
};

struct sv_class {
	union sv_key4 mask4;
	__u64 slot4; /* slot in its place in the last word of a key */
	__u32 l3;    /* 0: any frame, 4 or 6: only that protocol can match */
	__u32 slot;  /* number in the keys, stays the same while the class lives */
};

struct sv_steer_conf { /* the first class shares a cache line with the head */
	__u32 n;
	__u32 meta; /* frames can be for several QPs: the number is in front of them */
	__u64 pad;
	struct sv_class c[SV_NCLASS]; /* best priority first */
	union sv_key6 mask6[SV_NCLASS];
} __attribute__((aligned(64)));

struct sv_meta {
	__u32 magic, qp;
};

#endif
