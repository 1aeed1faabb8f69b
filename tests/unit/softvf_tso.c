/* Segmentation, large frames, scatter and gather: every octet and checksum that arrives is looked at. */
#include "softvf_rig.h"

#define MSS 1400u

static int up(void **state)
{
	(void)state;
	world_up(1500);
	return 0;
}

static int up9000(void **state)
{
	(void)state;
	world_up(9000);
	return 0;
}

static int down(void **state)
{
	(void)state;
	world_down();
	return 0;
}

static uint8_t pattern(uint32_t i) { return (uint8_t)(i * 7 + (i >> 8) * 13 + (i >> 16)); }

/* Both ends are softvf: the peer sees what is on the wire, without the kernel's help. */
static void pair_up(struct rig *a, struct rig *b, uint32_t bufsz, struct ibv_flow **f, bool tcp)
{
	struct rule4 r;

	rig_up(a, VF, bufsz, 256, false, false);
	in_peer();
	rig_up(b, PEER, bufsz, 256, false, false);
	in_vf();
	memset(&r, 0, sizeof r);
	r.a.type = IBV_FLOW_ATTR_NORMAL;
	r.a.size = sizeof r;
	r.a.num_of_specs = 3;
	r.a.port = 1;
	r.e.type = IBV_FLOW_SPEC_ETH;
	r.e.size = sizeof r.e;
	memcpy(r.e.val.dst_mac, peer_mac, 6);
	memset(r.e.mask.dst_mac, 0xff, 6);
	r.i.type = IBV_FLOW_SPEC_IPV4;
	r.i.size = sizeof r.i;
	r.i.val.src_ip = inet_addr(VF_IP);
	r.i.mask.src_ip = 0xffffffff;
	r.u.type = tcp ? IBV_FLOW_SPEC_TCP : IBV_FLOW_SPEC_UDP;
	r.u.size = sizeof r.u;
	r.u.val.src_port = htons(4444);
	r.u.mask.src_port = 0xffff;
	assert_non_null(*f = ibv_create_flow(b->qp, (struct ibv_flow_attr *)(void *)&r));
}

static uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static void tcp_header(uint8_t *h, uint32_t seq)
{
	uint8_t udp[64];

	make_udp(udp, 4444, 5555, "", 0);
	memcpy(h, udp, 38);
	h[23] = 6;
	memset(h + 16, 0, 2); /* lengths and sums are the engine's business */
	h[38] = (uint8_t)(seq >> 24);
	h[39] = (uint8_t)(seq >> 16);
	h[40] = (uint8_t)(seq >> 8);
	h[41] = (uint8_t)seq;
	memset(h + 42, 0, 4);
	h[46] = 0x50;
	h[47] = 0x18; /* PSH ACK */
	h[48] = 0x10;
	h[49] = 0;
	memset(h + 50, 0, 4);
}

/* Bursts from one frame to the longest, out of two pieces each, with a plain frame in between to see that the order holds. */
static void tso(void **state)
{
	static const uint32_t sizes[] = { 1, MSS - 1, MSS, MSS + 1, 2 * MSS, 10000, 30000, 64000 };
	struct ibv_flow *f;
	struct rig a, b;
	uint32_t seq = 0xfffff000u, next = seq, i, k; /* wraps */
	struct ibv_wc wc;

	(void)state;
	pair_up(&a, &b, RIG_BUF, &f, true);
	for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		uint8_t hdr[54], *p = tx_buf(&a, 0);
		uint32_t n = sizes[i], cut = n / 3, got = 0, frames = 0;
		struct ibv_sge s[2] = { { (uintptr_t)p, cut, a.mr->lkey }, { (uintptr_t)p + 100000, n - cut, a.mr->lkey } };
		struct ibv_send_wr w, *bad;

		for (k = 0; k < n; k++)
			p[k < cut ? k : k - cut + 100000] = pattern(k + i);
		tcp_header(hdr, seq);
		memset(&w, 0, sizeof w);
		w.wr_id = 1000 + i;
		w.sg_list = s;
		w.num_sge = 2;
		w.opcode = IBV_WR_TSO;
		w.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
		w.tso.hdr = hdr;
		w.tso.hdr_sz = sizeof hdr;
		w.tso.mss = MSS;
		assert_int_equal(ibv_post_send(a.qp, &w, &bad), 0);
		assert_true(poll_one(a.scq, &wc));
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_int_equal(wc.opcode, IBV_WC_TSO);
		assert_int_equal(wc.wr_id, 1000 + i);
		while (got < n) {
			const uint8_t *r;
			uint32_t len;

			if (!poll_one(b.rcq, &wc))
				fail_msg("burst of %u: only %u arrived", n, got);
			assert_int_equal(wc.status, IBV_WC_SUCCESS);
			assert_true(wc.wc_flags & IBV_WC_IP_CSUM_OK);
			r = rx_buf(&b, wc.wr_id);
			len = wc.byte_len - 54;
			assert_true(len <= MSS);
			assert_true(len == MSS || got + len == n);
			assert_int_equal((uint32_t)r[16] << 8 | r[17], 40 + len);
			assert_int_equal(sum16(r + 14, 20, 0), 0xffff);
			assert_int_equal(l4_sum(r), 0xffff);
			assert_int_equal(be32(r + 38), next);
			assert_int_equal(r[47], got + len == n ? 0x18 : 0x10);
			for (k = 0; k < len; k++)
				if (r[54 + k] != pattern(got + k + i))
					fail_msg("octet %u of %u", got + k, n);
			got += len;
			next += len;
			frames++;
			assert_int_equal(post_rx(&b, b.qp, wc.wr_id), 0);
		}
		assert_int_equal(frames, (n + MSS - 1) / MSS);
		seq += n;
	}
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&b);
	rig_down(&a);
}

/* frame, burst, frame in one list: they arrive in that order and complete in that order. */
static void order(void **state)
{
	struct ibv_flow *f;
	struct rig a, b;
	uint8_t hdr[54], *p;
	struct ibv_sge s[3];
	struct ibv_send_wr w[3], *bad;
	struct ibv_wc wc;
	uint32_t want[4] = { 1, 2, 2 + MSS, 3 }, i;

	(void)state;
	pair_up(&a, &b, RIG_BUF, &f, true);
	memset(w, 0, sizeof w);
	for (i = 0; i < 3; i++) {
		p = tx_buf(&a, i * 4);
		memset(p, (int)i, 4 * RIG_BUF);
		tcp_header(i == 1 ? hdr : p, i + 1);
		if (i != 1) {
			p[16] = 0;
			p[17] = 50;
		}
		s[i] = (struct ibv_sge){ (uintptr_t)p, i == 1 ? 2 * MSS : 64, a.mr->lkey };
		w[i].wr_id = i;
		w[i].sg_list = &s[i];
		w[i].num_sge = 1;
		w[i].opcode = i == 1 ? IBV_WR_TSO : IBV_WR_SEND;
		w[i].send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
		w[i].next = i < 2 ? &w[i + 1] : NULL;
	}
	w[1].tso.hdr = hdr;
	w[1].tso.hdr_sz = sizeof hdr;
	w[1].tso.mss = MSS;
	assert_int_equal(ibv_post_send(a.qp, w, &bad), 0);
	for (i = 0; i < 3; i++) {
		assert_true(poll_one(a.scq, &wc));
		assert_int_equal(wc.wr_id, i);
	}
	for (i = 0; i < 4; i++) {
		assert_true(poll_one(b.rcq, &wc));
		assert_int_equal(be32(rx_buf(&b, wc.wr_id) + 38), want[i]);
	}
	/* more header than the QP was made for */
	w[1].next = NULL;
	w[1].tso.hdr_sz = 129;
	assert_int_equal(ibv_post_send(a.qp, &w[1], &bad), ENOMEM);
	assert_ptr_equal(bad, &w[1]);
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&b);
	rig_down(&a);
}

/* Frames up to MTU 9000, gathered from three pieces; a kernel peer, too. */
static void jumbo(void **state)
{
	static const uint32_t sizes[] = { 100, 1500, 3600, 4054, 4055, 8000, 8972 };
	struct ibv_flow *f;
	struct rig a, b;
	struct ibv_wc wc;
	uint8_t *big = malloc(10000);
	uint32_t i, k;
	int s;

	(void)state;
	pair_up(&a, &b, 16384, &f, false);
	for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		uint8_t *p = tx_buf(&a, 0);
		uint32_t n;
		struct ibv_sge sg[3];
		struct ibv_send_wr w = { .wr_id = i, .sg_list = sg, .num_sge = 3, .opcode = IBV_WR_SEND }, *bad;

		w.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
		for (k = 0; k < sizes[i]; k++)
			big[k] = pattern(k + i);
		n = make_udp(p, 4444, 5555, big, sizes[i]);
		sg[0] = (struct ibv_sge){ (uintptr_t)p, 37, a.mr->lkey };
		sg[1] = (struct ibv_sge){ (uintptr_t)p + 37, 40, a.mr->lkey };
		sg[2] = (struct ibv_sge){ (uintptr_t)p + 77, n - 77, a.mr->lkey };
		assert_int_equal(ibv_post_send(a.qp, &w, &bad), 0);
		assert_true(poll_one(a.scq, &wc));
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		if (!poll_one(b.rcq, &wc))
			fail_msg("%u octets didn't arrive", sizes[i]);
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_int_equal(wc.byte_len, n);
		assert_true(wc.wc_flags & IBV_WC_IP_CSUM_OK);
		assert_int_equal(l4_sum(rx_buf(&b, wc.wr_id)), 0xffff);
		assert_memory_equal(rx_buf(&b, wc.wr_id) + 42, big, sizes[i]);
	}
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&b);
	/* a kernel peer both ways */
	assert_non_null(f = rule(a.qp, false, 0, 7777, 0));
	s = peer_udp(9999, false);
	peer_send(s, false, 7777, big, 8972);
	assert_true(poll_one(a.rcq, &wc));
	assert_int_equal(wc.byte_len, 42 + 8972);
	assert_true(wc.wc_flags & IBV_WC_IP_CSUM_OK);
	assert_memory_equal(rx_buf(&a, wc.wr_id) + 42, big, 8972);
	k = make_udp(tx_buf(&a, 1), 7777, 9999, big, 8972);
	assert_int_equal(post_tx(&a, 1, k, IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM), 0);
	memset(big, 0, 8972);
	assert_int_equal(recv(s, big, 10000, 0), 8972);
	for (k = 0; k < 8972; k++)
		assert_int_equal(big[k], pattern(k + i - 1));
	close(s);
	free(big);
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&a);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test_setup_teardown(tso, up, down),
		cmocka_unit_test_setup_teardown(order, up, down),
		cmocka_unit_test_setup_teardown(jumbo, up9000, down),
	};
	int r = world_init();

	return r != 0 ? r : cmocka_run_group_tests(t, NULL, NULL);
}
