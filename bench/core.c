/*
 * core.c - what the TCP core costs by itself: no device, no engine, no socket API; both ends and the wire are in this program.
 *
 * `core` prints ns per message for several numbers of connections, in random order, and the memory of an idle connection. `core --steps N`
 * takes each step of the fast path N times and prints nothing of interest: under callgrind, core.py reads the instructions of each step off
 * the calls that the step_*() functions make.
 */
#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "stack/frame.h"
#include "stack/tcp.h"
#include "stack/wire.h"

#define STEP __attribute__((noinline))
enum { SLOT = 2048, RX = 256, MSS = 1448, HDR = HV_ETH_LEN + HV_IP4_LEN + HV_TCP_LEN + HV_TS_OPT_LEN, BATCH = 32, MSG_MAX = MSS };

static uint32_t msg_len = 64;
static uint8_t msg[MSG_MAX], got[MSG_MAX];

/* One end of every connection, as the ring of one process. */
struct side {
	struct hv_env env;
	struct hv_tcp_counters cnt;
	uint8_t *tcbs;
	size_t stride;
	struct hv_buf bufs[RX];
	struct hv_chunk *chunks;
	uint32_t n_chunks;
};
static struct side side[2];
static uint64_t now_us = 1000000;

static void *pages(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("core: mmap");
		exit(1);
	}
	(void)madvise(p, len, MADV_HUGEPAGE);
	return p;
}

static struct hv_tcb *tcb(unsigned s, uint32_t i)
{
	return (struct hv_tcb *)(void *)(side[s].tcbs + i * side[s].stride);
}

static void side_init(unsigned s, uint32_t conns)
{
	struct side *d = &side[s];
	uint32_t n = conns + 64; /* what is in flight lies in a chunk */
	uint8_t *rx = pages((size_t)RX * SLOT), *tx = pages((size_t)n * SLOT);

	memset(d, 0, sizeof *d);
	d->stride = (hv_tcb_size() + 63) & ~(size_t)63;
	d->tcbs = pages(conns * d->stride);
	d->chunks = calloc(n, sizeof *d->chunks);
	assert(d->chunks != NULL);
	for (uint32_t i = 0; i < RX; i++) {
		struct hv_buf *b = &d->bufs[i];

		b->base = rx + (size_t)i * SLOT;
		b->cap = SLOT;
		b->next = d->env.free_rx;
		d->env.free_rx = b;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct hv_chunk *c = &d->chunks[i];

		c->base = tx + (size_t)i * SLOT;
		c->cap = SLOT;
		c->next = d->env.free_tx;
		d->env.free_tx = c;
	}
	d->n_chunks = n;
	d->env.n_free_rx = RX;
	d->env.n_free_tx = n;
	d->env.rx_total = RX;
}

/* The usual data centre connection: timestamps, SACK, window scaling, TCP_NODELAY, established some time ago. */
static void conn_init(unsigned s, uint32_t i)
{
	static const uint8_t l2[HV_ETH_LEN] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0 };
	const uint32_t iss = 0x10000u * i + 77, irs = 0x10000u * i + 99;
	struct hv_tcp_image m;
	int rc;

	memset(&m, 0, sizeof m);
	m.tuple = (struct hv_tuple){ .family = 4, .proto = 6, .lport = (uint16_t)(i + 1 + s), .rport = (uint16_t)(i + 2 - s) };
	m.tuple.laddr[0] = m.tuple.raddr[0] = 10;
	m.tuple.laddr[3] = (uint8_t)(s + 1);
	m.tuple.raddr[3] = (uint8_t)(2 - s);
	m.tuple.laddr[2] = m.tuple.raddr[2] = (uint8_t)(i >> 12);
	m.opts = HV_TCPO_TS | HV_TCPO_SACK | HV_TCPO_WS;
	m.snd_wscale = m.rcv_wscale = 7;
	m.snd_una = m.snd_nxt = m.snd_end = s == 0 ? iss : irs;
	m.rcv_nxt = m.rcv_wup = m.snd_wl1 = s == 0 ? irs : iss;
	m.snd_wnd = m.max_window = m.rcv_wnd = 65536;
	m.rcvbuf = 131072;
	m.sndbuf = 131072;
	m.mss_clamp = MSS + HV_TS_OPT_LEN;
	m.snd_mss = MSS;
	m.pmtu = 1500;
	m.ts_recent = (uint32_t)(now_us / 1000);
	m.ts_recent_valid = true;
	m.srtt_us = m.min_rtt_us = 40;
	m.rttvar_us = 10;
	m.rto_us = 200000;
	m.snd_cwnd = 10;
	m.snd_ssthresh = 0x7fffffff;
	m.nodelay = true;
	m.notsent_lowat = UINT32_MAX;
	rc = hv_tcp_import(tcb(s, i), &side[s].env, &side[s].cnt, &m, l2, sizeof l2, NULL, now_us);
	if (rc != 0) {
		fprintf(stderr, "core: import: %s\n", strerror(-rc));
		exit(1);
	}
}

static void fatal(const char *what)
{
	fprintf(stderr, "core: %s\n", what);
	exit(1);
}

/* ---- the steps; each makes the calls that callgrind is asked about ---- */
STEP static void step_send(struct hv_tcb *t, struct hv_env *env, struct hv_tx *tx)
{
	if (hv_tcp_send_fast(t, env, msg, msg_len, tx, now_us) != msg_len)
		fatal("not sent the fast way");
	hv_tcp_send_commit(t, env, msg, msg_len, now_us);
}

STEP static void step_parse(const uint8_t *l4, uint32_t len, struct hv_seg *seg)
{
	if (!hv_tcp_parse(l4, len, seg))
		fatal("not a segment");
}

#define STEP_INPUT(name) \
	STEP static unsigned name(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg) \
	{ \
		unsigned act = hv_tcp_input(t, env, seg, now_us); \
		if ((act & (HV_TCP_DROP | HV_TCP_DEMOTE)) != 0) \
			fatal(#name ": dropped"); /* also: else the compiler makes one function of them */ \
		return act; \
	}
STEP_INPUT(step_input_data_ack) /* a request or reply that acknowledges the one before */
STEP_INPUT(step_input_data)     /* data that acknowledges nothing new */
STEP_INPUT(step_input_ack)      /* a pure ACK */

STEP static void step_read(struct hv_tcb *t, struct hv_env *env)
{
	unsigned act = 0;

	if (hv_tcp_read(t, env, got, sizeof got, false, &act, now_us) != msg_len)
		fatal("not read");
}

STEP static void step_output_ack(struct hv_tcb *t, struct hv_env *env, struct hv_tx *tx)
{
	(void)hv_tcp_timeout(t, env, now_us);
	if (!hv_tcp_output(t, env, tx, now_us))
		fatal("no ACK came out");
}

STEP static void step_memcpy(void)
{
	__asm__ volatile("" : "+r"(msg_len));
	memcpy(got, msg, msg_len);
	__asm__ volatile("" ::: "memory");
}

/* ---- the wire ---- */
static struct hv_buf *carry(struct side *to, const struct hv_tx *tx)
{
	struct hv_buf *b = to->env.free_rx;

	to->env.free_rx = b->next;
	to->env.n_free_rx--;
	b->len = tx->hdr_len;
	memcpy(b->base, tx->hdr, tx->hdr_len);
	for (unsigned i = 0; i < tx->nsge; i++) {
		memcpy(b->base + b->len, tx->sge[i].addr, tx->sge[i].len);
		b->len += tx->sge[i].len;
	}
	b->data = b->base;
	return b;
}

/* Parsed up to what the engine hands to hv_tcp_input(). */
static void arrived(struct hv_buf *b, struct hv_seg *seg)
{
	step_parse(b->base + HV_ETH_LEN + HV_IP4_LEN, b->len - HV_ETH_LEN - HV_IP4_LEN, seg);
	seg->buf = b;
}

static void back(struct side *d, struct hv_buf *b, unsigned act)
{
	if ((act & HV_TCP_KEPT) != 0)
		return;
	b->next = d->env.free_rx;
	d->env.free_rx = b;
	d->env.n_free_rx++;
}

static void check(unsigned s, uint32_t i)
{
	const char *what;

	if (!hv_tcb_check(tcb(s, i), &side[s].env, &what)) {
		fprintf(stderr, "core: %s\n", what);
		exit(1);
	}
}

/* ---- instructions ---- */
static void steps(uint32_t n)
{
	struct hv_seg seg;
	struct hv_tx tx;
	struct hv_buf *b;

	for (unsigned s = 0; s < 2; s++) {
		side_init(s, 2);
		for (uint32_t i = 0; i < 2; i++)
			conn_init(s, i);
	}
	for (uint32_t i = 0; i < n; i++) {
		/* connection 0: request and reply, 30 us a turn */
		for (unsigned s = 0; s < 2; s++) {
			step_send(tcb(s, 0), &side[s].env, &tx);
			b = carry(&side[1 - s], &tx);
			now_us += 15;
			arrived(b, &seg);
			if (i == 0 && s == 0) /* acknowledges nothing yet */
				back(&side[1], b, hv_tcp_input(tcb(1, 0), &side[1].env, &seg, now_us));
			else
				back(&side[1 - s], b, step_input_data_ack(tcb(1 - s, 0), &side[1 - s].env, &seg));
			step_read(tcb(1 - s, 0), &side[1 - s].env);
			step_memcpy();
		}
		/* connection 1: messages in one direction, each acknowledged when the delayed ACK is due */
		step_send(tcb(0, 1), &side[0].env, &tx);
		b = carry(&side[1], &tx);
		now_us += 15;
		arrived(b, &seg);
		back(&side[1], b, step_input_data(tcb(1, 1), &side[1].env, &seg));
		step_read(tcb(1, 1), &side[1].env);
		now_us += 45000;
		step_output_ack(tcb(1, 1), &side[1].env, &tx);
		b = carry(&side[0], &tx);
		now_us += 15;
		arrived(b, &seg);
		back(&side[0], b, step_input_ack(tcb(0, 1), &side[0].env, &seg));
		if (i % 64 == 0)
			for (unsigned k = 0; k < 4; k++)
				check(k & 1, k >> 1);
	}
	if (side[0].cnt.predicted != side[0].cnt.segs_in || side[1].cnt.predicted != side[1].cnt.segs_in)
		fatal("not all segments were predicted");
}

/* ---- time ---- */
static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint32_t rnd(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 16);
}

/* A message each way on every connection, in the order given, so that each acknowledges the one before: send, input, read. A batch is what one
 * poll of the ring finds; with prefetch, its connections' lines are asked for when it is found, as the engine does. */
static void pass(const uint32_t *order, uint32_t n, bool prefetch)
{
	for (unsigned s = 0; s < 2; s++) {
		for (uint32_t at = 0; at < n; at += BATCH) {
			uint32_t k = n - at < BATCH ? n - at : BATCH;
			struct hv_buf *b[BATCH];

			if (prefetch)
				for (uint32_t i = 0; i < k; i++)
					hv_tcp_prefetch(tcb(s, order[at + i]));
			for (uint32_t i = 0; i < k; i++) {
				struct hv_tx tx;
				struct hv_tcb *t = tcb(s, order[at + i]);

				if (hv_tcp_send_fast(t, &side[s].env, msg, msg_len, &tx, now_us) != msg_len)
					fatal("not sent the fast way");
				b[i] = carry(&side[1 - s], &tx);
				hv_tcp_send_commit(t, &side[s].env, msg, msg_len, now_us);
			}
			now_us += 2;
			if (prefetch) {
				for (uint32_t i = 0; i < k; i++)
					hv_tcp_prefetch(tcb(1 - s, order[at + i]));
				for (uint32_t i = 0; i < k; i++)
					hv_tcp_prefetch_more(tcb(1 - s, order[at + i]));
			}
			for (uint32_t i = 0; i < k; i++) {
				struct hv_tcb *t = tcb(1 - s, order[at + i]);
				struct hv_seg seg;
				unsigned act = 0;

				if (!hv_tcp_parse(b[i]->base + HV_ETH_LEN + HV_IP4_LEN, b[i]->len - HV_ETH_LEN - HV_IP4_LEN, &seg))
					fatal("not a segment");
				seg.buf = b[i];
				back(&side[1 - s], b[i], hv_tcp_input(t, &side[1 - s].env, &seg, now_us));
				if (hv_tcp_read(t, &side[1 - s].env, got, sizeof got, false, &act, now_us) != msg_len)
					fatal("not read");
			}
		}
	}
}

static double ns_per_message(const uint32_t *order, uint32_t n, bool prefetch, uint32_t ms)
{
	double best = 1e9;
	uint32_t per = n < 4096 ? (4096 + n - 1) / n : 1;

	for (int run = 0; run < 5; run++) {
		uint64_t t0 = clock_ns(), t, done = 0;

		do {
			for (uint32_t i = 0; i < per; i++)
				pass(order, n, prefetch);
			done += 2ull * per * n;
		} while ((t = clock_ns()) - t0 < (uint64_t)ms * 1000000u);
		if ((double)(t - t0) / (double)done < best)
			best = (double)(t - t0) / (double)done;
	}
	return best;
}

static void speed(uint32_t n, uint32_t ms, bool json, bool first)
{
	uint32_t *order = calloc(n, sizeof *order);
	uint64_t seg0;
	double with, without;

	assert(order != NULL);
	for (unsigned s = 0; s < 2; s++) {
		side_init(s, n);
		for (uint32_t i = 0; i < n; i++)
			conn_init(s, i);
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = rnd() % (i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	pass(order, n, true);
	seg0 = side[0].cnt.segs_in - side[0].cnt.predicted;
	with = ns_per_message(order, n, true, ms);
	without = ns_per_message(order, n, false, ms);
	if (side[0].cnt.segs_in - side[0].cnt.predicted != seg0)
		fatal("not all segments were predicted");
	check(0, 0);
	check(1, n - 1);
	if (json)
		printf("%s{\"connections\": %u, \"ns\": %.1f, \"ns_without_prefetch\": %.1f}", first ? "" : ", ", n, with, without);
	else
		printf("%11u  %20.1f  %16.1f\n", n, with, without);
	for (unsigned s = 0; s < 2; s++) {
		munmap(side[s].tcbs, n * side[s].stride);
		munmap(side[s].bufs[0].base, (size_t)RX * SLOT);
		munmap(side[s].chunks[0].base, (size_t)side[s].n_chunks * SLOT);
		free(side[s].chunks);
	}
	free(order);
}

/* What a connection with nothing to do holds: its TCB, and whatever it took from the pools and did not give back. */
static size_t idle_octets(void)
{
	enum { N = 100 };
	uint32_t order[N];
	size_t held;

	for (unsigned s = 0; s < 2; s++) {
		side_init(s, N);
		for (uint32_t i = 0; i < N; i++) {
			conn_init(s, i);
			order[i] = i;
		}
	}
	for (int i = 0; i < 10; i++)
		pass(order, N, true);
	now_us += 100000;
	for (uint32_t i = 0; i < N; i++) { /* the last replies are acknowledged too */
		struct hv_seg seg;
		struct hv_tx tx;
		struct hv_buf *b;

		step_output_ack(tcb(0, i), &side[0].env, &tx);
		b = carry(&side[1], &tx);
		arrived(b, &seg);
		back(&side[1], b, hv_tcp_input(tcb(1, i), &side[1].env, &seg, now_us));
	}
	held = N * side[0].stride;
	for (unsigned s = 0; s < 2; s++)
		held += (side[s].n_chunks - side[s].env.n_free_tx + RX - side[s].env.n_free_rx) * (size_t)SLOT;
	return (held + N - 1) / N;
}

static void usage(FILE *f)
{
	fprintf(f, "usage: core [--conns N,N...] [--len N] [--ms N] [--json]\n"
		   "       core --steps N [--len N]\n"
		   "  --conns N,N...  how many connections (default 1,512,4096,32768)\n"
		   "  --len N         octets per message, at most %u (default 64)\n"
		   "  --ms N          how long each of five runs per figure takes; the best counts (default 200)\n"
		   "  --json          for core.py\n"
		   "  --steps N       each step of the fast path N times, for callgrind; see core.py\n",
	    MSG_MAX);
}

int main(int argc, char **argv)
{
	static const struct option opts[] = { { "conns", 1, NULL, 'c' }, { "len", 1, NULL, 'l' }, { "ms", 1, NULL, 'm' },
		{ "json", 0, NULL, 'j' }, { "steps", 1, NULL, 's' }, { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	const char *conns = "1,512,4096,32768";
	uint32_t ms = 200, n_steps = 0;
	bool json = false, first = true;
	int o;

	while ((o = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		switch (o) {
		case 'c': conns = optarg; break;
		case 'l': msg_len = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'm': ms = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'j': json = true; break;
		case 's': n_steps = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (optind != argc || msg_len == 0 || msg_len > MSG_MAX) {
		usage(stderr);
		return 2;
	}
	memset(msg, 'm', sizeof msg);
	if (n_steps != 0) {
		steps(n_steps);
#ifdef __OPTIMIZE__
		puts("{\"optimized\": true}");
#else
		puts("{\"optimized\": false}");
#endif
		return 0;
	}
	if (json)
		printf("{\"len\": %u, \"idle_octets\": %zu, \"speed\": [", msg_len, idle_octets());
	else
		printf("idle connection: %zu octets\n\nconnections  ns/message, %4u octets  without prefetch\n", idle_octets(), msg_len);
	for (char *end; *conns != '\0'; conns = *end == ',' ? end + 1 : end) {
		uint32_t n = (uint32_t)strtoul(conns, &end, 10);

		if (n == 0 || n > 1000000 || (*end != ',' && *end != '\0')) {
			usage(stderr);
			return 2;
		}
		speed(n, ms, json, first);
		first = false;
	}
	if (json)
		printf("]}\n");
	return 0;
}
