/*
 * sv_verbs_data.c - the data path: post_send, post_recv, poll_cq.
 *
 * Sends. post_send stores the WQE, copies the frame into the UMEM, and kicks the kernel once for the whole list. A WQE completes
 * when the kernel has taken its frame, in order. What can't be handed over at once (ring full, link down) stays in the send queue
 * and is resumed by the next post or poll, or by the monitor thread.
 *
 * Receives. The empty poll is two loads and two compares. Otherwise the poller empties the XSK ring: each frame is copied into the
 * next posted buffer of the QP that its rule named, its chunk goes straight back to the fill ring.
 *
 * Locks: tx_lock for everything about send queues, rx_lock for taking frames and receive requests, rq_lock for posting them.
 */
#include <errno.h>
#include "softvf/sv_csum.h"
#include "softvf/sv_verbs.h"

enum exec { EXEC_OK, EXEC_WAIT, EXEC_ERROR };

/* ---- sends ---- */
static void sq_complete(struct sv_qp *q, uint32_t idx, enum ibv_wc_status st)
{
	const struct sv_wqe *e = sv_sqe(q, idx);
	struct sv_cqe c;

	q->sq_done = idx + 1;
	if (!q->sig_all && !(e->send_flags & IBV_SEND_SIGNALED) && st == IBV_WC_SUCCESS)
		return;
	memset(&c, 0, sizeof c);
	c.wr_id = e->wr_id;
	c.qp = q;
	c.qp_num = q->qp.qp_num;
	c.sq_next = idx + 1;
	c.status = (uint8_t)st;
	c.opcode = e->opcode == IBV_WR_TSO ? IBV_WC_TSO : IBV_WC_SEND;
	c.is_send = true;
	sv_cq_push(q->scq, &c, NULL);
}

static void on_sent(void *owner, uint32_t cookie) { sq_complete(owner, cookie, IBV_WC_SUCCESS); }

static inline void *sge_mem(const struct sv_qp *q, const struct sv_wqe *e, unsigned i)
{
	if (e->send_flags & IBV_SEND_INLINE)
		return (void *)(uintptr_t)e->sge[i].addr;
	return sv_mem(q->ctx, q->qp.pd, &e->sge[i], false);
}

/* Several chunks: gather first, the checksum wants it contiguous. */
static __attribute__((noinline, cold)) enum exec exec_long(struct sv_qp *q, uint32_t idx, uint32_t total, enum ibv_wc_status *st)
{
	const struct sv_wqe *e = sv_sqe(q, idx);
	struct sv_wire *w = q->w;
	uint8_t tmp[SV_FRAME_MAX], *f;
	uint32_t room, off = 0, left;
	uint64_t addr;
	unsigned i;

	for (i = 0; i < e->nsge; i++) {
		const void *p = sge_mem(q, e, i);

		if (p == NULL && e->sge[i].length > 0) {
			*st = IBV_WC_LOC_PROT_ERR;
			return EXEC_ERROR;
		}
		memcpy(tmp + off, p, e->sge[i].length);
		off += e->sge[i].length;
	}
	if (e->send_flags & IBV_SEND_IP_CSUM)
		sv_csum_fill(tmp, total);
	for (off = 0, left = total; left > 0; off += room, left -= room) {
		room = left < w->chunk ? left : w->chunk;
		f = sv_tx_frame(w, &addr);
		memcpy(f, tmp + off, room);
		sv_tx_queue(w, addr, room, left > room, q, idx);
	}
	return EXEC_OK;
}

static enum exec exec_send(struct sv_qp *q, uint32_t idx, enum ibv_wc_status *st)
{
	const struct sv_wqe *e = sv_sqe(q, idx);
	struct sv_wire *w = q->w;
	uint32_t total = 0, n, off = 0;
	uint64_t addr;
	uint8_t *f;
	unsigned i;

	for (i = 0; i < e->nsge; i++)
		total += e->sge[i].length;
	if (sv_unlikely(total < 14 || total > SV_FRAME_MAX)) {
		*st = IBV_WC_LOC_LEN_ERR;
		return EXEC_ERROR;
	}
	n = (total + w->chunk - 1) >> w->chunk_shift;
	if (sv_unlikely(!sv_tx_room(w, n)))
		return EXEC_WAIT;
	if (sv_likely(n == 1)) {
		f = sv_tx_frame(w, &addr);
		for (i = 0; i < e->nsge; i++) {
			const void *p = sge_mem(q, e, i);

			if (sv_unlikely(p == NULL && e->sge[i].length > 0)) {
				w->tx_free[w->tx_nfree++] = (uint32_t)(addr >> w->chunk_shift);
				*st = IBV_WC_LOC_PROT_ERR;
				return EXEC_ERROR;
			}
			memcpy(f + off, p, e->sge[i].length);
			off += e->sge[i].length;
		}
		if (e->send_flags & IBV_SEND_IP_CSUM)
			sv_csum_fill(f, total);
		sv_tx_queue(w, addr, total, false, q, idx);
		return EXEC_OK;
	}
	return exec_long(q, idx, total, st);
}

static __attribute__((noinline)) enum exec exec_tso(struct sv_qp *q, uint32_t idx, enum ibv_wc_status *st)
{
	const struct sv_wqe *e = sv_sqe(q, idx);
	struct sv_wire *w = q->w;
	struct iovec iov[SV_TSO_IOV];
	uint8_t hdr[SV_MAX_TSO_HDR];
	uint32_t total = e->hdr_sz;
	unsigned i;
	int r;

	if (!sv_tx_empty(w)) { /* what was posted before goes first */
		sv_tx_kick(w);
		sv_tx_retire(w, on_sent);
		if (!sv_tx_empty(w))
			return EXEC_WAIT;
	}
	if (w->tx_hold)
		return EXEC_WAIT;
	memcpy(hdr, e->hdr, e->hdr_sz);
	iov[1].iov_base = hdr;
	iov[1].iov_len = e->hdr_sz;
	for (i = 0; i < e->nsge; i++) {
		iov[2 + i].iov_base = sge_mem(q, e, i);
		iov[2 + i].iov_len = e->sge[i].length;
		if (iov[2 + i].iov_base == NULL && e->sge[i].length > 0) {
			*st = IBV_WC_LOC_PROT_ERR;
			return EXEC_ERROR;
		}
		total += e->sge[i].length;
	}
	if (total > SV_TSO_MAX || e->mss == 0) {
		*st = IBV_WC_LOC_LEN_ERR;
		return EXEC_ERROR;
	}
	r = sv_tso_send(w, iov, 2u + e->nsge, e->hdr_sz, total, e->mss);
	if (r == 0) {
		sq_complete(q, idx, IBV_WC_SUCCESS);
		return EXEC_OK;
	}
	if (r == -EAGAIN) {
		sv_stall(w, 1);
		return EXEC_WAIT;
	}
	if (r == -ENETDOWN || r == -ENXIO || r == -ENODEV) {
		w->tx_hold = 1;
		sv_wire_wake(w, true);
		return EXEC_WAIT;
	}
	*st = IBV_WC_LOC_QP_OP_ERR;
	return EXEC_ERROR;
}

/* Everything that isn't done completes with a flush error. tx_lock held. */
static __attribute__((noinline, cold)) void sq_flush(struct sv_qp *q)
{
	struct sv_wire *w = q->w;
	uint32_t i;

	for (i = w->tx_done; i != w->tx.p; i++) /* frames still in the ring may yet leave, but report to nobody */
		if (w->tags[i & w->tx.mask].owner == q)
			w->tags[i & w->tx.mask].owner = NULL;
	while (q->sq_done != q->sq_head)
		sq_complete(q, q->sq_done, IBV_WC_WR_FLUSH_ERR);
	q->sq_exec = q->sq_head;
}

static __attribute__((noinline, cold)) void sq_fail(struct sv_qp *q, uint32_t idx, enum ibv_wc_status st)
{
	sv_tx_kick(q->w);
	sv_tx_retire(q->w, on_sent);
	while (q->sq_done != idx) /* stuck in front of it */
		sq_complete(q, q->sq_done, IBV_WC_WR_FLUSH_ERR);
	sq_complete(q, idx, st);
	__atomic_store_n(&q->qp.state, IBV_QPS_ERR, __ATOMIC_RELEASE);
	sq_flush(q);
}

/* Hand over what waits in the send queue. tx_lock held. */
static bool sq_run(struct sv_qp *q)
{
	enum ibv_wc_status st = IBV_WC_GENERAL_ERR;
	enum exec r = EXEC_OK;

	while (q->sq_exec != q->sq_head && r == EXEC_OK) {
		uint32_t idx = q->sq_exec;

		r = sv_sqe(q, idx)->opcode == IBV_WR_TSO ? exec_tso(q, idx, &st) : exec_send(q, idx, &st);
		if (r == EXEC_OK)
			q->sq_exec = idx + 1;
		else if (r == EXEC_ERROR)
			sq_fail(q, idx, st);
	}
	return q->sq_exec == q->sq_head;
}

/* A WQE that has to wait can't refer to memory that the caller may reuse. */
static __attribute__((noinline, cold)) void sq_stash(struct sv_qp *q, uint32_t idx)
{
	struct sv_wqe *e = sv_sqe(q, idx);
	uint8_t *p = q->stash + (size_t)(idx & q->sq_mask) * q->stash_stride;
	unsigned i;

	if (e->stashed)
		return;
	e->stashed = true;
	if (e->opcode == IBV_WR_TSO) {
		memcpy(p, e->hdr, e->hdr_sz);
		e->hdr = p;
		p += q->max_tso_hdr;
	}
	if (e->send_flags & IBV_SEND_INLINE) {
		for (i = 0; i < e->nsge; i++) {
			memcpy(p, (void *)(uintptr_t)e->sge[i].addr, e->sge[i].length);
			e->sge[i].addr = (uintptr_t)p;
			p += e->sge[i].length;
		}
	}
}

/* tx_lock held */
static __attribute__((noinline, cold)) void progress_locked(struct sv_wire *w)
{
	unsigned i;

	sv_stall(w, 0);
	if (!sv_tx_empty(w))
		sv_tx_kick(w);
	sv_tx_retire(w, on_sent);
	/* only a burst was refused: see whether the link takes it now */
	if (w->tx_hold && sv_tx_empty(w) && __atomic_load_n(&w->up, __ATOMIC_ACQUIRE)) {
		w->tx_hold = 0;
		sv_tx_retire(w, on_sent);
	}
	for (i = 1; i < SV_WIRE_QPS; i++) {
		struct sv_qp *q = w->owner[i];

		if (q != NULL && q->sq_exec != q->sq_head && !sq_run(q) && !w->tx_hold)
			sv_stall(w, 1);
	}
	if (!sv_tx_empty(w)) {
		sv_tx_kick(w);
		sv_tx_retire(w, on_sent);
	}
}

void sv_progress(struct sv_wire *w)
{
	if (sv_dead(w) || !w->started)
		return;
	sv_lock(&w->tx_lock);
	progress_locked(w);
	sv_unlock(&w->tx_lock);
}

/*
 * What nearly every call is, straight on: one frame of one chunk on a send queue that doesn't wait for anything. It goes from the caller's
 * memory into the UMEM; of the WQE only what its completion needs is stored. False: nothing has been done, all conditions are to be looked at.
 */
static __attribute__((noinline)) bool post_usual(struct sv_qp *q, const struct ibv_send_wr *wr, bool dry)
{
	struct sv_wire *w = q->w;
	uint32_t idx = q->sq_head, n = (uint32_t)wr->num_sge, total = 0, i;
	const struct ibv_sge *s = wr->sg_list;
	bool in = (wr->send_flags & IBV_SEND_INLINE) != 0;
	struct sv_wqe *e;
	uint64_t addr;
	uint8_t *f, *p;

	if (wr->next != NULL || wr->opcode != IBV_WR_SEND || n > q->sq_sge || q->sq_exec != idx || q->qp.state != IBV_QPS_RTS || sv_dead(w) ||
	    idx - __atomic_load_n(&q->sq_tail, __ATOMIC_ACQUIRE) >= q->sq_size)
		return false;
	for (i = 0; i < n; i++) {
		if (s[i].length > w->chunk) /* so that the sum can't overflow */
			return false;
		total += s[i].length;
	}
	if (total < 14 || total > w->chunk || (in && total > q->max_inline) || !sv_tx_room(w, 1))
		return false;
	p = f = sv_tx_frame(w, &addr);
	for (i = 0; i < n; i++) {
		const void *m = in ? (const void *)(uintptr_t)s[i].addr : sv_mem(q->ctx, q->qp.pd, &s[i], false);

		if (sv_unlikely(m == NULL || s[i].length == 0)) {
			w->tx_nfree++;
			return false;
		}
		memcpy(p, m, s[i].length);
		p += s[i].length;
	}
	if ((wr->send_flags & IBV_SEND_IP_CSUM) != 0)
		sv_csum_fill(f, total);
	e = sv_sqe(q, idx);
	e->wr_id = wr->wr_id;
	e->send_flags = wr->send_flags;
	e->opcode = IBV_WR_SEND;
	if (sv_unlikely(dry)) {
		w->tx_nfree++;
		return true;
	}
	sv_tx_queue(w, addr, total, false, q, idx);
	q->sq_head = q->sq_exec = idx + 1;
	return true;
}

/* tx_lock held */
static __attribute__((noinline)) int post_any(struct sv_qp *q, struct ibv_send_wr **list)
{
	struct sv_wire *w = q->w;
	struct ibv_send_wr *wr = *list;
	uint32_t first, idx;
	int err = 0;

	if (sv_unlikely(q->qp.state != IBV_QPS_RTS && q->qp.state != IBV_QPS_ERR))
		return EINVAL;
	first = q->sq_head;
	for (; wr != NULL; wr = wr->next) {
		struct sv_wqe *e;
		uint32_t len = 0;
		int i;

		idx = q->sq_head;
		if (sv_unlikely(idx - __atomic_load_n(&q->sq_tail, __ATOMIC_ACQUIRE) >= q->sq_size)) {
			err = ENOMEM;
			break;
		}
		if (sv_unlikely(wr->num_sge < 0 || (uint32_t)wr->num_sge > q->sq_sge || (wr->opcode != IBV_WR_SEND && wr->opcode != IBV_WR_TSO))) {
			err = EINVAL;
			break;
		}
		e = sv_sqe(q, idx);
		e->wr_id = wr->wr_id;
		e->send_flags = wr->send_flags;
		e->nsge = (uint16_t)wr->num_sge;
		e->opcode = (uint8_t)wr->opcode;
		e->stashed = false;
		for (i = 0; i < wr->num_sge; i++) {
			e->sge[i] = wr->sg_list[i];
			len += wr->sg_list[i].length;
		}
		if (sv_unlikely((wr->send_flags & IBV_SEND_INLINE) && len > q->max_inline)) {
			err = ENOMEM;
			break;
		}
		if (wr->opcode == IBV_WR_TSO) {
			if (sv_unlikely(wr->tso.hdr_sz > q->max_tso_hdr || wr->tso.mss == 0)) {
				err = wr->tso.mss == 0 ? EINVAL : ENOMEM;
				break;
			}
			e->hdr = wr->tso.hdr;
			e->hdr_sz = wr->tso.hdr_sz;
			e->mss = wr->tso.mss;
		}
		q->sq_head = idx + 1;
	}
	if (sv_unlikely(q->qp.state == IBV_QPS_ERR)) {
		if (!sv_dead(w))
			sq_flush(q);
	} else if (sv_likely(q->sq_exec != q->sq_head) && !sv_dead(w)) {
		(void)sq_run(q);
		if (!sv_tx_empty(w))
			sv_tx_kick(w);
		sv_tx_retire(w, on_sent);
		if (sv_unlikely(q->sq_exec != q->sq_head)) { /* a list longer than the ring, or a stall */
			progress_locked(w);
			if (q->sq_exec != q->sq_head && !w->tx_hold)
				sv_stall(w, 1);
		}
	}
	for (idx = first; sv_unlikely(idx != q->sq_head && q->sq_exec != q->sq_head); idx++)
		if ((int32_t)(idx - q->sq_exec) >= 0)
			sq_stash(q, idx);
	*list = wr;
	return err;
}

int sv_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct sv_qp *q = (struct sv_qp *)(void *)ibqp;
	struct sv_wire *w = q->w;
	int err = 0;

	sv_lock(&w->tx_lock);
	if (sv_likely(wr != NULL && post_usual(q, wr, false))) {
		sv_tx_kick(w);
		sv_tx_retire(w, on_sent);
	} else {
		err = post_any(q, &wr);
	}
	if (sv_unlikely(sv_stalled(w)))
		sv_wire_wake(w, false);
	sv_unlock(&w->tx_lock);
	if (sv_unlikely(err != 0))
		*bad = wr;
	return err;
}

/* ---- receives ---- */
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
static __attribute__((noinline, cold)) void rq_flush(struct sv_qp *q)
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
		rq_flush(q);
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
	static const uint8_t frame[128] = { [12] = 8, [14] = 0x45, [17] = 114, [23] = 6 };
	struct ibv_sge sge[2] = { { .addr = (uintptr_t)frame, .length = 66 }, { .addr = (uintptr_t)frame + 66, .length = 62 } };
	struct ibv_send_wr wr = { .sg_list = sge, .num_sge = 2, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_INLINE | IBV_SEND_IP_CSUM };
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
	if (!sv_trylock(&w->tx_lock))
		return;
	if (q->sq_exec == q->sq_head)
		(void)post_usual(q, &wr, true);
	sv_unlock(&w->tx_lock);
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

void sv_qp_error(struct sv_qp *q)
{
	struct sv_wire *w = q->w;

	sv_lock(&w->rx_lock);
	sv_lock(&q->rq_lock);
	__atomic_store_n(&q->qp.state, IBV_QPS_ERR, __ATOMIC_RELEASE);
	sv_unlock(&q->rq_lock);
	rq_flush(q);
	sv_unlock(&w->rx_lock);
	sv_lock(&w->tx_lock);
	sq_flush(q);
	sv_unlock(&w->tx_lock);
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
			w->rx_last_len = len;
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
