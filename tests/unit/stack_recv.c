/*
 * stack_recv.c - receiving: order, ACKs, SACK, windows, PAWS, and the segments that must not be believed (RFC 5961) or not be
 * consumed (FIN, URG, RST).
 */
#include "stack_rig.h"

static struct rig r;

static int setup(void **state)
{
	(void)state;
	rig_init(&r);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&r);
	return 0;
}

static uint32_t readable(void)
{
	return hv_tcp_readable(r.h.tcb);
}

static void start_opts(uint8_t opts)
{
	r.img.opts = opts;
	if ((opts & HV_TCPO_TS) != 0) {
		r.img.snd_mss = RIG_MSS - 12;
		r.img.ts_off = 500000;
		r.img.ts_recent = 7000;
		r.img.ts_recent_valid = true;
		r.peer_ts = 7000;
	}
	rig_start(&r);
}

static void in_order(void **state)
{
	unsigned a;

	(void)state;
	start_opts(0);
	a = in(&r, .seq = 0, .len = 100);
	assert_true(a & HV_TCP_READABLE);
	assert_false(a & (HV_TCP_DROP | HV_TCP_DEMOTE));
	assert_int_equal(readable(), 100);
	assert_int_equal(rig_read(&r, 60), 60);
	assert_int_equal(rig_read(&r, 60), 40);
	assert_int_equal(rig_read(&r, 60), 0);
	in(&r, .seq = 100, .len = 1000);
	in(&r, .seq = 1100, .len = 1000);
	assert_int_equal(rig_read(&r, 4096), 2000); /* across buffers, and across the wrap of the sequence space at 2,048 */
	in(&r, .seq = 2100, .len = 1000);
	assert_int_equal(rig_read(&r, 4096), 1000);
}

/* RFC 1122 4.2.3.2: within 500 ms, and at least for every second full-sized segment. */
static void ack_delayed(void **state)
{
	(void)state;
	start_opts(0);
	rig_opt(&r, HV_TCP_QUICKACK, 0);
	in(&r, .seq = 0, .len = 10);
	rig_flush(&r);
	rig_wait(&r, 500000);
	rig_ack(&r, 10);
	rig_none(&r);
	assert_true(hv_tcp_deadline(r.h.tcb) == UINT64_MAX);
	for (uint32_t i = 0; i < 40; i += 2) { /* far beyond any quick-ACK phase */
		rig_drop_out(&r);
		in(&r, .seq = 10 + 1000 * i, .len = 1000);
		in(&r, .seq = 1010 + 1000 * i, .len = 1000);
		rig_flush(&r);
		assert_true(r.n_out != 0);
		assert_int_equal(r.out[r.n_out - 1].ack, 2010 + 1000 * i);
		rig_read(&r, 4096);
	}
}

/* Not interactive, and PSH: the ACK goes when nothing is left to read, not before and not much later. */
static void ack_when_drained(void **state)
{
	(void)state;
	start_opts(0);
	rig_opt(&r, HV_TCP_QUICKACK, 1);
	in(&r, .seq = 0, .len = 100);
	rig_read(&r, 100);
	rig_ack(&r, 100); /* with the whole window: no updates from now on */
	for (uint32_t i = 1; i < 40; i++) { /* far beyond any quick-ACK phase */
		in(&r, .seq = 100 * i, .len = 100, .flags = SEG_PSH);
		rig_none(&r);
		assert_int_equal(hv_tcp_read(r.h.tcb, &r.h.env, (uint8_t[100]){ 0 }, 100, true, &(unsigned){ 0 }, r.now), 100);
		rig_none(&r); /* a look is no reading */
		assert_int_equal(rig_read(&r, 60), 60);
		rig_none(&r);
		assert_int_equal(rig_read(&r, 4096), 40);
		rig_ack(&r, 100 * (i + 1));
		rig_none(&r);
	}
	in(&r, .seq = 4000, .len = 100, .flags = SEG_PSH); /* nobody reads */
	rig_wait(&r, 1100);
	rig_ack(&r, 4100);
	assert_int_equal(rig_read(&r, 4096), 100);
	in(&r, .seq = 4100, .len = 100); /* no PSH: more is coming */
	assert_int_equal(rig_read(&r, 4096), 100);
	rig_wait(&r, 30000);
	rig_none(&r);
	rig_wait(&r, 11000);
	rig_ack(&r, 4200);
}

static void ack_rides_on_data(void **state)
{
	(void)state;
	start_opts(0);
	rig_opt(&r, HV_TCP_QUICKACK, 0);
	for (uint32_t i = 0; i < 30; i++) { /* request, response: after a while no ACK goes alone */
		in(&r, .seq = 10 * i, .ack = 20 * i, .len = 10);
		rig_read(&r, 100);
		rig_write(&r, 20);
		rig_flush(&r);
		while (r.n_out - r.at_out > 1)
			rig_take(&r);
		struct rig_seg *s = rig_take(&r);
		assert_int_equal(s->len, 20);
		assert_int_equal(s->ack, 10 * (i + 1));
		rig_wait(&r, 1000);
	}
	rig_wait(&r, 500000);
	rig_drop_out(&r);
	assert_true(r.h.cnt.segs_out <= 30 + 20 + 5);
}

static void out_of_order_sack(void **state)
{
	struct rig_seg *s;

	(void)state;
	start_opts(HV_TCPO_SACK);
	assert_false(in(&r, .seq = 1000, .len = 1000) & HV_TCP_READABLE);
	s = rig_ack(&r, 0); /* at once, RFC 5681 4.2 */
	assert_int_equal(s->nsack, 1);
	assert_int_equal(s->sack[0][0], 1000);
	assert_int_equal(s->sack[0][1], 2000);
	in(&r, .seq = 3000, .len = 1000);
	s = rig_ack(&r, 0);
	assert_int_equal(s->nsack, 2);
	assert_int_equal(s->sack[0][0], 3000); /* the newest first, RFC 2018 4 */
	assert_int_equal(s->sack[1][0], 1000);
	in(&r, .seq = 2000, .len = 1000);
	s = rig_ack(&r, 0);
	assert_int_equal(s->nsack, 1);
	assert_int_equal(s->sack[0][0], 1000);
	assert_int_equal(s->sack[0][1], 4000);
	assert_true(in(&r, .seq = 0, .len = 1000) & HV_TCP_READABLE);
	s = rig_ack(&r, 4000);
	assert_int_equal(s->nsack, 0);
	assert_int_equal(rig_read(&r, 8192), 4000);
}

static void many_holes(void **state)
{
	struct rig_seg *s;

	(void)state;
	start_opts(HV_TCPO_SACK | HV_TCPO_TS);
	for (uint32_t i = 1; i < 30; i += 2) {
		rig_drop_out(&r);
		in(&r, .seq = i * 100, .len = 100);
	}
	s = rig_ack(&r, 0);
	assert_in_range(s->nsack, 3, 3); /* with timestamps there is room for three */
	assert_int_equal(s->sack[0][0], 2900);
	for (uint32_t i = 0; i < 30; i += 2)
		in(&r, .seq = i * 100, .len = 100);
	rig_flush(&r);
	assert_int_equal(rig_read(&r, 8192), 3000);
	assert_int_equal(r.out[r.n_out - 1].ack, 3000);
	assert_int_equal(r.out[r.n_out - 1].nsack, 0);
	rig_drop_out(&r);
}

static void no_sack_when_not_negotiated(void **state)
{
	(void)state;
	start_opts(0);
	in(&r, .seq = 1000, .len = 100);
	assert_int_equal(rig_ack(&r, 0)->nsack, 0);
}

static void duplicate_dsack(void **state)
{
	struct rig_seg *s;

	(void)state;
	start_opts(HV_TCPO_SACK);
	in(&r, .seq = 0, .len = 1000);
	in(&r, .seq = 1000, .len = 1000);
	rig_flush(&r);
	rig_drop_out(&r);
	assert_false(in(&r, .seq = 0, .len = 1000) & HV_TCP_READABLE);
	rig_flush(&r);
	s = rig_ack(&r, 2000);
	assert_int_equal(s->nsack, 1); /* RFC 2883 4.1 */
	assert_int_equal(s->sack[0][0], 0);
	assert_int_equal(s->sack[0][1], 1000);
	assert_int_equal(rig_read(&r, 8192), 2000);
}

/* All ways in which a segment can overlap what is there, by random cuts. */
static void overlaps(void **state)
{
	uint32_t x = 12345, top = 0;

	(void)state;
	start_opts(HV_TCPO_SACK);
	while (readable() < 9000) {
		x = x * 1103515245u + 12345u;
		uint32_t from = (x >> 8) % 9000, len = 1 + (x >> 20) % 900;
		if (from + len > 9000)
			len = 9000 - from;
		in(&r, .seq = from, .len = len);
		rig_drop_out(&r);
		assert_true(readable() >= top);
		top = readable();
	}
	assert_int_equal(rig_read(&r, 10000), 9000);
}

static void window_edge(void **state)
{
	(void)state;
	start_opts(0);
	/* Advertised were 32,000 octets. */
	assert_false(in(&r, .seq = 32000, .len = 100) & HV_TCP_READABLE);
	rig_ack(&r, 0); /* unacceptable: an ACK and nothing else */
	assert_false(in(&r, .seq = 0xffffff00u, .len = 100) & HV_TCP_READABLE);
	rig_wait(&r, 1000000);
	rig_drop_out(&r);
	assert_true(in(&r, .seq = 0xffffff9cu, .len = 200) & HV_TCP_READABLE); /* old head, new tail */
	assert_int_equal(rig_read(&r, 1000), 100);
}

/* Nobody reads: the window closes without the edge ever moving back, and opens again by at least a segment. */
static void window_closes_and_opens(void **state)
{
	uint32_t edge = 32000, seq = 0, last_wnd = 32000;

	(void)state;
	r.img.rcvbuf = 40000;
	start_opts(0);
	for (int n = 0; n < 200 && last_wnd >= 1000; n++) {
		in(&r, .seq = seq, .len = 1000);
		rig_flush(&r);
		rig_wait(&r, 500000);
		seq = readable();
		while (r.at_out != r.n_out) {
			struct rig_seg *s = rig_take(&r);
			assert_true((int32_t)(s->ack + s->wnd - edge) >= 0);
			edge = s->ack + s->wnd;
			last_wnd = s->wnd;
		}
	}
	assert_true(last_wnd < 1000);
	in(&r, .seq = edge, .len = 1); /* a probe is answered */
	assert_true(r.n_out != 0);
	rig_drop_out(&r);
	uint32_t had = readable();
	assert_int_equal(rig_read(&r, 10), 10);
	rig_flush(&r);
	rig_none(&r); /* ten octets are no reason to speak (silly window) */
	assert_int_equal(rig_read(&r, had), had - 10);
	rig_flush(&r);
	struct rig_seg *s = rig_take(&r);
	assert_true(s->ack + s->wnd - edge >= 1000);
	rig_drop_out(&r);
}

/* The smallest possible segments cannot occupy every buffer of the ring. */
static void tiny_segments_do_not_starve_the_ring(void **state)
{
	(void)state;
	r.img.rcvbuf = 1u << 22;
	r.img.rcv_wnd = 60000;
	start_opts(HV_TCPO_SACK);
	for (uint32_t i = 0; i < 20000 && i < 50000; i++) {
		if (r.h.n_ring == 0)
			fail_msg("ring empty after %u segments", i);
		in(&r, .seq = i, .len = 1);
		rig_drop_out(&r);
	}
	rig_read(&r, 100000);
}

static void holes_do_not_starve_the_ring(void **state)
{
	(void)state;
	r.img.rcvbuf = 1u << 22;
	r.img.rcv_wnd = 60000;
	start_opts(HV_TCPO_SACK);
	for (uint32_t i = 1; i < 50000; i += 2) {
		if (r.h.n_ring == 0)
			fail_msg("ring empty after %u segments", i / 2);
		in(&r, .seq = i, .len = 1);
		rig_drop_out(&r);
	}
	assert_true(in(&r, .seq = 0, .len = 1) & HV_TCP_READABLE); /* the way out still works */
	rig_drop_out(&r);
}

static void paws(void **state)
{
	(void)state;
	start_opts(HV_TCPO_TS);
	assert_true(in(&r, .seq = 0, .len = 100, .tsval = 8000) & HV_TCP_READABLE);
	rig_wait(&r, 500000);
	rig_drop_out(&r);
	uint64_t was = r.h.cnt.paws_drops;
	assert_true(in(&r, .seq = 100, .len = 100, .tsval = 7999) & HV_TCP_DROP);
	assert_int_equal(r.h.cnt.paws_drops, was + 1);
	rig_flush(&r);
	rig_ack(&r, 100); /* RFC 7323 5.3 R1 */
	assert_int_equal(readable(), 100);
	assert_true(in(&r, .seq = 100, .len = 100, .tsval = 8000) & HV_TCP_READABLE);
	/* A segment ahead of Last.ACK.sent with a wild TSval must not shut the legitimate ones out. */
	in(&r, .seq = 5000, .len = 10, .tsval = 8000 + 0x70000000u);
	assert_true(in(&r, .seq = 200, .len = 100, .tsval = 8001) & HV_TCP_READABLE);
	rig_wait(&r, 500000);
	rig_drop_out(&r);
}

static void ts_unknown_after_import(void **state)
{
	struct rig_seg *s;

	(void)state;
	r.img.opts = HV_TCPO_TS;
	r.img.snd_mss = RIG_MSS - 12;
	r.img.ts_off = 4000000000u;
	rig_start(&r);
	rig_write(&r, 10);
	s = rig_take(&r);
	assert_true(s->has_ts);
	assert_int_equal(s->tsecr, 0);
	assert_int_equal(s->tsval, (uint32_t)(r.now / 1000) + 4000000000u);
	rig_drop_out(&r);
	assert_true(in(&r, .seq = 0, .ack = 10, .len = 100, .tsval = 0x90000000u) & HV_TCP_READABLE);
	rig_wait(&r, 500000);
	s = rig_ack(&r, 100);
	assert_int_equal(s->tsecr, 0x90000000u);
	rig_drop_out(&r);
	r.now += 3600000000u;
	rig_write(&r, 10);
	assert_int_equal(rig_take(&r)->tsval, (uint32_t)(r.now / 1000) + 4000000000u);
	rig_drop_out(&r);
}

static void must_not_change(unsigned acts, uint32_t was)
{
	assert_false(acts & (HV_TCP_READABLE | HV_TCP_KEPT));
	assert_int_equal(readable(), was);
}

/* The peer has filled our window, but a hole keeps it where it is: its bare ACKs carry SEG.SEQ = the right edge and still count. */
static void ack_at_the_right_edge(void **state)
{
	(void)state;
	r.img.rcv_wnd = 2000;
	r.img.rcvbuf = 4608;
	start_opts(HV_TCPO_SACK);
	rig_write(&r, 500);
	rig_drop_out(&r);
	in(&r, .seq = 1000, .len = 1000);
	struct rig_seg *last = rig_ack(&r, 0);
	uint32_t edge = last->ack + last->wnd; /* wherever it is by now */
	rig_none(&r);
	in(&r, .seq = edge + 1, .ack = 500);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 500);
	rig_drop_out(&r);
	in(&r, .seq = edge, .ack = 500);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	rig_drop_out(&r);
}

/* Memory is short and the reader asleep: what can't be taken is answered, so that the peer knows that we live. */
static void refused_data_is_answered(void **state)
{
	uint32_t seq = 0;

	(void)state;
	r.img.rcvbuf = 8192;
	r.img.rcv_wnd = 60000;
	start_opts(0);
	for (uint32_t i = 0; i < 60; i++) {
		rig_drop_out(&r);
		in(&r, .seq = seq, .len = 1000);
		rig_flush(&r);
		if (readable() == seq) {
			assert_true(r.n_out != 0);
			rig_drop_out(&r);
			assert_int_equal(rig_read(&r, 100000), seq);
			rig_drop_out(&r);
			assert_true(in(&r, .seq = seq, .len = 1000) & HV_TCP_READABLE);
			rig_drop_out(&r);
			return;
		}
		seq += 1000;
	}
	fail_msg("takes 60,000 octets into 8,192");
}

/* Holes use up what SO_RCVBUF allows: the segment that fills the first one gets in all the same. */
static void hole_is_filled_when_the_buffer_is_full(void **state)
{
	(void)state;
	r.img.rcvbuf = 4608;
	r.img.rcv_wnd = 60000;
	start_opts(HV_TCPO_SACK);
	for (uint32_t i = 1; i < 30; i++)
		in(&r, .seq = 1000 * i * 2, .len = 1000);
	assert_true(in(&r, .seq = 0, .len = 1000) & HV_TCP_READABLE);
	rig_drop_out(&r);
	assert_true(in(&r, .seq = 1000, .len = 1000) & HV_TCP_READABLE);
	rig_drop_out(&r);
}

/* Segments of all sizes over one another while there is no room for most of them: what is refused takes nothing along that has been
 * SACKed (the rig's check compares the blocks with what is held), and the stream comes out whole. */
static void refused_segments_take_nothing_along(void **state)
{
	uint32_t x = 99, base = 0;

	(void)state;
	r.img.rcvbuf = 8192;
	r.img.rcv_wnd = 60000;
	start_opts(HV_TCPO_SACK);
	for (int i = 0; i < 30000; i++) {
		x = x * 1103515245u + 12345u;
		uint32_t at = base + ((x >> 28) == 0 ? 0 : (x >> 8) % 6000),
		    len = (x >> 25 & 3) != 0 ? 1 + (x >> 20 & 63) : 1 + (x >> 12) % 1400;
		in(&r, .seq = at, .len = len);
		rig_drop_out(&r);
		if ((x >> 24) % 64 == 0)
			rig_read(&r, 10000);
		rig_drop_out(&r);
		base = r.img.rcv_nxt - r.img.rcv_len - r.irs + readable();
	}
	assert_true(base > 100000);
}

/* The same in slow motion: an out-of-order octet that was reported stays when a segment around it is refused for want of room. */
static void refused_segment_leaves_what_it_covers(void **state)
{
	uint32_t cursor = 0, seq, len, at = 0;
	const uint8_t *data;

	(void)state;
	r.img.rcvbuf = 8192;
	r.img.rcv_wnd = 60000;
	start_opts(HV_TCPO_SACK);
	in(&r, .seq = 40000, .len = 10);
	for (; at < 7000; at += 1000) /* within the window, so taken; now SO_RCVBUF is used up by more than that buffer */
		in(&r, .seq = at, .len = 1000);
	assert_int_equal(readable(), at);
	rig_drop_out(&r);
	assert_true(in(&r, .seq = 39900, .len = 1000) & HV_TCP_DROP);
	assert_true(hv_tcp_export_ooo(r.h.tcb, &cursor, &seq, &data, &len));
	assert_int_equal(seq, r.irs + 40000);
	assert_int_equal(len, 10);
	struct rig_seg *s = rig_ack(&r, at);
	assert_int_equal(s->nsack >= 1, 1);
	assert_int_equal(s->sack[s->nsack - 1][0], 40000);
	assert_int_equal(s->sack[s->nsack - 1][1], 40010);
	rig_drop_out(&r);
}

static void rst_rfc5961(void **state)
{
	unsigned a;

	(void)state;
	start_opts(0);
	a = in(&r, .seq = 1000, .flags = SEG_RST);
	assert_false(a & HV_TCP_DEMOTE);
	rig_ack(&r, 0); /* challenge ACK */
	rig_none(&r);
	a = in(&r, .seq = 40000, .flags = SEG_RST);
	assert_false(a & HV_TCP_DEMOTE);
	rig_none(&r); /* outside: silently */
	a = in(&r, .seq = 0xffffffffu, .flags = SEG_RST);
	assert_false(a & HV_TCP_DEMOTE);
	rig_none(&r);
	a = in(&r, .seq = 0, .flags = SEG_RST);
	assert_true(a & HV_TCP_DEMOTE);
	must_not_change(a, 0);
	rig_none(&r); /* never answer a reset */
	a = in(&r, .seq = 0, .flags = SEG_RST, .no_ack = true);
	assert_true(a & HV_TCP_DEMOTE);
}

static void syn_rfc5961(void **state)
{
	static const uint32_t seq[] = { 0, 1, 0xffffffffu, 31999, 50000, 0x80000000u };

	(void)state;
	start_opts(0);
	for (uint32_t i = 0; i < 6; i++) {
		unsigned a = in(&r, .seq = seq[i], .flags = SEG_SYN);
		assert_false(a & HV_TCP_DEMOTE);
		must_not_change(a, 0);
		rig_ack(&r, 0);
		rig_none(&r);
		rig_wait(&r, 1000000);
	}
}

static void ack_rfc5961(void **state)
{
	(void)state;
	start_opts(0);
	rig_write(&r, 1000);
	rig_drop_out(&r);
	must_not_change(in(&r, .seq = 0, .ack = 1001, .len = 100), 0); /* acks what was not sent */
	rig_drop_out(&r);
	rig_wait(&r, 1);
	must_not_change(in(&r, .seq = 0, .ack = 0u - 70000u, .len = 100), 0); /* older than any window that we have used */
	assert_int_equal(hv_tcp_outq(r.h.tcb), 1000);
	rig_drop_out(&r);
	assert_true(in(&r, .seq = 0, .ack = 0u - 100u, .len = 100) & HV_TCP_READABLE); /* old, but plausible */
	assert_false(in(&r, .seq = 100, .len = 100, .no_ack = true) & HV_TCP_READABLE);
	assert_int_equal(readable(), 100);
	in(&r, .seq = 100, .ack = 1000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	rig_drop_out(&r);
}

static void challenges_are_limited(void **state)
{
	(void)state;
	start_opts(0);
	for (uint32_t i = 0; i < 200; i++)
		in(&r, .seq = 1000 + i, .flags = SEG_RST);
	assert_in_range(r.n_out, 1, 10);
	rig_drop_out(&r);
	rig_wait(&r, 2000000);
	in(&r, .seq = 1000, .flags = SEG_RST);
	rig_ack(&r, 0);
}

static void fin_is_not_consumed(void **state)
{
	struct hv_tcp_image m;
	unsigned a;

	(void)state;
	start_opts(HV_TCPO_SACK);
	in(&r, .seq = 0, .len = 100);
	a = in(&r, .seq = 100, .flags = SEG_FIN);
	assert_true(a & HV_TCP_DEMOTE);
	must_not_change(a, 100);
	a = in(&r, .seq = 100, .len = 50, .flags = SEG_FIN | SEG_PSH);
	assert_true(a & HV_TCP_DEMOTE);
	must_not_change(a, 100);
	host_export(&r.h, &m, r.now);
	assert_int_equal(m.rcv_nxt, r.irs + 100);
	assert_int_equal(m.rcv_len, 100);
	host_image_free(&m);
	rig_drop_out(&r);
	/* Behind a hole too: the kernel takes it over with the out-of-order octets. */
	a = in(&r, .seq = 200, .len = 50, .flags = SEG_FIN);
	assert_true(a & HV_TCP_DEMOTE);
	must_not_change(a, 100);
	rig_drop_out(&r);
}

static void old_fin_is_no_reason(void **state)
{
	(void)state;
	start_opts(0);
	in(&r, .seq = 0, .len = 1000);
	assert_false(in(&r, .seq = 0, .len = 500, .flags = SEG_FIN) & HV_TCP_DEMOTE); /* nonsense: the stream went on behind it */
	assert_false(in(&r, .seq = 400000, .flags = SEG_FIN) & HV_TCP_DEMOTE);
	rig_drop_out(&r);
}

static void urgent(void **state)
{
	unsigned a;

	(void)state;
	start_opts(0);
	a = in(&r, .seq = 0, .len = 10, .flags = SEG_URG, .urg = 5);
	assert_true(a & HV_TCP_DEMOTE);
	must_not_change(a, 0);
	assert_false(in(&r, .seq = 50000, .len = 10, .flags = SEG_URG, .urg = 5) & HV_TCP_DEMOTE); /* not acceptable, so not believed */
	rig_drop_out(&r);
}

static void prediction(void **state)
{
	uint64_t was;

	(void)state;
	start_opts(HV_TCPO_TS | HV_TCPO_SACK);
	in(&r, .seq = 0, .len = 1000);
	was = r.h.cnt.predicted;
	for (uint32_t i = 1; i < 10; i++)
		in(&r, .seq = i * 1000, .len = 1000);
	assert_int_equal(r.h.cnt.predicted, was + 9);
	rig_write(&r, 500);
	in(&r, .seq = 10000, .ack = 500); /* pure ACK */
	assert_int_equal(r.h.cnt.predicted, was + 10);
	rig_write(&r, 500);
	in(&r, .seq = 10000, .ack = 1000, .len = 100); /* data with ACK */
	assert_int_equal(r.h.cnt.predicted, was + 11);
	in(&r, .seq = 12000, .ack = 1000, .len = 100);
	in(&r, .seq = 10100, .ack = 1000, .len = 100); /* while there is a hole every segment takes the long way */
	assert_int_equal(r.h.cnt.predicted, was + 11);
	in(&r, .seq = 10200, .ack = 1000, .len = 1800);
	rig_read(&r, 100000);
	in(&r, .seq = 12100, .ack = 1000, .len = 10);
	in(&r, .seq = 12110, .ack = 1000, .len = 10);
	assert_true(r.h.cnt.predicted >= was + 12); /* and it comes back */
	rig_drop_out(&r);
}

static void ecn_echo(void **state)
{
	(void)state;
	start_opts(HV_TCPO_ECN);
	in(&r, .seq = 0, .len = 1000, .tos = 3);
	in(&r, .seq = 1000, .len = 1000, .tos = 2);
	rig_flush(&r);
	rig_wait(&r, 500000);
	assert_true(r.n_out != 0);
	assert_true(r.out[r.n_out - 1].flags & SEG_ECE); /* until CWR, RFC 3168 6.1.3 */
	rig_drop_out(&r);
	in(&r, .seq = 2000, .len = 1000, .tos = 2, .flags = SEG_CWR);
	in(&r, .seq = 3000, .len = 1000, .tos = 2);
	rig_flush(&r);
	rig_wait(&r, 500000);
	assert_true(r.n_out != 0);
	assert_false(r.out[r.n_out - 1].flags & SEG_ECE);
	rig_drop_out(&r);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = { T(in_order), T(ack_delayed), T(ack_when_drained), T(ack_rides_on_data), T(out_of_order_sack), T(many_holes),
		T(no_sack_when_not_negotiated), T(duplicate_dsack), T(overlaps), T(window_edge), T(window_closes_and_opens),
		T(tiny_segments_do_not_starve_the_ring), T(holes_do_not_starve_the_ring), T(paws), T(ts_unknown_after_import),
		    T(ack_at_the_right_edge), T(refused_data_is_answered), T(refused_segments_take_nothing_along),
		    T(refused_segment_leaves_what_it_covers),
		T(hole_is_filled_when_the_buffer_is_full), T(rst_rfc5961),
		T(syn_rfc5961), T(ack_rfc5961), T(challenges_are_limited), T(fin_is_not_consumed), T(old_fin_is_no_reason), T(urgent),
		T(prediction), T(ecn_echo) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
