/*
 * stack_model.c - loss recovery against a second reading of the RFCs: from very many small states, one call of recovery.c, and everything
 * it may have changed must be as the model here says. The model follows the texts, the code follows what is cheap.
 */
#include "stack_rig.h"

#include "../sim/prng.h"
#include "stack/cc.h"

#define ROUNDS 150000u
#define SEG 1000u

static struct prng rng;
static struct hv_tcp_counters cnt;

static uint32_t pick(uint32_t lo, uint32_t hi)
{
	return prng_in(&rng, lo, hi);
}

static bool coin(void)
{
	return pick(0, 1) != 0;
}

static uint32_t some(uint32_t bits)
{
	return (uint32_t)prng_u64(&rng) & bits;
}

static int32_t before(uint32_t a, uint32_t b) /* by how much */
{
	return (int32_t)(b - a);
}

static uint32_t most(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* A state as hv_tcb_check() allows it, with marks at, just before and just behind what they are compared with. */
static void any_state(struct hv_tcb *t, uint64_t now)
{
	uint32_t n = pick(0, 5), at;

	memset(t, 0, sizeof *t);
	t->cnt = &cnt;
	t->rec = t->embed;
	t->rec_cap = HV_XREC_EMBED;
	t->mss = SEG;
	t->tf = some(TF_TS | TF_SACK | TF_ECN | TF_RENO | TF_UNDO | TF_UNDO_RX | TF_TLP_OUT | TF_TLP_REXMIT | TF_RACK_REO | TF_RACK_VALID) |
	    some(TF_CWR | TF_HEAD | TF_TLP);
	t->snd_una = at = 0u - 2 * SEG;
	t->timed_us = (uint32_t)now - SEG * pick(1, 12);
	t->rec_n = (uint16_t)n;
	for (uint32_t i = 0; i < n; i++) {
		struct hv_xrec *r = &t->embed[i];

		r->seq = at;
		r->end = at += i == 0 ? SEG * pick(1, 4) / 2 : SEG;
		r->xmit_us = (uint32_t)now - SEG * pick(1, 12);
		r->flags = (uint8_t)(pick(0, 5) == 0 ? 7 : pick(0, 3));
		hv_rec_set(t, r, (t->tf & TF_SACK) != 0 ? (uint8_t)pick(0, 3) : coin() ? XR_PLAIN : pick(0, 2) == 0 ? XR_LOST : XR_RETX);
	}
	if (n == 0 && coin())
		at += SEG * pick(1, 3);
	t->snd_nxt = at;
	t->snd_end = at + SEG * pick(0, 2);
	t->snd_edge = at + SEG * pick(0, 2);
	t->ca = (uint8_t)pick(0, 4);
	t->cwnd = SEG * pick(1, 12);
	t->ssthresh = coin() ? HV_SSTHRESH_INF : SEG * pick(2, 8) + pick(0, 2) - 1;
	t->srtt8 = 8 * SEG * pick(1, 9);
	t->rttvar4 = 4 * SEG;
	t->min_rtt = SEG * pick(0, 8);
	t->min_rtt_prev = coin() ? 0 : SEG * pick(1, 8);
	t->recover = t->snd_una + SEG * pick(0, 5) - SEG;
	t->recover_fs = pick(1, 8) * SEG;
	t->prr_delivered = pick(0, 6) * SEG / 2;
	t->prr_out = pick(0, 6) * SEG / 2;
	t->rack_xmit_us = (uint32_t)now - SEG * pick(1, 12);
	t->rack_end = t->snd_una + SEG * pick(0, 5);
	t->rack_rtt = SEG * pick(1, 8);
	t->rack_mult = coin() ? 1 : pick(1, 32);
	t->rack_persist = pick(0, 2);
	t->rack_round_end = t->snd_una + SEG * pick(0, 2) - SEG;
	t->tlp_end = t->snd_una + SEG * pick(0, 2) - SEG;
	t->undo_cwnd = SEG * pick(1, 12);
	t->undo_ssthresh = SEG * pick(2, 12);
	t->undo_una = t->snd_una - SEG * pick(0, 2);
	t->undo_rexmit = SEG * pick(0, 1) + pick(0, 1);
	t->undo_tsval = coin() ? pick(1, 3) : (uint32_t)(now / 1000) - pick(0, 12);
	t->undo_cubic.w_max = 77;
	t->cubic.w_max = 2 * SEG * pick(0, 9);
	t->cwr_end = t->snd_una + SEG * pick(0, 2) - SEG;
	t->peer_delack_us = SEG * pick(0, 60);
	t->nrtx = (uint8_t)pick(0, 2);
	t->frto = t->ca == HV_CA_LOSS ? (uint8_t)pick(0, 3) : HV_FRTO_OFF;
	t->backoff = (uint8_t)pick(0, 2);
	if ((t->tf & TF_SACK) == 0) {
		t->dupacks = (uint8_t)pick(0, 5);
		t->reno_sacked = least(SEG * pick(0, 4), hv_flight(t) - t->lost_out);
	}
}

static void any_ack(const struct hv_tcb *t, struct hv_seg *seg, struct hv_ackinfo *ai)
{
	memset(seg, 0, sizeof *seg);
	memset(ai, 0, sizeof *ai);
	seg->ack = t->snd_una - (pick(0, 3) == 0 ? SEG : 0);
	seg->has_ts = coin();
	seg->tsecr = pick(0, 4);
	ai->acked = SEG * pick(0, 1);
	ai->delivered = SEG * pick(0, 3);
	ai->newly_lost = SEG * pick(0, 1);
	ai->dsack = coin();
	ai->dsack_tlp = ai->dsack && coin();
	ai->sacked_new = coin();
	ai->dup = ai->acked == 0 && coin();
	ai->orig = pick(0, 3) == 0;
	ai->prior_una = t->snd_una - ai->acked;
}

static void must_be(struct hv_tcb *t, struct hv_tcb *m, const char *what, uint32_t round)
{
	const uint8_t *a = (const uint8_t *)t, *b = (const uint8_t *)m;

	m->rec = t->rec;
	for (size_t i = 0; i < sizeof *t; i++)
		if (a[i] != b[i])
			fail_msg("%s, round %u: octet %zu of the TCB differs from the model", what, round, i);
}

static void copy(struct hv_tcb *m, const struct hv_tcb *t)
{
	memcpy(m, t, sizeof *m);
	m->rec = m->embed;
}

static const uint64_t epoch = (5ull << 32) + 7000; /* stamps of 32 bits wrap between transmission and now */

/* RFC 8985 6.2 step 2; the echo counts only for what is acknowledged cumulatively. */
static void rack_newest(void **state)
{
	struct hv_tcb t, m;

	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint64_t now = epoch + SEG * pick(0, 4);
		struct hv_xrec r = { .seq = 0, .end = 0, .flags = (uint8_t)pick(0, 3), .xmit_us = (uint32_t)now - SEG * pick(1, 12) };
		uint32_t rtt = (uint32_t)now - r.xmit_us, sent_ms = pick(1, 3);
		struct hv_seg seg = { .has_ts = coin(), .tsecr = pick(0, 4) };
		bool newer, doubtful;

		any_state(&t, now);
		r.end = t.rack_end + SEG * pick(0, 2) - SEG;
		seg.ack = r.end + pick(0, 2) - 1;
		t.ts_off = sent_ms - (uint32_t)((now - rtt) / 1000);
		copy(&m, &t);
		doubtful = (r.flags & XRF_EVER) != 0 && (rtt < hv_min_rtt(&t) ||
		    ((t.tf & TF_TS) != 0 && seg.has_ts && seg.tsecr != 0 && seg.tsecr < sent_ms && before(r.end, seg.ack) >= 0));
		newer = before(m.rack_xmit_us, r.xmit_us) > 0 || (m.rack_xmit_us == r.xmit_us && before(m.rack_end, r.end) > 0);
		if (!doubtful && (newer || (m.tf & TF_RACK_VALID) == 0)) {
			m.tf |= TF_RACK_VALID;
			m.rack_xmit_us = r.xmit_us;
			m.rack_end = r.end;
			m.rack_rtt = rtt;
		}
		hv_rack_delivered(&t, &r, &seg, now);
		must_be(&t, &m, "hv_rack_delivered", i);
	}
}

/* RFC 8985 6.2 step 4, 5 */
static uint32_t model_rack(struct hv_tcb *m, struct hv_ackinfo *ai, uint64_t now)
{
	uint32_t rtt = m->min_rtt_prev != 0 ? least(m->min_rtt, m->min_rtt_prev) : m->min_rtt, reo, wait = 0, sacked = 0;

	for (uint32_t i = 0; i < m->rec_n; i++) {
		const struct hv_xrec *r = &m->embed[m->rec_head + i];

		for (uint32_t at = r->seq; r->st == XR_SACKED && before(at, r->end) > 0; at += m->mss)
			sacked++;
	}
	if ((m->tf & TF_RACK_VALID) == 0 || (m->tf & TF_SACK) == 0)
		return 0;
	reo = least(most(rtt / 4, 1) * m->rack_mult, m->srtt8 / 8);
	if ((m->tf & TF_RACK_REO) == 0 && (m->ca == HV_CA_RECOVERY || m->ca == HV_CA_LOSS || sacked >= 3))
		reo = 0;
	for (uint32_t i = 0; i < m->rec_n; i++) {
		struct hv_xrec *r = &m->embed[m->rec_head + i];
		bool sent_before = before(r->xmit_us, m->rack_xmit_us) > 0 ||
		    (r->xmit_us == m->rack_xmit_us && before(r->end, m->rack_end) > 0);
		uint32_t age = (uint32_t)now - r->xmit_us;

		if ((r->st != XR_PLAIN && r->st != XR_RETX) || !sent_before)
			continue;
		if (age >= m->rack_rtt + reo) {
			hv_rec_set(m, r, XR_LOST);
			ai->newly_lost += r->end - r->seq;
		} else {
			wait = most(wait, m->rack_rtt + reo - age);
		}
	}
	return wait;
}

static void rack_losses(void **state)
{
	struct hv_tcb t, m;

	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint64_t now = epoch + SEG * pick(0, 4);
		struct hv_ackinfo ai = { .newly_lost = pick(0, 1) }, mai = ai;
		uint32_t wait;

		any_state(&t, now);
		copy(&m, &t);
		wait = model_rack(&m, &mai, now);
		if (hv_rack_detect(&t, &ai, now) != wait || ai.newly_lost != mai.newly_lost)
			fail_msg("hv_rack_detect, round %u", i);
		must_be(&t, &m, "hv_rack_detect", i);
	}
}

/* RFC 9937 6.2, in floating point. */
static void model_prr(struct hv_tcb *m, const struct hv_ackinfo *ai)
{
	double pipe = m->snd_nxt - m->snd_una - m->sacked_out - m->lost_out - m->reno_sacked, sndcnt, cut;

	m->prr_delivered += ai->delivered;
	if (pipe > m->ssthresh) {
		cut = (double)m->prr_delivered * m->ssthresh / m->recover_fs;
		sndcnt = (double)(uint64_t)cut;
		if (sndcnt < cut)
			sndcnt += 1;
		sndcnt -= m->prr_out;
	} else {
		sndcnt = (double)m->prr_delivered - m->prr_out;
		if (sndcnt < ai->delivered)
			sndcnt = ai->delivered;
		if (ai->acked > 0 && ai->newly_lost == 0)
			sndcnt += m->mss;
		if (sndcnt > m->ssthresh - pipe)
			sndcnt = m->ssthresh - pipe;
	}
	if (m->prr_out == 0 && sndcnt < m->mss)
		sndcnt = m->mss;
	m->cwnd = most((uint32_t)(pipe + (sndcnt > 0 ? sndcnt : 0)), m->mss);
}

static void prr(void **state)
{
	struct hv_tcb t, m;
	struct hv_seg seg;
	struct hv_ackinfo ai;

	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		any_state(&t, epoch);
		any_ack(&t, &seg, &ai);
		t.prr_out += pick(0, 1);
		t.recover_fs += pick(0, 2);
		copy(&m, &t);
		model_prr(&m, &ai);
		hv_prr(&t, &ai);
		must_be(&t, &m, "hv_prr", i);
	}
}

/* RFC 3522: only an echo from before the first of all retransmissions that may still arrive shows that none was needed; RFC 3708: as many
 * octets as were retransmitted are to be reported. */
static void model_save(struct hv_tcb *m, uint64_t now)
{
	bool known = (m->tf & TF_UNDO_RX) != 0;

	m->tf |= TF_UNDO;
	m->tf &= ~TF_UNDO_RX;
	m->undo_cwnd = m->cwnd;
	m->undo_ssthresh = m->ssthresh;
	m->undo_una = m->snd_una;
	m->undo_rexmit = 0;
	m->undo_cubic = m->cubic;
	for (uint32_t i = 0; i < m->rec_n; i++) {
		struct hv_xrec *r = &m->embed[m->rec_head + i];
		uint32_t sent = (uint32_t)((now - (uint32_t)((uint32_t)now - r->xmit_us)) / 1000);

		if ((r->flags & XRF_REXMIT) == 0 || r->st == XR_SACKED)
			continue;
		if ((r->flags & XRF_KERNEL) != 0)
			sent = (uint32_t)(now / 1000) - (1u << 30);
		m->undo_tsval = known && before(m->undo_tsval, sent) >= 0 ? m->undo_tsval : sent;
		known = true;
		m->tf |= TF_UNDO_RX;
		m->undo_rexmit += r->end - r->seq;
	}
}

/* RFC 3168 6.1.2: the first new segment after a reduction says CWR. */
static void model_cwr(struct hv_tcb *m)
{
	if ((m->tf & TF_ECN) != 0)
		m->tf |= TF_CWR;
}

static void model_fast(struct hv_tcb *m, uint64_t now)
{
	/* RFC 3168 6.1.2: marks and losses of one window are answered once */
	if (m->ca != HV_CA_CWR || before(m->snd_una, m->cwr_end) <= 0) {
		model_save(m, now);
		m->ssthresh = hv_cc_ssthresh(m);
		model_cwr(m);
	}
	m->recover = m->snd_nxt;
	m->recover_fs = most(m->snd_nxt - m->snd_una - m->sacked_out, m->mss);
	m->prr_delivered = 0;
	m->prr_out = 0;
	m->tf &= ~TF_TLP_OUT;
	m->ca = HV_CA_RECOVERY;
}

/* RFC 5681 3.1, RFC 5682 step 1. The second timeout of the same octets doesn't reduce again; SACKs are forgotten if the head was SACKed. */
static void model_timeout(struct hv_tcb *m, uint64_t now)
{
	bool in_recovery = m->ca == HV_CA_RECOVERY, again = m->ca == HV_CA_LOSS && m->nrtx != 0, below = before(m->snd_una, m->recover) > 0;
	bool reneged;

	m->frto = !in_recovery && (m->ca != HV_CA_LOSS || again) ? HV_FRTO_HEAD : HV_FRTO_OFF;
	hv_rec_materialize(m);
	reneged = m->rec_n != 0 && m->embed[m->rec_head].st == XR_SACKED;
	if ((m->ca != HV_CA_CWR || before(m->snd_una, m->cwr_end) <= 0) && (!(in_recovery || m->ca == HV_CA_LOSS) || !below || (m->ca == HV_CA_LOSS && !again))) {
		model_save(m, now);
		m->ssthresh = hv_cc_ssthresh(m);
		if ((m->tf & TF_RENO) == 0)
			hv_cubic_rto(m);
	}
	m->cwnd = m->mss;
	m->recover = m->snd_nxt;
	m->ca = HV_CA_LOSS;
	m->dupacks = 0;
	m->reno_sacked = 0;
	m->tf &= ~(TF_TLP_OUT | TF_TLP | TF_HEAD);
	model_cwr(m);
	hv_rec_mark_all_lost(m, reneged);
}

static void model_ecn(struct hv_tcb *m, uint64_t now)
{
	(void)now;
	if (m->ca == HV_CA_RECOVERY || m->ca == HV_CA_LOSS || before(m->cwr_end, m->snd_una) <= 0)
		return;
	m->ssthresh = hv_cc_ssthresh(m);
	m->cwnd = least(m->cwnd, m->ssthresh);
	m->cwr_end = m->snd_nxt;
	m->tf &= ~(TF_UNDO | TF_UNDO_RX);
	model_cwr(m);
}

static void real_ecn(struct hv_tcb *t, uint64_t now)
{
	uint32_t was = t->cwr_end;

	/* it may move the mark by nothing: then it wasn't before SND.UNA */
	if (hv_enter_cwr(t, now) != (t->ca < HV_CA_RECOVERY && before(was, t->snd_una) > 0))
		fail_msg("hv_enter_cwr: the answer");
}

static void reductions(void **state)
{
	static void (*const real[])(struct hv_tcb *, uint64_t) = { hv_enter_recovery, hv_enter_loss, real_ecn };
	static void (*const model[])(struct hv_tcb *, uint64_t) = { model_fast, model_timeout, model_ecn };
	struct hv_tcb t, m;

	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		any_state(&t, epoch);
		copy(&m, &t);
		model[i % 3](&m, epoch);
		real[i % 3](&t, epoch);
		must_be(&t, &m, i % 3 == 0 ? "hv_enter_recovery" : i % 3 == 1 ? "hv_enter_loss" : "hv_enter_cwr", i);
	}
}

static bool model_frto(struct hv_tcb *m, const struct hv_ackinfo *ai)
{
	bool sack = (m->tf & TF_SACK) != 0;

	switch (m->frto) {
	case HV_FRTO_OFF:
		return false;
	case HV_FRTO_HEAD:
		if (sack && ai->orig)
			return true;
		if (ai->acked == 0)
			return false;
		if (before(m->snd_una, m->recover) > 0) { /* 2.1 step 2b: new data, whatever Nagle says */
			m->frto = HV_FRTO_NEW;
			m->tf |= TF_PUSH;
		} else {
			m->frto = HV_FRTO_OFF;
		}
		return false;
	default:
		if (ai->orig)
			return true;
		m->frto = before(m->recover, m->snd_nxt) > 0 && (ai->sacked_new || ai->dup) ? HV_FRTO_OFF : HV_FRTO_SENT;
		return false;
	}
}

static void model_undo(struct hv_tcb *m, const struct hv_seg *seg, const struct hv_ackinfo *ai)
{
	bool wrong = false, repairing = m->ca == HV_CA_RECOVERY || m->ca == HV_CA_LOSS, reduced = (m->tf & TF_UNDO) != 0;

	if (m->ca == HV_CA_LOSS)
		wrong = model_frto(m, ai);
	if (!reduced) {
		/* RFC 3168 6.1.2: a mark had reduced cwnd before, and that stays */
	} else if ((m->tf & TF_UNDO_RX) != 0) {
		/* Eifel */
		if (repairing && ai->acked > 0 && (m->tf & TF_TS) != 0 && seg->has_ts && seg->tsecr != 0 && seg->tsecr < m->undo_tsval &&
		    before(m->undo_una, seg->ack) > 0)
			wrong = true;
		if (ai->dsack && m->undo_rexmit == 0)
			wrong = true;
	} else if (m->ca == HV_CA_RECOVERY && (m->tf & TF_SACK) != 0 && ai->acked > 0 && m->lost_out == 0) {
		wrong = true; /* none went again, and none is missing */
	}
	if (!wrong)
		return;
	for (uint32_t i = 0; i < m->rec_n; i++)
		if (m->embed[m->rec_head + i].st == XR_LOST)
			hv_rec_set(m, &m->embed[m->rec_head + i], XR_PLAIN);
	if (m->ca == HV_CA_LOSS) /* what RACK has seen since the timeout was about originals */
		m->tf &= ~TF_RACK_VALID;
	if (reduced) {
		m->cwnd = most(m->cwnd, m->undo_cwnd);
		m->ssthresh = most(m->ssthresh, m->undo_ssthresh);
		m->cubic = m->undo_cubic;
		m->tf &= ~(TF_UNDO | TF_UNDO_RX | TF_CWR);
	}
	m->ca = m->sacked_out > 0 ? HV_CA_DISORDER : HV_CA_OPEN;
	m->frto = HV_FRTO_OFF;
	m->dupacks = 0;
	m->reno_sacked = 0;
}

static void model_head(struct hv_tcb *m, struct hv_ackinfo *ai)
{
	uint32_t len;

	hv_rec_materialize(m);
	if (m->rec_n == 0 || m->embed[m->rec_head].st == XR_LOST)
		return;
	len = least(m->embed[m->rec_head].end - m->snd_una, m->mss);
	hv_rec_split(m, NULL, 0, m->snd_una + len);
	hv_rec_set(m, &m->embed[m->rec_head], XR_LOST);
	ai->newly_lost += len;
	m->tf |= TF_HEAD;
	m->reno_sacked = least(m->reno_sacked, m->snd_nxt - m->snd_una - m->lost_out);
}

static uint32_t model_ack(struct hv_tcb *m, const struct hv_seg *seg, struct hv_ackinfo *ai, uint64_t now)
{
	uint32_t wait = 0;

	/* RFC 8985 6.2 step 4: at most once a round trip, for 16 recoveries; not for probes */
	if (ai->dsack && !ai->dsack_tlp && before(m->rack_round_end, m->snd_una) >= 0) {
		m->rack_round_end = m->snd_nxt;
		m->rack_mult += m->rack_mult < 32;
		m->rack_persist = 16;
	}
	model_undo(m, seg, ai);
	/* RFC 8985 7.4 */
	if ((m->tf & TF_TLP_OUT) != 0 && before(m->tlp_end, seg->ack) >= 0) {
		bool beyond = seg->ack != m->tlp_end, done = true;

		if ((m->tf & TF_TLP_REXMIT) != 0) {
			if (ai->dsack_tlp)
				m->peer_delack_us = least(4 * m->peer_delack_us, 200000);
			else if (beyond)
				model_ecn(m, now); /* the probe repaired a loss: a reduction, nothing else */
			else
				done = ai->dup;
		}
		if (done)
			m->tf &= ~TF_TLP_OUT;
	}
	if ((m->ca == HV_CA_RECOVERY || m->ca == HV_CA_LOSS) && before(m->recover, m->snd_una) >= 0) {
		if (m->ca == HV_CA_RECOVERY)
			m->cwnd = m->ssthresh;
		m->ca = m->sacked_out > 0 ? HV_CA_DISORDER : HV_CA_OPEN;
		m->frto = HV_FRTO_OFF;
		m->dupacks = 0;
		m->reno_sacked = 0;
		m->cwr_end = m->snd_nxt;
		if (m->rack_persist == 1)
			m->rack_mult = 1;
		if (m->rack_persist > 0)
			m->rack_persist--;
	} else if (m->ca == HV_CA_CWR && before(m->cwr_end, m->snd_una) > 0) {
		m->ca = HV_CA_OPEN; /* what was sent after the reduction has arrived, CWR with it */
	}
	if ((m->tf & TF_SACK) != 0)
		wait = model_rack(m, ai, now);
	else if (m->ca == HV_CA_RECOVERY ? ai->acked > 0 : m->ca != HV_CA_LOSS && m->dupacks >= 3 && before(m->recover, m->snd_una) > 0)
		model_head(m, ai); /* RFC 6582: the third duplicate beyond the last recovery, and every partial ACK after it */
	if (m->ca != HV_CA_RECOVERY && m->ca != HV_CA_LOSS) {
		if (m->lost_out > 0)
			model_fast(m, now), m->recover_fs += (m->tf & TF_SACK) != 0 ? ai->delivered : 0;
		else if (m->ca != HV_CA_CWR)
			m->ca = m->sacked_out > 0 || m->dupacks > 0 ? HV_CA_DISORDER : HV_CA_OPEN;
	}
	if (m->ca == HV_CA_RECOVERY)
		model_prr(m, ai);
	else if (m->ca == HV_CA_OPEN && before(m->cwr_end, m->snd_una) > 0 && (m->tf & TF_UNDO) != 0)
		m->tf &= ~(TF_UNDO | TF_UNDO_RX);
	return wait;
}

static void acks(void **state)
{
	struct hv_tcb t, m;
	struct hv_seg seg;
	struct hv_ackinfo ai, mai;

	(void)state;
	for (uint32_t i = 0; i < 3 * ROUNDS; i++) {
		uint64_t now = epoch + SEG * pick(0, 4);
		uint32_t wait;

		any_state(&t, now);
		any_ack(&t, &seg, &ai);
		copy(&m, &t);
		mai = ai;
		wait = model_ack(&m, &seg, &mai, now);
		if (hv_recovery_ack(&t, NULL, &seg, &ai, now) != wait || ai.newly_lost != mai.newly_lost)
			fail_msg("hv_recovery_ack, round %u", i);
		must_be(&t, &m, "hv_recovery_ack", i);
	}
}

/* RFC 5682 2.1 step 2b: new data goes first while there is some and the window allows it. */
static void frto_holds(void **state)
{
	struct hv_tcb t, m;

	(void)state;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		bool new, sent;

		any_state(&t, epoch);
		copy(&m, &t);
		new = m.snd_end != m.snd_nxt && before(m.snd_nxt, m.snd_edge) > 0;
		sent = before(m.recover, m.snd_nxt) > 0;
		if (m.frto == HV_FRTO_NEW && !new && !sent)
			m.frto = HV_FRTO_OFF;
		if (hv_frto_holds(&t) != (m.frto == HV_FRTO_NEW))
			fail_msg("hv_frto_holds, round %u", i);
		must_be(&t, &m, "hv_frto_holds", i);
	}
}

static int setup(void **state)
{
	(void)state;
	prng_seed(&rng, 8985);
	return 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = { T(rack_newest), T(rack_losses), T(prr), T(reductions), T(acks), T(frto_holds) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
