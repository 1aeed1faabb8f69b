/*
 * fuzz_tcp.c - sequences of segments, system calls and time against one TCB.
 *
 * The input is a list of small records; sequence and ACK numbers are relative to what the TCB is at, so that most segments are in or
 * near the window. After every step: hv_tcb_check(), and the octets that come out are those of the two streams. Shortcuts do what the
 * full path does (twin.h). At the end every buffer and chunk is back.
 */
#include "../sim/host.h"
#include "../sim/seg.h"
#include "../sim/twin.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct in { const uint8_t *p, *end; };

static uint32_t take(struct in *in, unsigned n)
{
	uint32_t v = 0;

	while (n-- != 0)
		v = v << 8 | (in->p < in->end ? *in->p++ : 0u);
	return v;
}

struct fuzz {
	struct host h;
	uint64_t now;
	uint32_t iss, irs, written, read;
	struct hv_tuple peer;
	bool ts, dead;
};

static uint8_t ours(uint32_t off)
{
	return (uint8_t)(off * 167 + (off >> 8));
}

static uint8_t theirs(uint32_t off)
{
	return (uint8_t)(off * 59 + (off >> 8) + 1);
}

static void die(const struct fuzz *f, const char *what)
{
	fprintf(stderr, "fuzz_tcp: %s\n", what != NULL ? what : f->h.fail);
	abort();
}

static void wire(void *arg, const uint8_t *frame, uint32_t len)
{
	struct fuzz *f = arg;
	uint32_t l4 = 34, doff = (uint32_t)(frame[l4 + 12] >> 4) * 4;
	uint32_t seq = (uint32_t)frame[l4 + 4] << 24 | (uint32_t)frame[l4 + 5] << 16 | (uint32_t)frame[l4 + 6] << 8 | frame[l4 + 7];

	if ((frame[l4 + 13] & (SEG_SYN | SEG_FIN | SEG_RST | SEG_URG)) != 0)
		die(f, "forbidden flag sent");
	for (uint32_t i = l4 + doff, off = seq - f->iss; i < len; i++, off++)
		if (off >= f->written || frame[i] != ours(off))
			die(f, "wrong octet sent");
}

static void after(struct fuzz *f, unsigned acts)
{
	struct hv_tx tx;

	host_check(&f->h);
	f->dead |= (acts & HV_TCP_TIMEDOUT) != 0;
	for (uint32_t n = 0; (acts & HV_TCP_OUT) != 0 && f->h.fail == NULL; n++) {
		if (!host_sq_room(&f->h))
			host_complete(&f->h, HOST_SQ);
		if (!hv_tcp_output(f->h.tcb, &f->h.env, &tx, f->now))
			break;
		host_post(&f->h, &tx, wire, f);
		host_check(&f->h);
		if (n > 5000)
			die(f, "output never ends");
	}
	host_refill(&f->h);
	if (f->h.fail != NULL)
		die(f, NULL);
	if (!f->dead && hv_tcp_outq(f->h.tcb) != 0 && hv_tcp_deadline(f->h.tcb) == UINT64_MAX)
		die(f, "octets wait but no deadline is armed");
}

static int32_t near(struct in *in)
{
	uint32_t v = take(in, 1);

	if (v < 128)
		return 0;
	if (v < 224)
		return (int16_t)take(in, 2);
	return (int32_t)take(in, 4);
}

static void segment(struct fuzz *f, struct in *in)
{
	struct hv_tcp_image m;
	uint8_t data[1536], frame[2048];
	struct hv_frame fr;
	struct hv_seg s;
	struct hv_buf *b;
	const char *differ;
	uint32_t what = take(in, 1), len = take(in, 1) * 6;

	memset(&m, 0, sizeof m);
	hv_tcp_export(f->h.tcb, &m, f->now); /* where it is at */
	struct seg_spec g = { .from = &f->peer, .seq = m.rcv_nxt + (uint32_t)near(in), .wnd = take(in, 2), .len = len, .data = data,
		.flags = (uint8_t)((what & 0x80) != 0 ? take(in, 1) : SEG_ACK), .tos = (what & 0x40) != 0 ? 3 : 0 };
	g.ack = ((what & 1) != 0 ? m.snd_nxt : m.snd_una) + (uint32_t)near(in);
	if (f->ts) {
		g.has_ts = (what & 2) == 0;
		g.tsval = m.ts_recent + (what & 4 ? (uint32_t)near(in) : 0u);
		g.tsecr = (uint32_t)(f->now / 1000) - take(in, 1);
	}
	g.nsack = (what >> 3) & 3;
	for (uint32_t i = 0; i < g.nsack; i++) {
		g.sack[i][0] = m.snd_una + take(in, 2);
		g.sack[i][1] = g.sack[i][0] + (uint32_t)near(in) + take(in, 2);
	}
	for (uint32_t i = 0; i < len; i++)
		data[i] = theirs(g.seq + i - f->irs);
	b = host_rx(&f->h, frame, seg_build(frame, &g));
	if (b == NULL)
		return; /* ring empty: the NIC drops it */
	if (!hv_frame_parse(b->base, b->len, &fr) || !hv_frame_csum_ok(&fr) || !hv_tcp_parse(fr.l4, fr.l4_len, &s))
		die(f, "sound segment refused");
	s.buf = b;
	s.ce = (fr.tos & 3) == 3;
	if ((differ = twin_input(&f->h, &s, f->now)) != NULL)
		die(f, differ);
	unsigned acts = hv_tcp_input(f->h.tcb, &f->h.env, &s, f->now);
	if ((acts & HV_TCP_KEPT) == 0)
		host_put(&f->h, b);
	else if ((acts & HV_TCP_DEMOTE) != 0)
		die(f, "segment kept that is for the kernel");
	after(f, acts);
}

static void sys_write(struct fuzz *f, struct in *in)
{
	static uint8_t d[65536];
	uint32_t len = take(in, 2), took;
	unsigned acts = 0;

	for (uint32_t i = 0; i < len; i++)
		d[i] = ours(f->written + i);
	took = hv_tcp_write(f->h.tcb, &f->h.env, d, len, (len & 1) != 0, &acts, f->now);
	if (took > len)
		die(f, "write took too much");
	f->written += took;
	after(f, acts);
}

static void sys_send_fast(struct fuzz *f, struct in *in)
{
	uint8_t d[2048];
	uint32_t len = take(in, 2) % sizeof d;
	struct hv_tx tx;
	const char *differ;

	if (!host_sq_room(&f->h))
		host_complete(&f->h, HOST_SQ);
	for (uint32_t i = 0; i < len; i++)
		d[i] = ours(f->written + i);
	if ((differ = twin_send(&f->h, d, len, f->now)) != NULL)
		die(f, differ);
	if (hv_tcp_send_fast(f->h.tcb, &f->h.env, d, len, &tx, f->now) == len && len != 0) {
		f->written += len;
		host_post(&f->h, &tx, wire, f);
		hv_tcp_send_commit(f->h.tcb, &f->h.env, d, len, f->now);
	}
	after(f, HV_TCP_OUT);
}

static void sys_read(struct fuzz *f, struct in *in)
{
	static uint8_t d[65536];
	unsigned acts = 0;
	uint32_t got = hv_tcp_read(f->h.tcb, &f->h.env, d, take(in, 2), false, &acts, f->now);

	for (uint32_t i = 0; i < got; i++)
		if (d[i] != theirs(f->read + i))
			die(f, "wrong octet read");
	f->read += got;
	after(f, acts);
}

static void clock_on(struct fuzz *f, struct in *in)
{
	uint64_t d = hv_tcp_deadline(f->h.tcb), step = (uint64_t)take(in, 2) << take(in, 1) % 20;

	f->now += step;
	if (d != UINT64_MAX && (step & 1) != 0 && d > f->now)
		f->now = d;
	after(f, hv_tcp_timeout(f->h.tcb, &f->h.env, f->now));
}

/* Out and in again, as a demotion and a promotion would. */
static void move(struct fuzz *f, struct in *in)
{
	struct hv_tcp_image m;

	host_export(&f->h, &m, f->now);
	for (uint32_t i = 0; i < m.snd_len; i++)
		if (m.snd[i] != ours(m.snd_una - f->iss + i))
			die(f, "export: wrong octet to send");
	for (uint32_t i = 0; i < m.rcv_len; i++)
		if (m.rcv[i] != theirs(f->read + i))
			die(f, "export: wrong unread octet");
	host_release(&f->h, 0);
	host_complete(&f->h, HOST_SQ);
	if ((take(in, 1) & 1) != 0)
		m.snd_nxt = m.snd_end;
	int rc = host_import(&f->h, &m, f->now);
	host_image_free(&m);
	if (rc != 0)
		die(f, "an exported image can't be imported");
	f->dead = false;
	after(f, HV_TCP_OUT);
}

static void start(struct fuzz *f, struct in *in)
{
	struct host_conf c = { .n_rx = 48, .ring = 32, .rx_cap = 2048, .n_tx = 48, .tx_cap = 2048, .mac = { 2, 1 }, .peer_mac = { 2, 2 } };
	uint32_t o = take(in, 1);
	struct hv_tcp_image m = { .tuple = { .family = 4, .proto = 6, .lport = 1, .rport = 2, .laddr = { 10, 0, 0, 1 }, .raddr = { 10, 0, 0,
	    2 } },
		.ttl = 64, .opts = (uint8_t)(o & 15), .snd_wscale = (o & 4) != 0 ? 5 : 0, .rcv_wscale = (o & 4) != 0 ? 6 : 0,
		    .snd_wnd = 30000,
		.max_window = 30000, .rcv_wnd = 30000, .mss_clamp = 1000, .pmtu = 1040, .snd_cwnd = 10, .snd_ssthresh = 0x7fffffff,
		    .rto_us = 200000,
		.rcvbuf = 4096u << (o >> 6), .sndbuf = 65536, .nodelay = (o & 16) != 0, .keepalive = (o & 32) != 0, .keepidle_s = 5,
		    .keepintvl_s = 1,
		.keepcnt = 3, .notsent_lowat = 0xffffffffu };

	memset(f, 0, sizeof *f);
	c.tso_max = (take(in, 1) & 1) != 0 ? 16000 : 0;
	host_init(&f->h, &c);
	f->now = 5000000;
	f->ts = (m.opts & HV_TCPO_TS) != 0;
	f->iss = 0xffffff00u;
	f->irs = 0xfffff000u;
	m.snd_una = m.snd_nxt = m.snd_end = f->iss;
	m.rcv_nxt = m.rcv_wup = m.snd_wl1 = f->irs;
	m.snd_mss = f->ts ? 988 : 1000;
	f->peer = m.tuple;
	f->peer.lport = m.tuple.rport;
	f->peer.rport = m.tuple.lport;
	memcpy(f->peer.laddr, m.tuple.raddr, 16);
	memcpy(f->peer.raddr, m.tuple.laddr, 16);
	if (host_import(&f->h, &m, f->now) != 0)
		die(f, "import");
	after(f, HV_TCP_OUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct in in = { data, data + size };
	static struct fuzz f;

	if (size > 2048)
		return 0;
	start(&f, &in);
	while (in.p < in.end) {
		switch (take(&in, 1) % 16) {
		case 0: sys_write(&f, &in); break;
		case 1: sys_read(&f, &in); break;
		case 2: clock_on(&f, &in); break;
		case 3: sys_send_fast(&f, &in); break;
		case 4: host_complete(&f.h, take(&in, 1)); break;
		case 5: after(&f, hv_tcp_ack_flush(f.h.tcb, f.now)); break;
		case 6: move(&f, &in); break;
		case 7: {
			uint32_t o = take(&in, 1);
			after(&f, hv_tcp_setopt(f.h.tcb, (enum hv_tcp_opt)(o % (HV_TCP_CONGESTION + 1)), take(&in, 3), f.now));
			break;
		}
		default: segment(&f, &in); break;
		}
	}
	host_release(&f.h, 0);
	host_complete(&f.h, HOST_SQ);
	if (!host_conserved(&f.h))
		die(&f, NULL);
	host_destroy(&f.h);
	return 0;
}
