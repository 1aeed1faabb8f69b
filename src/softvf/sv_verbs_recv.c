/*
 * sv_verbs_recv.c - the data path: post_recv, poll_cq.
 *
 * The empty poll is two loads and two compares. Otherwise the poller empties the XSK ring: each frame is copied into the
 * next posted buffer of the QP that its rule named, its chunk goes straight back to the fill ring.
 *
 * Locks: rx_lock for taking frames and receive requests, rq_lock for posting them.
 */
#include <errno.h>
#include "softvf/sv_csum.h"
#include "softvf/sv_verbs.h"

int sv_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct sv_qp *q = (struct sv_qp *)(void *)ibqp;
	bool flush = false;
	int err = 0;

	sv_lock(&q->rq_lock);
	if (sv_unlikely(ibqp->state == IBV_QPS_RESET)) {
		err = EINVAL;
	} else {
		for (; wr != NULL; wr = wr->next) {
			struct sv_wqe *e;
			int i;

			if (sv_unlikely(q->rq_head - __atomic_load_n(&q->rq_tail, __ATOMIC_ACQUIRE) >= q->rq_size)) {
				err = ENOMEM;
				break;
			}
			if (sv_unlikely(wr->num_sge < 0 || (uint32_t)wr->num_sge > q->rq_sge)) {
				err = EINVAL;
				break;
			}
			e = sv_rqe(q, q->rq_head);
			e->wr_id = wr->wr_id;
			e->nsge = (uint16_t)wr->num_sge;
			for (i = 0; i < wr->num_sge; i++)
				e->sge[i] = wr->sg_list[i];
			__atomic_store_n(&q->rq_head, q->rq_head + 1, __ATOMIC_RELEASE);
		}
		flush = ibqp->state == IBV_QPS_ERR && !sv_dead(q->w);
	}
	sv_unlock(&q->rq_lock);
	if (sv_unlikely(flush))
		sv_qp_error(q);
	if (sv_unlikely(err != 0))
		*bad = wr;
	return err;
}

static __attribute__((noinline, cold)) enum ibv_wc_status scatter_pieces(struct sv_qp *q, const struct sv_wqe *e, const struct sv_frame *f)
{
	uint32_t i = 0, used = 0, fi, fo;

	for (fi = 0; fi < f->n; fi++) {
		for (fo = 0; fo < f->frag[fi].len;) {
			uint32_t n = f->frag[fi].len - fo;
			uint8_t *p;

			while (i < e->nsge && used == e->sge[i].length) {
				i++;
				used = 0;
			}
			if (i == e->nsge)
				return IBV_WC_LOC_LEN_ERR;
			p = sv_mem(q->ctx, q->qp.pd, &e->sge[i], true);
			if (p == NULL)
				return IBV_WC_LOC_PROT_ERR;
			n = n < e->sge[i].length - used ? n : e->sge[i].length - used;
			memcpy(p + used, f->frag[fi].p + fo, n);
			used += n;
			fo += n;
		}
	}
	return IBV_WC_SUCCESS;
}

/* Copy a frame into the buffers of one receive request. rx_lock held. */
static enum ibv_wc_status scatter(struct sv_qp *q, const struct sv_wqe *e, const struct sv_frame *f)
{
	if (sv_likely(e->nsge == 1 && f->n == 1)) {
		void *p = sv_mem(q->ctx, q->qp.pd, &e->sge[0], true);

		if (sv_unlikely(p == NULL))
			return IBV_WC_LOC_PROT_ERR;
		if (sv_unlikely(f->len > e->sge[0].length))
			return IBV_WC_LOC_LEN_ERR;
		memcpy(p, f->frag[0].p, f->len);
		return IBV_WC_SUCCESS;
	}
	return scatter_pieces(q, e, f);
}

static __attribute__((noinline, cold)) bool pieces_csum_ok(const struct sv_frame *f)
{
	uint8_t tmp[SV_FRAME_MAX];
	uint32_t n = 0, i;

	if (f->len > sizeof tmp)
		return false;
	for (i = 0; i < f->n; n += f->frag[i++].len)
		memcpy(tmp + n, f->frag[i].p, f->frag[i].len);
	return sv_csum_ok4(tmp, n);
}

static inline bool frame_csum_ok(const struct sv_frame *f)
{
	return sv_likely(f->n == 1) ? sv_csum_ok4(f->frag[0].p, f->len) : pieces_csum_ok(f);
}

/* Empty the receive queue with flush errors. rx_lock held. */
__attribute__((cold)) void sv_rq_flush(struct sv_qp *q)
{
	uint32_t head = __atomic_load_n(&q->rq_head, __ATOMIC_ACQUIRE);

	while (q->rq_tail != head) {
		struct sv_cqe c;

		memset(&c, 0, sizeof c);
		c.wr_id = sv_rqe(q, q->rq_tail)->wr_id;
		c.qp = q;
		c.qp_num = q->qp.qp_num;
		c.status = IBV_WC_WR_FLUSH_ERR;
		c.opcode = (uint8_t)IBV_WC_RECV;
		__atomic_store_n(&q->rq_tail, q->rq_tail + 1, __ATOMIC_RELEASE);
		sv_cq_push(q->rcq, &c, NULL);
	}
}

static void deliver(struct sv_wire *w, struct sv_qp *q, const struct sv_frame *f, struct sv_chan *self)
{
	const struct sv_wqe *e;
	struct sv_cqe c;

	if (sv_unlikely(q->rq_tail == __atomic_load_n(&q->rq_head, __ATOMIC_ACQUIRE) || q->qp.state < IBV_QPS_RTR || q->qp.state == IBV_QPS_ERR)) {
		w->rx_no_buf++;
		return;
	}
	e = sv_rqe(q, q->rq_tail);
	c.wr_id = e->wr_id;
	c.qp = q;
	c.byte_len = f->len;
	c.qp_num = q->qp.qp_num;
	c.sq_next = 0;
	c.opcode = (uint8_t)IBV_WC_RECV;
	c.is_send = false;
	c.status = (uint8_t)scatter(q, e, f);
	c.wc_flags = c.status == IBV_WC_SUCCESS && frame_csum_ok(f) ? IBV_WC_IP_CSUM_OK : 0;
	__atomic_store_n(&q->rq_tail, q->rq_tail + 1, __ATOMIC_RELEASE);
	sv_cq_push(q->rcq, &c, self);
	if (sv_unlikely(c.status != IBV_WC_SUCCESS)) { /* the send side is flushed by the next who holds its lock */
		__atomic_store_n(&q->qp.state, IBV_QPS_ERR, __ATOMIC_RELEASE);
		sv_rq_flush(q);
	}
}

/* Move frames from the XSK to completion queues. rx_lock held. */
unsigned sv_pump(struct sv_wire *w, struct sv_chan *self)
{
	struct sv_qp *last = NULL;
	struct sv_frame f;
	unsigned n = 0;

	while (n < 64 && sv_rx_get(w, &f)) {
		struct sv_qp *q = w->owner[f.qp];

		if (sv_likely(q != NULL)) {
			deliver(w, q, &f, self);
			last = q;
		} else {
			w->rx_no_owner++;
		}
		sv_rx_put(w, &f);
		n++;
	}
	if (n > 0)
		sv_rx_commit(w, n);
	if (last != NULL)
		sv_chan_polled(last->rcq);
	return n;
}

/*
 * A round trip through the kernel's path of a frame leaves nothing of ours in the first-level caches. While the program spins it doesn't
 * cost anything to have the code and the lines that the next frame and the answer to it will need there again: as a NIC that does all this
 * by itself would leave them alone. Nothing that is done here has an effect: the checksum of the last frame is looked at, and a frame is
 * put together but not queued. rx_lock held.
 */
static __attribute__((noinline)) void rehearse(struct sv_wire *w)
{
	struct sv_qp *q = w->owner[w->rx_last_qp];
	const struct sv_wqe *e;
	bool ok;

	if (q == NULL)
		return;
	ok = sv_csum_ok4(w->rx_last, w->rx_last_len);
	__asm__ volatile("" : : "r"(ok));
	e = sv_rqe(q, q->rq_tail);
	if (q->rq_tail != __atomic_load_n(&q->rq_head, __ATOMIC_ACQUIRE) && e->nsge != 0) {
		const char *to = (const char *)(uintptr_t)e->sge[0].addr;

		__builtin_prefetch(to, 1);
		__builtin_prefetch(to + 64, 1);
		__builtin_prefetch(to + 128, 1);
	}
	sv_send_rehearse(q);
}

/* Nothing to do: time to give back what is owed, and if it stays like that to prepare for the next frame. */
void sv_rx_settle(struct sv_wire *w)
{
	uint32_t rest;

	if (!sv_trylock(&w->rx_lock))
		return;
	sv_rx_publish(w);
	rest = w->rx_rest;
	if (rest != 0) {
		__atomic_store_n(&w->rx_rest, rest - 1, __ATOMIC_RELAXED);
		if (rest == 1)
			rehearse(w);
	}
	sv_unlock(&w->rx_lock);
}

/* ---- poll ---- */
/* Something for this CQ, or worth a look? Takes frames off the wire if need be. */
static inline bool cq_ready(struct sv_cq *q)
{
	struct sv_wire *w = q->w;

	if (q->head != __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE))
		return true;
	if (sv_unlikely(sv_stalled(w)) && q->tx_users > 0)
		sv_progress(w);
	else if (q->rx_users == 0)
		return false;
	else if (!sv_rx_ready(w)) {
		if (sv_unlikely((__atomic_load_n(&w->rx_owed, __ATOMIC_RELAXED) | __atomic_load_n(&w->rx_rest, __ATOMIC_RELAXED)) != 0))
			sv_rx_settle(w);
		return false;
	}
	if (sv_trylock(&w->rx_lock)) { /* else someone else is at it, the next poll will see the result */
		sv_pump(w, NULL);
		sv_unlock(&w->rx_lock);
	}
	return q->head != __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE);
}

static inline void sq_release(const struct sv_cqe *e)
{
	if (e->is_send && e->qp != NULL)
		__atomic_store_n(&e->qp->sq_tail, e->sq_next, __ATOMIC_RELEASE);
}

static inline void put_wc(struct ibv_wc *o, uint64_t wr_id, enum ibv_wc_status st, enum ibv_wc_opcode op, uint32_t len, uint32_t qpn, unsigned flags)
{
	o->wr_id = wr_id;
	o->status = st;
	o->opcode = op;
	o->vendor_err = 0;
	o->byte_len = len;
	o->imm_data = 0;
	o->qp_num = qpn;
	o->src_qp = 0;
	o->wc_flags = flags;
	o->pkey_index = 0;
	o->slid = 0;
	o->sl = 0;
	o->dlid_path_bits = 0;
}

/*
 * Frames from the wire straight into the poller's array: the CQ is empty and they are this CQ's, of one piece, into one buffer each. The
 * first one of which something else is true is left to sv_pump(). rx_lock held.
 */
static inline int poll_usual(struct sv_cq *cq, struct sv_wire *w, int n, struct ibv_wc *wc)
{
	const uint8_t *p = NULL;
	uint32_t len = 0, qp = 0;
	int i = 0;

	if (sv_unlikely(__atomic_load_n(&cq->armed, __ATOMIC_RELAXED))) /* an event is due */
		return 0;
	w->rx.p = __atomic_load_n(w->rx_prod, __ATOMIC_ACQUIRE);
	for (; i < n && w->rx.c != w->rx.p; i++) {
		const struct xdp_desc *d = sv_rx_desc(w, w->rx.c);
		const struct sv_wqe *e;
		struct sv_qp *q;
		uint32_t t;
		void *to;

		p = w->umem + d->addr;
		len = d->len;
		qp = sv_rx_qp(w, p);
		q = w->owner[qp];

		if (sv_unlikely((d->options & XDP_PKT_CONTD) != 0 || q == NULL || q->rcq != cq || q->qp.state < IBV_QPS_RTR || q->qp.state == IBV_QPS_ERR))
			break;
		t = q->rq_tail;
		if (sv_unlikely(t == __atomic_load_n(&q->rq_head, __ATOMIC_ACQUIRE)))
			break;
		e = sv_rqe(q, t);
		if (sv_unlikely(e->nsge != 1 || len > e->sge[0].length || (to = sv_mem(q->ctx, q->qp.pd, &e->sge[0], true)) == NULL))
			break;
		memcpy(to, p, len);
		put_wc(&wc[i], e->wr_id, IBV_WC_SUCCESS, IBV_WC_RECV, len, q->qp.qp_num, sv_csum_ok4(p, len) ? IBV_WC_IP_CSUM_OK : 0);
		__atomic_store_n(&q->rq_tail, t + 1, __ATOMIC_RELEASE);
		sv_rx_put1(w, d);
	}
	if (sv_likely(i != 0)) {
		if (i == 1) { /* conversation */
			w->rx_last = p;
			sv_rx_predict(w, p, len);
			w->rx_last_qp = qp;
			__atomic_store_n(&w->rx_rest, 4, __ATOMIC_RELAXED);
		}
		sv_rx_commit(w, (uint32_t)i);
		sv_chan_polled(cq);
	}
	return i;
}

static __attribute__((noinline)) int poll_queued(struct sv_cq *q, int n, struct ibv_wc *wc)
{
	int i = 0;

	sv_lock(&q->lock);
	while (i < n && q->head != q->tail) {
		const struct sv_cqe *e = &q->ring[q->head & q->mask];

		put_wc(&wc[i++], e->wr_id, e->status, e->opcode, e->byte_len, e->qp_num, e->wc_flags);
		sq_release(e);
		__atomic_store_n(&q->head, q->head + 1, __ATOMIC_RELEASE);
	}
	sv_unlock(&q->lock);
	return i;
}

int sv_poll_cq(struct ibv_cq *cq, int n, struct ibv_wc *wc)
{
	struct sv_cq *q = (struct sv_cq *)(void *)cq;
	struct sv_wire *w = q->w;
	int i;

	if (q->head != __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE))
		return poll_queued(q, n, wc);
	if (q->rx_users == 0 || sv_unlikely(sv_stalled(w)) || !sv_rx_ready(w))
		return cq_ready(q) ? poll_queued(q, n, wc) : 0;
	sv_rx_expect(w);
	if (!sv_trylock(&w->rx_lock)) /* someone else is at it, the next poll will see the result */
		return 0;
	/* looked at again: whoever had the lock may have filled it */
	i = q->head == __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE) ? poll_usual(q, w, n, wc) : 0;
	if (sv_unlikely(i == 0))
		sv_pump(w, NULL);
	sv_unlock(&w->rx_lock);
	return sv_likely(i != 0) ? i : poll_queued(q, n, wc);
}

/* One entry, for the extended interface. */
bool sv_cq_take(struct sv_cq *q, struct sv_cqe *e)
{
	bool got = false;

	if (!cq_ready(q))
		return false;
	sv_lock(&q->lock);
	if (q->head != q->tail) {
		*e = q->ring[q->head & q->mask];
		sq_release(e);
		__atomic_store_n(&q->head, q->head + 1, __ATOMIC_RELEASE);
		got = true;
	}
	sv_unlock(&q->lock);
	return got;
}
