/* ibv_create_flow: which frame goes where. Every frame has exactly one receiver. */
#include "softvf_rig.h"

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

/* A second QP with a CQ of its own on the same context. */
static struct ibv_qp *second(const struct rig *r, struct ibv_cq **cq)
{
	struct ibv_qp_init_attr a = { .qp_type = IBV_QPT_RAW_PACKET, .cap = { 4, 16, 1, 1, 0 } };
	struct ibv_qp *qp;
	uint64_t i;

	assert_non_null(*cq = ibv_create_cq(r->ctx, 64, NULL, NULL, 0));
	a.send_cq = a.recv_cq = *cq;
	assert_non_null(qp = ibv_create_qp(r->pd, &a));
	assert_int_not_equal(qp->qp_num, r->qp->qp_num);
	qp_up(qp);
	for (i = 0; i < 16; i++)
		assert_int_equal(post_rx(r, qp, 500 + i), 0);
	return qp;
}

static void gets(struct ibv_cq *yes, struct ibv_cq *no, uint32_t qpn)
{
	struct ibv_wc wc;

	assert_true(poll_one(yes, &wc));
	assert_int_equal(wc.status, IBV_WC_SUCCESS);
	assert_int_equal(wc.qp_num, qpn);
	assert_true(silent(no, 5));
}

/* The same frame fits several rules: lowest number wins, whatever order they came in; when it goes, the next takes over. */
static void priorities(void **state)
{
	struct ibv_flow *wide, *narrow, *best;
	struct ibv_cq *cq2;
	struct ibv_qp *qp2;
	struct rig r;
	int s;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 16, false, false);
	qp2 = second(&r, &cq2);
	s = peer_udp(9999, false);
	assert_non_null(wide = rule(r.qp, false, 0, 7777, 1));
	peer_send(s, false, 7777, "a", 1);
	gets(r.rcq, cq2, r.qp->qp_num);
	assert_non_null(narrow = rule(qp2, false, 9999, 7777, 2)); /* narrower, but later in order */
	peer_send(s, false, 7777, "b", 1);
	gets(r.rcq, cq2, r.qp->qp_num);
	assert_non_null(best = rule(qp2, false, 0, 7777, 0)); /* the first rule's match with a better number */
	peer_send(s, false, 7777, "c", 1);
	gets(cq2, r.rcq, qp2->qp_num);
	assert_int_equal(ibv_destroy_flow(best), 0);
	peer_send(s, false, 7777, "d", 1);
	gets(r.rcq, cq2, r.qp->qp_num);
	assert_int_equal(ibv_destroy_flow(wide), 0);
	peer_send(s, false, 7777, "e", 1);
	gets(cq2, r.rcq, qp2->qp_num);
	assert_int_equal(ibv_destroy_flow(narrow), 0);
	peer_send(s, false, 7777, "f", 1);
	assert_true(silent(r.rcq, 20));
	assert_true(silent(cq2, 20));
	close(s);
	assert_int_equal(ibv_destroy_qp(qp2), 0);
	assert_int_equal(ibv_destroy_cq(cq2), 0);
	rig_down(&r);
}

/* Frames that arrived when there was one receiver only stay its own when a rule for another comes. */
static void joined(void **state)
{
	struct ibv_flow *f, *f2;
	struct ibv_cq *cq2;
	struct ibv_qp *qp2;
	struct ibv_wc wc;
	struct rig r;
	int s, i;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 16, false, false);
	qp2 = second(&r, &cq2);
	s = peer_udp(9999, false);
	assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
	for (i = 0; i < 3; i++) /* nobody polls yet */
		peer_send(s, false, 7777, "a", 1);
	assert_non_null(f2 = rule(qp2, false, 0, 7778, 0));
	peer_send(s, false, 7778, "b", 1);
	peer_send(s, false, 7777, "c", 1);
	for (i = 0; i < 4; i++) {
		assert_true(poll_one(r.rcq, &wc));
		assert_int_equal(wc.qp_num, r.qp->qp_num);
	}
	gets(cq2, r.rcq, qp2->qp_num);
	assert_true(silent(cq2, 5));
	/* nor does it change again when only the second is left */
	assert_int_equal(ibv_destroy_flow(f), 0);
	peer_send(s, false, 7778, "d", 1);
	gets(cq2, r.rcq, qp2->qp_num);
	assert_int_equal(ibv_destroy_flow(f2), 0);
	close(s);
	assert_int_equal(ibv_destroy_qp(qp2), 0);
	assert_int_equal(ibv_destroy_cq(cq2), 0);
	rig_down(&r);
}

/* Many rules of one shape, two families, two QPs: a full table, and no mix-ups. */
static void many(void **state)
{
	enum { N = 200 };
	struct ibv_flow *f[N], *f6;
	struct ibv_cq *cq2;
	struct ibv_qp *qp2;
	struct ibv_wc wc;
	struct rig r;
	int s, s6, i;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 16, false, false);
	qp2 = second(&r, &cq2);
	for (i = 0; i < N; i++)
		assert_non_null(f[i] = rule(i % 2 ? qp2 : r.qp, false, 0, (uint16_t)(20000 + i), 0));
	assert_non_null(f6 = rule_v6(qp2, 20000));
	s = peer_udp(9999, false);
	s6 = peer_udp(9999, true);
	for (i = 0; i < 10; i++) {
		peer_send(s, false, (uint16_t)(20000 + i * 17), "x", 1);
		gets(i * 17 % 2 ? cq2 : r.rcq, i * 17 % 2 ? r.rcq : cq2, i * 17 % 2 ? qp2->qp_num : r.qp->qp_num);
	}
	peer_send(s6, true, 20000, "y", 1);
	assert_true(poll_one(cq2, &wc));
	assert_int_equal(wc.byte_len, 63);
	peer_send(s6, true, 20001, "y", 1); /* an IPv4 rule's port */
	assert_true(silent(cq2, 20));
	assert_true(silent(r.rcq, 5));
	for (i = 0; i < N; i++)
		assert_int_equal(ibv_destroy_flow(f[i]), 0);
	assert_int_equal(ibv_destroy_flow(f6), 0);
	close(s);
	close(s6);
	assert_int_equal(ibv_destroy_qp(qp2), 0);
	assert_int_equal(ibv_destroy_cq(cq2), 0);
	rig_down(&r);
}

/* An IP fragment has no ports: rules with ports leave all of it to the kernel. */
static void fragments(void **state)
{
	struct ibv_flow *f;
	struct rig r;
	char b[4000];
	int s, k;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 16, false, false);
	assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
	k = own_udp(7777);
	s = peer_udp(9999, false);
	memset(b, 'f', sizeof b);
	peer_send(s, false, 7777, b, 3000);
	assert_int_equal(recv(k, b, sizeof b, 0), 3000);
	assert_true(silent(r.rcq, 5));
	close(k);
	close(s);
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&r);
}

/* What can't be matched is refused; the same rule twice is refused; too many shapes are refused; afterwards all works. */
static void refusals(void **state)
{
	struct {
		struct ibv_flow_attr a;
		struct ibv_flow_spec_eth e;
		struct ibv_flow_spec_ipv4_ext i;
		struct ibv_flow_spec_tcp_udp u;
	} __attribute__((packed, aligned(4))) x;
	struct ibv_flow *f, *g[64];
	struct rig r;
	int i, n;

	(void)state;
	rig_up(&r, VF, RIG_BUF, 16, false, false);
	assert_non_null(f = rule(r.qp, false, 0, 7777, 0));
	errno = 0;
	assert_null(rule(r.qp, false, 0, 7777, 0));
	assert_int_equal(errno, EEXIST);
	memset(&x, 0, sizeof x);
	x.a.type = IBV_FLOW_ATTR_NORMAL;
	x.a.size = sizeof x;
	x.a.num_of_specs = 3;
	x.a.port = 1;
	x.e.type = IBV_FLOW_SPEC_ETH;
	x.e.size = sizeof x.e;
	x.i.type = IBV_FLOW_SPEC_IPV4_EXT;
	x.i.size = sizeof x.i;
	x.i.val.tos = x.i.mask.tos = 4;
	x.u.type = IBV_FLOW_SPEC_UDP;
	x.u.size = sizeof x.u;
	assert_null(ibv_create_flow(r.qp, (struct ibv_flow_attr *)(void *)&x));
	assert_int_equal(errno, EOPNOTSUPP);
	x.i.mask.tos = 0;
	x.i.val.proto = 6; /* contradicts the UDP specification */
	x.i.mask.proto = 0xff;
	assert_null(ibv_create_flow(r.qp, (struct ibv_flow_attr *)(void *)&x));
	assert_int_equal(errno, EINVAL);
	x.a.type = IBV_FLOW_ATTR_SNIFFER;
	assert_null(ibv_create_flow(r.qp, (struct ibv_flow_attr *)(void *)&x));
	assert_int_equal(errno, EOPNOTSUPP);
	x.a.type = IBV_FLOW_ATTR_NORMAL;
	x.i.mask.proto = 0;
	x.u.size = 200; /* beyond the end */
	assert_null(ibv_create_flow(r.qp, (struct ibv_flow_attr *)(void *)&x));
	assert_int_equal(errno, EINVAL);
	for (n = 0; n < 64 && (g[n] = rule(r.qp, false, 0, 8000, (uint16_t)(10 + n))) != NULL; n++)
		;
	assert_int_equal(errno, ENOSPC);
	assert_in_range(n, 8, 63);
	for (i = 0; i < n; i++)
		assert_int_equal(ibv_destroy_flow(g[i]), 0);
	assert_non_null(g[0] = rule(r.qp, true, 1, 8000, 99));
	assert_int_equal(ibv_destroy_flow(g[0]), 0);
	assert_int_equal(ibv_destroy_flow(f), 0);
	rig_down(&r);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test_setup_teardown(priorities, up, down), cmocka_unit_test_setup_teardown(joined, up, down),
		cmocka_unit_test_setup_teardown(many, up, down),
		cmocka_unit_test_setup_teardown(fragments, up, down), cmocka_unit_test_setup_teardown(refusals, up, down),
	};
	int r = world_init();

	return r != 0 ? r : cmocka_run_group_tests(t, NULL, NULL);
}
