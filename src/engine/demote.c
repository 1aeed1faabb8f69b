/*
 * demote.c - the way back: VF tier -> the same kernel socket.
 *
 * Lock held throughout; 10-30 us per connection. Order (handoff.md 1.4): late check, what the ring still holds goes to the stack, export,
 * dance, out-of-order octets and leftovers re-injected, rule removed, leftovers again, epoll sets restored, tier published.
 */
#include "engine/internal.h"

#define RETRY_US 10000u
#define REFUSED_WARN 100u /* a second of that */
#define ORPHAN_US 120000000u /* about as long as the kernel keeps on with a connection that nobody holds any more */
#define LATE_MAX (1u << 20)

int hv_sock_fd(const struct hv_sock *s)
{
	for (unsigned i = 0; i < HV_SOCK_FDS; i++) {
		int fd = atomic_load_explicit(&s->p->fds[i], memory_order_relaxed); /* without the lock: any one that was open in this call will do */
		if (fd >= 0)
			return fd;
	}
	return -1;
}

static void unlink_vf(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;

	*p->v_prev = p->v_next;
	if (p->v_next != NULL)
		p->v_next->p->v_prev = p->v_prev;
	p->v_next = NULL;
	p->v_prev = NULL;
	G.vf_count--;
	if (p->on_blocked) {
		struct hv_sock **l = &G.blocked;
		while (*l != NULL && *l != s)
			l = &(*l)->p->b_next;
		if (*l == s)
			*l = p->b_next;
		G.blocked_tail = &G.blocked;
		while (*G.blocked_tail != NULL)
			G.blocked_tail = &(*G.blocked_tail)->p->b_next;
		p->on_blocked = false;
	}
}

static void wake_waiters(struct hv_sock *s)
{
	for (struct hv_waiter *w = s->p->waiters; w != NULL; w = w->next)
		hv_wakefd_signal(w->wake);
}

/* The close that the program has long returned from, at last: FIN, unsent octets and TIME_WAIT are the kernel's. */
static void orphan_end(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;
	struct linger l = { 0, 0 };
	socklen_t len = sizeof l;
	int fd = p->fds[0];

	p->orphan_us = 0;
	G.orphans--;
	/* Nobody waits for it any more, and not here; but linger 0 stays what it is, a reset. */
	if (hv_sys_getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) == 0 && l.l_onoff != 0 && l.l_linger != 0) {
		l.l_onoff = 0;
		hv_sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	}
	hv_sys_close(fd);
	p->fds[0] = -1;
	hv_park_forget(&p->park);
	hv_sock_put(s);
}

static void unsteer(struct hv_sock_priv *p)
{
	if (p->flow != NULL && G.vf != NULL && !G.dying && !hv_in_handler()) {
		hv_vf_flow_del(G.vf, p->flow);
	} else if (p->flow != NULL && G.vf != NULL) { /* frames that it still catches are the kernel's, as a stranger's are */
		hv_vf_flow_later(G.vf, p->flow);
		hv_service_kick();
	}
	p->flow = NULL;
}

static void finish(struct hv_sock *s, enum hv_why why, uint64_t t0)
{
	struct hv_sock_priv *p = s->p;

	if (G.cap != NULL && s->type == SOCK_STREAM)
		hv_capture_del(G.cap, &p->tuple);
	hv_timer_del(s);
	unlink_vf(s);
	p->demote_pending = false;
	atomic_store_explicit(&p->next_try_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&s->calls, 0, memory_order_relaxed);
	if (s->type == SOCK_STREAM)
		p->refused = 0;
	hv_epoll_demoted(s);
	uint64_t ns = hv_now_ns() - t0;
	HV_COUNT(demotes);
	HV_COUNT(demote_why[why]);
	HV_ADD(demote_ns_sum, ns);
	hv_stats_max(&S.demote_ns_max, ns);
	hv_journal("demote", s, hv_why_text(why), ns);
	/* From here the lock doesn't cover what belongs to a promotion: another thread may claim the socket for the next one at once. */
	hv_tier_set(s, HV_TIER_KERNEL);
	wake_waiters(s);
	if (s->type == SOCK_STREAM && HV_UNLIKELY(p->orphan_us != 0))
		orphan_end(s);
}

static int demote_udp(struct hv_sock *s, enum hv_why why)
{
	struct hv_sock_priv *p = s->p;
	uint64_t t0 = hv_now_ns();

	/* Datagrams that only we have seen are handed to the kernel's queue, in order, behind what it already holds. */
	unsteer(p);
	atomic_store(&s->tier, HV_TIER_MOVING);
	p->pend = NULL;
	p->pend_tail = &p->pend;
	struct hv_dgram d;
	while (hv_udp_peek(&p->udp, &d)) {
		hv_inject(&d.tuple, d.l3, d.l3_len);
		hv_udp_pop(&p->udp, &G.env);
	}
	if (G.vf != NULL)
		hv_ring_drain();
	hv_pend_to_kernel(s);
	hv_demux_del(s);
	hv_udp_store_drop(s);
	finish(s, why, t0);
	return 0;
}

/* Late octets (handoff.md 1.3) are acknowledged: nobody will repeat them. They are kept until the stack has taken them all, or go back with
 * the demotion; more may have come since the last look. Returns what the stack asks for; *err: -errno of the kernel, *left: the kernel's
 * socket left ESTABLISHED. */
unsigned hv_late_collect(struct hv_sock *s, uint64_t now_us, bool *left, int *err)
{
	struct hv_sock_priv *p = s->p;
	uint8_t *buf = hv_scratch(LATE_MAX);
	unsigned acts = 0;

	*err = buf == NULL ? -ENOMEM : 0;
	for (unsigned i = 0; i < 16 && buf != NULL; i++) {
		uint32_t at = p->park.rcv_nxt;
		ssize_t n = hv_late_check(&p->park, buf, LATE_MAX, left);
		if (n < 0)
			*err = (int)n;
		if (n <= 0)
			break;
		uint32_t had = p->late != NULL ? p->late_len : 0;
		uint8_t *all = hv_map(had + (size_t)n);
		if (all == NULL) { /* look at them again the next time */
			p->park.rcv_nxt = at;
			*err = -ENOMEM;
			break;
		}
		if (had == 0)
			p->late_seq = at;
		memcpy(all, p->late != NULL ? p->late : buf, had);
		memcpy(all + had, buf, (size_t)n);
		hv_unmap(p->late, had);
		p->late = all;
		p->late_len = had + (uint32_t)n;
	}
	if (p->late != NULL) {
		acts = hv_tcp_late(p->tcb, &G.env, p->late_seq, p->late, p->late_len, now_us);
		if ((acts & HV_TCP_DROP) == 0) {
			hv_unmap(p->late, p->late_len);
			p->late = NULL;
		}
	}
	return acts & ~(unsigned)HV_TCP_DROP;
}

static void release_tcb(struct hv_sock_priv *p)
{
	hv_tcp_release(p->tcb, &G.env);
	hv_obj_free(p->tcb, hv_tcb_size());
	p->tcb = NULL;
	hv_unmap(p->aux, p->aux_len);
	p->aux = NULL;
	if (p->late != NULL)
		hv_unmap(p->late, p->late_len);
	p->late = NULL;
}

/* A route that is gone for a moment, say, is nobody's business; a program that waits for a second wants to know why. */
static void note_refusal(struct hv_sock_priv *p, int r)
{
	const char *step = p->park.step != NULL ? p->park.step : "late octets";

	if (p->refused != UINT16_MAX)
		p->refused++;
	if (p->refused == 1)
		hv_log(HV_LOG_DEBUG, "a connection could not be given back to the kernel at once (%s: error %d); retrying", step, -r);
	if (p->refused == REFUSED_WARN)
		hv_log_once(HV_LOG_WARN, "a connection has waited for a second to be given back to the kernel (%s: error %d%s); retrying", step, -r,
		    r == -ENETUNREACH || r == -EHOSTUNREACH ? ", it needs a route to its peer" : r == -ENOMEM || r == -ENOBUFS ? ", it needs memory" : "");
}

static int demote_tcp(struct hv_sock *s, enum hv_why why, bool lost)
{
	struct hv_sock_priv *p = s->p;
	struct hv_tcp_image img;
	uint64_t t0 = hv_now_ns(), now_us = t0 / 1000u;
	bool left = false;

	if (!p->park.settled && p->park.frozen_us + 25000u > now_us && G.last_barrier_us <= p->park.frozen_us) {
		hv_barrier();
		G.last_barrier_us = hv_now_us();
	}
	int err = 0;
	(void)hv_late_collect(s, now_us, &left, &err);

	/* From here frames of this flow go to p->pend: the kernel will own them. */
	p->pend = NULL;
	p->pend_tail = &p->pend;
	p->pend_count = 0;
	hv_sock_events(s, &p->events_before);
	hv_tier_set(s, HV_TIER_MOVING);

	memset(&img, 0, sizeof img);
	hv_tcp_export(p->tcb, &img, now_us);
	/* What the stack had no room for goes behind what it has. */
	uint32_t more = p->late != NULL ? p->late_seq + p->late_len - img.rcv_nxt : 0;
	if ((int32_t)more < 0) /* the VF has brought them too */
		more = 0;
	uint8_t *buf = hv_scratch((size_t)img.rcv_len + more + img.snd_len + 64);
	int r = -ENOMEM;
	if (buf != NULL && more <= p->late_len) {
		img.rcv = buf;
		img.snd = buf + img.rcv_len + more;
		hv_tcp_export_rcv(p->tcb, img.rcv);
		hv_tcp_export_snd(p->tcb, img.snd);
		if (more != 0) {
			memcpy(img.rcv + img.rcv_len, p->late + (p->late_len - more), more);
			img.rcv_len += more;
			img.rcv_nxt += more;
		}
		r = hv_demote(&p->park, &img, lost);
	}
	if (r != 0) {
		/* The socket is parked and guarded; nothing is lost while it waits. Frames are the peer's to repeat. */
		note_refusal(p, r);
		hv_tier_set(s, HV_TIER_VF);
		while (p->pend != NULL) {
			struct hv_buf *b = p->pend;
			p->pend = b->next;
			hv_buf_give(b);
		}
		p->demote_pending = true;
		p->pend_why = why;
		p->pend_lost = true;
		p->next_retry_us = hv_now_us() + RETRY_US;
		hv_timer_update(s, p->next_retry_us);
		HV_COUNT(demote_retries);
		return r;
	}
	if (G.vf != NULL)
		hv_ring_drain();
	hv_pend_to_kernel(s);
	unsteer(p);
	if (G.vf != NULL)
		hv_ring_drain();
	hv_pend_to_kernel(s);
	uint32_t cur = 0, seq, len;
	const uint8_t *data;
	while (hv_tcp_export_ooo(p->tcb, &cur, &seq, &data, &len))
		for (uint32_t o = 0; o < len; o += 1400)
			hv_inject_tcp(&img, seq + o, img.snd_nxt, 16 /* ACK */, data + o, len - o < 1400 ? len - o : 1400);
	hv_demux_del(s);
	hv_info_past_vf(s);
	release_tcb(p);
	p->settle_us = 0;
	finish(s, why, t0);
	return 0;
}

int hv_demote_locked(struct hv_sock *s, enum hv_why why, bool lost)
{
	if (!hv_sock_vf(s))
		return 0;
	return s->type == SOCK_STREAM ? demote_tcp(s, why, lost) : demote_udp(s, why);
}

void hv_sock_abandon_locked(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;

	if (!hv_sock_vf(s))
		return;
	p->pend = NULL;
	p->pend_tail = &p->pend;
	atomic_store(&s->tier, HV_TIER_MOVING);
	unsteer(p);
	hv_demux_del(s);
	hv_pend_to_kernel(s);
	if (p->tcb != NULL) {
		release_tcb(p);
		p->park.parked = false;
	} else {
		hv_udp_release(&p->udp, &G.env);
		hv_udp_store_drop(s);
	}
	for (struct hv_epitem *it = p->items; it != NULL; it = it->s_next)
		it->in_kernel = true; /* gone with the file: nothing to add again */
	finish(s, HV_WHY_CLOSE, hv_now_ns());
}

void hv_sock_abandon(struct hv_sock *s)
{
	atomic_store(&s->pinned, true);
	hv_lock(&G.lock);
	hv_sock_abandon_locked(s);
	hv_unlock(&G.lock);
}

/* Lock held. The program closes its last descriptor of a connection that the kernel doesn't take back now (no route, no memory). Closing a
 * parked socket would tell the peer nothing, ever. So it stays ours, under another number, and the timer goes on trying; the program's
 * number is free at once. */
static bool orphan(struct hv_sock *s, int fd)
{
	struct hv_sock_priv *p = s->p;
	int d = hv_sys_dup_high(fd);

	if (d < 0)
		return false;
	for (unsigned i = 1; i < HV_SOCK_FDS; i++)
		p->fds[i] = -1;
	p->fds[0] = d;
	p->park.fd = d;
	p->orphan_us = hv_now_us() + ORPHAN_US;
	p->demote_pending = true;
	p->pend_why = HV_WHY_CLOSE;
	G.orphans++;
	hv_sock_ref(s);
	hv_timer_update(s, p->next_retry_us);
	HV_COUNT(orphaned);
	return true;
}

unsigned hv_demote_all_locked(enum hv_why why, bool lost)
{
	struct hv_sock *s = G.vf_socks, *next;
	uint32_t pass = ++G.pass;
	unsigned refused = 0;

	for (; s != NULL; s = next) {
		next = s->p->v_next;
		if (s->p->pass == pass)
			continue; /* refused in this pass already */
		s->p->pass = pass;
		refused += hv_demote_locked(s, why, lost) != 0;
		/* Each demotion empties the ring, and a FIN in there sends its own socket back. */
		if (next != NULL && !hv_sock_vf(next))
			next = G.vf_socks;
	}
	return refused;
}

void hv_sleep_ms(unsigned ms)
{
	struct timespec ts = { 0, (long)ms * 1000000 };
	hv_sys_ppoll(NULL, 0, &ts, NULL);
}

/* The kernel may refuse it (no route at that moment): then it is retried, up to `refusals` times here. */
static bool demote(struct hv_sock *s, enum hv_why why, unsigned refusals)
{
	for (;;) {
		uint32_t t = atomic_load(&s->tier);
		if (t == HV_TIER_KERNEL)
			return true;
		if (t == HV_TIER_MOVING) {
			if (hv_kernel_enter(s)) { /* waits for the end of the move */
				hv_kernel_leave(s, 0);
				return true;
			}
			continue;
		}
		hv_lock(&G.lock);
		int r = hv_demote_locked(s, why, false);
		hv_unlock(&G.lock);
		if (r == 0)
			return true;
		if (refusals-- == 0)
			return false;
		hv_sleep_ms(5);
	}
}

void hv_sock_demote(struct hv_sock *s, enum hv_why why)
{
	demote(s, why, 200); /* the timer goes on after that */
}

/* What is still parked when the program ends (exit, exec) is gone without a word to its peer: worth a wait, but a bounded one. */
void hv_demote_all(enum hv_why why)
{
	for (unsigned i = 0; i < 200; i++) {
		hv_lock(&G.lock);
		unsigned refused = hv_demote_all_locked(why, false);
		hv_unlock(&G.lock);
		if (refused == 0)
			return;
		hv_sleep_ms(5);
	}
}

void hv_sock_last_close(struct hv_sock *s, int fd)
{
	struct hv_sock_priv *p = s->p;
	bool kept = false;

	atomic_store(&s->pinned, true);
	bool back = demote(s, HV_WHY_CLOSE, 0);
	hv_lock(&G.lock);
	while (p->items != NULL)
		hv_epitem_drop(p->items);
	if (!back && hv_sock_vf(s)) /* the timer may have been luckier meanwhile */
		kept = orphan(s, fd);
	bool here = !kept && hv_sock_vf(s);
	hv_unlock(&G.lock);
	if (kept)
		return;
	if (here) /* no descriptor left to keep it by */
		demote(s, HV_WHY_CLOSE, 200);
	hv_lock(&G.lock);
	for (unsigned i = 0; i < HV_SOCK_FDS; i++)
		p->fds[i] = -1;
	hv_unlock(&G.lock);
	if (s->type == SOCK_STREAM && p->park.moves != 0)
		hv_park_forget(&p->park);
}

void hv_sock_pin(struct hv_sock *s, enum hv_why why)
{
	atomic_store(&s->pinned, true);
	if (why == HV_WHY_PASSED || why == HV_WHY_EXEC)
		hv_sock_leaks(s);
	hv_sock_demote(s, why);
}
