/*
 * vf_ring.c - one ring on softvf against the kernel of the peer: frames, bursts, rules, wake-ups. Started by vf_ring.sh in the lab's VM.
 *
 *   vf_ring all                       every case but jumbo
 *   vf_ring jumbo                     frames of 9000 octets
 *   vf_ring daemon                    a child opens a ring of its own after its parent had one
 *   vf_ring discover NETDEV UPPER-IS  print nothing, exit 0 if NETDEV is found to be: pair | bare | down | none
 *   vf_ring reason WHAT               (started by case_reasons) exit 0 if opening fails for that reason
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>
#include "base/conf.h"
#include "base/log.h"
#include "base/sys.h"
#include "vf_ring.h"

#define PEER_MAC { 0x02, 0, 0, 0, 0, 0x01 }
static const char *const lab_name_var = "HVACCEL_LAB_NAME";

/* ---- tools ---- */
struct hv_vf_limits test_limits(void)
{
	return (struct hv_vf_limits){ .mem_bytes = 4u << 20, .rx_slots = 64, .tx_slots = 32, .hugepages = true };
}

int upper_index(void)
{
	return (int)if_nametoindex("eth0");
}

void ring_open(struct ring *r, const struct hv_vf_limits *lim)
{
	int err = 0;
	enum hv_vf_why why = hv_vf_discover(upper_index(), &r->pair);

	if (why == HV_VF_OK)
		why = hv_vf_open(&r->vf, &r->pair, lim, &err);
	if (why != HV_VF_OK) {
		printf("FAILED to open %s/%s: %s (errno %d)\n", r->pair.lower_name, r->pair.ibname, hv_vf_why_text(why), err);
		exit(1);
	}
	hv_vf_env_init(r->vf, &r->env);
	CHECK(r->env.n_free_rx + r->vf->rq == r->env.rx_total && r->env.n_free_tx == r->vf->plan.chunks);
}

void ring_close(struct ring *r, bool dead)
{
	hv_vf_close(r->vf, dead);
	r->vf = NULL;
}

struct hv_buf *ring_recv(struct ring *r, bool *csum_ok)
{
	uint64_t end = hv_now_ns() + WAIT_MS * 1000000ull;
	struct hv_vf_cqe c;

	do {
		hv_vf_refill(r->vf, &r->env);
		if (hv_vf_poll_rx(r->vf, &c, 1, hv_now_ns()) == 1) {
			if (csum_ok != NULL)
				*csum_ok = c.csum_ok;
			return c.buf;
		}
	} while (hv_now_ns() < end);
	return NULL;
}

void ring_free(struct ring *r, struct hv_buf *b)
{
	b->next = r->env.free_rx;
	r->env.free_rx = b;
	r->env.n_free_rx++;
}

void ring_send(struct ring *r, const struct hv_tx *tx)
{
	uint64_t end = hv_now_ns() + WAIT_MS * 1000000ull;
	uint32_t idx = r->env.sq_next;

	while (hv_vf_tx_room(r->vf) == 0) {
		hv_vf_poll_tx(r->vf, &r->env);
		CHECK(hv_now_ns() < end);
	}
	CHECK(hv_vf_tx(r->vf, &r->env, tx, hv_now_ns()) == 0);
	CHECK(r->env.sq_next == idx + 1);
}

void ring_drain(struct ring *r)
{
	uint64_t end = hv_now_ns() + WAIT_MS * 1000000ull;

	while (r->env.sq_done != r->env.sq_next) {
		hv_vf_poll_tx(r->vf, &r->env);
		CHECK(hv_now_ns() < end);
	}
	CHECK(hv_vf_tx_oldest(r->vf) == 0 && hv_vf_tx_room(r->vf) == r->vf->sq);
}

static int enter(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK(setns(fd, CLONE_NEWNET) == 0);
	close(fd);
	return 0;
}

static int peer_bound(int type, const void *addr, socklen_t len)
{
	char path[128];
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd, one = 1;

	snprintf(path, sizeof path, "/run/netns/hv-%s-peer", getenv(lab_name_var));
	enter(path);
	fd = socket(((const struct sockaddr *)addr)->sa_family, type | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	CHECK(bind(fd, addr, len) == 0);
	if (type == SOCK_STREAM)
		CHECK(listen(fd, 4) == 0);
	CHECK(setns(home, CLONE_NEWNET) == 0);
	close(home);
	return fd;
}

int peer_socket(int type, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr("10.77.0.1") };

	return peer_bound(type, &a, sizeof a);
}

int peer_socket6(int type, uint16_t port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	CHECK(inet_pton(AF_INET6, "fd00::1", &a.sin6_addr) == 1);
	return peer_bound(type, &a, sizeof a);
}

bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

void lab(const char *command)
{
	char line[256];

	fflush(stdout);
	snprintf(line, sizeof line, "hvaccel-lab %s", command);
	CHECK(system(line) == 0);
}

struct hv_tuple tuple(uint8_t family, uint8_t proto, uint16_t lport, uint16_t rport)
{
	struct hv_tuple t = { .family = family, .proto = proto, .lport = htons(lport), .rport = htons(rport) };

	if (family == 4) {
		inet_pton(AF_INET, "10.77.0.2", t.laddr);
		inet_pton(AF_INET, "10.77.0.1", t.raddr);
	} else {
		inet_pton(AF_INET6, "fd00::2", t.laddr);
		inet_pton(AF_INET6, "fd00::1", t.raddr);
	}
	return t;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

void headers(struct hv_tx *tx, const struct hv_tuple *t, uint32_t payload, uint32_t seq, uint32_t ack, uint8_t flags)
{
	static const uint8_t peer[6] = PEER_MAC, vm[6] = { 0x00, 0x0d, 0x3a, 0, 0, 0x02 };
	uint32_t l4 = t->proto == 6 ? 20 : 8;
	uint8_t *h = tx->hdr;

	memset(tx, 0, sizeof *tx);
	memcpy(h, peer, 6);
	memcpy(h + 6, vm, 6);
	put16(h + 12, t->family == 4 ? 0x0800 : 0x86dd);
	tx->l3_off = 14;
	if (t->family == 4) {
		h[14] = 0x45;
		put16(h + 16, 20 + l4 + payload);
		put16(h + 20, 0x4000);
		h[22] = 64;
		h[23] = t->proto;
		memcpy(h + 26, t->laddr, 4);
		memcpy(h + 30, t->raddr, 4);
		tx->l4_off = 34;
	} else {
		h[14] = 0x60;
		put16(h + 18, l4 + payload);
		h[20] = t->proto;
		h[21] = 64;
		memcpy(h + 22, t->laddr, 16);
		memcpy(h + 38, t->raddr, 16);
		tx->l4_off = 54;
	}
	h += tx->l4_off;
	memcpy(h, &t->lport, 2);
	memcpy(h + 2, &t->rport, 2);
	if (t->proto == 17) {
		put16(h + 4, 8 + payload);
	} else {
		put32(h + 4, seq);
		put32(h + 8, ack);
		h[12] = 5 << 4;
		h[13] = flags;
		put16(h + 14, 65535);
	}
	tx->hdr_len = (uint16_t)(tx->l4_off + l4);
	tx->payload = payload;
}

void payload_copy(struct hv_tx *tx, const uint8_t *p, uint32_t len)
{
	/* two pieces, the first of odd length: the checksum must not care */
	uint32_t first = len > 2 ? (len / 2) | 1 : len;

	tx->inline_ok = true;
	tx->sge[tx->nsge++] = (struct hv_sge){ .addr = p, .len = first };
	if (first != len)
		tx->sge[tx->nsge++] = (struct hv_sge){ .addr = p + first, .len = len - first };
}

void payload_chunks(struct hv_tx *tx, struct ring *r, const uint8_t *p, uint32_t len)
{
	while (len != 0) {
		struct hv_chunk *c = r->env.free_tx;
		uint32_t n;

		CHECK(c != NULL && tx->nsge < HV_TX_SEG_MAX);
		r->env.free_tx = c->next;
		r->env.n_free_tx--;
		n = len < c->cap ? len : c->cap;
		memcpy(c->base, p, n);
		tx->sge[tx->nsge++] = (struct hv_sge){ .addr = c->base, .len = n, .lkey = c->lkey };
		p += n;
		len -= n;
	}
}

void pattern(uint8_t *p, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(seed >> 24);
	}
}

const uint8_t *payload_of(const struct hv_buf *b, uint32_t *len)
{
	bool v4 = b->data[12] == 8;
	uint8_t proto = v4 ? b->data[23] : b->data[20];
	uint32_t l4 = v4 ? 34 : 54, hl = proto == 17 ? 8 : (uint32_t)(b->data[l4 + 12] >> 4) * 4;
	uint32_t total = v4 ? (uint32_t)(b->data[16] << 8 | b->data[17]) + 14 : (uint32_t)(b->data[18] << 8 | b->data[19]) + 54;

	CHECK(total <= b->len);
	*len = total - l4 - hl;
	return b->data + l4 + hl;
}

/* ---- cases ---- */
static void echo(struct ring *r, int peer, const struct hv_tuple *t, uint32_t len, bool chunks)
{
	static uint8_t out[9000], in[9000];
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} from;
	socklen_t fl = sizeof from;
	struct hv_buf *b;
	struct hv_tx tx;
	uint32_t got;
	bool ok = false;

	pattern(out, len, len);
	headers(&tx, t, len, 0, 0, 0);
	if (chunks)
		payload_chunks(&tx, r, out, len);
	else
		payload_copy(&tx, out, len);
	ring_send(r, &tx);
	CHECK(readable(peer, WAIT_MS)); /* a wrong checksum would keep it away */
	CHECK(recvfrom(peer, in, sizeof in, 0, &from.sa, &fl) == (ssize_t)len && memcmp(in, out, len) == 0);
	if (t->family == 4)
		CHECK(from.v4.sin_port == t->lport && memcmp(&from.v4.sin_addr, t->laddr, 4) == 0);
	else
		CHECK(from.v6.sin6_port == t->lport && memcmp(&from.v6.sin6_addr, t->laddr, 16) == 0);
	pattern(out, len, len + 1);
	CHECK(sendto(peer, out, len, 0, &from.sa, fl) == (ssize_t)len);
	b = ring_recv(r, &ok);
	CHECK(b != NULL && (ok || t->family == 6)); /* devices give no verdict on IPv6 */
	CHECK(memcmp(payload_of(b, &got), out, len) == 0 && got == len);
	ring_free(r, b);
}

static void case_echo(void)
{
	static const uint32_t sizes[] = { 0, 1, 2, 17, 18, 100, 149, 150, 151, 400, 1471, 1472 };
	struct hv_tuple t = tuple(4, 17, 4000, 5000);
	struct hv_vf_limits lim = test_limits();
	struct hv_vf_flow *f;
	struct ring r;
	int peer = peer_socket(SOCK_DGRAM, 5000), err = 0;

	ring_open(&r, &lim);
	CHECK(getenv("RDMAV_ALLOW_DISASSOC_DESTROY") == NULL); /* only lent to libibverbs */
	CHECK(r.pair.lower != r.pair.upper && strcmp(r.pair.lower_name, "vf0") == 0);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	for (unsigned software = 0; software < 2; software++) {
		if (software)
			r.vf->tx_csum = false;
		for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			echo(&r, peer, &t, sizes[i], false);
			echo(&r, peer, &t, sizes[i], true);
		}
	}
	for (unsigned i = 0; i < 300; i++) /* several times round both queues */
		echo(&r, peer, &t, 64, false);
	ring_drain(&r);
	CHECK(hv_vf_counters(r.vf)->rx_frames == 348 && hv_vf_counters(r.vf)->tx_posts == 348 && hv_vf_counters(r.vf)->cqe_errors == 0);
	hv_vf_flow_del(r.vf, f);
	ring_close(&r, false);
	close(peer);
	printf("ok: echo, checksums by device and software\n");
}

/* A burst that fills the receive queue, more frames than were posted when it began. */
static void case_burst(void)
{
	struct hv_tuple t = tuple(4, 17, 4001, 0);
	struct hv_vf_limits lim = test_limits();
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(4001), .sin_addr.s_addr = inet_addr("10.77.0.2") };
	struct hv_vf_flow *f;
	struct hv_vf_cqe c[16];
	struct ring r;
	uint32_t next = 0, sent = 0;
	int peer = peer_socket(SOCK_DGRAM, 5001), err = 0;

	memset(t.raddr, 0, sizeof t.raddr);
	ring_open(&r, &lim);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK); /* local address and port */
	for (unsigned round = 0; round < 40; round++) {
		uint64_t end = hv_now_ns() + WAIT_MS * 1000000ull;

		for (unsigned i = 0; i < 32; i++, sent++)
			CHECK(sendto(peer, &sent, sizeof sent, 0, (struct sockaddr *)&to, sizeof to) == sizeof sent);
		while (next < sent) {
			unsigned n = hv_vf_poll_rx(r.vf, c, 16, hv_now_ns());

			CHECK(hv_now_ns() < end);
			for (unsigned i = 0; i < n; i++, next++) {
				uint32_t len;

				CHECK(memcmp(payload_of(c[i].buf, &len), &next, sizeof next) == 0 && len == sizeof next);
				ring_free(&r, c[i].buf);
			}
			hv_vf_refill(r.vf, &r.env);
		}
	}
	CHECK(r.env.n_free_rx + r.vf->rq_posted == r.env.rx_total);
	memset(t.laddr, 0, sizeof t.laddr);
	hv_vf_flow_del(r.vf, f);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK); /* local port only */
	CHECK(sendto(peer, &sent, sizeof sent, 0, (struct sockaddr *)&to, sizeof to) == sizeof sent);
	struct hv_buf *b = ring_recv(&r, NULL);
	CHECK(b != NULL);
	ring_free(&r, b);
	ring_close(&r, false); /* with the rule still there */
	close(peer);
	printf("ok: bursts, rules without remote end\n");
}

/* Handshake by hand, then one burst that the device cuts: the peer's kernel must read exactly the octets. */
static void case_tso(void)
{
	struct hv_tuple t = tuple(4, 6, 4002, 5002);
	struct hv_vf_limits lim = test_limits();
	static uint8_t out[60000], in[60000];
	struct hv_vf_flow *f;
	struct hv_buf *b;
	struct hv_tx tx;
	struct ring r;
	uint32_t ack, iss = 0x12345678;
	int lis = peer_socket(SOCK_STREAM, 5002), fd, err = 0;

	ring_open(&r, &lim);
	if (hv_vf_tso_max(r.vf) < sizeof out) {
		printf("FAILED: tso_max %u\n", hv_vf_tso_max(r.vf));
		exit(1);
	}
	CHECK(r.env.tso_max == hv_vf_tso_max(r.vf));
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	headers(&tx, &t, 0, iss, 0, 0x02);
	ring_send(&r, &tx);
	b = ring_recv(&r, NULL);
	CHECK(b != NULL && b->data[47] == 0x12); /* SYN ACK */
	ack = ((uint32_t)b->data[38] << 24 | (uint32_t)b->data[39] << 16 | (uint32_t)b->data[40] << 8 | b->data[41]) + 1;
	ring_free(&r, b);
	headers(&tx, &t, 0, iss + 1, ack, 0x10);
	ring_send(&r, &tx);
	fd = accept(lis, NULL, NULL);
	CHECK(fd >= 0);
	pattern(out, sizeof out, 7);
	for (uint32_t off = 0; off < sizeof out; off += 30000) {
		headers(&tx, &t, 30000, iss + 1 + off, ack, 0x18);
		payload_chunks(&tx, &r, out + off, 30000);
		tx.mss = 1460;
		ring_send(&r, &tx);
		for (uint32_t got = 0; got < 30000;) {
			CHECK(readable(fd, WAIT_MS));
			ssize_t n = recv(fd, in + off + got, 30000 - got, 0);
			CHECK(n > 0);
			got += (uint32_t)n;
		}
	}
	CHECK(memcmp(in, out, sizeof out) == 0);
	tx.payload = hv_vf_tso_max(r.vf) + 1;
	CHECK(hv_vf_tx(r.vf, &r.env, &tx, 1) == -EINVAL);
	ring_drain(&r);
	CHECK(hv_vf_counters(r.vf)->tx_tso == 2);
	headers(&tx, &t, 0, iss + 1 + sizeof out, ack, 0x14); /* RST */
	ring_send(&r, &tx);
	ring_drain(&r);
	ring_close(&r, false);
	close(fd);
	close(lis);
	printf("ok: segmentation bursts\n");
}

static void case_ipv6(void)
{
	static const uint32_t sizes[] = { 0, 1, 18, 130, 131, 1452 };
	struct hv_tuple t = tuple(6, 17, 4003, 5003), u = tuple(6, 6, 4003, 5003);
	struct hv_vf_limits lim = test_limits();
	struct hv_vf_flow *f, *g;
	struct ring r;
	int peer = peer_socket6(SOCK_DGRAM, 5003), err = 0;

	ring_open(&r, &lim);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK && ring_flow(r.vf, &u, &g, &err) == HV_VF_OK);
	for (unsigned i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
		r.vf->tx_csum = i % 2;
		echo(&r, peer, &t, sizes[i / 2], i % 4 < 2);
	}
	ring_drain(&r);
	hv_vf_flow_del(r.vf, f);
	t.rport = 0; /* not connected */
	memset(t.raddr, 0, sizeof t.raddr);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	t = tuple(6, 17, 4003, 5003);
	echo(&r, peer, &t, 100, true);
	ring_close(&r, false);
	close(peer);
	printf("ok: IPv6\n");
}

/* In a lab of MTU 9000. */
static int case_jumbo(void)
{
	static const uint32_t sizes[] = { 8972, 8971, 4096, 1473 };
	struct hv_tuple t = tuple(4, 17, 4005, 5005);
	struct hv_vf_limits lim = test_limits();
	struct hv_vf_flow *f;
	struct ring r;
	int peer = peer_socket(SOCK_DGRAM, 5005), err = 0;

	ring_open(&r, &lim);
	CHECK(r.pair.mtu == 9000);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	for (unsigned i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++)
		echo(&r, peer, &t, sizes[i / 2], i % 2);
	ring_close(&r, false);
	close(peer);
	printf("ok: jumbo frames\n");
	return 0;
}

static void case_wake(void)
{
	struct hv_tuple t = tuple(4, 17, 4004, 5004);
	struct hv_vf_limits lim = test_limits();
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(4004), .sin_addr.s_addr = inet_addr("10.77.0.2") };
	struct hv_vf_flow *f;
	struct hv_vf_cqe c;
	struct ring r;
	int peer = peer_socket(SOCK_DGRAM, 5004), err = 0;

	ring_open(&r, &lim);
	CHECK(ring_flow(r.vf, &t, &f, &err) == HV_VF_OK);
	for (unsigned i = 0; i < 20; i++) {
		struct hv_buf *b;

		CHECK(hv_vf_arm(r.vf) == 0);
		CHECK(hv_vf_poll_rx(r.vf, &c, 1, 1) == 0 && !readable(hv_vf_channel_fd(r.vf), 0));
		CHECK(sendto(peer, &i, sizeof i, 0, (struct sockaddr *)&to, sizeof to) == sizeof i);
		CHECK(readable(hv_vf_channel_fd(r.vf), WAIT_MS));
		errno = 99;
		hv_vf_channel_ack(r.vf);
		CHECK(errno == 99);
		b = ring_recv(&r, NULL);
		CHECK(b != NULL);
		ring_free(&r, b);
		hv_vf_channel_ack(r.vf);
		CHECK(!readable(hv_vf_channel_fd(r.vf), 0));
	}
	CHECK(hv_vf_counters(r.vf)->wakes >= 20 && hv_vf_counters(r.vf)->arms == 20);
	CHECK((fcntl(hv_vf_channel_fd(r.vf), F_GETFD) & FD_CLOEXEC) && (fcntl(hv_vf_async_fd(r.vf), F_GETFD) & FD_CLOEXEC));
	CHECK((fcntl(hv_vf_async_fd(r.vf), F_GETFL) & O_NONBLOCK) != 0);
	ring_close(&r, false);
	close(peer);
	printf("ok: wake-ups\n");
}

static int discover(const char *netdev, const char *want)
{
	struct hv_vf_pair p;
	enum hv_vf_why why = hv_vf_discover((int)if_nametoindex(netdev), &p);

	printf("%s: %s: upper %s lower %s ib %s mtu %u running %d bare %d\n", netdev, hv_vf_why_text(why), p.upper_name, p.lower_name, p.ibname, p.mtu,
		p.running, p.bare);
	if (strcmp(want, "none") == 0)
		return why == HV_VF_NO_DEVICE ? 0 : 1;
	if (strcmp(p.upper_name, netdev) != 0 || p.ibname[0] == '\0' || p.mtu < 576)
		return 1;
	if (strcmp(want, "down") == 0)
		return why == HV_VF_NOT_RUNNING && !p.running ? 0 : 1;
	if (why != HV_VF_OK || !p.running)
		return 1;
	return p.bare == (strcmp(want, "bare") == 0) && (p.bare || strcmp(p.lower_name, "vf0") == 0) ? 0 : 1;
}

int main(int argc, char **argv)
{
	extern char **environ;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2 || getenv(lab_name_var) == NULL)
		return 2;
	hv_conf_load(environ);
	if (strcmp(argv[1], "discover") == 0 && argc == 4)
		return discover(argv[2], argv[3]);
	if (strcmp(argv[1], "reason") == 0 && argc == 3)
		return reason(argv[2]);
	if (strcmp(argv[1], "jumbo") == 0)
		return case_jumbo();
	if (strcmp(argv[1], "daemon") == 0)
		return case_daemon();
	case_echo();
	case_burst();
	case_tso();
	case_ipv6();
	case_wake();
	case_reasons(argv[0]);
	case_fork();
	case_port();
	case_loss();
	return 0;
}
