/*
 * host.h - one end of a simulated connection: a TCB with the pools that a ring would give it, and the device's part of sending
 * (descriptor queue with late completion, TSO, checksums).
 *
 * Shared by the simulator, the unit tests and the fuzzers; knows the stack only through its headers. Single-threaded.
 */
#ifndef HV_SIM_HOST_H
#define HV_SIM_HOST_H

#include "stack/frame.h"
#include "stack/tcp.h"

#define HOST_SQ 256u /* descriptors */

struct host_conf {
	uint32_t n_rx, rx_cap; /* receive buffers, octets each */
	uint32_t ring;         /* so many of them are posted at most; the rest is the pool's reserve */
	uint32_t n_tx, tx_cap; /* chunks, octets each */
	uint32_t tso_max;
	uint8_t mac[6], peer_mac[6];
	bool vlan;
};

/* A descriptor in the send queue. Payload stays by reference until the device "completes" it: it is read again then, and has to be
 * what it was when posted (chunk release rule). */
struct host_wqe {
	struct hv_sge sge[HV_TX_SEG_MAX];
	uint8_t nsge;
	uint32_t sum; /* of the payload when posted */
};

struct host {
	struct hv_tcb *tcb;
	bool live; /* tcb holds a connection */
	struct hv_env env;
	struct hv_tcp_counters cnt;
	struct host_conf conf;
	uint8_t l2[18];
	uint32_t l2_len;
	uint8_t *rx_mem, *tx_mem;
	struct hv_buf *bufs;
	struct hv_chunk *chunks;
	struct hv_buf *ring; /* posted to the device */
	uint32_t n_ring;
	uint8_t *aux; /* unread octets taken over at import */
	struct host_wqe sq[HOST_SQ];
	uint16_t ip_id;
	uint32_t checks;       /* of host_check() */
	uint32_t check_pools;  /* behind the first 500, only each nth of them counts the long free lists; 0: each */
	/* first failure found by a check below; NULL = none */
	const char *fail;
};

/* Called for every frame that goes on the wire. The octets are only valid during the call. */
typedef void host_wire_fn(void *arg, const uint8_t *frame, uint32_t len);

void host_init(struct host *h, const struct host_conf *c);
void host_destroy(struct host *h);

/* Import and bookkeeping of the aux memory. */
int host_import(struct host *h, const struct hv_tcp_image *img, uint64_t now);
/* Export into *img with freshly allocated rcv/snd octets (host_image_free), nothing released. */
void host_export(struct host *h, struct hv_tcp_image *img, uint64_t now);
void host_image_free(struct hv_tcp_image *img);
/* Release the TCB; checks that every buffer came back but the `out` ones that the caller still holds. Chunks are only all back when
 * the send queue is empty. */
void host_release(struct host *h, uint32_t out);

/* Post one hv_tx: queue the descriptor, cut TSO bursts, fill checksums, hand the frames to fn. SQ must have room. */
void host_post(struct host *h, const struct hv_tx *tx, host_wire_fn *fn, void *arg);
bool host_sq_room(const struct host *h);
/* The device completes the oldest n descriptors. */
void host_complete(struct host *h, uint32_t n);
/* Refill the receive ring from env.free_rx, as the engine does after each batch. */
void host_refill(struct host *h);
/* Copy a frame into a posted receive buffer; NULL: ring empty, the frame is lost. */
struct hv_buf *host_rx(struct host *h, const uint8_t *frame, uint32_t len);
/* Give a buffer that the stack did not keep back to the pool. */
void host_put(struct host *h, struct hv_buf *b);
/* hv_tcb_check(), list counts; records the first failure. Call after every call into the stack. */
bool host_check(struct host *h);
/* All buffers and chunks at home? Only after host_release() and host_complete() of everything. */
bool host_conserved(struct host *h);
bool host_fail(struct host *h, const char *what);

uint16_t host_ref_csum(const uint8_t *p, uint32_t len, uint32_t seed);
/* Fill IP and L4 checksum of a TCP/UDP frame, with code of its own. */
void host_fill_csum(uint8_t *frame, uint32_t l3_off, uint32_t l4_off, uint32_t len);

#endif
