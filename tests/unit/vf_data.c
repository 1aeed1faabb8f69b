/* The data path over queues that are plain arrays: what is posted in which form, partial and refused posts, failed completions, wrap-around. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "vf/internal.h"

#define SQ 16u
#define RQ 40u
#define BUFS 96u

/* A device whose operations write down what they are asked. */
static struct {
	struct hv_vf vf;
	struct hv_env env;
	struct ibv_context ctx;
	struct ibv_qp qp;
	struct ibv_cq rcq, scq;
	uint8_t slots[SQ][HV_TX_HDR_MAX + 1536];
	uint64_t posted_rx[1024];
	unsigned n_posted_rx, rx_posts, rx_limit;
	struct ibv_wc rx[256], tx[256];
	unsigned n_rx, n_tx;
	struct ibv_send_wr wr; /* last send */
	uint8_t frame[70000];  /* its octets */
	uint32_t frame_len;
	int tx_error;
} d;

static int fake_poll(struct ibv_cq *cq, int n, struct ibv_wc *wc)
{
	unsigned *have = cq == &d.rcq ? &d.n_rx : &d.n_tx, k = (unsigned)n < *have ? (unsigned)n : *have;
	struct ibv_wc *from = cq == &d.rcq ? d.rx : d.tx;

	memcpy(wc, from, k * sizeof *wc);
	memmove(from, from + k, (*have - k) * sizeof *wc);
	*have -= k;
	return (int)k;
}

static int fake_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	assert_ptr_equal(qp, &d.qp);
	d.rx_posts++;
	for (; wr != NULL; wr = wr->next) {
		if (d.n_posted_rx == d.rx_limit) {
			*bad = wr;
			return ENOMEM;
		}
		assert_int_equal(wr->num_sge, 1);
		assert_ptr_equal((void *)(uintptr_t)wr->sg_list->addr, d.vf.bufs[wr->wr_id].base);
		d.posted_rx[d.n_posted_rx++] = wr->wr_id;
	}
	return 0;
}

static int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	assert_ptr_equal(qp, &d.qp);
	if (d.tx_error != 0) {
		*bad = wr;
		return d.tx_error;
	}
	assert_null(wr->next);
	d.wr = *wr;
	d.frame_len = 0;
	if (wr->opcode == IBV_WR_TSO) {
		memcpy(d.frame, wr->tso.hdr, wr->tso.hdr_sz);
		d.frame_len = wr->tso.hdr_sz;
	}
	for (int i = 0; i < wr->num_sge; i++) {
		memcpy(d.frame + d.frame_len, (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
		d.frame_len += wr->sg_list[i].length;
	}
	return 0;
}

static int set_up(void **state)
{
	static uint8_t mem[BUFS][2048];

	(void)state;
	memset(&d, 0, sizeof d);
	d.ctx.ops.poll_cq = fake_poll;
	d.ctx.ops.post_recv = fake_post_recv;
	d.ctx.ops.post_send = fake_post_send;
	d.qp.context = d.rcq.context = d.scq.context = &d.ctx;
	d.vf.qp = &d.qp;
	d.vf.rcq = &d.rcq;
	d.vf.scq = &d.scq;
	d.vf.sq = SQ;
	d.vf.rq = RQ;
	d.vf.lkey = 77;
	d.vf.inline_max = 192;
	d.vf.tso_max = 60000;
	d.vf.tx_csum = true;
	d.vf.slot_size = sizeof d.slots[0];
	d.vf.slots = d.slots[0];
	d.vf.post_ns = calloc(SQ, sizeof(uint64_t));
	d.vf.bufs = calloc(BUFS, sizeof *d.vf.bufs);
	d.vf.plan.rx_bufs = BUFS;
	for (uint32_t i = 0; i < BUFS; i++) {
		d.vf.bufs[i].base = mem[i];
		d.vf.bufs[i].idx = i;
	}
	for (uint32_t i = 0; i < HV_VF_REFILL_BATCH; i++) {
		d.vf.rwr[i].sg_list = &d.vf.rsge[i];
		d.vf.rwr[i].num_sge = 1;
		d.vf.rwr[i].next = i + 1 < HV_VF_REFILL_BATCH ? &d.vf.rwr[i + 1] : NULL;
	}
	d.vf.swr.sg_list = d.vf.ssge;
	d.rx_limit = 1024;
	assert_int_equal(hv_vf_post_initial(&d.vf), 0);
	assert_int_equal(d.n_posted_rx, RQ);
	for (uint32_t i = 0; i < RQ; i++)
		assert_int_equal(d.posted_rx[i], i);
	hv_vf_env_init(&d.vf, &d.env);
	assert_int_equal(d.env.n_free_rx, BUFS - RQ);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(d.vf.post_ns);
	free(d.vf.bufs);
	return 0;
}

static void arrive(uint32_t idx, enum ibv_wc_status st, unsigned flags)
{
	d.rx[d.n_rx++] = (struct ibv_wc){ .wr_id = idx, .status = st, .byte_len = 60 + idx, .wc_flags = flags };
}

static unsigned count_free(void)
{
	unsigned n = 0;

	for (struct hv_buf *b = d.env.free_rx; b != NULL; b = b->next)
		n++;
	assert_int_equal(n, d.env.n_free_rx);
	return n;
}

static void receive(void **state)
{
	struct hv_vf_cqe c[64];

	(void)state;
	for (uint32_t i = 0; i < RQ; i++)
		arrive(i, IBV_WC_SUCCESS, i % 2 ? IBV_WC_IP_CSUM_OK : 0);
	assert_int_equal(hv_vf_poll_rx(&d.vf, c, 3, 1000), 3);
	assert_int_equal(hv_vf_poll_rx(&d.vf, c + 3, 61, 2000), RQ - 3);
	assert_int_equal(hv_vf_poll_rx(&d.vf, c, 64, 3000), 0);
	for (uint32_t i = 0; i < RQ; i++) {
		assert_ptr_equal(c[i].buf, &d.vf.bufs[i]);
		assert_ptr_equal(c[i].buf->data, c[i].buf->base);
		assert_int_equal(c[i].buf->len, 60 + i);
		assert_int_equal(c[i].csum_ok, i % 2);
		assert_int_equal(c[i].buf->rx_ns, i < 3 ? 1000 : 2000);
	}
	assert_int_equal(d.vf.n.rx_frames, RQ);
	d.n_posted_rx = d.rx_posts = 0;
	hv_vf_refill(&d.vf, &d.env);
	assert_int_equal(d.n_posted_rx, RQ);
	assert_int_equal(d.rx_posts, 2); /* in batches */
	assert_int_equal(count_free(), BUFS - 2 * RQ);
	hv_vf_refill(&d.vf, &d.env); /* full: nothing */
	assert_int_equal(d.rx_posts, 2);
}

static void refill_runs_dry(void **state)
{
	struct hv_vf_cqe c[64];

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < RQ; i++)
			arrive((uint32_t)d.posted_rx[d.n_posted_rx - RQ + i], IBV_WC_SUCCESS, 0);
		assert_int_equal(hv_vf_poll_rx(&d.vf, c, 64, 1), RQ);
		hv_vf_refill(&d.vf, &d.env); /* readers keep everything */
	}
	assert_int_equal(d.env.n_free_rx, 0);
	assert_null(d.env.free_rx);
	assert_int_equal(d.vf.rq_posted, BUFS - 2 * RQ);
	assert_true(d.vf.n.rx_no_buf > 0);
	for (unsigned i = 0; i < 10; i++) { /* some come back */
		c[i].buf->next = d.env.free_rx;
		d.env.free_rx = c[i].buf;
		d.env.n_free_rx++;
	}
	hv_vf_refill(&d.vf, &d.env);
	assert_int_equal(d.env.n_free_rx, 0);
	assert_int_equal(d.vf.rq_posted, BUFS - 2 * RQ + 10);
}

static void refill_partial(void **state)
{
	struct hv_vf_cqe c[64];

	(void)state;
	for (uint32_t i = 0; i < RQ; i++)
		arrive(i, IBV_WC_SUCCESS, 0);
	hv_vf_poll_rx(&d.vf, c, 64, 1);
	d.rx_limit = RQ + 5; /* the device takes five and refuses the rest */
	hv_vf_refill(&d.vf, &d.env);
	assert_int_equal(d.vf.rq_posted, 5);
	assert_int_equal(count_free(), BUFS - RQ - 5);
	d.rx_limit = 1024;
	hv_vf_refill(&d.vf, &d.env);
	assert_int_equal(d.vf.rq_posted, RQ);
	assert_int_equal(count_free(), BUFS - 2 * RQ);
	for (unsigned i = 0; i < RQ; i++) /* none twice */
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(d.posted_rx[d.n_posted_rx - 1 - i], d.posted_rx[d.n_posted_rx - 1 - k]);
}

static void receive_failed(void **state)
{
	struct hv_vf_cqe c[64];

	(void)state;
	arrive(0, IBV_WC_SUCCESS, 0);
	for (uint32_t i = 1; i < RQ; i++)
		arrive(i, IBV_WC_WR_FLUSH_ERR, 0);
	assert_int_equal(hv_vf_tx_oldest(&d.vf), 0);
	assert_int_equal(hv_vf_poll_rx(&d.vf, c, 64, 1), 1); /* frames that came before are still delivered */
	assert_int_equal(d.vf.n.cqe_errors, RQ - 1);
	hv_vf_refill(&d.vf, &d.env);
	assert_int_equal(count_free(), BUFS - 1); /* all but the delivered one */
	assert_int_equal(d.vf.rq_posted, 0);
	assert_int_equal(hv_vf_tx_oldest(&d.vf), 1); /* seen by the watchdog at once */
}

/* ---- sending ---- */
static uint8_t data[65536];

static struct hv_tx frame(uint32_t payload, unsigned pieces, bool copy)
{
	struct hv_tx tx = { .hdr_len = 54, .l3_off = 14, .l4_off = 34, .payload = payload, .inline_ok = copy };
	uint32_t at = 0;

	for (unsigned i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + i / 251);
	for (unsigned i = 0; i < 54; i++)
		tx.hdr[i] = (uint8_t)(i + 1);
	tx.hdr[14] = 0x45;
	tx.hdr[23] = 6;
	for (unsigned i = 0; i < pieces; i++) {
		uint32_t n = i + 1 == pieces ? payload - at : payload / pieces;

		tx.sge[tx.nsge++] = (struct hv_sge){ .addr = data + at, .len = n, .lkey = 55 };
		at += n;
	}
	return tx;
}

static void same_frame(const struct hv_tx *tx)
{
	assert_int_equal(d.frame_len, tx->hdr_len + tx->payload);
	assert_memory_equal(d.frame, tx->hdr, tx->hdr_len);
	assert_memory_equal(d.frame + tx->hdr_len, data, tx->payload);
	assert_true(d.wr.send_flags & IBV_SEND_SIGNALED);
	assert_true(d.wr.send_flags & IBV_SEND_IP_CSUM);
}

static void send_forms(void **state)
{
	struct hv_tx tx;

	(void)state;
	tx = frame(192 - 54, 3, true);
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 5), 0);
	same_frame(&tx);
	assert_true(d.wr.send_flags & IBV_SEND_INLINE);
	tx = frame(193 - 54, 3, true); /* no longer inline: one piece in our own memory */
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 6), 0);
	same_frame(&tx);
	assert_false(d.wr.send_flags & IBV_SEND_INLINE);
	assert_int_equal(d.wr.num_sge, 1);
	assert_int_equal(d.wr.sg_list[0].lkey, 77);
	tx = frame(1446, HV_TX_SEG_MAX, false); /* by reference */
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 7), 0);
	same_frame(&tx);
	assert_int_equal(d.wr.num_sge, 1 + HV_TX_SEG_MAX);
	assert_int_equal(d.wr.sg_list[0].lkey, 77);
	assert_int_equal(d.wr.sg_list[1].lkey, 55);
	assert_ptr_equal((void *)(uintptr_t)d.wr.sg_list[1].addr, data);
	tx = frame(30000, 4, false);
	tx.mss = 1448;
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 8), 0);
	same_frame(&tx);
	assert_int_equal(d.wr.opcode, IBV_WR_TSO);
	assert_int_equal(d.wr.tso.mss, 1448);
	assert_int_equal(d.wr.num_sge, 4);
	assert_int_equal(d.env.sq_next, 4);
	assert_int_equal(d.vf.n.tx_tso, 1);
	assert_int_equal(d.vf.n.tx_posts, 4);
	/* refused, nothing counted */
	tx = frame(1537, 1, true);
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 9), -EMSGSIZE);
	tx = frame(60001, 1, false);
	tx.mss = 1448;
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 9), -EINVAL);
	d.tx_error = ENOMEM;
	tx = frame(10, 1, true);
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 9), -ENOMEM);
	assert_int_equal(d.env.sq_next, 4);
	assert_int_equal(d.vf.n.tx_posts, 4);
}

static void send_software_checksum(void **state)
{
	struct hv_tx tx;
	uint8_t want[HV_TX_HDR_MAX];

	(void)state;
	d.vf.tx_csum = false;
	for (uint32_t len = 0; len < 1400; len += 137) {
		for (unsigned copy = 0; copy < 2; copy++) {
			tx = frame(len, 2, copy);
			memcpy(want, tx.hdr, sizeof want);
			hv_vf_txsum(&tx, want);
			assert_memory_not_equal(want, tx.hdr, 54);
			assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 1), 0);
			assert_int_equal(d.frame_len, 54 + len);
			assert_memory_equal(d.frame, want, 54);
			assert_memory_equal(d.frame + 54, data, len);
			assert_false(d.wr.send_flags & IBV_SEND_IP_CSUM);
			d.tx[d.n_tx++] = (struct ibv_wc){ .wr_id = d.wr.wr_id };
			hv_vf_poll_tx(&d.vf, &d.env);
		}
	}
}

static void send_queue_wraps(void **state)
{
	struct hv_tx tx = frame(10, 1, true);
	uint64_t t = 100;

	(void)state;
	d.vf.sq_next = d.vf.sq_done = d.env.sq_next = d.env.sq_done = 0xfffffffau; /* indices wrap as well */
	for (unsigned round = 0; round < 10; round++) {
		uint32_t first = d.env.sq_next;

		for (unsigned i = 0; i < SQ; i++, t++) {
			assert_int_equal(hv_vf_tx_room(&d.vf), SQ - i);
			assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, t), 0);
			assert_int_equal(d.wr.wr_id, (uint32_t)(first + i));
		}
		assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, t), -EAGAIN);
		assert_int_equal(hv_vf_tx_oldest(&d.vf), t - SQ);
		for (unsigned i = 0; i < 5; i++)
			d.tx[d.n_tx++] = (struct ibv_wc){ .wr_id = (uint32_t)(first + i) };
		assert_int_equal(hv_vf_poll_tx(&d.vf, &d.env), 5);
		assert_int_equal(d.env.sq_done, (uint32_t)(first + 5));
		assert_int_equal(hv_vf_tx_oldest(&d.vf), t - SQ + 5);
		d.tx[d.n_tx++] = (struct ibv_wc){ .wr_id = (uint32_t)(first + SQ - 1) };
		assert_int_equal(hv_vf_poll_tx(&d.vf, &d.env), 1);
		assert_int_equal(hv_vf_tx_oldest(&d.vf), 0);
		assert_int_equal(hv_vf_tx_room(&d.vf), SQ);
	}
}

static void send_failed(void **state)
{
	struct hv_tx tx = frame(10, 1, true);

	(void)state;
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 9), 0);
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 9), 0);
	d.tx[d.n_tx++] = (struct ibv_wc){ .wr_id = 0, .status = IBV_WC_GENERAL_ERR };
	d.tx[d.n_tx++] = (struct ibv_wc){ .wr_id = 1, .status = IBV_WC_WR_FLUSH_ERR };
	assert_int_equal(hv_vf_poll_tx(&d.vf, &d.env), 2);
	assert_int_equal(d.env.sq_done, 2); /* memory is free again */
	assert_int_equal(d.vf.n.cqe_errors, 2);
	assert_int_equal(hv_vf_tx_oldest(&d.vf), 1);
	assert_int_equal(hv_vf_tx(&d.vf, &d.env, &tx, 9), -EIO);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(receive), T(refill_runs_dry), T(refill_partial), T(receive_failed), T(send_forms), T(send_software_checksum), T(send_queue_wraps),
		T(send_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
