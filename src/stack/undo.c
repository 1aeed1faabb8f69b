/*
 * undo.c - a reduction of cwnd that proves wrong is taken back: Eifel by timestamps (RFC 3522, 4015), D-SACK (RFC 3708), F-RTO (RFC 5682),
 * and nothing sent again at all.
 *
 * Owns undo_* and frto. hv_undo_save() goes before each reduction that may be undone, hv_undo_check() looks at each ACK off the fast path
 * after the scoreboard is up to date. Cold: only while something was retransmitted. Ring lock.
 */
#include "stack/cc.h"

/* Retransmissions of before this reduction may still be out: those above an earlier `recover`, probes, the kernel's. Their ACKs echo stamps
 * that are older than what this reduction is going to send again, and prove nothing; nor do D-SACKs before these have been told of, too.
 * As Linux keeps retrans_stamp while retransmissions are out, and counts them in undo_retrans. */
static void still_out(struct hv_tcb *t, uint64_t now)
{
	uint32_t oldest = hv_tsval(t, now), n = 0;

	for (uint32_t i = 0; i < t->rec_n; i++) {
		const struct hv_xrec *r = hv_rec(t, i);
		uint32_t ts;

		if (r->st == XR_SACKED || (r->flags & XRF_REXMIT) == 0)
			continue;
		/* when the kernel sent it (last) isn't known: no stamp of it counts */
		ts = (r->flags & XRF_KERNEL) != 0 ? hv_tsval(t, now) - (1u << 30) : hv_tsval(t, now - ((uint32_t)now - r->xmit_us));
		if (hv_seq_lt(ts, oldest))
			oldest = ts;
		n += r->end - r->seq;
	}
	if (n == 0)
		t->tf &= ~TF_UNDO_RX;
	else if ((t->tf & TF_UNDO_RX) == 0 || hv_seq_lt(oldest, t->undo_tsval)) /* what went twice was sent before xmit_us, too */
		t->undo_tsval = oldest;
	if (n != 0)
		t->tf |= TF_UNDO_RX;
	t->undo_rexmit = n;
}

HV_COLD void hv_undo_save(struct hv_tcb *t, uint64_t now)
{
	t->tf |= TF_UNDO;
	t->undo_cwnd = t->cwnd;
	t->undo_ssthresh = t->ssthresh;
	t->undo_una = t->snd_una;
	t->undo_cubic = t->cubic;
	still_out(t, now);
}

static HV_COLD void undo(struct hv_tcb *t)
{
	for (uint32_t i = 0; i < t->rec_n; i++) {
		if (hv_rec(t, i)->st == XR_LOST)
			hv_rec_set(t, hv_rec(t, i), XR_PLAIN);
	}
	/* What was acknowledged were the originals. RACK has seen their retransmissions arrive and would take all that was sent before
	 * these for lost. */
	if (t->ca == HV_CA_LOSS)
		t->tf &= ~TF_RACK_VALID;
	if ((t->tf & TF_UNDO) != 0) { /* else it was a mark that has reduced cwnd, rightly */
		t->cwnd = hv_max32(t->cwnd, t->undo_cwnd);
		t->ssthresh = hv_max32(t->ssthresh, t->undo_ssthresh);
		t->cubic = t->undo_cubic; /* W_max and K too, RFC 9438 4.9 */
		t->tf &= ~(TF_UNDO | TF_UNDO_RX | TF_CWR);
	}
	t->ca = t->sacked_out != 0 ? HV_CA_DISORDER : HV_CA_OPEN;
	t->frto = HV_FRTO_OFF;
	t->dupacks = 0;
	t->reno_sacked = 0;
}

static bool eifel_or_dsack(const struct hv_tcb *t, const struct hv_seg *seg, const struct hv_ackinfo *ai)
{
	/* Nothing has been sent again yet and all that was taken for lost is there: it was late. The ACKs that said the one and the
	 * other came in one batch, or the window or the device's queue was in the way. */
	if ((t->tf & TF_UNDO_RX) == 0)
		return t->ca == HV_CA_RECOVERY && (t->tf & TF_SACK) != 0 && t->lost_out == 0 && ai->acked != 0;
	/* Eifel: the ACK for what was retransmitted echoes a stamp older than the retransmission */
	if (ai->acked != 0 && t->ca >= HV_CA_RECOVERY && (t->tf & TF_TS) != 0 && seg->has_ts && seg->tsecr != 0 &&
	    hv_seq_lt(seg->tsecr, t->undo_tsval) && hv_seq_gt(seg->ack, t->undo_una))
		return true;
	/* every retransmission has been reported as a duplicate */
	return ai->dsack && t->undo_rexmit == 0;
}

/* RFC 5682, with SACK (3.1) and without (2.1), in Linux's reading: after a timeout the head goes again, then new data; if octets arrive
 * that were never sent again, the originals were only late. */
static bool frto_spurious(struct hv_tcb *t, const struct hv_ackinfo *ai)
{
	if (t->frto == HV_FRTO_OFF)
		return false;
	/* Without SACK the first ACK may cover what the receiver has held behind the one segment that was lost. */
	if (ai->orig && ((t->tf & TF_SACK) != 0 || t->frto != HV_FRTO_HEAD))
		return true;
	if (t->frto == HV_FRTO_HEAD) {
		if (ai->acked == 0)
			return false;
		t->frto = hv_seq_lt(t->snd_una, t->recover) ? HV_FRTO_NEW : HV_FRTO_OFF;
		if (t->frto == HV_FRTO_NEW)
			t->tf |= TF_PUSH; /* Nagle has no say here */
	} else if (hv_seq_gt(t->snd_nxt, t->recover) && (ai->sacked_new || ai->dup)) {
		t->frto = HV_FRTO_OFF; /* the new data arrived before the rest: that is lost */
	} else {
		t->frto = HV_FRTO_SENT;
	}
	return false;
}

void hv_undo_check(struct hv_tcb *t, const struct hv_seg *seg, const struct hv_ackinfo *ai)
{
	bool late = t->ca == HV_CA_LOSS && frto_spurious(t, ai);

	if (late || ((t->tf & TF_UNDO) != 0 && eifel_or_dsack(t, seg, ai)))
		undo(t);
}

bool hv_frto_holds(struct hv_tcb *t)
{
	if (t->frto != HV_FRTO_NEW)
		return false;
	if (hv_seq_gt(t->snd_nxt, t->recover) || (t->snd_end != t->snd_nxt && hv_seq_gt(t->snd_edge, t->snd_nxt)))
		return true;
	t->frto = HV_FRTO_OFF; /* nothing new to ask with */
	return false;
}
