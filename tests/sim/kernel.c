/*
 * kernel.c - the kernel's TCP in the half of a connection's life that src/stack leaves to it: after shutdown(), and after the peer's FIN.
 *
 * The product closes nothing itself. A program's shutdown() or close() demotes first; a FIN that arrives is left untouched by the stack
 * (HV_TCP_DEMOTE), the connection goes back, and what the ring held, what was out of order and the FIN itself are injected, in that order.
 * From then on the socket isn't ESTABLISHED and never promoted again. This is a plain TCP for that time, nothing of src/stack in it:
 * go-back-N with a timeout, an ACK with a SACK block for each segment, zero-window probes, FIN. Streams follow from the seed, so sequence
 * numbers are all it keeps.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#define SNDBUF 262144u
#define CWND 20u
#define SLACK 65536u /* a window is rounded up to what its shift can say */

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static uint32_t end_of(const struct side *s)
{
	return s->app.base + s->app.written + s->kern.shut;
}

uint32_t kern_readable(const struct world *w, uint32_t who)
{
	const struct side *s = &w->side[who];

	return s->kern.rcv_nxt - s->kern.eof - w->side[1 - who].app.base - s->app.read;
}

static bool held(const struct kern *k, uint32_t seq)
{
	return k->have[seq % k->size] != 0;
}

/* The interval of held octets around seq. */
static void block(const struct kern *k, uint32_t seq, uint32_t b[2])
{
	b[0] = b[1] = seq;
	while (before(k->rcv_nxt, b[0]) && held(k, b[0] - 1))
		b[0]--;
	while (before(b[1], k->edge) && held(k, b[1]))
		b[1]++;
}

static uint32_t step(const struct world *w, uint32_t who)
{
	const struct side *s = &w->side[who];

	return s->kern.cap / 2 < s->mss ? s->kern.cap / 2 : s->mss;
}

static void segment(struct world *w, uint32_t who, uint32_t seq, uint32_t len, uint8_t flags)
{
	struct side *s = &w->side[who];
	struct kern *k = &s->kern;
	struct wire_arg arg = { w, who, true };
	uint32_t ms = (uint32_t)(w->now / 1000), unread = kern_readable(w, who), room = k->cap > unread ? k->cap - unread : 0, wnd;
	uint8_t frame[16384], data[16384];
	struct seg_spec g = { .from = &s->tuple, .src_mac = s->h.conf.mac, .dst_mac = s->h.conf.peer_mac, .seq = seq, .ack = k->rcv_nxt,
		.flags = (uint8_t)(SEG_ACK | flags), .ttl = 64, .vlan = s->h.conf.vlan, .has_ts = s->ts, .tsval = ms + k->ts_off,
		.tsecr = k->ts_recent, .data = data, .len = len };

	if (!before(k->rcv_nxt + room, k->edge + step(w, who))) /* RFC 9293 3.8.6.2.2 */
		k->edge = k->rcv_nxt + room;
	wnd = before(k->rcv_nxt, k->edge) ? (k->edge - k->rcv_nxt + (1u << s->ws) - 1) >> s->ws : 0;
	g.wnd = wnd < 65535 ? wnd : 65535;
	k->edge = k->rcv_nxt + (g.wnd << s->ws);
	if (k->sack && len == 0 && before(k->rcv_nxt, k->recent)) {
		block(k, k->recent - 1, g.sack[0]);
		g.nsack = 1;
	}
	app_fill(w, who, seq - s->app.base, data, len);
	wire_out(&arg, frame, seg_build(frame, &g));
}

static void arm(struct world *w, uint32_t who)
{
	struct kern *k = &w->side[who].kern;

	if (k->una == end_of(&w->side[who])) {
		k->at = UINT64_MAX;
	} else if (k->at == UINT64_MAX) {
		k->at = w->now + (((uint64_t)200000 + 4 * w->link[who].c.delay_us) << k->backoff);
		world_push(w, k->at, EV_KERN, who);
	}
}

static uint32_t mss_of(const struct world *w, uint32_t who)
{
	uint32_t mtu = w->link[who].c.mtu, hdr = (w->v6 ? 60 : 40) + 12 + 12; /* its route knows */

	return mtu != 0 && mtu - hdr < w->side[who].mss ? mtu - hdr : w->side[who].mss;
}

static void output(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct kern *k = &s->kern;
	uint32_t end = end_of(s), mss = mss_of(w, who);

	while (before(k->nxt, end) && k->nxt - k->una < k->cwnd * mss && w->fail[0] == 0) {
		uint32_t octets = end - k->shut - k->nxt, room = before(k->nxt, k->wnd_edge) ? k->wnd_edge - k->nxt : 0;
		uint32_t len = octets < mss ? octets : mss;
		bool fin;
		if (len > room)
			len = room;
		fin = k->shut && len == octets && (len != room || k->eager); /* a FIN takes room, too, but not every stack thinks so */
		if (len == 0 && !fin)
			break;
		segment(w, who, k->nxt, len, (uint8_t)((fin ? SEG_FIN : 0) | (len != 0 && len == octets ? SEG_PSH : 0)));
		k->nxt += len + fin;
	}
	arm(w, who);
}

void kern_begin(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];
	struct kern *k = &s->kern;
	struct hv_tcp_image *m = &s->img;
	uint32_t ms = (uint32_t)(w->now / 1000), edge = m->rcv_wup + m->rcv_wnd;

	memset(k, 0, sizeof *k);
	k->on = true;
	k->una = m->snd_una;
	k->nxt = m->snd_nxt;
	k->wnd_edge = m->snd_una + m->snd_wnd;
	k->wl1 = m->snd_wl1;
	k->rcv_nxt = k->recent = m->rcv_nxt;
	if (s->late != NULL) { /* it has acknowledged them already */
		k->rcv_nxt = k->recent = s->late_seq + s->late_len;
		free(s->late);
		s->late = NULL;
		s->late_len = 0;
	}
	k->edge = before(k->rcv_nxt, edge) ? edge : k->rcv_nxt;
	k->cap = k->edge - k->rcv_nxt + kern_readable(w, who);
	if (k->cap < 16384)
		k->cap = 16384;
	k->size = 1;
	while (k->size < k->cap + SLACK)
		k->size *= 2;
	k->have = calloc(k->size, 1);
	if (k->have == NULL)
		abort();
	k->ts_off = ((ms + m->ts_off + 3) & ~1u) - ms; /* as hv_demote() does */
	k->sack = (m->opts & HV_TCPO_SACK) != 0;
	k->cwnd = CWND;
	k->eager = prng_in(&w->rng, 0, 1) != 0;
	k->at = UINT64_MAX;
	if (s->late_fin) {
		if (k->rcv_nxt != s->late_end)
			world_fail(w, "%u: octets before a late FIN are missing", who);
		k->rcv_nxt++;
		k->eof = true;
		s->late_fin = false;
	}
	host_image_free(m);
	s->frozen = true;
	s->moves = 0;
	if (w->verbose)
		printf("%12lu %u: the kernel's for good, una %u, rcv_nxt %u\n", (unsigned long)w->now, who, k->una - s->app.base,
		    k->rcv_nxt - w->side[1 - who].app.base);
	segment(w, who, k->una - 1, 0, 0); /* the probe of TCP_REPAIR_OFF */
	output(w, who);
	s->app.blocked = false;
	app_kernel(w, who);
}

void kern_shutdown(struct world *w, uint32_t who)
{
	struct side *s = &w->side[who];

	s->kern.shut = true;
	if (w->verbose)
		printf("%12lu %u: shutdown at %u\n", (unsigned long)w->now, who, s->app.written);
	output(w, who);
}

void kern_wrote(struct world *w, uint32_t who)
{
	output(w, who);
}

uint32_t kern_room(const struct side *s)
{
	uint32_t q = end_of(s) - s->kern.una;

	return q < SNDBUF ? SNDBUF - q : 0;
}

/* The program has read: does the window open by something worth while? */
void kern_read(struct world *w, uint32_t who)
{
	struct kern *k = &w->side[who].kern;
	uint32_t edge = k->rcv_nxt + k->cap - kern_readable(w, who);

	if (!before(edge, k->edge + 2 * step(w, who)) || (!before(k->rcv_nxt, k->edge) && !before(edge, k->edge + step(w, who))))
		segment(w, who, w->side[who].sent_max, 0, 0);
}

void kern_timer(struct world *w, uint32_t who)
{
	struct kern *k = &w->side[who].kern;

	if (w->now != k->at)
		return;
	k->at = UINT64_MAX;
	if (k->backoff < 6)
		k->backoff++;
	if (before(k->una, k->nxt)) {
		k->cwnd = 1;
		k->nxt = k->una;
	} else {
		segment(w, who, k->una - 1, 0, 0);
	}
	output(w, who);
}

static void acked(struct world *w, uint32_t who, const struct hv_seg *g)
{
	struct side *s = &w->side[who], *peer = &w->side[1 - who];
	struct kern *k = &s->kern;
	bool news = before(k->una, g->ack);

	if (before(s->sent_max, g->ack)) {
		world_fail(w, "%u: acks what was never sent", 1 - who);
		return;
	}
	if (before(g->ack, k->una))
		return;
	if (news || !before(g->seq, k->wl1)) {
		k->wl1 = g->seq;
		if (before(k->wnd_edge, g->ack + (g->wnd << peer->ws)))
			k->backoff = 0;
		k->wnd_edge = g->ack + (g->wnd << peer->ws);
	}
	if (!news)
		return;
	k->una = g->ack;
	if (before(k->nxt, k->una))
		k->nxt = k->una;
	if (k->cwnd < CWND)
		k->cwnd++;
	k->backoff = 0;
	k->at = UINT64_MAX;
	app_kernel(w, who);
}

/* Octets, and perhaps a FIN. */
static void received(struct world *w, uint32_t who, const struct hv_seg *g, bool fin)
{
	struct side *s = &w->side[who], *peer = &w->side[1 - who];
	struct kern *k = &s->kern;
	uint32_t had = k->rcv_nxt;

	for (uint32_t i = 0; i < g->len; i++) {
		uint32_t seq = g->seq + i;
		if (before(seq, k->rcv_nxt) || !before(seq, k->edge))
			continue;
		if (g->data[i] != app_octet(w, 1 - who, seq - peer->app.base)) {
			world_fail(w, "%u: wrong octet injected at stream offset %u", who, seq - peer->app.base);
			return;
		}
		k->have[seq % k->size] = 1;
		k->recent = seq + 1;
	}
	if (fin && !before(k->edge, g->seq + g->len)) {
		if (k->fin_known && k->fin_seq != g->seq + g->len)
			world_fail(w, "%u: a FIN at %u and one at %u", who, k->fin_seq - peer->app.base, g->seq + g->len - peer->app.base);
		k->fin_known = true;
		k->fin_seq = g->seq + g->len;
	}
	while (held(k, k->rcv_nxt)) {
		k->have[k->rcv_nxt % k->size] = 0;
		k->rcv_nxt++;
	}
	if (k->fin_known && !k->eof && k->rcv_nxt == k->fin_seq) {
		k->rcv_nxt++;
		k->eof = true;
	}
	if (!before(k->rcv_nxt, k->recent) || !held(k, k->recent - 1))
		k->recent = k->rcv_nxt;
	if (k->rcv_nxt != had)
		app_kernel(w, who);
}

void kern_arrive(struct world *w, uint32_t who, const uint8_t *frame, uint32_t len)
{
	struct kern *k = &w->side[who].kern;
	struct hv_seg g;
	uint8_t copy[WORLD_FRAME];
	bool fin;

	if (!world_segment(w, who, frame, len, copy, &g))
		return;
	fin = (g.flags & SEG_FIN) != 0;
	if (g.has_ts && (!before(g.tsval, k->ts_recent) || k->ts_recent == 0) && !before(k->rcv_nxt, g.seq))
		k->ts_recent = g.tsval;
	acked(w, who, &g);
	if (g.len != 0 || fin)
		received(w, who, &g, fin);
	if (g.len != 0 || fin || before(g.seq, k->rcv_nxt))
		segment(w, who, w->side[who].sent_max, 0, 0);
	output(w, who);
}

bool kern_at_rest(const struct side *s)
{
	return s->kern.una == end_of(s);
}
