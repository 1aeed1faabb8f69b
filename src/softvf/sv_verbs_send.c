/*
 * sv_verbs_send.c - the data path: post_send.
 *
 * post_send stores the WQE, copies the frame into the UMEM, and kicks the kernel once for the whole list. A WQE completes
 * when the kernel has taken its frame, in order. What can't be handed over at once (ring full, link down) stays in the send queue
 * and is resumed by the next post or poll, or by the monitor thread.
 *
 * Lock: tx_lock for everything about send queues.
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

/* As sv_post_send() up to the wire: see rehearse(). */
void sv_send_rehearse(struct sv_qp *q)
{
	static const uint8_t frame[128] = { [12] = 8, [14] = 0x45, [17] = 114, [23] = 6 };
	struct ibv_sge sge[2] = { { .addr = (uintptr_t)frame, .length = 66 }, { .addr = (uintptr_t)frame + 66, .length = 62 } };
	struct ibv_send_wr wr = { .sg_list = sge, .num_sge = 2, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_INLINE | IBV_SEND_IP_CSUM };

	if (!sv_trylock(&q->w->tx_lock))
		return;
	(void)post_usual(q, &wr, true);
	sv_unlock(&q->w->tx_lock);
}

void sv_qp_error(struct sv_qp *q)
{
	struct sv_wire *w = q->w;

	sv_lock(&w->rx_lock);
	sv_lock(&q->rq_lock);
	__atomic_store_n(&q->qp.state, IBV_QPS_ERR, __ATOMIC_RELEASE);
	sv_unlock(&q->rq_lock);
	sv_rq_flush(q);
	sv_unlock(&w->rx_lock);
	sv_lock(&w->tx_lock);
	sq_flush(q);
	sv_unlock(&w->tx_lock);
}
