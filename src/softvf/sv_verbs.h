/*
 * sv_verbs.h - the verbs face of softvf: objects behind the public structs of <infiniband/verbs.h>.
 *
 * softvf is a drop-in libibverbs.so.1 for tests: every netdev that SOFTVF_DEVICES names (comma list of names or globs; unset:
 * every veth) is a raw-packet device softvf_<netdev>. It behaves like an mlx5 VF where that matters to a driver: CAP_NET_RAW is
 * checked, registration counts against RLIMIT_MEMLOCK, send slots come back when a completion behind them is polled, a QP in
 * error flushes, and a removed netdev is a dead device: no flush, sends never complete, control verbs fail with EIO, destroy
 * verbs succeed, IBV_EVENT_DEVICE_FATAL, the completion channel readable with EIO.
 *
 * What it is not: only IBV_QPT_RAW_PACKET with IBV_WR_SEND and IBV_WR_TSO; no SRQ, WQ/RSS, memory windows, timestamps, inline
 * scatter, counters, flow actions; IBV_FLOW_ATTR_NORMAL only, at most 16 distinct (mask, priority) pairs, no TOS/TTL/label
 * matches; the same rule twice is EEXIST (hardware would add a destination). A received frame finds its receive request when
 * somebody polls, not when it arrives. IBV_WC_IP_CSUM_OK is for IPv4 only, as on mlx5. All QPs of a process on a netdev share
 * one receive ring of 2048 chunks; a poll of any CQ moves frames of all of them. Device list entries are never freed.
 *
 *   sv_verbs_dev.c   device list, contexts, queries, async events
 *   sv_verbs_mem.c   PDs, MRs
 *   sv_verbs_cq.c    CQs in both forms, completion channels
 *   sv_verbs_qp.c    QP objects and states
 *   sv_verbs_send.c  post_send
 *   sv_verbs_recv.c  post_recv, poll
 *   sv_verbs_flow.c  rules
 *   sv_verbs_misc.c  texts and rates
 *   sv_stubs.c       everything else that the real library exports
 *
 * Locks, in order: list_lock (contexts of the process) > the wire's rx_lock or tx_lock > sv_qp.rq_lock > sv_cq.lock > sv_chan.lock.
 */
#ifndef SV_VERBS_H
#define SV_VERBS_H

#include <infiniband/verbs.h>
#include "softvf/sv_wire.h"
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova
#undef ibv_get_device_list
#undef ibv_query_gid_ex
#undef ibv_query_gid_table

#define SV_EXPORT __attribute__((visibility("default")))
/* The default version of a symbol that the map lists under IBVERBS_1.0, too. */
#define SV_VERSION(n) __asm__(".symver " #n ", " #n "@@@IBVERBS_1.1");

#define SV_MAX_SGE 32u
#define SV_MAX_INLINE 512u
#define SV_MAX_TSO_HDR 256u
#define SV_MAX_WR 32768u
#define SV_MAX_CQE (1u << 20)
#define SV_MR_CHUNK 256u
#define SV_MR_CHUNKS 256u

struct sv_dev {
	struct ibv_device dev;
	struct sv_dev *next;
	struct sv_link link;
};

struct sv_mr {
	struct ibv_mr mr;
	size_t locked;
};

/* What a work request's key is checked against. lkey 0: free. */
struct sv_mrent {
	uint32_t lkey;
	uint32_t access;
	uint64_t iova, len;
	intptr_t delta; /* from iova to the address */
	struct ibv_pd *pd;
	uint8_t gen;
};

struct sv_chan {
	struct ibv_comp_channel ch; /* ch.fd: epoll fd of the XSK (one shot, armed with a CQ) and ev_fd */
	struct sv_chan *next;
	struct sv_ctx *ctx;
	struct sv_lock lock;
	int ev_fd;           /* EFD_SEMAPHORE: one count for each event in cqs that isn't `soft` */
	uint32_t soft;       /* events that the thread in ibv_get_cq_event() found itself */
	bool xsk_added;
	uint32_t polled; /* batches of frames since the last arm */
	struct sv_cq *cqs;
};

struct sv_ctx {
	struct sv_wire *w;
	struct sv_ctx *next;
	int async_rd, async_wr;
	pthread_mutex_t lock; /* MRs, channels, counts */
	struct sv_chan *chans;
	struct sv_mrent *mrs[SV_MR_CHUNKS];
	unsigned n_mrs;
	struct verbs_context v; /* last: programs find it from v.context */
};

struct sv_cqe {
	uint64_t wr_id;
	struct sv_qp *qp;
	uint32_t byte_len, qp_num, sq_next;
	uint16_t wc_flags;
	uint8_t status, opcode;
	bool is_send;
};

struct sv_cq {
	union {
		struct ibv_cq cq;
		struct ibv_cq_ex ex;
	} u;
	struct sv_ctx *ctx;
	struct sv_wire *w;
	uint32_t head;    /* next to poll */
	uint32_t rx_users, tx_users; /* QPs that use it for receives, sends */
	SV_CACHELINE uint32_t tail; /* next to fill */
	struct sv_lock lock;
	struct sv_cqe *ring;
	uint32_t mask, size;
	bool overrun;
	bool armed;
	/* under the channel's lock */
	struct sv_chan *chan;
	struct sv_cq *next;
	uint32_t events;  /* raised, not yet taken */
	/* cq_ex */
	struct sv_cqe cur;
};

/* A work request as posted; nsge sges follow. */
struct sv_wqe {
	uint64_t wr_id;
	uint32_t send_flags;
	uint16_t nsge, mss;
	uint16_t hdr_sz;
	uint8_t opcode;
	bool stashed; /* inline data and TSO header are in the stash */
	const void *hdr;
	struct ibv_sge sge[];
};

struct sv_qp {
	struct ibv_qp qp;
	struct sv_ctx *ctx;
	struct sv_wire *w;
	struct sv_cq *scq, *rcq;
	bool sig_all;
	uint32_t max_inline, max_tso_hdr;
	/* send queue: under the wire's tx_lock, except sq_tail (poll advances it) */
	uint8_t *sq;
	uint32_t sq_stride, sq_size, sq_mask, sq_sge;
	uint32_t sq_head; /* next to post */
	uint32_t sq_exec; /* next to hand to the wire */
	uint32_t sq_tail; /* all before this may be overwritten */
	uint32_t sq_done; /* next to complete */
	uint8_t *stash;
	uint32_t stash_stride;
	/* receive queue: posting under rq_lock, consuming under the wire's rx_lock */
	SV_CACHELINE struct sv_lock rq_lock;
	uint8_t *rq;
	uint32_t rq_stride, rq_size, rq_mask, rq_sge;
	uint32_t rq_head;
	SV_CACHELINE uint32_t rq_tail;
};

struct sv_flow {
	struct ibv_flow flow;
	struct sv_ctx *ctx;
	struct sv_wire_rule *rule;
};

static inline struct sv_ctx *sv_ctx(struct ibv_context *c)
{
	return (struct sv_ctx *)(void *)((char *)c - offsetof(struct sv_ctx, v.context));
}

static inline struct sv_wqe *sv_sqe(const struct sv_qp *q, uint32_t i)
{
	return (struct sv_wqe *)(void *)(q->sq + (size_t)(i & q->sq_mask) * q->sq_stride);
}

static inline struct sv_wqe *sv_rqe(const struct sv_qp *q, uint32_t i)
{
	return (struct sv_wqe *)(void *)(q->rq + (size_t)(i & q->rq_mask) * q->rq_stride);
}

/* dev */
void sv_async_push(struct sv_ctx *c, enum ibv_event_type type, void *element);
bool sv_capable(unsigned cap);
void sv_notify(struct sv_wire *w, enum sv_event ev);
int sv_query_device_ex(struct ibv_context *ctx, const struct ibv_query_device_ex_input *in, struct ibv_device_attr_ex *a, size_t sz);
int sv_query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *p, size_t len);

/* mem: the memory of a work request's piece, NULL if its key doesn't allow it */
static inline void *sv_mem(const struct sv_ctx *c, const struct ibv_pd *pd, const struct ibv_sge *s, bool write)
{
	uint32_t i = s->lkey >> 8;
	const struct sv_mrent *e;

	if (sv_unlikely(i >= SV_MR_CHUNK * SV_MR_CHUNKS || c->mrs[i / SV_MR_CHUNK] == NULL))
		return NULL;
	e = &c->mrs[i / SV_MR_CHUNK][i % SV_MR_CHUNK];
	if (sv_unlikely(e->lkey != s->lkey || s->lkey == 0 || e->pd != pd))
		return NULL;
	if (sv_unlikely(s->addr < e->iova || s->length > e->len || s->addr - e->iova > e->len - s->length))
		return NULL;
	if (sv_unlikely(write && !(e->access & IBV_ACCESS_LOCAL_WRITE)))
		return NULL;
	return (void *)(intptr_t)((intptr_t)s->addr + e->delta);
}

/* cq */
void sv_cq_push(struct sv_cq *q, const struct sv_cqe *e, struct sv_chan *self);
void sv_cq_clean(struct sv_cq *q, const struct sv_qp *qp);
void sv_chan_dead(struct sv_chan *ch);
int sv_req_notify_cq(struct ibv_cq *cq, int solicited);
struct ibv_cq_ex *sv_create_cq_ex(struct ibv_context *ctx, struct ibv_cq_init_attr_ex *a);

/* qp */
struct ibv_qp *sv_create_qp_ex(struct ibv_context *ctx, struct ibv_qp_init_attr_ex *a);

/* data */
int sv_poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *wc);
bool sv_cq_take(struct sv_cq *q, struct sv_cqe *e);
int sv_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int sv_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
unsigned sv_pump(struct sv_wire *w, struct sv_chan *self);
void sv_rx_settle(struct sv_wire *w);
void sv_progress(struct sv_wire *w);
void sv_rq_flush(struct sv_qp *q); /* rx_lock held */
void sv_send_rehearse(struct sv_qp *q);
void sv_qp_error(struct sv_qp *q); /* rx_lock or tx_lock must not be held */

/* flow */
struct ibv_flow *sv_create_flow(struct ibv_qp *qp, struct ibv_flow_attr *a);
int sv_destroy_flow(struct ibv_flow *f);

void sv_chan_leave_xsk(struct sv_cq *q);

/* A batch was taken by polling. */
static inline void sv_chan_polled(struct sv_cq *q)
{
	struct sv_chan *ch = q->chan;

	if (ch != NULL && sv_unlikely(ch->xsk_added) && ++ch->polled >= 64)
		sv_chan_leave_xsk(q);
}

#endif
