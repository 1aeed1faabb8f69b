/*
 * sv_verbs_qp.c - queue pairs: creation, states, destruction. Control path; see sv_verbs_send.c and sv_verbs_recv.c for what they do.
 *
 * The first QP on a netdev starts its wire (AF_XDP socket, XDP program). The table of owners by QP number belongs to rx_lock.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include "softvf/sv_verbs.h"

static uint32_t pow2(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

static void qp_free(struct sv_qp *q)
{
	pthread_mutex_destroy(&q->qp.mutex);
	pthread_cond_destroy(&q->qp.cond);
	free(q->sq);
	free(q->rq);
	free(q->stash);
	free(q);
}

static int qp_alloc(struct sv_qp **out, const struct ibv_qp_cap *cap, uint32_t tso_hdr)
{
	struct sv_qp *q;
	void *mem = NULL;

	if (posix_memalign(&mem, 64, sizeof *q) != 0)
		return ENOMEM;
	q = memset(mem, 0, sizeof *q);
	pthread_mutex_init(&q->qp.mutex, NULL);
	pthread_cond_init(&q->qp.cond, NULL);
	q->sq_size = pow2(cap->max_send_wr);
	q->rq_size = pow2(cap->max_recv_wr);
	q->sq_mask = q->sq_size - 1;
	q->rq_mask = q->rq_size - 1;
	q->sq_sge = cap->max_send_sge > 0 ? cap->max_send_sge : 1;
	q->rq_sge = cap->max_recv_sge > 0 ? cap->max_recv_sge : 1;
	q->sq_stride = (uint32_t)(sizeof(struct sv_wqe) + q->sq_sge * sizeof(struct ibv_sge));
	q->rq_stride = (uint32_t)(sizeof(struct sv_wqe) + q->rq_sge * sizeof(struct ibv_sge));
	q->max_inline = cap->max_inline_data;
	q->max_tso_hdr = tso_hdr;
	q->stash_stride = q->max_inline + tso_hdr;
	q->sq = calloc(q->sq_size, q->sq_stride);
	q->rq = calloc(q->rq_size, q->rq_stride);
	q->stash = calloc(q->sq_size, q->stash_stride > 0 ? q->stash_stride : 1);
	if (q->sq == NULL || q->rq == NULL || q->stash == NULL) {
		qp_free(q);
		return ENOMEM;
	}
	*out = q;
	return 0;
}

static int qp_number(struct sv_qp *q)
{
	struct sv_wire *w = q->w;
	uint32_t i;

	sv_lock(&w->rx_lock);
	sv_lock(&w->tx_lock);
	for (i = 1; i < SV_WIRE_QPS && w->owner[i] != NULL; i++)
		;
	if (i < SV_WIRE_QPS) {
		q->qp.qp_num = q->qp.handle = i;
		w->owner[i] = q;
	}
	sv_unlock(&w->tx_lock);
	sv_unlock(&w->rx_lock);
	return i < SV_WIRE_QPS ? 0 : ENOMEM;
}

static int create(struct sv_ctx *c, struct ibv_qp_init_attr_ex *a, struct sv_qp **out)
{
	uint32_t known = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_MAX_TSO_HEADER | IBV_QP_INIT_ATTR_CREATE_FLAGS;
	uint32_t tso = a->comp_mask & IBV_QP_INIT_ATTR_MAX_TSO_HEADER ? a->max_tso_header : 0;
	struct sv_qp *q;
	int r;

	if (sv_dead(c->w))
		return EIO;
	if (!(a->comp_mask & IBV_QP_INIT_ATTR_PD) || a->pd == NULL)
		return EINVAL;
	if (a->qp_type != IBV_QPT_RAW_PACKET || a->srq != NULL || (a->comp_mask & ~known) != 0)
		return EOPNOTSUPP;
	if ((a->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) && a->create_flags != 0)
		return EOPNOTSUPP;
	if (!sv_capable(CAP_NET_RAW))
		return EPERM;
	if (a->send_cq == NULL || a->recv_cq == NULL || a->cap.max_send_wr > SV_MAX_WR || a->cap.max_recv_wr > SV_MAX_WR ||
	    a->cap.max_send_sge > SV_MAX_SGE || a->cap.max_recv_sge > SV_MAX_SGE || a->cap.max_inline_data > SV_MAX_INLINE || tso > SV_MAX_TSO_HDR)
		return EINVAL;
	r = -sv_wire_start(c->w);
	if (r != 0)
		return sv_dead(c->w) || r == ENODEV || r == ENXIO ? EIO : r;
	r = qp_alloc(&q, &a->cap, tso);
	if (r != 0)
		return r;
	q->ctx = c;
	q->w = c->w;
	q->scq = (struct sv_cq *)(void *)a->send_cq;
	q->rcq = (struct sv_cq *)(void *)a->recv_cq;
	q->sig_all = a->sq_sig_all != 0;
	q->qp.context = &c->v.context;
	q->qp.qp_context = a->qp_context;
	q->qp.pd = a->pd;
	q->qp.send_cq = a->send_cq;
	q->qp.recv_cq = a->recv_cq;
	q->qp.qp_type = a->qp_type;
	q->qp.state = IBV_QPS_RESET;
	r = qp_number(q);
	if (r != 0) {
		qp_free(q);
		return r;
	}
	__atomic_add_fetch(&q->scq->tx_users, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&q->rcq->rx_users, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&a->pd->handle, 1, __ATOMIC_RELAXED);
	a->cap.max_send_wr = q->sq_size;
	a->cap.max_recv_wr = q->rq_size;
	a->cap.max_send_sge = q->sq_sge;
	a->cap.max_recv_sge = q->rq_sge;
	*out = q;
	return 0;
}

struct ibv_qp *sv_create_qp_ex(struct ibv_context *ctx, struct ibv_qp_init_attr_ex *a)
{
	struct sv_qp *q = NULL;
	int r = create(sv_ctx(ctx), a, &q);

	if (r != 0) {
		errno = r;
		return NULL;
	}
	return &q->qp;
}

SV_EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
	struct ibv_qp_init_attr_ex x;
	struct ibv_qp *qp;

	memset(&x, 0, sizeof x);
	x.qp_context = a->qp_context;
	x.send_cq = a->send_cq;
	x.recv_cq = a->recv_cq;
	x.srq = a->srq;
	x.cap = a->cap;
	x.qp_type = a->qp_type;
	x.sq_sig_all = a->sq_sig_all;
	x.comp_mask = IBV_QP_INIT_ATTR_PD;
	x.pd = pd;
	qp = sv_create_qp_ex(pd->context, &x);
	if (qp != NULL)
		a->cap = x.cap;
	return qp;
}

static bool may_move(enum ibv_qp_state from, enum ibv_qp_state to)
{
	switch (to) {
	case IBV_QPS_RESET:
	case IBV_QPS_ERR:
		return true;
	case IBV_QPS_INIT:
		return from == IBV_QPS_RESET || from == IBV_QPS_INIT;
	case IBV_QPS_RTR:
		return from == IBV_QPS_INIT;
	case IBV_QPS_RTS:
		return from == IBV_QPS_RTR || from == IBV_QPS_RTS;
	default:
		return false;
	}
}

/* Back to RESET: both queues empty, without completions. */
static void qp_reset(struct sv_qp *q)
{
	struct sv_wire *w = q->w;
	uint32_t i;

	sv_lock(&w->rx_lock);
	sv_lock(&q->rq_lock);
	q->qp.state = IBV_QPS_RESET;
	q->rq_head = q->rq_tail = 0;
	sv_unlock(&q->rq_lock);
	sv_unlock(&w->rx_lock);
	sv_lock(&w->tx_lock);
	for (i = w->tx_done; i != w->tx.p; i++)
		if (w->tags[i & w->tx.mask].owner == q)
			w->tags[i & w->tx.mask].owner = NULL;
	q->sq_head = q->sq_exec = q->sq_tail = q->sq_done = 0;
	sv_unlock(&w->tx_lock);
	sv_cq_clean(q->scq, q);
	sv_cq_clean(q->rcq, q);
}

SV_EXPORT int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	struct sv_qp *q = (struct sv_qp *)(void *)qp;

	if (sv_dead(q->w))
		return EIO;
	if ((mask & IBV_QP_PORT) && attr->port_num != 1)
		return EINVAL;
	if ((mask & ~(IBV_QP_STATE | IBV_QP_CUR_STATE | IBV_QP_PORT | IBV_QP_PKEY_INDEX | IBV_QP_QKEY)) != 0)
		return EINVAL;
	if (!(mask & IBV_QP_STATE))
		return 0;
	if (!may_move(qp->state, attr->qp_state))
		return EINVAL;
	if (qp->state == IBV_QPS_RESET && attr->qp_state == IBV_QPS_INIT && !(mask & IBV_QP_PORT))
		return EINVAL;
	if (attr->qp_state == IBV_QPS_RESET)
		qp_reset(q);
	else if (attr->qp_state == IBV_QPS_ERR)
		sv_qp_error(q);
	else
		__atomic_store_n(&qp->state, attr->qp_state, __ATOMIC_RELEASE);
	return 0;
}

SV_EXPORT int ibv_query_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
	const struct sv_qp *q = (const struct sv_qp *)(const void *)qp;

	(void)mask;
	if (sv_dead(q->w))
		return EIO;
	memset(attr, 0, sizeof *attr);
	attr->qp_state = attr->cur_qp_state = qp->state;
	attr->port_num = 1;
	attr->cap.max_send_wr = q->sq_size;
	attr->cap.max_recv_wr = q->rq_size;
	attr->cap.max_send_sge = q->sq_sge;
	attr->cap.max_recv_sge = q->rq_sge;
	attr->cap.max_inline_data = q->max_inline;
	if (init != NULL) {
		memset(init, 0, sizeof *init);
		init->qp_context = qp->qp_context;
		init->send_cq = qp->send_cq;
		init->recv_cq = qp->recv_cq;
		init->cap = attr->cap;
		init->qp_type = qp->qp_type;
		init->sq_sig_all = q->sig_all;
	}
	return 0;
}

SV_EXPORT int ibv_destroy_qp(struct ibv_qp *qp)
{
	struct sv_qp *q = (struct sv_qp *)(void *)qp;
	struct sv_wire *w = q->w;
	uint32_t i;

	sv_lock(&w->rx_lock);
	sv_lock(&w->tx_lock);
	w->owner[qp->qp_num] = NULL;
	for (i = w->tx_done; i != w->tx.p; i++)
		if (w->tags[i & w->tx.mask].owner == q)
			w->tags[i & w->tx.mask].owner = NULL;
	sv_unlock(&w->tx_lock);
	sv_unlock(&w->rx_lock);
	sv_cq_clean(q->scq, q);
	sv_cq_clean(q->rcq, q);
	__atomic_sub_fetch(&q->scq->tx_users, 1, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&q->rcq->rx_users, 1, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&qp->pd->handle, 1, __ATOMIC_RELAXED);
	qp_free(q);
	return 0;
}

/* these have an IBVERBS_1.0 form as well, see sv_stubs.def */
SV_VERSION(ibv_create_qp)
SV_VERSION(ibv_modify_qp)
SV_VERSION(ibv_query_qp)
SV_VERSION(ibv_destroy_qp)
