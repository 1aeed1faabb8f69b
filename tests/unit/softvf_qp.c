/* Queue pairs, memory, limits and privileges: what a driver can get wrong has to go wrong here as it would on hardware. */
#include "softvf_rig.h"

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

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

static void drop_cap(int cap)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	assert_int_equal(syscall(SYS_capget, &h, d), 0);
	d[cap / 32].effective &= ~(1u << cap % 32);
	assert_int_equal(syscall(SYS_capset, &h, d), 0);
}

static void raise_cap(int cap)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	assert_int_equal(syscall(SYS_capget, &h, d), 0);
	d[cap / 32].effective |= 1u << cap % 32;
	assert_int_equal(syscall(SYS_capset, &h, d), 0);
}

/* The queries agree with the netdev. */
static void queries(void **state)
{
	struct ibv_device_attr_ex da;
	struct ibv_gid_entry g[4];
	struct ibv_context *c;
	struct ibv_port_attr pa;
	struct ibv_device **l;
	int n;

	(void)state;
	assert_non_null(c = rig_open(VF));
	assert_int_equal(ibv_query_gid_table(c, g, 4, 0), 1);
	assert_int_equal(g[0].ndev_ifindex, if_nametoindex(VF));
	assert_int_equal(ibv_query_gid_ex(c, 1, 0, &g[1], 0), 0);
	assert_memory_equal(&g[0], &g[1], sizeof g[0]);
	assert_int_equal(ibv_query_device_ex(c, NULL, &da), 0);
	assert_true(da.raw_packet_caps & IBV_RAW_PACKET_CAP_IP_CSUM);
	assert_true(da.tso_caps.max_tso >= 60000);
	assert_true(da.tso_caps.supported_qpts & 1u << IBV_QPT_RAW_PACKET);
	assert_int_equal(ibv_query_port(c, 1, &pa), 0);
	assert_int_equal(pa.state, IBV_PORT_ACTIVE);
	assert_int_equal(pa.active_mtu, IBV_MTU_1024); /* the largest that fits into 1500 */
	assert_int_equal(pa.link_layer, IBV_LINK_LAYER_ETHERNET);
	assert_int_equal(ibv_query_port(c, 2, &pa), EINVAL);
	assert_int_equal(ibv_close_device(c), 0);
	/* the environment selects */
	setenv("SOFTVF_DEVICES", "nothing,lo", 1);
	assert_non_null(l = ibv_get_device_list(&n));
	assert_int_equal(n, 1);
	assert_string_equal(ibv_get_device_name(l[0]), "softvf_lo");
	ibv_free_device_list(l);
	unsetenv("SOFTVF_DEVICES");
	assert_non_null(l = ibv_get_device_list(&n)); /* every veth */
	assert_int_equal(n, 1);
	assert_string_equal(ibv_get_device_name(l[0]), "softvf_" VF);
	ibv_free_device_list(l);
	setenv("SOFTVF_DEVICES", "svt*", 1);
}

static void states(void **state)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_RTS };
	struct ibv_qp_init_attr ia;
	struct ibv_wc wc;
	struct rig r;
	uint64_t i;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	assert_int_equal(ibv_query_qp(r.qp, &a, IBV_QP_STATE, &ia), 0);
	assert_int_equal(a.qp_state, IBV_QPS_RTS);
	assert_int_equal(ia.cap.max_send_wr, 8);
	a.qp_state = IBV_QPS_INIT;
	assert_int_equal(ibv_modify_qp(r.qp, &a, IBV_QP_STATE), EINVAL);
	assert_int_equal(post_rx(&r, r.qp, 8), ENOMEM);
	/* error: all 8 receives come back, in order, and later posts at once */
	a.qp_state = IBV_QPS_ERR;
	assert_int_equal(ibv_modify_qp(r.qp, &a, IBV_QP_STATE), 0);
	for (i = 0; i < 8; i++) {
		assert_int_equal(ibv_poll_cq(r.rcq, 1, &wc), 1);
		assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
		assert_int_equal(wc.wr_id, i);
	}
	assert_int_equal(post_rx(&r, r.qp, 77), 0);
	assert_int_equal(ibv_poll_cq(r.rcq, 1, &wc), 1);
	assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
	assert_int_equal(wc.wr_id, 77);
	assert_int_equal(post_tx(&r, 78, 64, 0), 0);
	assert_int_equal(ibv_poll_cq(r.scq, 1, &wc), 1);
	assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
	assert_int_equal(wc.wr_id, 78);
	/* and back */
	a.qp_state = IBV_QPS_RESET;
	assert_int_equal(ibv_modify_qp(r.qp, &a, IBV_QP_STATE), 0);
	assert_int_equal(post_tx(&r, 0, 64, 0), EINVAL);
	assert_int_equal(post_rx(&r, r.qp, 0), EINVAL);
	qp_up(r.qp);
	make_udp(tx_buf(&r, 0), 1, 2, "0123456789abcdef", 16);
	assert_int_equal(post_tx(&r, 5, 58, IBV_SEND_SIGNALED), 0);
	assert_true(poll_one(r.scq, &wc));
	assert_int_equal(wc.status, IBV_WC_SUCCESS);
	assert_int_equal(wc.wr_id, 5);
	rig_down(&r);
}

/* Send slots come back when a completion behind them is polled, not before. Unsignalled sends alone fill the queue. */
static void slots(void **state)
{
	struct ibv_wc wc;
	struct rig r;
	uint32_t n;
	int i;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	n = make_udp(tx_buf(&r, 0), 1, 2, "x", 1);
	for (i = 0; i < 7; i++)
		assert_int_equal(post_tx(&r, 0, n, 0), 0);
	assert_int_equal(post_tx(&r, 0, n, IBV_SEND_SIGNALED), 0);
	assert_int_equal(post_tx(&r, 0, n, IBV_SEND_SIGNALED), ENOMEM);
	assert_true(poll_one(r.scq, &wc));
	for (i = 0; i < 8; i++)
		assert_int_equal(post_tx(&r, 0, n, 0), 0);
	assert_int_equal(post_tx(&r, 0, n, IBV_SEND_SIGNALED), ENOMEM);
	assert_true(silent(r.scq, 5));
	rig_down(&r);
}

/* A chain of more frames than one kernel call takes, some of it inline from a buffer that is overwritten at once. */
static void chain(void **state)
{
	enum { N = 100 };
	struct ibv_send_wr w[N], *bad;
	struct ibv_sge sge[N];
	struct ibv_wc wc;
	struct rig r;
	uint8_t b[64];
	int s, i;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 128, false, false);
	s = peer_udp(9999, false);
	memset(w, 0, sizeof w);
	for (i = 0; i < N; i++) {
		uint8_t v = (uint8_t)i;

		sge[i] = (struct ibv_sge){ (uintptr_t)tx_buf(&r, (uint64_t)i), make_udp(tx_buf(&r, (uint64_t)i), 7777, 9999, &v, 1), r.mr->lkey };
		w[i].wr_id = (uint64_t)i;
		w[i].sg_list = &sge[i];
		w[i].num_sge = 1;
		w[i].opcode = IBV_WR_SEND;
		w[i].send_flags = IBV_SEND_IP_CSUM | (i % 10 == 9 ? IBV_SEND_SIGNALED : 0);
		w[i].next = i + 1 < N ? &w[i + 1] : NULL;
		if (i % 3 == 0) {
			w[i].send_flags |= IBV_SEND_INLINE;
			sge[i].lkey = 0;
		}
	}
	assert_int_equal(ibv_post_send(r.qp, w, &bad), 0);
	for (i = 0; i < N; i++)
		memset(tx_buf(&r, (uint64_t)i), 0xee, 64);
	for (i = 9; i < N; i += 10) {
		assert_true(poll_one(r.scq, &wc));
		assert_int_equal(wc.wr_id, i);
	}
	for (i = 0; i < N; i++) {
		assert_int_equal(recv(s, b, sizeof b, 0), 1);
		assert_int_equal(b[0], i);
	}
	w[0].next = NULL; /* longer than the QP allows */
	sge[0].length = 257;
	assert_int_equal(ibv_post_send(r.qp, w, &bad), ENOMEM);
	assert_ptr_equal(bad, w);
	close(s);
	rig_down(&r);
}

/* Keys: wrong, stale, another PD's, beyond the end; read-only memory can be sent from but not received into. */
static void keys(void **state)
{
	static uint8_t ro[4096] __attribute__((aligned(4096)));
	struct ibv_pd *other;
	struct ibv_mr *m, *mro;
	struct ibv_flow *f;
	struct ibv_wc wc;
	struct rig r;
	int k, s;

	(void)state;
	for (k = 0; k < 6; k++) {
		struct ibv_sge g;
		struct ibv_send_wr w = { .wr_id = 42, .sg_list = &g, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED }, *bad;

		rig_up(&r, VF, RIG_BUF, 8, false, false);
		assert_non_null(other = ibv_alloc_pd(r.ctx));
		assert_non_null(m = ibv_reg_mr(other, r.buf, 4096, IBV_ACCESS_LOCAL_WRITE));
		assert_non_null(mro = ibv_reg_mr(r.pd, ro, sizeof ro, 0));
		make_udp(tx_buf(&r, 0), 1, 2, "0123456789abcdef", 16);
		make_udp(ro, 1, 2, "0123456789abcdef", 16);
		g = (struct ibv_sge){ (uintptr_t)tx_buf(&r, 0), 58, r.mr->lkey };
		switch (k) {
		case 0: g.lkey ^= 1; break;
		case 1: g.lkey = 0xdeadbe00; break;
		case 2: g.lkey = m->lkey; g.addr = (uintptr_t)r.buf; break;
		case 3: g.addr = (uintptr_t)r.buf + r.mr->length - 57; break;
		case 4: g.addr = (uintptr_t)r.buf - 1; break;
		case 5: g.lkey = mro->lkey; g.addr = (uintptr_t)ro; break; /* fine */
		}
		assert_int_equal(ibv_post_send(r.qp, &w, &bad), 0);
		assert_true(poll_one(r.scq, &wc));
		assert_int_equal(wc.wr_id, 42);
		assert_int_equal(wc.status, k == 5 ? IBV_WC_SUCCESS : IBV_WC_LOC_PROT_ERR);
		assert_int_equal(r.qp->state, k == 5 ? IBV_QPS_RTS : IBV_QPS_ERR);
		assert_int_equal(ibv_dealloc_pd(other), EBUSY);
		assert_int_equal(ibv_dereg_mr(m), 0);
		assert_int_equal(ibv_dereg_mr(mro), 0);
		assert_int_equal(ibv_dealloc_pd(other), 0);
		rig_down(&r);
	}
	/* receive side: into read-only memory, and into too little */
	s = peer_udp(9999, false);
	for (k = 0; k < 2; k++) {
		struct ibv_sge g;
		struct ibv_recv_wr w = { .wr_id = 43, .sg_list = &g, .num_sge = 1 }, *bad;

		rig_up(&r, VF, RIG_BUF, 1, false, false);
		assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
		peer_send(s, false, 7777, "0123456789abcdef", 16);
		assert_true(poll_one(r.rcq, &wc));
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
		assert_non_null(mro = ibv_reg_mr(r.pd, ro, sizeof ro, 0));
		g = k == 0 ? (struct ibv_sge){ (uintptr_t)ro, sizeof ro, mro->lkey } : (struct ibv_sge){ (uintptr_t)r.buf, 57, r.mr->lkey };
		assert_int_equal(ibv_post_recv(r.qp, &w, &bad), 0);
		peer_send(s, false, 7777, "0123456789abcdef", 16);
		assert_true(poll_one(r.rcq, &wc));
		assert_int_equal(wc.wr_id, 43);
		assert_int_equal(wc.status, k == 0 ? IBV_WC_LOC_PROT_ERR : IBV_WC_LOC_LEN_ERR);
		assert_int_equal(ibv_dereg_mr(mro), 0);
		assert_int_equal(ibv_destroy_flow(f), 0);
		rig_down(&r);
	}
	close(s);
}

static void memlock(void **state)
{
	struct rlimit old, rl;
	struct ibv_context *c;
	struct ibv_pd *pd;
	struct ibv_mr *a, *b;
	uint8_t *m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_non_null(c = rig_open(VF));
	assert_non_null(pd = ibv_alloc_pd(c));
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &old), 0);
	rl = old;
	rl.rlim_cur = 256 << 10;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &rl), 0);
	assert_non_null(a = ibv_reg_mr(pd, m, 1 << 20, IBV_ACCESS_LOCAL_WRITE)); /* privileged: no limit */
	assert_int_equal(ibv_dereg_mr(a), 0);
	drop_cap(CAP_IPC_LOCK);
	errno = 0;
	assert_null(ibv_reg_mr(pd, m, 1 << 20, IBV_ACCESS_LOCAL_WRITE));
	assert_int_equal(errno, ENOMEM);
	assert_non_null(a = ibv_reg_mr(pd, m, 200 << 10, IBV_ACCESS_LOCAL_WRITE));
	assert_null(ibv_reg_mr(pd, m + (512 << 10), 100 << 10, IBV_ACCESS_LOCAL_WRITE));
	assert_int_equal(errno, ENOMEM);
	assert_non_null(b = ibv_reg_mr(pd, m + (512 << 10), 56 << 10, IBV_ACCESS_LOCAL_WRITE));
	assert_int_equal(ibv_dereg_mr(a), 0);
	assert_non_null(a = ibv_reg_mr(pd, m, 200 << 10, IBV_ACCESS_LOCAL_WRITE));
	assert_int_equal(ibv_dereg_mr(a), 0);
	assert_int_equal(ibv_dereg_mr(b), 0);
	raise_cap(CAP_IPC_LOCK);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &old), 0);
	/* memory that isn't there can't be registered */
	assert_int_equal(munmap(m + (64 << 10), 4096), 0);
	errno = 0;
	assert_null(ibv_reg_mr(pd, m, 128 << 10, IBV_ACCESS_LOCAL_WRITE));
	assert_int_equal(errno, EFAULT);
	munmap(m, 1 << 20);
	assert_int_equal(ibv_dealloc_pd(pd), 0);
	assert_int_equal(ibv_close_device(c), 0);
}

static void privilege(void **state)
{
	struct ibv_qp_init_attr a = { .qp_type = IBV_QPT_RAW_PACKET, .cap = { 4, 4, 1, 1, 0 } };
	struct ibv_qp_init_attr ud = { .qp_type = IBV_QPT_UD, .cap = { 4, 4, 1, 1, 0 } };
	struct rig r;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	a.send_cq = a.recv_cq = ud.send_cq = ud.recv_cq = r.rcq;
	drop_cap(CAP_NET_RAW);
	errno = 0;
	assert_null(ibv_create_qp(r.pd, &a));
	assert_int_equal(errno, EPERM);
	errno = 0;
	assert_null(rule(r.qp, false, 0, 7777, 0));
	assert_int_equal(errno, EPERM);
	raise_cap(CAP_NET_RAW);
	errno = 0;
	assert_null(ibv_create_qp(r.pd, &ud));
	assert_int_equal(errno, EOPNOTSUPP);
	rig_down(&r);
}

/* Another process has the queue: EBUSY and nothing else; when it is gone, the queue is free. */
static void busy(void **state)
{
	struct ibv_qp_init_attr a = { .qp_type = IBV_QPT_RAW_PACKET, .cap = { 4, 4, 1, 1, 0 } };
	struct ibv_context *c;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct rig r;
	int in[2], out[2], st;
	char b;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	child = fork();
	if (child == 0) {
		rig_up(&r, VF, RIG_BUF, 8, false, false);
		if (write(out[1], "r", 1) != 1 || read(in[0], &b, 1) != 1)
			_exit(1);
		_exit(0);
	}
	assert_int_equal(read(out[0], &b, 1), 1);
	assert_non_null(c = rig_open(VF));
	assert_non_null(pd = ibv_alloc_pd(c));
	assert_non_null(cq = ibv_create_cq(c, 16, NULL, NULL, 0));
	a.send_cq = a.recv_cq = cq;
	errno = 0;
	assert_null(ibv_create_qp(pd, &a));
	assert_int_equal(errno, EBUSY);
	assert_int_equal(ibv_destroy_cq(cq), 0);
	assert_int_equal(ibv_dealloc_pd(pd), 0);
	assert_int_equal(ibv_close_device(c), 0);
	assert_int_equal(write(in[1], "x", 1), 1);
	assert_int_equal(waitpid(child, &st, 0), child);
	assert_int_equal(st, 0);
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	rig_down(&r);
	close(in[0]);
	close(in[1]);
	close(out[0]);
	close(out[1]);
}

/* Two contexts of one process share the netdev; one leaving doesn't disturb the other. */
static void shared(void **state)
{
	struct ibv_flow *f, *g;
	struct rig r, q;
	struct ibv_wc wc;
	int s;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 8, false, false);
	rig_up(&q, VF, RIG_BUF, 8, false, false);
	assert_non_null(f = rule(r.qp, false, 0, 7001, 0));
	assert_non_null(g = rule(q.qp, false, 0, 7002, 0));
	s = peer_udp(9999, false);
	peer_send(s, false, 7002, "q", 1);
	peer_send(s, false, 7001, "r", 1);
	assert_true(poll_one(r.rcq, &wc));
	assert_int_equal(rx_buf(&r, wc.wr_id)[42], 'r');
	assert_true(poll_one(q.rcq, &wc));
	assert_int_equal(rx_buf(&q, wc.wr_id)[42], 'q');
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&r);
	peer_send(s, false, 7002, "Q", 1);
	assert_true(poll_one(q.rcq, &wc));
	assert_int_equal(rx_buf(&q, wc.wr_id)[42], 'Q');
	assert_int_equal(ibv_destroy_flow(g), 0);
	rig_down(&q);
	close(s);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test_setup_teardown(queries, up, down), cmocka_unit_test_setup_teardown(states, up, down),
		cmocka_unit_test_setup_teardown(slots, up, down), cmocka_unit_test_setup_teardown(chain, up, down),
		cmocka_unit_test_setup_teardown(keys, up, down), cmocka_unit_test_setup_teardown(memlock, up, down),
		cmocka_unit_test_setup_teardown(privilege, up, down), cmocka_unit_test_setup_teardown(busy, up, down),
		cmocka_unit_test_setup_teardown(shared, up, down),
	};
	int r = world_init();

	return r != 0 ? r : cmocka_run_group_tests(t, NULL, NULL);
}
