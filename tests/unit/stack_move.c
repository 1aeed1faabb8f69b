/*
 * stack_move.c - import and export: nothing taken on refusal, nothing lost on the way, late octets, the kernel's own transmissions.
 */
#include "stack_rig.h"

#include "stack/tcb.h"

#include <errno.h>
#include <stdlib.h>

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

static void with_queues(uint32_t unread, uint32_t flight, uint32_t unsent)
{
	r.img.rcv_len = unread;
	r.img.rcv_nxt = r.irs + unread;
	r.img.rcv_wup = r.irs + unread;
	r.img.snd_nxt = r.iss + flight;
	r.img.snd_end = r.iss + flight + unsent;
	r.img.snd_len = flight + unsent;
}

static void round_trip(void **state)
{
	struct hv_tcp_image m, a;

	(void)state;
	with_queues(5000, 3000, 2000);
	r.img.opts = HV_TCPO_TS | HV_TCPO_SACK | HV_TCPO_WS;
	r.img.snd_wscale = 2;
	r.img.rcv_wscale = 5;
	r.img.snd_mss = RIG_MSS - 12;
	r.img.ts_off = 77000;
	r.img.ts_recent = 5;
	r.img.ts_recent_valid = true;
	r.img.tos = 0x10;
	r.img.ttl = 55;
	r.img.user_timeout_ms = 12345;
	r.img.keepalive = true;
	r.img.keepidle_s = 99;
	r.img.keepintvl_s = 9;
	r.img.keepcnt = 4;
	r.img.window_clamp = 30000;
	a = r.img;
	r.hold = true;
	uint8_t *snd = malloc(5000), *rcv = malloc(5000);
	assert_non_null(snd);
	assert_non_null(rcv);
	for (uint32_t i = 0; i < 5000; i++) {
		snd[i] = rig_octet(true, i);
		rcv[i] = rig_octet(false, i);
	}
	r.img.snd = snd;
	r.img.rcv = rcv;
	assert_int_equal(host_import(&r.h, &r.img, r.now), 0);
	memset(snd, 0, 5000); /* copied */
	assert_int_equal(hv_tcp_readable(r.h.tcb), 5000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 5000);
	assert_int_equal(hv_tcp_outq_nsd(r.h.tcb), 2000);
	host_export(&r.h, &m, r.now);
	assert_null(r.h.fail);
	assert_true(hv_tuple_eq(&m.tuple, &a.tuple));
	assert_int_equal(m.opts, a.opts);
	assert_int_equal(m.snd_wscale, 2);
	assert_int_equal(m.rcv_wscale, 5);
	assert_int_equal(m.ttl, 55);
	assert_int_equal(m.tos, 0x10);
	assert_int_equal(m.snd_una, a.snd_una);
	assert_int_equal(m.snd_nxt, a.snd_nxt);
	assert_int_equal(m.snd_end, a.snd_end);
	assert_int_equal(m.rcv_nxt, a.rcv_nxt);
	assert_int_equal(m.snd_wnd, a.snd_wnd);
	assert_int_equal(m.max_window, a.max_window);
	assert_int_equal(m.rcv_wup + m.rcv_wnd, a.rcv_wup + a.rcv_wnd);
	assert_int_equal(m.mss_clamp, a.mss_clamp);
	assert_int_equal(m.snd_mss, a.snd_mss);
	assert_int_equal(m.pmtu, a.pmtu);
	assert_int_equal(m.ts_off, a.ts_off);
	assert_int_equal(m.ts_recent, 5);
	assert_true(m.ts_recent_valid);
	assert_int_equal(m.snd_cwnd, a.snd_cwnd);
	assert_int_equal(m.rcvbuf, a.rcvbuf);
	assert_int_equal(m.sndbuf, a.sndbuf);
	assert_int_equal(m.nodelay, true);
	assert_int_equal(m.user_timeout_ms, 12345);
	assert_int_equal(m.keepalive, true);
	assert_int_equal(m.keepidle_s, 99);
	assert_int_equal(m.keepintvl_s, 9);
	assert_int_equal(m.keepcnt, 4);
	assert_int_equal(m.notsent_lowat, 0xffffffffu);
	assert_int_equal(m.window_clamp, 30000);
	assert_int_equal(m.rcv_len, 5000);
	assert_int_equal(m.snd_len, 5000);
	for (uint32_t i = 0; i < 5000; i++) {
		assert_int_equal(m.snd[i], rig_octet(true, i));
		assert_int_equal(m.rcv[i], rig_octet(false, i));
	}
	assert_in_range(m.srtt_us, 9000, 11000);
	host_image_free(&m);
	free(snd);
	free(rcv);
	r.img.snd = r.img.rcv = NULL;
}

static void refuse(struct hv_tcp_image m, int rc, int line)
{
	struct host *h = &r.h;
	uint8_t *octets = calloc(1, 1u << 20), *aux = calloc(1, 1u << 20);
	uint32_t rx = h->env.n_free_rx, tx = h->env.n_free_tx;

	assert_non_null(octets);
	assert_non_null(aux);
	m.snd = m.rcv = octets;
	int got = hv_tcp_import(h->tcb, &h->env, &h->cnt, &m, h->l2, h->l2_len, aux, r.now);
	if (got != rc)
		fail_msg("line %d: import said %d, not %d", line, got, rc);
	assert_int_equal(h->env.n_free_rx, rx);
	assert_int_equal(h->env.n_free_tx, tx);
	free(octets);
	free(aux);
}

static void refusals(void **state)
{
	struct hv_tcp_image good = r.img, m;

	(void)state;
	m = good; m.snd_len = 1; refuse(m, -EINVAL, __LINE__);
	m = good; m.snd_end += 10; refuse(m, -EINVAL, __LINE__);
	m = good; m.snd_nxt += 10; refuse(m, -EINVAL, __LINE__);
	m = good; m.snd_una += 10; refuse(m, -EINVAL, __LINE__);
	m = good; m.rcv_wup = m.rcv_nxt + 10; refuse(m, -EINVAL, __LINE__);
	m = good; m.snd_wl1 = m.rcv_wup + m.rcv_wnd + 1; refuse(m, -EINVAL, __LINE__);
	m = good; m.snd_wscale = 15; refuse(m, -EINVAL, __LINE__);
	m = good; m.rcv_wscale = 15; refuse(m, -EINVAL, __LINE__);
	m = good; m.tuple.family = 5; refuse(m, -EINVAL, __LINE__);
	m = good; m.snd_mss = 0; m.mss_clamp = 0; refuse(m, -EINVAL, __LINE__);
	m = good; /* more than all chunks hold */
	m.snd_len = 64 * 4096 + 1;
	m.snd_end = m.snd_una + m.snd_len;
	refuse(m, -ENOBUFS, __LINE__);
	rig_start(&r); /* and the good one still works */
}

static void kernel_sent_more_than_the_image_says(void **state)
{
	(void)state;
	with_queues(0, 0, 3000);
	r.img.snd_wnd = 0; /* so that the TCB has sent none of it */
	r.img.max_window = 1000;
	rig_start(&r);
	rig_drop_out(&r);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 3000);
	assert_false(in(&r, .ack = 2000) & HV_TCP_DROP); /* above snd_nxt, within snd_end */
	assert_true(hv_tcp_outq(r.h.tcb) <= 1000);
	while (r.at_out != r.n_out) {
		struct rig_seg *s = rig_take(&r);
		assert_true(s->seq >= 2000 || s->len == 0);
	}
	in(&r, .ack = 3001); /* but no further */
	assert_int_equal(hv_tcp_outq(r.h.tcb), 1000);
	rig_drop_out(&r);
	in(&r, .ack = 3000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	rig_write(&r, 10);
	rig_data(&r, 3000, 10);
}

/* All of it had been sent by the kernel and is acknowledged: that counts for cwnd as what was sent here does, but when it was sent isn't known. */
static void what_the_kernel_sent_is_delivered(void **state)
{
	(void)state;
	with_queues(0, 0, 10000);
	r.img.snd_wnd = 0; /* so that the TCB has sent none of it */
	rig_start(&r);
	assert_int_equal(hv_tcp_outq_nsd(r.h.tcb), 10000);
	assert_int_equal(rig_stat(&r).cwnd, 10);
	in(&r, .ack = 10000);
	assert_int_equal(rig_stat(&r).cwnd, 20);
	assert_int_equal(rig_stat(&r).srtt_us, r.img.srtt_us);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
}

/* Its stamps are behind ours by the 2 s by which the hand-off sets our clock forward, and by nothing that would be a round trip. */
static void stamps_of_the_kernel_tell_no_round_trip(void **state)
{
	struct hv_tcp_stat st;

	(void)state;
	with_queues(0, 3000, 0);
	r.img.opts = HV_TCPO_TS;
	r.img.snd_mss = RIG_MSS - 12;
	r.img.ts_off = 2000;
	rig_start(&r);
	st = rig_stat(&r);
	r.now += 5000;
	r.peer_ts = 70;
	in(&r, .ack = 1000, .tsval = 70, .tsecr = (uint32_t)(r.now / 1000) - 10); /* sent before the import, by the kernel's clock */
	assert_int_equal(rig_stat(&r).srtt_us, st.srtt_us);
	for (uint32_t i = 0; i < 30; i++) { /* a window to be autotuned */
		in(&r, .seq = i * 1000, .len = 1000, .ack = 1000, .tsval = 71 + i, .tsecr = (uint32_t)(r.now / 1000) - 10);
		rig_read(&r, 1000);
	}
	assert_int_equal(r.h.tcb->drs_rtt8, 0);
	rig_wait(&r, 10000);
	rig_drop_out(&r);
	r.now += 8000;
	in(&r, .seq = 30000, .ack = 3000, .tsval = 170, .tsecr = (uint32_t)(r.now / 1000) + 2000 - 8); /* ours */
	assert_in_range(rig_stat(&r).srtt_us, 8000, 12000);
	assert_int_not_equal(rig_stat(&r).srtt_us, st.srtt_us);
}

static void flight_of_the_kernel_is_retransmitted(void **state)
{
	uint64_t t = 0;

	(void)state;
	with_queues(0, 3000, 0);
	rig_start(&r);
	rig_drop_out(&r);
	while (r.n_out == 0 && t < 2000000)
		t += rig_next(&r);
	rig_data(&r, 0, 1000);
	rig_drop_out(&r);
	in(&r, .ack = 3000);
	assert_int_equal(hv_tcp_outq(r.h.tcb), 0);
	assert_true(hv_tcp_deadline(r.h.tcb) == UINT64_MAX);
}

static unsigned late(uint32_t seq, uint32_t len)
{
	uint8_t d[8192];
	unsigned acts;

	for (uint32_t i = 0; i < len; i++)
		d[i] = rig_octet(false, seq + i);
	acts = hv_tcp_late(r.h.tcb, &r.h.env, r.irs + seq, d, len, r.now);
	memset(d, 0, sizeof d); /* borrowed only */
	host_check(&r.h);
	if (r.h.fail != NULL)
		fail_msg("%s", r.h.fail);
	if ((acts & HV_TCP_OUT) != 0)
		rig_pump(&r);
	host_refill(&r.h);
	return acts;
}

static void late_octets(void **state)
{
	(void)state;
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	assert_true(late(0, 1200) & HV_TCP_READABLE);
	assert_int_equal(rig_read(&r, 5000), 1200);
	/* What came behind them through the VF waits as out-of-order data. */
	in(&r, .seq = 2200, .len = 500);
	assert_true(late(1200, 1000) & HV_TCP_READABLE);
	assert_int_equal(rig_read(&r, 5000), 1500);
	/* Overtaken by the peer's retransmission: nothing twice. */
	in(&r, .seq = 2700, .len = 1000);
	assert_false(late(2700, 1000) & HV_TCP_READABLE);
	late(2700, 1500);
	assert_int_equal(rig_read(&r, 5000), 1500);
	/* The kernel has acked them; the next ACK of ours covers them. */
	in(&r, .seq = 4200, .len = 10);
	rig_flush(&r);
	rig_wait(&r, 500000);
	assert_true(r.n_out != 0);
	assert_int_equal(r.out[r.n_out - 1].ack, 4210);
	rig_drop_out(&r);
}

/* Octets that the kernel has acknowledged: no ACK goes for them alone, and the window behind them is as wide as the kernel's was. */
static void late_octets_keep_the_window(void **state)
{
	(void)state;
	r.img.opts = HV_TCPO_SACK;
	r.img.rcv_wnd = 5000;
	rig_start(&r);
	assert_int_equal(late(1, 10), HV_TCP_DROP); /* a hole before them: they can't be the kernel's */
	assert_int_equal(late(0, 0), 0);
	assert_int_equal(late(0xffffffffu, 1), 0);
	assert_int_equal(late(0, 1000), HV_TCP_READABLE);
	assert_int_equal(late(0, 1000), 0);
	assert_int_equal(r.h.cnt.octets_in, 1000);
	rig_flush(&r);
	rig_wait(&r, 500000);
	rig_none(&r);
	in(&r, .seq = 5000, .len = 1000); /* the last that the kernel's window allowed */
	struct rig_seg *s = rig_ack(&r, 1000);
	assert_int_equal(s->nsack, 1);
	assert_int_equal(s->sack[0][0], 5000);
	assert_int_equal(s->sack[0][1], 6000);
	for (uint32_t i = 1; i < 5; i++)
		in(&r, .seq = 1000 * i, .len = 1000);
	rig_flush(&r);
	rig_drop_out(&r);
	assert_int_equal(rig_read(&r, 10000), 6000);
	rig_flush(&r);
	rig_wait(&r, 500000);
	rig_drop_out(&r);
}

/* No buffers left: a chunk takes what it can, and the caller hears of the rest. */
static void late_octets_without_memory(void **state)
{
	struct hv_env *e = &r.h.env;
	struct hv_buf *rx;
	struct hv_chunk *tx;
	uint32_t n_rx, n_tx;

	(void)state;
	rig_start(&r);
	rx = e->free_rx;
	tx = e->free_tx;
	n_rx = e->n_free_rx;
	n_tx = e->n_free_tx;
	e->free_rx = NULL;
	e->free_tx = NULL;
	e->n_free_rx = e->n_free_tx = 0;
	assert_int_equal(late(0, 100), HV_TCP_DROP);
	assert_int_equal(hv_tcp_readable(r.h.tcb), 0);
	e->free_tx = tx;
	e->n_free_tx = n_tx;
	assert_int_equal(late(0, 5000), HV_TCP_DROP | HV_TCP_READABLE);
	assert_int_equal(hv_tcp_readable(r.h.tcb), 4096);
	assert_int_equal(r.h.cnt.octets_in, 4096);
	e->free_rx = rx;
	e->n_free_rx = n_rx;
	assert_int_equal(rig_read(&r, 5000), 4096);
	assert_int_equal(late(0, 5000), HV_TCP_READABLE);
	assert_int_equal(rig_read(&r, 5000), 904);
	rig_flush(&r);
	rig_drop_out(&r);
}

static void export_with_everything(void **state)
{
	struct hv_tcp_image m;
	uint32_t cursor = 0, seq, len, n = 0, octets = 0, last = 0;
	const uint8_t *data;

	(void)state;
	with_queues(700, 0, 0);
	r.img.opts = HV_TCPO_SACK;
	rig_start(&r);
	in(&r, .seq = 700, .len = 300);
	rig_read(&r, 100);
	in(&r, .seq = 3000, .len = 1000);
	in(&r, .seq = 1500, .len = 500);
	in(&r, .seq = 1800, .len = 400);
	rig_write(&r, 4000);
	in(&r, .seq = 1000, .ack = 1500);
	rig_drop_out(&r);
	host_export(&r.h, &m, r.now);
	assert_null(r.h.fail);
	assert_int_equal(m.rcv_nxt, r.irs + 1000);
	assert_int_equal(m.rcv_len, 900);
	for (uint32_t i = 0; i < 900; i++)
		assert_int_equal(m.rcv[i], rig_octet(false, 100 + i));
	assert_int_equal(m.snd_una, r.iss + 1500);
	assert_int_equal(m.snd_end, r.iss + 4000);
	for (uint32_t i = 0; i < m.snd_len; i++)
		assert_int_equal(m.snd[i], rig_octet(true, 1500 + i));
	while (hv_tcp_export_ooo(r.h.tcb, &cursor, &seq, &data, &len)) {
		assert_true(n++ < 10);
		assert_true(seq - r.irs >= last);
		for (uint32_t i = 0; i < len; i++)
			assert_int_equal(data[i], rig_octet(false, seq - r.irs + i));
		octets += len;
		last = seq - r.irs + len;
	}
	assert_int_equal(octets, 700 + 1000);
	assert_int_equal(last, 4000);
	host_image_free(&m);
}

/* A window that is no multiple of the scale, as the kernel's can be: what goes on the wire doesn't take anything back. */
static void odd_window(void **state)
{
	struct rig_seg *s;

	(void)state;
	r.img.opts = HV_TCPO_WS;
	r.img.rcv_wscale = 7;
	r.img.snd_wscale = 7;
	r.img.rcv_wnd = 32001;
	r.img.rcvbuf = 40000;
	rig_start(&r);
	in(&r, .seq = 0, .len = 100);
	rig_flush(&r);
	rig_wait(&r, 500000);
	s = rig_ack(&r, 100);
	assert_true(s->ack + s->wnd >= 32001);
	rig_drop_out(&r);
}

static void unread_octets_survive_in_aux(void **state)
{
	(void)state;
	with_queues(3000, 0, 0);
	rig_start(&r);
	assert_false(hv_tcp_aux_done(r.h.tcb));
	in(&r, .seq = 3000, .len = 500);
	assert_int_equal(rig_read(&r, 1000), 1000);
	assert_false(hv_tcp_aux_done(r.h.tcb));
	assert_int_equal(rig_read(&r, 2200), 2200);
	assert_true(hv_tcp_aux_done(r.h.tcb));
	assert_int_equal(rig_read(&r, 5000), 300);
	rig_flush(&r);
	rig_drop_out(&r);
}

static void new_link_layer_header(void **state)
{
	(void)state;
	rig_start(&r);
	r.h.l2[5] = 0x77;
	hv_tcp_set_l2(r.h.tcb, r.h.l2, r.h.l2_len);
	rig_write(&r, 10); /* host_post() compares */
	rig_data(&r, 0, 10);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = { T(round_trip), T(refusals), T(kernel_sent_more_than_the_image_says),
		T(what_the_kernel_sent_is_delivered), T(stamps_of_the_kernel_tell_no_round_trip), T(flight_of_the_kernel_is_retransmitted),
		T(late_octets), T(late_octets_keep_the_window), T(late_octets_without_memory), T(export_with_everything), T(odd_window),
		T(unread_octets_survive_in_aux), T(new_link_layer_header) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
