/*
 * stack_blackhole.c - a path that swallows large segments without a word (RFC 4821, 8899), and one that only was down.
 */
#include "stack_rig.h"

#include "stack/tcb.h"

#define MSS 1448u

static struct rig r;

static int setup(void **state)
{
	(void)state;
	rig_init(&r);
	r.img.opts = HV_TCPO_SACK;
	r.img.mss_clamp = r.img.snd_mss = MSS;
	r.img.pmtu = MSS + 40;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&r);
	return 0;
}

/* Time passes until the next timeout, and nothing arrives; returns the size of what the timeout has sent. */
static uint32_t timeout_size(void)
{
	uint64_t was = r.h.cnt.rto;
	uint32_t len = 0;

	while (r.h.cnt.rto == was) {
		rig_drop_out(&r);
		rig_next(&r);
	}
	while (r.at_out != r.n_out)
		len = rig_take(&r)->len;
	return len;
}

/* What is in flight arrives and is acknowledged, until nothing is left. */
static void deliver_all(void)
{
	for (int i = 0; i < 100 && r.h.tcb->snd_una != r.h.tcb->snd_end; i++) {
		r.now += 10000;
		in(&r, .ack = r.h.tcb->snd_nxt - r.iss);
		rig_drop_out(&r);
	}
}

static void shrinks_by_steps(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 10 * MSS);
	assert_int_equal(timeout_size(), MSS);
	assert_int_equal(timeout_size(), MSS); /* two may be lost by chance */
	assert_int_equal(timeout_size(), 1200);
	assert_int_equal(timeout_size(), 1024);
	assert_int_equal(timeout_size(), 536);
	assert_int_equal(timeout_size(), 536);
	in(&r, .ack = 536);
	while (r.at_out != r.n_out)
		assert_in_range(rig_take(&r)->len, 1, 536);
	deliver_all();
	rig_write(&r, 5000);
	while (r.at_out != r.n_out)
		assert_in_range(rig_take(&r)->len, 1, 536);
}

static void small_segments_prove_nothing(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 1000);
	for (int i = 0; i < 6; i++)
		assert_int_equal(timeout_size(), 1000);
	assert_int_equal(r.h.tcb->mss, MSS);
}

/* A message that fits one segment is cut if it is larger than any path must carry. */
static void message(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 1300);
	assert_int_equal(timeout_size(), 1300);
	assert_int_equal(timeout_size(), 1300);
	assert_int_equal(timeout_size(), 1024);
	in(&r, .ack = 1024);
	assert_int_equal(rig_take(&r)->len, 1300 - 1024);
	deliver_all();
	rig_write(&r, 1000);
	rig_drop_out(&r);
	for (int i = 0; i < 5; i++)
		assert_int_equal(timeout_size(), 1000);
}

/* What is small gets through all the time, and SACK says so: that must not put off the timeouts that find out about what is large. */
static void small_ones_pass(void **state)
{
	(void)state;
	r.img.nodelay = true;
	rig_start(&r);
	rig_write(&r, MSS);
	for (int i = 0; i < 100; i++) {
		rig_write(&r, 1000);
		rig_wait(&r, 20000);
		while (r.at_out != r.n_out) {
			const struct rig_seg *g = rig_take(&r);
			if (g->seq == 0 && g->len < MSS) {
				assert_in_range(g->len, 1, 1200);
				assert_int_equal(r.h.cnt.rto, 3);
				return;
			}
		}
		in(&r, .nsack = 1, .sack = { { MSS, r.h.tcb->snd_nxt - r.iss } });
	}
	fail_msg("ten RTOs later nothing smaller has been tried");
}

static void comes_back(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 10 * MSS);
	for (int i = 0; i < 3; i++)
		timeout_size();
	deliver_all();
	rig_wait(&r, 5000000);
	rig_write(&r, 3 * MSS);
	assert_int_equal(rig_take(&r)->len, 1200);
	rig_drop_out(&r);
	deliver_all();
	rig_wait(&r, 6000000);
	rig_write(&r, 2 * MSS);
	rig_data(&r, 13 * MSS, MSS); /* it was only down */
	deliver_all();
	rig_write(&r, 2 * MSS);
	assert_int_equal(rig_take(&r)->len, MSS);
}

/* It still swallows: one timeout this time, and the next trial is later. */
static void still_there(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 10 * MSS);
	for (int i = 0; i < 3; i++)
		timeout_size();
	deliver_all();
	rig_wait(&r, 11000000);
	rig_write(&r, 2 * MSS);
	assert_int_equal(rig_take(&r)->len, MSS);
	assert_int_equal(timeout_size(), MSS);
	assert_int_equal(timeout_size(), 1200);
	deliver_all();
	rig_wait(&r, 15000000);
	rig_write(&r, 2 * MSS);
	assert_int_equal(rig_take(&r)->len, 1200);
	rig_drop_out(&r);
	deliver_all();
	rig_wait(&r, 6000000);
	rig_write(&r, 2 * MSS);
	assert_int_equal(rig_take(&r)->len, MSS);
}

static void told_by_kernel(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 10 * MSS);
	for (int i = 0; i < 3; i++)
		timeout_size();
	assert_int_equal(r.h.tcb->mss, 1200);
	hv_tcp_set_pmtu(r.h.tcb, 1400, r.now);
	assert_int_equal(r.h.tcb->mss, 1360);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(shrinks_by_steps), T(small_segments_prove_nothing), T(message), T(small_ones_pass), T(comes_back), T(still_there),
		T(told_by_kernel) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
