/* softvf against a kernel peer: UDP echoes in every way to learn of a completion, both address families, and frames that aren't ours. */
#include "softvf_rig.h"

#define ROUNDS 100

static int up(void **state)
{
	(void)state;
	world_up(1500);
	return 0;
}

static int down(void **state)
{
	(void)state;
	world_down();
	return 0;
}

/* Echo what one completion is about; the send's completion is reaped, too. */
static void answer(struct rig *r, uint64_t id, uint32_t len, bool v6)
{
	struct ibv_sge s = { .addr = (uintptr_t)rx_buf(r, id), .length = len, .lkey = r->mr->lkey };
	struct ibv_send_wr w = { .wr_id = id, .sg_list = &s, .num_sge = 1, .opcode = IBV_WR_SEND }, *bad;
	struct ibv_wc wc;

	w.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
	turn(rx_buf(r, id), v6);
	assert_int_equal(ibv_post_send(r->qp, &w, &bad), 0);
	assert_true(poll_one(r->scq, &wc));
	assert_int_equal(wc.status, IBV_WC_SUCCESS);
	assert_int_equal(wc.opcode, IBV_WC_SEND);
	assert_int_equal(wc.wr_id, id);
	assert_int_equal(post_rx(r, r->qp, id), 0);
}

static void echo(bool events, bool ex, bool v6)
{
	char out[1400], in[1500];
	struct ibv_flow *f;
	struct rig r;
	unsigned i, k;
	int s;

	rig_up(&r, VF, RIG_BUF, 64, ex, events);
	assert_non_null(f = v6 ? rule_v6(r.qp, 7777) : rule(r.qp, false, 0, 7777, 0));
	s = peer_udp(9999, v6);
	if (events)
		assert_int_equal(ibv_req_notify_cq(r.rcq, 0), 0);
	for (i = 0; i < ROUNDS; i++) {
		size_t n = 1 + i * 13 % sizeof out;
		uint32_t want = (uint32_t)(n + (v6 ? 62 : 42));
		struct ibv_wc wc;

		for (k = 0; k < n; k++)
			out[k] = (char)(i * 31 + k * 7);
		peer_send(s, v6, 7777, out, n);
		if (events) {
			struct pollfd p = { .fd = r.ch->fd, .events = POLLIN };
			struct ibv_cq *cq = NULL;
			void *cx = NULL;
			int got = 0;

			while (got == 0) { /* an event may be about what was polled already */
				assert_int_equal(poll(&p, 1, 5000), 1);
				assert_int_equal(ibv_get_cq_event(r.ch, &cq, &cx), 0);
				assert_ptr_equal(cq, r.rcq);
				ibv_ack_cq_events(cq, 1);
				assert_int_equal(ibv_req_notify_cq(cq, 0), 0);
				if (!ex) {
					got = ibv_poll_cq(r.rcq, 1, &wc);
				} else {
					break;
				}
			}
		}
		if (ex) {
			struct ibv_cq_ex *x = (struct ibv_cq_ex *)(void *)r.rcq;
			struct ibv_poll_cq_attr a = { 0 };
			uint64_t end = now_ms() + 5000;
			int e;

			while ((e = ibv_start_poll(x, &a)) == ENOENT && now_ms() < end)
				;
			assert_int_equal(e, 0);
			assert_int_equal(x->status, IBV_WC_SUCCESS);
			assert_int_equal(ibv_wc_read_opcode(x), IBV_WC_RECV);
			assert_int_equal(ibv_wc_read_byte_len(x), want);
			assert_int_equal(ibv_wc_read_qp_num(x), r.qp->qp_num);
			wc.wr_id = x->wr_id;
			assert_int_equal(ibv_next_poll(x), ENOENT);
			ibv_end_poll(x);
		} else {
			if (!events)
				assert_true(poll_one(r.rcq, &wc));
			assert_int_equal(wc.status, IBV_WC_SUCCESS);
			assert_int_equal(wc.opcode, IBV_WC_RECV);
			assert_int_equal(wc.byte_len, want);
			assert_int_equal(wc.qp_num, r.qp->qp_num);
			assert_int_equal(wc.wc_flags & IBV_WC_IP_CSUM_OK, v6 ? 0 : IBV_WC_IP_CSUM_OK);
		}
		assert_memory_equal(rx_buf(&r, wc.wr_id) + (v6 ? 62 : 42), out, n);
		answer(&r, wc.wr_id, want, v6);
		assert_int_equal(recv(s, in, sizeof in, 0), n);
		assert_memory_equal(in, out, n);
	}
	close(s);
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&r);
}

static void polling(void **state) { (void)state; echo(false, false, false); }
static void events(void **state) { (void)state; echo(true, false, false); }
static void cq_ex(void **state) { (void)state; echo(false, true, false); }
static void cq_ex_events(void **state) { (void)state; echo(true, true, false); }
static void ipv6(void **state) { (void)state; echo(false, false, true); }

/* A port without a rule is the kernel's, on the same address, while another port is ours; and ours never reaches the kernel. */
static void unmatched(void **state)
{
	struct sockaddr_in from;
	socklen_t l = sizeof from;
	struct ibv_flow *f;
	struct ibv_wc wc;
	struct rig r;
	char b[16];
	int s, k, k2;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
	k = own_udp(7778);
	k2 = own_udp(7777);
	s = peer_udp(9999, false);
	peer_send(s, false, 7777, "mine", 4);
	peer_send(s, false, 7778, "kernel", 6);
	assert_int_equal(recvfrom(k, b, sizeof b, 0, (struct sockaddr *)&from, &l), 6);
	assert_int_equal(sendto(k, "answer", 6, 0, (struct sockaddr *)&from, l), 6);
	assert_int_equal(recv(s, b, sizeof b, 0), 6);
	assert_true(poll_one(r.rcq, &wc));
	assert_memory_equal(rx_buf(&r, wc.wr_id) + 42, "mine", 4);
	assert_true(silent(r.rcq, 50));
	assert_int_equal(recv(k2, b, sizeof b, MSG_DONTWAIT), -1);
	/* without the rule the kernel gets it */
	assert_int_equal(ibv_destroy_flow(f), 0);
	peer_send(s, false, 7777, "back", 4);
	assert_int_equal(recv(k2, b, sizeof b, 0), 4);
	assert_true(silent(r.rcq, 20));
	close(k);
	close(k2);
	close(s);
	rig_down(&r);
}

/* The verdict follows the frame: good, bad L4 sum, bad header sum, no sum. The sender is another softvf, so that bad ones can be sent. */
static void verdict(void **state)
{
	static const struct {
		unsigned flags, off;
		bool ok;
	} c[] = { { IBV_SEND_IP_CSUM, 0, true }, { 0, 40, false }, { 0, 24, false }, { 0, 50, false } };
	struct ibv_flow *f;
	struct ibv_wc wc;
	struct rig r, p;
	unsigned i;
	uint16_t w;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
	in_peer();
	rig_up(&p, PEER, RIG_BUF, 8, false, false);
	in_vf();
	for (i = 0; i < sizeof c / sizeof c[0]; i++) {
		uint8_t *b = tx_buf(&p, 0);
		uint32_t n = make_udp(b, 9999, 7777, "0123456789abc", 13);

		memcpy(b, vf_mac, 6);
		memcpy(b + 6, peer_mac, 6);
		w = (uint16_t)~sum16(b + 14, 20, 0);
		b[24] = (uint8_t)(w >> 8);
		b[25] = (uint8_t)w;
		if (c[i].off != 0) {
			w = (uint16_t)~l4_sum(b);
			b[40] = (uint8_t)(w >> 8);
			b[41] = (uint8_t)w;
			b[c[i].off] ^= 0x10;
		}
		/* addresses are those of the VF as sender: swapped here, which leaves every sum as it is */
		turn(b, false);
		memcpy(b, vf_mac, 6);
		memcpy(b + 6, peer_mac, 6);
		w = htons(7777);
		memcpy(b + 36, &w, 2);
		w = htons(9999);
		memcpy(b + 34, &w, 2);
		assert_int_equal(post_tx(&p, 0, n, c[i].flags | IBV_SEND_SIGNALED), 0);
		assert_true(poll_one(p.scq, &wc));
		assert_true(poll_one(r.rcq, &wc));
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_int_equal((wc.wc_flags & IBV_WC_IP_CSUM_OK) != 0, c[i].ok);
		if (c[i].ok) {
			assert_int_equal(sum16(rx_buf(&r, wc.wr_id) + 14, 20, 0), 0xffff);
			assert_int_equal(l4_sum(rx_buf(&r, wc.wr_id)), 0xffff);
		}
		assert_int_equal(post_rx(&r, r.qp, wc.wr_id), 0);
	}
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&p);
	rig_down(&r);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test_setup_teardown(polling, up, down), cmocka_unit_test_setup_teardown(events, up, down),
		cmocka_unit_test_setup_teardown(cq_ex, up, down), cmocka_unit_test_setup_teardown(cq_ex_events, up, down),
		cmocka_unit_test_setup_teardown(ipv6, up, down), cmocka_unit_test_setup_teardown(unmatched, up, down),
		cmocka_unit_test_setup_teardown(verdict, up, down),
	};
	int r = world_init();

	return r != 0 ? r : cmocka_run_group_tests(t, NULL, NULL);
}
