/*
 * core.c - the side under test is src/stack, with a clock that only the script moves.
 *
 * `open` imports the connection that the kernel would have after the handshake. Where the engine would demote, the core's part of the script
 * ends: the script says `demotes` there, and may look at what would be handed over. Modes vary what must not matter: IP version, whether
 * hv_tcp_send_fast() is used, whether prediction is.
 */
#include "script.h"

#include "../sim/host.h"
#include "../sim/seg.h"
#include "stack/tcb.h"

#include <stdio.h>
#include <stdlib.h>

#define OUT 512u

struct core {
	struct host h;
	struct sc_core_mode mode;
	uint64_t now;
	struct sc_pkt out[OUT];
	unsigned n, at;
	bool lost;             /* more came out than fits */
	bool demote;           /* asked for by the last segment or call */
	uint32_t written, read;/* octets, as relative numbers of the next one */
	struct sc_target *t;
};

static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 }, peer_mac[6] = { 2, 0, 0, 0, 0, 2 };

static struct core *of(struct sc_target *t)
{
	return t->priv;
}

static bool bad(struct sc_target *t, const char *what)
{
	if (t->why[0] == 0)
		snprintf(t->why, sizeof t->why, "%s", what);
	return false;
}

static bool fine(struct sc_target *t)
{
	struct core *c = of(t);

	if (!host_check(&c->h))
		return bad(t, c->h.fail);
	if (c->lost)
		return bad(t, "output never ends");
	return true;
}

static void wire(void *arg, const uint8_t *frame, uint32_t len)
{
	struct core *c = arg;
	struct sc_pkt p;

	if (!sc_decode(&c->t->c, frame + 14, len - 14, &p)) {
		bad(c->t, "a frame came out that isn't of this connection");
		return;
	}
	if (c->n == OUT) {
		c->lost = true;
		return;
	}
	p.at = c->now;
	c->out[c->n++] = p;
}

static void pump(struct sc_target *t)
{
	struct core *c = of(t);
	struct hv_tx tx;

	for (unsigned i = 0; i < OUT; i++) {
		if (!host_sq_room(&c->h))
			host_complete(&c->h, HOST_SQ);
		if (!hv_tcp_output(c->h.tcb, &c->h.env, &tx, c->now))
			return;
		host_post(&c->h, &tx, wire, c);
		if (!fine(t))
			return;
	}
	c->lost = true;
}

static void after(struct sc_target *t, unsigned acts)
{
	struct core *c = of(t);

	if (!fine(t))
		return;
	if ((acts & HV_TCP_OUT) != 0)
		pump(t);
	host_complete(&c->h, HOST_SQ);
	host_refill(&c->h);
	fine(t);
}

static bool alive(struct sc_target *t)
{
	if (of(t)->demote)
		return bad(t, "the core has asked for a demotion and the script doesn't say 'demotes'");
	return t->why[0] == 0;
}

static uint64_t core_now(struct sc_target *t)
{
	return of(t)->now;
}

static bool core_open(struct sc_target *t, const struct sc_open *o)
{
	struct core *c = of(t);
	struct hv_tcp_image m;
	uint32_t hdr = t->c.v6 ? 60 : 40, own = 1500 - hdr;

	if (o->maxseg != 0 && o->maxseg < own)
		own = o->maxseg;
	memset(&m, 0, sizeof m);
	sc_tuple(&t->c, &m.tuple, false);
	t->c.iss = 0xfffffe00u; /* both streams wrap soon */
	t->c.irs = 0xfffff800u;
	t->c.ts = o->ts;
	t->c.sack = o->sack;
	t->c.ecn = o->ecn;
	t->c.snd_ws = o->wscale >= 0 ? (unsigned)o->wscale : 0;
	t->c.rcv_ws = o->wscale >= 0 ? 7 : 0;
	m.opts = (uint8_t)((o->ts ? HV_TCPO_TS : 0) | (o->sack ? HV_TCPO_SACK : 0) | (o->wscale >= 0 ? HV_TCPO_WS : 0) | (o->ecn ? HV_TCPO_ECN : 0));
	m.snd_wscale = (uint8_t)t->c.snd_ws;
	m.rcv_wscale = (uint8_t)t->c.rcv_ws;
	m.ttl = 64;
	m.snd_una = m.snd_nxt = m.snd_end = t->c.iss + 1;
	m.rcv_nxt = m.rcv_wup = m.snd_wl1 = t->c.irs + 1;
	m.snd_wnd = m.max_window = o->wnd;
	m.rcvbuf = o->rcvbuf != 0 ? 2 * o->rcvbuf : 131072;
	m.sndbuf = o->sndbuf != 0 ? 2 * o->sndbuf : 4194304;
	m.rcv_wnd = m.rcvbuf / 2 / (own - (o->ts ? 12 : 0)) * (own - (o->ts ? 12 : 0)); /* as the kernel offers */
	if (m.rcv_wnd > 65535)
		m.rcv_wnd = 65535;
	m.window_clamp = o->clamp;
	if (o->clamp != 0 && m.rcv_wnd > o->clamp)
		m.rcv_wnd = o->clamp;
	m.mss_clamp = o->mss < own ? o->mss : own;
	m.snd_mss = m.mss_clamp - (o->ts ? 12 : 0);
	m.pmtu = 1500;
	m.ts_off = 0xfffffff0u - (uint32_t)(c->now / 1000);
	t->c.ts_base = 0xfffffff0u; /* TSval of the SYN/ACK; wraps soon too */
	t->c.ts_base_known = true;
	c->now += o->rtt_ms * 1000u;
	m.ts_recent = 1000 + o->rtt_ms;
	m.ts_recent_valid = o->ts;
	m.srtt_us = m.min_rtt_us = o->rtt_ms * 1000u;
	m.rttvar_us = m.srtt_us / 2;
	m.rto_us = m.srtt_us + (2 * m.srtt_us > 200000 ? 2 * m.srtt_us : 200000);
	m.snd_cwnd = 10;
	m.snd_ssthresh = 0x7fffffff;
	m.quickack = true;
	m.notsent_lowat = 0xffffffffu;
	c->written = c->read = 1;
	if (host_import(&c->h, &m, c->now) != 0)
		return bad(t, "import failed");
	if (strcmp(o->cc, "reno") == 0)
		hv_tcp_setopt(c->h.tcb, HV_TCP_CONGESTION, HV_TCP_CC_RENO, c->now);
	after(t, 0);
	return t->why[0] == 0;
}

static bool core_wait(struct sc_target *t, uint64_t until, struct sc_pkt *p)
{
	struct core *c = of(t);

	for (unsigned i = 0; i < 100000; i++) {
		uint64_t d;

		if (c->at < c->n) {
			*p = c->out[c->at++];
			if (c->at == c->n)
				c->at = c->n = 0;
			return true;
		}
		if (!alive(t) || !c->h.live)
			return false;
		d = hv_tcp_deadline(c->h.tcb);
		if (d > until) {
			if (until > c->now)
				c->now = until;
			return false;
		}
		if (d > c->now)
			c->now = d;
		after(t, hv_tcp_timeout(c->h.tcb, &c->h.env, c->now));
	}
	return bad(t, "timers never rest");
}

static bool core_inject(struct sc_target *t, const struct sc_pkt *p)
{
	static uint8_t frame[SEG_MAX_FRAME];
	struct core *c = of(t);
	struct hv_frame f;
	struct hv_seg seg;
	struct hv_buf *b;
	unsigned acts;
	uint32_t len;

	if (!alive(t))
		return false;
	len = sc_encode(&t->c, frame, p);
	b = host_rx(&c->h, frame, len);
	if (b == NULL)
		return bad(t, "no buffer for the segment");
	if (!hv_frame_parse(b->base, b->len, &f) || !hv_frame_csum_ok(&f) || !hv_tcp_parse(f.l4, f.l4_len, &seg)) {
		host_put(&c->h, b);
		return bad(t, "the segment isn't well formed");
	}
	seg.buf = b;
	seg.ce = (f.tos & 3) == 3;
	if (c->mode.no_predict)
		c->h.tcb->pred = HV_PRED_NEVER;
	acts = hv_tcp_input(c->h.tcb, &c->h.env, &seg, c->now);
	if ((acts & HV_TCP_KEPT) == 0)
		host_put(&c->h, b);
	if ((acts & HV_TCP_DEMOTE) != 0)
		c->demote = true;
	after(t, acts);
	return t->why[0] == 0;
}

static int64_t core_write(struct sc_target *t, uint32_t len, bool more)
{
	struct core *c = of(t);
	uint8_t *data;
	unsigned acts = 0;
	uint32_t n = 0;
	int e;

	if (!alive(t))
		return -1;
	if ((e = hv_tcp_error(c->h.tcb)) != 0)
		return -e;
	data = malloc(len + 1u);
	if (data == NULL)
		abort();
	for (uint32_t i = 0; i < len; i++)
		data[i] = sc_octet(false, c->written + i);
	if (!more && !c->mode.slow_send && len != 0 && host_sq_room(&c->h)) {
		struct hv_tx tx;

		n = hv_tcp_send_fast(c->h.tcb, &c->h.env, data, len, &tx, c->now);
		if (n != 0) {
			host_post(&c->h, &tx, wire, c);
			hv_tcp_send_commit(c->h.tcb, &c->h.env, data, len, c->now);
		}
	}
	if (n == 0)
		n = hv_tcp_write(c->h.tcb, &c->h.env, data, len, more, &acts, c->now);
	free(data);
	c->written += n;
	after(t, acts);
	return n == 0 && len != 0 ? -EAGAIN : (int64_t)n;
}

static int64_t core_read(struct sc_target *t, uint32_t len)
{
	struct core *c = of(t);
	uint8_t *data;
	unsigned acts = 0;
	uint32_t n;

	if (!alive(t))
		return -1;
	if (hv_tcp_readable(c->h.tcb) == 0)
		return hv_tcp_error(c->h.tcb) != 0 ? -hv_tcp_error(c->h.tcb) : -EAGAIN;
	data = malloc(len + 1u);
	if (data == NULL)
		abort();
	n = hv_tcp_read(c->h.tcb, &c->h.env, data, len, false, &acts, c->now);
	for (uint32_t i = 0; i < n; i++)
		if (data[i] != sc_octet(true, c->read + i))
			bad(t, "an octet that was read is wrong");
	free(data);
	c->read += n;
	after(t, acts);
	return n;
}

/* The engine demotes for both, and the kernel does the rest. */
static int64_t core_finish(struct sc_target *t)
{
	if (!alive(t))
		return -1;
	of(t)->demote = true;
	return 0;
}

static int64_t core_setopt(struct sc_target *t, const char *name, uint32_t val)
{
	static const struct { const char *name; enum hv_tcp_opt o; } known[] = { { "nodelay", HV_TCP_NODELAY }, { "cork", HV_TCP_CORK },
		{ "quickack", HV_TCP_QUICKACK }, { "keepalive", HV_TCP_KEEPALIVE }, { "keepidle", HV_TCP_KEEPIDLE }, { "keepintvl", HV_TCP_KEEPINTVL },
		{ "keepcnt", HV_TCP_KEEPCNT }, { "user_timeout", HV_TCP_USER_TIMEOUT }, { "notsent_lowat", HV_TCP_NOTSENT_LOWAT },
		{ "window_clamp", HV_TCP_WINDOW_CLAMP }, { "rcvbuf", HV_TCP_RCVBUF }, { "sndbuf", HV_TCP_SNDBUF },
		{ "congestion", HV_TCP_CONGESTION } };
	struct core *c = of(t);

	if (!alive(t))
		return -1;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (strcmp(name, known[i].name) != 0)
			continue;
		if (known[i].o == HV_TCP_RCVBUF || known[i].o == HV_TCP_SNDBUF)
			val *= 2; /* what the kernel makes of it */
		after(t, hv_tcp_setopt(c->h.tcb, known[i].o, val, c->now));
		return 0;
	}
	if (strcmp(name, "maxseg") == 0)
		return 0; /* the kernel socket has it; the core has no such option */
	bad(t, "no such option");
	return -1;
}

static bool core_info(struct sc_target *t, struct sc_figures *f)
{
	struct core *c = of(t);
	struct hv_tcp_stat st;

	hv_tcp_stat(c->h.tcb, &st);
	*f = (struct sc_figures){ .cwnd = st.cwnd, .ssthresh = st.ssthresh, .mss = st.snd_mss, .ca = st.ca_state, .unacked = st.unacked,
		.sacked = st.sacked, .lost = st.lost, .retrans = st.retrans, .total_retrans = st.total_retrans,
		.rtt_ms = (st.srtt_us + 500) / 1000, .rto_ms = st.rto_us / 1000, .snd_wnd = st.snd_wnd, .notsent = hv_tcp_outq_nsd(c->h.tcb) };
	return true;
}

static unsigned core_poll(struct sc_target *t)
{
	struct core *c = of(t);

	if (hv_tcp_error(c->h.tcb) != 0)
		return SC_IN_READY | SC_OUT_READY | SC_HUP;
	return (hv_tcp_readable(c->h.tcb) != 0 ? SC_IN_READY : 0) | (hv_tcp_writable(c->h.tcb) ? SC_OUT_READY : 0);
}

static int64_t core_inq(struct sc_target *t)
{
	return hv_tcp_readable(of(t)->h.tcb);
}

static int64_t core_outq(struct sc_target *t)
{
	return hv_tcp_outq(of(t)->h.tcb);
}

static bool core_pmtu(struct sc_target *t, uint32_t mtu)
{
	struct core *c = of(t);

	if (!alive(t))
		return false;
	after(t, hv_tcp_set_pmtu(c->h.tcb, mtu + (t->c.v6 ? 20 : 0), c->now));
	return t->why[0] == 0;
}

/* Out of the core and into it again, as a demotion followed by a promotion would carry it at best. */
static bool core_move(struct sc_target *t)
{
	struct core *c = of(t);
	struct hv_tcp_image m;
	int rc;

	if (!alive(t))
		return false;
	host_export(&c->h, &m, c->now);
	host_release(&c->h, 0);
	host_complete(&c->h, HOST_SQ);
	rc = host_import(&c->h, &m, c->now);
	host_image_free(&m);
	if (rc != 0)
		return bad(t, "import after the export failed");
	pump(t);
	after(t, 0);
	return t->why[0] == 0;
}

static bool core_demotes(struct sc_target *t, const struct sc_event *e)
{
	struct core *c = of(t);
	struct hv_tcp_image m;

	if (!c->demote)
		return bad(t, "nothing has asked for a demotion");
	t->ended = true;
	memset(&m, 0, sizeof m);
	hv_tcp_export(c->h.tcb, &m, c->now);
	for (unsigned i = 0; i < e->n_cond; i++) {
		const char *f = e->cond[i].field;
		uint32_t v;

		if (strcmp(f, "una") == 0)
			v = m.snd_una - t->c.iss;
		else if (strcmp(f, "nxt") == 0)
			v = m.snd_nxt - t->c.iss;
		else if (strcmp(f, "end") == 0)
			v = m.snd_end - t->c.iss;
		else if (strcmp(f, "rcv") == 0)
			v = m.rcv_nxt - t->c.irs;
		else if (strcmp(f, "unread") == 0)
			v = m.rcv_len;
		else
			return bad(t, "demotes knows una, nxt, end, rcv and unread");
		if (v != e->cond[i].val) {
			snprintf(t->why, sizeof t->why, "%s is %u in what would be handed over", f, v);
			return false;
		}
	}
	return true;
}

static void core_end(struct sc_target *t)
{
	struct core *c = of(t);

	if (c->h.live)
		host_release(&c->h, 0);
	host_complete(&c->h, HOST_SQ);
	if (t->why[0] == 0 && !host_conserved(&c->h))
		bad(t, c->h.fail);
	host_destroy(&c->h);
	free(c);
	t->priv = NULL;
}

bool sc_core_init(struct sc_target *t, const struct sc_core_mode *mode)
{
	struct host_conf conf = { .n_rx = 512, .ring = 256, .rx_cap = 2048, .n_tx = 128, .tx_cap = 16384, .tso_max = 65536 };
	struct core *c = calloc(1, sizeof *c);

	if (c == NULL)
		abort();
	memcpy(conf.mac, mac, 6);
	memcpy(conf.peer_mac, peer_mac, 6);
	memset(t, 0, sizeof *t);
	*t = (struct sc_target){ .priv = c, .core = true, .open = core_open, .now = core_now, .wait = core_wait, .inject = core_inject,
		.write = core_write, .read = core_read, .shutdown = core_finish, .close = core_finish, .setopt = core_setopt, .info = core_info,
		.poll = core_poll, .inq = core_inq, .outq = core_outq, .pmtu = core_pmtu, .move = core_move, .demotes = core_demotes,
		.end = core_end };
	t->name = mode->v6 ? mode->slow_send ? mode->no_predict ? "core (IPv6, slow send, no prediction)" : "core (IPv6, slow send)"
				: mode->no_predict ? "core (IPv6, no prediction)" : "core (IPv6)"
			   : mode->slow_send ? mode->no_predict ? "core (slow send, no prediction)" : "core (slow send)"
					     : mode->no_predict ? "core (no prediction)" : "core";
	t->c.v6 = mode->v6;
	t->c.lport = 8080;
	t->c.rport = 40000;
	c->mode = *mode;
	c->t = t;
	c->now = 10000000;
	host_init(&c->h, &conf);
	return true;
}
