/* Threads: each with a QP of its own on one netdev, some sharing a CQ, some asleep on a completion channel, while another keeps
 * making and destroying rules, registrations and QPs. Every frame comes back to the thread that sent it, once. */
#include "softvf_rig.h"

#include <pthread.h>
#include <sched.h>

#define THREADS 3
#define FRAMES 1500u
#define WINDOW 8u

struct worker {
	pthread_t t;
	struct rig *r;
	struct ibv_comp_channel *ch; /* sleeps here; NULL: polls */
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_flow *f;
	unsigned n;
	uint32_t sent, got;
	const char *error;
};

static bool stop_;
#define stop __atomic_load_n(&stop_, __ATOMIC_RELAXED)

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

/* The far end: a kernel socket that returns what it gets. */
static void *echo(void *arg)
{
	int s = *(int *)arg;
	struct timeval tv = { 0, 50000 };

	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	while (!stop) {
		struct sockaddr_in from;
		socklen_t l = sizeof from;
		uint8_t b[64];
		ssize_t n = recvfrom(s, b, sizeof b, 0, (struct sockaddr *)&from, &l);

		if (n > 0 && sendto(s, b, (size_t)n, 0, (struct sockaddr *)&from, l) != n)
			return "echo";
	}
	return NULL;
}

static bool send_next(struct worker *w)
{
	uint64_t id = 100 * w->n + w->sent % WINDOW;
	uint8_t *b = tx_buf(w->r, id);
	uint32_t v[2] = { w->n, w->sent };
	uint32_t n = make_udp(b, (uint16_t)(7000 + w->n), 9999, v, sizeof v);
	struct ibv_sge s = { .addr = (uintptr_t)b, .length = n, .lkey = w->r->mr->lkey };
	struct ibv_send_wr wr = { .wr_id = 5000 + w->sent, .sg_list = &s, .num_sge = 1, .opcode = IBV_WR_SEND }, *bad;

	wr.send_flags = IBV_SEND_IP_CSUM | IBV_SEND_SIGNALED;
	w->sent++;
	return ibv_post_send(w->qp, &wr, &bad) == 0;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t end = now_ms() + 20000;
	uint32_t sent_done = 0;
	struct ibv_wc wc;

	while (w->sent < WINDOW)
		if (!send_next(w))
			return (void *)(uintptr_t)(w->error = "first sends");
	while (w->got < FRAMES && now_ms() < end) {
		uint32_t v[2];
		int n = ibv_poll_cq(w->cq, 1, &wc);

		if (n == 0) {
			struct ibv_cq *cq;
			void *cx;
			struct pollfd p = { .events = POLLIN };

			if (w->ch == NULL) {
				sched_yield();
				continue;
			}
			if (ibv_req_notify_cq(w->cq, 0) != 0)
				return (void *)(uintptr_t)(w->error = "arm");
			n = ibv_poll_cq(w->cq, 1, &wc);
			if (n == 0) {
				p.fd = w->ch->fd;
				if (poll(&p, 1, 5000) != 1)
					return (void *)(uintptr_t)(w->error = "no wake-up");
				if (ibv_get_cq_event(w->ch, &cq, &cx) == 0)
					ibv_ack_cq_events(cq, 1);
				continue;
			}
		}
		if (wc.status != IBV_WC_SUCCESS)
			return (void *)(uintptr_t)(w->error = ibv_wc_status_str(wc.status));
		if (wc.qp_num != w->qp->qp_num)
			return (void *)(uintptr_t)(w->error = "another QP's completion");
		if (wc.opcode == IBV_WC_SEND) {
			if (wc.wr_id != 5000 + sent_done++)
				return (void *)(uintptr_t)(w->error = "order of send completions");
			continue;
		}
		memcpy(v, rx_buf(w->r, wc.wr_id) + 42, sizeof v);
		if (wc.byte_len != 50 || v[0] != w->n || v[1] != w->got)
			return (void *)(uintptr_t)(w->error = "wrong frame");
		w->got++;
		if (post_rx(w->r, w->qp, wc.wr_id) != 0)
			return (void *)(uintptr_t)(w->error = "post_recv");
		if (w->sent < FRAMES && !send_next(w))
			return (void *)(uintptr_t)(w->error = "post_send");
	}
	if (w->got < FRAMES)
		w->error = "frames are missing";
	return NULL;
}

/* Control verbs all the while. */
static void *churn(void *arg)
{
	struct rig *r = arg;
	static uint8_t mem[8192];
	unsigned i;

	for (i = 0; !stop; i++) {
		struct ibv_qp_init_attr a = { .qp_type = IBV_QPT_RAW_PACKET, .cap = { 4, 4, 1, 1, 0 } };
		struct ibv_mr *m = ibv_reg_mr(r->pd, mem, sizeof mem, IBV_ACCESS_LOCAL_WRITE);
		struct ibv_cq *cq = ibv_create_cq(r->ctx, 16, NULL, NULL, 0);
		struct ibv_qp *qp;
		struct ibv_flow *f;

		if (m == NULL || cq == NULL)
			return "reg_mr or create_cq";
		a.send_cq = a.recv_cq = cq;
		qp = ibv_create_qp(r->pd, &a);
		if (qp == NULL)
			return "create_qp";
		f = rule(qp, i % 2, (uint16_t)(i % 3), (uint16_t)(10000 + i % 1000), (uint16_t)(i % 5));
		if (f == NULL || ibv_destroy_flow(f) != 0 || ibv_destroy_qp(qp) != 0 || ibv_destroy_cq(cq) != 0 || ibv_dereg_mr(m) != 0)
			return "rule or destruction";
		usleep(200);
	}
	return NULL;
}

static void threads(void **state)
{
	struct worker w[THREADS];
	struct rig r;
	pthread_t te, tc;
	void *ee, *ec;
	unsigned i, k;
	int s;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	__atomic_store_n(&stop_, false, __ATOMIC_RELAXED);
	s = peer_udp(9999, false);
	memset(w, 0, sizeof w);
	for (i = 0; i < THREADS; i++) {
		struct ibv_qp_init_attr a = { .qp_type = IBV_QPT_RAW_PACKET, .cap = { 32, 64, 1, 1, 0 } };

		w[i].n = i;
		w[i].r = &r;
		if (i == 1)
			assert_non_null(w[i].ch = ibv_create_comp_channel(r.ctx));
		assert_non_null(w[i].cq = ibv_create_cq(r.ctx, 256, NULL, w[i].ch, 0));
		a.send_cq = a.recv_cq = w[i].cq;
		assert_non_null(w[i].qp = ibv_create_qp(r.pd, &a));
		qp_up(w[i].qp);
		for (k = 0; k < 64; k++)
			assert_int_equal(post_rx(&r, w[i].qp, 100 + 64 * i + k), 0);
		assert_non_null(w[i].f = rule(w[i].qp, false, 0, (uint16_t)(7000 + i), 0));
	}
	assert_int_equal(pthread_create(&te, NULL, echo, &s), 0);
	assert_int_equal(pthread_create(&tc, NULL, churn, &r), 0);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&w[i].t, NULL, work, &w[i]), 0);
	for (i = 0; i < THREADS; i++)
		pthread_join(w[i].t, NULL);
	__atomic_store_n(&stop_, true, __ATOMIC_RELAXED);
	pthread_join(te, &ee);
	pthread_join(tc, &ec);
	for (i = 0; i < THREADS; i++)
		if (w[i].error != NULL)
			print_error("thread %u: %s (sent %u, got %u)\n", i, w[i].error, w[i].sent, w[i].got);
	assert_null(ee);
	if (ec != NULL)
		fail_msg("control verbs: %s", (char *)ec);
	for (i = 0; i < THREADS; i++) {
		assert_null(w[i].error);
		assert_int_equal(ibv_destroy_flow(w[i].f), 0);
		assert_int_equal(ibv_destroy_qp(w[i].qp), 0);
		assert_int_equal(ibv_destroy_cq(w[i].cq), 0);
		if (w[i].ch != NULL)
			assert_int_equal(ibv_destroy_comp_channel(w[i].ch), 0);
	}
	close(s);
	rig_down(&r);
}

int main(void)
{
	const struct CMUnitTest t[] = { cmocka_unit_test_setup_teardown(threads, up, down) };
	int r = world_init();

	return r != 0 ? r : cmocka_run_group_tests(t, NULL, NULL);
}
