/*
 * stack_attack_peer.c - a peer that lies: ACKs, SACK and D-SACK blocks, windows, MSS; and those who lie about the path (ICMP).
 */
#include "stack_attack.h"

/* How many octets and segments are waiting to be looked at. */
static uint32_t octets_out(void)
{
	uint32_t n = 0;

	for (uint32_t i = r.at_out; i < r.n_out; i++)
		n += r.out[i].len;
	return n;
}

static uint32_t segs_out(void)
{
	uint32_t n = 0;

	for (uint32_t i = r.at_out; i < r.n_out; i++)
		n += r.out[i].len != 0;
	return n;
}

/* ACKs of segments that can't have arrived yet make the sender faster, but never than slow start, and never past what it has sent. */
static void optimistic_ack(void **state)
{
	uint32_t acked = 0, top = 0;

	(void)state;
	r.img.snd_cwnd = 2;
	r.img.sndbuf = 1u << 20;
	attack_start(0);
	rig_write(&r, 200000);
	for (int i = 0; i < 6; i++) {
		top += octets_out();
		rig_drop_out(&r);
		in(&r, .ack = top + 1000); /* beyond what left */
		assert_int_equal(r.h.tcb->snd_una, r.iss + acked);
		rig_drop_out(&r);
		in(&r, .ack = top);
		acked = top;
		assert_true(r.h.tcb->cwnd <= 2000 + acked);
	}
	assert_true(acked >= 2000);
}

/* Appropriate byte counting (RFC 3465): a thousand ACKs for one octet each open the window no further than one for all. */
static void ack_division_slow_start(void **state)
{
	(void)state;
	r.img.snd_cwnd = 2;
	attack_start(0);
	rig_write(&r, 60000);
	rig_drop_out(&r);
	for (uint32_t i = 1; i <= 1000; i++)
		in(&r, .ack = i);
	assert_in_range(r.h.tcb->cwnd, 2001, 3000);
	assert_in_range(segs_out(), 1, 2);
}

static void ack_division_avoidance(void **state)
{
	(void)state;
	for (uint32_t cc = 0; cc < 2; cc++) {
		if (cc == 0) {
			r.img.snd_cwnd = 10;
			r.img.snd_ssthresh = 10;
			attack_start(0);
			rig_opt(&r, HV_TCP_CONGESTION, HV_TCP_CC_RENO);
			rig_write(&r, 60000);
		} else {
			rig_opt(&r, HV_TCP_CONGESTION, HV_TCP_CC_CUBIC);
			in(&r, .ack = 2001); /* its epoch begins */
			r.now += 2000000;    /* and now W(t) is some segments away */
		}
		uint32_t was = r.h.tcb->cwnd, from = r.h.tcb->snd_una - r.iss;
		for (uint32_t i = 1; i <= 2000; i++) {
			in(&r, .ack = from + i);
			rig_drop_out(&r);
		}
		assert_true(r.h.tcb->cwnd <= was + 1000); /* at most a segment for a fifth of the window */
	}
}

/* In recovery every octet that is delivered lets one out (PRR), however many ACKs tell of it. */
static void ack_division_recovery(void **state)
{
	uint32_t sent = 0;

	(void)state;
	r.img.snd_cwnd = 20;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 60000);
	rig_drop_out(&r);
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 5000 } });
	assert_int_equal(r.h.tcb->ca, HV_CA_RECOVERY);
	rig_drop_out(&r);
	for (uint32_t i = 1; i <= 1000; i++) {
		in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 5000 + i } });
		sent += octets_out();
		rig_drop_out(&r);
	}
	assert_true(sent <= 2000); /* 1,000 delivered, and the last segment started is a full one */
}

/* Duplicate ACKs without SACK each claim a segment that has left; there aren't more of them than segments. */
static void dupack_flood(void **state)
{
	(void)state;
	attack_start(0);
	rig_write(&r, 60000);
	rig_drop_out(&r);
	for (uint32_t i = 0; i < 1000; i++)
		in(&r, .ack = 0);
	assert_true(segs_out() <= 15); /* the fast retransmit, and one for each of the ten in flight */
	assert_true(hv_pipe(r.h.tcb) <= hv_flight(r.h.tcb));
}

/* RFC 2883: duplicates that were never retransmitted, or long before, don't take back a reduction and don't make RACK patient. */
static void dsack_spoof(void **state)
{
	(void)state;
	r.img.snd_cwnd = 20;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 20000);
	rig_drop_out(&r);
	rig_wait(&r, 5000);
	in(&r, .ack = 2000);
	for (uint32_t i = 0; i < 40; i++) /* nothing was sent twice yet */
		in(&r, .ack = 2000 + 10 * i, .nsack = 1, .sack = { { 1000, 2000 } });
	assert_int_equal(r.h.tcb->rack_mult, 1);
	rig_drop_out(&r);
	in(&r, .ack = 3000, .nsack = 1, .sack = { { 4000, 9000 } });
	assert_int_equal(r.h.tcb->ca, HV_CA_RECOVERY);
	rig_data(&r, 3000, 1000);
	uint32_t ssthresh = r.h.tcb->ssthresh;
	in(&r, .ack = 3000, .nsack = 2, .sack = { { 1000, 2000 }, { 4000, 9000 } });  /* below what was retransmitted */
	in(&r, .ack = 3000, .nsack = 2, .sack = { { 0, 3000 }, { 4000, 9000 } });     /* more than was retransmitted */
	in(&r, .ack = 3000, .nsack = 2, .sack = { { 0u - 90000u, 0u - 89000u }, { 4000, 9000 } }); /* from before any window */
	in(&r, .ack = 3000, .nsack = 2, .sack = { { 2500, 1500 }, { 4000, 9000 } });  /* backwards */
	in(&r, .ack = 3000, .nsack = 1, .sack = { { 0x80000000u, 3000 } });
	assert_int_equal(r.h.tcb->ca, HV_CA_RECOVERY);
	assert_int_equal(r.h.tcb->ssthresh, ssthresh);
	assert_true((r.h.tcb->tf & TF_UNDO) != 0);
	in(&r, .ack = 9000, .nsack = 1, .sack = { { 3000, 4000 } }); /* the true one does */
	assert_true(r.h.tcb->ca < HV_CA_RECOVERY);
	assert_true(r.h.tcb->ssthresh > ssthresh);
}

/* A peer that SACKs what it hasn't got hurts itself only: SND.UNA stays, octets are kept, and after the timeout they go again. */
static void sack_spoof(void **state)
{
	uint32_t top = 0;

	(void)state;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 10000);
	rig_drop_out(&r);
	in(&r, .ack = 0, .nsack = 1, .sack = { { 0, 10000 } }); /* even the octet it waits for */
	assert_int_equal(hv_tcp_outq(r.h.tcb), 10000);
	for (int i = 0; i < 60 && top < 10000; i++) {
		rig_next(&r);
		in(&r, .ack = top);
		while (r.at_out != r.n_out) {
			struct rig_seg *s = rig_take(&r);
			if (s->seq == top)
				top += s->len;
		}
	}
	assert_int_equal(top, 10000);
}

/* Blocks beyond SND.NXT, below SEG.ACK, empty or backwards say nothing. */
static void sack_of_unsent(void **state)
{
	static const uint32_t b[][2] = { { 5000, 9000 }, { 4000, 4001 }, { 3000, 4001 }, { 0x7fff0000u, 0x7fff1000u }, { 0xfffff000u, 4001 },
		{ 2000, 1000 }, { 1000, 1000 }, { 0x80000000u, 0x80000001u } };

	(void)state;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 4000);
	rig_drop_out(&r);
	for (uint32_t i = 0; i < sizeof b / sizeof b[0]; i++) {
		in(&r, .ack = 0, .nsack = 2, .sack = { { b[i][0], b[i][1] }, { b[i][0], b[i][1] } });
		assert_int_equal(r.h.tcb->sacked_out, 0);
		assert_int_equal(r.h.tcb->snd_nxt, r.iss + 4000);
		assert_true(r.h.tcb->ca <= HV_CA_DISORDER);
		assert_int_equal(r.h.tcb->lost_out, 0);
	}
}

/* RFC 2018 section 8: a SACKed octet may be dropped by the receiver as long as it isn't acknowledged. */
static void reneging_peer(void **state)
{
	(void)state;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 5000);
	rig_drop_out(&r);
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 5000 } });
	rig_drop_out(&r);
	in(&r, .ack = 1000); /* the hole is filled, and the rest is gone */
	rig_drop_out(&r);
	for (uint32_t top = 1000; top < 5000; top += 1000) {
		bool seen = false;

		for (int i = 0; i < 6 && !seen; i++) {
			while (r.at_out != r.n_out)
				seen |= rig_take(&r)->seq == top;
			if (!seen)
				rig_next(&r);
		}
		assert_true(seen);
		in(&r, .ack = top + 1000);
	}
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

/* CVE-2019-11478: SACK blocks cut the flight into crumbs. Records are bounded, take one chunk at most, and the work for an ACK with it. */
static void sack_fragmentation(void **state)
{
	uint32_t chunks, worst = 0;

	(void)state;
	r.img.snd_cwnd = 60;
	r.img.sndbuf = 1u << 18;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 60000);
	rig_drop_out(&r);
	chunks = r.h.env.n_free_tx;
	for (uint32_t i = 0; i < 20000; i++) {
		uint32_t at = i * 7919 % 29000 * 2;

		in(&r, .ack = 0, .nsack = 3, .sack = { { at + 1, at + 2 }, { at + 701, at + 702 }, { at + 1301, at + 1302 } });
		rig_drop_out(&r);
		worst = r.h.tcb->rec_n > worst ? r.h.tcb->rec_n : worst;
		assert_true(r.h.env.n_free_tx + 1 >= chunks);
	}
	assert_in_range(worst, 100, 1024);
	for (int i = 0; i < 400 && hv_tcp_outq(r.h.tcb) != 0; i++) { /* and it comes out of it */
		rig_next(&r);
		rig_drop_out(&r);
		in(&r, .ack = 150 * ((uint32_t)i + 1));
		rig_drop_out(&r);
	}
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

/* CVE-2019-11477, 11479: a tiny MSS. There is a floor, and no descriptor stands for thousands of frames. */
static void tiny_mss(void **state)
{
	struct hv_tcp_stat st;
	struct hv_tx tx;
	uint32_t sum = 0;

	(void)state;
	r.h.env.tso_max = 65000;
	r.img.mss_clamp = 8;
	r.img.snd_mss = 8;
	r.img.snd_cwnd = 100000;
	r.img.sndbuf = 1u << 20;
	r.img.opts = HV_TCPO_SACK;
	r.hold = true;
	rig_start(&r);
	hv_tcp_stat(r.h.tcb, &st);
	assert_int_equal(st.snd_mss, 48);
	in(&r, .seq = 100, .len = 1); /* three SACK blocks leave the least room */
	in(&r, .seq = 200, .len = 1);
	in(&r, .seq = 300, .len = 1);
	in(&r, .seq = 400, .len = 1);
	rig_write(&r, 60000);
	while (hv_tcp_output(r.h.tcb, &r.h.env, &tx, r.now)) {
		uint32_t mss = tx.mss != 0 ? tx.mss : tx.payload;

		assert_true(tx.payload == 0 || (tx.payload + mss - 1) / mss <= 128);
		assert_true(tx.mss == 0 || tx.mss >= 12);
		sum += tx.payload;
		r.h.env.sq_next++;
		r.h.env.sq_done = r.h.env.sq_next;
	}
	assert_int_equal(sum, 60000);
}

/* A peer that answers every probe and keeps its window at zero: without a limit of the user's it may (RFC 9293 3.8.6.1) ... */
static void zero_window_pinning_without_limit(void **state)
{
	(void)state;
	attack_start(0);
	in(&r, .ack = 0, .zero_wnd = true);
	rig_write(&r, 60000);
	for (int i = 0; i < 100; i++) {
		rig_next(&r);
		assert_false(r.acts & HV_TCP_TIMEDOUT);
		rig_drop_out(&r);
		in(&r, .ack = 0, .zero_wnd = true);
	}
	assert_true(r.h.cnt.octets_out == 0);
}

/* ... and with TCP_USER_TIMEOUT it may not pin our memory any longer than that (sockstress). */
static void zero_window_pinning_user_timeout(void **state)
{
	uint64_t t0;

	(void)state;
	r.img.user_timeout_ms = 30000;
	attack_start(0);
	in(&r, .ack = 0, .zero_wnd = true);
	rig_write(&r, 60000);
	t0 = r.now;
	for (int i = 0; i < 100; i++) {
		rig_next(&r);
		rig_drop_out(&r);
		if ((r.acts & HV_TCP_TIMEDOUT) != 0) {
			assert_int_equal(hv_tcp_error(r.h.tcb), ETIMEDOUT);
			assert_in_range(r.now - t0, 30000000, 32000000);
			return;
		}
		in(&r, .ack = 0, .zero_wnd = true);
	}
	fail_msg("pinned for ever");
}

/* A window that opens again starts a new count. */
static void zero_window_user_timeout_starts_again(void **state)
{
	(void)state;
	r.img.user_timeout_ms = 30000;
	attack_start(0);
	rig_write(&r, 60000);
	for (uint32_t i = 0; i < 5; i++) {
		uint32_t nxt = r.h.tcb->snd_nxt - r.iss;

		in(&r, .ack = nxt, .zero_wnd = true);
		for (uint64_t t0 = r.now; r.now - t0 < 20000000;) {
			rig_next(&r);
			assert_false(r.acts & HV_TCP_TIMEDOUT);
			rig_drop_out(&r);
			if (r.now - t0 < 20000000)
				in(&r, .ack = nxt, .zero_wnd = true);
		}
		in(&r, .ack = nxt, .wnd = 4000);
		rig_drop_out(&r);
	}
	assert_true(r.h.tcb->snd_nxt - r.iss >= 20000);
}

/* Connections that are opened, filled and left (sockstress): each holds no more than its send buffer, and the dead peer is noticed. */
static void sockstress(void **state)
{
	uint32_t took = 0, n, free_tx;

	(void)state;
	r.img.sndbuf = 16384;
	attack_start(0);
	free_tx = r.h.env.n_free_tx;
	in(&r, .ack = 0, .zero_wnd = true);
	while ((n = rig_write(&r, 5000)) != 0)
		took += n;
	assert_int_equal(took, 16384);
	assert_true(free_tx - r.h.env.n_free_tx <= 16384 / 4096 + 1);
	for (int i = 0; i < 40; i++) {
		rig_next(&r);
		rig_drop_out(&r);
		if ((r.acts & HV_TCP_TIMEDOUT) != 0)
			return;
	}
	fail_msg("a peer that says nothing is kept for ever");
}

/* The window opens by an octet at a time: sender's SWS avoidance (RFC 9293 3.8.6.2.1). */
static void silly_window(void **state)
{
	(void)state;
	attack_start(0);
	in(&r, .ack = 0, .zero_wnd = true);
	rig_write(&r, 30000);
	for (uint32_t i = 1; i < 1000; i++)
		in(&r, .ack = 0, .wnd = i);
	assert_int_equal(segs_out(), 0);
	in(&r, .ack = 0, .wnd = 1000);
	rig_data(&r, 0, 1000);
}

/* A window that is never larger than a few octets costs a segment for each override timeout at most, not one for each ACK. */
static void tiny_window(void **state)
{
	uint32_t segs = 0, top = 0;

	(void)state;
	attack_start(0);
	rig_write(&r, 20000);
	top = r.h.tcb->snd_nxt - r.iss;
	rig_drop_out(&r);
	for (uint32_t i = 0; i < 2000; i++) { /* two seconds */
		r.now += 1000;
		if (hv_tcp_deadline(r.h.tcb) <= r.now && (hv_tcp_timeout(r.h.tcb, &r.h.env, r.now) & HV_TCP_OUT) != 0)
			rig_pump(&r);
		in(&r, .ack = top, .wnd = 10);
		segs += segs_out();
		top = r.h.tcb->snd_nxt - r.iss;
		rig_drop_out(&r);
	}
	assert_in_range(segs, 1, 20);
}

/* The right edge moves back behind SND.NXT: nothing new leaves, nothing is forgotten, and it goes on when there is room again. */
static void window_shrinks(void **state)
{
	(void)state;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 20000);
	rig_drop_out(&r);
	uint32_t nxt = r.h.tcb->snd_nxt - r.iss;
	assert_int_equal(nxt, 10000);
	in(&r, .ack = 2000, .wnd = 500);
	in(&r, .ack = 3000, .wnd = 1);
	in(&r, .ack = 4000, .zero_wnd = true);
	assert_int_equal(segs_out(), 0);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 16000);
	for (int i = 0; i < 20; i++) {
		rig_next(&r);
		assert_false(r.acts & HV_TCP_TIMEDOUT);
		while (r.at_out != r.n_out) {
			struct rig_seg *s = rig_take(&r);
			assert_true(s->len == 0 || s->seq == 4000); /* only the oldest, as a probe */
		}
		in(&r, .ack = 4000, .zero_wnd = true);
		assert_int_equal(r.h.tcb->snd_nxt, r.iss + nxt);
	}
	in(&r, .ack = 4000, .wnd = 60000);
	rig_data(&r, 4000, 1000); /* at once, not when a timer runs that has been backed off for half an hour */
	for (int i = 0; i < 20 && hv_tcp_outq(r.h.tcb) != 0; i++) {
		rig_next(&r);
		rig_drop_out(&r);
		in(&r, .ack = r.h.tcb->snd_nxt - r.iss, .wnd = 60000);
		rig_drop_out(&r);
	}
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

/* RFC 5927: who forges "packet too big" gets no smaller segments than any path has, and no reduction of cwnd. */
static void mtu_lies(void **state)
{
	bool v6 = r.img.tuple.family == 6;
	uint32_t cwnd;

	(void)state;
	r.img.mss_clamp = 1400;
	r.img.pmtu = 1500;
	r.img.snd_mss = 1400;
	attack_start(0);
	rig_write(&r, 5000);
	rig_drop_out(&r);
	cwnd = r.h.tcb->cwnd;
	for (uint32_t m = 0; m < (v6 ? 1280u : 68u); m++)
		assert_int_equal(hv_tcp_set_pmtu(r.h.tcb, m, r.now), 0);
	assert_int_equal(r.h.tcb->mss, 1400);
	assert_int_equal(r.h.tcb->lost_out, 0);
	(void)hv_tcp_set_pmtu(r.h.tcb, v6 ? 1280 : 68, r.now);
	assert_int_equal(r.h.tcb->mss, v6 ? 1220 : 48);
	assert_true(r.h.tcb->cwnd >= cwnd);
	rig_pump(&r); /* what was cut too large goes again at once */
	while (r.at_out != r.n_out)
		assert_true(rig_take(&r)->len <= r.h.tcb->mss);
	(void)hv_tcp_set_pmtu(r.h.tcb, 9000, r.now); /* and a large one doesn't exceed what the peer takes */
	assert_int_equal(r.h.tcb->mss, 1400);
}

/* A peer that offers a window of a segment and then a large one makes segments grow: floors that are counted in segments grow with them. */
static void window_grows_and_mss_with_it(void **state)
{
	(void)state;
	r.img.snd_wnd = r.img.max_window = 700;
	r.img.snd_cwnd = 1;
	r.img.snd_ssthresh = 1;
	attack_start(HV_TCPO_SACK);
	assert_in_range(r.h.tcb->mss, 48, 699);
	rig_write(&r, 30000);
	rig_drop_out(&r);
	in(&r, .ack = r.h.tcb->snd_nxt - r.iss, .wnd = 60000);
	assert_int_equal(r.h.tcb->mss, 1000);
	assert_true(r.h.tcb->cwnd >= 1000);
	assert_true(r.h.tcb->ssthresh >= 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = { ATTACK(optimistic_ack), ATTACK(ack_division_slow_start), ATTACK(ack_division_avoidance),
		ATTACK(ack_division_recovery), ATTACK(dupack_flood), ATTACK(dsack_spoof), ATTACK(sack_spoof), ATTACK(sack_of_unsent),
		ATTACK(reneging_peer), ATTACK(sack_fragmentation), ATTACK(tiny_mss), ATTACK(zero_window_pinning_without_limit),
		ATTACK(zero_window_pinning_user_timeout), ATTACK(zero_window_user_timeout_starts_again), ATTACK(sockstress),
		ATTACK(silly_window), ATTACK(tiny_window), ATTACK(window_shrinks), ATTACK(mtu_lies),
		ATTACK(window_grows_and_mss_with_it) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
