/*
 * promote.c - policy (what is hot) and the way from the kernel to the VF.
 *
 * Runs in the thread whose data call made the socket hot. Order for TCP (handoff.md 1.2): claim the socket (no other thread may be in a
 * kernel call on it), look up route and neighbour, make the flow known to the demultiplexer, steer, freeze and read, import, process what
 * the ring has collected, publish the tier. Any failure before the last step leaves an ordinary kernel socket.
 */
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>

#include "engine/internal.h"

#define MS 1000000u
#define QUEUE_MAX (4u << 20) /* octets of unread or unsent data that a promotion carries */
#define SLOW_MAX 16384u      /* the same after the reader was found asleep */

void hv_tier_set(struct hv_sock *s, enum hv_tier t)
{
	atomic_store(&s->tier, t); /* seq_cst: pairs with hv_kernel_enter() */
	hv_sys_futex((uint32_t *)&s->tier, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX, NULL);
}

bool hv_kernel_enter_slow(struct hv_sock *s)
{
	atomic_fetch_sub(&s->inflight, 1);
	for (;;) {
		uint32_t t = atomic_load(&s->tier);
		if (t == HV_TIER_VF)
			return false;
		if (t == HV_TIER_KERNEL) {
			atomic_fetch_add(&s->inflight, 1);
			if (atomic_load(&s->tier) == HV_TIER_KERNEL)
				return true;
			atomic_fetch_sub(&s->inflight, 1);
			continue;
		}
		struct timespec ts = { 0, 10 * (long)MS };
		hv_sys_futex((uint32_t *)&s->tier, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, t, &ts);
	}
}

void hv_stay(struct hv_sock *s, enum hv_why why, uint64_t retry_ns)
{
	atomic_store_explicit(&s->p->next_try_ns, hv_now_ns() + retry_ns, memory_order_relaxed);
	HV_COUNT(stay_why[why]);
}

/* Failed attempts of one socket are spaced out: 10 ms, 20, ... 5 s. */
static void stay_backoff(struct hv_sock *s, enum hv_why why)
{
	uint64_t b = s->p->backoff_ns;

	b = b == 0 ? 10u * MS : b < 2500u * (uint64_t)MS ? b * 2 : 5000u * (uint64_t)MS;
	s->p->backoff_ns = b;
	hv_stay(s, why, b);
}

/* Lock held, the tier is about to become VF. Not later: as soon as it is, another thread may send the socket back and promote it again. */
static void promoted(struct hv_sock *s, uint64_t t0)
{
	struct hv_sock_priv *p = s->p;
	uint64_t ns = hv_now_ns() - t0;

	p->backoff_ns = 0;
	atomic_store_explicit(&p->promoted_ns, t0, memory_order_relaxed);
	p->promotes++;
	HV_COUNT(promotes);
	HV_ADD(promote_ns_sum, ns);
	hv_stats_max(&S.promote_ns_max, ns);
	hv_journal("promote", s, "hot", ns);
}

/* Frames that waited for an owner, or completed during a demotion: the kernel owns the connection. */
void hv_pend_to_kernel(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;
	struct hv_frame f;

	while (p->pend != NULL) {
		struct hv_buf *b = p->pend;
		p->pend = b->next;
		if (hv_frame_parse(b->data, b->len, &f))
			hv_inject(&f.tuple, f.l3, f.l3_len);
		hv_buf_give(b);
	}
	p->pend_tail = &p->pend;
	p->pend_count = 0;
}

static void pend_to_stack(struct hv_sock *s, uint64_t now_us)
{
	struct hv_sock_priv *p = s->p;
	struct hv_frame f;

	p->acts = 0;
	while (p->pend != NULL) {
		struct hv_buf *b = p->pend;
		p->pend = b->next;
		b->next = NULL;
		if (!hv_frame_parse(b->data, b->len, &f)) {
			hv_buf_give(b);
		} else if (!hv_sock_vf(s)) { /* an earlier one sent it back to the kernel */
			hv_inject(&f.tuple, f.l3, f.l3_len);
			hv_buf_give(b);
		} else {
			hv_frame_to_sock(s, b, &f, false, now_us);
		}
	}
	p->pend_tail = &p->pend;
	p->pend_count = 0;
	if (hv_sock_vf(s) && p->acts != 0)
		hv_sock_apply(s, p->acts, now_us);
	p->acts = 0;
}

static void link_vf(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;

	p->v_next = G.vf_socks;
	p->v_prev = &G.vf_socks;
	if (G.vf_socks != NULL)
		G.vf_socks->p->v_prev = &p->v_next;
	G.vf_socks = s;
	G.vf_count++;
}

/* The flow table entry and the rule; the ring keeps frames until the owner is decided. Takes and leaves the lock. */
static enum hv_why steer(struct hv_sock *s, uint32_t *epoch)
{
	struct hv_sock_priv *p = s->p;
	int err = 0;

	hv_lock(&G.lock);
	if (!hv_ring_ready() || G.vf == NULL || hv_closed()) {
		hv_unlock(&G.lock);
		return HV_WHY_VF_ABSENT;
	}
	if (hv_demux_find(&p->tuple) != NULL) {
		hv_unlock(&G.lock);
		return HV_WHY_INELIGIBLE;
	}
	if (!hv_timer_reserve() || !hv_epoll_room(s)) {
		hv_unlock(&G.lock);
		return HV_WHY_NO_WAIT;
	}
	p->pend = NULL;
	p->pend_tail = &p->pend;
	p->pend_count = 0;
	hv_demux_add(s);
	*epoch = atomic_load(&G.epoch);
	atomic_fetch_add(&G.vf_users, 1);
	if (G.cap != NULL && s->type == SOCK_STREAM)
		hv_capture_add(G.cap, &p->tuple);
	hv_unlock(&G.lock);

	enum hv_vf_why w = hv_vf_flow_add(G.vf, &p->tuple, &p->flow, &err);
	hv_lock(&G.lock);
	if (w == HV_VF_OK) {
		hv_vf_flow_keep(G.vf, p->flow);
		hv_unlock(&G.lock);
		return HV_WHY_NONE;
	}
	hv_log(HV_LOG_DEBUG, "flow rule refused: %s (errno %d)", hv_vf_why_text(w), err);
	p->flow = NULL;
	if (G.cap != NULL && s->type == SOCK_STREAM)
		hv_capture_del(G.cap, &p->tuple);
	hv_demux_del(s);
	hv_pend_to_kernel(s);
	atomic_fetch_sub(&G.vf_users, 1);
	hv_unlock(&G.lock);
	return HV_WHY_NO_FLOW;
}

/* Lock held. Undo of steer(). */
static void unsteer(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;

	if (p->flow != NULL && G.vf != NULL)
		hv_vf_flow_del(G.vf, p->flow);
	p->flow = NULL;
	if (G.cap != NULL && s->type == SOCK_STREAM)
		hv_capture_del(G.cap, &p->tuple);
	if (G.vf != NULL)
		hv_ring_poll(hv_now_ns()); /* what the rule still caught goes to pend */
	hv_demux_del(s);
	hv_pend_to_kernel(s);
}

static enum hv_why promote_tcp(struct hv_sock *s, int fd, const struct hv_route *rt, uint64_t t0)
{
	struct hv_sock_priv *p = s->p;
	struct hv_tcp_image img;
	uint32_t epoch = 0;
	enum hv_why why = steer(s, &epoch);
	uint8_t *buf = NULL;
	size_t cap = 0;

	if (why != HV_WHY_NONE)
		return why;

	int inq = 0, outq = 0;
	hv_sys_ioctl(fd, SIOCINQ, &inq);
	hv_sys_ioctl(fd, SIOCOUTQ, &outq);
	/* More may arrive until the freeze. */
	cap = ((size_t)(inq > 0 ? inq : 0) + (size_t)(outq > 0 ? outq : 0) + (256u << 10) + 4095u) & ~(size_t)4095u;
	buf = hv_map(cap);
	memset(&img, 0, sizeof img);
	enum hv_move_why mw = buf != NULL ? hv_promote(fd, &p->park, &img, buf, cap) : HV_MOVE_SYSCALL;
	uint64_t now_us = hv_now_us();

	hv_lock(&G.lock);
	if (mw != HV_MOVE_OK) {
		unsteer(s);
		atomic_fetch_sub(&G.vf_users, 1);
		hv_unlock(&G.lock);
		hv_unmap(buf, cap);
		HV_COUNT(move_why[mw < 32 ? mw : 31]);
		if (mw == HV_MOVE_OOO)
			atomic_store_explicit(&s->after_read, true, memory_order_relaxed);
		if (mw == HV_MOVE_SYSCALL)
			hv_log(HV_LOG_DEBUG, "promotion failed at %s: error %d", p->park.step != NULL ? p->park.step : "?", p->park.err);
		if (hv_move_why_permanent(mw)) {
			atomic_store(&s->pinned, true);
			return HV_WHY_INELIGIBLE;
		}
		return HV_WHY_NOT_NOW;
	}
	p->tcb = hv_obj_alloc(hv_tcb_size());
	p->aux = buf;
	p->aux_len = cap;
	int r = -ENOMEM;
	if (p->tcb != NULL && hv_ring_ready() && !hv_closed() && epoch == atomic_load(&G.epoch) && p->fork_gen == atomic_load(&G.fork_gen)) {
		uint8_t l2[14];
		hv_path_l2(l2, rt, img.tuple.family);
		img.pmtu = rt->mtu; /* TCP_INFO tells that of the last segment that was sent */
		img.window_clamp = (uint32_t)p->user_clamp;
		/* The octets sit in buf; the stack reads received ones from there, so it doubles as the aux run. */
		hv_clock(now_us * 1000u);
		r = hv_tcp_import(p->tcb, &G.env, &G.tcp, &img, l2, sizeof l2, img.rcv, now_us);
	}
	if (r != 0) {
		hv_promote_undo(&p->park);
		unsteer(s);
		if (p->tcb != NULL)
			hv_obj_free(p->tcb, hv_tcb_size());
		p->tcb = NULL;
		p->aux = NULL;
		atomic_fetch_sub(&G.vf_users, 1);
		hv_unlock(&G.lock);
		hv_unmap(buf, cap);
		return r == -ENOBUFS || r == -ENOMEM ? HV_WHY_NO_MEMORY : HV_WHY_NOT_NOW;
	}
	atomic_fetch_sub(&G.vf_users, 1);
	if (hv_tcp_aux_done(p->tcb)) {
		hv_unmap(p->aux, p->aux_len);
		p->aux = NULL;
	}
	/* the tunable lists them in the stack's order */
	hv_tcp_setopt(p->tcb, HV_TCP_CONGESTION, (uint32_t)(p->cc_set ? p->cc : hv_conf.cc), now_us);
	hv_info_past_kernel(s, fd);
	p->settle_us = now_us + 30000;
	hv_path_fresh(s, now_us);
	p->active_us = now_us;
	p->demote_pending = false;
	p->slow = false;
	link_vf(s);
	hv_epoll_promoted(s);
	promoted(s, t0);
	hv_tier_set(s, HV_TIER_VF);
	hv_timer_update(s, hv_sock_deadline(s));
	pend_to_stack(s, now_us);
	if (hv_sock_vf(s)) {
		hv_sock_pump(s, now_us);
		uint32_t ev = 0;
		if (hv_tcp_readable(p->tcb) != 0)
			ev |= EPOLLIN | EPOLLRDNORM;
		if (hv_tcp_writable(p->tcb))
			ev |= EPOLLOUT | EPOLLWRNORM;
		if (ev != 0)
			hv_notify(s, ev);
	}
	/* Threads that sleep in an epoll set since before this move have not armed the completion channel. */
	hv_ring_arm();
	hv_unlock(&G.lock);
	hv_service_kick();
	return HV_WHY_NONE;
}

static enum hv_why promote_udp(struct hv_sock *s, uint64_t t0)
{
	struct hv_sock_priv *p = s->p;
	uint32_t epoch = 0;
	int v = hv_sys_getint(hv_sock_fd(s), SOL_SOCKET, SO_RCVBUF);

	uint8_t ttl = p->udp.ttl, tos = p->udp.tos; /* read by hv_udp_eligible() */
	hv_udp_init(&p->udp, &p->tuple, v > 0 ? (uint32_t)v : 212992u);
	p->udp.ttl = ttl;
	p->udp.tos = tos;
	enum hv_why why = steer(s, &epoch);
	if (why != HV_WHY_NONE)
		return why;
	uint64_t now_us = hv_now_us();
	hv_lock(&G.lock);
	atomic_fetch_sub(&G.vf_users, 1);
	/* the fork: in this very moment */
	if (!hv_ring_ready() || hv_closed() || epoch != atomic_load(&G.epoch) || p->fork_gen != atomic_load(&G.fork_gen)) {
		unsteer(s);
		hv_unlock(&G.lock);
		return HV_WHY_VF_ABSENT;
	}
	p->k_drain = true;
	p->vf_peeked = false;
	atomic_store_explicit(&p->k_gap_ns, HV_KERNEL_LOOK_NS, memory_order_relaxed);
	p->active_us = now_us;
	p->settle_us = 0;
	p->demote_pending = false;
	memset(p->dst, 0, sizeof p->dst);
	link_vf(s);
	hv_epoll_promoted(s);
	promoted(s, t0);
	hv_tier_set(s, HV_TIER_VF);
	hv_timer_update(s, hv_sock_deadline(s));
	pend_to_stack(s, now_us);
	hv_ring_arm();
	hv_unlock(&G.lock);
	hv_service_kick();
	return HV_WHY_NONE;
}

/* Is there a ring for this netdev? If not, and one may be opened, the service thread is asked to; the socket comes back later. */
static enum hv_why ring_for(int upper, uint64_t now_ns)
{
	int st = atomic_load(&G.ring);

	if (st == HV_RING_READY) {
		hv_lock(&G.lock); /* it may be gone meanwhile, and the next one of another device */
		bool fits = G.pair.upper == upper || G.pair.lower == upper;
		hv_unlock(&G.lock);
		return fits ? HV_WHY_NONE : HV_WHY_NO_ROUTE;
	}
	if (st != HV_RING_CLOSED)
		return HV_WHY_NOT_NOW;
	uint64_t next = atomic_load(&G.next_open_ns);
	if (now_ns < next)
		return atomic_load_explicit(&G.open_why, memory_order_relaxed) == HV_VF_EPERM ? HV_WHY_PRIVILEGE : HV_WHY_VF_ABSENT;
	/* one thread tries */
	if (!atomic_compare_exchange_strong(&G.next_open_ns, &next, now_ns + 100u * MS))
		return HV_WHY_NOT_NOW;
	return hv_service_start(upper) ? HV_WHY_NOT_NOW : HV_WHY_VF_ABSENT;
}

static enum hv_why attempt(struct hv_sock *s, int fd, uint64_t t0)
{
	struct hv_sock_priv *p = s->p;
	struct hv_route rt;
	struct hv_tcp_image img;
	enum hv_why why;
	bool ready = hv_ring_ready(); /* and so the hand-off: hv_promote_check() knows all that it needs */
	int upper = 0;

	if (atomic_load_explicit(&G.handoff_failed, memory_order_relaxed))
		return HV_WHY_PRIVILEGE;
	memset(&rt, 0, sizeof rt);
	if (s->type == SOCK_STREAM && (p->held[0] | p->held[1]) != 0)
		return HV_WHY_OPTION;
	if (s->type == SOCK_STREAM) {
		memset(&img, 0, sizeof img);
		enum hv_move_why mw = hv_promote_check(fd, &p->park, &img, p->slow ? SLOW_MAX : QUEUE_MAX);
		if (mw != HV_MOVE_OK) {
			HV_COUNT(move_why[mw < 32 ? mw : 31]);
			if (mw == HV_MOVE_OOO)
				atomic_store_explicit(&s->after_read, true, memory_order_relaxed);
			hv_log(HV_LOG_TRACE, "fd %d stays in the kernel: %s", fd, hv_move_why_text(mw));
			if (hv_move_why_permanent(mw)) {
				atomic_store(&s->pinned, true);
				return mw == HV_MOVE_EPERM ? HV_WHY_PRIVILEGE : HV_WHY_INELIGIBLE;
			}
			return HV_WHY_NOT_NOW;
		}
		p->tuple = img.tuple;
	} else if (!hv_udp_eligible(s, fd, &p->tuple, &upper, &why)) {
		return why;
	}
	if (s->type == SOCK_STREAM || p->tuple.rport != 0) {
		if (hv_sock_route(fd, &p->tuple, &rt) < 0 || rt.local)
			return HV_WHY_NO_ROUTE;
		if (rt.mtu_locked)
			return HV_WHY_PATH_MTU;
		upper = rt.ifindex;
		if (!rt.have_mac) /* before anything is opened: never accelerate what can't be sent */
			return HV_WHY_NO_NEIGH;
	}
	why = ring_for(upper, t0);
	if (why != HV_WHY_NONE)
		return why;
	if (!ready) /* it was opened in this moment: look at everything again */
		return HV_WHY_NOT_NOW;
	return s->type == SOCK_STREAM ? promote_tcp(s, fd, &rt, t0) : promote_udp(s, t0);
}

bool hv_promote_sock(struct hv_sock *s, int fd)
{
	struct hv_sock_priv *p = s->p;
	uint32_t t = HV_TIER_KERNEL;
	uint64_t t0 = hv_now_ns(), cookie = 0;
	socklen_t cl = sizeof cookie;

	if (!atomic_compare_exchange_strong(&s->tier, &t, HV_TIER_MOVING))
		return false;
	enum hv_why why;
	if (atomic_load(&s->inflight) != 0)
		why = HV_WHY_WAITERS;
	else if (atomic_load(&G.off) || atomic_load(&s->pinned))
		why = HV_WHY_DISABLED;
	else if (atomic_load(&G.paused) != 0)
		why = HV_WHY_PRIVILEGE;
	else if (p->fork_gen != atomic_load(&G.fork_gen) && !hv_fork_exclusive(s, fd))
		why = HV_WHY_FORK;
	else if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cl) < 0 || cookie != p->cookie)
		why = HV_WHY_INELIGIBLE; /* the number now means another socket: it was closed behind our back */
	else
		why = attempt(s, fd, t0);

	if (why == HV_WHY_NONE)
		return true;
	if (why != HV_WHY_WAITERS && why != HV_WHY_FORK && why != HV_WHY_PRIVILEGE && why != HV_WHY_NOT_NOW && why != HV_WHY_VF_ABSENT && why != HV_WHY_VF_HOLD)
		HV_COUNT(promote_fails);
	if (why == HV_WHY_WAITERS)
		hv_stay(s, why, 1u * MS);
	else if (why == HV_WHY_NOT_NOW)
		hv_stay(s, why, 5u * MS);
	else if (why == HV_WHY_FORK || why == HV_WHY_PRIVILEGE || why == HV_WHY_VF_ABSENT || why == HV_WHY_VF_HOLD)
		hv_stay(s, why, 50u * MS);
	else
		stay_backoff(s, why);
	hv_tier_set(s, HV_TIER_KERNEL);
	return false;
}

void hv_sock_touch(struct hv_sock *s, int fd, enum hv_dir dir)
{
	uint32_t n = atomic_load_explicit(&s->calls, memory_order_relaxed) + 1;

	(void)dir;
	if (atomic_load_explicit(&s->pinned, memory_order_relaxed) || atomic_load_explicit(&G.off, memory_order_relaxed))
		return;
	atomic_store_explicit(&s->calls, n, memory_order_relaxed);
	if (n == 1 && hv_conf.promote_calls > 1) {
		atomic_store_explicit(&s->window_ns, hv_now_ns(), memory_order_relaxed);
		return;
	}
	if (n < (uint64_t)hv_conf.promote_calls)
		return;
	uint64_t now = hv_now_ns();
	if (hv_conf.promote_calls > 1 && now - atomic_load_explicit(&s->window_ns, memory_order_relaxed) > (uint64_t)hv_conf.hot_window_ms * MS) {
		atomic_store_explicit(&s->calls, 0, memory_order_relaxed);
		return;
	}
	struct hv_sock_priv *p = s->p;
	atomic_store_explicit(&s->calls, 0, memory_order_relaxed); /* whatever comes of it: the clock isn't read at each call */
	uint64_t last = atomic_load_explicit(&p->promoted_ns, memory_order_relaxed);
	if (now < atomic_load_explicit(&p->next_try_ns, memory_order_relaxed))
		return;
	if (last != 0 && (int64_t)(now - last) < (int64_t)hv_conf.move_min_ms * (int64_t)MS)
		return;
	int held = hv_lock_held;
	if (held != 0 || hv_in_handler()) /* a signal handler above our own code, or anybody's malloc() */
		return;
	hv_promote_sock(s, fd);
}

void hv_kernel_left(struct hv_sock *s)
{
	uint64_t now = hv_now_ns();
	int fd = hv_sock_fd(s);

	if (now < atomic_load_explicit(&s->p->next_try_ns, memory_order_relaxed) || fd < 0 || hv_lock_held != 0 || hv_in_handler() || atomic_load(&s->pinned) || atomic_load(&G.off))
		return;
	int inq = 0;
	if (hv_sys_ioctl(fd, SIOCINQ, &inq) < 0 || inq != 0)
		return;
	atomic_store_explicit(&s->after_read, false, memory_order_relaxed);
	hv_promote_sock(s, fd);
}
