/*
 * check.c - the invariants of a TCB, spelled out once. For tests and fuzzers, after every step; never in a release path.
 */
#include "stack/cc.h"

#define CHECK(cond, text) \
	do { \
		if (!(cond)) { \
			*what = text; \
			return false; \
		} \
	} while (0)

static bool check_rcv(const struct hv_tcb *t, const char **what)
{
	uint32_t q = t->aux_len, charge = t->aux_len, n = 0, end = t->rcv_nxt, seq = t->rcv_copied + t->aux_len;
	const struct hv_buf *last = NULL;

	for (const struct hv_buf *b = t->rx_head; b != NULL; b = b->next) {
		CHECK(b->len != 0, "empty buffer in the receive queue");
		CHECK(b->seq == seq, "receive queue: sequence numbers do not join");
		CHECK(b->data >= b->base && b->data + b->len <= b->base + b->cap, "receive buffer out of its slot");
		q += b->len;
		seq += b->len;
		charge += b->cap;
		last = b;
	}
	CHECK(last == t->rx_tail, "rx_tail");
	CHECK(q == t->rcv_nxt - t->rcv_copied, "unread octets != rcv_nxt - rcv_copied");
	last = NULL;
	for (const struct hv_buf *b = t->ooo_head; b != NULL; b = b->next) {
		CHECK(b->len != 0, "empty out-of-order buffer");
		CHECK(last == NULL ? hv_seq_gt(b->seq, t->rcv_nxt) : hv_seq_ge(b->seq, end),
		    "out-of-order intervals overlap or touch rcv_nxt");
		CHECK(b->data >= b->base && b->data + b->len <= b->base + b->cap, "out-of-order buffer out of its slot");
		end = b->seq + b->len;
		CHECK(hv_seq_le(end, t->rcv_edge), "out-of-order octets beyond the advertised edge");
		charge += b->cap;
		n++;
		last = b;
	}
	CHECK(last == t->ooo_tail, "ooo_tail");
	CHECK(n == t->ooo_n, "ooo_n");
	CHECK(charge == t->rx_charge, "rx_charge");
	CHECK(hv_seq_le(t->rcv_nxt, t->rcv_edge), "rcv_nxt beyond the advertised edge");
	CHECK(hv_seq_le(t->last_ack, t->rcv_nxt), "last_ack beyond rcv_nxt");
	for (unsigned i = 0; i < t->nrsack; i++) {
		const struct hv_block *k = &t->rsack[i];
		uint32_t at = k->start;

		CHECK(hv_seq_lt(k->start, k->end), "empty SACK block");
		for (const struct hv_buf *b = t->ooo_head; b != NULL && at != k->end; b = b->next) {
			if (b->seq == at)
				at += b->len;
		}
		CHECK(at == k->end, "SACK block isn't held");
		for (unsigned j = 0; j < i; j++)
			CHECK(hv_seq_le(k->end, t->rsack[j].start) || hv_seq_ge(k->start, t->rsack[j].end), "SACK blocks overlap");
	}
	CHECK(t->ooo_head == NULL || t->nrsack != 0, "out-of-order octets but nothing to report");
	return true;
}

static bool check_snd(const struct hv_tcb *t, const char **what)
{
	uint32_t q = 0, sacked = 0, lost = 0, at = t->snd_una;
	const struct hv_chunk *last = NULL;
	bool cur = t->tx_cur == NULL;

	CHECK(hv_seq_le(t->snd_una, t->snd_nxt) && hv_seq_le(t->snd_nxt, t->snd_end), "SND.UNA <= SND.NXT <= SND.END");
	for (const struct hv_chunk *c = t->tx_head; c != NULL; c = c->next) {
		CHECK(c->off < c->end && c->end <= c->cap, "chunk bounds");
		CHECK(c == t->tx_head || c->off == 0, "chunk begins in the middle");
		q += c->end - c->off;
		if (c == t->tx_cur) {
			CHECK(t->tx_cur_base + c->end == t->snd_una + q, "tx_cur_base");
			cur = true;
		}
		last = c;
	}
	CHECK(last == t->tx_tail, "tx_tail");
	CHECK(cur, "tx_cur isn't in the queue");
	CHECK(q == t->snd_end - t->snd_una, "octets queued != snd_end - snd_una");
	for (uint32_t i = 0; i < t->rec_n; i++) {
		const struct hv_xrec *r = hv_rec(t, i);

		CHECK(r->seq == at && hv_seq_lt(r->seq, r->end), "transmit records have holes");
		at = r->end;
		if (r->st == XR_SACKED)
			sacked += r->end - r->seq;
		else if (r->st == XR_LOST)
			lost += r->end - r->seq;
	}
	CHECK(t->rec_n == 0 || at == t->snd_nxt, "transmit records don't end at snd_nxt");
	CHECK(t->rec_head + t->rec_n <= t->rec_cap, "record storage");
	CHECK(sacked == t->sacked_out && lost == t->lost_out, "sacked_out, lost_out");
	CHECK(sacked + lost + t->reno_sacked <= hv_flight(t), "more sacked and lost than in flight");
	CHECK(t->frto == HV_FRTO_OFF || t->ca == HV_CA_LOSS, "F-RTO without a timeout");
	CHECK(t->sndbuf <= t->sndbuf_max && t->rcvbuf <= t->rcvbuf_max, "buffer beyond its bound");
	CHECK(t->cwnd >= t->mss, "cwnd below one segment");
	CHECK(t->ssthresh >= 2u * (HV_MSS_MIN - HV_TS_OPT_LEN), "ssthresh");
	return true;
}

bool hv_tcb_check(const struct hv_tcb *t, const struct hv_env *env, const char **what)
{
	const struct hv_chunk *c = NULL;
	const struct hv_buf *b = NULL;
	uint32_t n = 0;

	if (!check_rcv(t, what) || !check_snd(t, what))
		return false;
	if (env != NULL) {
		for (b = env->free_rx; b != NULL; b = b->next)
			n++;
		CHECK(n == env->n_free_rx, "n_free_rx");
		for (c = env->free_tx, n = 0; c != NULL; c = c->next) {
			CHECK(c->off == 0 && c->end == 0 && !c->on_wire, "a free chunk isn't clean");
			n++;
		}
		CHECK(n == env->n_free_tx, "n_free_tx");
	}
	if ((t->tf & TF_DEAD) != 0)
		return true;
	CHECK(t->fast_edge == hv_fast_edge(t), "fast_edge isn't what it would be computed to");
	CHECK(t->wnd_keep == hv_wnd_keep(t), "wnd_keep isn't what it would be computed to");
	CHECK(t->rcv_edge - t->rcv_nxt <= 65535u << t->rcv_wscale, "more window than can be said");
	CHECK((t->tf & (TF_TS | TF_TS_KNOWN)) == (TF_TS | TF_TS_KNOWN) || t->ts_recent == 0, "TS.Recent is unknown but not 0");
	CHECK((t->srtt8 != 0 || t->min_rtt == 0) && t->min_rtt <= HV_RTO_MAX / 2, "min_rtt");
	CHECK(t->snd_una != t->snd_end || t->rtx_kind == HV_RTX_OFF, "a timer for nothing");
	CHECK(t->pred == HV_PRED_NEVER || (t->ca == HV_CA_OPEN && t->ooo_head == NULL && t->sacked_out == 0 && t->lost_out == 0), "pred");
	CHECK(t->pred == HV_PRED_NEVER || (t->nrsack == 0 && t->ndsack == 0), "pred although there is something to report");
	CHECK(t->snd_una == t->snd_nxt || t->rtx_at != HV_NEVER, "octets in flight and no timer");
	CHECK((t->rtx_kind == HV_RTX_OFF) == (t->rtx_at == HV_NEVER), "rtx_kind and rtx_at disagree");
	CHECK((t->tf & TF_ACK_PEND) == 0 || t->ack_at != HV_NEVER || (t->tf & TF_ACK_NOW) != 0, "an ACK is owed and no timer runs");
	return true;
}
