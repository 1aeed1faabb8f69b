/*
 * fuzz_image.c - hand-off images of any content through hv_tcp_import().
 *
 * The input is a list of changes to a sound image: {field, value}, and then of events for the connection that has come of it. A bad image
 * has to be refused with nothing taken. One that is accepted has to give a TCB whose invariants hold from the first moment on and through
 * whatever happens then, and that can be exported and imported again.
 */
#include "../sim/host.h"
#include "../sim/seg.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OCTETS (1u << 20) /* what the pointers of an image really have behind them */

struct in { const uint8_t *p, *end; };

static uint32_t take(struct in *in, unsigned n)
{
	uint32_t v = 0;

	while (n-- != 0)
		v = v << 8 | (in->p < in->end ? *in->p++ : 0u);
	return v;
}

#define F(name) { offsetof(struct hv_tcp_image, name), sizeof((struct hv_tcp_image *)0)->name }
static const struct field { size_t at, size; } fields[] = { F(tuple.family), F(tuple.proto), F(tuple.lport), F(tuple.rport), F(tuple.scope),
	F(tuple.laddr), F(tuple.raddr), F(opts), F(snd_wscale), F(rcv_wscale), F(ttl), F(tos), F(snd_una), F(snd_nxt), F(snd_end),
	F(rcv_nxt), F(snd_wl1), F(snd_wnd), F(max_window), F(rcv_wnd), F(rcv_wup), F(mss_clamp), F(snd_mss), F(pmtu), F(ts_off),
	F(ts_recent), F(ts_recent_valid), F(srtt_us), F(rttvar_us), F(min_rtt_us), F(rto_us), F(snd_cwnd), F(snd_ssthresh), F(rcvbuf),
	F(sndbuf), F(nodelay), F(cork), F(quickack), F(user_timeout_ms), F(keepalive), F(keepidle_s), F(keepintvl_s), F(keepcnt),
	F(notsent_lowat), F(window_clamp), F(rcv_len), F(snd_len) };
#define N_FIELDS (sizeof fields / sizeof fields[0])

static void change(struct hv_tcp_image *m, struct in *in)
{
	uint32_t which = take(in, 1), how, v, n;
	uint8_t *p;

	if (which >= N_FIELDS) {
		if (which == 250)
			m->snd = NULL;
		else if (which == 251)
			m->rcv = NULL;
		else if (which >= 252) { /* a send queue that fits */
			n = take(in, 2);
			m->snd_end = m->snd_una + n;
			m->snd_len = n;
			m->snd_nxt = which == 252 ? m->snd_una : which == 253 ? m->snd_end : m->snd_una + n / 2;
		}
		return;
	}
	p = (uint8_t *)m + fields[which].at;
	if (fields[which].size == sizeof(bool) && (p == (uint8_t *)&m->ts_recent_valid || p == (uint8_t *)&m->nodelay ||
		p == (uint8_t *)&m->cork || p == (uint8_t *)&m->quickack || p == (uint8_t *)&m->keepalive)) {
		*p = take(in, 1) & 1; /* anything else is no bool, whoever made it */
		return;
	}
	if (fields[which].size != 4) {
		for (size_t i = 0; i < fields[which].size; i++)
			p[i] = (uint8_t)take(in, 1);
		return;
	}
	how = take(in, 1);
	memcpy(&v, p, 4);
	switch (how % 5) {
	case 0: v = take(in, 4); break;
	case 1: v += take(in, 2); break;
	case 2: v -= take(in, 2); break;
	case 3: v = take(in, 2); break;
	default: v = (how & 128) != 0 ? ~(1u << how % 32) : 1u << how % 32; break;
	}
	memcpy(p, &v, 4);
}

static void die(const char *what)
{
	fprintf(stderr, "fuzz_image: %s\n", what);
	abort();
}

static void wire(void *arg, const uint8_t *frame, uint32_t len)
{
	(void)arg;
	(void)frame;
	(void)len;
}

static void after(struct host *h, unsigned acts, uint64_t now)
{
	struct hv_tx tx;

	host_check(h);
	for (uint32_t n = 0; (acts & HV_TCP_OUT) != 0 && h->fail == NULL; n++) {
		if (!host_sq_room(h))
			host_complete(h, HOST_SQ);
		if (!hv_tcp_output(h->tcb, &h->env, &tx, now))
			break;
		host_post(h, &tx, wire, NULL);
		host_check(h);
		if (n > 20000)
			die("output never ends");
	}
	host_refill(h);
	if (h->fail != NULL)
		die(h->fail);
}

static unsigned segment(struct host *h, struct in *in, uint64_t now)
{
	struct hv_tcp_image m;
	uint8_t data[256], frame[1024];
	struct hv_frame f;
	struct hv_seg s;
	struct hv_buf *b;
	uint32_t what = take(in, 1);
	unsigned acts;

	hv_tcp_export(h->tcb, &m, now);
	struct hv_tuple from = m.tuple;
	memset(data, 7, sizeof data);
	from.lport = m.tuple.rport;
	from.rport = m.tuple.lport;
	memcpy(from.laddr, m.tuple.raddr, 16);
	memcpy(from.raddr, m.tuple.laddr, 16);
	struct seg_spec g = { .from = &from, .flags = SEG_ACK, .data = data, .seq = m.rcv_nxt, .ack = (what & 1) != 0 ? m.snd_nxt : m.snd_una,
		.len = (what & 2) != 0 ? 200 : 0, .wnd = take(in, 2), .has_ts = (m.opts & HV_TCPO_TS) != 0, .tsval = m.ts_recent };
	if ((what & 4) != 0)
		g.seq += take(in, 2);
	if ((what & 8) != 0)
		g.ack = m.snd_una + take(in, 2);
	b = host_rx(h, frame, seg_build(frame, &g));
	if (b == NULL)
		return 0;
	if (!hv_frame_parse(b->base, b->len, &f) || !hv_tcp_parse(f.l4, f.l4_len, &s))
		die("sound segment refused");
	s.buf = b;
	acts = hv_tcp_input(h->tcb, &h->env, &s, now);
	if ((acts & HV_TCP_KEPT) == 0)
		host_put(h, b);
	return acts;
}

static void live(struct host *h, struct in *in)
{
	static uint8_t buf[65536];
	uint64_t now = 5000000, d;
	unsigned acts;

	after(h, HV_TCP_OUT, now);
	while (in->p < in->end) {
		acts = 0;
		switch (take(in, 1) % 7) {
		case 0:
			(void)hv_tcp_read(h->tcb, &h->env, buf, take(in, 2), false, &acts, now);
			break;
		case 1:
			(void)hv_tcp_write(h->tcb, &h->env, buf, take(in, 2), false, &acts, now);
			break;
		case 2:
			host_complete(h, take(in, 1));
			break;
		case 3:
			d = hv_tcp_deadline(h->tcb);
			if (d != UINT64_MAX && d > now)
				now = d;
			acts = hv_tcp_timeout(h->tcb, &h->env, now);
			break;
		case 4:
			now += (uint64_t)take(in, 2) << 8;
			acts = hv_tcp_set_pmtu(h->tcb, take(in, 2), now);
			break;
		default:
			acts = segment(h, in, now);
			break;
		}
		after(h, acts, now);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t octets[OCTETS];
	struct in in = { data, data + size };
	struct host_conf c = { .n_rx = 48, .ring = 32, .rx_cap = 2048, .n_tx = 48, .tx_cap = 2048, .mac = { 2, 1 }, .peer_mac = { 2, 2 } };
	struct hv_tcp_image m = { .tuple = { .family = 4, .proto = 6, .lport = 1, .rport = 2, .laddr = { 10, 0, 0, 1 }, .raddr = { 10, 0, 0, 2 } },
		.ttl = 64, .opts = HV_TCPO_TS | HV_TCPO_SACK | HV_TCPO_WS, .snd_wscale = 5, .rcv_wscale = 6, .snd_una = 0xffffff00u,
		.snd_nxt = 0xffffff00u, .snd_end = 0xffffff00u, .rcv_nxt = 0xfffff000u, .rcv_wup = 0xfffff000u, .snd_wl1 = 0xfffff000u,
		.snd_wnd = 30000, .max_window = 30000, .rcv_wnd = 30000, .mss_clamp = 1000, .snd_mss = 988, .pmtu = 1040, .snd_cwnd = 10,
		.snd_ssthresh = 0x7fffffff, .rto_us = 200000, .rcvbuf = 16384, .sndbuf = 65536, .keepidle_s = 5, .keepintvl_s = 1, .keepcnt = 3,
		.notsent_lowat = 0xffffffffu };
	static struct host h;
	int rc;

	if (size > 512)
		return 0;
	m.rcv = m.snd = octets;
	if ((take(&in, 1) & 1) != 0) {
		m.tuple.family = 6;
		c.vlan = true;
	}
	for (uint32_t n = take(&in, 1) % 16; n != 0; n--)
		change(&m, &in);
	/* What the caller promises: that there are as many octets as it says. */
	if (m.rcv_len > OCTETS && m.rcv == NULL)
		m.rcv_len = OCTETS; /* host_import() allocates as much */
	if (m.rcv_len > OCTETS || (m.snd_len > OCTETS && m.snd != NULL && m.snd_len == m.snd_end - m.snd_una))
		return 0;
	host_init(&h, &c);
	rc = host_import(&h, &m, 5000000);
	if (rc != 0) {
		assert(rc == -EINVAL || rc == -ENOBUFS);
	} else {
		live(&h, &in);
		host_export(&h, &m, 9000000);
		host_release(&h, 0);
		host_complete(&h, HOST_SQ);
		if (h.fail == NULL && host_import(&h, &m, 9000000) != 0)
			die("an exported image can't be imported");
		host_image_free(&m);
		if (h.fail == NULL) {
			after(&h, HV_TCP_OUT, 9000000);
			host_release(&h, 0);
		}
	}
	host_complete(&h, HOST_SQ);
	if (h.fail == NULL)
		host_conserved(&h);
	if (h.fail != NULL)
		die(h.fail);
	host_destroy(&h);
	return 0;
}
