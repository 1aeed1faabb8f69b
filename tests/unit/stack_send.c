/*
 * stack_send.c - sending: when a segment may go, windows, probes, retransmission, recovery, TSO, the one-segment shortcut.
 */
#include "stack_rig.h"

#include <errno.h>

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

static void write_and_ack(void **state)
{
	struct rig_seg *s;

	(void)state;
	rig_start(&r);
	assert_int_equal(rig_write(&r, 100), 100);
	s = rig_take(&r);
	assert_int_equal(s->len, 100);
	assert_int_equal(s->flags, SEG_ACK | SEG_PSH);
	rig_none(&r);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 100);
	assert_int_equal(hv_tcp_outq_nsd(r.h.tcb), 0);
	in(&r, .ack = 60);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 40);
	in(&r, .ack = 100);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	assert_true(hv_tcp_deadline(r.h.tcb) == UINT64_MAX);
	assert_int_equal(rig_write(&r, 2500), 2500); /* across the wrap of our sequence space at 512 */
	rig_data(&r, 100, 1000);
	rig_data(&r, 1100, 1000);
	rig_data(&r, 2100, 500);
	in(&r, .ack = 2600);
	rig_none(&r);
}

static void nagle(void **state)
{
	(void)state;
	r.img.nodelay = false;
	rig_start(&r);
	rig_write(&r, 100);
	rig_data(&r, 0, 100);
	rig_write(&r, 100);
	rig_none(&r);
	rig_write(&r, 950);
	rig_data(&r, 100, 1000); /* a full segment may always go */
	rig_none(&r);
	in(&r, .ack = 1100);
	rig_data(&r, 1100, 50);
	rig_write(&r, 10);
	rig_none(&r);
	rig_opt(&r, HV_TCP_NODELAY, 1); /* pushes what is held */
	rig_data(&r, 1150, 10);
}

static void cork(void **state)
{
	(void)state;
	r.img.cork = true;
	rig_start(&r);
	rig_write(&r, 100);
	rig_none(&r);
	rig_write(&r, 1000);
	rig_data(&r, 0, 1000);
	rig_none(&r);
	rig_opt(&r, HV_TCP_CORK, 0);
	rig_data(&r, 1000, 100);
	in(&r, .ack = 1100);
	rig_opt(&r, HV_TCP_CORK, 1);
	rig_write(&r, 5);
	rig_none(&r);
	assert_in_range(rig_next(&r), 1, 1000000); /* never for ever */
	rig_data(&r, 1100, 5);
}

static void msg_more(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write_more(&r, 100);
	rig_none(&r);
	rig_write(&r, 50);
	rig_data(&r, 0, 150);
	rig_write_more(&r, 10);
	rig_none(&r);
	rig_next(&r);
	while (r.n_out == 0)
		rig_next(&r); /* the ACK of nothing, a timer that only looks: but it goes out */
	assert_true(r.n_out != 0);
	rig_drop_out(&r);
}

static void congestion_window(void **state)
{
	(void)state;
	r.img.snd_cwnd = 2;
	rig_start(&r);
	rig_write(&r, 9000);
	rig_data(&r, 0, 1000);
	rig_data(&r, 1000, 1000);
	rig_none(&r);
	in(&r, .ack = 1000); /* slow start: two for one */
	rig_data(&r, 2000, 1000);
	rig_data(&r, 3000, 1000);
	rig_none(&r);
	in(&r, .ack = 4000);
	assert_in_range(r.n_out, 3, 5);
	rig_drop_out(&r);
}

/* RFC 3465: a thousand ACKs for one octet each don't open the window further than one for all. */
static void ack_division(void **state)
{
	(void)state;
	r.img.snd_cwnd = 2;
	rig_start(&r);
	rig_write(&r, 60000);
	rig_drop_out(&r);
	for (uint32_t i = 1; i <= 1000; i++)
		in(&r, .ack = i);
	assert_true(r.n_out <= 3);
	rig_drop_out(&r);
}

static void receive_window(void **state)
{
	(void)state;
	r.img.snd_wnd = 1500;
	r.img.max_window = 3000;
	rig_start(&r);
	rig_write(&r, 5000);
	rig_data(&r, 0, 1000);
	while (r.at_out != r.n_out) {
		struct rig_seg *s = rig_take(&r);
		assert_true(s->seq + s->len <= 1500);
	}
	in(&r, .ack = 1000, .wnd = 4000);
	for (uint32_t i = 0; i < 10 && r.at_out != r.n_out; i++) {
		struct rig_seg *s = rig_take(&r);
		assert_true(s->seq + s->len <= 5000);
	}
	assert_int_equal(hv_tcp_outq_nsd(r.h.tcb), 0);
}

static void window_scale(void **state)
{
	(void)state;
	r.img.opts = HV_TCPO_WS;
	r.img.snd_wscale = 3;
	r.img.rcv_wscale = 7;
	r.img.snd_cwnd = 1000;
	r.img.snd_wnd = 1000;
	rig_start(&r);
	in(&r, .ack = 0, .wnd = 8 * 300); /* 300 << 3 */
	rig_write(&r, 5000);
	rig_data(&r, 0, 1000);
	rig_data(&r, 1000, 1000);
	for (uint32_t i = 0; r.at_out != r.n_out && i < 5; i++) {
		struct rig_seg *s = rig_take(&r);
		assert_true(s->seq + s->len <= 2400);
		assert_true(s->wnd >= 32000); /* our window, scaled back by the rig */
	}
}

static void zero_window_probe(void **state)
{
	uint64_t t1, t2, t3;

	(void)state;
	rig_start(&r);
	in(&r, .ack = 0, .zero_wnd = true);
	rig_write(&r, 100);
	rig_none(&r);
	t1 = rig_next(&r);
	assert_in_range(t1, 100000, 3000000);
	struct rig_seg *s = rig_take(&r);
	assert_true(s->len <= 1 && (int32_t)s->seq <= 0);
	in(&r, .ack = 0, .zero_wnd = true); /* alive, but full: ask ever more rarely, and never give up */
	rig_drop_out(&r);
	t2 = rig_next(&r);
	rig_drop_out(&r);
	in(&r, .ack = 0, .zero_wnd = true);
	t3 = rig_next(&r);
	rig_drop_out(&r);
	assert_true(t2 > t1 && t3 > t2);
	for (int i = 0; i < 60; i++) {
		in(&r, .ack = 0, .zero_wnd = true);
		assert_true(rig_next(&r) <= 130000000u);
		assert_false(r.acts & HV_TCP_TIMEDOUT);
		rig_drop_out(&r);
	}
	in(&r, .ack = 0, .wnd = 2000);
	rig_data(&r, 0, 100);
	in(&r, .ack = 100);
	assert_true(hv_tcp_deadline(r.h.tcb) == UINT64_MAX);
}

static void zero_window_silent_peer_times_out(void **state)
{
	(void)state;
	rig_start(&r);
	in(&r, .ack = 0, .zero_wnd = true);
	rig_write(&r, 100);
	for (int i = 0; i < 40; i++) {
		rig_next(&r);
		rig_drop_out(&r);
		if ((r.acts & HV_TCP_TIMEDOUT) != 0) {
			assert_int_equal(hv_tcp_error(r.h.tcb), ETIMEDOUT);
			return;
		}
	}
	fail_msg("probes a dead peer for ever");
}

/* The window update was lost, its probe too: still it ends. */
static void window_shrunk_by_peer(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 5000);
	rig_drop_out(&r);
	in(&r, .ack = 2000, .wnd = 100); /* edge moved back to 2,100: allowed though discouraged */
	assert_int_equal(hv_tcp_outq(r.h.tcb), 3000);
	rig_wait(&r, 2000000);
	rig_drop_out(&r);
	in(&r, .ack = 2000, .wnd = 10000);
	rig_wait(&r, 5000000);
	assert_true(r.n_out != 0);
	rig_drop_out(&r);
	in(&r, .ack = 5000, .wnd = 10000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

static void rto_backoff(void **state)
{
	uint64_t last = 0, t = 0;
	int n = 0;

	(void)state;
	rig_start(&r);
	rig_write(&r, 3000);
	rig_drop_out(&r);
	for (int i = 0; i < 60 && (r.acts & HV_TCP_TIMEDOUT) == 0; i++) {
		t += rig_next(&r);
		if (r.n_out == 0)
			continue;
		rig_data(&r, 0, 1000); /* the oldest, one only (RFC 6298 5.4) */
		rig_none(&r);
		if (n == 0)
			assert_in_range(t, 200000, 400000);
		else if (t < 120000000u)
			assert_in_range(t, last * 2 - last / 8, last * 2 + last / 8);
		last = t;
		t = 0;
		n++;
	}
	assert_true(r.acts & HV_TCP_TIMEDOUT);
	assert_int_equal(hv_tcp_error(r.h.tcb), ETIMEDOUT);
	assert_in_range(n, 10, 20);
	assert_true(r.h.cnt.rto >= 10);
}

static void user_timeout(void **state)
{
	uint64_t from;

	(void)state;
	r.img.user_timeout_ms = 5000;
	rig_start(&r);
	rig_write(&r, 10);
	from = r.now;
	for (int i = 0; i < 60 && (r.acts & HV_TCP_TIMEDOUT) == 0; i++) {
		rig_next(&r);
		rig_drop_out(&r);
	}
	assert_true(r.acts & HV_TCP_TIMEDOUT);
	assert_in_range(r.now - from, 4900000, 5500000);
}

static void rto_recovers(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 5000);
	rig_drop_out(&r);
	while (r.n_out == 0)
		rig_next(&r);
	rig_data(&r, 0, 1000);
	in(&r, .ack = 1000);
	assert_true(r.n_out != 0);
	rig_data(&r, 1000, 1000);
	rig_drop_out(&r);
	in(&r, .ack = 5000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	assert_true(hv_tcp_deadline(r.h.tcb) == UINT64_MAX);
}

static void fast_retransmit_dupacks(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 8000);
	rig_drop_out(&r);
	r.now += 10000;
	for (int i = 0; i < 3; i++)
		in(&r, .ack = 0);
	rig_data(&r, 0, 1000);
	assert_int_equal(r.h.cnt.fast_rexmit, 1);
	assert_int_equal(r.h.cnt.rto, 0);
	rig_drop_out(&r);
	in(&r, .ack = 8000);
	rig_write(&r, 100);
	rig_data(&r, 8000, 100);
}

static void fast_retransmit_sack(void **state)
{
	(void)state;
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	rig_write(&r, 8000);
	rig_drop_out(&r);
	r.now += 10000;
	for (uint32_t i = 2; i <= 6; i++) {
		in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 1000 * i } });
		r.now += 100;
	}
	rig_wait(&r, 10000); /* a reordering timer may come first, an RTO not */
	rig_data(&r, 0, 1000);
	while (r.at_out != r.n_out)
		assert_true((int32_t)(rig_take(&r)->seq - 6000) >= 0); /* nothing that was SACKed */
	assert_int_equal(r.h.cnt.rto, 0);
	in(&r, .ack = 8000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

/* Two blocks that are new in one ACK come newest first (RFC 2018 4): that is no sign of reordering, so nothing has to wait. */
static void two_holes(void **state)
{
	(void)state;
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	rig_write(&r, 10000);
	rig_drop_out(&r);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 2, .sack = { { 5000, 8000 }, { 1000, 4000 } });
	assert_true(r.n_out != 0);
	assert_int_equal(r.out[0].seq, 0);
	assert_int_equal(r.out[0].len, 1000);
	r.now += 10000;
	in(&r, .ack = 4000, .nsack = 1, .sack = { { 5000, 10000 } });
	bool second = false;
	while (r.at_out != r.n_out) {
		struct rig_seg *s = rig_take(&r);
		second |= s->seq == 4000 && s->len == 1000;
		assert_true(s->seq == 0 || s->seq == 4000);
	}
	assert_true(second);
	in(&r, .ack = 10000);
}

/* Overrides of cork and silly-window avoidance are no sign of a dead peer, however many there are. */
static void pushes_do_not_add_up(void **state)
{
	(void)state;
	r.img.cork = true;
	rig_start(&r);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(rig_write(&r, 10), 10);
		for (int n = 0; n < 5 && r.n_out == 0; n++) {
			rig_next(&r);
			assert_false(r.acts & HV_TCP_TIMEDOUT);
		}
		rig_data(&r, i * 10, 10);
		in(&r, .ack = i * 10 + 10);
	}
}

static void silly_window_pushes_do_not_add_up(void **state)
{
	uint32_t acked = 0;

	(void)state;
	r.img.snd_wnd = 500; /* the peer's window is always just below a segment */
	r.img.max_window = 64000;
	rig_start(&r);
	assert_int_equal(rig_write(&r, 50000), 50000);
	for (uint32_t i = 0; i < 60; i++) {
		for (int n = 0; n < 8 && r.n_out == 0; n++) {
			rig_next(&r);
			assert_false(r.acts & HV_TCP_TIMEDOUT);
		}
		assert_true(r.n_out != 0);
		while (r.at_out != r.n_out) {
			struct rig_seg *s = rig_take(&r);
			if (s->seq + s->len > acked && s->len != 0)
				acked = s->seq + s->len;
		}
		r.now += 1000;
		in(&r, .ack = acked, .wnd = 500);
	}
	assert_true(acked > 10000);
	rig_drop_out(&r);
}

/* The receiver forgets what it had SACKed (as the kernel does for the octets that a hand-off can't carry): the RTO repairs it. */
static void reneging(void **state)
{
	bool seen[10] = { false };

	(void)state;
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	rig_write(&r, 10000);
	rig_drop_out(&r);
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 10000 } });
	rig_drop_out(&r);
	uint32_t top = 0;
	for (int i = 0; i < 40 && top < 10000; i++) {
		rig_next(&r);
		while (r.at_out != r.n_out) {
			struct rig_seg *s = rig_take(&r);
			if (s->len != 0 && s->seq / 1000 < 10)
				seen[s->seq / 1000] = true;
			if (s->seq == top && s->len != 0)
				top = s->seq + s->len;
		}
		in(&r, .ack = top);
		while (r.at_out != r.n_out) {
			struct rig_seg *s = rig_take(&r);
			if (s->seq == top && s->len != 0)
				top = s->seq + s->len;
		}
		in(&r, .ack = top);
		rig_drop_out(&r);
	}
	assert_true(seen[0]);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

static void wild_sack(void **state)
{
	(void)state;
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	rig_write(&r, 4000);
	rig_drop_out(&r);
	static const uint32_t b[][2] = { { 5000, 9000 }, { 3000, 5000 }, { 2000, 1000 }, { 1000, 1000 }, { 0x80000000u, 4000 }, { 0, 4000 },
		{ 0xffff0000u, 1000 }, { 0x7fffffffu, 0xffffffffu }, { 4000, 4001 }, { 1, 2 }, { 3, 4 }, { 5, 6 }, { 2500, 2501 } };
	for (uint32_t i = 0; i < sizeof b / sizeof b[0]; i++) {
		in(&r, .ack = 0, .nsack = 1, .sack = { { b[i][0], b[i][1] } });
		rig_wait(&r, 100);
	}
	rig_drop_out(&r);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 4000);
	in(&r, .ack = 4000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

static void tail_loss_probe(void **state)
{
	uint64_t t;

	(void)state;
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	rig_write(&r, 3000);
	rig_drop_out(&r);
	t = rig_next(&r);
	assert_true(t < 200000);
	rig_data(&r, 2000, 1000); /* the last one again, RFC 8985 7.3 */
	rig_none(&r);
	assert_int_equal(r.h.cnt.tlp, 1);
	assert_int_equal(r.h.cnt.rto, 0);
	assert_true(rig_next(&r) >= 150000); /* one probe only, then the RTO */
	rig_drop_out(&r);
	in(&r, .ack = 3000);
}

static void keepalive(void **state)
{
	(void)state;
	r.img.keepalive = true;
	r.img.keepidle_s = 10;
	r.img.keepintvl_s = 2;
	r.img.keepcnt = 3;
	rig_start(&r);
	assert_in_range(rig_next(&r), 9000000, 11000000);
	struct rig_seg *s = rig_take(&r);
	assert_int_equal(s->seq, 0xffffffffu);
	assert_true(s->len <= 1);
	in(&r, .ack = 0);
	rig_drop_out(&r);
	uint64_t quiet = 0; /* the timer may look in between */
	while (r.n_out == 0)
		quiet += rig_next(&r);
	assert_in_range(quiet, 9000000, 11000000);
	for (int i = 0; i < 10 && (r.acts & HV_TCP_TIMEDOUT) == 0; i++) {
		rig_drop_out(&r);
		rig_next(&r);
	}
	assert_true(r.acts & HV_TCP_TIMEDOUT);
	assert_int_equal(hv_tcp_error(r.h.tcb), ETIMEDOUT);
	rig_drop_out(&r);
}

static void take_tso(void *arg, const uint8_t *frame, uint32_t len)
{
	(void)frame;
	*(uint32_t *)arg += len > 54;
}

static void tso(void **state)
{
	struct hv_tx tx;
	uint32_t frames = 0, octets = 0, bursts = 0;

	(void)state;
	r.img.snd_cwnd = 100;
	rig_start(&r);
	r.h.env.tso_max = 16000;
	r.hold = true;
	assert_int_equal(rig_write(&r, 50500), 50500);
	while (hv_tcp_output(r.h.tcb, &r.h.env, &tx, r.now)) {
		if (tx.mss != 0) {
			assert_int_equal(tx.mss, 1000);
			assert_true(tx.payload <= 16000 && tx.payload > 1000);
			bursts++;
		}
		octets += tx.payload;
		host_post(&r.h, &tx, take_tso, &frames); /* judges the header */
	}
	assert_null(r.h.fail);
	assert_int_equal(octets, 50500);
	assert_int_equal(frames, 51);
	assert_in_range(bursts, 3, 20);
	host_complete(&r.h, HOST_SQ);
	r.hold = false;
	in(&r, .ack = 50500);
	rig_none(&r);
}

static void buffer_full_and_writable(void **state)
{
	uint32_t took, total = 0;

	(void)state;
	r.img.sndbuf = 20000;
	rig_start(&r);
	while ((took = rig_write(&r, 3000)) != 0)
		total += took;
	assert_in_range(total, 5000, 40000);
	assert_int_equal(hv_tcp_write_room(r.h.tcb), 0);
	assert_false(hv_tcp_writable(r.h.tcb));
	rig_drop_out(&r);
	bool writable = false;
	for (uint32_t a = 1000; a <= total; a += 1000)
		writable |= (in(&r, .ack = a) & HV_TCP_WRITABLE) != 0;
	in(&r, .ack = total);
	writable |= (r.acts & HV_TCP_WRITABLE) != 0;
	assert_true(writable);
	assert_true(hv_tcp_writable(r.h.tcb));
	rig_drop_out(&r);
}

static void notsent_lowat(void **state)
{
	(void)state;
	r.img.notsent_lowat = 2000;
	r.img.snd_cwnd = 1;
	rig_start(&r);
	assert_true(hv_tcp_writable(r.h.tcb));
	rig_write(&r, 10000);
	assert_false(hv_tcp_writable(r.h.tcb)); /* 9,000 unsent */
	rig_drop_out(&r);
	uint32_t acked = 0;
	for (int i = 0; i < 20 && 2 * hv_tcp_outq_nsd(r.h.tcb) >= 2000; i++) {
		acked = 10000 - hv_tcp_outq_nsd(r.h.tcb);
		in(&r, .ack = acked);
		rig_drop_out(&r);
	}
	assert_true(hv_tcp_writable(r.h.tcb));
}

static void send_fast(void **state)
{
	struct hv_tx tx;
	uint8_t d[200];

	(void)state;
	rig_start(&r);
	for (uint32_t i = 0; i < 200; i++)
		d[i] = rig_octet(true, i);
	r.hold = true;
	assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, d, 200, &tx, r.now), 200);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0); /* nothing has happened yet */
	assert_true(tx.inline_ok);
	assert_int_equal(tx.payload, 200);
	assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, d, 200, &tx, r.now), 200);
	uint32_t frames = 0;
	host_post(&r.h, &tx, take_tso, &frames);
	hv_tcp_send_commit(r.h.tcb, &r.h.env, d, 200, r.now);
	memset(d, 0, sizeof d);
	assert_true(host_check(&r.h));
	assert_int_equal(hv_tcp_outq(r.h.tcb), 200);
	assert_int_equal(hv_tcp_outq_nsd(r.h.tcb), 0);
	r.hold = false;
	r.img.snd_end += 200;
	while (r.n_out == 0)
		rig_next(&r);
	rig_data(&r, 0, 200); /* the copy is what is sent again */
	in(&r, .ack = 200);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	/* Where the slow path would have to think, the shortcut declines. */
	assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, d, 0, &tx, r.now), 0);
	in(&r, .ack = 200, .zero_wnd = true);
	assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, d, 100, &tx, r.now), 0);
}

/* The window moves with a segment that acknowledges nothing, while a small message is on its way: the next may use what there is now, no more. */
static void send_fast_follows_the_window(void **state)
{
	static uint8_t d[900];
	struct hv_tx tx;

	(void)state;
	rig_start(&r);
	rig_write(&r, 100); /* NODELAY: others may follow */
	rig_drop_out(&r);
	in(&r, .ack = 0, .len = 10, .wnd = 60000);
	assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, d, 900, &tx, r.now), 900);
	rig_read(&r, 10);
	rig_drop_out(&r);
	r.h.cnt.predicted = 0;
	in(&r, .seq = 10, .ack = 0, .len = 10, .wnd = 500);
	assert_int_equal(r.h.cnt.predicted, 1);
	assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, d, 900, &tx, r.now), 0);
	assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, d, 400, &tx, r.now), 400);
	rig_drop_out(&r);
	in(&r, .ack = 100);
}

static void chunk_stays_until_completion(void **state)
{
	struct hv_tx tx;
	uint32_t frames = 0;

	(void)state;
	rig_start(&r);
	r.hold = true;
	rig_write(&r, 1000);
	assert_true(hv_tcp_output(r.h.tcb, &r.h.env, &tx, r.now));
	host_post(&r.h, &tx, take_tso, &frames);
	uint32_t was = r.h.env.n_free_tx;
	/* Acked before the device has completed the descriptor: the chunk is not for others yet. */
	struct hv_seg s = { .seq = r.irs, .ack = r.iss + 1000, .wnd = 60000, .flags = SEG_ACK };
	hv_tcp_input(r.h.tcb, &r.h.env, &s, r.now);
	host_check(&r.h);
	hv_env_reap(&r.h.env);
	assert_int_equal(r.h.env.n_free_tx, was);
	host_complete(&r.h, HOST_SQ);
	hv_env_reap(&r.h.env);
	assert_int_equal(r.h.env.n_free_tx, 64);
	r.hold = false;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = { T(write_and_ack), T(nagle), T(cork), T(msg_more), T(congestion_window), T(ack_division),
	    T(receive_window),
		T(window_scale), T(zero_window_probe), T(zero_window_silent_peer_times_out), T(window_shrunk_by_peer), T(rto_backoff),
		T(user_timeout), T(rto_recovers), T(fast_retransmit_dupacks), T(fast_retransmit_sack), T(two_holes),
		    T(pushes_do_not_add_up), T(silly_window_pushes_do_not_add_up),
		T(reneging), T(wild_sack),
		T(tail_loss_probe), T(keepalive), T(tso), T(buffer_full_and_writable), T(notsent_lowat), T(send_fast),
		T(send_fast_follows_the_window), T(chunk_stays_until_completion) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
