/*
 * twin.c - see twin.h.
 *
 * Prediction is kept out of the way by hv_tcb.pred alone, so no test code is needed in the stack. The state is saved and put back in
 * place instead of being copied elsewhere: pointers then mean the same in both runs and can be compared too.
 *
 * Some fields hold nothing that can be seen later, or the same in two spellings; canonical() brings them to one form and says why.
 */
#include "twin.h"

#include "stack/tcb.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define SENT_MAX 64u

struct twin_count twin_count;

struct area { uint8_t *p; size_t cap; };

struct state { /* everything that a call may change */
	struct hv_tcb tcb;
	struct hv_env env;
	struct hv_tcp_counters cnt;
	struct area bufs, chunks, slot, recs;
};

struct sent { /* a segment or burst that left */
	uint32_t hdr_len, payload, mss, sum;
	uint8_t hdr[HV_TX_HDR_MAX];
};

struct outcome {
	unsigned acts;
	struct hv_tcb tcb; /* canonical */
	struct hv_env env;
	struct hv_tcp_counters cnt;
	struct area bufs, chunks, slot, recs, queue;
	uint32_t nrec, nsent;
	struct sent sent[SENT_MAX];
};

static char why[200];

static void put(struct area *a, const void *src, size_t n)
{
	if (a->cap < n || a->p == NULL) {
		free(a->p);
		a->cap = n + 64;
		a->p = malloc(a->cap);
		assert(a->p != NULL);
	}
	if (n != 0)
		memcpy(a->p, src, n);
}

/* The one slot that in-order octets may be appended to. */
static struct hv_buf *tail_of(const struct hv_tcb *t)
{
	return t->rx_tail;
}

static void save(struct host *h, struct state *s)
{
	const struct hv_tcb *t = h->tcb;

	s->tcb = *t;
	s->env = h->env;
	s->cnt = h->cnt;
	put(&s->bufs, h->bufs, h->conf.n_rx * sizeof *h->bufs);
	put(&s->chunks, h->chunks, h->conf.n_tx * sizeof *h->chunks);
	if (tail_of(t) != NULL)
		put(&s->slot, tail_of(t)->base, tail_of(t)->cap);
	if (t->rec_chunk != NULL)
		put(&s->recs, t->rec_chunk->base, t->rec_cap * sizeof t->rec[0]);
}

static void restore(struct host *h, const struct state *s)
{
	struct hv_tcb *t = h->tcb;

	*t = s->tcb;
	h->env = s->env;
	h->cnt = s->cnt;
	memcpy(h->bufs, s->bufs.p, h->conf.n_rx * sizeof *h->bufs);
	memcpy(h->chunks, s->chunks.p, h->conf.n_tx * sizeof *h->chunks);
	if (tail_of(t) != NULL)
		memcpy(tail_of(t)->base, s->slot.p, tail_of(t)->cap);
	if (t->rec_chunk != NULL)
		memcpy(t->rec_chunk->base, s->recs.p, t->rec_cap * sizeof t->rec[0]);
}

/* Old marks count as SND.UNA: hv_ack() says so before it looks at them. */
static uint32_t mark(const struct hv_tcb *t, uint32_t at)
{
	return at - t->snd_una > hv_flight(t) ? t->snd_una : at;
}

/* RACK's last delivery matters only if something still in flight was sent before it, or ends below it. Otherwise nothing can be found
 * lost or reordered by it, and the next delivery replaces it. Without records hv_rec_materialize() forgets it before anybody looks (its stamp
 * may be so old that it has wrapped). */
static bool rack_moot(const struct hv_tcb *t, const struct hv_xrec *r, uint32_t n)
{
	if ((t->tf & TF_RACK_VALID) == 0 || t->rec_n == 0)
		return true;
	if (hv_seq_gt(t->rack_end, t->snd_una) || hv_seq_gt(t->rack_fack, t->snd_una))
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (hv_seq_lt(r[i].xmit_us, t->rack_xmit_us))
			return false;
	return true;
}

static void canonical(const struct host *h, struct outcome *o)
{
	struct hv_tcb *t = &o->tcb;
	struct hv_xrec one = { .seq = t->snd_una, .end = t->snd_nxt, .xmit_us = t->timed_us, .st = XR_PLAIN };
	const struct hv_xrec *r = h->tcb->rec + t->rec_head;

	/* A single burst in flight may be recorded or implied. */
	o->nrec = t->rec_n;
	if (t->rec_n == 0 && hv_flight(t) != 0) {
		o->nrec = 1;
		r = &one;
	}
	put(&o->recs, r, o->nrec * sizeof *r);
	for (uint32_t i = 0; i < o->nrec; i++)
		((struct hv_xrec *)(void *)o->recs.p)[i].pad = 0;
	if (rack_moot(t, r, o->nrec)) {
		t->tf &= ~TF_RACK_VALID;
		t->rack_xmit_us = t->rack_end = t->rack_rtt = t->rack_fack = 0;
	}
	t->timed_us = 0;
	t->rec = NULL;
	t->rec_head = t->rec_n = t->rec_cap = 0;
	memset(t->embed, 0, sizeof t->embed);
	t->cwr_end = mark(t, t->cwr_end);
	t->rack_round_end = mark(t, t->rack_round_end);
	t->recover = mark(t, t->recover);
	t->adv_edge = 0; /* between hv_tcp_send_fast() and its commit only */
	if (t->ndsack == 0)
		memset(&t->dsack, 0, sizeof t->dsack);
	o->cnt.predicted = 0;
}

static void look(struct host *h, struct outcome *o, const struct hv_buf *slot)
{
	o->tcb = *h->tcb;
	o->env = h->env;
	o->cnt = h->cnt;
	put(&o->bufs, h->bufs, h->conf.n_rx * sizeof *h->bufs);
	put(&o->chunks, h->chunks, h->conf.n_tx * sizeof *h->chunks);
	if (slot != NULL)
		put(&o->slot, slot->base, slot->cap);
	canonical(h, o);
}

static void note_sent(struct host *h, struct outcome *o, const struct hv_tx *tx)
{
	struct sent *e = &o->sent[o->nsent++];
	uint32_t sum = 1;

	memset(e, 0, sizeof *e);
	e->hdr_len = tx->hdr_len;
	e->payload = tx->payload;
	e->mss = tx->mss;
	memcpy(e->hdr, tx->hdr, tx->hdr_len < sizeof e->hdr ? tx->hdr_len : sizeof e->hdr);
	for (uint32_t i = 0; i < tx->nsge; i++)
		for (uint32_t j = 0; j < tx->sge[i].len; j++)
			sum = (sum ^ tx->sge[i].addr[j]) * 0x01000193u;
	e->sum = sum;
	h->env.sq_next++;
}

static void emit(struct host *h, struct outcome *o, uint64_t now)
{
	struct hv_tx tx;

	while (o->nsent < SENT_MAX && host_sq_room(h) && hv_tcp_output(h->tcb, &h->env, &tx, now))
		note_sent(h, o, &tx);
}

#define F(f) { #f, offsetof(struct hv_tcb, f), sizeof(((struct hv_tcb *)0)->f) }
static const struct { const char *name; size_t off, size; } fields[] = {
	F(rcv_nxt), F(rcv_edge), F(rcv_copied), F(last_ack), F(ts_recent), F(pred), F(snd_una), F(snd_nxt), F(snd_end), F(snd_edge), F(snd_wl1),
	F(fast_edge), F(rtx_at), F(ack_at), F(rx_head), F(rx_tail), F(tx_head), F(tx_tail), F(cwnd), F(rx_charge), F(srtt8), F(tf), F(rcv_mss),
	F(ca), F(rtx_kind), F(last_rx_us), F(last_tx_us), F(bytes_in), F(rttvar4), F(snd_sml), F(max_wnd), F(min_rtt), F(segs_in),
	F(segs_out), F(ssthresh), F(peer_delack_us), F(nrsack), F(quick), F(backoff), F(nrtx), F(probes), F(ndsack), F(sacked_out), F(lost_out),
	F(reno_sacked), F(tx_cur), F(tx_cur_base), F(rec_chunk), F(rack_mult), F(rack_persist), F(rack_xmit_us), F(undo_cwnd), F(min_rtt_prev),
	F(min_rtt_at), F(cubic), F(hystart), F(ts_recent_at), F(stall_us), F(ka_at), F(ka_sent), F(bytes_acked), F(dupacks),
};

/* All fields that differ, as far as they fit. */
static const char *differ_tcb(const struct hv_tcb *a, const struct hv_tcb *b, const char *when)
{
	const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
	size_t at = 0, n;

	while (at < sizeof *a && x[at] == y[at])
		at++;
	if (at == sizeof *a)
		return NULL;
	n = (size_t)snprintf(why, sizeof why, "full and short path differ after %s at octet %zu:", when, at);
	for (size_t i = 0; i < sizeof fields / sizeof fields[0] && n < sizeof why; i++) {
		uint64_t u = 0, v = 0;
		if (memcmp(x + fields[i].off, y + fields[i].off, fields[i].size) == 0)
			continue;
		memcpy(&u, x + fields[i].off, fields[i].size < 8 ? fields[i].size : 8);
		memcpy(&v, y + fields[i].off, fields[i].size < 8 ? fields[i].size : 8);
		n += (size_t)snprintf(why + n, sizeof why - n, " %s %#lx %#lx", fields[i].name, (unsigned long)u, (unsigned long)v);
	}
	return why;
}

static const char *say(const char *what, const char *when)
{
	snprintf(why, sizeof why, "full and short path differ in %s after %s", what, when);
	return why;
}

static const char *differ(const struct host *h, const struct outcome *a, const struct outcome *b, bool pools, const char *when)
{
	const char *what = differ_tcb(&a->tcb, &b->tcb, when);

	if (what != NULL)
		return what;
	if (a->acts != b->acts) {
		snprintf(why, sizeof why, "full and short path differ in what they ask for after %s: %#x, %#x", when, a->acts, b->acts);
		return why;
	}
	if (a->nrec != b->nrec || memcmp(a->recs.p, b->recs.p, a->nrec * sizeof(struct hv_xrec)) != 0)
		return say("the transmit records", when);
	if (memcmp(&a->cnt, &b->cnt, sizeof a->cnt) != 0)
		return say("the counters", when);
	if (a->nsent != b->nsent)
		return say("how many segments leave", when);
	for (uint32_t i = 0; i < a->nsent; i++)
		if (memcmp(&a->sent[i], &b->sent[i], sizeof a->sent[i]) != 0)
			return say(a->sent[i].sum != b->sent[i].sum ? "the octets of a segment that leaves" : "the header of a segment that leaves",
			    when);
	if (!pools)
		return NULL;
	if (memcmp(&a->env, &b->env, sizeof a->env) != 0)
		return say("the pools", when);
	if (memcmp(a->bufs.p, b->bufs.p, h->conf.n_rx * sizeof *h->bufs) != 0)
		return say("the receive buffers", when);
	if (memcmp(a->chunks.p, b->chunks.p, h->conf.n_tx * sizeof *h->chunks) != 0)
		return say("the send chunks", when);
	return NULL;
}

const char *twin_input(struct host *h, const struct hv_seg *seg, uint64_t now)
{
	static struct state s;
	static struct outcome full[2], quick[2];
	struct hv_tcb *t = h->tcb;
	const struct hv_buf *slot = tail_of(t);
	const char *what = NULL;
	struct hv_seg copy;

	if (t->pred == HV_PRED_NEVER)
		return NULL;
	save(h, &s);
	for (int run = 0; run < 2; run++) {
		struct outcome *o = run == 0 ? full : quick;
		copy = *seg;
		if (run == 0)
			t->pred = HV_PRED_NEVER;
		o[0].nsent = o[1].nsent = 0;
		o[0].acts = o[1].acts = hv_tcp_input(t, &h->env, &copy, now);
		look(h, &o[0], slot);
		emit(h, &o[1], now);
		look(h, &o[1], NULL);
		if (run == 1 && h->cnt.predicted == s.cnt.predicted)
			what = ""; /* it went the full way by itself */
		restore(h, &s);
	}
	if (what != NULL)
		return NULL;
	twin_count.input++;
	/* The same TSval again makes TS.Recent younger on the full path only: it matters after 24 days of one and the same TSval. */
	if (seg->tsval == s.tcb.ts_recent)
		for (int i = 0; i < 2; i++)
			full[i].tcb.ts_recent_at = quick[i].tcb.ts_recent_at;
	/* Output is due but the send queue has no room: the full path starts the timer of what isn't sent now, the short one leaves it to output. */
	if (s.tcb.snd_una == s.tcb.snd_nxt && s.tcb.snd_end != s.tcb.snd_nxt && s.tcb.rtx_kind == HV_RTX_OFF)
		for (int i = 0; i < 2 && full[1].nsent == 0; i++) {
			full[i].tcb.rtx_at = quick[i].tcb.rtx_at;
			full[i].tcb.rtx_kind = quick[i].tcb.rtx_kind;
		}
	what = differ(h, &full[0], &quick[0], true, "input");
	if (what == NULL && slot != NULL && memcmp(full[0].slot.p, quick[0].slot.p, slot->cap) != 0)
		what = say("the octets delivered", "input");
	if (what == NULL)
		what = differ(h, &full[1], &quick[1], true, "the output that follows input");
	return what;
}

static void look_sent(struct host *h, struct outcome *o)
{
	uint32_t n = hv_tcp_outq(h->tcb);

	look(h, o, NULL);
	/* Where new octets lie is a cache here, and a small message may leave the rest of a chunk empty instead of being split. */
	o->tcb.tx_cur = NULL;
	o->tcb.tx_cur_base = 0;
	put(&o->queue, NULL, 0);
	if (o->queue.cap < n) {
		free(o->queue.p);
		o->queue.p = malloc(n);
		o->queue.cap = n;
		assert(o->queue.p != NULL);
	}
	hv_tcp_export_snd(h->tcb, o->queue.p);
}

const char *twin_send(struct host *h, const uint8_t *data, uint32_t len, uint64_t now)
{
	static struct state s;
	static struct outcome full, quick;
	struct hv_tcb *t = h->tcb;
	struct hv_tx tx;
	uint32_t n, took = 0;
	unsigned acts = 0;
	const char *what;

	if (!host_sq_room(h))
		return NULL;
	save(h, &s);
	n = hv_tcp_send_fast(t, &h->env, data, len, &tx, now);
	if (n == 0) {
		restore(h, &s);
		return NULL;
	}
	twin_count.send++;
	full.nsent = quick.nsent = 0;
	full.acts = quick.acts = 0;
	note_sent(h, &quick, &tx);
	hv_tcp_send_commit(t, &h->env, data, len, now);
	look_sent(h, &quick);
	restore(h, &s);
	took = hv_tcp_write(t, &h->env, data, len, false, &acts, now);
	emit(h, &full, now);
	look_sent(h, &full);
	restore(h, &s);
	if (took != len || (acts & HV_TCP_OUT) == 0)
		return say("what hv_tcp_write() takes", "a small message");
	what = differ(h, &full, &quick, false, "a small message");
	if (what == NULL && memcmp(full.queue.p, quick.queue.p, full.tcb.snd_end - full.tcb.snd_una) != 0)
		what = say("the octets queued", "a small message");
	if (what == NULL && full.env.n_free_tx != quick.env.n_free_tx)
		what = say("the chunks taken", "a small message");
	return what;
}
