/*
 * stack_loss.c - loss recovery against scripts taken from transfers over bad networks: what is resent, when, and what it does to the
 * window.
 */
#include "stack_rig.h"
#include "stack/tcb.h"

static struct rig r;

static int setup(void **state)
{
	(void)state;
	rig_init(&r);
	r.img.opts = HV_TCPO_SACK;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&r);
	return 0;
}

/* Takes everything that came out; true if it contained octet `seq`. */
static bool came_out(uint32_t seq)
{
	bool found = false;

	while (r.at_out != r.n_out) {
		struct rig_seg *s = rig_take(&r);

		found |= s->len != 0 && seq - s->seq < s->len;
	}
	return found;
}

/* A window of 20 segments is under way, and has been for a round trip; more waits behind it. */
static void twenty_out(void)
{
	r.img.snd_cwnd = 20;
	rig_start(&r);
	rig_write(&r, 60000);
	assert_int_equal(r.n_out, 20);
	rig_drop_out(&r);
	r.now += 10000;
}

/* Retransmissions arrive one by one, but not the first, and each sooner than a round trip after it was sent, so that it may have been the
 * original: a timeout has to find out, and SACKs don't put it off. */
static void sacks_of_repeats_put_nothing_off(void **state)
{
	(void)state;
	rig_stamps(&r);
	r.img.srtt_us = r.img.min_rtt_us = 2000000;
	r.img.rttvar_us = 500000;
	rig_start(&r);
	rig_write(&r, 10000);
	uint32_t stamp = rig_take(&r)->tsval;
	rig_drop_out(&r);
	r.now += 2000000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 7000, 10000 } }, .tsecr = stamp);
	assert_true(came_out(0));
	for (uint32_t i = 1; i < 7; i++) {
		rig_wait(&r, 1900000);
		came_out(0);
		in(&r, .ack = 0, .nsack = 2, .sack = { { 1000 * i, 1000 * i + 1000 }, { 7000, 10000 } }, .tsecr = stamp);
	}
	assert_in_range(r.h.cnt.rto, 1, 2);
}

/* The same, a round trip after they were sent: they have arrived, so the first is lost again. The peer's stamps are those of what was in
 * order and don't tell. */
static void sacks_of_repeats_count(void **state)
{
	(void)state;
	rig_stamps(&r);
	rig_start(&r);
	rig_write(&r, 10000);
	uint32_t stamp = rig_take(&r)->tsval;
	rig_drop_out(&r);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 7000, 10000 } }, .tsecr = stamp);
	assert_true(came_out(0));
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 2, .sack = { { 1000, 3000 }, { 7000, 10000 } }, .tsecr = stamp);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 2, .sack = { { 1000, 7000 }, { 7000, 10000 } }, .tsecr = stamp);
	assert_true(came_out(0));
	assert_int_equal(r.h.cnt.rto, 0);
}

/*
 * New data, a retransmission and again new data within a fraction of the round trip. The delivery of the retransmission says something
 * about what was sent before it, not about what was sent after it.
 */
static void new_data_around_a_retransmission(void **state)
{
	(void)state;
	twenty_out();
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 4000 } });
	assert_true(came_out(0));
	r.now += 50;
	in(&r, .ack = 0, .nsack = 2, .sack = { { 5000, 9000 }, { 1000, 4000 } });
	assert_true(came_out(4000));
	for (uint32_t e = 10; e <= 18; e++) {
		r.now += 50;
		in(&r, .ack = 0, .nsack = 3, .sack = { { 5000, 1000 * e }, { 1000, 4000 } });
	}
	r.now += 50;
	in(&r, .ack = 0, .nsack = 3, .sack = { { 19000, 20000 }, { 5000, 18000 }, { 1000, 4000 } });
	came_out(0);
	/* new data before, between and after */
	uint32_t end = r.img.snd_una - r.iss + hv_tcp_outq(r.h.tcb) - hv_tcp_outq_nsd(r.h.tcb);
	assert_true(end > 22000);
	/* A round trip later: segment 0 has arrived again, the first piece of new data and then segment 4000 too; 18000 is lost once
	 * more. */
	r.now += 9500;
	in(&r, .ack = 4000, .nsack = 2, .sack = { { 19000, 20000 }, { 5000, 18000 } });
	assert_false(came_out(4000));
	in(&r, .ack = 4000, .nsack = 2, .sack = { { 19000, 21000 }, { 5000, 18000 } });
	r.now += 20;
	in(&r, .ack = 18000, .nsack = 1, .sack = { { 19000, 21000 } });
	while (r.at_out != r.n_out) {
		struct rig_seg *s = rig_take(&r);

		if (s->seq >= 21000 && s->seq < end)
			fail_msg("%u:%u was resent, though nothing sent later has arrived", s->seq, s->seq + s->len);
	}
	in(&r, .ack = end);
	rig_drop_out(&r);
}

/* Duplicates of what was resent in an earlier recovery don't say that this one was needless. */
static void old_duplicates_undo_nothing(void **state)
{
	uint32_t ssthresh;

	(void)state;
	r.img.snd_cwnd = 20;
	rig_start(&r);
	rig_write(&r, 20000);
	rig_drop_out(&r);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 5000 } });
	assert_true(came_out(0));
	assert_int_equal(rig_stat(&r).ca_state, 3);
	r.now += 10000;
	in(&r, .ack = 20000);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	ssthresh = rig_stat(&r).ssthresh;
	rig_write(&r, 14000);
	rig_drop_out(&r);
	r.now += 10000;
	in(&r, .ack = 20000, .nsack = 1, .sack = { { 21000, 25000 } });
	assert_true(came_out(20000));
	assert_int_equal(rig_stat(&r).ca_state, 3);
	in(&r, .ack = 20000, .nsack = 2, .sack = { { 0, 1000 }, { 21000, 25000 } });
	in(&r, .ack = 20000, .nsack = 2, .sack = { { 4000, 6000 }, { 21000, 25000 } });
	assert_int_equal(rig_stat(&r).ca_state, 3);
	assert_true(rig_stat(&r).ssthresh < ssthresh);
	/* one about this recovery does */
	in(&r, .ack = 26000, .nsack = 2, .sack = { { 20000, 21000 }, { 20000, 26000 } });
	rig_drop_out(&r);
	in(&r, .ack = 34000);
}

/* 20 segments, the first is lost. After the recovery cwnd is ssthresh: what was SACKed meanwhile doesn't make it grow when it
 * is acknowledged. */
static void a_recovery_gives_nothing_back(void **state)
{
	(void)state;
	twenty_out();
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 4000 } });
	assert_true(came_out(0));
	for (uint32_t e = 5; e <= 20; e++) {
		r.now += 50;
		in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 1000 * e } });
		came_out(0);
	}
	r.now += 9000;
	in(&r, .ack = 20000);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_int_equal(r.h.tcb->ssthresh, 14000);
	assert_in_range(r.h.tcb->cwnd, 14000, 14040); /* one segment's worth of growth, 9/17 of a fourteenth */
	rig_drop_out(&r);
}

/* The same without SACK: duplicate ACKs have stood for what the last ACK covers (RFC 9937 section 6.2). */
static void duplicate_acks_are_not_counted_twice(void **state)
{
	uint32_t end, recover;

	(void)state;
	r.img.opts = 0;
	twenty_out();
	for (int i = 0; i < 19; i++)
		in(&r, .ack = 0);
	assert_int_equal(rig_stat(&r).ca_state, 3);
	assert_true(came_out(0));
	end = r.h.tcb->snd_nxt - r.iss;
	recover = r.h.tcb->recover - r.iss;
	/* all that was in flight then and the retransmission have arrived, whatever was sent since then has not */
	r.now += 10000;
	in(&r, .ack = recover);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_in_range(r.h.tcb->cwnd, 14000, 14120); /* growth for the three that no duplicate ACK has told of */
	came_out(0);
	assert_in_range(r.h.tcb->snd_nxt - r.iss, end, recover + 15000);
}

/* Nor does the segment that an ACK covers first count less because of them: it is what the retransmission was for. */
static void a_partial_ack_delivers_its_segment(void **state)
{
	uint32_t was;

	(void)state;
	r.img.opts = 0;
	twenty_out();
	for (int i = 0; i < 10; i++)
		in(&r, .ack = 0);
	assert_int_equal(rig_stat(&r).ca_state, 3);
	was = r.h.tcb->prr_delivered;
	r.now += 10000;
	in(&r, .ack = 1000);
	assert_int_equal(r.h.tcb->prr_delivered - was, 1000);
	was = r.h.tcb->prr_delivered;
	in(&r, .ack = 3000); /* one of the two a duplicate ACK has told of */
	assert_int_equal(r.h.tcb->prr_delivered - was, 1000);
	rig_drop_out(&r);
}

/* On a path that was seen to reorder octets count when they are SACKed, else when SND.UNA passes them, if they weren't SACKed:
 * never twice. */
static void sacked_octets_count_once(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 60000);
	assert_int_equal(r.n_out, 10);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 2000 } });
	assert_int_equal(r.h.tcb->cwnd, 10000);
	in(&r, .ack = 2000); /* the first was late */
	assert_int_equal(r.h.tcb->cwnd, 11000);
	in(&r, .ack = 2000, .nsack = 1, .sack = { { 3000, 5000 } });
	assert_int_equal(r.h.tcb->cwnd, 13000);
	in(&r, .ack = 5000);
	assert_int_equal(r.h.tcb->cwnd, 14000);
	assert_int_equal(r.h.cnt.rexmit_segs, 0);
	rig_drop_out(&r);
}

/* One round: every segment in flight is acknowledged by itself, rtt_us after it was sent; returns how many. */
static uint32_t round_trip(uint32_t rtt_us)
{
	uint32_t una = r.img.snd_una - r.iss, n = 0, end;

	while (rig_write(&r, 10000) == 10000)
		;
	end = r.img.snd_end - r.iss - hv_tcp_outq_nsd(r.h.tcb);
	rig_drop_out(&r);
	r.now += rtt_us;
	for (; una != end; n++) {
		una += 1000;
		r.now++;
		in(&r, .ack = una, .wnd = 4000000);
		rig_drop_out(&r);
	}
	r.img.snd_una = r.iss + una;
	return n;
}

static void start_slowly(uint32_t segs)
{
	r.img.opts = HV_TCPO_SACK | HV_TCPO_WS;
	r.img.snd_wscale = 7;
	r.img.snd_wnd = r.img.max_window = 4000000;
	r.img.sndbuf = 240000;
	r.img.snd_cwnd = segs;
	rig_start(&r);
}

/* RFC 9406: round trips that grow by more than an eighth and 4 ms slow the growth down, five rounds later it is congestion avoidance. */
static void slow_start_ends_before_the_queue_does(void **state)
{
	uint32_t n;

	(void)state;
	start_slowly(2);
	for (n = 2; n <= 8; n *= 2)
		assert_int_equal(round_trip(10000), n);
	assert_int_equal(round_trip(15000), 16);
	assert_in_range(rig_stat(&r).cwnd, 24, 30); /* doubled by some ACKs, then a quarter of that */
	for (int i = 0; i < 4; i++) { /* the round in which it began counts */
		assert_int_equal(rig_stat(&r).ssthresh, 0x7fffffff);
		n = rig_stat(&r).cwnd;
		round_trip(15000);
		assert_in_range(rig_stat(&r).cwnd, n, n + n / 4 + 1);
	}
	assert_in_range(rig_stat(&r).ssthresh, n, rig_stat(&r).cwnd);
	assert_int_equal(r.h.cnt.rexmit_segs, 0);
}

/* ... goes on as before when it was only jitter ... */
static void slow_start_survives_jitter(void **state)
{
	uint32_t n;

	(void)state;
	start_slowly(2);
	for (n = 2; n <= 8; n *= 2)
		assert_int_equal(round_trip(10000), n);
	round_trip(15000);
	assert_in_range(rig_stat(&r).cwnd, 24, 30);
	round_trip(10000);
	n = rig_stat(&r).cwnd;
	round_trip(10000);
	assert_true(rig_stat(&r).cwnd >= 2 * n - 4);
	assert_int_equal(rig_stat(&r).ssthresh, 0x7fffffff);
}

/* ... and doesn't care for less than 4 ms. */
static void slow_start_ignores_little(void **state)
{
	(void)state;
	start_slowly(2);
	for (uint32_t n = 2; n <= 8; n *= 2)
		assert_int_equal(round_trip(1000), n);
	for (uint32_t n = 16; n <= 128; n *= 2)
		assert_int_equal(round_trip(4900), n);
	assert_int_equal(rig_stat(&r).ssthresh, 0x7fffffff);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
static void four(void)
{
	rig_start(&r);
	rig_write(&r, 4000);
	for (uint32_t i = 0; i < 4; i++)
		rig_data(&r, 1000 * i, 1000);
	r.now += 10000;
}

/* RFC 6298 5.3: an acknowledgment of some of what is in flight starts the timer anew. */
static void part_restarts_the_timer(void **state)
{
	(void)state;
	r.img.opts = 0;
	four();
	in(&r, .ack = 1000);
	assert_int_equal(hv_tcp_deadline(r.h.tcb), r.now + rig_stat(&r).rto_us);
	r.now += 1000;
	in(&r, .ack = 3000);
	assert_int_equal(hv_tcp_deadline(r.h.tcb), r.now + rig_stat(&r).rto_us);
}

/* So does, as in Linux, a SACK of what was sent before the head went again: the network still delivers. */
static void sack_restarts_the_timer(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 6000);
	rig_drop_out(&r);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 5000 } });
	rig_data(&r, 0, 1000);
	rig_none(&r);
	r.now += 5000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 6000 } });
	assert_int_equal(hv_tcp_deadline(r.h.tcb), r.now + rig_stat(&r).rto_us);
}

/* RFC 8985 6.2 step 5: what was sent before what has arrived gets a quarter of the round trip more, and goes again then, not before. */
static void reordering_gets_its_time(void **state)
{
	(void)state;
	four();
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 2000 } });
	rig_none(&r);
	assert_int_equal(hv_tcp_deadline(r.h.tcb), r.now + 2500);
	rig_wait(&r, 2499);
	rig_none(&r);
	rig_wait(&r, 1);
	rig_data(&r, 0, 1000);
}

/* RFC 8985 6.2 step 4: D-SACKs widen the window once per round trip, however many come, with nothing sent in between too. */
static void duplicates_widen_once_a_round(void **state)
{
	(void)state;
	four();
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 4000 } });
	rig_data(&r, 0, 1000);
	in(&r, .ack = 4000);
	rig_write(&r, 2000);
	rig_drop_out(&r);
	in(&r, .ack = 4000, .nsack = 1, .sack = { { 0, 1000 } });
	assert_int_equal(r.h.tcb->rack_mult, 2);
	in(&r, .ack = 4000, .nsack = 1, .sack = { { 0, 1000 } });
	assert_int_equal(r.h.tcb->rack_mult, 2);
	in(&r, .ack = 6000, .nsack = 1, .sack = { { 0, 1000 } }); /* the round is over */
	assert_int_equal(r.h.tcb->rack_mult, 3);
}

/* What is under way arrives, but its ACKs get lost, and all that comes for a while is that the window is shut. When it opens only the
 * first octets are resent. */
static uint64_t resent_after_a_stall(uint64_t us)
{
	uint32_t una = 10000;
	uint64_t before;

	r.img.snd_wnd = 300000;
	r.img.sndbuf = 600000;
	rig_start(&r);
	rig_write(&r, 150000);
	rig_drop_out(&r);
	r.now += 10000;
	in(&r, .ack = una, .wnd = 300000);
	rig_drop_out(&r);
	in(&r, .ack = una, .zero_wnd = true);
	for (uint64_t end = r.now + us; r.now < end;) {
		rig_next(&r);
		rig_drop_out(&r);
		r.now += 10000;
		in(&r, .ack = una, .zero_wnd = true);
	}
	before = r.h.cnt.rexmit_segs;
	in(&r, .ack = una, .wnd = 300000);
	r.now += 10000;
	while (una != 140000) {
		una += 1000;
		r.now += 1000;
		rig_drop_out(&r);
		in(&r, .ack = una, .wnd = 300000);
	}
	rig_drop_out(&r);
	return r.h.cnt.rexmit_segs - before;
}

static void a_stall(void **state)
{
	(void)state;
	assert_int_equal(resent_after_a_stall(60000000), 1);
}

/* Stamps of 32 bits in microseconds can't tell of such a time. */
static void a_long_stall(void **state)
{
	(void)state;
	assert_int_equal(resent_after_a_stall(45ull * 60 * 1000000), 1);
}

/* A timeout brings stamps nearer that can't be compared for much longer, and leaves the others alone. */
static void stamp_after_a_timeout(uint32_t age, uint32_t want)
{
	struct hv_xrec *rec;

	r.now = 3000000000u;
	rig_start(&r);
	rig_write(&r, 5000);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 2000 } });
	while (r.h.tcb->rtx_kind != HV_RTX_RTO)
		rig_next(&r);
	rig_drop_out(&r);
	rec = hv_rec(r.h.tcb, 1);
	assert_int_equal(rec->st, XR_SACKED);
	rec->xmit_us = (uint32_t)hv_tcp_deadline(r.h.tcb) - age;
	rig_next(&r);
	assert_int_equal(r.h.cnt.rto, 1);
	rig_drop_out(&r);
	rec = hv_rec(r.h.tcb, 1);
	while (rec->st != XR_SACKED)
		rec++;
	assert_int_equal((uint32_t)r.now - rec->xmit_us, want);
}

static void stamps_young(void **state)
{
	(void)state;
	stamp_after_a_timeout(1000, 1000);
}

static void stamps_not_yet_old(void **state)
{
	(void)state;
	stamp_after_a_timeout((1u << 30) - 1, (1u << 30) - 1);
}

static void stamps_old(void **state)
{
	(void)state;
	stamp_after_a_timeout((1u << 30) + 5, 1u << 30);
}

/* RFC 9293 3.8.3: R2 is 100 s at least. A peer short of memory opens its window, throws away what comes, and shuts it. */
static void a_window_to_and_fro(void **state)
{
	uint64_t end;

	(void)state;
	rig_start(&r);
	rig_write(&r, 5000);
	rig_drop_out(&r);
	r.now += 10000;
	end = r.now + 90000000;
	in(&r, .ack = 1000, .zero_wnd = true);
	for (unsigned n = 0; r.now < end; n++) {
		rig_next(&r);
		assert_int_equal(r.acts & HV_TCP_TIMEDOUT, 0);
		rig_drop_out(&r);
		r.now += 300;
		if (n % 2 == 0)
			in(&r, .ack = 1000, .wnd = 8192);
		else
			in(&r, .ack = 1000, .zero_wnd = true);
		rig_drop_out(&r);
	}
}

/* Without SACK: a recovery 3 GB ago has no say in what three duplicate ACKs mean. */
static void an_old_recovery_has_no_say(void **state)
{
	(void)state;
	r.img.opts = 0;
	rig_start(&r);
	r.h.tcb->recover = r.h.tcb->snd_una - (3u << 30);
	rig_write(&r, 10000);
	rig_drop_out(&r);
	r.now += 10000;
	for (unsigned i = 0; i < 3; i++)
		in(&r, .ack = 0);
	assert_int_equal(r.h.cnt.fast_rexmit, 1);
	assert_true(came_out(0));
}

/* All of the pool is queued octets: none of it can be lent for records, and eight must do. What they know less of is no round trip. */
static void few_records_no_wrong_sample(void **state)
{
	uint32_t una = 0;

	(void)state;
	r.img.sndbuf = 400000;
	r.img.snd_wnd = r.img.max_window = 1000000;
	r.img.snd_wscale = 5;
	r.img.opts |= HV_TCPO_WS;
	r.img.snd_cwnd = 20;
	rig_start(&r);
	while (r.h.env.n_free_tx != 0)
		assert_int_not_equal(rig_write(&r, 4096), 0);
	rig_drop_out(&r);
	r.now += 10000;
	for (unsigned i = 0; i < 60; i++, r.now += 500) {
		una += 1000;
		in(&r, .ack = una, .wnd = 1000000);
		while (r.h.env.n_free_tx != 0)
			assert_int_not_equal(rig_write(&r, 4096), 0);
		rig_drop_out(&r);
	}
	assert_in_range(rig_stat(&r).min_rtt_us, 9500, 10000);
	assert_in_range(rig_stat(&r).srtt_us, 10000, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = { T(part_restarts_the_timer), T(sack_restarts_the_timer), T(reordering_gets_its_time),
		T(duplicates_widen_once_a_round),
		T(sacks_of_repeats_put_nothing_off), T(sacks_of_repeats_count), T(new_data_around_a_retransmission), T(old_duplicates_undo_nothing),
		T(a_recovery_gives_nothing_back), T(a_stall), T(a_long_stall), T(stamps_young), T(stamps_not_yet_old),
		T(stamps_old), T(an_old_recovery_has_no_say), T(a_window_to_and_fro), T(few_records_no_wrong_sample),
		T(duplicate_acks_are_not_counted_twice), T(a_partial_ack_delivers_its_segment), T(sacked_octets_count_once),
		T(slow_start_ends_before_the_queue_does), T(slow_start_survives_jitter),
		T(slow_start_ignores_little) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
