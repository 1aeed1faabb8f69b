/*
 * bulk.c - bulk transfers over chosen paths: how long they take, how long they stall, how several share one path.
 *
 * Time is virtual and everything follows from the seed, so a figure is the same on every machine, and a change of it is a change of the
 * stack's behaviour. bulk_matrix() prints the table that sim.sh compares with matrix.txt.
 */
#include "sim.h"

#include "stack/tcb.h"

#include <stdlib.h>
#include <string.h>

#define MSS 1448u
#define FLOWS 4u
#define FAIR_US 30000000u

static const struct bulk cells[] = {
	{ "clean, 1 ms", 20000000, 100, 1000, 128000, 0, 0, 0 },
	{ "clean, 10 ms", 20000000, 100, 10000, 256000, 0, 0, 0 },
	{ "clean, 100 ms", 20000000, 100, 100000, 1250000, 0, 0, 0 },
	{ "loss 0.01 %, 10 ms", 20000000, 100, 10000, 256000, 100, 0, 0 },
	{ "loss 0.1 %, 10 ms", 20000000, 100, 10000, 256000, 1000, 0, 0 },
	{ "loss 1 %, 1 ms", 10000000, 100, 1000, 128000, 10000, 0, 0 },
	{ "loss 1 %, 10 ms", 10000000, 100, 10000, 256000, 10000, 0, 0 },
	{ "loss 1 %, 100 ms", 2000000, 100, 100000, 1250000, 10000, 0, 0 },
	{ "loss 3 %, 10 ms", 5000000, 100, 10000, 256000, 30000, 0, 0 },
	{ "loss 10 %, 10 ms", 1000000, 100, 10000, 256000, 100000, 0, 0 },
	{ "loss 20 %, 10 ms", 300000, 100, 10000, 256000, 200000, 0, 0 },
	{ "reordering 5 %, 10 ms", 10000000, 100, 10000, 256000, 0, 50000, 0 },
	{ "jitter 3 ms, 10 ms", 10000000, 100, 10000, 256000, 0, 0, 3000 },
	{ "jitter 3 ms, loss 1 %, 10 ms", 5000000, 100, 10000, 256000, 10000, 0, 3000 },
	{ "short queue, 10 ms", 10000000, 100, 10000, 15000, 0, 0, 0 },
};

static void setup(struct world *w, const struct bulk *b, uint64_t seed, struct link_state *shared)
{
	memset(w, 0, sizeof *w);
	w->seed = seed;
	prng_seed(&w->rng, seed);
	w->now = w->progress_at = 1000000;
	w->link = shared != NULL ? shared : w->own;
	for (uint32_t i = 0; i < 2; i++) {
		w->own[i].c = (struct link_conf){ .rate_bps = (uint64_t)b->rate_mbit * 1000000, .queue = b->queue, .delay_us = b->rtt_us / 2,
			.loss = b->loss };
		if (i == 0) {
			w->own[i].c.reorder = b->reorder;
			w->own[i].c.jitter_us = b->jitter_us;
		}
	}
	setup_tuples(w);
	for (uint32_t i = 0; i < 2; i++) {
		struct side *s = &w->side[i];
		struct host_conf c = { .n_rx = 4096, .ring = 2048, .rx_cap = 2048, .n_tx = 128, .tx_cap = 65536, .tso_max = 60000,
			.mac = { 2, 0, 0, 0, 0, (uint8_t)(1 + i) }, .peer_mac = { 2, 0, 0, 0, 0, (uint8_t)(2 - i) } };
		struct hv_tcp_image *m = &s->img;
		s->ts = true;
		s->ws = 8;
		s->mss = MSS;
		s->app = (struct app){ .total = i == 0 ? b->octets : 0, .wr_max = 65536, .mode = READ_EAGER, .rd_max = 65536 };
		s->edge = s->edge_max = 64000u >> 8 << 8;
		host_init(&s->h, &c);
		s->pend_tail = &s->pend;
		s->timer_at = UINT64_MAX;
		m->tuple = s->tuple;
		m->ttl = 64;
		m->opts = HV_TCPO_TS | HV_TCPO_SACK | HV_TCPO_WS;
		m->rcv_wscale = m->snd_wscale = 8;
		m->snd_wnd = m->max_window = m->rcv_wnd = 64000u >> 8 << 8;
		m->snd_mss = MSS;
		m->mss_clamp = MSS + 12;
		m->pmtu = 1500;
		m->rcvbuf = 6u << 20;
		m->sndbuf = 4u << 20;
		m->srtt_us = m->min_rtt_us = b->rtt_us;
		m->rttvar_us = b->rtt_us / 2;
		m->rto_us = 200000 + 3 * b->rtt_us;
		m->snd_cwnd = 10;
		m->snd_ssthresh = 0x7fffffff;
		m->nodelay = m->quickack = true;
		m->notsent_lowat = 0xffffffffu;
		m->ts_recent = (uint32_t)(w->now / 1000);
		m->ts_recent_valid = true;
		m->rcv = malloc(1);
		m->snd = malloc(1);
		if (m->rcv == NULL || m->snd == NULL)
			abort();
	}
	setup_start(w);
	w->stall.moved = w->now;
}

/* ---- stalls ----
 * How often a retransmission gets lost is up to the network; how long the sender waits each time is not. From the moment in which the octet
 * at SND.UNA was sent, or became it, or something new about what is in flight was heard, it leaves again within the RTO of that moment,
 * backed off once for each timeout without an answer (RFC 6298 5.3-5.7). A tail loss probe may come in between, and then an RTO from there
 * on (RFC 8985 7.3); RACK may wait for reordering, a round trip at most (RFC 8985 6.2), before it leaves the rest to the RTO. */
static void stall_watch(struct world *w)
{
	const struct hv_tcb *t = w->side[0].h.tcb;
	struct stall *s = &w->stall;

	s->since = w->now;
	s->may = (uint64_t)((t->srtt8 >> 3) + (t->rttvar4 > 200000 ? t->rttvar4 : 200000)) << t->backoff;
	if (s->may > 120000000)
		s->may = 120000000;
	s->may += t->srtt8 >> 3;
}

void bulk_step(struct world *w)
{
	const struct host *h = &w->side[0].h;
	struct stall *s = &w->stall;

	if (hv_flight(h->tcb) != 0 && w->now - s->since > s->may)
		world_fail(w, "nothing was sent at SND.UNA for %lu us, the RTO allows %lu", (unsigned long)(w->now - s->since), (unsigned long)s->may);
}

void bulk_sent(struct world *w, uint32_t seq, uint32_t len)
{
	const struct host *h = &w->side[0].h;
	struct stall *s = &w->stall;

	s->timeouts += (uint32_t)(h->cnt.rto - s->rto);
	s->rto = h->cnt.rto;
	if (h->tcb->snd_una - seq < len || s->tlp != h->cnt.tlp)
		stall_watch(w);
	s->tlp = h->cnt.tlp;
	if (h->tcb->backoff > s->timeouts)
		world_fail(w, "the RTO is backed off %u times after %u timeouts", h->tcb->backoff, s->timeouts);
}

/* The receiver got its next octet. */
void bulk_moved(struct world *w)
{
	struct stall *s = &w->stall;

	if (w->now - s->moved > s->longest)
		s->longest = w->now - s->moved;
	s->moved = w->now;
}

/* The sender has heard something new. */
void bulk_answered(struct world *w, const struct hv_seg *seg, uint32_t una)
{
	const struct hv_tcb *t = w->side[0].h.tcb;
	struct stall *s = &w->stall;

	if (t->snd_una != una && seg->nsack == 0) {
		s->timeouts = 0;
		if (t->backoff != 0)
			world_fail(w, "the RTO is backed off after an answer");
	}
	/* Octets that are SACKed much later were sent after that at SND.UNA: that is no reason to be patient with it. */
	if (t->snd_una != una || w->now - s->since <= 2 * (t->srtt8 >> 3))
		stall_watch(w);
}

static struct world *new_world(void)
{
	struct world *w = aligned_alloc(64, (sizeof *w + 63) / 64 * 64);

	if (w == NULL)
		abort();
	return w;
}

/* One transfer; false: w->fail says why. */
static bool transfer(struct world *w, const struct bulk *b, uint64_t seed, bool verbose)
{
	setup(w, b, seed, NULL);
	w->stall.on = true;
	w->verbose = verbose;
	while (world_step(w))
		;
	if (w->fail[0] == 0)
		world_finish(w);
	if (w->fail[0] != 0)
		printf("%s, seed %lu: %s\n", b->name, (unsigned long)seed, w->fail);
	return w->fail[0] == 0;
}

bool bulk_matrix(FILE *out)
{
	struct world *w = new_world();
	bool ok = true;

	fprintf(out, "%-30s %9s %9s %9s %7s %5s\n", "one stream, 100 Mbit/s", "octets", "us", "kbit/s", "stall", "RTOs");
	for (uint32_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
		const struct bulk *b = &cells[i];
		uint64_t us;
		if (transfer(w, b, 1 + i, false)) {
			us = w->done_at - 1000000;
			fprintf(out, "%-30s %9u %9lu %9lu %7lu %5lu\n", b->name, b->octets, (unsigned long)us,
			    (unsigned long)((uint64_t)b->octets * 8000 / us), (unsigned long)w->stall.longest, (unsigned long)w->side[0].h.cnt.rto);
		} else {
			ok = false;
		}
		world_teardown(w);
	}
	free(w);
	return ok;
}

/* Where timeouts are the rule, one seed says little: the lossy ones of the cells, with many. */
bool bulk_stalls(uint64_t from, uint64_t to, bool verbose)
{
	struct world *w = new_world();
	uint64_t n = 0, failed = 0, rto = 0, us = 0;

	for (uint64_t seed = from; seed <= to; seed++)
		for (uint32_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
			if (cells[i].loss < 100000)
				continue;
			n++;
			failed += !transfer(w, &cells[i], seed, verbose);
			rto += w->side[0].h.cnt.rto;
			us += w->done_at - 1000000;
			world_teardown(w);
		}
	printf("stalls: %lu transfers, %lu failed, %lu timeouts, %lu s in all\n", (unsigned long)n, (unsigned long)failed, (unsigned long)rto,
	    (unsigned long)(us / 1000000));
	free(w);
	return failed == 0;
}

/* Flows that start one after the other share a bottleneck: Jain's index of what each has got in the second half of the time. */
bool bulk_fairness(FILE *out)
{
	static const struct bulk paths[] = { { "20 ms, queue of one BDP", 1u << 30, 20, 20000, 50000, 0, 0, 0 },
		{ "5 ms, queue of one BDP", 1u << 30, 20, 5000, 12500, 0, 0, 0 },
		{ "20 ms, loss 0.1 %", 1u << 30, 20, 20000, 50000, 1000, 0, 0 } };
	bool ok = true;

	for (uint32_t p = 0; p < sizeof paths / sizeof paths[0]; p++) {
		struct world *w[FLOWS];
		uint32_t half[FLOWS] = { 0 };
		double sum = 0, squares = 0, jain;
		for (uint32_t i = 0; i < FLOWS; i++) {
			w[i] = new_world();
			setup(w[i], &paths[p], 100 + i, i != 0 ? w[0]->own : NULL);
		}
		for (;;) {
			struct world *next = w[0];
			for (uint32_t i = 1; i < FLOWS; i++)
				if (w[i]->heap[0].at < next->heap[0].at)
					next = w[i];
			if (next->heap[0].at > FAIR_US / 2 && half[0] == 0)
				for (uint32_t i = 0; i < FLOWS; i++)
					half[i] = w[i]->side[1].app.read;
			if (next->heap[0].at > FAIR_US || !world_step(next))
				break;
		}
		for (uint32_t i = 0; i < FLOWS; i++) {
			double x = w[i]->side[1].app.read - half[i];
			sum += x;
			squares += x * x;
			if (w[i]->fail[0] != 0) {
				printf("%s: %s\n", paths[p].name, w[i]->fail);
				ok = false;
			}
		}
		jain = squares != 0 ? sum * sum / (FLOWS * squares) : 0;
		fprintf(out, "%u flows, 20 Mbit/s, %s: %.0f kbit/s together, Jain's index %.3f\n", FLOWS, paths[p].name,
		    sum * 8 / 1000 / (FAIR_US / 2e6), jain);
		ok &= jain >= 0.95;
		for (uint32_t i = FLOWS; i-- > 0;) {
			world_teardown(w[i]);
			free(w[i]);
		}
	}
	return ok;
}
