/*
 * udp.h - UDP as pure functions (RFC 768, 1122 4.1). Same rules as tcp.h: no clock, no I/O, no allocation, ring lock held.
 */
#ifndef HV_UDP_H
#define HV_UDP_H

#include "base/pkt.h"
#include "stack/image.h"

/*
 * Receive side of one promoted UDP socket. The first datagrams that wait stay in the ring's buffers, copied once, to the reader. A
 * reader that falls behind must not take buffers away from everybody else: what comes then is copied, packed, into the socket's own
 * memory (store), in the order of arrival.
 */
#define HV_UDP_SLOTS 8u /* ring buffers that one socket keeps */
struct hv_udp {
	struct hv_buf *head, **tail;
	uint8_t *store;      /* the caller's, NULL: none */
	uint32_t store_cap, store_head, store_tail;
	uint32_t slots;      /* datagrams in ring buffers; they are older than those in the store */
	uint32_t count;      /* datagrams queued */
	uint32_t octets;     /* charged, as the kernel charges (hv_udp_charge()) */
	uint32_t rcvbuf;     /* limit, kernel's SO_RCVBUF */
	uint64_t drops;
	struct hv_tuple tuple; /* raddr/rport all zero when unconnected */
	uint8_t ttl, tos;
};

struct hv_dgram {
	const uint8_t *l3;   /* the packet from the IP header on */
	uint32_t l3_len;
	const uint8_t *data;
	uint32_t len;
	struct hv_tuple tuple; /* as seen by us: raddr = source */
	uint8_t tos, ttl;
};

void hv_udp_init(struct hv_udp *u, const struct hv_tuple *t, uint32_t rcvbuf);
/* l3 points at the IP header of a frame in buf. DROP: malformed, not ours, or queue full. The caller keeps buf unless the answer is
 * KEPT. */
enum hv_udp_in { HV_UDP_DROP, HV_UDP_KEPT, HV_UDP_COPIED };
enum hv_udp_in hv_udp_input(struct hv_udp *u, struct hv_buf *buf, uint8_t *l3, uint32_t l3_len, bool csum_ok);
/* The next datagram would need the store and there is none: the caller may give some, hv_udp_store_size() octets, aligned to 8. Without
 * it the queue is full. */
static inline bool hv_udp_wants_store(const struct hv_udp *u)
{
	return u->slots >= HV_UDP_SLOTS && u->store == NULL;
}
uint32_t hv_udp_store_size(uint32_t rcvbuf);
/* SO_RCVBUF's price of a datagram whose packet has l3_len octets: what a Linux driver's buffer for it costs. */
uint32_t hv_udp_charge(uint32_t l3_len);
/* First datagram, still queued. */
bool hv_udp_peek(const struct hv_udp *u, struct hv_dgram *d);
void hv_udp_pop(struct hv_udp *u, struct hv_env *env);
void hv_udp_release(struct hv_udp *u, struct hv_env *env);
/* Headers for one datagram of len octets to `to`; false if it does not fit in one frame of mtu. sge is the caller's. */
bool hv_udp_build(struct hv_tx *tx, const struct hv_tuple *to, const uint8_t *hdr_l2, uint32_t l2_len, uint32_t len, uint32_t mtu,
    uint8_t ttl, uint8_t tos, uint16_t ip_id);

#endif
