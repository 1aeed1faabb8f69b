/*
 * stack_rig.c - see stack_rig.h.
 */
#include "stack_rig.h"

#include <stdlib.h>

static uint32_t r16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t r32(const uint8_t *p)
{
	return r16(p) << 16 | r16(p + 2);
}

uint8_t rig_octet(bool ours, uint32_t rel)
{
	uint32_t x = rel * 0x9e3779b1u + (ours ? 77u : 3u);

	return (uint8_t)(x >> 24 ^ x >> 9);
}

static void check(struct rig *r)
{
	host_check(&r->h);
	if (r->h.fail != NULL)
		fail_msg("%s", r->h.fail);
}

void rig_init(struct rig *r)
{
	struct host_conf c = { .n_rx = 256, .ring = 128, .rx_cap = 2048, .n_tx = 64, .tx_cap = 4096, .mac = { 2, 0, 0, 0, 0, 1 },
	    .peer_mac = { 2, 0, 0, 0, 0, 2 } };
	struct hv_tcp_image *m = &r->img;

	memset(r, 0, sizeof *r);
	host_init(&r->h, &c);
	r->now = 10000000;
	r->iss = 0xfffffe00u; /* both streams wrap soon */
	r->irs = 0xfffff800u;
	m->tuple = (struct hv_tuple){ .family = 4, .proto = 6, .lport = 0x5000, .rport = 0x901f, .laddr = { 10, 0, 0, 1 }, .raddr = { 10, 0,
	    0, 2 } };
	m->ttl = 64;
	m->snd_una = m->snd_nxt = m->snd_end = r->iss;
	m->rcv_nxt = m->rcv_wup = m->snd_wl1 = r->irs;
	m->snd_wnd = m->max_window = 64000;
	m->rcv_wnd = 32000;
	m->rcvbuf = m->sndbuf = 131072;
	m->mss_clamp = m->snd_mss = RIG_MSS;
	m->pmtu = RIG_MSS + 40;
	m->srtt_us = m->min_rtt_us = 10000;
	m->rttvar_us = 2500;
	m->rto_us = 210000;
	m->snd_cwnd = 10;
	m->snd_ssthresh = 0x7fffffff;
	m->nodelay = true;
	m->notsent_lowat = 0xffffffffu;
}

void rig_stamps(struct rig *r)
{
	r->img.opts |= HV_TCPO_TS;
	r->img.mss_clamp = RIG_MSS + 12;
	r->img.pmtu = RIG_MSS + 52;
	r->peer_ts = 1000;
}

void rig_start(struct rig *r)
{
	struct hv_tcp_image *m = &r->img;
	uint8_t *snd = malloc(m->snd_len + 1u), *rcv = malloc(m->rcv_len + 1u);

	assert_non_null(snd);
	assert_non_null(rcv);
	for (uint32_t i = 0; i < m->snd_len; i++)
		snd[i] = rig_octet(true, m->snd_una + i - r->iss);
	for (uint32_t i = 0; i < m->rcv_len; i++)
		rcv[i] = rig_octet(false, m->rcv_nxt - m->rcv_len + i - r->irs);
	m->snd = snd;
	m->rcv = rcv;
	assert_int_equal(host_import(&r->h, m, r->now), 0);
	free(snd);
	free(rcv);
	m->snd = m->rcv = NULL;
	check(r);
	rig_pump(r);
}

void rig_end(struct rig *r)
{
	host_release(&r->h, 0);
	host_complete(&r->h, HOST_SQ);
	host_conserved(&r->h);
	if (r->h.fail != NULL)
		fail_msg("%s", r->h.fail);
	host_destroy(&r->h);
}

static void wire(void *arg, const uint8_t *frame, uint32_t len)
{
	struct rig *r = arg;
	uint32_t l3 = frame[12] == 0x81 ? 18 : 14, l4 = l3 + (frame[l3] >> 4 == 6 ? 40 : 20), doff = (uint32_t)(frame[l4 + 12] >> 4) * 4;
	const uint8_t *t = frame + l4, *o = t + 20;
	struct rig_seg *s = &r->out[r->n_out];

	assert_in_range(r->n_out, 0, RIG_OUT_MAX - 1);
	r->n_out++;
	memset(s, 0, sizeof *s);
	s->seq = r32(t + 4) - r->iss;
	s->ack = r32(t + 8) - r->irs;
	s->flags = t[13];
	s->tos = frame[l3] >> 4 == 6 ? (uint8_t)(frame[l3] << 4 | frame[l3 + 1] >> 4) : frame[l3 + 1];
	s->wnd = r16(t + 14) << r->img.rcv_wscale;
	s->len = len - l4 - doff;
	assert_in_range(s->len, 0, sizeof s->data);
	memcpy(s->data, t + doff, s->len);
	while (o < t + doff) {
		if (*o == 1) {
			o++;
			continue;
		}
		assert_in_range(o[1], 2, (uintmax_t)(t + doff - o));
		if (*o == 8) {
			s->has_ts = true;
			s->tsval = r32(o + 2);
			s->tsecr = r32(o + 6);
		} else {
			assert_int_equal(*o, 5);
			s->nsack = (o[1] - 2u) / 8;
			for (uint32_t i = 0; i < s->nsack; i++) {
				s->sack[i][0] = r32(o + 2 + 8 * i) - r->irs;
				s->sack[i][1] = r32(o + 6 + 8 * i) - r->irs;
			}
		}
		o += o[1];
	}
	for (uint32_t i = 0; i < s->len; i++)
		if (s->data[i] != rig_octet(true, s->seq + i))
			fail_msg("octet %u of the segment at %u is wrong", i, s->seq);
}

void rig_pump(struct rig *r)
{
	struct hv_tx tx;

	for (int n = 0; n < 1000; n++) {
		if (!host_sq_room(&r->h))
			host_complete(&r->h, HOST_SQ);
		if (!hv_tcp_output(r->h.tcb, &r->h.env, &tx, r->now)) {
			check(r);
			return;
		}
		host_post(&r->h, &tx, wire, r);
		check(r);
	}
	fail_msg("output never ends");
}

static void after(struct rig *r, unsigned acts)
{
	r->acts = acts;
	check(r);
	if ((acts & HV_TCP_OUT) != 0 && !r->hold)
		rig_pump(r);
	host_complete(&r->h, HOST_SQ);
	host_refill(&r->h);
}

unsigned rig_put(struct rig *r, const struct rig_in *s)
{
	struct hv_tuple from = r->img.tuple;
	uint8_t data[2048], frame[4096];
	struct hv_frame f;
	struct hv_seg seg;
	struct hv_buf *b;
	unsigned acts;

	from.lport = r->img.tuple.rport;
	from.rport = r->img.tuple.lport;
	memcpy(from.laddr, r->img.tuple.raddr, 16);
	memcpy(from.raddr, r->img.tuple.laddr, 16);
	for (uint32_t i = 0; i < s->len; i++)
		data[i] = rig_octet(false, s->seq + i);
	struct seg_spec g = { .from = &from, .src_mac = r->h.conf.peer_mac, .dst_mac = r->h.conf.mac, .seq = r->irs + s->seq,
	    .ack = r->iss + s->ack,
		.wnd = s->zero_wnd ? 0 : (s->wnd != 0 ? s->wnd : 64000) >> r->img.snd_wscale,
		    .flags = (uint8_t)(s->flags | (s->no_ack ? 0 : SEG_ACK)),
		.tos = s->tos, .urg = s->urg, .has_ts = (r->img.opts & HV_TCPO_TS) != 0 && !s->no_ts,
		    .tsval = s->tsval != 0 ? s->tsval : r->peer_ts,
		.tsecr = s->tsecr, .nsack = (uint8_t)s->nsack, .data = data, .len = s->len };
	for (uint32_t i = 0; i < s->nsack; i++) {
		g.sack[i][0] = r->iss + s->sack[i][0];
		g.sack[i][1] = r->iss + s->sack[i][1];
	}
	b = host_rx(&r->h, frame, seg_build(frame, &g));
	assert_non_null(b);
	assert_true(hv_frame_parse(b->base, b->len, &f));
	assert_true(hv_frame_csum_ok(&f));
	assert_true(hv_tcp_parse(f.l4, f.l4_len, &seg));
	seg.buf = b;
	seg.ce = (f.tos & 3) == 3;
	acts = hv_tcp_input(r->h.tcb, &r->h.env, &seg, r->now);
	if ((acts & HV_TCP_KEPT) == 0)
		host_put(&r->h, b);
	after(r, acts);
	return acts;
}

struct rig_seg *rig_take(struct rig *r)
{
	if (r->at_out == r->n_out)
		fail_msg("nothing came out");
	struct rig_seg *s = &r->out[r->at_out++];
	if (r->at_out == r->n_out)
		r->at_out = r->n_out = 0;
	return s;
}

void rig_drop_out(struct rig *r)
{
	r->at_out = r->n_out = 0;
}

void rig_none(struct rig *r)
{
	if (r->at_out != r->n_out) {
		struct rig_seg *s = &r->out[r->at_out];
		fail_msg("unexpected segment: seq %u len %u ack %u flags %#x", s->seq, s->len, s->ack, s->flags);
	}
}

void rig_data(struct rig *r, uint32_t seq, uint32_t len)
{
	struct rig_seg *s = rig_take(r);

	if (s->seq != seq || s->len != len)
		fail_msg("data %u:%u came out, not %u:%u", s->seq, s->seq + s->len, seq, seq + len);
}

struct rig_seg *rig_ack(struct rig *r, uint32_t ack)
{
	struct rig_seg *s = rig_take(r);

	if (s->len != 0 || s->ack != ack || (s->flags & ~(SEG_PSH | SEG_ECE)) != SEG_ACK)
		fail_msg("seq %u len %u ack %u flags %#x came out, not an ACK of %u", s->seq, s->len, s->ack, s->flags, ack);
	return s;
}

static uint32_t do_write(struct rig *r, uint32_t len, bool more)
{
	uint32_t from = r->img.snd_end - r->iss, took;
	unsigned acts = 0;
	uint8_t *data = malloc(len + 1u);

	assert_non_null(data);
	for (uint32_t i = 0; i < len; i++)
		data[i] = rig_octet(true, from + i);
	took = hv_tcp_write(r->h.tcb, &r->h.env, data, len, more, &acts, r->now);
	free(data);
	r->img.snd_end += took;
	after(r, acts);
	return took;
}

uint32_t rig_write(struct rig *r, uint32_t len)
{
	return do_write(r, len, false);
}

uint32_t rig_write_more(struct rig *r, uint32_t len)
{
	return do_write(r, len, true);
}

uint32_t rig_read(struct rig *r, uint32_t len)
{
	uint32_t got, from = r->img.rcv_nxt - r->img.rcv_len - r->irs;
	unsigned acts = 0;
	uint8_t *data = malloc(len + 1u);

	assert_non_null(data);
	got = hv_tcp_read(r->h.tcb, &r->h.env, data, len, false, &acts, r->now);
	for (uint32_t i = 0; i < got; i++)
		if (data[i] != rig_octet(false, from + i))
			fail_msg("octet %u read is wrong", from + i);
	free(data);
	r->img.rcv_len -= got; /* the image doubles as the test's own account of the streams: rcv_nxt - rcv_len is what was read */
	after(r, acts);
	return got;
}

void rig_opt(struct rig *r, enum hv_tcp_opt o, uint32_t v)
{
	after(r, hv_tcp_setopt(r->h.tcb, o, v, r->now));
}

void rig_flush(struct rig *r)
{
	after(r, hv_tcp_ack_flush(r->h.tcb, r->now));
}

void rig_wait(struct rig *r, uint64_t us)
{
	uint64_t until = r->now + us, d;

	for (int n = 0; n < 1000 && (d = hv_tcp_deadline(r->h.tcb)) <= until; n++) {
		if (d > r->now)
			r->now = d;
		after(r, hv_tcp_timeout(r->h.tcb, &r->h.env, r->now));
	}
	r->now = until;
}

uint64_t rig_next(struct rig *r)
{
	uint64_t d = hv_tcp_deadline(r->h.tcb), was = r->now;

	if (d == UINT64_MAX || d > r->now + 3600000000u)
		fail_msg("no deadline armed");
	if (d > r->now)
		r->now = d;
	after(r, hv_tcp_timeout(r->h.tcb, &r->h.env, r->now));
	return r->now - was;
}

struct hv_tcp_stat rig_stat(const struct rig *r)
{
	struct hv_tcp_stat st;

	hv_tcp_stat(r->h.tcb, &st);
	return st;
}
