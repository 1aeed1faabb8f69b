/*
 * udp.h - UDP as pure functions (RFC 768, 1122 4.1). Same rules as tcp.h: no clock, no I/O, no allocation, ring lock held.
 */
#ifndef HV_UDP_H
#define HV_UDP_H

#include "base/pkt.h"
#include "stack/image.h"

struct hv_udp { /* receive side of one promoted UDP socket */
	struct hv_buf *head, **tail;
	uint32_t count;      /* datagrams queued */
	uint32_t octets;     /* truesize charged */
	uint32_t rcvbuf;     /* limit, kernel's SO_RCVBUF */
	uint64_t drops;      /* SO_RXQ_OVFL */
	struct hv_tuple tuple; /* raddr/rport all zero when unconnected */
	uint8_t ttl, tos;
};

struct hv_dgram { struct hv_buf *buf; const uint8_t *data; uint32_t len; struct hv_tuple tuple; /* as seen by us: raddr = source */ uint8_t tos, ttl; };

void hv_udp_init(struct hv_udp *u, const struct hv_tuple *t, uint32_t rcvbuf);
/* l3 points at the IP header of a frame in buf. True: queued (buf kept). False: malformed, not ours, or queue full; caller keeps buf. */
bool hv_udp_input(struct hv_udp *u, struct hv_buf *buf, uint8_t *l3, uint32_t l3_len, bool csum_ok);
/* First datagram, still queued. */
bool hv_udp_peek(const struct hv_udp *u, struct hv_dgram *d);
void hv_udp_pop(struct hv_udp *u, struct hv_env *env);
void hv_udp_release(struct hv_udp *u, struct hv_env *env);
/* Headers for one datagram of len octets to `to`; false if it does not fit in one frame of mtu. sge is the caller's. */
bool hv_udp_build(struct hv_tx *tx, const struct hv_tuple *to, const uint8_t *hdr_l2, uint32_t l2_len, uint32_t len, uint32_t mtu, uint8_t ttl,
    uint8_t tos, uint16_t ip_id);

#endif
