/*
 * stack_rfc9293.c - requirements of RFC 9293 that no other unit test is about; the table is tests/rfc9293.md.
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
	rig_drop_out(&r);
	rig_end(&r);
	return 0;
}

/* MUST-28: two hours at least, if the program doesn't say otherwise. */
static void keepalive_default(void **state)
{
	(void)state;
	rig_start(&r);
	rig_opt(&r, HV_TCP_KEEPALIVE, 1);
	assert_true(hv_tcp_deadline(r.h.tcb) - r.now >= 7200ull * 1000000);
	rig_wait(&r, 7100ull * 1000000);
	rig_none(&r);
	rig_wait(&r, 200ull * 1000000);
	assert_int_equal(rig_take(&r)->seq, 0xffffffffu);
}

/* MUST-1: one half of the field's range is no less than the other, of the peer's window and of ours. */
static void window_is_unsigned(void **state)
{
	uint32_t to = 0;

	(void)state;
	r.img.snd_cwnd = 1000;
	r.img.sndbuf = 1 << 18;
	r.img.rcv_wnd = 0xffff;
	r.img.rcvbuf = 1 << 18;
	r.img.snd_wnd = 0;
	rig_start(&r);
	in(&r, .ack = 0, .wnd = 0x8000);
	rig_write(&r, 70000);
	while (r.at_out != r.n_out) {
		struct rig_seg *s = rig_take(&r);

		to = s->seq + s->len;
		assert_in_range(s->wnd, 0x8000, 0xffff);
	}
	assert_in_range(to, 0x8000 - r.img.snd_mss, 0x8000);
	in(&r, .ack = 0, .wnd = 0xffff);
	while (r.at_out != r.n_out) {
		struct rig_seg *s = rig_take(&r);

		to = s->seq + s->len;
	}
	assert_in_range(to, 0xffff - r.img.snd_mss, 0xffff);
}

static uint8_t ip[60]; /* the header of the frame that was posted last */

static void keep_header(void *arg, const uint8_t *frame, uint32_t len)
{
	(void)arg;
	assert_true(len >= 14 + sizeof ip);
	memcpy(ip, frame + 14, sizeof ip);
}

/* MUST-48, MUST-49, SHLD-22: what the program has set goes out with each segment; the two ECN bits aren't the program's. */
static void ttl_and_diffserv(void **state)
{
	struct hv_tx tx;
	unsigned acts = 0;

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		if (v6 != 0) {
			rig_end(&r);
			rig_init(&r);
			r.img.tuple = (struct hv_tuple){ .family = 6, .proto = 6, .lport = 1, .rport = 2, .laddr = { 0x20, 1, [15] = 1 },
				.raddr = { 0x20, 1, [15] = 2 } };
			r.img.pmtu = 1500;
		}
		r.img.ttl = 37;
		r.img.tos = 0xb9;
		rig_start(&r);
		assert_int_equal(hv_tcp_write(r.h.tcb, &r.h.env, "0123456789abcdefghij", 20, false, &acts, r.now), 20);
		assert_true(hv_tcp_output(r.h.tcb, &r.h.env, &tx, r.now));
		host_post(&r.h, &tx, keep_header, NULL);
		if (v6 != 0) {
			assert_int_equal((ip[0] << 4 | ip[1] >> 4) & 0xff, 0xb8);
			assert_int_equal(ip[7], 37);
		} else {
			assert_int_equal(ip[1], 0xb8);
			assert_int_equal(ip[8], 37);
		}
		host_complete(&r.h, HOST_SQ);
	}
}

/* MUST-58, MUST-59: a batch of small segments is one ACK, after the last of them. */
static void batch_before_ack(void **state)
{
	(void)state;
	rig_start(&r);
	for (uint32_t i = 0; i < 8; i++)
		in(&r, .seq = 50 * i, .len = 50);
	rig_none(&r);
	rig_wait(&r, 500000);
	rig_ack(&r, 400);
	rig_none(&r);
}

/* MUST-61, SHLD-27: PSH on the last segment of what is buffered and on no other, however often it was written. */
static void psh_on_the_last_segment(void **state)
{
	(void)state;
	rig_start(&r);
	r.hold = true;
	for (int i = 0; i < 5; i++)
		rig_write(&r, 700);
	rig_pump(&r);
	for (uint32_t at = 0; at < 3500;) {
		struct rig_seg *s = rig_take(&r);

		assert_int_equal(s->seq, at);
		at += s->len;
		assert_int_equal((s->flags & SEG_PSH) != 0, at == 3500);
	}
}

static void fill_window(void)
{
	uint32_t seq = 0;

	for (int i = 0; i < 200; i++) {
		rig_drop_out(&r);
		in(&r, .seq = seq, .len = 1000);
		seq = hv_tcp_readable(r.h.tcb);
		rig_wait(&r, 1000000);
		if (r.n_out != 0 && r.out[r.n_out - 1].wnd == 0)
			return;
	}
	fail_msg("the window never closes");
}

/* MUST-66: with a receive window of zero, RST and URG are processed all the same. */
static void zero_window_rst_and_urg(void **state)
{
	(void)state;
	rig_start(&r);
	fill_window();
	uint32_t nxt = hv_tcp_readable(r.h.tcb);
	assert_true(in(&r, .seq = nxt, .flags = SEG_URG, .urg = 1) & HV_TCP_DEMOTE);
	assert_true(in(&r, .seq = nxt, .flags = SEG_RST) & HV_TCP_DEMOTE);
	assert_int_equal(hv_tcp_readable(r.h.tcb), nxt);
}

/* SHLD-2: the text of a RST is no data, and no reason to refuse it. */
static void rst_with_data(void **state)
{
	(void)state;
	rig_start(&r);
	unsigned a = in(&r, .seq = 0, .len = 20, .flags = SEG_RST);
	assert_true(a & HV_TCP_DEMOTE);
	assert_false(a & (HV_TCP_READABLE | HV_TCP_KEPT));
	assert_int_equal(hv_tcp_readable(r.h.tcb), 0);
}

/* SHLD-11: nobody is given up before 100 seconds. */
static void r2_is_long_enough(void **state)
{
	uint64_t t0;

	(void)state;
	rig_start(&r);
	t0 = r.now;
	rig_write(&r, 100);
	while ((r.acts & HV_TCP_TIMEDOUT) == 0) {
		rig_next(&r);
		rig_drop_out(&r);
	}
	assert_in_range(r.now - t0, 100000000, 3600000000u);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(window_is_unsigned), T(keepalive_default), T(ttl_and_diffserv), T(batch_before_ack), T(psh_on_the_last_segment),
		T(zero_window_rst_and_urg), T(rst_with_data), T(r2_is_long_enough) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
