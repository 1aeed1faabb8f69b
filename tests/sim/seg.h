/*
 * seg.h - builds TCP and UDP frames octet by octet, independent of src/stack: what a peer or the kernel would have put on the wire.
 */
#ifndef HV_SIM_SEG_H
#define HV_SIM_SEG_H

#include "stack/image.h"

enum { SEG_FIN = 1, SEG_SYN = 2, SEG_RST = 4, SEG_PSH = 8, SEG_ACK = 16, SEG_URG = 32, SEG_ECE = 64, SEG_CWR = 128 };

#define SEG_MAX_FRAME 65600u

struct seg_spec {
	const struct hv_tuple *from; /* tuple in the sender's view: local = source */
	const uint8_t *src_mac, *dst_mac; /* NULL: zero */
	uint32_t seq, ack, wnd;
	uint8_t flags, tos, ttl;
	bool has_ts, vlan;
	uint32_t tsval, tsecr;
	uint8_t nsack;
	uint32_t sack[4][2];
	const uint8_t *opts; /* raw options instead of TS/SACK */
	uint32_t opt_len;    /* multiple of 4 when opts is used */
	uint16_t urg;
	const uint8_t *data;
	uint32_t len;
};

/* Returns the length of the frame. */
uint32_t seg_build(uint8_t *frame, const struct seg_spec *s);
uint32_t udp_build(uint8_t *frame, const struct hv_tuple *from, const uint8_t *data, uint32_t len, bool zero_csum);

#endif
