/*
 * stack_rehearse.c - hv_tcp_rehearse(): it makes the segment that would be the answer, and the connection doesn't notice.
 */
#include "stack_rig.h"

#include "stack/tcb.h"

static struct rig r;
static _Alignas(64) uint8_t mem[HV_TCP_REHEARSAL];

static int setup(void **state)
{
	(void)state;
	rig_init(&r);
	r.img.opts = HV_TCPO_TS | HV_TCPO_SACK | HV_TCPO_WS;
	r.img.snd_wscale = r.img.rcv_wscale = 2;
	r.img.ts_recent_valid = true;
	rig_start(&r);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_end(&r);
	return 0;
}

/* Whatever it says, nothing that the connection owns or points to has changed. */
static bool rehearse(struct hv_tx *tx)
{
	const struct hv_tcb *t = r.h.tcb;
	struct hv_tcb tcb = *t;
	struct hv_env env = r.h.env;
	struct hv_tcp_counters cnt = *t->cnt;
	struct hv_chunk sent = { 0 };

	if (t->tx_head != NULL)
		sent = *t->tx_head;
	memset(tx, 0, sizeof *tx);
	bool done = hv_tcp_rehearse(t, mem, tx, r.now);
	assert_memory_equal(t, &tcb, sizeof tcb);
	assert_memory_equal(&r.h.env, &env, sizeof env);
	assert_memory_equal(t->cnt, &cnt, sizeof cnt);
	if (t->tx_head != NULL)
		assert_memory_equal(t->tx_head, &sent, sizeof sent);
	return done;
}

static void exchange(uint32_t i)
{
	rig_write(&r, 100);
	rig_data(&r, 100 * i, 100);
	rig_wait(&r, 50);
	in(&r, .seq = 60 * i, .len = 60, .ack = 100 * (i + 1));
	assert_int_equal(rig_read(&r, 100), 60);
}

static void answer(void **state)
{
	struct hv_tx tx;
	struct hv_seg seg;

	(void)state;
	for (uint32_t i = 0; i < 20; i++) {
		exchange(i);
		assert_true(rehearse(&tx)); /* everything is acknowledged */
	}
	rig_write(&r, 100);
	rig_data(&r, 2000, 100);
	rig_wait(&r, 20);
	assert_true(rehearse(&tx)); /* what usually is: the request is in flight */
	assert_int_equal(tx.payload, HV_TCP_REHEARSAL_LEN);
	assert_int_equal(tx.nsge, 1);
	assert_true(tx.inline_ok);
	assert_true(hv_tcp_parse(tx.hdr + tx.l4_off, tx.hdr_len - tx.l4_off, &seg));
	assert_int_equal(seg.seq, r.iss + 2100);
	assert_int_equal(seg.ack, r.irs + 1200 + HV_TCP_REHEARSAL_LEN);
	in(&r, .seq = 1200, .len = 60, .ack = 2100);
	assert_int_equal(rig_read(&r, 100), 60);
	exchange(21);
}

static void not_now(void **state)
{
	struct hv_tx tx;

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		exchange(i);
	assert_true(rehearse(&tx));
	in(&r, .seq = 180, .len = 60, .ack = 300); /* unread octets */
	assert_false(rehearse(&tx));
	assert_int_equal(rig_read(&r, 100), 60);
	assert_true(rehearse(&tx));
	in(&r, .seq = 300, .len = 60, .ack = 300); /* a hole */
	assert_false(rehearse(&tx));
	in(&r, .seq = 240, .len = 60, .ack = 300);
	assert_int_equal(rig_read(&r, 200), 120);
	rig_drop_out(&r);
	rig_write(&r, 5000); /* a burst in flight */
	assert_false(rehearse(&tx));
	rig_drop_out(&r);
	in(&r, .seq = 360, .ack = 5300);
	assert_true(rehearse(&tx));
	rig_opt(&r, HV_TCP_CORK, 1);
	assert_false(rehearse(&tx));
	rig_opt(&r, HV_TCP_CORK, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answer, setup, teardown),
		cmocka_unit_test_setup_teardown(not_now, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
