/*
 * end_stack.c - the end whose TCP is src/stack, on one end of a socket pair that the relay holds the other of.
 *
 * The core knows ESTABLISHED only, so the three segments of the handshake are made here, with the kernel's options and windows, and the
 * connection is imported as the library imports it from a kernel socket. Then: read what has come, let the application run, send what may be sent,
 * sleep until the next frame or deadline.
 */
#include "end.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../sim/host.h"
#include "../sim/seg.h"
#include "stack/tcb.h"

#define WSCALE 7u
#define WND 65535u

struct ours {
	struct end *e;
	struct host h;
	struct hv_tcp_image img;
	uint32_t irs, rtt_us;
	uint32_t cwnd, ssthresh; /* as traced last */
	uint8_t ca;
};

static uint64_t now_us(void)
{
	return relay_now_ns() / 1000;
}

static void wire(void *arg, const uint8_t *frame, uint32_t len)
{
	struct end *e = arg;

	if (send(e->fd, frame, len, MSG_NOSIGNAL) != (ssize_t)len)
		end_die(e, "the relay doesn't take a frame");
}

/* ---- handshake ---- */
static uint32_t le(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void send_seg(struct ours *o, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t tsecr)
{
	uint16_t mss = o->e->family == 6 ? 1440 : 1460;
	uint8_t opt[20] = { 2, 4, (uint8_t)(mss >> 8), (uint8_t)mss, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, WSCALE }, frame[256];
	uint8_t ts[12] = { 1, 1, 8, 10 }, src[6], dst[6];
	uint32_t tsval = (uint32_t)(now_us() / 1000) + o->img.ts_off;
	bool syn = (flags & SEG_SYN) != 0;
	struct seg_spec s = { .from = &o->img.tuple, .src_mac = src, .dst_mac = dst, .seq = seq, .ack = ack, .wnd = syn ? WND : WND >> WSCALE,
		.flags = flags, .opts = syn ? opt : ts, .opt_len = syn ? sizeof opt : sizeof ts };

	end_mac(o->e->side, src);
	end_mac(!o->e->side, dst);
	put(syn ? opt + 8 : ts + 4, tsval);
	put(syn ? opt + 12 : ts + 8, tsecr);
	wire(o->e, frame, seg_build(frame, &s));
}

/* Options of the peer's SYN. Returns its TSval. */
static uint32_t read_syn(struct ours *o, const uint8_t *t, uint32_t wnd)
{
	const uint8_t *p = t + 20, *end = t + (t[12] >> 4) * 4;
	uint32_t tsval = 0;

	while (p < end && *p != 0) {
		if (*p == 1) {
			p++;
			continue;
		}
		if (end - p < 2 || p[1] < 2 || p[1] > end - p)
			break;
		if (*p == 2)
			o->img.mss_clamp = (uint32_t)p[2] << 8 | p[3];
		else if (*p == 3) {
			o->img.opts |= HV_TCPO_WS;
			o->img.snd_wscale = p[2];
		} else if (*p == 4)
			o->img.opts |= HV_TCPO_SACK;
		else if (*p == 8) {
			o->img.opts |= HV_TCPO_TS;
			tsval = le(p + 2);
		}
		p += p[1];
	}
	o->img.snd_wnd = o->img.max_window = wnd;
	return tsval;
}

/* Waits for a TCP segment with all of these flags; its header. */
static const uint8_t *await(struct ours *o, uint8_t *frame, uint32_t cap, uint8_t flags, struct hv_tuple *from, bool answer)
{
	for (;;) {
		struct pollfd p = { .fd = o->e->fd, .events = POLLIN };
		struct hv_frame f;
		ssize_t n;

		if (poll(&p, 1, answer ? 500 : -1) == 0)
			end_late();
		n = recv(o->e->fd, frame, cap, 0);
		if (n <= 0 || !hv_frame_parse(frame, (uint32_t)n, &f) || f.tuple.proto != 6)
			continue;
		if ((f.l4[13] & flags) == flags && (f.l4[13] & SEG_SYN) == (flags & SEG_SYN)) {
			*from = f.tuple;
			return f.l4;
		}
		if ((f.l4[13] & SEG_SYN) != 0)
			end_late(); /* the peer's again */
	}
}

static void handshake(struct ours *o)
{
	struct hv_tcp_image *m = &o->img;
	uint32_t iss = 0x40000000u + (uint32_t)(relay_now_ns() >> 6), tsval;
	struct hv_tuple from;
	uint8_t frame[2048];
	const uint8_t *t;
	uint64_t at;

	m->ts_off = 0x1000000;
	m->rcv_wscale = WSCALE;
	m->ttl = 64;
	m->tuple.family = o->e->family;
	m->tuple.proto = 6;
	end_addr(o->e->family, o->e->side, m->tuple.laddr);
	end_addr(o->e->family, !o->e->side, m->tuple.raddr);
	if (o->e->connects) {
		m->tuple.lport = htons(45678);
		m->tuple.rport = htons(END_PORT);
		at = now_us();
		send_seg(o, SEG_SYN, iss, 0, 0);
		t = await(o, frame, sizeof frame, SEG_SYN | SEG_ACK, &from, true);
		o->rtt_us = (uint32_t)(now_us() - at);
		o->irs = le(t + 4);
		tsval = read_syn(o, t, (uint32_t)t[14] << 8 | t[15]);
		send_seg(o, SEG_ACK, iss + 1, o->irs + 1, tsval);
	} else {
		t = await(o, frame, sizeof frame, SEG_SYN, &from, false);
		m->tuple.lport = htons(END_PORT);
		m->tuple.rport = from.rport;
		o->irs = le(t + 4);
		tsval = read_syn(o, t, 0);
		at = now_us();
		send_seg(o, SEG_SYN | SEG_ACK, iss, o->irs + 1, tsval);
		t = await(o, frame, sizeof frame, SEG_ACK, &from, true);
		o->rtt_us = (uint32_t)(now_us() - at);
		m->snd_wnd = m->max_window = ((uint32_t)t[14] << 8 | t[15]) << m->snd_wscale;
	}
	m->snd_una = m->snd_nxt = m->snd_end = iss + 1;
	m->rcv_nxt = m->rcv_wup = m->snd_wl1 = o->irs + 1;
	m->rcv_wnd = WND;
	m->pmtu = 1500;
	m->snd_mss = m->mss_clamp - 12;
	m->srtt_us = m->min_rtt_us = o->rtt_us;
	m->rttvar_us = o->rtt_us / 2;
	m->rto_us = 200000 + o->rtt_us;
	m->snd_cwnd = 10;
	m->snd_ssthresh = 0x7fffffff;
	m->ts_recent = tsval;
	m->ts_recent_valid = true;
	m->rcvbuf = o->e->rmem_max / 2; /* as hv_promote() reads an unlocked socket */
	m->sndbuf = o->e->wmem_max / 2;
	m->nodelay = true;
	m->quickack = true; /* what a new socket says */
	m->notsent_lowat = 0xffffffffu;
}

/* ---- transfer ---- */
static void trace(struct ours *o)
{
	const struct hv_tcb *t = o->h.tcb;
	bool reduced = t->ssthresh != o->ssthresh && t->ssthresh < o->ssthresh, undone = t->ssthresh > o->ssthresh;

	if (o->e->trace == NULL || (t->cwnd == o->cwnd && t->ssthresh == o->ssthresh && t->ca == o->ca))
		return;
	o->cwnd = t->cwnd;
	o->ssthresh = t->ssthresh;
	o->ca = t->ca;
	fprintf(o->e->trace, "%.3f cwnd %u ssthresh %u ca %u rexmit %u flight %u srtt %u%s\n", (double)(relay_now_ns() - o->e->app.first_ns) / 1e6,
	    t->cwnd / t->mss, hv_min32(t->ssthresh / t->mss, INT32_MAX), t->ca, t->total_rexmit, hv_flight(t) / t->mss, t->srtt8 >> 3,
	    reduced ? " reduced" : undone ? " raised" : "");
}

static void must_hold(struct ours *o)
{
	if (o->h.fail != NULL)
		end_die(o->e, o->h.fail);
}

static void input(struct ours *o, const uint8_t *frame, uint32_t len)
{
	struct hv_frame f;
	struct hv_seg seg;
	struct hv_buf *b = host_rx(&o->h, frame, len);
	unsigned act = 0;

	if (b == NULL)
		end_die(o->e, "no receive buffer left");
	if (hv_frame_parse(b->base, b->len, &f) && f.tuple.proto == 6 && hv_tuple_eq(&f.tuple, &o->img.tuple)) {
		if (!hv_frame_csum_ok(&f) || !hv_tcp_parse(f.l4, f.l4_len, &seg))
			end_die(o->e, "a malformed segment");
		seg.buf = b;
		seg.ce = (f.tos & 3) == 3;
		act = hv_tcp_input(o->h.tcb, &o->h.env, &seg, now_us());
	}
	if ((act & HV_TCP_KEPT) == 0)
		host_put(&o->h, b);
	if ((act & HV_TCP_DEMOTE) != 0)
		end_die(o->e, "a segment that ends the connection");
	host_check(&o->h);
	host_refill(&o->h);
	must_hold(o);
}

static void application(struct ours *o)
{
	struct app *a = &o->e->app;
	unsigned act = 0;
	uint32_t n, k;

	while ((n = hv_tcp_read(o->h.tcb, &o->h.env, a->buf, sizeof a->buf, false, &act, now_us())) != 0)
		app_read(a, n);
	while ((n = app_next(a)) != 0) {
		k = hv_tcp_write(o->h.tcb, &o->h.env, a->buf, n, false, &act, now_us());
		app_sent(a, k);
		if (k != n)
			break;
	}
	host_refill(&o->h);
}

static void output(struct ours *o)
{
	struct hv_tx tx;

	while (hv_tcp_output(o->h.tcb, &o->h.env, &tx, now_us())) {
		host_post(&o->h, &tx, wire, o->e);
		if (!host_sq_room(&o->h))
			host_complete(&o->h, HOST_SQ);
		must_hold(o);
	}
	host_check(&o->h);
	must_hold(o);
	host_complete(&o->h, HOST_SQ);
}

/* For the report when time runs out, and to measure stalls by. */
static void say_state(struct ours *o)
{
	const struct hv_tcb *t = o->h.tcb;

	o->e->at = (struct end_at){ t->snd_una, t->snd_nxt, t->snd_end, t->snd_edge, t->rcv_nxt, t->rcv_edge, t->cwnd, t->ca, t->rtx_kind,
		t->backoff, t->lost_out, t->sacked_out, t->ooo_n, t->rx_charge, t->rcvbuf, hv_rto(t), t->srtt8 >> 3 };
}

static void transfer(struct ours *o)
{
	struct app *a = &o->e->app;
	bool told = false;

	for (;;) {
		struct pollfd p = { .fd = o->e->fd, .events = POLLIN };
		uint8_t frame[2048];
		uint64_t deadline, now, due;
		struct timespec ts;
		ssize_t n;

		for (int k = 0; k < 64 && (n = recv(o->e->fd, frame, sizeof frame, MSG_DONTWAIT)) > 0; k++) {
			input(o, frame, (uint32_t)n);
			trace(o);
		}
		now = now_us();
		due = hv_tcp_deadline(o->h.tcb);
		if (due <= now && now - due >= o->e->late_us) {
			if ((hv_tcp_timeout(o->h.tcb, &o->h.env, now) & HV_TCP_TIMEDOUT) != 0)
				end_die(o->e, "the connection timed out");
		}
		application(o);
		output(o);
		trace(o);
		if (!told && app_finished(a) && app_all_sent(a)) {
			told = true;
			atomic_fetch_add(&o->e->meet->finished, 1);
		}
		say_state(o);
		if (atomic_load(&o->e->meet->finished) == 2)
			return;
		now = now_us();
		deadline = hv_tcp_deadline(o->h.tcb);
		if (deadline < UINT64_MAX - o->e->late_us)
			deadline += o->e->late_us;
		deadline = deadline <= now ? 0 : deadline - now < 20000 ? deadline - now : 20000;
		ts = (struct timespec){ .tv_nsec = (long)deadline * 1000 };
		ppoll(&p, 1, &ts, NULL);
	}
}

void *end_stack(void *arg)
{
	struct end *e = arg;
	struct ours *o = calloc(1, sizeof *o);
	struct host_conf c = { .n_rx = 8192, .ring = 4096, .rx_cap = 2048, .n_tx = 512, .tx_cap = 16384, .tso_max = 65000 };
	struct hv_tcp_stat st;

	if (o == NULL)
		abort();
	o->e = e;
	end_mac(e->side, c.mac);
	end_mac(!e->side, c.peer_mac);
	host_init(&o->h, &c);
	pthread_barrier_wait(&e->meet->ready);
	e->where = "handshake";
	handshake(o);
	end_realtime(5);
	e->handshake_us = o->rtt_us;
	e->where = "established";
	if (host_import(&o->h, &o->img, now_us()) != 0)
		end_die(e, "import");
	pthread_barrier_wait(&e->meet->connected);
	pthread_barrier_wait(&e->meet->armed);
	e->app.first_ns = e->app.last_read_ns = relay_now_ns();
	e->where = "transfer";
	transfer(o);
	e->where = "done";
	pthread_barrier_wait(&e->meet->done);
	hv_tcp_stat(o->h.tcb, &st);
	e->rexmit = st.total_retrans;
	e->rto = o->h.cnt.rto;
	e->tlp = o->h.cnt.tlp;
	e->cwnd = st.cwnd;
	e->ssthresh = st.ssthresh;
	e->srtt_us = st.srtt_us;
	host_release(&o->h, 0);
	host_complete(&o->h, HOST_SQ);
	host_conserved(&o->h);
	must_hold(o);
	host_destroy(&o->h);
	free(o);
	return NULL;
}
