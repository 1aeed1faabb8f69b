/*
 * ring.c - the data path: receive, refill, send, reap. Callers hold the ring lock. Never blocks, allocates nothing.
 */
#include <assert.h>
#include <string.h>
#include "vf/internal.h"

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* A WQE that failed is over as well, but its QP has gone to the error state and takes no more work. */
static __attribute__((noinline, cold)) void failed(struct hv_vf *vf)
{
	vf->n.cqe_errors++;
	vf->broken = true;
}

unsigned hv_vf_poll_rx(struct hv_vf *vf, struct hv_vf_cqe *out, unsigned max, uint64_t now_ns)
{
	struct ibv_wc wc[HV_VF_WC_BATCH];
	unsigned got = 0;

	while (got < max) {
		unsigned ask = max - got < HV_VF_WC_BATCH ? max - got : HV_VF_WC_BATCH;
		int n;

		hv_inside_enter();
		n = ibv_poll_cq(vf->rcq, (int)ask, wc);
		hv_inside_leave();
		if (n <= 0) {
			if (UNLIKELY(n < 0))
				failed(vf);
			break;
		}
		assert(vf->rq_posted >= (unsigned)n);
		vf->rq_posted -= (unsigned)n;
		for (int i = 0; i < n; i++) {
			struct hv_buf *b = &vf->bufs[wc[i].wr_id];

			if (UNLIKELY(wc[i].status != IBV_WC_SUCCESS)) {
				failed(vf);
				b->next = vf->stash;
				vf->stash = b;
				vf->n_stash++;
				continue;
			}
			b->data = b->base;
			b->len = wc[i].byte_len;
			b->rx_ns = now_ns;
			__builtin_prefetch(b->base);
			vf->n.rx_octets += b->len;
			vf->n.rx_frames++;
			out[got].buf = b;
			out[got].csum_ok = (wc[i].wc_flags & IBV_WC_IP_CSUM_OK) != 0;
			got++;
		}
		if ((unsigned)n < ask)
			break;
	}
	if (got >= 16 && vf->rq_want < vf->rq) { /* a burst: all hands */
		vf->rq_want = vf->rq_want * 2 < vf->rq ? vf->rq_want * 2 : vf->rq;
		vf->rq_quiet = 0;
	} else if (got > 2) {
		vf->rq_quiet = 0;
	} else if (got != 0 && ++vf->rq_quiet >= 16384 && vf->rq_want > HV_VF_RQ_FEW) {
		vf->rq_want /= 2;
		vf->rq_quiet = 0;
	}
	return got;
}

static unsigned post_batch(struct hv_vf *vf, struct hv_buf **list, unsigned want)
{
	struct ibv_recv_wr *bad = NULL;
	struct hv_buf *b = *list;
	unsigned n = 0;
	int r;

	while (n < want && b != NULL) {
		vf->rsge[n].addr = (uintptr_t)b->base;
		vf->rwr[n].wr_id = b->idx;
		b = b->next;
		n++;
	}
	if (n == 0)
		return 0;
	vf->rwr[n - 1].next = NULL;
	hv_inside_enter();
	r = ibv_post_recv(vf->qp, vf->rwr, &bad);
	hv_inside_leave();
	if (n < HV_VF_REFILL_BATCH)
		vf->rwr[n - 1].next = &vf->rwr[n];
	if (UNLIKELY(r != 0)) {
		if (bad == NULL) /* the provider took none */
			bad = vf->rwr;
		n = (unsigned)(bad - vf->rwr);
	}
	for (unsigned i = 0; i < n; i++)
		*list = (*list)->next;
	vf->rq_posted += n;
	return n;
}

void hv_vf_refill(struct hv_vf *vf, struct hv_env *env)
{
	unsigned room = vf->rq_want > vf->rq_posted ? vf->rq_want - vf->rq_posted : 0;

	if (UNLIKELY(vf->stash != NULL)) {
		struct hv_buf *b;

		while ((b = vf->stash) != NULL) {
			vf->stash = b->next;
			b->next = env->free_rx;
			env->free_rx = b;
			env->n_free_rx++;
		}
		vf->n_stash = 0;
	}
	if (room < HV_VF_REFILL_MIN || UNLIKELY(vf->broken))
		return;
	while (room != 0) {
		unsigned want = room < HV_VF_REFILL_BATCH ? room : HV_VF_REFILL_BATCH, n;

		n = post_batch(vf, &env->free_rx, want);
		env->n_free_rx -= n;
		room -= n;
		if (UNLIKELY(n < want)) { /* readers hold all buffers, or the device took fewer */
			vf->n.rx_no_buf += env->free_rx == NULL;
			break;
		}
	}
}

int hv_vf_post_initial(struct hv_vf *vf)
{
	struct hv_buf *list;

	vf->rq_want = vf->rq < HV_VF_RQ_FEW ? vf->rq : HV_VF_RQ_FEW;
	for (uint32_t i = 0; i + 1 < vf->rq_want; i++)
		vf->bufs[i].next = &vf->bufs[i + 1];
	vf->bufs[vf->rq_want - 1].next = NULL;
	list = vf->bufs;
	while (list != NULL) {
		if (post_batch(vf, &list, HV_VF_REFILL_BATCH) == 0)
			return ENOMEM;
	}
	return 0;
}

uint32_t hv_vf_rx_posted(const struct hv_vf *vf)
{
	return vf->rq_posted;
}

unsigned hv_vf_tx_room(const struct hv_vf *vf)
{
	return vf->sq - (vf->sq_next - vf->sq_done);
}

uint32_t hv_vf_tso_max(const struct hv_vf *vf)
{
	return vf->tso_max;
}

static inline void put_sge(struct ibv_sge *s, const void *p, uint32_t len, uint32_t lkey)
{
	s->addr = (uintptr_t)p;
	s->length = len;
	s->lkey = lkey;
}

/* Payload pieces behind the n entries that are there already. */
static inline int put_payload(struct ibv_sge *s, int n, const struct hv_tx *tx)
{
	for (unsigned i = 0; i < tx->nsge; i++)
		put_sge(&s[n++], tx->sge[i].addr, tx->sge[i].len, tx->sge[i].lkey);
	return n;
}

int hv_vf_tx(struct hv_vf *vf, struct hv_env *env, const struct hv_tx *tx, uint64_t now_ns)
{
	uint32_t i = vf->sq_next & (vf->sq - 1), total = tx->hdr_len + tx->payload;
	uint8_t *slot = vf->slots + (size_t)i * vf->slot_size;
	uint8_t *copy = slot + HV_TX_HDR_MAX, *h = copy - tx->hdr_len; /* headers end where copied payload begins */
	struct ibv_send_wr *wr = &vf->swr, *bad;
	struct ibv_sge *s = vf->ssge;
	const uint8_t *hdr = tx->hdr;
	int r;

	assert(tx->hdr_len <= HV_TX_HDR_MAX && tx->nsge <= HV_TX_SEG_MAX);
	if (UNLIKELY(vf->broken))
		return -EIO;
	if (UNLIKELY(vf->sq_next - vf->sq_done >= vf->sq))
		return -EAGAIN;
	wr->send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
	if (tx->mss != 0) {
		if (UNLIKELY(tx->payload > vf->tso_max || tx->inline_ok))
			return -EINVAL;
		wr->opcode = IBV_WR_TSO;
		memcpy(h, tx->hdr, tx->hdr_len);
		wr->tso.hdr = h;
		wr->tso.hdr_sz = tx->hdr_len;
		wr->tso.mss = tx->mss;
		wr->num_sge = put_payload(s, 0, tx);
	} else {
		wr->opcode = IBV_WR_SEND;
		if (UNLIKELY(!vf->tx_csum)) {
			memcpy(h, tx->hdr, tx->hdr_len);
			hv_vf_txsum(tx, h);
			hdr = h;
			wr->send_flags = IBV_SEND_SIGNALED;
		}
		if (total <= vf->inline_max) {
			wr->send_flags |= IBV_SEND_INLINE;
			put_sge(&s[0], hdr, tx->hdr_len, 0);
			wr->num_sge = put_payload(s, 1, tx);
		} else {
			if (hdr != h)
				memcpy(h, tx->hdr, tx->hdr_len);
			if (tx->inline_ok) {
				uint8_t *p = copy;

				if (UNLIKELY(tx->payload > vf->slot_size - HV_TX_HDR_MAX))
					return -EMSGSIZE;
				for (unsigned k = 0; k < tx->nsge; k++) {
					memcpy(p, tx->sge[k].addr, tx->sge[k].len);
					p += tx->sge[k].len;
				}
				put_sge(&s[0], h, total, vf->lkey);
				wr->num_sge = 1;
			} else {
				put_sge(&s[0], h, tx->hdr_len, vf->lkey);
				wr->num_sge = put_payload(s, 1, tx);
			}
		}
	}
	wr->wr_id = vf->sq_next;
	hv_inside_enter();
	r = ibv_post_send(vf->qp, wr, &bad);
	hv_inside_leave();
	if (UNLIKELY(r != 0))
		return r > 0 ? -r : -EIO;
	vf->post_ns[i] = now_ns;
	env->sq_next = ++vf->sq_next;
	vf->n.tx_posts++;
	vf->n.tx_tso += tx->mss != 0;
	vf->n.tx_octets += total;
	return 0;
}

unsigned hv_vf_poll_tx(struct hv_vf *vf, struct hv_env *env)
{
	struct ibv_wc wc[HV_VF_WC_BATCH];
	unsigned found = 0;

	while (vf->sq_next != vf->sq_done) {
		int n;

		hv_inside_enter();
		n = ibv_poll_cq(vf->scq, HV_VF_WC_BATCH, wc);
		hv_inside_leave();
		if (n <= 0) {
			if (UNLIKELY(n < 0))
				failed(vf);
			break;
		}
		for (int i = 0; i < n; i++) {
			if (UNLIKELY(wc[i].status != IBV_WC_SUCCESS))
				failed(vf);
		}
		vf->sq_done = (uint32_t)wc[n - 1].wr_id + 1; /* one SQ completes in order */
		found += (unsigned)n;
		if ((unsigned)n < HV_VF_WC_BATCH)
			break;
	}
	assert(vf->sq_next - vf->sq_done <= vf->sq);
	env->sq_done = vf->sq_done;
	return found;
}

uint64_t hv_vf_tx_oldest(const struct hv_vf *vf)
{
	if (UNLIKELY(vf->broken))
		return 1; /* as old as can be: the watchdog shall see it at once */
	return vf->sq_next == vf->sq_done ? 0 : vf->post_ns[vf->sq_done & (vf->sq - 1)];
}

const struct hv_vf_counters *hv_vf_counters(const struct hv_vf *vf)
{
	return &vf->n;
}
