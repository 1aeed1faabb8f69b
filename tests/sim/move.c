/*
 * move.c - demote and promote again, in the middle of everything: export, a time in which a "kernel" owns the connection, import.
 *
 * The kernel may ack an in-order segment after the state was read (late accept, handed over at settle), may send octets of its
 * queue that the image still calls unsent, forgets what TCP_REPAIR can't read (RTT, cwnd, TS.Recent, SACK state), and moves TSval
 * forward. None of that may cost an octet. For shutdown() and for the peer's FIN it is the last move, and kernel.c goes on.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#define LATE_MAX 65536u

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static uint32_t now_ms(const struct world *w)
{
	return (uint32_t)(w->now / 1000);
}

static void kernel_segment(struct world *w, uint32_t who, uint32_t seq, uint32_t ack, const uint8_t *data, uint32_t len)
{
	struct side *s = &w->side[who];
	struct wire_arg arg = { w, who, true };
	uint8_t frame[16384];
	uint32_t edge = s->img.rcv_wup + s->img.rcv_wnd, wnd = before(ack, edge) ? edge - ack : 0;
	struct seg_spec g = { .from = &s->tuple, .src_mac = s->h.conf.mac, .dst_mac = s->h.conf.peer_mac, .seq = seq, .ack = ack,
	    .wnd = wnd >> s->ws,
		.flags = SEG_ACK, .ttl = 64, .vlan = s->h.conf.vlan, .has_ts = s->ts, .tsval = now_ms(w) + s->img.ts_off,
		.tsecr = s->img.ts_recent_valid ? s->img.ts_recent : 0, .data = data, .len = len };

	wire_out(&arg, frame, seg_build(frame, &g));
}

static void judge_image(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who], *peer = &w->side[1 - who];
	struct hv_tcp_image *m = &s->img;
	uint32_t at = m->snd_una - s->app.base;

	if (!hv_tuple_eq(&m->tuple, &s->tuple))
		world_fail(w, "%u: export: tuple", who);
	if (m->snd_end - s->app.base != s->app.written || m->snd_len != m->snd_end - m->snd_una)
		world_fail(w, "%u: export: send queue ends at %u, written %u", who, m->snd_end - s->app.base, s->app.written);
	if (before(m->snd_nxt, m->snd_una) || before(m->snd_end, m->snd_nxt) || before(m->snd_nxt, s->sent_stack))
		world_fail(w, "%u: export: snd_nxt out of place", who);
	if (m->rcv_nxt - m->rcv_len - peer->app.base != s->app.read)
		world_fail(w, "%u: export: unread octets start at %u, read %u", who, m->rcv_nxt - m->rcv_len - peer->app.base, s->app.read);
	if (s->seen_ack && before(m->rcv_nxt, s->last_ack))
		world_fail(w, "%u: export: rcv_nxt below an ACK that was sent", who);
	if (before(m->rcv_wup + m->rcv_wnd, s->edge) || before(m->rcv_nxt, m->rcv_wup))
		world_fail(w, "%u: export: advertised edge shrinks by %u", who, s->edge - m->rcv_wup - m->rcv_wnd);
	if (m->max_window < m->snd_wnd || ((m->opts & HV_TCPO_TS) != 0) != s->ts || m->rcv_wscale != s->ws)
		world_fail(w, "%u: export: window or options", who);
	if (s->ts && s->seen_ts && (int32_t)(now_ms(w) + m->ts_off - s->last_tsval) < 0)
		world_fail(w, "%u: export: TSval clock goes back", who);
	for (uint32_t i = 0; i < m->snd_len && w->fail[0] == 0; i++)
		if (m->snd[i] != app_octet(w, who, at + i))
			world_fail(w, "%u: export: send octet %u of %u wrong", who, i, m->snd_len);
	for (uint32_t i = 0; i < m->rcv_len && w->fail[0] == 0; i++)
		if (m->rcv[i] != app_octet(w, 1 - who, s->app.read + i))
			world_fail(w, "%u: export: unread octet %u of %u wrong", who, i, m->rcv_len);
}

/* Out-of-order octets are either injected again as segments or forgotten, although they may have been SACKed. */
static void export_ooo(struct world *w, uint32_t who, bool keep, uint64_t at)
{
	struct side *s = &w->side[who], *peer = &w->side[1 - who];
	uint32_t cursor = 0, seq, len, last = s->img.rcv_nxt, n = 0;
	const uint8_t *data;
	uint8_t frame[16384];

	while (hv_tcp_export_ooo(s->h.tcb, &cursor, &seq, &data, &len)) {
		if (before(seq, last) || len == 0 || before(peer->sent_max, seq + len) || ++n > 100000) {
			world_fail(w, "%u: export: out-of-order interval out of order", who);
			return;
		}
		last = seq + len;
		for (uint32_t i = 0; i < len; i++)
			if (data[i] != app_octet(w, 1 - who, seq - peer->app.base + i)) {
				world_fail(w, "%u: export: out-of-order octets wrong", who);
				return;
			}
		for (uint32_t off = 0, part; keep && off < len; off += part) {
			struct seg_spec g = { .from = &peer->tuple, .src_mac = s->h.conf.peer_mac, .dst_mac = s->h.conf.mac,
			    .seq = seq + off,
				.ack = s->img.snd_una, .wnd = s->img.snd_wnd >> peer->ws, .flags = SEG_ACK, .vlan = s->h.conf.vlan,
				.has_ts = s->ts, .tsval = peer->last_tsval, .data = data + off };
			part = len - off < peer->mss ? len - off : peer->mss;
			g.len = part;
			world_push_frame(w, at, who, frame, seg_build(frame, &g), false);
		}
	}
}

/* The connection leaves the stack; s->img holds it. What the ring has is for the kernel if that keeps it, before what was out of order. */
static void leave(struct world *w, uint32_t who, bool for_good)
{
	struct side *s = &w->side[who];
	uint32_t held = 0;

	host_export(&s->h, &s->img, w->now);
	judge_image(w, who);
	while (for_good && s->pend != NULL) {
		struct hv_buf *b = s->pend;
		s->pend = b->next;
		world_push_frame(w, w->now, who, b->base, b->len, (b->rx_ns & 1) != 0);
		host_put(&s->h, b);
	}
	if (for_good)
		s->pend_tail = &s->pend;
	export_ooo(w, who, for_good || prng_in(&w->rng, 0, 1) != 0, for_good ? w->now : w->now + 30000);
	if (w->verbose)
		printf("%12lu %u: export una %u nxt %u end %u, unread %u\n", (unsigned long)w->now, who, s->img.snd_una - s->app.base,
		    s->img.snd_nxt - s->app.base, s->img.snd_end - s->app.base, s->img.rcv_len);
	for (struct hv_buf *b = s->pend; b != NULL; b = b->next)
		held++;
	host_release(&s->h, held);
	s->frozen = true;
	hole_forget(s);
	s->refused = s->ece_may = s->ece_must = false; /* the kernel's now */
	s->need_out = false;
	s->timer_at = UINT64_MAX;
	if (s->h.fail != NULL)
		world_fail(w, "%u: %s", who, s->h.fail);
}

static void freeze(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];

	leave(w, who, false);
	s->late_seq = s->img.rcv_nxt;
	s->late_len = 0;
	if (prng_in(&w->rng, 0, 1) != 0)
		s->late = malloc(LATE_MAX);
	world_push(w, w->now + prng_log(&w->rng, 0, 20000), EV_THAW, who);
}

void move_freeze(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];

	if (s->frozen || !s->h.live)
		return;
	if (s->late_len != 0 || s->late_fin) { /* not settled yet: that comes first */
		move_late(w, who);
		if (s->late_len != 0 && !s->frozen)
			world_push(w, w->now + 500, EV_MOVE, who);
		if (s->late_len != 0 || s->frozen)
			return;
	}
	s->moves--;
	freeze(w, who);
}

/* As demote_tcp() in src/engine: what is late goes to the stack before, or behind what that holds. */
static void demote(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];

	if (s->late_len != 0)
		(void)hv_tcp_late(s->h.tcb, &s->h.env, s->late_seq, s->late, s->late_len, w->now);
	leave(w, who, true);
	if (s->late_fin && before(s->late_end, s->img.rcv_nxt))
		world_fail(w, "%u: octets behind a late FIN", who);
	if (s->late_len == 0 || !before(s->img.rcv_nxt, s->late_seq + s->late_len)) { /* the stack has them all */
		free(s->late);
		s->late = NULL;
		s->late_len = 0;
	}
	kern_begin(w, who);
}

/* The segment is injected behind the rest. The kernel may have no memory for it: then the connection may well come back before the peer
 * repeats it. */
void move_fin(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len)
{
	struct side *s = &w->side[who];
	bool lost = s->late_len == 0 && !s->late_fin && prng_in(&w->rng, 0, 7) == 0;

	if (w->verbose)
		printf("%12lu %u: FIN arrives%s\n", (unsigned long)w->now, who, lost ? ", and the kernel loses it" : "");
	if (lost) {
		freeze(w, who);
		return;
	}
	demote(w, who);
	world_push_frame(w, w->now, who, frame, len, false);
}

void move_shutdown(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];

	if (!s->kern.on && s->frozen)
		kern_begin(w, who);
	else if (!s->kern.on)
		demote(w, who);
	if (w->fail[0] == 0)
		kern_shutdown(w, who);
}

void move_arrive(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len)
{
	struct side *s = &w->side[who];
	struct hv_seg g;
	uint8_t copy[WORLD_FRAME];
	bool fin;

	if (!world_segment(w, who, frame, len, copy, &g))
		return;
	if (s->late_len + g.len > (s->h.conf.n_rx - s->h.conf.ring) / 2 * s->h.conf.rx_cap)
		return; /* no kernel acks more than a promotion could take over */
	fin = (g.flags & SEG_FIN) != 0;
	if ((g.len == 0 && !fin) || s->late_fin || g.seq != s->late_seq + s->late_len || g.len > LATE_MAX - s->late_len ||
	    before(s->img.rcv_wup + s->img.rcv_wnd, g.seq + g.len + fin))
		return;
	memcpy(s->late + s->late_len, g.data, g.len);
	s->late_len += g.len;
	s->late_fin = fin;
	s->late_end = s->late_seq + s->late_len;
	if (w->verbose && fin)
		printf("%12lu %u: the kernel takes a FIN late\n", (unsigned long)w->now, who);
	kernel_segment(w, who, s->img.snd_nxt, s->late_seq + s->late_len + fin, NULL, 0);
}

/* The kernel sends from its queue without telling: up to the peer's window, perhaps beyond the image's snd_nxt. */
static void kernel_sends(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct hv_tcp_image *m = &s->img;
	uint32_t seq = m->snd_nxt, edge = m->snd_una + m->snd_wnd;

	for (int n = 0; n < 10 && before(seq, m->snd_end); n++) {
		uint32_t len = m->snd_end - seq;
		if (len > s->mss)
			len = s->mss;
		if (before(edge, seq + len))
			break;
		kernel_segment(w, who, seq, m->rcv_nxt, m->snd + (seq - m->snd_una), len);
		seq += len;
	}
	if (prng_in(&w->rng, 0, 1) != 0)
		m->snd_nxt = seq;
}

static void forget(struct world *w, uint32_t who)
{
	struct hv_tcp_image *m = &w->side[who].img;
	uint32_t ts = now_ms(w) + m->ts_off;

	m->rcv_wnd = m->rcv_wup + m->rcv_wnd - m->rcv_nxt;
	m->rcv_wup = m->rcv_nxt;
	if (prng_in(&w->rng, 0, 1) != 0) {
		m->srtt_us = m->rttvar_us = m->min_rtt_us = 0;
		m->rto_us = 200000;
		m->snd_cwnd = 10;
		m->snd_ssthresh = 0x7fffffff;
	}
	if (prng_in(&w->rng, 0, 3) != 0) {
		m->ts_recent = 0;
		m->ts_recent_valid = false;
	}
	ts = (ts + 3) & ~1u;
	if (prng_in(&w->rng, 0, 1) != 0)
		ts += 2000;
	m->ts_off = ts - now_ms(w);
}

void move_thaw(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	int rc;

	if (s->img.rcv == NULL || s->kern.on)
		return;
	if (!s->h.live && s->frozen && prng_in(&w->rng, 0, 2) == 0)
		kernel_sends(w, who);
	struct hv_tcp_image keep = s->img;
	forget(w, who);
	rc = host_import(&s->h, &s->img, w->now);
	if (rc == -105 && s->h.env.sq_next != s->h.env.sq_done) { /* -ENOBUFS while descriptors hold chunks: later */
		s->img = keep;
		world_push(w, w->now + 200, EV_THAW, who);
		return;
	}
	if (rc != 0) {
		world_fail(w, "%u: import of an exported image: %d", who, rc);
		return;
	}
	s->import_end = s->img.snd_end + (s->img.snd_end != s->img.snd_nxt ? 65000 : 0);
	if (hv_tcp_readable(s->h.tcb) != s->img.rcv_len || hv_tcp_outq(s->h.tcb) != s->img.snd_len ||
	    hv_tcp_outq_nsd(s->h.tcb) != s->img.snd_end - s->img.snd_nxt)
		world_fail(w, "%u: import: queues differ from the image", who);
	s->import_at = w->now;
	s->import_srtt = s->img.srtt_us;
	host_image_free(&s->img);
	s->frozen = false;
	if (s->late != NULL && s->late_len == 0 && !s->late_fin) {
		free(s->late);
		s->late = NULL;
	} else if (s->late != NULL) {
		s->late_sched = true;
		world_push(w, w->now + prng_log(&w->rng, 0, 30000), EV_LATE, who);
	}
	s->app.blocked = true;
	side_after(w, who, HV_TCP_OUT | HV_TCP_WRITABLE | (hv_tcp_readable(s->h.tcb) != 0 ? HV_TCP_READABLE : 0u));
	s->poll_sched = true;
	world_push(w, w->now, EV_POLL, who);
	if (s->moves != 0)
		world_push(w, w->now + prng_log(&w->rng, 1, s->move_us), EV_MOVE, who);
}

void move_late(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	uint32_t had;
	unsigned acts;

	if (s->frozen || !s->h.live || (s->late_len == 0 && !s->late_fin))
		return;
	if (s->late_fin) { /* the kernel's socket isn't ESTABLISHED any more: there is no way on but back */
		demote(w, who);
		return;
	}
	had = hv_tcp_readable(s->h.tcb);
	if (w->verbose)
		printf("%12lu %u: settle, %u late octets at %u\n", (unsigned long)w->now, who, s->late_len,
		    s->late_seq - w->side[1 - who].app.base);
	acts = hv_tcp_late(s->h.tcb, &s->h.env, s->late_seq, s->late, s->late_len, w->now);
	if ((acts & HV_TCP_KEPT) != 0 || hv_tcp_readable(s->h.tcb) < had)
		world_fail(w, "%u: late octets: action %#x", who, acts);
	if ((acts & HV_TCP_DROP) != 0) { /* no buffer to copy them to: they are acked, so it has to be tried again */
		side_after(w, who, acts);
		if (!s->late_sched) {
			s->late_sched = true;
			world_push(w, w->now + 1000, EV_LATE, who);
		}
		return;
	}
	memset(s->late, 0xbb, s->late_len);
	free(s->late);
	s->late = NULL;
	s->late_len = 0;
	side_after(w, who, acts);
}
