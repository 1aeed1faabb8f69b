/*
 * open.c - from a pair to an opened device with one ring, and back. Owns every object of struct hv_vf. Callers: one control thread at a time.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/log.h"
#include "base/sys.h"
#include "vf/internal.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define HUGE ((size_t)2 << 20)
#define MEM_MIN (2u << 20) /* the least that HVACCEL_MEMORY_MB allows */

struct caps {
	uint32_t wr_max, tso_max;
	bool tx_csum;
};

static void unblock(int fd)
{
	int fl = hv_sys_fcntl(fd, F_GETFL, 0);

	if (fl >= 0)
		(void)hv_sys_fcntl(fd, F_SETFL, fl | O_NONBLOCK);
	(void)hv_sys_fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static struct ibv_context *open_device(const struct hv_vf_pair *pair, int *errp)
{
	struct ibv_context *ctx = NULL;
	struct ibv_device **list;
	int n;

	list = hv_verbs_devices(&n, errp);
	if (list == NULL)
		return NULL;
	*errp = ENODEV;
	hv_inside_enter();
	for (int i = 0; i < n; i++) {
		/* Names are given anew (udev renames); the index is unique for ever. softvf has no RDMA netlink: no index is known then. */
		bool hit = strcmp(hv_verbs.ibv_get_device_name(list[i]), pair->ibname) == 0;

		if (pair->ibindex >= 0 && hv_verbs.ibv_get_device_index != NULL && hv_verbs.ibv_get_device_index(list[i]) >= 0)
			hit = hv_verbs.ibv_get_device_index(list[i]) == pair->ibindex;
		if (!hit)
			continue;
		errno = 0;
		ctx = hv_verbs.ibv_open_device(list[i]);
		if (ctx == NULL)
			*errp = errno != 0 ? errno : ENODEV;
		break;
	}
	hv_verbs.ibv_free_device_list(list);
	hv_inside_leave();
	return ctx;
}

static int query(struct hv_vf *vf, struct caps *c, enum hv_vf_why *why)
{
	struct ibv_device_attr_ex a;
	struct ibv_port_attr p;
	int r;

	*why = HV_VF_OTHER;
	r = hv_verbs_query_device(vf->ctx, &a);
	if (r != 0)
		return r;
	r = hv_verbs_query_port(vf->ctx, &p);
	if (r != 0)
		return r < 0 ? -r : r;
	if (p.state != IBV_PORT_ACTIVE) {
		*why = HV_VF_PORT_DOWN;
		return ENETDOWN;
	}
	c->tx_csum = (a.orig_attr.device_cap_flags & IBV_DEVICE_RAW_IP_CSUM) != 0 || (a.raw_packet_caps & IBV_RAW_PACKET_CAP_IP_CSUM) != 0;
	c->wr_max = (uint32_t)a.orig_attr.max_qp_wr;
	if ((uint32_t)a.orig_attr.max_cqe < c->wr_max)
		c->wr_max = (uint32_t)a.orig_attr.max_cqe;
	c->tso_max = 0;
	if (c->tx_csum && (a.tso_caps.supported_qpts & (1u << IBV_QPT_RAW_PACKET)) != 0 && a.tso_caps.max_tso > 2 * HV_TX_HDR_MAX)
		c->tso_max = (a.tso_caps.max_tso < 65535 ? a.tso_caps.max_tso : 65535) - HV_TX_HDR_MAX; /* the IP length field counts headers too */
	return 0;
}

/* DONTFORK: a child must not inherit memory that the device writes to, and copy-on-write must not move it away from the parent. */
static int map(struct hv_vf *vf, size_t len, bool huge)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0), saved = errno;
	void *p;

	if (huge)
		len = (len + HUGE - 1) / HUGE * HUGE;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (p == MAP_FAILED) {
		errno = saved;
		return ENOMEM;
	}
	if (madvise(p, len, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) { /* EINVAL: before Linux 5.14 */
		munmap(p, len);
		errno = saved;
		return ENOMEM;
	}
	(void)madvise(p, len, MADV_DONTFORK);
	(void)madvise(p, len, MADV_DONTDUMP);
	errno = saved;
	vf->mem = p;
	vf->mem_len = len;
	return 0;
}

static int try_region(struct hv_vf *vf, bool huge)
{
	int r = map(vf, vf->plan.total, huge), saved = errno;

	if (r != 0)
		return r;
	hv_inside_enter();
	errno = 0;
	vf->mr = hv_verbs.ibv_reg_mr(vf->pd, vf->mem, vf->mem_len, IBV_ACCESS_LOCAL_WRITE);
	r = vf->mr != NULL ? 0 : errno != 0 ? errno : ENOMEM;
	hv_inside_leave();
	errno = saved;
	if (r != 0) {
		munmap(vf->mem, vf->mem_len);
		vf->mem = NULL;
	}
	return r;
}

static int region(struct hv_vf *vf, bool huge)
{
	if (huge && try_region(vf, true) == 0)
		return 0;
	return try_region(vf, false);
}

static int tables(struct hv_vf *vf)
{
	const struct hv_vf_plan *p = &vf->plan;

	vf->post_ns = calloc(p->sq, sizeof *vf->post_ns);
	vf->bufs = calloc(p->rx_bufs, sizeof *vf->bufs);
	vf->chunks = calloc(p->chunks, sizeof *vf->chunks);
	if (vf->post_ns == NULL || vf->bufs == NULL || vf->chunks == NULL)
		return ENOMEM;
	vf->sq = p->sq;
	vf->rq = p->rq;
	vf->slot_size = p->slot_size;
	vf->lkey = vf->mr->lkey;
	vf->slots = vf->mem + p->off_slot;
	for (uint32_t i = 0; i < p->rx_bufs; i++) {
		vf->bufs[i].base = vf->bufs[i].data = vf->mem + p->off_rx + (size_t)i * p->rx_size;
		vf->bufs[i].cap = p->rx_size;
		vf->bufs[i].lkey = vf->lkey;
		vf->bufs[i].idx = i;
	}
	for (uint32_t i = 0; i < p->chunks; i++) {
		vf->chunks[i].base = vf->mem + p->off_chunk + (size_t)i * HV_VF_CHUNK;
		vf->chunks[i].cap = HV_VF_CHUNK;
		vf->chunks[i].lkey = vf->lkey;
	}
	for (uint32_t i = 0; i < HV_VF_REFILL_BATCH; i++) {
		vf->rsge[i].length = p->rx_size;
		vf->rsge[i].lkey = vf->lkey;
		vf->rwr[i].sg_list = &vf->rsge[i];
		vf->rwr[i].num_sge = 1;
		vf->rwr[i].next = i + 1 < HV_VF_REFILL_BATCH ? &vf->rwr[i + 1] : NULL;
	}
	vf->swr.sg_list = vf->ssge;
	return 0;
}

static struct ibv_qp *create_qp(struct hv_vf *vf, uint32_t inl, bool tso, int *errp)
{
	struct verbs_context *v = verbs_get_ctx_op(vf->ctx, create_qp_ex);
	struct ibv_qp_init_attr_ex a = {
		.send_cq = vf->scq, .recv_cq = vf->rcq, .qp_type = IBV_QPT_RAW_PACKET,
		.cap = { .max_send_wr = vf->sq, .max_recv_wr = vf->rq, .max_send_sge = HV_VF_SGE, .max_recv_sge = 1, .max_inline_data = inl },
		.comp_mask = IBV_QP_INIT_ATTR_PD, .pd = vf->pd,
	};
	struct ibv_qp *qp;

	if (tso && v == NULL) {
		*errp = EOPNOTSUPP;
		return NULL;
	}
	errno = 0;
	if (tso) {
		a.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
		a.max_tso_header = HV_TX_HDR_MAX;
		qp = v->create_qp_ex(vf->ctx, &a);
	} else {
		struct ibv_qp_init_attr b = { .send_cq = vf->scq, .recv_cq = vf->rcq, .cap = a.cap, .qp_type = IBV_QPT_RAW_PACKET };

		qp = hv_verbs.ibv_create_qp(vf->pd, &b);
		a.cap = b.cap;
	}
	if (qp == NULL)
		*errp = errno != 0 ? errno : EIO;
	else
		vf->inline_max = a.cap.max_inline_data < inl ? a.cap.max_inline_data : inl;
	return qp;
}

static int to_state(struct ibv_qp *qp, enum ibv_qp_state st)
{
	struct ibv_qp_attr a = { .qp_state = st, .port_num = 1 };
	int r = hv_verbs.ibv_modify_qp(qp, &a, IBV_QP_STATE | (st == IBV_QPS_INIT ? IBV_QP_PORT : 0));

	return r < 0 ? -r : r;
}

/* Providers differ in what they take: the wishes are given up one by one. */
static int queues(struct hv_vf *vf, const struct caps *c)
{
	static const struct { uint32_t inl; bool tso; } wish[] = { { HV_VF_INLINE_WANT, true }, { 0, true }, { HV_VF_INLINE_WANT, false }, { 0, false } };
	int saved = errno, r = 0;

	hv_inside_enter();
	errno = 0;
	vf->channel = hv_verbs.ibv_create_comp_channel(vf->ctx);
	if (vf->channel != NULL) {
		unblock(vf->channel->fd);
		vf->rcq = hv_verbs.ibv_create_cq(vf->ctx, (int)vf->rq, vf, vf->channel, 0);
		vf->scq = hv_verbs.ibv_create_cq(vf->ctx, (int)vf->sq, vf, vf->channel, 0);
	}
	if (vf->channel == NULL || vf->rcq == NULL || vf->scq == NULL)
		r = errno != 0 ? errno : ENOMEM;
	for (unsigned i = 0; r == 0 && vf->qp == NULL; i++) {
		if (i == sizeof wish / sizeof *wish)
			break;
		if (wish[i].tso && c->tso_max == 0)
			continue;
		int err = 0;

		vf->qp = create_qp(vf, wish[i].inl, wish[i].tso, &err);
		if (vf->qp != NULL)
			vf->tso_max = wish[i].tso ? c->tso_max : 0;
		else if ((err != EINVAL && err != EOPNOTSUPP && err != ENOSYS) || i == 3)
			r = err;
	}
	if (r == 0)
		r = to_state(vf->qp, IBV_QPS_INIT);
	if (r == 0)
		r = to_state(vf->qp, IBV_QPS_RTR);
	if (r == 0)
		r = to_state(vf->qp, IBV_QPS_RTS);
	hv_inside_leave();
	errno = saved;
	return r;
}

static enum hv_vf_why setup(struct hv_vf *vf, const struct hv_vf_limits *lim, int *errp)
{
	enum hv_vf_why why;
	struct caps c;

	vf->ctx = open_device(&vf->pair, errp);
	if (vf->ctx == NULL)
		return hv_verbs_why(*errp, HV_VF_NO_DEVICE);
	unblock(vf->ctx->async_fd);
	hv_inside_enter();
	*errp = query(vf, &c, &why);
	hv_inside_leave();
	if (*errp != 0)
		return why == HV_VF_PORT_DOWN ? why : hv_verbs_why(*errp, why);
	if (!hv_vf_plan(&vf->plan, vf->pair.mtu, lim, c.wr_max)) {
		*errp = ENOMEM;
		return HV_VF_NOMEM;
	}
	vf->tx_csum = c.tx_csum;
	hv_inside_enter();
	vf->pd = hv_verbs.ibv_alloc_pd(vf->ctx);
	hv_inside_leave();
	if (vf->pd == NULL) {
		*errp = ENOMEM;
		return HV_VF_NOMEM;
	}
	*errp = region(vf, lim->hugepages);
	if (*errp != 0)
		return hv_verbs_why(*errp, HV_VF_OTHER);
	*errp = tables(vf);
	if (*errp != 0)
		return HV_VF_NOMEM;
	*errp = queues(vf, &c);
	if (*errp != 0)
		return hv_verbs_why(*errp, HV_VF_NO_RAW_QP);
	why = hv_vf_trial_flow(vf, errp);
	if (why != HV_VF_OK)
		return why;
	*errp = hv_vf_post_initial(vf);
	return *errp != 0 ? HV_VF_NO_RAW_QP : HV_VF_OK;
}

static enum hv_vf_why open_with(struct hv_vf **out, const struct hv_vf_pair *pair, const struct hv_vf_limits *lim, int *errp)
{
	struct hv_vf *vf = aligned_alloc(64, (sizeof *vf + 63) / 64 * 64);
	enum hv_vf_why why;

	*out = NULL;
	if (vf == NULL) {
		*errp = ENOMEM;
		return HV_VF_NOMEM;
	}
	memset(vf, 0, sizeof *vf);
	vf->pair = *pair;
	why = setup(vf, lim, errp);
	if (why != HV_VF_OK) {
		hv_log(HV_LOG_DEBUG, "%s (%s) not opened with %u octets: %s (errno %d)", pair->lower_name, pair->ibname, lim->mem_bytes, hv_vf_why_text(why),
			*errp);
		hv_vf_close(vf, false);
		return why;
	}
	hv_log(HV_LOG_DEBUG, "%s (%s) opened: %u + %u buffers of %u octets, %u sends, %u chunks, inline %u, TSO %u, checksums by %s", pair->lower_name,
		pair->ibname, vf->rq, vf->plan.rx_bufs - vf->rq, vf->plan.rx_size, vf->sq, vf->plan.chunks, vf->inline_max, vf->tso_max,
		vf->tx_csum ? "device" : "software");
	*out = vf;
	return HV_VF_OK;
}

enum hv_vf_why hv_vf_open(struct hv_vf **out, const struct hv_vf_pair *pair, const struct hv_vf_limits *lim, int *errp)
{
	struct hv_vf_limits l = *lim;
	int saved = errno;
	enum hv_vf_why why;

	*out = NULL;
	*errp = 0;
	why = hv_verbs_load(errp);
	if (why != HV_VF_OK)
		return why;
	if (!pair->running) {
		*errp = ENETDOWN;
		return HV_VF_NOT_RUNNING;
	}
	why = open_with(out, pair, &l, errp);
	/* The ceiling is a wish. Distributions grant 8 MiB to programs without CAP_IPC_LOCK, the queues themselves count too, and what they take isn't
	 * known beforehand. */
	while (why == HV_VF_MEMLOCK && l.mem_bytes / 2 >= MEM_MIN) {
		l.mem_bytes /= 2;
		why = open_with(out, pair, &l, errp);
	}
	errno = saved;
	return why;
}

/*
 * Order: rules, QP, CQs, channel, MR, PD, context: each is used by the ones before it. On a device that is gone every call returns at once, with 0 or
 * EIO; memory may be freed then whatever they say, since nothing can write to it any more. Of a living device, memory goes only after the QP and the
 * MR are known to be gone.
 */
void hv_vf_close(struct hv_vf *vf, bool dead)
{
	int saved = errno, r, kept = 0;

	if (vf == NULL)
		return;
	while (vf->flows != NULL)
		hv_vf_flow_del(vf, vf->flows);
	if (vf->channel != NULL && vf->scq != NULL)
		hv_vf_channel_ack(vf);
	hv_inside_enter();
	if (vf->qp != NULL && (r = hv_verbs.ibv_destroy_qp(vf->qp)) != 0)
		kept = r;
	if (vf->scq != NULL)
		(void)hv_verbs.ibv_destroy_cq(vf->scq);
	if (vf->rcq != NULL)
		(void)hv_verbs.ibv_destroy_cq(vf->rcq);
	if (vf->channel != NULL)
		(void)hv_verbs.ibv_destroy_comp_channel(vf->channel);
	if (vf->mr != NULL && (r = hv_verbs.ibv_dereg_mr(vf->mr)) != 0)
		kept = r;
	if (vf->pd != NULL)
		(void)hv_verbs.ibv_dealloc_pd(vf->pd);
	if (vf->ctx != NULL)
		(void)hv_verbs.ibv_close_device(vf->ctx);
	hv_inside_leave();
	if (kept != 0 && !dead)
		hv_log(HV_LOG_WARN, "%s: the device does not release its queue (error %d): %zu octets of memory stay with it", vf->pair.ibname, kept,
			vf->mem_len);
	else if (vf->mem != NULL)
		munmap(vf->mem, vf->mem_len);
	free(vf->post_ns);
	free(vf->bufs);
	free(vf->chunks);
	free(vf);
	errno = saved;
}

const struct hv_vf_pair *hv_vf_pair(const struct hv_vf *vf)
{
	return &vf->pair;
}

void hv_vf_env_init(struct hv_vf *vf, struct hv_env *env)
{
	memset(env, 0, sizeof *env);
	for (uint32_t i = vf->plan.rx_bufs; i-- > vf->rq_want;) { /* the others are posted */
		vf->bufs[i].next = env->free_rx;
		env->free_rx = &vf->bufs[i];
		env->n_free_rx++;
	}
	for (uint32_t i = vf->plan.chunks; i-- > 0;) {
		vf->chunks[i].next = env->free_tx;
		env->free_tx = &vf->chunks[i];
		env->n_free_tx++;
	}
	env->sq_next = vf->sq_next;
	env->sq_done = vf->sq_done;
	env->rx_total = vf->plan.rx_bufs;
	env->tso_max = vf->tso_max;
}
