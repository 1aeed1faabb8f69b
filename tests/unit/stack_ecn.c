/*
 * stack_ecn.c - ECN on the sending side (RFC 3168): what is ECN-capable, and what a mark does. What the kernel does too is in the packet
 * scripts ecn-*.pkt; this is what they can't see: IPv6 and small messages by the fast send, bursts, moves, and the window in octets.
 */
#include "stack_rig.h"

#include "stack/tcb.h"

#define ECT0 2u

static struct rig r;

static int setup(void **state)
{
	(void)state;
	rig_init(&r);
	r.img.opts = HV_TCPO_SACK | HV_TCPO_ECN;
	r.img.snd_ssthresh = 10;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&r);
	return 0;
}

static void data(uint32_t seq, uint32_t len, unsigned tos, unsigned flags)
{
	struct rig_seg *s = rig_take(&r);

	assert_int_equal(s->seq, seq);
	assert_int_equal(s->len, len);
	assert_int_equal(s->tos, tos);
	assert_int_equal(s->flags & (SEG_ECE | SEG_CWR), flags);
}

static void take_small(void *arg, const uint8_t *frame, uint32_t len)
{
	(void)len;
	*(unsigned *)arg = frame[14] >> 4 == 6 ? (uint8_t)(frame[14] << 4 | frame[15] >> 4) : frame[15];
}

/* With the program's DSCP, through the queue and through the fast send. */
static void both_families(void **state)
{
	for (unsigned v6 = 0; v6 < 2; v6++) {
		struct hv_tx tx;
		unsigned tos = 0;

		if (v6 != 0) {
			teardown(state);
			setup(state);
			r.img.tuple = (struct hv_tuple){ .family = 6, .proto = 6, .lport = 1, .rport = 2, .laddr = { 0x20, 1, [15] = 1 },
				.raddr = { 0x20, 1, [15] = 2 } };
			r.img.pmtu = 1500;
		}
		r.img.tos = 0xb9; /* the program can't say ECT */
		rig_start(&r);
		rig_write(&r, 2000);
		data(0, 1000, 0xb8 | ECT0, 0);
		data(1000, 1000, 0xb8 | ECT0, 0);
		in(&r, .ack = 2000, .len = 10);
		rig_flush(&r);
		rig_wait(&r, 50000);
		assert_int_equal(rig_ack(&r, 10)->tos, 0xb8);
		assert_int_equal(hv_tcp_send_fast(r.h.tcb, &r.h.env, "0123456789", 10, &tx, r.now), 10);
		host_post(&r.h, &tx, take_small, &tos);
		assert_int_equal(tos, 0xb8 | ECT0);
		rig_opt(&r, HV_TCP_TOS, 0x2f);
		rig_write(&r, 100);
		data(2000, 100, 0x2c | ECT0, 0);
		while (rig_stat(&r).total_retrans == 0)
			rig_next(&r);
		assert_int_equal(rig_take(&r)->tos, 0x2c);
	}
}

static void not_negotiated(void **state)
{
	(void)state;
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	rig_write(&r, 3000);
	data(0, 1000, 0, 0);
	data(1000, 1000, 0, 0);
	data(2000, 1000, 0, 0);
	in(&r, .ack = 1000, .flags = SEG_ECE);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_in_range(rig_stat(&r).cwnd, 10, 11);
}

static void nothing(void *arg, const uint8_t *frame, uint32_t len)
{
	(void)arg;
	(void)frame;
	(void)len;
}

/* A NIC that makes segments of a burst repeats the flags in each: CWR goes alone, and the rest in bursts again. */
static void burst(void **state)
{
	struct hv_tx tx;
	unsigned cwr = 0, bursts = 0;

	(void)state;
	r.img.snd_cwnd = 40;
	rig_start(&r);
	rig_write(&r, 10000);
	rig_drop_out(&r);
	in(&r, .ack = 10000, .flags = SEG_ECE);
	r.h.env.tso_max = 16000;
	r.hold = true;
	rig_write(&r, 20000);
	while (hv_tcp_output(r.h.tcb, &r.h.env, &tx, r.now)) {
		assert_int_equal(tx.hdr[15] & 3, ECT0);
		if ((tx.hdr[14 + 20 + 13] & SEG_CWR) != 0) {
			assert_int_equal(tx.payload, 1000);
			assert_int_equal(r.h.tcb->snd_nxt - r.iss, 11000);
			cwr++;
		}
		bursts += tx.mss != 0;
		host_post(&r.h, &tx, nothing, NULL);
	}
	assert_int_equal(cwr, 1);
	assert_int_equal(bursts, 2);
	host_complete(&r.h, HOST_SQ);
	r.hold = false;
}

/* CUBIC's beta, once; cwnd stays until what was sent afterwards is acknowledged, then it grows again. */
static void window(void **state)
{
	uint32_t cwnd;

	(void)state;
	rig_start(&r);
	rig_write(&r, 200000);
	for (uint32_t i = 0; i < 10; i++)
		data(1000 * i, 1000, ECT0, 0);
	r.now += 10000;
	in(&r, .ack = 1000, .flags = SEG_ECE);
	assert_int_equal(rig_stat(&r).ca_state, 2);
	cwnd = r.h.tcb->cwnd;
	assert_int_equal(cwnd, 7000);
	assert_int_equal(rig_stat(&r).ssthresh, 7);
	for (uint32_t i = 2; i <= 10; i++) {
		in(&r, .ack = 1000 * i, .flags = SEG_ECE);
		assert_int_equal(r.h.tcb->cwnd, cwnd);
	}
	assert_int_equal(rig_stat(&r).ssthresh, 7);
	assert_int_equal(rig_stat(&r).ca_state, 2);
	data(10000, 1000, ECT0, SEG_CWR);
	data(11000, 1000, ECT0, 0);
	rig_drop_out(&r);
	r.now += 10000;
	for (uint32_t i = 11; i <= 40; i++)
		in(&r, .ack = 1000 * i);
	assert_int_equal(rig_stat(&r).ca_state, 0);
	assert_true(r.h.tcb->cwnd > cwnd);
	rig_drop_out(&r);
	/* what was marked after that is another reduction */
	in(&r, .ack = 41000, .flags = SEG_ECE);
	assert_int_equal(rig_stat(&r).ca_state, 2);
	assert_true(r.h.tcb->cwnd <= cwnd);
	rig_drop_out(&r);
}

/* A timeout in the window of a mark is no second reduction, one after it is. */
static void timeout(void **state)
{
	(void)state;
	rig_start(&r);
	rig_write(&r, 10000);
	rig_drop_out(&r);
	in(&r, .ack = 1000, .flags = SEG_ECE);
	assert_int_equal(rig_stat(&r).ssthresh, 7);
	while (rig_stat(&r).ca_state != 4)
		rig_next(&r);
	assert_int_equal(rig_stat(&r).ssthresh, 7);
	rig_drop_out(&r);
	in(&r, .ack = 10000);
	rig_write(&r, 1000);
	data(10000, 1000, ECT0, SEG_CWR);
	in(&r, .ack = 11000);
	rig_write(&r, 1000);
	rig_drop_out(&r);
	in(&r, .ack = 12000, .flags = SEG_ECE); /* ssthresh is what follows from cwnd now, which is small */
	assert_in_range(rig_stat(&r).ssthresh, 2, 6);
	assert_int_equal(rig_stat(&r).ca_state, 2);
	/* all that was sent before the reduction is acknowledged: nothing of it can be lost */
	r.h.tcb->cwnd = 20000;
	rig_write(&r, 10000);
	rig_drop_out(&r);
	while (rig_stat(&r).ca_state != 4)
		rig_next(&r);
	assert_int_equal(rig_stat(&r).ssthresh, 14);
	rig_drop_out(&r);
}

/* What the kernel may have sent before the move isn't new. */
static void moved(void **state)
{
	static uint8_t octets[3000];
	struct hv_tcp_image img;

	(void)state;
	for (uint32_t i = 0; i < sizeof octets; i++)
		octets[i] = rig_octet(true, i);
	r.img.snd = octets;
	r.img.snd_len = sizeof octets;
	r.img.snd_end = r.img.snd_una + 3000;
	r.img.snd_nxt = r.img.snd_una + 1000;
	rig_start(&r);
	rig_pump(&r);
	data(1000, 1000, 0, 0);
	data(2000, 1000, 0, 0);
	rig_write(&r, 1000);
	data(3000, 1000, ECT0, 0);
	hv_tcp_export(r.h.tcb, &img, r.now);
	assert_int_equal(img.opts & HV_TCPO_ECN, HV_TCPO_ECN);
	assert_int_equal(img.tos, 0);
	in(&r, .ack = 4000);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(both_families), T(not_negotiated), T(burst), T(window), T(timeout), T(moved) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
