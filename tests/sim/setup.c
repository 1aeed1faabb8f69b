/*
 * setup.c - what a seed means: path, pools, a consistent pair of images as two kernels would have left them, and the programs.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t mss_of[] = { 88, 216, 524, 536, 1220, 1440, 1448, 1460, 1460, 1460, 4000, 8948 };

static uint32_t maybe(struct world *w, uint32_t ppm, uint32_t lo, uint32_t hi)
{
	return prng_ppm(&w->rng, ppm) ? prng_log(&w->rng, lo, hi) : 0;
}

static void setup_links(struct world *w)
{
	bool clean = prng_in(&w->rng, 0, 3) == 0, lossy = prng_in(&w->rng, 0, 2) == 0;
	uint32_t delay = prng_log(&w->rng, 2, 60000);

	for (uint32_t i = 0; i < 2; i++) {
		struct link_conf *c = &w->link[i].c;
		c->rate_bps = (uint64_t)prng_log(&w->rng, 1, 10000) * 1000000u;
		c->queue = prng_log(&w->rng, 20000, 4000000);
		c->delay_us = delay;
		if (clean)
			continue;
		c->jitter_us = maybe(w, 300000, 1, delay / 2 + 100);
		c->loss = maybe(w, 500000, 100, lossy ? 60000 : 5000);
		c->dup = maybe(w, 300000, 100, 50000);
		c->reorder = maybe(w, 400000, 100, 100000);
		c->corrupt = maybe(w, 200000, 100, 20000);
		c->thin = maybe(w, 200000, 10000, 700000);
		if (w->ecn)
			c->ce = maybe(w, 700000, 100, 100000);
		if (lossy && prng_in(&w->rng, 0, 1) != 0) {
			c->ge_bad = prng_log(&w->rng, 100, 20000);
			c->ge_good = prng_in(&w->rng, 20000, 300000);
			c->ge_loss = prng_in(&w->rng, 200000, 900000);
		}
	}
	if (prng_in(&w->rng, 0, 7) == 0) { /* once or for good, in one direction or both, narrower than any segment or than none */
		uint32_t which = prng_in(&w->rng, 1, 3);
		for (uint32_t i = 0; i < 2; i++)
			if ((which >> i & 1) != 0) {
				w->link[i].c.mtu = prng_in(&w->rng, 0, 1) != 0 ? 1280 : prng_in(&w->rng, w->v6 ? 1280 : 576, 1500);
				w->link[i].c.mtu_at = w->now + prng_log(&w->rng, 0, 3000000);
			}
	}
	if (!clean && prng_in(&w->rng, 0, 3) == 0) {
		w->n_dark = prng_in(&w->rng, 1, 4);
		for (uint32_t i = 0; i < w->n_dark; i++) {
			w->dark_from[i] = prng_log(&w->rng, 0, 4000000);
			w->dark_to[i] = w->dark_from[i] + prng_log(&w->rng, 1000, 3000000);
		}
	}
}

static void setup_app(struct world *w, struct side *s)
{
	struct app *a = &s->app;

	a->total = prng_in(&w->rng, 0, 7) == 0 ? 0 : prng_log(&w->rng, 1, s->mss < 500 ? 100000 : 900000);
	a->wr_max = prng_log(&w->rng, 1, 200000);
	if (a->total / a->wr_max > 4000)
		a->wr_max = a->total / 4000 + 1;
	a->think_us = maybe(w, 400000, 1, 50000);
	if (a->think_us != 0 && a->total > 64 * a->wr_max)
		a->total = 64 * a->wr_max;
	a->mode = (enum app_read)prng_in(&w->rng, 0, 2);
	a->rd_max = prng_log(&w->rng, 1, 200000);
	a->rd_us = prng_log(&w->rng, 0, 20000);
	a->fast_ppm = prng_in(&w->rng, 0, 1) * prng_in(&w->rng, 0, 1000000);
	a->more_ppm = prng_in(&w->rng, 0, 3) == 0 ? prng_in(&w->rng, 0, 1000000) : 0;
	a->opt_ppm = prng_in(&w->rng, 0, 3) == 0 ? prng_log(&w->rng, 1000, 200000) : 0;
	a->closes = w->seed / 4 % 2 == 0 && prng_in(&w->rng, 0, 3) != 0; /* what comes after is less and less the stack's */
	a->to_edge = a->closes && prng_in(&w->rng, 0, 2) == 0;
	a->close_us = prng_in(&w->rng, 0, 2) == 0 ? 0 : prng_log(&w->rng, 1, 3000000);
	a->base = prng_in(&w->rng, 0, 1) != 0 ? (uint32_t)prng_u64(&w->rng) : 0u - prng_log(&w->rng, 0, 200000);
}

/* Small messages to and fro, most of them one at a time: what prediction's straight ways and hv_tcp_send_fast() are for. */
static void setup_talk(struct world *w)
{
	struct app *client = &w->side[0].app, *server = &w->side[1].app;
	uint32_t n = prng_in(&w->rng, 20, 300), delay = prng_log(&w->rng, 2, 20000);
	bool bad = prng_in(&w->rng, 0, 3) == 0;

	client->ask = server->answer = prng_log(&w->rng, 1, w->side[0].mss * 3 / 2);
	server->ask = client->answer = prng_log(&w->rng, 1, w->side[1].mss * 3 / 2);
	client->ahead = prng_in(&w->rng, 0, 3) != 0 ? 1 : prng_in(&w->rng, 2, 6);
	client->total = n * client->ask;
	server->total = n * server->ask;
	for (uint32_t i = 0; i < 2; i++) {
		struct app *a = &w->side[i].app;

		a->mode = READ_EAGER;
		a->think_us = maybe(w, 300000, 1, 2000);
		a->fast_ppm = prng_in(&w->rng, 0, 3) != 0 ? 950000 : 0;
		a->more_ppm = 0;
		w->link[i].c.delay_us = delay;
		if (!bad)
			w->link[i].c = (struct link_conf){ .rate_bps = w->link[i].c.rate_bps, .queue = w->link[i].c.queue,
				.delay_us = delay };
	}
	if (!bad)
		w->n_dark = 0;
}

static void setup_host(struct world *w, struct side *s, uint32_t who, uint32_t frame_max)
{
	struct host_conf c = { .vlan = w->link[0].c.dup % 4 == 1, .mac = { 2, 0, 0, 0, 0, (uint8_t)(1 + who) },
		.peer_mac = { 2, 0, 0, 0, 0, (uint8_t)(2 - who) } };

	c.n_rx = prng_log(&w->rng, 32, 2048);
	c.ring = prng_in(&w->rng, c.n_rx / 4, c.n_rx - c.n_rx / 4); /* late octets are copied to buffers of the reserve */
	c.rx_cap = frame_max <= 2048 ? 2048 : 16384;
	c.tx_cap = prng_log(&w->rng, 512, 65536);
	c.n_tx = prng_log(&w->rng, 4, 128);
	c.tso_max = prng_in(&w->rng, 0, 1) != 0 ? prng_log(&w->rng, 4096, 65000) : 0;
	if (c.tso_max != 0 && c.tso_max < 2u * s->mss)
		c.tso_max = 2u * s->mss;
	host_init(&s->h, &c);
	s->h.check_pools = w->verbose ? 0 : 16;
	s->pend_tail = &s->pend;
	s->poll_us = maybe(w, 500000, 1, 2000);
	s->sq_us = prng_log(&w->rng, 0, 3000);
	s->no_flush = prng_in(&w->rng, 0, 7) == 0;
	s->timer_at = UINT64_MAX;
	if (prng_in(&w->rng, 0, 2) == 0) {
		s->moves = prng_log(&w->rng, 1, 20);
		s->move_us = prng_log(&w->rng, 100, 2000000);
	}
}

void setup_tuples(struct world *w)
{
	struct hv_tuple *a = &w->side[0].tuple, *b = &w->side[1].tuple;

	a->family = w->v6 ? 6 : 4;
	a->proto = 6;
	a->lport = (uint16_t)prng_in(&w->rng, 1, 65535);
	a->rport = (uint16_t)prng_in(&w->rng, 1, 65535);
	for (int i = 0; i < (w->v6 ? 16 : 4); i++) {
		a->laddr[i] = (uint8_t)prng_in(&w->rng, 1, 222);
		a->raddr[i] = (uint8_t)prng_in(&w->rng, 1, 222);
	}
	*b = *a;
	b->lport = a->rport;
	b->rport = a->lport;
	memcpy(b->laddr, a->raddr, 16);
	memcpy(b->raddr, a->laddr, 16);
}

/* One direction, i -> j: what i's send half and j's receive half hold. */
static void setup_half(struct world *w, uint32_t i, uint32_t *flight_from, uint32_t *flight_to)
{
	struct side *s = &w->side[i], *p = &w->side[1 - i];
	struct hv_tcp_image *m = &s->img, *pm = &p->img;
	uint32_t room = s->h.conf.n_tx * s->h.conf.tx_cap, unread, wnd, flight, unsent, arrived;

	pm->rcvbuf = prng_log(&w->rng, 4608, 4u << 20);
	m->sndbuf = prng_log(&w->rng, 4608, 4u << 20);
	pm->rcvbuf_max = prng_ppm(&w->rng, 500000) ? prng_log(&w->rng, 4608, 4u << 20) : 0;
	m->sndbuf_max = prng_ppm(&w->rng, 500000) ? prng_log(&w->rng, 4608, 4u << 20) : 0;
	unread = maybe(w, s->app.ask != 0 ? 0 : 400000, 1, pm->rcvbuf / 4);
	wnd = prng_ppm(&w->rng, s->app.ask != 0 ? 0 : 50000) ? 0 : prng_in(&w->rng, pm->rcvbuf / 8, pm->rcvbuf / 2);
	if (wnd >> p->ws > 65535)
		wnd = 65535u << p->ws;
	m->snd_wnd = wnd >> p->ws << p->ws;
	flight = maybe(w, s->app.ask != 0 ? 0 : 400000, 1, 60000);
	if (flight > m->snd_wnd)
		flight = m->snd_wnd;
	unsent = maybe(w, s->app.ask != 0 ? 0 : 400000, 1, 60000);
	if (flight > room / 2)
		flight = room / 2;
	if (unsent > room / 2)
		unsent = room / 2;
	if (unread > s->app.total)
		unread = s->app.total;
	if (flight > s->app.total - unread)
		flight = s->app.total - unread;
	if (unsent > s->app.total - unread - flight)
		unsent = s->app.total - unread - flight;
	arrived = prng_in(&w->rng, 0, 1) != 0 ? 0 : prng_in(&w->rng, 0, flight);
	s->app.written = unread + flight + unsent;
	m->snd_una = s->app.base + unread;
	m->snd_nxt = m->snd_una + flight;
	m->snd_end = m->snd_nxt + unsent;
	m->snd_len = flight + unsent;
	m->max_window = m->snd_wnd != 0 ? m->snd_wnd : 4096;
	m->snd_wl1 = p->app.base;
	m->snd = malloc(m->snd_len + 1u);
	pm->rcv_nxt = m->snd_una + arrived;
	pm->rcv_wup = m->snd_una;
	pm->rcv_wnd = wnd;
	pm->rcv_len = unread + arrived;
	pm->rcv = malloc(pm->rcv_len + 1u);
	if (m->snd == NULL || pm->rcv == NULL)
		abort();
	app_fill(w, i, unread, m->snd, m->snd_len);
	app_fill(w, i, 0, pm->rcv, pm->rcv_len);
	p->edge = p->edge_max = m->snd_una + m->snd_wnd;
	s->sent_max = s->sent_stack = m->snd_nxt;
	*flight_from = m->snd_una + arrived;
	*flight_to = m->snd_nxt;
}

static void setup_rest(struct world *w, uint32_t i)
{
	struct side *s = &w->side[i], *p = &w->side[1 - i];
	struct hv_tcp_image *m = &s->img;

	m->tuple = s->tuple;
	m->ttl = 64;
	m->tos = 0;
	m->rcv_wscale = s->ws;
	m->snd_wscale = p->ws;
	m->snd_mss = s->mss;
	m->mss_clamp = s->mss + (s->ts ? 12u : 0u);
	m->pmtu = m->mss_clamp + (w->v6 ? 60u : 40u);
	m->ts_off = (uint32_t)prng_u64(&w->rng) & ~1u;
	if (prng_in(&w->rng, 0, 1) != 0) {
		m->srtt_us = 2 * w->link[0].c.delay_us + 100;
		m->rttvar_us = m->srtt_us / 2;
		m->min_rtt_us = m->srtt_us;
	}
	m->rto_us = 200000 + m->srtt_us + 4 * m->rttvar_us;
	m->snd_cwnd = prng_log(&w->rng, 1, 100);
	m->snd_ssthresh = prng_in(&w->rng, 0, 1) != 0 ? 0x7fffffffu : prng_log(&w->rng, 2, 100);
	m->nodelay = prng_in(&w->rng, 0, 1) != 0;
	m->cork = prng_in(&w->rng, 0, 15) == 0;
	m->quickack = prng_in(&w->rng, 0, 1) != 0;
	m->keepalive = w->keepalive;
	m->keepidle_s = 1 + prng_in(&w->rng, 0, 5);
	m->keepintvl_s = 1 + prng_in(&w->rng, 0, 2);
	m->keepcnt = 9;
	m->notsent_lowat = 0xffffffffu;
}

void setup_start(struct world *w)
{
	for (uint32_t i = 0; i < 2 && w->fail[0] == 0; i++) {
		struct side *s = &w->side[i];
		int rc = host_import(&s->h, &s->img, w->now);
		if (rc != 0) {
			world_fail(w, "%u: import of a sound image: %d", i, rc);
			return;
		}
		s->import_end = s->img.snd_end + (s->img.snd_end != s->img.snd_nxt ? 65000 : 0);
		s->import_at = w->now;
		s->import_srtt = s->img.srtt_us;
		host_image_free(&s->img);
		s->app.blocked = true;
	}
	for (uint32_t i = 0; i < 2 && w->fail[0] == 0; i++) {
		struct side *s = &w->side[i];
		side_after(w, i, HV_TCP_OUT | HV_TCP_WRITABLE | (hv_tcp_readable(s->h.tcb) != 0 ? HV_TCP_READABLE : 0u));
		if (s->moves != 0)
			world_push(w, w->now + prng_log(&w->rng, 1, s->move_us), EV_MOVE, i);
	}
}

void world_setup(struct world *w)
{
	bool ts = prng_in(&w->rng, 0, 3) != 0, sack = prng_in(&w->rng, 0, 3) != 0, ws = prng_in(&w->rng, 0, 3) != 0;
	uint32_t from[2], to[2], mss = mss_of[prng_in(&w->rng, 0, sizeof mss_of / sizeof mss_of[0] - 1)];

	w->now = 1000000 + prng_in(&w->rng, 0, 1) * ((1ull << 32) - 3000000); /* 32 bits of microseconds wrap in half of the runs */
	w->progress_at = w->now;
	w->v6 = prng_in(&w->rng, 0, 3) == 0;
	w->keepalive = prng_in(&w->rng, 0, 9) == 0;
	w->ecn = prng_in(&w->rng, 0, 3) == 0;
	setup_links(w);
	setup_tuples(w);
	for (uint32_t i = 0; i < w->n_dark; i++) {
		w->dark_from[i] += w->now;
		w->dark_to[i] += w->now;
	}
	for (uint32_t i = 0; i < 2; i++) {
		struct side *s = &w->side[i];
		s->ts = ts;
		s->ws = ws ? (uint8_t)prng_in(&w->rng, 0, 14) : 0;
		s->mss = (uint16_t)(mss - (ts ? 12 : 0));
		setup_app(w, s);
		setup_host(w, s, i, mss + 80);
		s->img.opts = (uint8_t)((ts ? HV_TCPO_TS : 0) | (sack ? HV_TCPO_SACK : 0) | (ws ? HV_TCPO_WS : 0) |
		    (w->ecn ? HV_TCPO_ECN : 0));
	}
	if (w->seed % 4 == 3)
		setup_talk(w);
	setup_half(w, 0, &from[0], &to[0]);
	setup_half(w, 1, &from[1], &to[1]);
	setup_rest(w, 0);
	setup_rest(w, 1);
	for (uint32_t i = 0; i < 2; i++) {
		struct hv_tcp_image *m = &w->side[i].img;
		if (ts && prng_in(&w->rng, 0, 1) != 0) {
			m->ts_recent = (uint32_t)(w->now / 1000) - 20 + w->side[1 - i].img.ts_off;
			m->ts_recent_valid = true;
		}
	}
	for (uint32_t i = 0; i < 2; i++) { /* a reader that needs more than some 20 s would only look dead */
		struct app *a = &w->side[i].app;
		uint32_t n = w->side[1 - i].app.total / (a->rd_max / 8 + 1) + 1;
		a->pauses = prng_in(&w->rng, 1, 8);
		if (w->side[1 - i].app.to_edge) {
			a->mode = READ_PACED;
			a->rd_us = prng_log(&w->rng, 10000, 2000000);
		}
		if (a->rd_us > 20000000 / n)
			a->rd_us = 20000000 / n;
	}
	if (prng_in(&w->rng, 0, 7) == 0)
		hole_setup(w);
	setup_start(w);
}

void world_teardown(struct world *w)
{
	for (uint32_t i = 0; i < w->n_heap; i++)
		free(w->heap[i].frame);
	free(w->heap);
	for (uint32_t i = 0; i < 2; i++) {
		host_image_free(&w->side[i].img);
		free(w->side[i].late);
		free(w->side[i].kern.have);
		host_destroy(&w->side[i].h);
	}
}
