/*
 * stack_attack_blind.c - an attacker off the path, who guesses numbers (RFC 5961), floods, and looks for side channels (CVE-2016-5696).
 */
#include "stack_attack.h"

/* Everything that a segment may change, without the counters. */
static struct hv_tcp_image snapshot(void)
{
	struct hv_tcp_image m;

	hv_tcp_export(r.h.tcb, &m, r.now);
	return m;
}

static void unchanged(const struct hv_tcp_image *was)
{
	struct hv_tcp_image m = snapshot();

	assert_memory_equal(was, &m, sizeof m);
}

/* RFC 5961 3.2: only a reset with exactly RCV.NXT counts; elsewhere in the window a challenge, outside of it nothing. */
static void blind_rst(void **state)
{
	(void)state;
	attack_start(0);
	struct hv_tcp_image was = snapshot();
	for (uint64_t s = 1; s < 0x100000000u; s += 9973) { /* a window has room for three guesses */
		uint32_t seq = (uint32_t)s;
		unsigned a = in(&r, .seq = seq, .flags = SEG_RST, .no_ack = (seq & 1) != 0);

		assert_false(a & (HV_TCP_DEMOTE | HV_TCP_READABLE));
		if (seq > 32000)
			rig_none(&r);
		rig_drop_out(&r);
	}
	unchanged(&was);
	assert_true(in(&r, .seq = 0, .flags = SEG_RST) & HV_TCP_DEMOTE);
	rig_none(&r);
}

/* A stack that takes any reset in the window is reset by 2^32 / window guesses. */
static void rst_in_window_is_challenged(void **state)
{
	static const uint32_t seq[] = { 1, 2, 1000, 31999, 32000 };

	(void)state;
	attack_start(0);
	for (uint32_t i = 0; i < 5; i++) {
		assert_false(in(&r, .seq = seq[i], .flags = SEG_RST) & HV_TCP_DEMOTE);
		rig_ack(&r, 0); /* an honest peer whose RST was ahead answers this with one that fits */
		rig_none(&r);
		rig_wait(&r, 1000000);
	}
	assert_false(in(&r, .seq = 32001, .flags = SEG_RST) & HV_TCP_DEMOTE);
	rig_none(&r);
	assert_false(in(&r, .seq = 0xffffffffu, .flags = SEG_RST) & HV_TCP_DEMOTE);
	rig_none(&r);
}

/* RFC 5961 4.2: a SYN never ends a connection and is answered at the limited rate only. */
static void blind_syn(void **state)
{
	(void)state;
	attack_start(0);
	struct hv_tcp_image was = snapshot();
	for (uint64_t s = 0; s < 0x100000000u; s += 99991)
		assert_false(in(&r, .seq = (uint32_t)s, .flags = SEG_SYN, .no_ack = (s & 1) != 0) & (HV_TCP_DEMOTE | HV_TCP_READABLE));
	unchanged(&was);
	assert_int_equal(r.n_out, 1); /* all within half a second */
	rig_ack(&r, 0);
}

/* RFC 5961 5.2: data in the window needs an ACK in [SND.UNA - MAX.SND.WND, SND.NXT]; the mean attacker knows only the addresses. */
static void blind_data(void **state)
{
	(void)state;
	attack_start(0);
	rig_write(&r, 1000);
	rig_drop_out(&r);
	struct hv_tcp_image was = snapshot();
	for (uint64_t a = 1001; a < 0x100000000u - 64000; a += 49999) {
		unsigned act = in(&r, .seq = (uint32_t)a % 3 * 100, .ack = (uint32_t)a, .len = 100);

		assert_false(act & (HV_TCP_READABLE | HV_TCP_KEPT | HV_TCP_DEMOTE));
		act = in(&r, .seq = 0, .ack = (uint32_t)a, .len = 10, .flags = (a & 1) != 0 ? SEG_FIN : SEG_URG);
		assert_false(act & (HV_TCP_READABLE | HV_TCP_KEPT | HV_TCP_DEMOTE));
	}
	assert_false(in(&r, .seq = 0, .ack = 1001, .len = 100) & HV_TCP_READABLE);
	assert_false(in(&r, .seq = 0, .ack = 0u - 64001u, .len = 100) & HV_TCP_READABLE);
	unchanged(&was);
	assert_int_equal(r.n_out, 1);
	rig_drop_out(&r);
	assert_true(in(&r, .seq = 0, .ack = 0u - 64000u, .len = 100) & HV_TCP_READABLE); /* as old as an honest one can be */
	assert_true(in(&r, .seq = 100, .ack = 1000, .len = 100) & HV_TCP_READABLE);
	assert_int_equal(attack_readable(), 200);
}

/* CVE-2016-5696: with one counter for all connections, an attacker counts the challenges that are left on a connection of his own. */
static void challenge_limit_is_per_connection(void **state)
{
	struct hv_tcp_image m;
	struct hv_tcb *other = aligned_alloc(64, (hv_tcb_size() + 63) / 64 * 64);
	struct hv_seg s = { .seq = 0, .flags = SEG_RST };
	struct hv_tx tx;
	uint8_t l2[14] = { 0 };

	(void)state;
	attack_start(0);
	m = r.img;
	m.tuple.rport++;
	assert_non_null(other);
	assert_int_equal(hv_tcp_import(other, &r.h.env, &r.h.cnt, &m, l2, sizeof l2, NULL, r.now), 0);
	for (uint32_t i = 0; i < 1000; i++)
		in(&r, .seq = 1000, .flags = SEG_RST);
	assert_int_equal(r.n_out, 1);
	s.seq = r.irs + 1000;
	assert_int_equal(hv_tcp_input(other, &r.h.env, &s, r.now), HV_TCP_DROP | HV_TCP_OUT);
	assert_true(hv_tcp_output(other, &r.h.env, &tx, r.now));
	assert_int_equal(tx.payload, 0);
	hv_tcp_release(other, &r.h.env);
	free(other);
	/* and what was spent on challenges isn't missing for honest ACKs */
	rig_drop_out(&r);
	for (uint32_t i = 0; i < 20; i++) {
		in(&r, .seq = 2000 * i, .len = 1000);
		in(&r, .seq = 2000 * i + 1000, .len = 1000);
		rig_flush(&r);
		assert_true(r.n_out != 0);
		rig_drop_out(&r);
		rig_read(&r, 4096);
	}
}

/* Each kind of challenge draws from the same half second; then there is one again. */
static void challenges_are_rate_limited(void **state)
{
	(void)state;
	attack_start(0);
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 500; i++) {
			in(&r, .seq = 1000 + i, .flags = SEG_RST);
			in(&r, .seq = 1000 + i, .flags = SEG_SYN);
			in(&r, .seq = 0, .ack = 5000 + i);
			in(&r, .seq = 60000 + i, .ack = 0);
		}
		assert_int_equal(r.n_out, 1);
		rig_ack(&r, 0);
		r.now += 500000;
	}
}

/* Acceptable ACKs without news: no answer, and the retransmission timer isn't pushed away by them. */
static void ack_flood(void **state)
{
	(void)state;
	attack_start(HV_TCPO_SACK);
	rig_write(&r, 500);
	rig_drop_out(&r);
	rig_next(&r); /* the tail loss probe is gone, the RTO runs */
	rig_drop_out(&r);
	uint64_t at = hv_tcp_deadline(r.h.tcb);
	for (uint32_t i = 0; i < 20000; i++) {
		r.now += 5;
		in(&r, .ack = 0);
		rig_none(&r);
	}
	assert_true(r.now < at);
	assert_int_equal(hv_tcp_deadline(r.h.tcb), at);
	rig_next(&r);
	rig_data(&r, 0, 500);
}

/* Unacceptable ACKs: what an attacker sends to one end to make the other answer must not make two ends talk for ever. */
static void ack_storm_between_two_ends(void **state)
{
	uint32_t answers = 0;

	(void)state;
	attack_start(0);
	for (uint32_t i = 0; i < 10000; i++) { /* one second */
		r.now += 100;
		in(&r, .seq = 50000, .ack = 0);
		in(&r, .seq = 0xffffffffu, .ack = 0); /* as a keepalive probe */
		in(&r, .seq = 0, .ack = 70000);
		answers += r.n_out;
		rig_drop_out(&r);
	}
	assert_in_range(answers, 2, 60);
}

/* An ACK of what was never sent: neither believed, nor a reason to give up the connection. */
static void ack_of_unsent_data(void **state)
{
	static const uint32_t ack[] = { 1001, 2000, 64000, 0x7fffffff, 1001 };

	(void)state;
	attack_start(0);
	rig_write(&r, 1000);
	rig_drop_out(&r);
	struct hv_tcp_image was = snapshot();
	for (uint32_t i = 0; i < 5; i++) {
		unsigned a = in(&r, .ack = ack[i], .len = (i & 1) * 100);

		assert_false(a & (HV_TCP_DEMOTE | HV_TCP_TIMEDOUT | HV_TCP_WRITABLE | HV_TCP_READABLE));
		unchanged(&was);
		rig_drop_out(&r);
	}
	in(&r, .ack = 1000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	rig_write(&r, 10);
	rig_data(&r, 1000, 10);
}

/* Right after a move too: the kernel can't have sent more than there was in its queue. */
static void ack_of_unsent_data_after_import(void **state)
{
	(void)state;
	r.img.snd_end += 3000;
	r.img.snd_len = 3000;
	r.img.snd_wnd = 0; /* so that nothing of it leaves from here */
	attack_start(0);
	in(&r, .ack = 3001, .zero_wnd = true);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 3000);
	in(&r, .ack = 3000, .zero_wnd = true);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	rig_drop_out(&r);
	rig_write(&r, 1000);
	in(&r, .ack = 3500, .zero_wnd = true); /* and that was for once */
	assert_int_equal(hv_tcp_outq(r.h.tcb), 1000);
}

/* A far TSval must not be stored before the segment is found acceptable: PAWS would then refuse the honest peer for 24 days. */
static void timestamp_far_future(void **state)
{
	const uint32_t far = 7000 + 0x70000000u;

	(void)state;
	attack_start(HV_TCPO_TS);
	in(&r, .seq = 50000, .len = 10, .tsval = far);           /* outside of the window */
	in(&r, .seq = 0x80000000u, .tsval = far);
	in(&r, .seq = 0, .ack = 90000, .len = 10, .tsval = far); /* ACK unacceptable */
	in(&r, .seq = 0, .ack = 90000, .tsval = far);
	in(&r, .seq = 0, .len = 10, .no_ack = true, .tsval = far);
	in(&r, .seq = 1000, .flags = SEG_RST, .tsval = far);
	in(&r, .seq = 0, .flags = SEG_SYN, .tsval = far);
	in(&r, .seq = 5000, .len = 10, .tsval = far);            /* acceptable, but ahead of Last.ACK.sent (RFC 7323 4.3) */
	rig_drop_out(&r);
	assert_int_equal(attack_readable(), 0);
	assert_true(in(&r, .seq = 0, .len = 100, .tsval = 7001) & HV_TCP_READABLE);
	rig_wait(&r, 500000);
	assert_int_equal(rig_take(&r)->tsecr, 7001);
}

/* The same by the short way of prediction. */
static void timestamp_far_future_predicted(void **state)
{
	(void)state;
	attack_start(HV_TCPO_TS);
	rig_opt(&r, HV_TCP_QUICKACK, 0);
	in(&r, .seq = 0, .len = 100, .tsval = 7001);  /* the ACK is delayed: Last.ACK.sent stays behind RCV.NXT */
	uint64_t predicted = r.h.cnt.predicted;
	in(&r, .seq = 100, .len = 100, .tsval = 7001 + 0x70000000u);
	assert_int_equal(r.h.cnt.predicted, predicted + 1);
	rig_wait(&r, 500000);
	assert_true(in(&r, .seq = 200, .len = 100, .tsval = 7002) & HV_TCP_READABLE);
}

int main(void)
{
	const struct CMUnitTest tests[] = { ATTACK(blind_rst), ATTACK(rst_in_window_is_challenged), ATTACK(blind_syn), ATTACK(blind_data),
		ATTACK(challenge_limit_is_per_connection), ATTACK(challenges_are_rate_limited), ATTACK(ack_flood),
		ATTACK(ack_storm_between_two_ends), ATTACK(ack_of_unsent_data), ATTACK(ack_of_unsent_data_after_import),
		ATTACK(timestamp_far_future), ATTACK(timestamp_far_future_predicted) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
