/*
 * rehearse.c - a request/response exchange on a copy of a connection, for nothing but the code that it takes.
 *
 * A program that spins for the answer to its last message has time; what runs when the answer comes has to fetch its code from the
 * second-level cache, because the way of a frame through the kernel or the program's own work has driven it out of the first. So the stack
 * runs that code in between, with memory of its own: the connection is only read. Called with the ring's lock held; engine only.
 */
#include "stack/cc.h"

struct rehearsal {
	struct hv_tcb t;
	struct hv_tcp_counters cnt;
	struct hv_env env;
	struct hv_buf buf;
	struct hv_chunk sent, spare;
	uint8_t data[256], out[128];
};
_Static_assert(sizeof(struct rehearsal) <= HV_TCP_REHEARSAL, "what callers reserve");
_Static_assert(HV_TCP_REHEARSAL_LEN <= 128, "out");

/* Quiet: all that was sent is one message at most, nothing is unread, nothing special is under way. No pointer but those below is followed then. */
static bool quiet(const struct hv_tcb *t)
{
	const struct hv_chunk *c = t->tx_head;

	if ((t->tf & (TF_FAST_STOP | TF_ACK_NOW | TF_NOSPACE | TF_LOWAT)) != 0 || t->ca != HV_CA_OPEN || t->rec_n != 0 || t->pred == HV_PRED_NEVER ||
	    t->rx_head != NULL || t->rx_charge != 0 || t->aux != NULL || t->snd_end != t->snd_nxt || t->min_rtt == 0 || t->rcv_nxt != t->rcv_copied)
		return false;
	return c == NULL ? t->snd_nxt == t->snd_una : c->next == NULL && c->off == 0 && c->end == hv_flight(t);
}

bool hv_tcp_rehearse(const struct hv_tcb *t, void *mem, struct hv_tx *tx, uint64_t now)
{
	const uint32_t len = HV_TCP_REHEARSAL_LEN;
	struct rehearsal *r = mem;
	uint32_t flight = hv_flight(t);
	unsigned act = 0;
	struct hv_seg seg;

	if (!quiet(t))
		return false;
	r->t = *t;
	r->t.cnt = &r->cnt;
	r->t.rec = r->t.embed;
	r->t.rec_cap = HV_XREC_EMBED;
	r->t.rec_chunk = NULL;
	r->t.tx_cur = NULL;
	r->t.tx_head = r->t.tx_tail = flight != 0 ? &r->sent : NULL;
	r->t.timed_us = (uint32_t)now - hv_max32(t->min_rtt, t->srtt8 >> 3);
	r->sent = (struct hv_chunk){ .base = r->data, .cap = hv_max32(flight, sizeof r->data), .end = flight };
	r->spare = (struct hv_chunk){ .base = r->data, .cap = sizeof r->data };
	r->buf = (struct hv_buf){ .base = r->data, .data = r->data, .len = len, .cap = 2048 };
	memset(&r->env, 0, sizeof r->env);
	r->env.free_tx = &r->spare;
	r->env.n_free_tx = 1;

	memset(&seg, 0, sizeof seg);
	seg.buf = &r->buf;
	seg.data = r->data;
	seg.len = len;
	seg.seq = t->rcv_nxt;
	seg.ack = t->snd_nxt;
	seg.wnd = (t->snd_edge - t->snd_nxt) >> t->snd_wscale;
	seg.tsval = t->ts_recent;
	seg.flags = HV_ACK | HV_PSH;
	seg.has_ts = (t->tf & TF_TS) != 0;
	(void)hv_tcp_input(&r->t, &r->env, &seg, now);
	(void)hv_tcp_read(&r->t, &r->env, r->out, len, false, &act, now);
	if (hv_tcp_send_fast(&r->t, &r->env, r->out, len, tx, now) != len)
		return false;
	hv_tcp_send_commit(&r->t, &r->env, r->out, len, now);
	(void)hv_tcp_parse(tx->hdr + tx->l4_off, tx->hdr_len - tx->l4_off, &seg);
	return true;
}
