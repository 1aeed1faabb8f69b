/*
 * frame.h - from a received frame to its flow: Ethernet (+VLAN), IPv4/IPv6 header checks, checksums.
 */
#ifndef HV_FRAME_H
#define HV_FRAME_H

#include "base/pkt.h"
#include "stack/image.h"

struct hv_frame {
	struct hv_tuple tuple;   /* local = destination of the frame */
	uint8_t *l3, *l4;
	uint32_t l3_len;         /* IP total length: Ethernet padding is cut */
	uint32_t l4_len;
	uint8_t tos, ttl;
	uint16_t vlan;           /* VID; 0: untagged, or tagged for its priority only */
	const uint8_t *src_mac;
};

/* False: not an unfragmented, well-formed IPv4/IPv6 TCP or UDP packet (caller hands it to the kernel or drops it). */
bool hv_frame_parse(uint8_t *frame, uint32_t len, struct hv_frame *f);
/* Full software checks, for devices that gave no verdict. */
bool hv_frame_csum_ok(const struct hv_frame *f);
uint16_t hv_csum(const void *p, uint32_t len, uint32_t seed);           /* RFC 1071, folded, complemented */
uint32_t hv_csum_partial(const void *p, uint32_t len, uint32_t seed);   /* 32-bit running sum */
uint32_t hv_csum_pseudo(const struct hv_tuple *t, bool from_local, uint32_t l4_len);
uint32_t hv_tuple_hash(const struct hv_tuple *t);
bool hv_tuple_eq(const struct hv_tuple *a, const struct hv_tuple *b);

#endif
