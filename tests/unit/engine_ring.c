/*
 * engine_ring.c - what the poll loop (src/engine/ring.c) and path.c do with frames, the VF replaced by an array of them. No device, no privileges.
 */
#include "../sim/seg.h"
#include "engine/internal.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the VF ---- */

#define BUFS 64u
static struct hv_buf bufs[BUFS];
static uint8_t slots[BUFS][2048];
static struct hv_chunk chunks[8];
static uint8_t chunk_mem[8][4096];
static struct hv_vf_cqe arrived[BUFS];
static unsigned n_arrived, tx_frames;
static uint32_t tx_largest;
static const struct hv_tuple from4 = { .family = 4, .proto = 6, .lport = 0x1111, .rport = 0x2222, .laddr = { 10, 0, 0, 1 }, .raddr = { 10, 0, 0, 2 } };
static const struct hv_tuple from6 = { .family = 6, .proto = 6, .lport = 0x1111, .rport = 0x2222, .laddr = { 0xfd, [15] = 1 }, .raddr = { 0xfd, [15] = 2 } };

unsigned hv_vf_poll_rx(struct hv_vf *vf, struct hv_vf_cqe *out, unsigned max, uint64_t now_ns)
{
	unsigned n = n_arrived;

	(void)vf, (void)now_ns;
	assert_true(n <= max);
	memcpy(out, arrived, n * sizeof *out);
	n_arrived = 0;
	return n;
}
int hv_vf_tx(struct hv_vf *vf, struct hv_env *env, const struct hv_tx *tx, uint64_t now_ns)
{
	uint32_t size = tx->hdr_len - tx->l3_off + (tx->mss != 0 && tx->payload > tx->mss ? tx->mss : tx->payload);

	(void)vf, (void)now_ns;
	env->sq_done = ++env->sq_next;
	tx_frames++;
	if (size > tx_largest)
		tx_largest = size;
	return 0;
}
unsigned hv_vf_tx_room(const struct hv_vf *vf) { return vf != NULL ? 64 : 0; }
unsigned hv_vf_poll_tx(struct hv_vf *vf, struct hv_env *env) { return (void)vf, (void)env, 0; }
void hv_vf_refill(struct hv_vf *vf, struct hv_env *env) { (void)vf, (void)env; }
uint32_t hv_vf_rx_posted(const struct hv_vf *vf) { return (void)vf, BUFS; }
uint32_t hv_vf_tso_max(const struct hv_vf *vf) { return (void)vf, 0; }
uint64_t hv_vf_tx_oldest(const struct hv_vf *vf) { return (void)vf, 0; }
int hv_vf_arm(struct hv_vf *vf) { return (void)vf, 0; }
/* What the engine refers to and nothing here gets to. */
#define NOT_HERE { fail_msg("%s() was called", __func__); __builtin_unreachable(); }
int hv_vf_async_fd(const struct hv_vf *vf) { (void)vf; NOT_HERE }
bool hv_vf_async_next(struct hv_vf *vf, struct hv_vf_async *ev) { (void)vf, (void)ev; NOT_HERE }
void hv_vf_channel_ack(struct hv_vf *vf) { (void)vf; NOT_HERE }
int hv_vf_channel_fd(const struct hv_vf *vf) { (void)vf; NOT_HERE }
void hv_vf_child_forget(struct hv_vf *vf) { (void)vf; NOT_HERE }
void hv_vf_close(struct hv_vf *vf, bool dead) { (void)vf, (void)dead; NOT_HERE }
enum hv_vf_why hv_vf_discover(int upper, struct hv_vf_pair *pair) { (void)upper, (void)pair; NOT_HERE }
void hv_vf_env_init(struct hv_vf *vf, struct hv_env *env) { (void)vf, (void)env; NOT_HERE }
enum hv_vf_why hv_vf_flow_add(struct hv_vf *vf, const struct hv_tuple *t, struct hv_vf_flow **out, int *errp) { (void)vf, (void)t, (void)out, (void)errp; NOT_HERE }
void hv_vf_flow_del(struct hv_vf *vf, struct hv_vf_flow *f) { (void)vf, (void)f; NOT_HERE }
void hv_vf_flow_later(struct hv_vf *vf, struct hv_vf_flow *f) { (void)vf, (void)f; NOT_HERE }
void hv_vf_flow_sweep(struct hv_vf *vf) { (void)vf; NOT_HERE }
void hv_vf_flow_keep(struct hv_vf *vf, struct hv_vf_flow *f) { (void)vf, (void)f; NOT_HERE }
enum hv_vf_why hv_vf_open(struct hv_vf **out, const struct hv_vf_pair *p, const struct hv_vf_limits *l, int *e) { (void)out, (void)p, (void)l, (void)e; NOT_HERE }
const char *hv_vf_why_text(enum hv_vf_why why) { (void)why; NOT_HERE }

static int setup(void **state)
{
	(void)state;
	hv_conf.idle_ms = 3600000;
	memset(&G.env, 0, sizeof G.env);
	for (unsigned i = 0; i < BUFS; i++) {
		bufs[i] = (struct hv_buf){ .base = slots[i], .cap = sizeof slots[i], .idx = i };
		hv_buf_give(&bufs[i]);
	}
	G.env.rx_total = BUFS;
	for (unsigned i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
		chunks[i] = (struct hv_chunk){ .next = G.env.free_tx, .base = chunk_mem[i], .cap = sizeof chunk_mem[i] };
		G.env.free_tx = &chunks[i];
		G.env.n_free_tx++;
	}
	G.vf = (void *)&bufs; /* not NULL */
	n_arrived = tx_frames = tx_largest = 0;
	return 0;
}

static struct hv_tuple back(struct hv_tuple t)
{
	struct hv_tuple r = t;

	memcpy(r.laddr, t.raddr, 16);
	memcpy(r.raddr, t.laddr, 16);
	r.lport = t.rport;
	r.rport = t.lport;
	return r;
}

/* Into the next buffer; tag < 0: none. */
static void arrive(const uint8_t *frame, uint32_t len, int tag)
{
	struct hv_buf *b = G.env.free_rx;
	uint32_t at = tag >= 0 ? 4 : 0;

	G.env.free_rx = b->next;
	G.env.n_free_rx--;
	memcpy(b->base, frame, 12);
	memcpy(b->base + 12, (uint8_t[]){ 0x81, 0, (uint8_t)(tag >> 8), (uint8_t)tag }, at);
	memcpy(b->base + 12 + at, frame + 12, len - 12);
	b->data = b->base;
	b->len = len + at;
	arrived[n_arrived++] = (struct hv_vf_cqe){ b, true };
}

static void turn(void)
{
	hv_lock(&G.lock);
	hv_ring_poll(hv_now_ns());
	hv_unlock(&G.lock);
}

static struct hv_sock *sock(const struct hv_tuple *peer, int type)
{
	struct hv_sock *s = hv_sock_new(-1, peer->family == 6 ? AF_INET6 : AF_INET, type, true);

	assert_non_null(s);
	s->p->tuple = back(*peer);
	s->p->tuple.proto = type == SOCK_STREAM ? 6 : 17;
	s->p->active_us = hv_now_us();
	s->p->path_us = UINT64_MAX;
	atomic_store(&s->tier, HV_TIER_VF);
	hv_demux_add(s);
	return s;
}

#define ISS 1000u
#define IRS 5000u
#define FLIGHT 6000u

static struct hv_sock *tcp(const struct hv_tuple *peer, uint32_t flight)
{
	static uint8_t octets[FLIGHT];
	struct hv_sock *s = sock(peer, SOCK_STREAM);
	struct hv_tcp_image m = { .tuple = s->p->tuple, .ttl = 64, .snd_una = ISS, .snd_nxt = ISS + flight, .snd_end = ISS + flight, .rcv_nxt = IRS, .rcv_wup = IRS,
		.snd_wl1 = IRS, .snd_wnd = 64000, .max_window = 64000, .rcv_wnd = 32000, .rcvbuf = 131072, .sndbuf = 131072, .mss_clamp = 1460, .snd_mss = 1460,
		.pmtu = 1500, .srtt_us = 10000, .min_rtt_us = 10000, .rttvar_us = 2500, .rto_us = 210000, .snd_cwnd = 20, .snd_ssthresh = 0x7fffffff, .nodelay = true,
		.notsent_lowat = UINT32_MAX, .snd = octets, .snd_len = flight };
	uint8_t l2[14] = { 0 };

	assert_non_null(s->p->tcb = hv_obj_alloc(hv_tcb_size()));
	assert_int_equal(hv_tcp_import(s->p->tcb, &G.env, &G.tcp, &m, l2, sizeof l2, NULL, hv_now_us()), 0);
	return s;
}

static void gone(struct hv_sock *s)
{
	hv_lock(&G.lock);
	hv_demux_del(s);
	hv_timer_del(s);
	if (s->p->tcb != NULL) {
		hv_tcp_release(s->p->tcb, &G.env);
		hv_obj_free(s->p->tcb, hv_tcb_size());
	}
	if (s->type == SOCK_DGRAM)
		hv_udp_release(&s->p->udp, &G.env);
	hv_unlock(&G.lock);
	hv_sock_put(s);
	assert_int_equal(G.env.n_free_rx, BUFS); /* nothing is kept by anybody */
}

/* ---- VLANs ---- */

/* The device's rules say nothing about tags: a frame of another network may have the addresses of a connection of ours. A tag with VID 0 is a priority. */
static void tagged(const struct hv_tuple *peer)
{
	uint8_t f[2048], data[100] = "another network's";
	struct hv_tcp_stat st;

	struct hv_sock *s = tcp(peer, 0);
	struct seg_spec g = { .from = peer, .seq = IRS, .ack = ISS, .wnd = 1000, .flags = SEG_ACK | SEG_PSH, .data = data, .len = sizeof data };
	uint32_t n = seg_build(f, &g);
	arrive(f, n, 7);
	arrive(f, n, 0x6007);
	turn();
	hv_tcp_stat(s->p->tcb, &st);
	assert_int_equal(st.segs_in, 0);
	assert_int_equal(hv_tcp_readable(s->p->tcb), 0);
	assert_int_equal(G.env.n_free_rx, BUFS);
	arrive(f, n, 7);
	arrive(f, n, 0x6000);
	turn();
	assert_int_equal(hv_tcp_readable(s->p->tcb), sizeof data);
	g.seq += sizeof data;
	n = seg_build(f, &g);
	arrive(f, n, -1);
	turn();
	assert_int_equal(hv_tcp_readable(s->p->tcb), 2 * sizeof data);
	gone(s);

	struct hv_tuple u = *peer;
	u.proto = 17;
	s = sock(&u, SOCK_DGRAM);
	hv_udp_init(&s->p->udp, &s->p->tuple, 100000);
	n = udp_build(f, &u, data, sizeof data, false);
	arrive(f, n, 7);
	turn();
	assert_int_equal(s->p->udp.count, 0);
	assert_int_equal(G.env.n_free_rx, BUFS);
	arrive(f, n, -1);
	arrive(f, n, 0);
	turn();
	assert_int_equal(s->p->udp.count, 2);
	gone(s);
}
static void tagged4(void **state) { (void)state, tagged(&from4); }
static void tagged6(void **state) { (void)state, tagged(&from6); }

/* ---- the owner of the last frame is found by its octets ---- */

static uint64_t segs_in(const struct hv_sock *s)
{
	struct hv_tcp_stat st;

	hv_tcp_stat(s->p->tcb, &st);
	return st.segs_in;
}

/* How many of a connection's frames get to its stack, and whether the one with that octet changed does: the same after a frame of that connection (warm) as
 * after one of nobody's. */
static void same_owner(void **state)
{
	uint8_t f[256], nobody[256];
	struct hv_sock *s = tcp(&from4, 0);
	struct hv_tuple other = from4;
	uint32_t n, m, taken = 0;

	(void)state;
	other.lport ^= 0x100;
	other.laddr[3] ^= 1;
	m = seg_build(nobody, &(struct seg_spec){ .from = &other, .seq = IRS, .ack = ISS, .wnd = 1000, .flags = SEG_ACK });
	n = seg_build(f, &(struct seg_spec){ .from = &from4, .seq = IRS, .ack = ISS, .wnd = 1000, .flags = SEG_ACK });
	for (unsigned at = 12; at < 38; at++) {
		for (unsigned bit = 0; bit < 9; bit++) { /* the ninth: as it was */
			uint64_t before, cold, warm;
			f[at] ^= (uint8_t)(1u << bit);
			arrive(nobody, m, -1);
			turn();
			before = segs_in(s);
			arrive(f, n, -1);
			turn();
			cold = segs_in(s) - before;
			f[at] ^= (uint8_t)(1u << bit);
			before = segs_in(s);
			arrive(f, n, -1);
			turn();
			assert_int_equal(segs_in(s) - before, 1);
			f[at] ^= (uint8_t)(1u << bit);
			arrive(f, n, -1);
			arrive(f, n, 7);
			turn();
			warm = segs_in(s) - before - 1;
			f[at] ^= (uint8_t)(1u << bit);
			if (cold != warm)
				fail_msg("octet %u, bit %u: taken %u times after another's frame, %u times after its own", at, bit, (unsigned)cold, (unsigned)warm);
			taken += (uint32_t)warm;
		}
	}
	assert_in_range(taken, 26, 26 * 8); /* TTL, TOS, identification, checksum: not looked at */
	/* Shorter than it says, and than any TCP segment. */
	for (uint32_t len = 14; len < n; len++) {
		uint64_t before = segs_in(s);
		arrive(f, n, -1);
		arrive(f, len, -1);
		turn();
		assert_int_equal(segs_in(s) - before, 1);
	}
	gone(s);
	arrive(f, n, -1);
	turn();
	assert_int_equal(G.env.n_free_rx, BUFS);
}

/* ---- ICMP: too big ---- */

struct icmp { uint32_t seq, mtu; uint8_t type, code; enum { FINE, SUM, IP_SUM, PORT, INNER_PROTO, FRAGMENT, TRUNCATED } wrong; };

/* From a router, about a segment of the connection with that peer. */
static uint32_t icmp(uint8_t *f, const struct hv_tuple *peer, const struct icmp *e)
{
	struct hv_tuple own = back(*peer);
	bool v6 = peer->family == 6;
	uint32_t ip = v6 ? 40 : 20, al = v6 ? 16 : 4, n = 8 + ip + 8;
	uint8_t inner[256], *l3 = f + 14, *c = l3 + ip;
	struct hv_tuple outer = { .family = peer->family, .proto = 58, .raddr = { 0xfe, 9 } };
	uint16_t sum;

	if (e->wrong == PORT)
		own.lport ^= 0x100;
	seg_build(inner, &(struct seg_spec){ .from = &own, .seq = e->seq, .ack = IRS, .flags = SEG_ACK });
	if (e->wrong == INNER_PROTO)
		inner[v6 ? 14 + 6 : 14 + 9] = 17;
	memset(f, 0, 14 + ip);
	memcpy(outer.laddr, own.laddr, al);
	if (v6) {
		memcpy(f + 12, "\x86\xdd\x60", 3);
		l3[5] = (uint8_t)n;
		l3[6] = e->wrong == FRAGMENT ? 44 : 58;
		memcpy(l3 + 8, outer.raddr, 16);
		memcpy(l3 + 24, outer.laddr, 16);
	} else {
		memcpy(f + 12, "\x08\x00\x45", 3);
		l3[3] = (uint8_t)(ip + n);
		l3[6] = e->wrong == FRAGMENT ? 0x20 : 0;
		l3[9] = 1;
		memcpy(l3 + 12, outer.raddr, 4);
		memcpy(l3 + 16, outer.laddr, 4);
		sum = hv_csum(l3, 20, 0);
		memcpy(l3 + 10, &sum, 2);
		l3[11] ^= e->wrong == IP_SUM;
	}
	memset(c, 0, 8);
	c[0] = e->type;
	c[1] = e->code;
	c[6] = (uint8_t)(e->mtu >> 8);
	c[7] = (uint8_t)e->mtu;
	memcpy(c + 8, inner + 14, n - 8);
	sum = hv_csum(c, n, v6 ? hv_csum_pseudo(&outer, false, n) : 0);
	memcpy(c + 2, &sum, 2);
	c[2] ^= e->wrong == SUM;
	return 14 + ip + n - (e->wrong == TRUNCATED);
}

static uint32_t after(struct hv_sock *s, const struct hv_tuple *peer, const struct icmp *e)
{
	uint8_t f[512], *exact;
	uint32_t n = icmp(f, peer, e);
	struct hv_tcp_stat st;

	assert_non_null(exact = malloc(n)); /* for the sanitizers */
	memcpy(exact, f, n);
	hv_lock(&G.lock);
	hv_path_icmp(exact, n, hv_now_us());
	hv_unlock(&G.lock);
	free(exact);
	hv_tcp_stat(s->p->tcb, &st);
	return st.pmtu;
}
#define AFTER(SEQ, MTU, TYPE, WRONG) after(s, peer, &(struct icmp){ .seq = SEQ, .mtu = MTU, .type = TYPE, .code = code, .wrong = WRONG })

static void too_big(const struct hv_tuple *peer)
{
	bool v6 = peer->family == 6;
	uint8_t type = v6 ? 2 : 3, code = v6 ? 0 : 4;
	struct hv_sock *s = tcp(peer, FLIGHT);

	assert_int_equal(AFTER(ISS, 1400, type, SUM), 1500);
	assert_int_equal(AFTER(ISS, 1400, type, v6 ? PORT : IP_SUM), 1500);
	assert_int_equal(AFTER(ISS, 1400, type, PORT), 1500);
	assert_int_equal(AFTER(ISS, 1400, type, INNER_PROTO), 1500);
	assert_int_equal(AFTER(ISS, 1400, type, FRAGMENT), 1500);
	assert_int_equal(AFTER(ISS, 1400, type, TRUNCATED), 1500);
	assert_int_equal(AFTER(ISS, 1400, (uint8_t)(type + 1), FINE), 1500);
	assert_int_equal(AFTER(ISS - 1, 1400, type, FINE), 1500); /* acknowledged */
	assert_int_equal(AFTER(ISS + FLIGHT, 1400, type, FINE), 1500); /* not sent */
	assert_int_equal(AFTER(ISS, 1500, type, FINE), 1500);
	assert_int_equal(AFTER(ISS, 9000, type, FINE), 1500); /* wider */
	assert_int_equal(tx_frames, 0);
	assert_int_equal(AFTER(ISS + FLIGHT - 1, 1400, type, FINE), 1400);
	assert_true(tx_frames != 0); /* again at once, in smaller pieces */
	assert_in_range(tx_largest, 1300, 1400);
	assert_int_equal(AFTER(ISS, 1450, type, FINE), 1400);
	if (v6)
		assert_int_equal(AFTER(ISS, 100, type, FINE), 1280); /* no link is narrower */
	else
		assert_int_equal(AFTER(ISS, 552, type, FINE), 552);
	assert_true(s->p->path_us != UINT64_MAX); /* and some day it's tried again */
	gone(s);
	assert_int_equal(G.env.n_free_tx, sizeof chunks / sizeof chunks[0]);
}
static void too_big4(void **state) { (void)state, too_big(&from4); }
static void too_big6(void **state) { (void)state, too_big(&from6); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(tagged4, setup), cmocka_unit_test_setup(tagged6, setup), cmocka_unit_test_setup(same_owner, setup),
		cmocka_unit_test_setup(too_big4, setup), cmocka_unit_test_setup(too_big6, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
