/*
 * world.c - event loop, the engine's part of receiving, timers, and the oracles about both.
 */
#include "sim.h"
#include "twin.h"

#include "stack/tcb.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define STALL_US 300000000u /* virtual time without an octet delivered */
#define REST_US 300000000u
#define EVENTS_MAX 4000000u

void world_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->fail[0] != 0)
		return;
	int n = snprintf(w->fail, sizeof w->fail, "%.6f s: ", (double)w->now / 1e6);
	va_start(ap, fmt);
	vsnprintf(w->fail + n, sizeof w->fail - (size_t)n, fmt, ap);
	va_end(ap);
}

static bool earlier(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static struct event *heap_add(struct world *w)
{
	if (w->n_heap == w->cap_heap) {
		w->cap_heap = w->cap_heap != 0 ? w->cap_heap * 2 : 256;
		w->heap = realloc(w->heap, w->cap_heap * sizeof *w->heap);
		if (w->heap == NULL)
			abort();
	}
	return &w->heap[w->n_heap++];
}

static void heap_up(struct world *w, struct event e)
{
	uint32_t i = w->n_heap - 1;

	while (i != 0 && earlier(&e, &w->heap[(i - 1) / 2])) {
		w->heap[i] = w->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	w->heap[i] = e;
}

static struct event heap_pop(struct world *w)
{
	struct event top = w->heap[0], e = w->heap[--w->n_heap];
	uint32_t i = 0;

	for (;;) {
		uint32_t c = 2 * i + 1;
		if (c >= w->n_heap)
			break;
		if (c + 1 < w->n_heap && earlier(&w->heap[c + 1], &w->heap[c]))
			c++;
		if (!earlier(&w->heap[c], &e))
			break;
		w->heap[i] = w->heap[c];
		i = c;
	}
	w->heap[i] = e;
	return top;
}

static void push(struct world *w, struct event e)
{
	e.order = w->order++;
	heap_add(w);
	heap_up(w, e);
}

void world_push(struct world *w, uint64_t at, enum ev_type type, uint32_t who)
{
	push(w, (struct event){ .at = at, .type = type, .who = (uint8_t)who });
}

void world_push_frame(struct world *w, uint64_t at, uint32_t who, const uint8_t *frame, uint32_t len, bool damaged)
{
	uint8_t *copy = malloc(len);

	if (copy == NULL)
		abort();
	memcpy(copy, frame, len);
	push(w, (struct event){ .at = at, .type = EV_ARRIVE, .who = (uint8_t)who, .frame = copy, .len = len, .damaged = damaged });
}

static void pump(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct wire_arg arg = { w, who, false };
	struct hv_tx tx;
	uint32_t n = 0;

	while (s->need_out && w->fail[0] == 0) {
		if (!host_sq_room(&s->h))
			break;
		memset(&tx, 0x77, sizeof tx);
		if (!hv_tcp_output(s->h.tcb, &s->h.env, &tx, w->now)) {
			s->need_out = false;
			host_check(&s->h);
			break;
		}
		host_post(&s->h, &tx, wire_out, &arg);
		host_check(&s->h);
		if (s->h.fail != NULL)
			break;
		if (++n > 100000)
			world_fail(w, "%u: output never ends", who);
	}
	if (!s->sq_sched && s->h.env.sq_next != s->h.env.sq_done) {
		s->sq_sched = true;
		world_push(w, w->now + prng_in(&w->rng, 0, s->sq_us), EV_SQ, who);
	}
}

static void arm(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	const struct hv_tcb *t = s->h.tcb;
	uint64_t d = hv_tcp_deadline(t);
	uint32_t srtt = t->srtt8 >> 3;

	/* Each timer runs if and only if there is something to wait for. */
	if (!s->need_out && (t->rtx_at != HV_NEVER) != (hv_tcp_outq(t) != 0))
		world_fail(w, "%u: %u octets unacked or held back, but the retransmission timer is %s", who, hv_tcp_outq(t),
		    t->rtx_at != HV_NEVER ? "running" : "off");
	if (!s->need_out && (t->ack_at != HV_NEVER) != ((t->tf & TF_ACK_PEND) != 0))
		world_fail(w, "%u: ACK owed and delayed-ACK timer disagree", who);
	if ((t->ka_at != HV_NEVER) != ((t->tf & TF_KEEPALIVE) != 0))
		world_fail(w, "%u: keepalive and its timer disagree", who);
	if (srtt > s->import_srtt && srtt > w->now - s->import_at + 1000)
		world_fail(w, "%u: a round trip of %u us, %lu us after the import", who, srtt, (unsigned long)(w->now - s->import_at));
	if (t->drs_rtt8 >> 3 > w->now - s->import_at + 1000)
		world_fail(w, "%u: a receiver's round trip of %u us, %lu us after the import", who, t->drs_rtt8 >> 3,
		    (unsigned long)(w->now - s->import_at));
	if (d == UINT64_MAX)
		return;
	if (d < w->now)
		d = w->now;
	if (d < s->timer_at) {
		s->timer_at = d;
		world_push(w, d, EV_TIMER, who);
	}
}

void side_after(struct world *w, uint32_t who, unsigned acts)
{
	struct side *s = &w->side[who];

	if (!s->h.live)
		return;
	host_check(&s->h);
	if ((acts & HV_TCP_DEMOTE) != 0)
		world_fail(w, "%u: DEMOTE without a reason", who);
	if ((acts & HV_TCP_TIMEDOUT) != 0)
		world_fail(w, "%u: connection timed out", who);
	if ((acts & HV_TCP_OUT) != 0 || prng_ppm(&w->rng, 10000))
		s->need_out = true; /* asking without need must be harmless */
	pump(w, who);
	host_refill(&s->h);
	if (s->h.fail != NULL)
		world_fail(w, "%u: %s", who, s->h.fail);
	if (w->fail[0] != 0)
		return;
	app_wake(w, who, acts);
	arm(w, who);
}

/* What the wire will have to show of it, RFC 3168 6.1.3. */
static void ecn_in(const struct world *w, struct side *s, const struct hv_seg *seg, unsigned acts)
{
	bool counts = (acts & HV_TCP_DROP) == 0;

	if (!w->ecn)
		return;
	if ((seg->flags & SEG_CWR) != 0) {
		s->ece_must = false;
		if (counts)
			s->ece_may = false;
	}
	if (seg->ce) {
		s->ece_may = true;
		s->ece_must |= counts;
	}
}

static void input(struct world *w, uint32_t who, struct hv_buf *b)
{
	struct side *s = &w->side[who];
	bool damaged = (b->rx_ns & 1) != 0;
	struct hv_frame f;
	struct hv_seg seg;
	const char *differ;
	uint32_t edge, nxt, una, sacked;
	unsigned acts;

	if (!hv_frame_parse(b->base, b->len, &f) || !hv_frame_csum_ok(&f)) {
		if (!damaged)
			world_fail(w, "%u: a sound frame was refused", who);
		s->dmg_seen++;
		host_put(&s->h, b);
		return;
	}
	if (damaged)
		world_fail(w, "%u: a damaged frame passed the checks", who);
	if (!hv_tuple_eq(&f.tuple, hv_tcp_tuple(s->h.tcb)))
		world_fail(w, "%u: tuple of the frame does not match", who);
	memset(&seg, 0x33, sizeof seg);
	if (!hv_tcp_parse(f.l4, f.l4_len, &seg)) {
		world_fail(w, "%u: a sound segment was refused", who);
		host_put(&s->h, b);
		return;
	}
	seg.buf = b;
	seg.ce = (f.tos & 3) == 3;
	if (w->twins && (differ = twin_input(&s->h, &seg, w->now)) != NULL)
		world_fail(w, "%u: %s", who, differ);
	edge = s->h.tcb->rcv_edge;
	nxt = s->h.tcb->rcv_nxt;
	una = s->h.tcb->snd_una;
	sacked = s->h.tcb->sacked_out;
	acts = hv_tcp_input(s->h.tcb, &s->h.env, &seg, w->now);
	if ((acts & HV_TCP_DEMOTE) != 0 && (seg.flags & SEG_FIN) != 0) {
		uint8_t frame[16384];
		uint32_t len = b->len;
		uint32_t at = seg.seq + seg.len;
		if ((acts & HV_TCP_KEPT) != 0 || s->h.tcb->rcv_nxt != nxt || s->h.tcb->snd_una != una)
			world_fail(w, "%u: a FIN isn't the stack's business", who);
		if (hv_seq_lt(at, nxt) || hv_seq_gt(seg.seq, edge))
			world_fail(w, "%u: the way back for a FIN outside of the window", who);
		memcpy(frame, b->base, len);
		host_put(&s->h, b);
		move_fin(w, who, frame, len);
		return;
	}
	if ((acts & HV_TCP_DROP) != 0 && seg.len != 0 && s->h.tcb->rcv_nxt == nxt && hv_seq_le(seg.seq, nxt) &&
	    hv_seq_gt(seg.seq + seg.len, nxt) && edge != nxt)
		s->refused = true;
	ecn_in(w, s, &seg, acts);
	if (w->stall.on && who == 1 && s->h.tcb->rcv_nxt != nxt)
		bulk_moved(w);
	if (w->stall.on && who == 0 && (s->h.tcb->snd_una != una || s->h.tcb->sacked_out != sacked))
		bulk_answered(w, &seg, una);
	if ((acts & HV_TCP_KEPT) == 0)
		host_put(&s->h, b);
	else if ((acts & (HV_TCP_DROP | HV_TCP_DEMOTE)) != 0)
		world_fail(w, "%u: buffer of a refused segment was kept", who);
	side_after(w, who, acts);
}

bool world_segment(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len, uint8_t copy[WORLD_FRAME], struct hv_seg *g)
{
	struct hv_frame f;

	memcpy(copy, frame, len);
	if (hv_frame_parse(copy, len, &f) && hv_tcp_parse(f.l4, f.l4_len, g))
		return true;
	world_fail(w, "%u: a sound frame was refused", who);
	return false;
}

static void poll_ring(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];

	s->poll_sched = false;
	if (s->frozen || !s->h.live)
		return;
	while (s->pend != NULL && !s->frozen && w->fail[0] == 0) {
		struct hv_buf *b = s->pend;
		s->pend = b->next;
		if (s->pend == NULL)
			s->pend_tail = &s->pend;
		b->next = NULL;
		input(w, who, b);
	}
	if (!s->no_flush && !s->frozen && w->fail[0] == 0)
		side_after(w, who, hv_tcp_ack_flush(s->h.tcb, w->now));
}

static void arrive(struct world *w, struct event *e)
{
	struct side *s = &w->side[e->who];
	struct hv_buf *b;

	if (s->kern.on) {
		if (!e->damaged)
			kern_arrive(w, e->who, e->frame, e->len);
	} else if (s->frozen && s->late != NULL && !e->damaged)
		move_arrive(w, e->who, e->frame, e->len);
	else if ((b = host_rx(&s->h, e->frame, e->len)) != NULL) {
		b->rx_ns = w->now * 1000 / 2 * 2 | e->damaged;
		*s->pend_tail = b;
		s->pend_tail = &b->next;
		if (!s->poll_sched && !s->frozen) {
			s->poll_sched = true;
			world_push(w, w->now + prng_in(&w->rng, 0, s->poll_us), EV_POLL, e->who);
		}
	}
	free(e->frame);
}

static void timer(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	uint64_t d;

	if (w->now != s->timer_at)
		return;
	s->timer_at = UINT64_MAX;
	if (s->frozen || !s->h.live)
		return;
	d = hv_tcp_deadline(s->h.tcb);
	if (d <= w->now) {
		s->spins = s->spin_at == w->now ? s->spins + 1 : 0;
		s->spin_at = w->now;
		if (s->spins > 16) {
			world_fail(w, "%u: the deadline does not move on after timeouts", who);
			return;
		}
	} else if (!prng_ppm(&w->rng, 250000)) {
		arm(w, who);
		return;
	}
	side_after(w, who, hv_tcp_timeout(s->h.tcb, &s->h.env, w->now)); /* early calls are harmless, says the contract */
}

static void sq_done(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];

	s->sq_sched = false;
	host_complete(&s->h, prng_in(&w->rng, 1, HOST_SQ));
	if (s->h.env.sq_next != s->h.env.sq_done) {
		s->sq_sched = true;
		world_push(w, w->now + prng_in(&w->rng, 0, s->sq_us), EV_SQ, who);
	}
	/* A writer that found no chunk waits for the pool, not for the TCB. */
	if (s->app.blocked && s->h.env.free_tx != NULL && !s->frozen)
		app_wake(w, who, HV_TCP_WRITABLE);
	if (s->h.live && !s->frozen)
		side_after(w, who, 0);
}

static void path_mtu(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	uint32_t mtu = s->icmp_mtu;

	s->icmp_mtu = 0;
	if (s->frozen)
		s->img.pmtu = mtu;
	else if (s->h.live)
		side_after(w, who, hv_tcp_set_pmtu(s->h.tcb, mtu, w->now));
}

static void step(struct world *w, struct event *e)
{
	switch (e->type) {
	case EV_ARRIVE: arrive(w, e); break;
	case EV_POLL: poll_ring(w, e->who); break;
	case EV_TIMER: timer(w, e->who); break;
	case EV_WRITE: app_write(w, e->who); break;
	case EV_READ: app_read(w, e->who); break;
	case EV_SQ: sq_done(w, e->who); break;
	case EV_MOVE: move_freeze(w, e->who); break;
	case EV_THAW: move_thaw(w, e->who); break;
	case EV_PMTU: path_mtu(w, e->who); break;
	case EV_KERN: kern_timer(w, e->who); break;
	case EV_SHUT: move_shutdown(w, e->who); break;
	case EV_LATE:
		w->side[e->who].late_sched = false;
		move_late(w, e->who);
		break;
	default: break;
	}
}

static bool all_read(const struct world *w)
{
	for (uint32_t i = 0; i < 2; i++)
		if (w->side[i].app.read != w->side[1 - i].app.total || w->side[i].app.eof != w->side[1 - i].app.closes)
			return false;
	return true;
}

static bool at_rest(const struct world *w)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct side *s = &w->side[i];
		if (s->kern.on) {
			if (!kern_at_rest(s))
				return false;
			continue;
		}
		if (s->frozen || s->late_len != 0 || s->late_fin || s->moves != 0 || hv_tcp_outq(s->h.tcb) != 0)
			return false;
		if (!w->keepalive && hv_tcp_deadline(s->h.tcb) != UINT64_MAX)
			return false;
	}
	return true;
}

static uint32_t unacked(const struct side *s)
{
	return s->kern.on ? s->kern.una - s->app.base : s->h.live ? s->h.tcb->snd_una - s->app.base : s->img.snd_una - s->app.base;
}

static void dump(const struct world *w)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct side *s = &w->side[i];
		struct hv_tcp_stat st;
		printf("%u: ring %u of %u, pool %u of %u, chunks %u of %u, late %u%s", i, s->h.n_ring, s->h.conf.ring, s->h.env.n_free_rx,
		    s->h.conf.n_rx,
		    s->h.env.n_free_tx, s->h.conf.n_tx, s->late_len, s->kern.on ? ", the kernel's" : s->frozen ? ", frozen" : "");
		if (s->kern.on)
			printf(", una %u nxt %u of %u, shut %d, rcv_nxt %u unread %u eof %d", s->kern.una - s->app.base, s->kern.nxt - s->app.base,
			    s->app.total, s->kern.shut, s->kern.rcv_nxt - w->side[1 - i].app.base, kern_readable(w, i), s->kern.eof);
		if (s->h.live) {
			hv_tcp_stat(s->h.tcb, &st);
			printf(", readable %u outq %u unsent %u, cwnd %u ca %u unacked %u sacked %u lost %u "
			    "snd_wnd %u rto %u, deadline %ld",
			    hv_tcp_readable(s->h.tcb), hv_tcp_outq(s->h.tcb), hv_tcp_outq_nsd(s->h.tcb), st.cwnd, st.ca_state, st.unacked,
			    st.sacked,
			    st.lost, st.snd_wnd, st.rto_us, (long)(hv_tcp_deadline(s->h.tcb) - w->now));
		}
		printf("; ooo %lu bad_seq %lu bad_ack %lu paws %lu damaged %u\n", (unsigned long)s->h.cnt.ooo_in,
		    (unsigned long)s->h.cnt.bad_seq,
		    (unsigned long)s->h.cnt.bad_ack, (unsigned long)s->h.cnt.paws_drops, s->dmg_seen);
	}
}

bool world_step(struct world *w)
{
	bool done = all_read(w);
	struct event e;

	if (done && w->done_at == 0)
		w->done_at = w->now;
	if (w->fail[0] != 0 || (done && at_rest(w)))
		return false;
	if (w->n_heap == 0) {
		world_fail(w, "deadlock: nothing will ever happen; 0 read %u of %u, 1 read %u of %u", w->side[0].app.read, w->side[1].app.total,
		    w->side[1].app.read, w->side[0].app.total);
		return false;
	}
	e = heap_pop(w);
	w->now = e.at;
	if (w->stall.on)
		bulk_step(w);
	step(w, &e);
	hole_judge(w);
	if (!done && w->now - w->progress_at > STALL_US)
		world_fail(w, "no progress for %u s; 0 read %u of %u, 1 read %u of %u", STALL_US / 1000000, w->side[0].app.read,
		    w->side[1].app.total, w->side[1].app.read, w->side[0].app.total);
	if (done && w->now - w->done_at > REST_US)
		world_fail(w, "does not come to rest: at %u and %u of what was sent", unacked(&w->side[0]), unacked(&w->side[1]));
	if (++w->events > EVENTS_MAX)
		world_fail(w, "%u events and no end", EVENTS_MAX);
	return true;
}

void world_finish(struct world *w)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct side *s = &w->side[i];
		while (s->pend != NULL) {
			struct hv_buf *b = s->pend;
			s->pend = b->next;
			host_put(&s->h, b);
		}
		if (s->h.live)
			host_release(&s->h, 0);
		host_complete(&s->h, HOST_SQ);
		host_conserved(&s->h);
		if (s->h.fail != NULL)
			world_fail(w, "%u: %s", i, s->h.fail);
	}
}

bool world_run(struct world *w, uint64_t seed, const struct world_opts *o)
{
	memset(w, 0, sizeof *w);
	w->seed = seed;
	w->pcap = o->pcap;
	w->verbose = o->verbose;
	w->twins = o->twins;
	prng_seed(&w->rng, seed);
	w->link = w->own;
	world_setup(w);
	while (world_step(w))
		;
	if (w->fail[0] == 0)
		world_finish(w);
	else if (o->verbose)
		dump(w);
	world_teardown(w);
	return w->fail[0] == 0;
}
