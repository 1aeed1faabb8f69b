/*
 * stack_attack.h - what the attack tests share: each runs over IPv4 and over IPv6, and may send frames that no sound peer would.
 */
#ifndef HV_STACK_ATTACK_H
#define HV_STACK_ATTACK_H

#include "stack_rig.h"

#include <stdlib.h>

#include "stack/tcb.h"

static struct rig r;

static inline int attack_setup(void **state)
{
	(void)state;
	rig_init(&r);
	r.img.rcvbuf = 51200; /* a window of 32,000 octets, which stays as it is */
	return 0;
}

static inline int attack_setup6(void **state)
{
	(void)attack_setup(state);
	r.img.tuple = (struct hv_tuple){ .family = 6, .proto = 6, .lport = 0x5000, .rport = 0x901f, .laddr = { 0x20, 1, 0xd, 0xb8, [15] = 1 },
		.raddr = { 0x20, 1, 0xd, 0xb8, [15] = 2 } };
	r.img.pmtu = 1500;
	return 0;
}

static inline int attack_teardown(void **state)
{
	(void)state;
	rig_drop_out(&r);
	rig_end(&r);
	return 0;
}

#define ATTACK(f) { #f, f, attack_setup, attack_teardown, NULL }, { #f "_v6", f, attack_setup6, attack_teardown, NULL }

static inline void attack_start(uint8_t opts)
{
	r.img.opts = opts;
	if ((opts & HV_TCPO_TS) != 0) {
		r.img.snd_mss = RIG_MSS - 12;
		r.img.ts_off = 500000;
		r.img.ts_recent = 7000;
		r.img.ts_recent_valid = true;
		r.peer_ts = 7000;
	}
	rig_start(&r);
}

static inline uint32_t attack_readable(void)
{
	return hv_tcp_readable(r.h.tcb);
}

/* Octets from the wire as they are. HV_TCP_DROP: refused before they became a segment. */
static inline unsigned attack_frame(const uint8_t *octets, uint32_t len)
{
	struct hv_buf *b = host_rx(&r.h, octets, len);
	struct hv_frame f;
	struct hv_seg seg;
	unsigned acts;

	assert_non_null(b);
	if (!hv_frame_parse(b->base, b->len, &f) || !hv_frame_csum_ok(&f) || !hv_tcp_parse(f.l4, f.l4_len, &seg)) {
		host_put(&r.h, b);
		return HV_TCP_DROP;
	}
	assert_true(hv_tuple_eq(&f.tuple, &r.img.tuple));
	seg.buf = b;
	seg.ce = false;
	acts = hv_tcp_input(r.h.tcb, &r.h.env, &seg, r.now);
	if ((acts & HV_TCP_KEPT) == 0)
		host_put(&r.h, b);
	host_check(&r.h);
	if (r.h.fail != NULL)
		fail_msg("%s", r.h.fail);
	if ((acts & HV_TCP_OUT) != 0)
		rig_pump(&r);
	host_complete(&r.h, HOST_SQ);
	host_refill(&r.h);
	return acts;
}

/* A segment of the peer as a spec to be spoilt; numbers are absolute. */
static inline struct seg_spec attack_spec(struct hv_tuple *from, uint32_t seq, uint32_t ack)
{
	*from = r.img.tuple;
	from->lport = r.img.tuple.rport;
	from->rport = r.img.tuple.lport;
	memcpy(from->laddr, r.img.tuple.raddr, 16);
	memcpy(from->raddr, r.img.tuple.laddr, 16);
	return (struct seg_spec){ .from = from, .src_mac = r.h.conf.peer_mac, .dst_mac = r.h.conf.mac, .seq = r.irs + seq, .ack = r.iss + ack,
		.wnd = 64000, .flags = SEG_ACK };
}


#endif
