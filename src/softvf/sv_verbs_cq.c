/*
 * sv_verbs_cq.c - completion queues and completion channels.
 *
 * A channel's fd is an epoll instance with two members: an eventfd (completions that some thread has already put into a CQ, and
 * the death of the device) and, once a CQ of it is armed, the XSK (one shot: a frame that nobody has looked at yet). No helper
 * thread; the fd is level triggered and can be polled, nested in another epoll, or made O_NONBLOCK like the real one.
 *
 * Locks: sv_cq.lock for the ring and `armed`, sv_chan.lock for events and the list of CQs, taken inside it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "softvf/sv_verbs.h"

/* the events of one arm; data.u32 of the epoll members */
enum { EV_FD, EV_XSK };

static void chan_count(struct sv_chan *ch, uint64_t n) { (void)hv_sys_write(ch->ev_fd, &n, sizeof n); }

/* ch->lock not held; q->lock may be. self: the channel whose ibv_get_cq_event() is the cause, it needs no eventfd to notice. */
static void chan_raise(struct sv_cq *q, struct sv_chan *self)
{
	struct sv_chan *ch = q->chan;

	sv_lock(&ch->lock);
	q->events++;
	if (ch == self)
		ch->soft++;
	else
		chan_count(ch, 1);
	sv_unlock(&ch->lock);
}

void sv_cq_push(struct sv_cq *q, const struct sv_cqe *e, struct sv_chan *self)
{
	bool raise = false, over = false;

	sv_lock(&q->lock);
	if (sv_unlikely(q->tail - q->head >= q->size)) {
		over = !q->overrun;
		q->overrun = true;
	} else {
		q->ring[q->tail & q->mask] = *e;
		__atomic_store_n(&q->tail, q->tail + 1, __ATOMIC_RELEASE);
		if (sv_unlikely(q->armed)) {
			__atomic_store_n(&q->armed, false, __ATOMIC_RELAXED);
			raise = true;
		}
	}
	sv_unlock(&q->lock);
	if (sv_unlikely(raise))
		chan_raise(q, self);
	if (sv_unlikely(over))
		sv_async_push(q->ctx, IBV_EVENT_CQ_ERR, &q->u.cq);
}

/* Forget what a QP that is being destroyed left in the CQ. */
void sv_cq_clean(struct sv_cq *q, const struct sv_qp *qp)
{
	uint32_t i, keep;

	sv_lock(&q->lock);
	for (i = keep = q->head; i != q->tail; i++)
		if (q->ring[i & q->mask].qp != qp)
			q->ring[keep++ & q->mask] = q->ring[i & q->mask];
	__atomic_store_n(&q->tail, keep, __ATOMIC_RELEASE);
	sv_unlock(&q->lock);
	if (q->cur.qp == qp)
		q->cur.qp = NULL;
}

/* ch->lock held */
static void chan_arm_xsk(struct sv_chan *ch)
{
	struct sv_wire *w = ch->ctx->w;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.u32 = EV_XSK };

	if (w->xsk_fd < 0)
		return;
	ch->polled = 0;
	if (hv_sys_epoll_ctl(ch->ch.fd, ch->xsk_added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w->xsk_fd, &ev) == 0)
		ch->xsk_added = true;
}

/* The program polls and doesn't sleep: without a waiter on the XSK the sender's kernel path is 0.4 us shorter. */
void sv_chan_leave_xsk(struct sv_cq *q)
{
	struct sv_chan *ch = q->chan;

	sv_lock(&ch->lock);
	if (ch->xsk_added && !__atomic_load_n(&q->armed, __ATOMIC_RELAXED) && q->w->xsk_fd >= 0) {
		(void)hv_sys_epoll_ctl(ch->ch.fd, EPOLL_CTL_DEL, q->w->xsk_fd, NULL);
		ch->xsk_added = false;
	}
	ch->polled = 0;
	sv_unlock(&ch->lock);
}

int sv_req_notify_cq(struct ibv_cq *cq, int solicited)
{
	struct sv_cq *q = (struct sv_cq *)(void *)cq;
	bool now;

	(void)solicited; /* a received frame and a signalled send always count */
	if (q->chan == NULL)
		return EINVAL;
	sv_lock(&q->lock);
	now = q->head != q->tail; /* hardware looks at the consumer index, too: nothing is missed between poll and arm */
	__atomic_store_n(&q->armed, !now, __ATOMIC_RELAXED);
	sv_unlock(&q->lock);
	if (now) {
		chan_raise(q, NULL);
	} else if (q->rx_users > 0) {
		sv_lock(&q->w->rx_lock);
		sv_rx_publish(q->w); /* what is owed keeps the XSK readable */
		sv_unlock(&q->w->rx_lock);
		sv_lock(&q->chan->lock);
		chan_arm_xsk(q->chan);
		sv_unlock(&q->chan->lock);
	}
	if (q->tx_users > 0 && sv_stalled(q->w))
		sv_wire_wake(q->w, false);
	return 0;
}

/* The device died: readable for ever, reading it fails. */
void sv_chan_dead(struct sv_chan *ch) { chan_count(ch, 1u << 30); }

SV_EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ctx)
{
	struct sv_ctx *c = sv_ctx(ctx);
	struct sv_chan *ch;
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = EV_FD };

	if (sv_dead(c->w)) {
		errno = EIO;
		return NULL;
	}
	ch = calloc(1, sizeof *ch);
	if (ch == NULL)
		return NULL;
	ch->ctx = c;
	ch->ch.context = ctx;
	ch->ch.fd = hv_sys_high(hv_sys_epoll_create1(EPOLL_CLOEXEC));
	ch->ev_fd = hv_sys_high(hv_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
	if (ch->ch.fd < 0 || ch->ev_fd < 0 || hv_sys_epoll_ctl(ch->ch.fd, EPOLL_CTL_ADD, ch->ev_fd, &ev) < 0) {
		if (ch->ch.fd >= 0)
			hv_sys_close(ch->ch.fd);
		if (ch->ev_fd >= 0)
			hv_sys_close(ch->ev_fd);
		free(ch);
		errno = EMFILE;
		return NULL;
	}
	pthread_mutex_lock(&c->lock);
	ch->next = c->chans;
	c->chans = ch;
	if (sv_dead(c->w)) /* meanwhile */
		sv_chan_dead(ch);
	pthread_mutex_unlock(&c->lock);
	return &ch->ch;
}

SV_EXPORT int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	struct sv_chan *ch = (struct sv_chan *)(void *)channel, **p;
	struct sv_ctx *c = ch->ctx;

	pthread_mutex_lock(&c->lock);
	if (channel->refcnt > 0) {
		pthread_mutex_unlock(&c->lock);
		return EBUSY;
	}
	for (p = &c->chans; *p != NULL && *p != ch; p = &(*p)->next)
		;
	if (*p != NULL)
		*p = ch->next;
	pthread_mutex_unlock(&c->lock);
	hv_sys_close(channel->fd);
	hv_sys_close(ch->ev_fd);
	free(ch);
	return 0;
}

/* Take one raised event; ch->lock held. */
static struct sv_cq *chan_take(struct sv_chan *ch)
{
	struct sv_cq *q;

	for (q = ch->cqs; q != NULL; q = q->next) {
		if (q->events > 0) {
			q->events--;
			return q;
		}
	}
	return NULL;
}

/* The XSK became readable: move frames to CQs, and watch on if armed CQs of this channel got none. */
static void chan_xsk(struct sv_chan *ch)
{
	struct sv_wire *w = ch->ctx->w;
	const struct sv_cq *q;
	bool armed = false;

	sv_lock(&w->rx_lock);
	sv_pump(w, ch);
	sv_rx_publish(w);
	sv_unlock(&w->rx_lock);
	sv_lock(&ch->lock);
	for (q = ch->cqs; q != NULL; q = q->next)
		armed |= __atomic_load_n(&q->armed, __ATOMIC_RELAXED) && __atomic_load_n(&q->rx_users, __ATOMIC_RELAXED) > 0; /* whoever arms one now arms the XSK itself */
	if (armed)
		chan_arm_xsk(ch);
	sv_unlock(&ch->lock);
}

SV_EXPORT int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
	struct sv_chan *ch = (struct sv_chan *)(void *)channel;
	struct sv_wire *w = ch->ctx->w;
	bool nonblock = hv_sys_fcntl(channel->fd, F_GETFL, 0) & O_NONBLOCK;
	struct sv_cq *q;
	uint64_t v;

	for (;;) {
		struct epoll_event ev[2];
		int n = hv_sys_epoll_pwait(channel->fd, ev, 2, nonblock ? 0 : -1, NULL), i;

		if (n < 0) {
			errno = -n;
			return -1;
		}
		for (i = 0; i < n; i++)
			if (ev[i].data.u32 == EV_XSK)
				chan_xsk(ch);
		sv_lock(&ch->lock);
		q = chan_take(ch);
		if (q != NULL) {
			if (ch->soft > 0) /* this one, or another in its place, isn't in the eventfd's count */
				ch->soft--;
			else
				(void)hv_sys_read(ch->ev_fd, &v, sizeof v);
			if (ch->soft > 0) { /* for other threads, and for poll() */
				chan_count(ch, ch->soft);
				ch->soft = 0;
			}
		}
		sv_unlock(&ch->lock);
		if (q != NULL)
			break;
		if (sv_dead(w)) {
			errno = EIO;
			return -1;
		}
		if (nonblock) {
			errno = EAGAIN;
			return -1;
		}
	}
	*cq = &q->u.cq;
	*cq_context = q->u.cq.cq_context;
	return 0;
}

SV_EXPORT void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int n)
{
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += n;
	pthread_cond_signal(&cq->cond);
	pthread_mutex_unlock(&cq->mutex);
}

/* ---- the extended poll interface ---- */
static int x_start(struct ibv_cq_ex *x, struct ibv_poll_cq_attr *a)
{
	struct sv_cq *q = (struct sv_cq *)(void *)x;

	if (a != NULL && a->comp_mask != 0)
		return EINVAL;
	if (!sv_cq_take(q, &q->cur))
		return ENOENT;
	x->wr_id = q->cur.wr_id;
	x->status = q->cur.status;
	return 0;
}

static int x_next(struct ibv_cq_ex *x) { return x_start(x, NULL); }
static void x_end(struct ibv_cq_ex *x) { (void)x; }
static const struct sv_cqe *x_cur(struct ibv_cq_ex *x) { return &((struct sv_cq *)(void *)x)->cur; }
static enum ibv_wc_opcode x_opcode(struct ibv_cq_ex *x) { return x_cur(x)->opcode; }
static uint32_t x_zero32(struct ibv_cq_ex *x) { (void)x; return 0; }
static __be32 x_imm(struct ibv_cq_ex *x) { (void)x; return 0; }
static uint8_t x_zero8(struct ibv_cq_ex *x) { (void)x; return 0; }
static uint32_t x_len(struct ibv_cq_ex *x) { return x_cur(x)->byte_len; }
static uint32_t x_qpn(struct ibv_cq_ex *x) { return x_cur(x)->qp_num; }
static unsigned x_flags(struct ibv_cq_ex *x) { return x_cur(x)->wc_flags; }

struct ibv_cq_ex *sv_create_cq_ex(struct ibv_context *ctx, struct ibv_cq_init_attr_ex *a)
{
	struct sv_ctx *c = sv_ctx(ctx);
	void *mem = NULL;
	struct sv_cq *q;
	uint32_t n = 1;

	if (sv_dead(c->w)) {
		errno = EIO;
		return NULL;
	}
	if (a->cqe == 0 || a->cqe > SV_MAX_CQE || a->comp_vector != 0 ||
	    (a->comp_mask & ~(uint32_t)(IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD)) != 0) {
		errno = EINVAL;
		return NULL;
	}
	if ((a->wc_flags & ~(uint64_t)IBV_CREATE_CQ_SUP_WC_FLAGS) != 0 || (a->wc_flags & ~(uint64_t)IBV_WC_STANDARD_FLAGS) != 0) {
		errno = EOPNOTSUPP; /* no timestamps, tags, ... */
		return NULL;
	}
	while (n < a->cqe)
		n <<= 1;
	if (posix_memalign(&mem, 64, sizeof *q) != 0) {
		errno = ENOMEM;
		return NULL;
	}
	q = memset(mem, 0, sizeof *q);
	q->ring = calloc(n, sizeof *q->ring);
	if (q->ring == NULL) {
		free(q);
		return NULL;
	}
	q->ctx = c;
	q->w = c->w;
	q->mask = n - 1;
	q->size = n;
	q->u.cq.context = ctx;
	q->u.cq.channel = a->channel;
	q->u.cq.cq_context = a->cq_context;
	q->u.cq.cqe = (int)n;
	pthread_mutex_init(&q->u.cq.mutex, NULL);
	pthread_cond_init(&q->u.cq.cond, NULL);
	q->u.ex.start_poll = x_start;
	q->u.ex.next_poll = x_next;
	q->u.ex.end_poll = x_end;
	q->u.ex.read_opcode = x_opcode;
	q->u.ex.read_vendor_err = x_zero32;
	q->u.ex.read_byte_len = x_len;
	q->u.ex.read_imm_data = x_imm;
	q->u.ex.read_qp_num = x_qpn;
	q->u.ex.read_src_qp = x_zero32;
	q->u.ex.read_wc_flags = x_flags;
	q->u.ex.read_slid = x_zero32;
	q->u.ex.read_sl = x_zero8;
	q->u.ex.read_dlid_path_bits = x_zero8;
	if (a->channel != NULL) {
		q->chan = (struct sv_chan *)(void *)a->channel;
		pthread_mutex_lock(&c->lock);
		a->channel->refcnt++;
		pthread_mutex_unlock(&c->lock);
		sv_lock(&q->chan->lock);
		q->next = q->chan->cqs;
		q->chan->cqs = q;
		sv_unlock(&q->chan->lock);
	}
	return &q->u.ex;
}

SV_EXPORT struct ibv_cq *ibv_create_cq(struct ibv_context *ctx, int cqe, void *cq_context, struct ibv_comp_channel *channel, int vector)
{
	struct ibv_cq_init_attr_ex a = {
		.cqe = cqe < 0 ? 0 : (uint32_t)cqe, .cq_context = cq_context, .channel = channel, .comp_vector = (uint32_t)vector,
	};
	struct ibv_cq_ex *x = sv_create_cq_ex(ctx, &a);

	return x != NULL ? ibv_cq_ex_to_cq(x) : NULL;
}

SV_EXPORT int ibv_destroy_cq(struct ibv_cq *cq)
{
	struct sv_cq *q = (struct sv_cq *)(void *)cq, **p;
	struct sv_chan *ch = q->chan;

	if (q->rx_users > 0 || q->tx_users > 0)
		return EBUSY;
	if (ch != NULL) {
		uint64_t v;

		sv_lock(&ch->lock);
		for (p = &ch->cqs; *p != NULL && *p != q; p = &(*p)->next)
			;
		if (*p != NULL)
			*p = q->next;
		for (; q->events > 0; q->events--) /* events of it that nobody took */
			if (ch->soft == 0)
				(void)hv_sys_read(ch->ev_fd, &v, sizeof v);
		sv_unlock(&ch->lock);
		pthread_mutex_lock(&q->ctx->lock);
		ch->ch.refcnt--;
		pthread_mutex_unlock(&q->ctx->lock);
	}
	pthread_mutex_destroy(&cq->mutex);
	pthread_cond_destroy(&cq->cond);
	free(q->ring);
	free(q);
	return 0;
}

SV_EXPORT int ibv_resize_cq(struct ibv_cq *cq, int cqe)
{
	(void)cq;
	(void)cqe;
	return EOPNOTSUPP;
}

/* these have an IBVERBS_1.0 form as well, see sv_stubs.def */
SV_VERSION(ibv_get_cq_event)
SV_VERSION(ibv_ack_cq_events)
SV_VERSION(ibv_create_cq)
SV_VERSION(ibv_destroy_cq)
SV_VERSION(ibv_resize_cq)
