/*
 * vf_ring.h - what the parts of the ring's lab test share: frames by hand, kernel sockets of the peer, bounded waits.
 *
 * The program runs in the VM's namespace; the peer's sockets are made by stepping into the peer's namespace for a moment. One thread.
 */
#ifndef VF_RING_H
#define VF_RING_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vf/internal.h"

#define CHECK(cond) do { if (!(cond)) { printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #cond); exit(1); } } while (0)
#define WAIT_MS 10000 /* ends a test that hangs; nothing is expected to take that long */

struct ring {
	struct hv_vf *vf;
	struct hv_env env;
	struct hv_vf_pair pair;
};

struct hv_vf_limits test_limits(void);
int upper_index(void);
void ring_open(struct ring *r, const struct hv_vf_limits *lim);
void ring_close(struct ring *r, bool dead);
/* Waits for one frame; NULL: none came. Others' frames don't occur: rules deliver only ours. */
struct hv_buf *ring_recv(struct ring *r, bool *csum_ok);
void ring_free(struct ring *r, struct hv_buf *b);
void ring_send(struct ring *r, const struct hv_tx *tx);
void ring_drain(struct ring *r); /* until every send has completed */
static inline enum hv_vf_why ring_flow(struct hv_vf *vf, const struct hv_tuple *t, struct hv_vf_flow **out, int *errp)
{
	enum hv_vf_why w = hv_vf_flow_add(vf, t, out, errp);

	if (w == HV_VF_OK)
		hv_vf_flow_keep(vf, *out);
	return w;
}

int peer_socket(int type, uint16_t port); /* bound to the peer's address; TCP: listening */
int peer_socket6(int type, uint16_t port);
bool readable(int fd, int ms);
void lab(const char *command);

struct hv_tuple tuple(uint8_t family, uint8_t proto, uint16_t lport, uint16_t rport); /* ports in host order */
/* Headers for a frame from t's local end; payload is set by the caller. tcp_flags: for TCP. */
void headers(struct hv_tx *tx, const struct hv_tuple *t, uint32_t payload, uint32_t seq, uint32_t ack, uint8_t tcp_flags);
void payload_copy(struct hv_tx *tx, const uint8_t *p, uint32_t len);               /* lives until hv_vf_tx() returns */
void payload_chunks(struct hv_tx *tx, struct ring *r, const uint8_t *p, uint32_t len); /* into chunks from the pool, which are not given back */
void pattern(uint8_t *p, uint32_t len, uint32_t seed);
const uint8_t *payload_of(const struct hv_buf *b, uint32_t *len);

/* vf_ring_loss.c */
void case_loss(void);
void case_fork(void);
void case_port(void);
int case_daemon(void);
int reason(const char *what);
void case_reasons(const char *self);

#endif
