/*
 * recovery.c - loss detection and what follows from it: RACK (RFC 8985), fast recovery with PRR (RFC 9937), the RTO's
 * consequences. Undoing them when they were wrong is undo.c.
 *
 * Owns ca, recover, prr_*, rack_*. Timers are set by the callers (ack.c, timer.c). Ring lock.
 */
#include "stack/cc.h"

/* ---- RACK ---- */
void hv_rack_delivered(struct hv_tcb *t, const struct hv_xrec *r, const struct hv_seg *seg, uint64_t now)
{
	uint32_t rtt = (uint32_t)now - r->xmit_us;

	if ((r->flags & XRF_EVER) != 0) {
		/* Which of its transmissions arrived? RFC 8985 6.2 step 2. The echo is of what was in order (RFC 7323 4.3) and says nothing of
		 * what is SACKed: by it no tail loss probe behind a hole would ever count. Linux asks only for the round trip. */
		if (hv_seq_le(r->end, seg->ack) && (t->tf & TF_TS) != 0 && seg->has_ts && seg->tsecr != 0 &&
		    hv_seq_lt(seg->tsecr, hv_tsval(t, now - rtt)))
			return;
		if (rtt < hv_min_rtt(t))
			return;
	}
	if ((t->tf & TF_RACK_VALID) != 0 &&
	    (hv_seq_lt(r->xmit_us, t->rack_xmit_us) || (r->xmit_us == t->rack_xmit_us && hv_seq_le(r->end, t->rack_end))))
		return;
	t->tf |= TF_RACK_VALID;
	t->rack_xmit_us = r->xmit_us;
	t->rack_end = r->end;
	t->rack_rtt = rtt;
}

/* DupThresh segments are SACKed. Each has had an ACK of its own, which has made it a record of its own, however small it is. */
static bool dupthresh(const struct hv_tcb *t)
{
	uint32_t segs = 0;

	if (t->sacked_out == 0 || t->sacked_out >= HV_DUPTHRESH * t->mss)
		return t->sacked_out != 0;
	for (uint32_t i = 0; i < t->rec_n; i++) {
		const struct hv_xrec *r = hv_rec(t, i);

		if (r->st == XR_SACKED)
			segs += (r->end - r->seq + t->mss - 1) / t->mss;
	}
	return segs >= HV_DUPTHRESH;
}

/* RFC 8985 6.2 step 4 */
static uint32_t reo_wnd(const struct hv_tcb *t)
{
	uint32_t w;

	if ((t->tf & TF_RACK_REO) == 0 && (t->ca >= HV_CA_RECOVERY || dupthresh(t)))
		return 0;
	w = hv_max32(hv_min_rtt(t) / 4u, 1) * t->rack_mult;
	return hv_min32(w, t->srtt8 >> 3);
}

/* RFC 8985 6.2 step 5 */
uint32_t hv_rack_detect(struct hv_tcb *t, struct hv_ackinfo *ai, uint64_t now)
{
	uint32_t reo, timeout = 0;

	if ((t->tf & (TF_RACK_VALID | TF_SACK)) != (TF_RACK_VALID | TF_SACK))
		return 0;
	reo = reo_wnd(t);
	for (uint32_t i = 0; i < t->rec_n; i++) {
		struct hv_xrec *r = hv_rec(t, i);
		int32_t left;

		if (r->st == XR_SACKED || r->st == XR_LOST)
			continue;
		if (hv_seq_gt(r->xmit_us, t->rack_xmit_us) || (r->xmit_us == t->rack_xmit_us && hv_seq_ge(r->end, t->rack_end)))
			continue; /* sent after what was delivered last */
		left = hv_seq_diff(r->xmit_us + t->rack_rtt + reo, (uint32_t)now);
		if (left <= 0) {
			hv_rec_set(t, r, XR_LOST);
			ai->newly_lost += r->end - r->seq;
		} else {
			timeout = hv_max32(timeout, (uint32_t)left);
		}
	}
	return timeout;
}

/* ---- reductions ---- */
/* A mark has been answered, and what was in flight then still is: its losses tell of the same congestion (RFC 3168 6.1.2). */
static bool answered(const struct hv_tcb *t)
{
	return t->ca == HV_CA_CWR && hv_seq_lt(t->snd_una, t->cwr_end);
}

void hv_enter_recovery(struct hv_tcb *t, uint64_t now)
{
	if (!answered(t)) {
		hv_undo_save(t, now);
		t->ssthresh = hv_cc_ssthresh(t);
		if ((t->tf & TF_ECN) != 0)
			t->tf |= TF_CWR;
	}
	t->recover = t->snd_nxt;
	/* What will still be delivered; the caller adds what its ACK has delivered (RFC 9937 6.1). Without SACK it can't be told apart. */
	t->recover_fs = hv_max32(hv_flight(t) - t->sacked_out, t->mss);
	t->prr_delivered = t->prr_out = 0;
	t->ca = HV_CA_RECOVERY;
	t->tf &= ~TF_TLP_OUT;
	t->cnt->fast_rexmit++;
}

/* Timeouts may go on for longer than stamps can be compared: while the peer says that its window is shut, or with a long
 * TCP_USER_TIMEOUT. They come every HV_RTO_MAX at least, so it's enough to bring the oldest nearer here. */
static void bound_age(uint32_t *stamp, uint32_t now)
{
	if (now - *stamp > 1u << 30)
		*stamp = now - (1u << 30);
}

/* The retransmission timer has run out: RFC 5681 3.1, RFC 8985 6.3. */
void hv_enter_loss(struct hv_tcb *t, uint64_t now)
{
	bool reneged;

	/* RFC 5682 3.1 step 1: not when a recovery was going on, whose retransmissions are still about */
	t->frto = t->ca < HV_CA_RECOVERY || (t->ca == HV_CA_LOSS && t->nrtx != 0) ? HV_FRTO_HEAD : HV_FRTO_OFF;
	hv_rec_materialize(t);
	bound_age(&t->rack_xmit_us, (uint32_t)now);
	for (uint32_t i = 0; i < t->rec_n; i++)
		bound_age(&hv_rec(t, i)->xmit_us, (uint32_t)now);
	/* what is at SND.UNA and SACKed should have been acknowledged: the receiver has dropped it (RFC 2018 section 8) */
	reneged = t->rec_n != 0 && hv_rec(t, 0)->st == XR_SACKED;
	if ((t->ca < HV_CA_RECOVERY && !answered(t)) || (t->ca == HV_CA_LOSS && t->nrtx == 0) ||
	    (t->ca >= HV_CA_RECOVERY && hv_seq_ge(t->snd_una, t->recover))) {
		hv_undo_save(t, now);
		t->ssthresh = hv_cc_ssthresh(t);
		if ((t->tf & TF_RENO) == 0)
			hv_cubic_rto(t);
	}
	t->cwnd = t->mss;
	t->recover = t->snd_nxt;
	t->ca = HV_CA_LOSS;
	t->dupacks = 0;
	t->reno_sacked = 0;
	t->tf &= ~(TF_TLP_OUT | TF_TLP | TF_HEAD);
	if ((t->tf & TF_ECN) != 0)
		t->tf |= TF_CWR;
	hv_rec_mark_all_lost(t, reneged);
}

/* ECN echo, or a loss that a probe has repaired: one reduction per window, nothing to retransmit. True: now. */
bool hv_enter_cwr(struct hv_tcb *t, uint64_t now)
{
	(void)now;
	/* The ACK that ends the window still tells of octets sent before the reduction. */
	if (t->ca >= HV_CA_RECOVERY || hv_seq_le(t->snd_una, t->cwr_end))
		return false;
	t->ssthresh = hv_cc_ssthresh(t);
	t->cwnd = hv_min32(t->cwnd, t->ssthresh);
	t->cwr_end = t->snd_nxt;
	t->tf &= ~(TF_UNDO | TF_UNDO_RX); /* what was saved is older than this */
	if ((t->tf & TF_ECN) != 0)
		t->tf |= TF_CWR;
	return true;
}

/* RFC 9937 6.2, in octets. Called for each ACK in fast recovery, after marking. */
void hv_prr(struct hv_tcb *t, const struct hv_ackinfo *ai)
{
	uint32_t pipe = hv_pipe(t);
	int64_t sndcnt;

	t->prr_delivered += ai->delivered;
	if (pipe > t->ssthresh) {
		sndcnt = (int64_t)(((uint64_t)t->prr_delivered * t->ssthresh + t->recover_fs - 1) / t->recover_fs) - t->prr_out;
	} else {
		int64_t limit = (int64_t)t->prr_delivered - t->prr_out;

		if (limit < (int64_t)ai->delivered)
			limit = ai->delivered;
		if (ai->acked != 0 && ai->newly_lost == 0)
			limit += t->mss; /* a good ACK: slow start towards ssthresh */
		sndcnt = (int64_t)t->ssthresh - pipe;
		if (sndcnt > limit)
			sndcnt = limit;
	}
	if (sndcnt < (int64_t)t->mss && t->prr_out == 0)
		sndcnt = t->mss; /* the fast retransmit itself */
	if (sndcnt < 0)
		sndcnt = 0;
	t->cwnd = hv_max32(pipe + (uint32_t)sndcnt, t->mss);
}

/* Without SACK: the segment at SND.UNA (RFC 6582). */
static void mark_head_lost(struct hv_tcb *t, struct hv_env *env, struct hv_ackinfo *ai)
{
	struct hv_xrec *r;

	hv_rec_materialize(t);
	if (t->rec_n == 0 || hv_rec(t, 0)->st == XR_LOST)
		return;
	hv_rec_split(t, env, 0, t->snd_una + t->mss);
	r = hv_rec(t, 0);
	hv_rec_set(t, r, XR_LOST);
	ai->newly_lost += r->end - r->seq;
	t->tf |= TF_HEAD; /* goes at once, whatever pipe is estimated to be: no other ACK may come */
	if (t->reno_sacked > hv_flight(t) - t->lost_out)
		t->reno_sacked = hv_flight(t) - t->lost_out;
}

/* A tail loss probe was outstanding (RFC 8985 7.4). */
static void tlp_ack(struct hv_tcb *t, const struct hv_seg *seg, const struct hv_ackinfo *ai, uint64_t now)
{
	if (hv_seq_lt(seg->ack, t->tlp_end))
		return;
	if ((t->tf & TF_TLP_REXMIT) == 0) {
		t->tf &= ~TF_TLP_OUT;
	} else if (ai->dsack_tlp) {
		/* it had arrived: the peer just sat on the ACK. Be more patient with a single segment. */
		t->tf &= ~TF_TLP_OUT;
		t->peer_delack_us = hv_min32(t->peer_delack_us * 4, HV_RTO_MIN);
	} else if (hv_seq_gt(seg->ack, t->tlp_end)) {
		t->tf &= ~TF_TLP_OUT;
		hv_enter_cwr(t, now);
	} else if (ai->dup) {
		t->tf &= ~TF_TLP_OUT; /* both copies arrived */
	}
}

/* RFC 8985 6.2 step 4: what was resent too early makes RACK wait longer. As in Linux probes aren't meant: nothing had been taken for
 * lost. */
static void rack_dsack(struct hv_tcb *t, const struct hv_ackinfo *ai)
{
	if (!ai->dsack || ai->dsack_tlp || hv_seq_lt(t->snd_una, t->rack_round_end))
		return;
	t->rack_round_end = t->snd_nxt;
	t->rack_mult = hv_min32(t->rack_mult + 1, 32);
	t->rack_persist = 16;
}

static void exit_recovery(struct hv_tcb *t)
{
	if (t->ca == HV_CA_RECOVERY)
		t->cwnd = t->ssthresh;
	t->ca = t->sacked_out != 0 ? HV_CA_DISORDER : HV_CA_OPEN;
	t->frto = HV_FRTO_OFF;
	t->dupacks = 0;
	t->reno_sacked = 0;
	t->cwr_end = t->snd_nxt;
	if (t->rack_persist != 0 && --t->rack_persist == 0)
		t->rack_mult = 1;
}

/* SND.UNA and the scoreboard are up to date: what does this ACK tell? */
uint32_t hv_recovery_ack(struct hv_tcb *t, struct hv_env *env, const struct hv_seg *seg, struct hv_ackinfo *ai, uint64_t now)
{
	bool sack = (t->tf & TF_SACK) != 0;
	uint32_t reo = 0;

	rack_dsack(t, ai);
	hv_undo_check(t, seg, ai);
	if ((t->tf & TF_TLP_OUT) != 0)
		tlp_ack(t, seg, ai, now);
	if (t->ca >= HV_CA_RECOVERY && hv_seq_ge(t->snd_una, t->recover))
		exit_recovery(t);
	else if (t->ca == HV_CA_CWR && hv_seq_gt(t->snd_una, t->cwr_end))
		t->ca = HV_CA_OPEN;
	if (sack) {
		reo = hv_rack_detect(t, ai, now);
	} else if (t->ca == HV_CA_RECOVERY) {
		if (ai->acked != 0)
			mark_head_lost(t, env, ai); /* partial ACK */
	} else if (t->ca != HV_CA_LOSS && t->dupacks >= HV_DUPTHRESH && hv_seq_gt(t->snd_una, t->recover)) {
		/* RFC 6582 3.2 step 2: else they may answer what the last recovery has resent although the peer had it */
		mark_head_lost(t, env, ai);
	}
	if (t->ca < HV_CA_RECOVERY) {
		if (t->lost_out != 0) {
			hv_enter_recovery(t, now);
			t->recover_fs += sack ? ai->delivered : 0;
		} else if (t->ca != HV_CA_CWR) {
			t->ca = t->sacked_out != 0 || t->dupacks != 0 ? HV_CA_DISORDER : HV_CA_OPEN;
		}
	}
	if (t->ca == HV_CA_RECOVERY)
		hv_prr(t, ai);
	else if ((t->tf & TF_UNDO) != 0 && t->ca == HV_CA_OPEN && hv_seq_gt(t->snd_una, t->cwr_end))
		t->tf &= ~(TF_UNDO | TF_UNDO_RX);
	return reo;
}
