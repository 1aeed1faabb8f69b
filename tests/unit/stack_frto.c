/*
 * stack_frto.c - reductions that were wrong: F-RTO (RFC 5682), Eifel (RFC 3522), D-SACK (RFC 3708), and what is restored.
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

/* Five segments leave and nothing comes back, until the head has gone again after a timeout. */
static void until_rto(void)
{
	uint64_t rto = r.h.cnt.rto;

	rig_start(&r);
	rig_write(&r, 5000);
	for (uint32_t i = 0; i < 5; i++)
		rig_data(&r, 1000 * i, 1000);
	while (r.h.cnt.rto == rto) {
		rig_drop_out(&r); /* the tail loss probe */
		rig_next(&r);
	}
	rig_data(&r, 0, 1000);
	rig_none(&r);
	assert_int_equal(rig_stat(&r).ca_state, 4);
	assert_int_equal(rig_stat(&r).cwnd, 1);
}

static void sack_late(void **state)
{
	(void)state;
	until_rto();
	rig_write(&r, 20000);
	rig_none(&r);
	in(&r, .ack = 1000);
	rig_data(&r, 5000, 1000); /* new data asks */
	rig_data(&r, 6000, 1000);
	rig_none(&r);
	in(&r, .ack = 2000); /* sent once: the original */
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_in_range(rig_stat(&r).cwnd, 10, 12);
	assert_int_equal(rig_stat(&r).ssthresh, 0x7fffffff);
	for (uint32_t i = 0; i < 5; i++)
		rig_data(&r, 7000 + 1000 * i, 1000); /* nothing old again */
}

static void sack_late_by_block(void **state)
{
	(void)state;
	until_rto();
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 2000 } }); /* the first was lost, the second only late */
	assert_in_range(rig_stat(&r).cwnd, 10, 12);
	assert_true(rig_stat(&r).ca_state < 4);
}

static void sack_lost(void **state)
{
	(void)state;
	until_rto();
	rig_write(&r, 20000);
	in(&r, .ack = 1000);
	rig_data(&r, 5000, 1000);
	rig_data(&r, 6000, 1000);
	in(&r, .ack = 1000, .nsack = 1, .sack = { { 5000, 6000 } });
	assert_int_equal(rig_stat(&r).ca_state, 4);
	rig_data(&r, 1000, 1000); /* lost indeed */
	in(&r, .ack = 2000, .nsack = 1, .sack = { { 5000, 6000 } });
	rig_data(&r, 2000, 1000);
	assert_int_equal(rig_stat(&r).ca_state, 4);
	assert_in_range(rig_stat(&r).cwnd, 1, 4);
}

static void nothing_new(void **state)
{
	(void)state;
	until_rto();
	in(&r, .ack = 1000);
	rig_data(&r, 1000, 1000);
	rig_data(&r, 2000, 1000);
	rig_none(&r);
}

static void reno_late(void **state)
{
	(void)state;
	r.img.opts = 0;
	until_rto();
	rig_write(&r, 20000);
	in(&r, .ack = 1000);
	rig_data(&r, 5000, 1000);
	rig_data(&r, 6000, 1000);
	in(&r, .ack = 2000);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_in_range(rig_stat(&r).cwnd, 10, 12);
}

static void reno_lost(void **state)
{
	(void)state;
	r.img.opts = 0;
	until_rto();
	rig_write(&r, 20000);
	in(&r, .ack = 3000); /* the receiver may have held two behind a hole: proves nothing */
	assert_int_equal(rig_stat(&r).ca_state, 4);
	rig_data(&r, 5000, 1000);
	rig_drop_out(&r);
	in(&r, .ack = 3000); /* what the new data caused */
	assert_int_equal(rig_stat(&r).ca_state, 4);
	rig_data(&r, 3000, 1000);
	rig_none(&r);
	in(&r, .ack = 5000); /* with the one that was sent once and held behind it: no sign that the timeout was wrong any more */
	assert_in_range(rig_stat(&r).cwnd, 1, 5);
	assert_in_range(rig_stat(&r).ssthresh, 2, 7);
}

/* The path has become slow: an ACK echoes the stamp of the original. */
static void eifel(void **state)
{
	uint32_t first;

	(void)state;
	rig_stamps(&r);
	first = (uint32_t)(r.now / 1000);
	until_rto();
	rig_write(&r, 20000);
	in(&r, .ack = 1000, .tsecr = first);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_in_range(rig_stat(&r).cwnd, 10, 12);
}

static void eifel_not(void **state)
{
	(void)state;
	rig_stamps(&r);
	until_rto();
	rig_write(&r, 20000);
	in(&r, .ack = 1000, .tsecr = (uint32_t)(r.now / 1000));
	assert_int_equal(rig_stat(&r).ca_state, 4);
	assert_in_range(rig_stat(&r).cwnd, 1, 2);
}

/* The head goes again after a timeout, and is acknowledged with the stamp of its first try: how long did the round trip take? */
static void stamp(bool duplicate)
{
	uint32_t first = (uint32_t)(r.now / 1000), srtt, n = duplicate;

	rig_stamps(&r);
	until_rto();
	srtt = rig_stat(&r).srtt_us;
	assert_int_equal(r.h.tcb->backoff, 1);
	r.now += 10000;
	in(&r, .ack = 1000, .tsecr = first, .nsack = n, .sack = { { 0, 1000 } });
	if (duplicate) {
		/* the first try had arrived, its ACK was lost */
		assert_int_equal(rig_stat(&r).srtt_us, srtt);
		assert_int_equal(r.h.tcb->backoff, 1);
	} else {
		/* the path has become slow */
		assert_true(rig_stat(&r).srtt_us > srtt + 20000);
		assert_int_equal(r.h.tcb->backoff, 0);
	}
	/* what was sent once tells in either case */
	r.now += 10000;
	in(&r, .ack = 5000, .tsecr = (uint32_t)(r.now / 1000) - 10);
	assert_int_equal(r.h.tcb->backoff, 0);
}

static void stamp_slow(void **state)
{
	(void)state;
	stamp(false);
}

static void stamp_duplicate(void **state)
{
	(void)state;
	stamp(true);
}

/* Fast recovery because of reordering: the duplicate is reported, and CUBIC is where it was. */
static void dsack(void **state)
{
	struct hv_cubic was;

	(void)state;
	r.img.snd_ssthresh = 8;
	rig_start(&r);
	r.h.tcb->cubic.w_max = 50000;
	was = r.h.tcb->cubic;
	rig_write(&r, 10000);
	for (uint32_t i = 0; i < 10; i++)
		rig_data(&r, 1000 * i, 1000);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 5000 } });
	rig_data(&r, 0, 1000);
	assert_int_equal(rig_stat(&r).ca_state, 3);
	assert_int_equal(rig_stat(&r).ssthresh, 7);
	assert_int_not_equal(r.h.tcb->cubic.w_max, was.w_max);
	r.now += 1000;
	in(&r, .ack = 5000, .nsack = 0);
	in(&r, .ack = 10000, .nsack = 1, .sack = { { 0, 1000 } });
	assert_in_range(rig_stat(&r).cwnd, 10, 11);
	assert_int_equal(rig_stat(&r).ssthresh, 8);
	assert_int_equal(r.h.tcb->cubic.w_max, was.w_max);
}

/* A recovery ends while what was sent again above `recover` is still out, and the next one begins: the echo of a retransmission of the first is older
 * than those of the second, and yet both losses are real. */
static void eifel_next(void **state)
{
	uint32_t t1, cwnd, ssthresh;

	(void)state;
	rig_stamps(&r);
	r.img.snd_cwnd = 20;
	rig_start(&r);
	rig_write(&r, 10000);
	for (uint32_t i = 0; i < 10; i++)
		rig_data(&r, 1000 * i, 1000);
	r.now += 10000;
	in(&r, .ack = 0, .nsack = 1, .sack = { { 1000, 9000 } });
	rig_data(&r, 0, 1000);
	r.now += 2000;
	rig_write(&r, 5000);
	for (uint32_t i = 0; i < 5; i++)
		rig_data(&r, 10000 + 1000 * i, 1000); /* above `recover` */
	rig_none(&r);
	r.now += 10000;
	in(&r, .ack = 9000, .nsack = 1, .sack = { { 11000, 13000 } });
	rig_data(&r, 9000, 1000);
	rig_data(&r, 10000, 1000);
	t1 = (uint32_t)(r.now / 1000);
	rig_none(&r);
	r.now += 8000;
	in(&r, .ack = 10000, .tsecr = t1, .nsack = 1, .sack = { { 11000, 13000 } });
	assert_int_equal(rig_stat(&r).ca_state, 1);
	r.now += 1000;
	in(&r, .ack = 10000, .nsack = 2, .sack = { { 14000, 15000 }, { 11000, 13000 } });
	rig_data(&r, 13000, 1000);
	assert_int_equal(rig_stat(&r).ca_state, 3);
	cwnd = rig_stat(&r).cwnd;
	ssthresh = rig_stat(&r).ssthresh;
	r.now += 1000;
	in(&r, .ack = 13000, .tsecr = t1, .nsack = 1, .sack = { { 14000, 15000 } });
	assert_int_equal(rig_stat(&r).ca_state, 3);
	assert_in_range(rig_stat(&r).cwnd, 1, cwnd + 1);
	assert_int_equal(rig_stat(&r).ssthresh, ssthresh);
}

static void ten_then_sack(uint32_t from)
{
	r.img.snd_ssthresh = 8;
	rig_start(&r);
	r.h.tcb->cubic.w_max = 50000;
	rig_write(&r, 10000);
	for (uint32_t i = 0; i < 10; i++)
		rig_data(&r, 1000 * i, 1000);
	r.now += 10000;
	r.hold = true; /* the frames of a batch: nothing leaves between them */
	in(&r, .ack = 0, .nsack = 1, .sack = { { from, 7000 } });
	assert_int_equal(rig_stat(&r).ca_state, 3);
	assert_int_equal(rig_stat(&r).ssthresh, 7);
}

/* What is taken for lost arrives before anything could be sent again: no recovery, and nothing of a reduction stays. */
static void late_in_the_same_batch(void **state)
{
	(void)state;
	ten_then_sack(1000);
	in(&r, .ack = 7000);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_in_range(rig_stat(&r).cwnd, 10, 11);
	assert_int_equal(rig_stat(&r).ssthresh, 8);
	assert_int_equal(r.h.tcb->cubic.w_max, 50000);
	r.hold = false;
	rig_write(&r, 1000);
	rig_data(&r, 10000, 1000);
	rig_none(&r);
}

/* Only some of it: the rest still is lost. */
static void late_in_part(void **state)
{
	(void)state;
	ten_then_sack(2000);
	in(&r, .ack = 1000, .nsack = 1, .sack = { { 2000, 7000 } });
	assert_int_equal(rig_stat(&r).ca_state, 3);
	assert_int_equal(rig_stat(&r).ssthresh, 7);
	r.hold = false;
	rig_pump(&r);
	rig_data(&r, 1000, 1000);
	r.now += 10000;
	in(&r, .ack = 7000); /* what went again: a loss */
	assert_int_equal(rig_stat(&r).ca_state, 3);
	assert_int_equal(rig_stat(&r).ssthresh, 7);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(sack_late), T(sack_late_by_block), T(sack_lost), T(nothing_new), T(reno_late), T(reno_lost), T(eifel),
		T(eifel_not), T(eifel_next), T(dsack), T(late_in_the_same_batch), T(late_in_part), T(stamp_slow), T(stamp_duplicate) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
