/*
 * ring.c - the poll loop: completions -> flow -> stack -> what follows (output, readiness, demotion), and the way out to the send queue.
 *
 * Whoever needs progress polls: a data call, a waiting thread, the service thread. All functions need G.lock.
 */
#include "engine/internal.h"

#define BATCH 32u
#define TX_BATCH 16u

/* ---- flow table ---- */

static uint32_t bucket(uint32_t hash)
{
	return hash & (HV_HASH - 1);
}

static bool is_wild(const struct hv_tuple *t)
{
	return t->proto == 17 && t->rport == 0;
}

void hv_demux_add(struct hv_sock *s)
{
	struct hv_sock_priv *p = s->p;
	struct hv_sock **head;

	if (is_wild(&p->tuple)) {
		head = &G.udp_wild;
	} else {
		p->hash = hv_tuple_hash(&p->tuple);
		head = &G.hash[bucket(p->hash)];
	}
	p->h_next = *head;
	*head = s;
	G.demux_gen++;
}

void hv_demux_del(struct hv_sock *s)
{
	struct hv_sock **l = is_wild(&s->p->tuple) ? &G.udp_wild : &G.hash[bucket(s->p->hash)];

	for (; *l != NULL; l = &(*l)->p->h_next) {
		if (*l == s) {
			*l = s->p->h_next;
			s->p->h_next = NULL;
			G.demux_gen++;
			return;
		}
	}
}

struct hv_sock *hv_demux_find(const struct hv_tuple *t)
{
	static const uint8_t any[16];

	for (struct hv_sock *s = G.hash[bucket(hv_tuple_hash(t))]; s != NULL; s = s->p->h_next)
		if (hv_tuple_eq(&s->p->tuple, t))
			return s;
	if (t->proto != 17)
		return NULL;
	for (struct hv_sock *s = G.udp_wild; s != NULL; s = s->p->h_next) {
		const struct hv_tuple *w = &s->p->tuple;
		if (w->lport == t->lport && w->family == t->family && (memcmp(w->laddr, any, 16) == 0 || memcmp(w->laddr, t->laddr, 16) == 0))
			return s;
	}
	return NULL;
}

/* ---- buffers ---- */

void hv_buf_give(struct hv_buf *b)
{
	b->next = G.env.free_rx;
	G.env.free_rx = b;
	G.env.n_free_rx++;
}

/* ---- output ---- */

static void block_on_sq(struct hv_sock *s)
{
	if (s->p->on_blocked)
		return;
	s->p->on_blocked = true;
	s->p->b_next = NULL;
	if (G.blocked == NULL)
		G.blocked_tail = &G.blocked;
	*G.blocked_tail = s;
	G.blocked_tail = &s->p->b_next;
}

void hv_sock_pump(struct hv_sock *s, uint64_t now_us)
{
	struct hv_sock_priv *p = s->p;
	struct hv_tx tx;

	now_us = hv_clock(now_us * 1000u) / 1000u;
	for (;;) {
		if (hv_vf_tx_room(G.vf) == 0) {
			hv_vf_poll_tx(G.vf, &G.env);
			if (hv_vf_tx_room(G.vf) == 0) {
				block_on_sq(s);
				break;
			}
		}
		if (!hv_tcp_output(p->tcb, &G.env, &tx, now_us))
			break;
		/* Room was checked, so an error here means a dying device: the octets stay in the send queue and the watchdog or monitor
		 * decides. */
		(void)hv_vf_tx(G.vf, &G.env, &tx, now_us * 1000u);
	}
	hv_timer_update(s, hv_sock_deadline(s));
}

static void run_blocked(uint64_t now_us)
{
	struct hv_sock *s = G.blocked;

	G.blocked = NULL;
	while (s != NULL) {
		struct hv_sock *next = s->p->b_next;
		s->p->on_blocked = false;
		if (hv_sock_vf(s) && s->p->tcb != NULL)
			hv_sock_pump(s, now_us);
		s = next;
	}
}

/* ---- what a stack call asked for ---- */

void hv_notify(struct hv_sock *s, uint32_t events)
{
	for (struct hv_waiter *w = s->p->waiters; w != NULL; w = w->next)
		if ((w->events & events) != 0)
			hv_wakefd_signal(w->wake);
	if (s->p->items != NULL)
		hv_epoll_event(s, events);
}

void hv_sock_apply(struct hv_sock *s, unsigned acts, uint64_t now_us)
{
	struct hv_sock_priv *p = s->p;

	if ((acts & HV_TCP_TIMEDOUT) != 0) {
		/* The kernel's timers take over and give the program its ETIMEDOUT with its own rules. */
		hv_demote_locked(s, HV_WHY_TIMEDOUT, true);
		return;
	}
	if ((acts & HV_TCP_OUT) != 0 && !p->demote_pending)
		hv_sock_pump(s, now_us);
	if (HV_UNLIKELY((p->waiters != NULL) | (p->items != NULL))) {
		uint32_t ev = ((acts & HV_TCP_READABLE) != 0 ? EPOLLIN | EPOLLRDNORM : 0u) | ((acts & HV_TCP_WRITABLE) != 0 ? EPOLLOUT | EPOLLWRNORM : 0u);
		if (ev != 0)
			hv_notify(s, ev);
	}
	if (hv_sock_vf(s))
		hv_timer_moved(s);
}

/* ---- input ---- */

static void inject_frame(const struct hv_frame *f)
{
	if (hv_inject(&f->tuple, f->l3, f->l3_len) == 0)
		HV_COUNT(injected_unknown);
}

/* An in-order FIN, an RST, urgent data: the stack left the segment alone. Demote, then let the kernel see it. */
static void demote_and_inject(struct hv_sock *s, const struct hv_frame *f, uint8_t flags)
{
	uint8_t copy[2048 + 256];
	struct hv_frame g = *f;
	enum hv_why why = (flags & 4) != 0 ? HV_WHY_PEER_RST : (flags & 1) != 0 ? HV_WHY_PEER_FIN : HV_WHY_PROTOCOL;

	if (f->l3_len > sizeof copy)
		return; /* the peer will retransmit it, to the kernel */
	memcpy(copy, f->l3, f->l3_len);
	g.l3 = copy;
	if (hv_demote_locked(s, why, false) == 0)
		inject_frame(&g);
}

void hv_frame_to_sock(struct hv_sock *s, struct hv_buf *b, struct hv_frame *f, bool csum_ok, uint64_t now_us)
{
	struct hv_sock_priv *p = s->p;

	if (f->tuple.proto == 17) {
		if (HV_UNLIKELY(hv_udp_wants_store(&p->udp)))
			hv_udp_store_add(s);
		enum hv_udp_in r = hv_udp_input(&p->udp, b, f->l3, f->l3_len, csum_ok);
		if (r != HV_UDP_KEPT)
			hv_buf_give(b);
		if (r != HV_UDP_DROP) {
			p->active_us = now_us;
			hv_notify(s, EPOLLIN | EPOLLRDNORM);
		}
		return;
	}

	struct hv_seg seg;
	if ((!csum_ok && !hv_frame_csum_ok(f)) || !hv_tcp_parse(f->l4, f->l4_len, &seg)) {
		hv_buf_give(b);
		return;
	}
	seg.buf = b;
	seg.ce = (f->tos & 3) == 3;
	b->data = (uint8_t *)(uintptr_t)seg.data;
	b->len = seg.len;
	p->active_us = now_us;
	unsigned acts = hv_tcp_input(p->tcb, &G.env, &seg, now_us);
	if ((acts & HV_TCP_DEMOTE) != 0) {
		demote_and_inject(s, f, seg.flags);
		hv_buf_give(b);
		return;
	}
	if ((acts & HV_TCP_KEPT) == 0)
		hv_buf_give(b);
	/* output and readiness once per batch */
	p->acts |= acts;
}

struct arrival {
	struct hv_frame f;
	struct hv_sock *s;
	bool parsed;
};

/* An untagged TCP or UDP frame over IPv4 without options between the same ends as the last one that was looked up: as find_any(), in little
 * code. */
static inline bool find_again(uint8_t *p, uint32_t len, struct arrival *a)
{
	const struct hv_recent *r = &G.recent;
	struct hv_frame *f = &a->f;
	uint64_t addrs;
	uint32_t ports, total;

	if (len < 14 + 20 + 20) /* short datagrams don't matter */
		return false;
	memcpy(&addrs, p + 26, 8);
	memcpy(&ports, p + 34, 4);
	total = (uint32_t)p[16] << 8 | p[17];
	if (addrs != r->addrs || ports != r->ports || r->gen != G.demux_gen || r->s == NULL || p[23] != r->tuple.proto || p[12] != 8 || p[13] != 0 ||
	    p[14] != 0x45 || ((p[20] & 0x3f) | p[21]) != 0 || total < 20 + 20 || total > len - 14)
		return false;
	f->tuple = r->tuple;
	f->l3 = p + 14;
	f->l4 = p + 34;
	f->l3_len = total;
	f->l4_len = total - 20;
	f->tos = p[15];
	f->ttl = p[22];
	f->vlan = 0;
	f->src_mac = p + 6;
	a->s = r->s;
	a->parsed = true;
	return true;
}

static __attribute__((noinline)) void find_any(uint8_t *p, uint32_t len, struct arrival *a)
{
	struct hv_recent *r = &G.recent;

	/* Our connections are on the untagged network: what has the tag of another one isn't theirs, whatever its addresses say. */
	a->parsed = hv_frame_parse(p, len, &a->f) && a->f.vlan == 0;
	a->s = a->parsed ? hv_demux_find(&a->f.tuple) : NULL;
	r->s = NULL;
	if (a->s != NULL && a->f.tuple.family == 4 && a->f.l4 == p + 34) {
		memcpy(&r->addrs, p + 26, 8);
		memcpy(&r->ports, p + 34, 4);
		r->gen = G.demux_gen;
		r->tuple = a->f.tuple;
		r->s = a->s;
	}
}

/* Whose are they? The connections' lines are asked for long before they are needed: that is what many connections cost otherwise. */
static inline void find_all(const struct hv_vf_cqe *cqe, struct arrival *in, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct arrival *a = &in[i];
		if (!find_again(cqe[i].buf->data, cqe[i].buf->len, a))
			find_any(cqe[i].buf->data, cqe[i].buf->len, a);
		if (n > 1 && a->s != NULL && a->s->p->tcb != NULL)
			hv_tcp_prefetch(a->s->p->tcb);
	}
	for (unsigned i = 0; n > 1 && i < n; i++)
		if (in[i].s != NULL && in[i].s->p->tcb != NULL)
			hv_tcp_prefetch_more(in[i].s->p->tcb);
}

static void one_frame(struct hv_buf *b, struct arrival *a, bool csum_ok, uint64_t now_us, struct hv_sock **work)
{
	struct hv_sock *s = a->s;

	if (!a->parsed) {
		hv_buf_give(b);
		return;
	}
	if (s == NULL) {
		/* Left over from a flow that has just been demoted: the kernel owns it. */
		inject_frame(&a->f);
		hv_buf_give(b);
		return;
	}
	struct hv_sock_priv *p = s->p;
	if (!hv_sock_vf(s)) {
		/* Promotion in progress: hold it until we know who owns the connection. */
		if (p->pend_count < 512) {
			b->next = NULL;
			*p->pend_tail = b;
			p->pend_tail = &b->next;
			p->pend_count++;
		} else {
			hv_buf_give(b);
		}
		return;
	}
	if (p->demote_pending) { /* frozen for the kernel; the peer retransmits */
		hv_buf_give(b);
		return;
	}
	if (!p->on_work) {
		p->on_work = true;
		p->acts = 0;
		p->w_next = *work;
		*work = s;
	}
	hv_frame_to_sock(s, b, &a->f, csum_ok, now_us);
}

unsigned hv_ring_poll(uint64_t now_ns)
{
	struct hv_vf_cqe cqe[BATCH];
	struct arrival in[BATCH];
	struct hv_sock *work = NULL;
	uint64_t now_us;

	static unsigned taken = 1; /* frames since buffers were posted; readers may have given some back */
	static bool polling; /* a demotion inside polls again: what is left then comes up as unknown and is injected */

	if (G.vf == NULL || polling)
		return 0;
	polling = true;
	now_ns = hv_clock(now_ns);
	now_us = now_ns / 1000u;
	uint32_t turn = atomic_load_explicit(&G.polls, memory_order_relaxed) + 1;
	atomic_store_explicit(&G.polls, turn, memory_order_relaxed);
	taken += (turn & 63) == 0;
	/* Several at a time: a conversation sends one frame between two polls, and nobody waits for its completion but the watchdog, which asks itself. */
	if (HV_UNLIKELY(G.env.sq_next - G.env.sq_done >= TX_BATCH || G.blocked != NULL))
		hv_vf_poll_tx(G.vf, &G.env);
	unsigned n = hv_vf_poll_rx(G.vf, cqe, BATCH, now_ns);
	if (n != 0) {
		G.armed = false;
		G.news++;
		taken += n;
		uint32_t gen = G.demux_gen;
		find_all(cqe, in, n);
		for (unsigned i = 0; i < n; i++) {
			/* A frame before this one may have demoted somebody. */
			if (HV_UNLIKELY(gen != G.demux_gen) && in[i].parsed)
				in[i].s = hv_demux_find(&in[i].f.tuple);
			one_frame(cqe[i].buf, &in[i], cqe[i].csum_ok, now_us, &work);
		}
		while (work != NULL) {
			struct hv_sock *s = work;
			work = s->p->w_next;
			s->p->on_work = false;
			unsigned acts = s->p->acts;
			s->p->acts = 0;
			if (hv_sock_vf(s) && acts != 0)
				hv_sock_apply(s, acts, now_us);
		}
	}
	/* First whoever waits for these frames gets them; buffers are posted when there is nothing to do, or when that doesn't come. */
	if (HV_UNLIKELY(taken != 0) && (n == 0 || taken >= BATCH) && G.env.free_rx != NULL) {
		hv_vf_refill(G.vf, &G.env);
		taken = 0;
	}
	/* Not here, where a demotion may be what polls. */
	if (HV_UNLIKELY(G.env.n_free_rx < G.env.rx_total / 4) && n != 0 && hv_relief_wanted() && !atomic_exchange(&G.relief, true))
		hv_service_kick();
	if (HV_UNLIKELY(G.blocked != NULL) && hv_vf_tx_room(G.vf) != 0)
		run_blocked(now_us);
	if (HV_UNLIKELY(hv_timer_next() <= now_us)) {
		G.news++;
		hv_timer_run(now_us);
	}
	polling = false;
	return n;
}

void hv_ring_drain(void)
{
	uint64_t now = hv_now_ns();

	for (unsigned i = 0; i < 1024 && hv_ring_poll(now) != 0; i++)
		;
	if (G.vf != NULL)
		hv_vf_poll_tx(G.vf, &G.env); /* what was sent is not sent again */
}

bool hv_ring_arm(void)
{
	if (G.vf == NULL)
		return false;
	if (!G.armed)
		G.armed = hv_vf_arm(G.vf) == 0;
	return G.armed;
}
