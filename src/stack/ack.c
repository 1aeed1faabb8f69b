/*
 * ack.c - the acknowledgment side of an arriving segment, off the fast path: SND.UNA, window, RTT, SACK, cwnd.
 *
 * hv_ack() is called by input.c with an ACK already found acceptable (RFC 9293 3.10.7.4 step 5, RFC 5961 5.2). Ring lock.
 */
#include "stack/cc.h"

/* Linux's tcp_may_update_window(): as SND.WL1/WL2, and a larger window on the same segment number is believed too. */
static bool update_window(struct hv_tcb *t, const struct hv_seg *seg, uint32_t prior_una)
{
	uint32_t wnd = seg->wnd << t->snd_wscale, old = t->snd_edge;

	if (hv_seq_gt(seg->ack, prior_una) || hv_seq_gt(seg->seq, t->snd_wl1) ||
	    (seg->seq == t->snd_wl1 && (hv_seq_gt(seg->ack + wnd, t->snd_edge) || wnd == 0))) {
		t->snd_edge = seg->ack + wnd;
		t->snd_wl1 = seg->seq;
		if (wnd > t->max_wnd)
			hv_max_wnd(t, wnd);
	}
	return t->snd_edge != old;
}

/* An ACK beyond SND.NXT right after import: the kernel had sent part of its queue before it was parked. */
static void kernel_sent(struct hv_tcb *t, struct hv_env *env, uint32_t ack, uint64_t now)
{
	hv_rec_materialize(t);
	hv_rec_sent(t, env, t->snd_nxt, ack, (uint32_t)now, XRF_EVER | XRF_REXMIT | XRF_KERNEL);
	t->bytes_base += ack - t->snd_nxt;
	t->snd_nxt = ack;
	t->tx_cur = NULL;
}

unsigned hv_space_event(struct hv_tcb *t, bool was_writable)
{
	uint32_t pipe = hv_pipe(t), unsent = t->snd_end - t->snd_nxt, q = t->snd_end - t->snd_una;
	int32_t w = hv_seq_diff(t->snd_edge, t->snd_nxt);

	if (was_writable && (t->tf & TF_NOSPACE) == 0)
		return 0;
	if (hv_tcp_writable(t)) {
		t->tf &= ~TF_NOSPACE;
		return HV_TCP_WRITABLE;
	}
	/* TCP_NOTSENT_LOWAT counts what isn't sent yet; part of that goes out right after this event. */
	if ((t->tf & TF_LOWAT) == 0 || q >= t->sndbuf || t->sndbuf - q < q / 2 || w <= 0 || t->cwnd <= pipe)
		return 0;
	w = (int32_t)hv_min32((uint32_t)w, t->cwnd - pipe);
	unsent -= hv_min32(unsent, (uint32_t)w);
	if ((uint64_t)unsent * 2 >= t->notsent_lowat)
		return 0;
	t->tf &= ~TF_NOSPACE;
	return HV_TCP_WRITABLE;
}

/* Only retransmitted octets were acknowledged. Which transmission arrived, and so what the RTT is, only a timestamp tells (RFC 7323 4).
 * Without one the RTO stays backed off until a segment that was sent once is acknowledged (Karn; RFC 6298 section 5): the path may just
 * have become slower than the RTO, and would never be measured otherwise. Nor does one tell when D-SACK says that a duplicate is what is
 * answered: the stamp is still that of the first try (RFC 7323 4.3), whose own ACK is lost, and all timeouts since would count as round
 * trip. */
static bool ts_rtt(const struct hv_tcb *t, const struct hv_seg *seg, const struct hv_ackinfo *ai, uint64_t now, uint32_t *us)
{
	uint32_t ms;

	if ((t->tf & TF_TS) == 0 || !seg->has_ts || ai->dsack || !hv_echo_age(t, seg->tsecr, now, &ms))
		return false;
	*us = hv_max32(ms, 1) * 1000;
	return true;
}

/* RFC 6298 5.3 restarts the timer for what is acknowledged, not for what is SACKed. As in Linux that counts if it was sent before the
 * octet at SND.UNA was the last time. What was sent after it, or twice, could put the timeout off for ever. Sooner is another matter: a
 * sample may just have ended the backing off. */
static bool rto_goes_on(const struct hv_tcb *t, const struct hv_ackinfo *ai, uint64_t now)
{
	return t->rtx_kind == HV_RTX_RTO && t->rtx_at <= now + hv_rto_backed(t) && t->rec_n != 0 &&
	       (ai->rtt_first == 0 || ai->rtt_first < (uint32_t)now - hv_rec(t, 0)->xmit_us);
}

unsigned hv_ack(struct hv_tcb *t, struct hv_env *env, const struct hv_seg *seg, uint64_t now)
{
	struct hv_ackinfo ai;
	uint32_t ack = seg->ack, reo, rtt;
	bool wnd_changed, was_writable = hv_tcp_writable(t), watch = hv_space_watch(t), shut = hv_seq_le(t->snd_edge, t->snd_una),
	    reopened = false;
	unsigned act = 0;

	memset(&ai, 0, sizeof ai);
	if (hv_unlikely(hv_seq_gt(ack, t->snd_nxt)))
		kernel_sent(t, env, ack, now);
	/* marks that lie behind must not grow half the sequence space old */
	if (t->cwr_end - t->snd_una > hv_flight(t))
		t->cwr_end = t->snd_una - 1;
	if (t->rack_round_end - t->snd_una > hv_flight(t))
		t->rack_round_end = t->snd_una;
	if (t->recover - t->snd_una > hv_flight(t))
		t->recover = t->snd_una - 1;
	ai.prior_una = t->snd_una;
	ai.prior_flight = hv_flight(t);
	hv_rec_materialize(t);
	ai.prior_fack = (t->tf & TF_RACK_VALID) != 0 ? t->rack_fack : t->snd_una;
	if ((t->tf & TF_SACK) != 0)
		hv_sack_apply(t, env, seg, &ai, now);
	if (hv_seq_lt(ack, t->snd_una)) {
		/* old news about SND.UNA, but its SACK blocks and D-SACK may be new */
		if (!ai.sacked_new && !ai.dsack)
			return 0;
		ack = t->snd_una;
		wnd_changed = true;
	} else {
		wnd_changed = update_window(t, seg, ai.prior_una);
	}
	t->probes = 0;
	ai.acked = ack - t->snd_una;
	if (ai.acked != 0) {
		hv_rec_acked(t, ack, &ai, seg, now);
		hv_snd_acked(t, env, ai.acked);
		t->snd_una = ack;
		t->bytes_acked += ai.acked;
		t->nrtx = 0;
		if ((t->tf & TF_SACK) == 0) {
			/* RFC 9937 section 6.2: less what each duplicate ACK has stood for; this one stands for a segment at least */
			uint32_t told = hv_min32(t->reno_sacked, ai.acked - hv_min32(ai.acked, t->mss));

			ai.delivered -= hv_min32(told, ai.delivered);
			t->dupacks = 0;
			t->reno_sacked = t->reno_sacked > ai.acked ? t->reno_sacked - ai.acked : 0;
			t->reno_sacked = hv_min32(t->reno_sacked, hv_flight(t) - t->lost_out);
		}
		if (t->rec_n <= HV_XREC_EMBED / 2)
			hv_rec_drop_storage(t, env);
	} else if (shut && t->ca == HV_CA_LOSS && hv_flight(t) != 0 && hv_seq_gt(t->snd_edge, t->snd_una)) {
		/* The window has opened, and what was resent while it was shut has been thrown away: again, before the backed-off timer. */
		t->tf |= TF_HEAD;
		t->backoff = 0;
		reopened = true;
	} else if (seg->len == 0 && !wnd_changed && hv_flight(t) != 0) { /* RFC 5681 section 2 */
		ai.dup = true;
		t->cnt->dup_acks++;
		if ((t->tf & TF_SACK) == 0) {
			if (t->dupacks < 255)
				t->dupacks++;
			/* Each stands for a segment that has left the network, and there can't be more of these than were in it (the limit
			 * that RFC 5681 section 3.2 step 4 allows). */
			if ((uint32_t)t->dupacks * t->mss <= (t->ca == HV_CA_RECOVERY ? t->recover_fs : hv_flight(t)) &&
			    t->reno_sacked + t->lost_out + t->mss < hv_flight(t)) {
				t->reno_sacked += t->mss;
				ai.delivered += t->mss;
			}
		}
	}
	if (ai.rtt_first != 0) {
		hv_rtt_sample(t, ai.rtt_first, now);
		hv_rtt_min(t, ai.rtt_last, now);
		t->backoff = 0;
	} else if (ai.acked != 0 && ts_rtt(t, seg, &ai, now, &rtt)) {
		hv_rtt_sample(t, rtt, now);
		t->backoff = 0;
	}
	if ((t->tf & TF_IMPORT) != 0 && hv_seq_ge(t->snd_nxt, t->import_end))
		t->tf &= ~TF_IMPORT;
	if ((seg->flags & HV_ECE) != 0 && (t->tf & TF_ECN) != 0 && hv_enter_cwr(t, now))
		t->ca = HV_CA_CWR;
	reo = hv_recovery_ack(t, env, seg, &ai, now);
	/* What was SACKed before doesn't count again: the ACK that ends a recovery covers a window whose reduction it would undo in
	 * part. As in Linux octets that are SACKed count at once on a path that is known to reorder, else not at all. */
	if (t->ca != HV_CA_RECOVERY && t->ca != HV_CA_CWR && (ai.acked != 0 || (ai.sacked_new && (t->tf & TF_RACK_REO) != 0))) {
		if (hv_cwnd_limited(t, ai.prior_flight))
			hv_cc_ack(t, ai.delivered, ai.rtt_last, now);
	}
	if (reo != 0)
		hv_set_rtx(t, HV_RTX_REO, now + reo);
	else if (ai.acked != 0 || (ai.sacked_new && !rto_goes_on(t, &ai, now)) || reopened || hv_flight(t) == 0 ||
		 t->rtx_kind == HV_RTX_REO)
		hv_timer_rearm(t, now);
	if (ai.acked != 0 && watch && t->sndbuf < t->sndbuf_max)
		hv_snd_autotune(t);
	if (ai.acked != 0 || wnd_changed)
		act |= hv_space_event(t, was_writable);
	return act;
}
