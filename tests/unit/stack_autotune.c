/*
 * stack_autotune.c - buffers that grow with what the path and the reader can do, and when they don't.
 */
#include "stack_rig.h"

#include "stack/tcb.h"

#define WND 25000u /* of a buffer of 40,000 */

static struct rig r;

static int setup(void **state)
{
	(void)state;
	rig_init(&r);
	r.img.opts = HV_TCPO_WS | HV_TCPO_SACK;
	r.img.rcv_wscale = 7;
	r.img.snd_wscale = 7;
	r.img.rcvbuf = 40000;
	r.img.rcvbuf_max = 1000000;
	r.img.rcv_wnd = WND;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&r);
	return 0;
}

/* One round trip of `us`: the peer sends up to `most` octets of what it may, the reader takes up to `reads`. */
static void round_trip(uint32_t *seq, uint32_t most, uint32_t reads, uint32_t us)
{
	uint32_t edge = r.h.tcb->rcv_edge - r.irs, n = most / 1000;

	for (; n != 0 && *seq + 1000 <= edge; n--) {
		in(&r, .seq = *seq, .len = 1000, .tsecr = (uint32_t)((r.now - us) / 1000) + r.img.ts_off);
		r.img.rcv_nxt += 1000;
		r.img.rcv_len += 1000;
		*seq += 1000;
	}
	rig_read(&r, reads);
	rig_drop_out(&r);
	rig_wait(&r, us);
	rig_drop_out(&r);
}

static uint32_t window(void)
{
	return r.h.tcb->rcv_edge - r.h.tcb->rcv_nxt;
}

static void follows_reader(void **state)
{
	uint32_t seq = 0, share;

	(void)state;
	rig_start(&r);
	share = r.h.tcb->pool_lim;
	assert_in_range(share, 2 * WND, 100000);
	for (int i = 0; i < 12; i++)
		round_trip(&seq, 200000, 200000, 10000);
	assert_in_range(window(), share - 2000, share); /* all that the pool has for one connection, and no more */
	assert_true(r.h.tcb->rcvbuf > 2 * 40000);
}

static void by_timestamps(void **state)
{
	uint32_t seq = 0;

	(void)state;
	r.img.opts |= HV_TCPO_TS;
	r.img.mss_clamp = RIG_MSS + 12;
	r.img.pmtu = RIG_MSS + 52;
	r.img.srtt_us = 1000; /* the path has become longer */
	r.img.ts_off = 77;
	r.img.ts_recent_valid = true;
	r.img.ts_recent = 5;
	r.peer_ts = 6;
	rig_start(&r);
	for (int i = 0; i < 40; i++)
		round_trip(&seq, 200000, 200000, 50000);
	assert_true(window() > 2 * WND);
}

static void bounded(void **state)
{
	uint32_t seq = 0;

	(void)state;
	r.img.rcvbuf_max = 50000;
	rig_start(&r);
	for (int i = 0; i < 20; i++)
		round_trip(&seq, 200000, 200000, 10000);
	assert_int_equal(r.h.tcb->rcvbuf, 50000);
	assert_in_range(window(), 29000, 31250 + 128);
}

static void fixed_by_program(void **state)
{
	uint32_t seq = 0;

	(void)state;
	rig_start(&r);
	rig_opt(&r, HV_TCP_RCVBUF, 40000);
	for (int i = 0; i < 20; i++)
		round_trip(&seq, 200000, 200000, 10000);
	assert_int_equal(r.h.tcb->rcvbuf, 40000);
	assert_in_range(window(), 1, WND + 128);
}

static void slow_reader(void **state)
{
	uint32_t seq = 0;

	(void)state;
	rig_start(&r);
	for (int i = 0; i < 100; i++)
		round_trip(&seq, 200000, 2000, 10000);
	assert_int_equal(r.h.tcb->rcvbuf, 40000);
}

static void slow_sender(void **state)
{
	uint32_t seq = 0;

	(void)state;
	rig_start(&r);
	for (int i = 0; i < 300; i++)
		round_trip(&seq, 4000, 4000, 10000);
	assert_int_equal(r.h.tcb->rcvbuf, 40000);
}

/* Fills the send buffer, lets everything be acknowledged that leaves: n times. */
static void send_rounds(int n)
{
	for (int i = 0; i < n; i++) {
		rig_write(&r, 250000);
		rig_drop_out(&r);
		r.now += 10000;
		in(&r, .ack = r.h.tcb->snd_nxt - r.iss, .wnd = 4u << 20);
		rig_drop_out(&r);
	}
}

static void send_follows_cwnd(void **state)
{
	(void)state;
	r.img.sndbuf = 20000;
	r.img.sndbuf_max = 150000;
	rig_start(&r);
	assert_int_equal(rig_write(&r, 250000), 20000);
	rig_drop_out(&r);
	send_rounds(2);
	assert_in_range(r.h.tcb->sndbuf, 3 * 12000, 3 * r.h.tcb->cwnd);
	send_rounds(8);
	assert_int_equal(r.h.tcb->sndbuf, 150000);
	rig_write(&r, 250000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 150000);
}

static void send_fixed(void **state)
{
	(void)state;
	r.img.sndbuf = 20000;
	r.img.sndbuf_max = 150000;
	rig_start(&r);
	rig_opt(&r, HV_TCP_SNDBUF, 20000);
	send_rounds(10);
	assert_int_equal(r.h.tcb->sndbuf, 20000);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(follows_reader), T(by_timestamps), T(bounded), T(fixed_by_program), T(slow_reader), T(slow_sender),
		T(send_follows_cwnd), T(send_fixed) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
