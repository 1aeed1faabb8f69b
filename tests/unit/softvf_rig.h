/*
 * softvf_rig.h - a small world for the softvf tests: two network namespaces, a veth pair between them, a raw-packet verbs rig on
 * one end, kernel sockets on the other. Every process makes its own namespaces and leaves nothing behind. Exit 77: skipped.
 */
#ifndef SOFTVF_RIG_H
#define SOFTVF_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VF "svtvf0"
#define PEER "svtpe0"
#define VF_IP "10.90.0.4"
#define PEER_IP "10.90.0.9"
#define VF_IP6 "fd90::4"
#define PEER_IP6 "fd90::9"

static int ns_vf = -1, ns_peer = -1;
static const uint8_t vf_mac[6] = { 2, 0, 0, 0, 0x90, 4 }, peer_mac[6] = { 2, 0, 0, 0, 0x90, 9 };

__attribute__((unused, format(printf, 1, 2))) static int run(const char *fmt, ...)
{
	char cmd[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof cmd, fmt, ap);
	va_end(ap);
	return system(cmd);
}

__attribute__((unused)) static void in_vf(void) { assert_int_equal(setns(ns_vf, CLONE_NEWNET), 0); }
__attribute__((unused)) static void in_peer(void) { assert_int_equal(setns(ns_peer, CLONE_NEWNET), 0); }

/* Build the pair; the calling thread ends up in the VF's namespace. */
__attribute__((unused)) static void world_up(unsigned mtu)
{
	in_vf();
	assert_int_equal(run("ip link add " VF " address 02:00:00:00:90:04 mtu %u type veth peer name " PEER
			     " address 02:00:00:00:90:09 mtu %u netns /proc/%d/fd/%d", mtu, mtu, getpid(), ns_peer), 0);
	assert_int_equal(run("ip link set lo up; ip addr add " VF_IP "/24 dev " VF " && ip -6 addr add " VF_IP6 "/64 dev " VF " nodad && "
			     "ip link set " VF " up && ethtool -K " VF " tx off >/dev/null"), 0);
	in_peer();
	assert_int_equal(run("ip link set lo up; ip addr add " PEER_IP "/24 dev " PEER " && ip -6 addr add " PEER_IP6 "/64 dev " PEER " nodad && "
			     "ip link set " PEER " up && ethtool -K " PEER " tx off >/dev/null"), 0);
	/* the tests write frames by hand: nothing may depend on who learned which address when */
	assert_int_equal(run("ip neigh replace " VF_IP " lladdr 02:00:00:00:90:04 dev " PEER " && ip -6 neigh replace " VF_IP6
			     " lladdr 02:00:00:00:90:04 dev " PEER), 0);
	in_vf();
	assert_int_equal(run("ip neigh replace " PEER_IP " lladdr 02:00:00:00:90:09 dev " VF " && ip -6 neigh replace " PEER_IP6
			     " lladdr 02:00:00:00:90:09 dev " VF), 0);
}

__attribute__((unused)) static void world_down(void)
{
	in_vf();
	(void)run("ip link del " VF " 2>/dev/null");
}

/* At the start of main(): 0, or 77 with the reason on stderr. */
__attribute__((unused)) static int world_init(void)
{
	setenv("SOFTVF_DEVICES", "svt*", 1);
	if (geteuid() != 0) {
		fprintf(stderr, "SKIP: needs root for network namespaces and XDP\n");
		return 77;
	}
	if (system("ip -V >/dev/null 2>&1 && ethtool --version >/dev/null 2>&1") != 0) {
		fprintf(stderr, "SKIP: needs ip and ethtool\n");
		return 77;
	}
	if (unshare(CLONE_NEWNET) < 0 || (ns_peer = open("/proc/thread-self/ns/net", O_RDONLY)) < 0 || unshare(CLONE_NEWNET) < 0 ||
	    (ns_vf = open("/proc/thread-self/ns/net", O_RDONLY)) < 0) {
		fprintf(stderr, "SKIP: can't make network namespaces: %s\n", strerror(errno));
		return 77;
	}
	return 0;
}

/* ---- verbs rig ---- */
#define RIG_BUFS 1024u
#define RIG_BUF 2048u

struct rig {
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	uint8_t *buf; /* RIG_BUFS receive buffers, then as many to send from */
	uint32_t bufsz;
	struct ibv_comp_channel *ch;
	struct ibv_cq *scq, *rcq;
	struct ibv_qp *qp;
	uint32_t depth;
};

__attribute__((unused)) static struct ibv_context *rig_open(const char *netdev)
{
	struct ibv_device **l;
	struct ibv_context *c = NULL;
	char name[64];
	int n = -1, i;

	snprintf(name, sizeof name, "softvf_%s", netdev);
	l = ibv_get_device_list(&n);
	assert_non_null(l);
	for (i = 0; i < n && c == NULL; i++)
		if (strcmp(ibv_get_device_name(l[i]), name) == 0)
			c = ibv_open_device(l[i]);
	assert_null(l[n]);
	ibv_free_device_list(l);
	return c;
}

__attribute__((unused)) static void qp_up(struct ibv_qp *qp)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

	assert_int_equal(ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_PORT), 0);
	a.qp_state = IBV_QPS_RTR;
	assert_int_equal(ibv_modify_qp(qp, &a, IBV_QP_STATE), 0);
	a.qp_state = IBV_QPS_RTS;
	assert_int_equal(ibv_modify_qp(qp, &a, IBV_QP_STATE), 0);
}

__attribute__((unused)) static uint8_t *rx_buf(const struct rig *r, uint64_t id) { return r->buf + (size_t)id * r->bufsz; }
__attribute__((unused)) static uint8_t *tx_buf(const struct rig *r, uint64_t id) { return r->buf + (size_t)(RIG_BUFS + id) * r->bufsz; }

__attribute__((unused)) static int post_rx(const struct rig *r, struct ibv_qp *qp, uint64_t id)
{
	struct ibv_sge s = { .addr = (uintptr_t)rx_buf(r, id), .length = r->bufsz, .lkey = r->mr->lkey };
	struct ibv_recv_wr w = { .wr_id = id, .sg_list = &s, .num_sge = 1 }, *bad;

	return ibv_post_recv(qp, &w, &bad);
}

__attribute__((unused)) static int post_tx(const struct rig *r, uint64_t id, uint32_t len, unsigned flags)
{
	struct ibv_sge s = { .addr = (uintptr_t)tx_buf(r, id), .length = len, .lkey = r->mr->lkey };
	struct ibv_send_wr w = { .wr_id = id, .sg_list = &s, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = flags }, *bad;

	return ibv_post_send(r->qp, &w, &bad);
}

/* depth receives posted, QP in RTS. */
__attribute__((unused)) static void rig_up(struct rig *r, const char *netdev, uint32_t bufsz, uint32_t depth, bool ex, bool channel)
{
	struct ibv_qp_init_attr_ex q;
	uint32_t i;

	memset(r, 0, sizeof *r);
	r->bufsz = bufsz;
	r->depth = depth;
	r->ctx = rig_open(netdev);
	assert_non_null(r->ctx);
	r->pd = ibv_alloc_pd(r->ctx);
	assert_non_null(r->pd);
	r->buf = aligned_alloc(4096, (size_t)RIG_BUFS * 2 * bufsz);
	assert_non_null(r->buf);
	r->mr = ibv_reg_mr(r->pd, r->buf, (size_t)RIG_BUFS * 2 * bufsz, IBV_ACCESS_LOCAL_WRITE);
	assert_non_null(r->mr);
	if (channel)
		assert_non_null(r->ch = ibv_create_comp_channel(r->ctx));
	if (ex) {
		struct ibv_cq_init_attr_ex a = { .cqe = 1024, .channel = r->ch, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_QP_NUM };
		struct ibv_cq_ex *x = ibv_create_cq_ex(r->ctx, &a);

		assert_non_null(x);
		r->rcq = ibv_cq_ex_to_cq(x);
	} else {
		assert_non_null(r->rcq = ibv_create_cq(r->ctx, 1024, r, r->ch, 0));
	}
	assert_non_null(r->scq = ibv_create_cq(r->ctx, 1024, r, NULL, 0));
	memset(&q, 0, sizeof q);
	q.send_cq = r->scq;
	q.recv_cq = r->rcq;
	q.cap.max_send_wr = q.cap.max_recv_wr = depth;
	q.cap.max_send_sge = 4;
	q.cap.max_recv_sge = 1;
	q.cap.max_inline_data = 256;
	q.qp_type = IBV_QPT_RAW_PACKET;
	q.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_MAX_TSO_HEADER;
	q.pd = r->pd;
	q.max_tso_header = 128;
	r->qp = ibv_create_qp_ex(r->ctx, &q);
	if (r->qp == NULL)
		fail_msg("ibv_create_qp_ex: %s", strerror(errno));
	qp_up(r->qp);
	for (i = 0; i < depth; i++)
		assert_int_equal(post_rx(r, r->qp, i), 0);
}

__attribute__((unused)) static void rig_down(struct rig *r)
{
	assert_int_equal(ibv_destroy_qp(r->qp), 0);
	assert_int_equal(ibv_destroy_cq(r->scq), 0);
	assert_int_equal(ibv_destroy_cq(r->rcq), 0);
	if (r->ch != NULL)
		assert_int_equal(ibv_destroy_comp_channel(r->ch), 0);
	assert_int_equal(ibv_dereg_mr(r->mr), 0);
	assert_int_equal(ibv_dealloc_pd(r->pd), 0);
	assert_int_equal(ibv_close_device(r->ctx), 0);
	free(r->buf);
}

static inline uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* One completion, or give up after some seconds: a bound against hanging, not an expectation. */
__attribute__((unused)) static bool poll_one(struct ibv_cq *cq, struct ibv_wc *wc)
{
	uint64_t end = now_ms() + 5000;
	int n;

	while ((n = ibv_poll_cq(cq, 1, wc)) == 0 && now_ms() < end)
		;
	return n == 1;
}

/* Nothing for that long. */
__attribute__((unused)) static bool silent(struct ibv_cq *cq, unsigned ms)
{
	uint64_t end = now_ms() + ms;
	struct ibv_wc wc;

	do {
		if (ibv_poll_cq(cq, 1, &wc) != 0)
			return false;
	} while (now_ms() < end);
	return true;
}

/* ---- rules ---- */
struct rule4 {
	struct ibv_flow_attr a;
	struct ibv_flow_spec_eth e;
	struct ibv_flow_spec_ipv4 i;
	struct ibv_flow_spec_tcp_udp u;
} __attribute__((packed, aligned(4)));

struct rule6 {
	struct ibv_flow_attr a;
	struct ibv_flow_spec_eth e;
	struct ibv_flow_spec_ipv6 i;
	struct ibv_flow_spec_tcp_udp u;
} __attribute__((packed, aligned(4)));

/* To VF_IP and that port; TCP if tcp. sport 0: any. */
__attribute__((unused)) static struct ibv_flow *rule(struct ibv_qp *qp, bool tcp, uint16_t sport, uint16_t dport, uint16_t prio)
{
	struct rule4 r;

	memset(&r, 0, sizeof r);
	r.a.type = IBV_FLOW_ATTR_NORMAL;
	r.a.size = sizeof r;
	r.a.priority = prio;
	r.a.num_of_specs = 3;
	r.a.port = 1;
	r.e.type = IBV_FLOW_SPEC_ETH;
	r.e.size = sizeof r.e;
	r.i.type = IBV_FLOW_SPEC_IPV4;
	r.i.size = sizeof r.i;
	r.i.val.dst_ip = inet_addr(VF_IP);
	r.i.mask.dst_ip = 0xffffffff;
	r.u.type = tcp ? IBV_FLOW_SPEC_TCP : IBV_FLOW_SPEC_UDP;
	r.u.size = sizeof r.u;
	r.u.val.dst_port = htons(dport);
	r.u.mask.dst_port = 0xffff;
	if (sport != 0) {
		r.u.val.src_port = htons(sport);
		r.u.mask.src_port = 0xffff;
	}
	return ibv_create_flow(qp, (struct ibv_flow_attr *)(void *)&r);
}

__attribute__((unused)) static struct ibv_flow *rule_v6(struct ibv_qp *qp, uint16_t dport)
{
	struct rule6 r;

	memset(&r, 0, sizeof r);
	r.a.type = IBV_FLOW_ATTR_NORMAL;
	r.a.size = sizeof r;
	r.a.num_of_specs = 3;
	r.a.port = 1;
	r.e.type = IBV_FLOW_SPEC_ETH;
	r.e.size = sizeof r.e;
	r.i.type = IBV_FLOW_SPEC_IPV6;
	r.i.size = sizeof r.i;
	inet_pton(AF_INET6, VF_IP6, r.i.val.dst_ip);
	memset(r.i.mask.dst_ip, 0xff, 16);
	r.u.type = IBV_FLOW_SPEC_UDP;
	r.u.size = sizeof r.u;
	r.u.val.dst_port = htons(dport);
	r.u.mask.dst_port = 0xffff;
	return ibv_create_flow(qp, (struct ibv_flow_attr *)(void *)&r);
}

/* ---- frames and sums, written independently of the library ---- */
__attribute__((unused)) static uint16_t sum16(const uint8_t *p, size_t n, uint32_t s)
{
	size_t i;

	for (i = 0; i + 1 < n; i += 2)
		s += (uint32_t)p[i] << 8 | p[i + 1];
	if (n & 1)
		s += (uint32_t)p[n - 1] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)s;
}

/* Sum over pseudo header and segment of an IPv4 frame without options: 0xffff when the checksum is right. */
__attribute__((unused)) static uint16_t l4_sum(const uint8_t *f)
{
	uint32_t tot = (uint32_t)f[16] << 8 | f[17], l4 = tot - 20;

	return sum16(f + 34, l4, (uint32_t)sum16(f + 26, 8, f[23]) + l4);
}

__attribute__((unused)) static uint32_t make_udp(uint8_t *f, uint16_t sport, uint16_t dport, const void *data, uint32_t n)
{
	static const uint8_t ip[12] = { 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0 };
	uint32_t a = inet_addr(VF_IP), b = inet_addr(PEER_IP);
	uint16_t w;

	memcpy(f, peer_mac, 6);
	memcpy(f + 6, vf_mac, 6);
	f[12] = 8;
	f[13] = 0;
	memcpy(f + 14, ip, 12);
	w = htons((uint16_t)(28 + n));
	memcpy(f + 16, &w, 2);
	memcpy(f + 26, &a, 4);
	memcpy(f + 30, &b, 4);
	w = htons(sport);
	memcpy(f + 34, &w, 2);
	w = htons(dport);
	memcpy(f + 36, &w, 2);
	w = htons((uint16_t)(8 + n));
	memcpy(f + 38, &w, 2);
	f[40] = f[41] = 0;
	memcpy(f + 42, data, n);
	return 42 + n;
}

/* Turn a received UDP frame around: what an echo server does. */
__attribute__((unused)) static void turn(uint8_t *f, bool v6)
{
	uint8_t t[16];
	unsigned ip = v6 ? 22 : 26, alen = v6 ? 16 : 4, l4 = v6 ? 54 : 34;

	memcpy(t, f, 6);
	memcpy(f, f + 6, 6);
	memcpy(f + 6, t, 6);
	memcpy(t, f + ip, alen);
	memcpy(f + ip, f + ip + alen, alen);
	memcpy(f + ip + alen, t, alen);
	memcpy(t, f + l4, 2);
	memcpy(f + l4, f + l4 + 2, 2);
	memcpy(f + l4 + 2, t, 2);
}

/* A UDP socket of the kernel in the peer's namespace. */
__attribute__((unused)) static int peer_udp(uint16_t port, bool v6)
{
	struct timeval tv = { 5, 0 };
	int s;

	in_peer();
	s = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	in_vf();
	assert_true(s >= 0);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	if (v6) {
		struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

		inet_pton(AF_INET6, PEER_IP6, &a.sin6_addr);
		assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
	} else {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(PEER_IP) };

		assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
	}
	return s;
}

/* A UDP socket of the kernel on the VF's own address. */
__attribute__((unused)) static int own_udp(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(VF_IP) };
	struct timeval tv = { 5, 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(s >= 0);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
	return s;
}

__attribute__((unused)) static void peer_send(int s, bool v6, uint16_t port, const void *p, size_t n)
{
	if (v6) {
		struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

		inet_pton(AF_INET6, VF_IP6, &a.sin6_addr);
		assert_int_equal(sendto(s, p, n, 0, (struct sockaddr *)&a, sizeof a), n);
	} else {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(VF_IP) };

		assert_int_equal(sendto(s, p, n, 0, (struct sockaddr *)&a, sizeof a), n);
	}
}

#endif
