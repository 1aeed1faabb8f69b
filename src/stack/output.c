/*
 * output.c - what to send now, and building it.
 *
 * hv_tcp_output() hands out one segment or TSO burst per call; hv_tcp_send_fast()/commit() are the shortcut of a small message on an
 * otherwise idle send side. Headers come from the template in the TCB, payload is referenced in place. Ring lock.
 */
#include "stack/cc.h"
#include "stack/opt.h"

#define BURST_MAX 65000u /* payload and headers of a TSO burst must fit a 16-bit IP length */
#define BURST_SEGS 128u  /* and a peer with a tiny MSS must not make thousands of frames of one descriptor */

/* ---- SACK blocks that go with the next segment ---- */
static HV_COLD void order_dsack(struct hv_tcb *t)
{
	/* RFC 2883 4: a duplicate above the cumulative ACK is followed by the block that contains it, or it looks like a plain SACK */
	if (hv_seq_le(t->dsack.end, t->rcv_nxt))
		return;
	for (unsigned i = 0; i < t->nrsack; i++) {
		struct hv_block k = t->rsack[i];

		if (hv_seq_ge(t->dsack.start, k.start) && hv_seq_le(t->dsack.end, k.end)) {
			memmove(t->rsack + 1, t->rsack, i * sizeof k);
			t->rsack[0] = k;
			return;
		}
	}
	t->ndsack = 0;
}

static inline unsigned sack_blocks(struct hv_tcb *t)
{
	unsigned n, max = (t->tf & TF_TS) != 0 ? 3 : 4;

	if (hv_likely((t->nrsack | t->ndsack) == 0))
		return 0;
	if ((t->tf & TF_SACK) == 0)
		return 0;
	if (t->ndsack != 0)
		order_dsack(t);
	n = (unsigned)t->nrsack + t->ndsack;
	return n < max ? n : max;
}

static void put_sack(const struct hv_tcb *t, uint8_t *p, unsigned n)
{
	unsigned i = 0;

	p = hv_opt_put_sack_head(p, n);
	if (t->ndsack != 0) { /* RFC 2883: the duplicate first */
		p = hv_opt_put_block(p, t->dsack.start, t->dsack.end);
		n--;
	}
	for (; i < n; i++)
		p = hv_opt_put_block(p, t->rsack[i].start, t->rsack[i].end);
}

/* ---- headers ---- */
static HV_INLINE void build(const struct hv_tcb *restrict t, struct hv_tx *restrict tx, uint32_t lead, uint32_t seq, uint32_t len,
    unsigned flags, uint32_t wnd, unsigned nsack, uint64_t now, bool ts, bool v6)
{
	const uint32_t sack_len = hv_unlikely(nsack != 0) ? 4 + 8 * nsack : 0, ts_len = ts ? HV_TS_OPT_LEN : 0;
	const uint32_t l4_len = HV_TCP_LEN + ts_len + sack_len;
	uint8_t *ip = tx->hdr + (lead >> 16 & 255), *l4 = ip + (v6 ? HV_IP6_LEN : HV_IP4_LEN);

	lead += sack_len;
	memcpy(tx->hdr, t->hdr, 64); /* the two octets behind the template are overwritten below */
	memcpy(tx, &lead, sizeof lead);
	hv_put32(l4 + HV_TCP_SEQ, seq);
	hv_put32(l4 + HV_TCP_ACKNO, t->rcv_nxt);
	hv_put16(l4 + HV_TCP_OFF, l4_len << 10 | flags);
	hv_put16(l4 + HV_TCP_WND, wnd);
	hv_put32(l4 + HV_TCP_CSUM, 0); /* and the urgent pointer */
	if (ts)
		hv_opt_put_ts(l4 + HV_TCP_OPT, hv_tsval(t, now), t->ts_recent); /* 0 while it is unknown */
	if (hv_unlikely(nsack != 0))
		put_sack(t, l4 + HV_TCP_OPT + ts_len, nsack);
	if (v6) {
		hv_put16(ip + HV_IP6_PAYLOAD, l4_len + len);
	} else {
		hv_put16(ip + HV_IP4_TOTAL, HV_IP4_LEN + l4_len + len);
		hv_put16(ip + HV_IP4_ID, t->segs_out); /* DF is set: any value will do (RFC 6864) */
	}
	tx->payload = len;
}

/* A segment with an acknowledgment leaves: nothing is owed any more. */
static inline void ack_sent(struct hv_tcb *t, bool data, uint64_t now)
{
	uint32_t tf = t->tf & ~(TF_ACK_PEND | TF_ACK_NOW | TF_NOMEM | TF_QUICKED);

	/* A reply within the time of a delayed ACK: the next one can ride on the reply, whether this one did or not. */
	if ((t->tf & TF_ACK_PEND) != 0)
		tf |= data ? TF_PINGPONG : TF_QUICKED;
	else if (hv_unlikely((t->tf & TF_QUICKED) != 0))
		tf |= !data ? TF_QUICKED : now - t->last_rx_us < HV_DELACK ? TF_PINGPONG : 0;
	t->tf = tf;
	t->last_ack = t->rcv_nxt;
	t->ack_at = HV_NEVER;
	t->ndsack = 0;
	if (t->quick != 0)
		t->quick--;
}

static inline void count_out(struct hv_tcb *t, uint32_t segs, uint32_t octets)
{
	struct hv_tcp_counters *restrict cnt = t->cnt;

	t->segs_out += segs;
	cnt->segs_out += segs;
	cnt->octets_out += octets;
}

static inline uint32_t burst_max(const struct hv_env *env, uint32_t mss)
{
	uint32_t b = hv_min32(env->tso_max, BURST_MAX);

	return hv_max32(hv_min32(b, BURST_SEGS * mss), mss);
}

/* ---- decisions ---- */
void hv_refresh(struct hv_tcb *t)
{
	t->fast_edge = hv_fast_edge(t);
	/* Prediction needs: nothing out of order on either side and nothing of the kind to report, a known TS.Recent, no ECN echo to be
	 * stopped by CWR (any other flag than ACK and PSH goes the slow way anyhow). And whatever the next segment ends is ended by the
	 * slow way: the time in which a reduction may be undone, unanswered keepalive probes. */
	if (t->ca != HV_CA_OPEN || t->ooo_head != NULL || t->ndsack != 0 || (t->tf & (TF_TLP_OUT | TF_IMPORT | TF_DEAD | TF_UNDO)) != 0 ||
	    t->ka_sent != 0 ||
	    (t->tf & (TF_TS | TF_TS_KNOWN)) == TF_TS)
		t->pred = HV_PRED_NEVER;
	else
		t->pred = HV_ACK | ((t->tf & TF_TS) != 0 ? 0x100u : 0);
}

/* ---- what was sent ---- */
static HV_COLD void idle_restart(struct hv_tcb *t, uint64_t idle)
{
	/* RFC 5681 4.1, softened by RFC 2861 as Linux does it: half for each RTO, not below the restart window */
	uint32_t rw = hv_min32(hv_iw(t), t->cwnd), rto = hv_rto(t);
	uint64_t left = idle;

	if (t->ssthresh != HV_SSTHRESH_INF)
		t->ssthresh = hv_max32(t->ssthresh, t->cwnd / 4 * 3);
	while (left > rto && t->cwnd > rw) {
		t->cwnd /= 2;
		left -= rto;
	}
	t->cwnd = hv_max32(t->cwnd, rw);
}

/* mss: what was full-sized for this segment, less than t->mss if there were SACK blocks in it. */
void hv_sent_new(struct hv_tcb *t, struct hv_env *env, uint32_t len, uint32_t mss, uint64_t now)
{
	uint32_t now32 = (uint32_t)now, seq = t->snd_nxt;

	if (hv_likely(t->snd_nxt == t->snd_una)) {
		t->timed_us = now32;
	} else if (t->rec_n != 0) {
		hv_rec_sent(t, env, seq, seq + len, now32, 0);
	} else if (now32 - t->timed_us > t->srtt8 >> 7) {
		hv_rec_materialize(t);
		hv_rec_sent(t, env, seq, seq + len, now32, 0);
	}
	t->snd_nxt = seq + len;
	if (len < mss || len % mss != 0)
		t->snd_sml = t->snd_nxt;
	else if (!hv_seq_gt(t->snd_sml, t->snd_una))
		t->snd_sml = t->snd_una; /* so that it never gets half the sequence space old */
	t->last_tx_us = now;
	if (hv_unlikely(t->ca == HV_CA_RECOVERY))
		t->prr_out += len;
	if (hv_unlikely((t->tf & TF_IMPORT) != 0) && hv_seq_ge(t->snd_nxt, t->import_end))
		t->tf &= ~TF_IMPORT;
	hv_timer_sent(t, now);
}

/* RFC 3168 6.1.4 - 6.1.6: acknowledgments, probes and what was sent before (perhaps by the kernel) aren't ECN-capable. */
static HV_COLD void not_ect(const struct hv_tcb *t, struct hv_tx *tx)
{
	uint8_t *ip = tx->hdr + t->l3_off;

	if ((t->tf & TF_V6) != 0)
		ip[1] &= (uint8_t) ~(HV_CE << 4);
	else
		ip[HV_IP4_TOS] &= (uint8_t)~HV_CE;
}

/* flags: as on the wire, and NEW_DATA */
#define NEW_DATA 0x100u
static void frame_out(
    struct hv_tcb *t, struct hv_tx *tx, uint32_t seq, uint32_t len, unsigned flags, uint32_t mss, unsigned nsack, uint64_t now)
{
	uint32_t was = t->rcv_edge;
	uint32_t wnd = hv_unlikely((t->tf & TF_NOMEM) != 0) ? 0 : hv_rcv_advertise(t, &t->rcv_edge);
	uint32_t segs = len <= mss ? 1 : (len + mss - 1) / mss;

	flags |= (t->tf & TF_ECE) != 0 ? HV_ECE : 0;
	build(t, tx, t->tx_lead, seq, len, flags & ~NEW_DATA, wnd, nsack, now, (t->tf & TF_TS) != 0, (t->tf & TF_V6) != 0);
	tx->mss = (uint16_t)(len > mss ? mss : 0);
	tx->inline_ok = false;
	if (hv_unlikely((t->tf & TF_ECN) != 0) && ((flags & NEW_DATA) == 0 || (t->tf & TF_IMPORT) != 0))
		not_ect(t, tx);
	if (len == 0) {
		tx->nsge = 0;
		t->pure_out++;
	}
	if (t->rcv_edge != was && t->rcvbuf < t->rcvbuf_max && (len == 0 || len > t->mss))
		hv_rcv_autotune(t, now); /* a small message tells of no bulk */
	ack_sent(t, len != 0, now);
	count_out(t, segs, len);
}

/* ---- retransmission ---- */
static void note_rexmit(struct hv_tcb *t, uint32_t len, uint32_t mss, uint64_t now)
{
	uint32_t segs = (len + mss - 1) / mss;

	t->cnt->rexmit_segs += segs;
	t->total_rexmit += segs;
	t->bytes_rexmit += len;
	t->last_tx_us = now;
	t->rexmit_us = (uint32_t)now;
	if ((t->tf & TF_UNDO) != 0) {
		if ((t->tf & TF_UNDO_RX) == 0) {
			t->tf |= TF_UNDO_RX;
			t->undo_tsval = hv_tsval(t, now);
		}
		t->undo_rexmit += len;
	}
	if (t->ca == HV_CA_RECOVERY)
		t->prr_out += len;
}

static HV_COLD bool rexmit(struct hv_tcb *t, struct hv_env *env, struct hv_tx *tx, uint64_t now)
{
	bool forced = (t->tf & TF_HEAD) != 0;
	unsigned nsack = sack_blocks(t);
	uint32_t mss = t->mss - (nsack != 0 ? 4 + 8 * nsack : 0), i, len, room, seq;
	struct hv_xrec *r;

	t->tf &= ~TF_HEAD;
	if (!forced && hv_frto_holds(t))
		return false;
	hv_rec_materialize(t);
	for (i = 0; i < t->rec_n; i++) {
		r = hv_rec(t, i);
		if (r->st == XR_LOST || (forced && r->st != XR_SACKED))
			break;
	}
	if (i == t->rec_n)
		return false;
	r = hv_rec(t, i);
	seq = r->seq;
	len = r->end - r->seq;
	if (forced) {
		room = mss;
	} else {
		uint32_t pipe = hv_pipe(t);

		room = t->cwnd > pipe ? t->cwnd - pipe : 0;
		if (room < hv_min32(mss, len))
			return false;
		room = hv_min32(room, burst_max(env, mss));
	}
	len = hv_min32(len, room);
	if (hv_seq_gt(seq + len, t->snd_edge)) { /* the window has shrunk: only the oldest segment may go, as a probe */
		if (seq == t->snd_una)
			len = hv_min32(len, mss);
		else if (hv_seq_gt(t->snd_edge, seq))
			len = t->snd_edge - seq;
		else
			return false;
	}
	if (len > mss && seq + len != r->end)
		len -= len % mss;
	len = hv_snd_gather(t, env, seq, len, tx);
	if (len > mss && seq + len != r->end && len % mss != 0) {
		len -= len % mss;
		len = hv_snd_gather(t, env, seq, len, tx);
	}
	/* When there is no room for a split the whole record counts as sent: RACK or the RTO will find the rest missing again. */
	hv_rec_split(t, env, i, seq + len);
	for (i = 0; i + 1 < t->rec_n && !hv_seq_in(seq, hv_rec(t, i)->seq, hv_rec(t, i)->end); i++)
		;
	r = hv_rec(t, i);
	hv_rec_set(t, r, XR_RETX);
	r->flags |= XRF_EVER | XRF_REXMIT;
	r->xmit_us = (uint32_t)now;
	note_rexmit(t, len, mss, now);
	frame_out(t, tx, seq, len, HV_ACK | (seq + len == t->snd_end ? HV_PSH : 0), mss, nsack, now);
	if (seq == t->snd_una && t->ca == HV_CA_RECOVERY && t->rtx_kind == HV_RTX_RTO)
		hv_timer_rearm(t, now); /* it gets an RTO of its own */
	else
		hv_timer_sent(t, now);
	return true;
}

/* ---- new data ---- */
/* force: a tail loss probe. One segment, whatever cwnd, Nagle's rule and cork say. */
static bool send_new(struct hv_tcb *t, struct hv_env *env, struct hv_tx *tx, bool force, uint64_t now)
{
	unsigned nsack = sack_blocks(t), flags = HV_ACK | NEW_DATA;

	if (hv_unlikely(t->bh_mss != 0) && now >= t->bh_at && t->ca == HV_CA_OPEN && t->snd_end - t->snd_nxt > t->mss)
		hv_black_hole_retry(t, now);

	uint32_t mss = t->mss - (nsack != 0 ? 4 + 8 * nsack : 0), avail = t->snd_end - t->snd_nxt, lim, n, seq = t->snd_nxt;
	int32_t w = hv_seq_diff(t->snd_edge, seq);
	bool hold = hv_nagle_holds(t) && (t->tf & TF_PUSH) == 0 && !force;

	if (w <= 0)
		return false;
	if (seq == t->snd_una && now - t->last_tx_us > hv_rto(t) && t->cwnd > hv_iw(t))
		idle_restart(t, now - t->last_tx_us);
	lim = hv_min32(avail, (uint32_t)w);
	if (force) {
		lim = hv_min32(lim, mss);
	} else {
		uint32_t pipe = hv_pipe(t), room = t->cwnd > pipe ? t->cwnd - pipe : 0;

		if (room < hv_min32(mss, lim)) {
			t->tf |= TF_CWND_LIM;
			t->lim_end = seq;
			return false;
		}
		lim = hv_min32(lim, room);
	}
	/* CWR in one segment: a NIC repeats the flags in each of a burst */
	n = hv_min32(lim, (t->tf & TF_CWR) != 0 ? mss : burst_max(env, mss));
	if (n >= mss) {
		if (n != avail || hold)
			n -= n % mss;
	} else if (n == avail) {
		if (hold)
			return false;
	} else if ((t->tf & TF_PUSH) == 0 && n < t->max_wnd / 2) {
		return false; /* RFC 9293 3.8.6.2.1 */
	}
	lim = n;
	n = hv_snd_gather(t, env, seq, lim, tx);
	if (n != lim && n > mss) { /* out of gather entries */
		n -= n % mss;
		n = hv_snd_gather(t, env, seq, n, tx);
	}
	if (seq + n == t->snd_end)
		flags |= HV_PSH;
	if ((t->tf & TF_CWR) != 0) {
		t->tf &= ~TF_CWR;
		flags |= HV_CWR;
	}
	t->tf &= ~TF_PUSH;
	frame_out(t, tx, seq, n, flags, mss, nsack, now);
	hv_sent_new(t, env, n, mss, now);
	return true;
}

/* Tail loss probe: new data if there is some, else the last segment again (RFC 8985 7.3). */
static HV_COLD bool tail_probe(struct hv_tcb *t, struct hv_env *env, struct hv_tx *tx, uint64_t now)
{
	unsigned nsack = sack_blocks(t);
	uint32_t mss = t->mss - (nsack != 0 ? 4 + 8 * nsack : 0), seq, len;
	struct hv_xrec *r;

	t->tf &= ~TF_TLP;
	if (t->snd_nxt == t->snd_una || (t->tf & TF_TLP_OUT) != 0)
		return false;
	if (t->snd_end != t->snd_nxt) {
		t->tf |= TF_TLP_OUT;
		if (send_new(t, env, tx, true, now)) {
			t->tf &= ~TF_TLP_REXMIT;
			t->tlp_end = t->snd_nxt;
			return true;
		}
		t->tf &= ~TF_TLP_OUT;
	}
	hv_rec_materialize(t);
	r = hv_rec(t, t->rec_n - 1u);
	if ((r->st != XR_PLAIN && r->st != XR_RETX) || hv_seq_gt(r->end, t->snd_edge))
		return false; /* not behind a window that has shrunk */
	len = hv_min32(r->end - r->seq, mss);
	seq = r->end - len;
	len = hv_snd_gather(t, env, seq, len, tx);
	hv_rec_split(t, env, t->rec_n - 1u, seq);
	r = hv_rec(t, t->rec_n - 1u);
	r->flags |= XRF_EVER | XRF_REXMIT;
	r->xmit_us = (uint32_t)now;
	t->tf |= TF_TLP_OUT | TF_TLP_REXMIT;
	t->tlp_end = seq + len;
	note_rexmit(t, len, mss, now);
	frame_out(t, tx, seq, len, HV_ACK | (seq + len == t->snd_end ? HV_PSH : 0), mss, nsack, now);
	return true;
}

bool hv_tcp_output(struct hv_tcb *t, struct hv_env *env, struct hv_tx *tx, uint64_t now)
{
	bool sent;

	if (hv_unlikely((t->tf & TF_DEAD) != 0))
		return false;
	if (hv_unlikely((t->tf & TF_PROBE) != 0)) {
		/* An octet the peer has had already: it must answer with an ACK (keepalive and window probes, as the kernel does). */
		t->tf &= ~TF_PROBE;
		frame_out(t, tx, t->snd_una - 1, 0, HV_ACK, t->mss, 0, now);
		sent = true;
	} else if (hv_unlikely((t->lost_out != 0 || (t->tf & TF_HEAD) != 0)) && rexmit(t, env, tx, now)) {
		sent = true;
	} else if (hv_unlikely((t->tf & TF_TLP) != 0) && tail_probe(t, env, tx, now)) {
		sent = true;
	} else if (t->snd_end != t->snd_nxt && send_new(t, env, tx, false, now)) {
		sent = true;
	} else if ((t->tf & TF_ACK_NOW) != 0) {
		frame_out(t, tx, t->snd_nxt, 0, HV_ACK, t->mss, sack_blocks(t), now);
		sent = true;
	} else {
		t->tf &= ~TF_PUSH;
		if (t->snd_end != t->snd_nxt && t->snd_nxt == t->snd_una && t->rtx_kind == HV_RTX_OFF)
			hv_timer_rearm(t, now);
		sent = false;
	}
	hv_refresh(t);
	return sent;
}

/* ---- the shortcut ----
 * The two functions below know the usual case, straight on; every other condition is left to their *_any() twins, which come to the
 * same. */
static HV_INLINE uint32_t fast_segment(
    struct hv_tcb *restrict t, const void *data, uint32_t len, struct hv_tx *restrict tx, uint64_t now, uint32_t lead, bool ts, bool v6)
{
	uint32_t w = hv_rcv_advertise(t, &t->adv_edge); /* nothing is promised before the commit */

	build(t, tx, lead, t->snd_nxt, len, HV_ACK | HV_PSH, w, 0, now, ts, v6);
	tx->mss = 0;
	tx->nsge = 1;
	tx->inline_ok = true;
	tx->sge[0].addr = data;
	tx->sge[0].len = len;
	tx->sge[0].lkey = 0;
	return len;
}

static __attribute__((noinline)) uint32_t send_any(
    struct hv_tcb *t, const struct hv_env *env, const void *data, uint32_t len, struct hv_tx *tx, uint64_t now)
{
	if (!(t->tx_tail != NULL && t->tx_tail->cap - t->tx_tail->end >= len) && (env->free_tx == NULL || env->free_tx->cap < len))
		return 0; /* no room for it as one piece */
	return fast_segment(t, data, len, tx, now, t->tx_lead, (t->tf & TF_TS) != 0, (t->tf & TF_V6) != 0);
}

uint32_t hv_tcp_send_fast(
    struct hv_tcb *restrict t, struct hv_env *restrict env, const void *data, uint32_t len, struct hv_tx *restrict tx, uint64_t now)
{
	const uint32_t l4 = HV_ETH_LEN + HV_IP4_LEN, lead = HV_TX_LEAD(l4 + HV_TCP_LEN + HV_TS_OPT_LEN, HV_ETH_LEN, l4);

	if (hv_unlikely(hv_seq_diff(t->fast_edge, t->snd_nxt) < (int32_t)len || len - 1 >= t->mss - 1u))
		return 0;
	if (hv_unlikely(t->tx_tail != NULL || env->free_tx == NULL || env->free_tx->cap < len || t->tx_lead != lead ||
			t->rcv_edge - t->rcv_nxt <= t->wnd_keep))
		return send_any(t, env, data, len, tx, now);
	return fast_segment(t, data, len, tx, now, lead, true, false);
}

static __attribute__((noinline)) void commit_any(struct hv_tcb *t, struct hv_env *env, const void *data, uint32_t len, uint64_t now)
{
	struct hv_chunk *c = t->tx_tail;

	if (c == NULL || c->cap - c->end < len) {
		c = env->free_tx;
		env->free_tx = c->next;
		env->n_free_tx--;
		c->next = NULL;
		if (t->tx_tail != NULL)
			t->tx_tail->next = c;
		else
			t->tx_head = c;
		t->tx_tail = c;
	}
	memcpy(c->base + c->end, data, len);
	c->end += len;
	t->snd_end += len;
	if (hv_unlikely(
		t->snd_nxt == t->snd_una && now - t->last_tx_us > HV_RTO_MIN && t->cwnd > hv_iw(t) && now - t->last_tx_us > hv_rto(t)))
		idle_restart(t, now - t->last_tx_us);
	t->rcv_edge = t->adv_edge;
	t->tf &= ~TF_PUSH;
	ack_sent(t, true, now);
	count_out(t, 1, len);
	hv_sent_new(t, env, len, t->mss, now);
	t->fast_edge = hv_fast_edge(t);
}

/* The usual case is commit_any() and what it calls with every condition decided: nothing was queued, so nothing is in flight and no
 * timer runs. */
void hv_tcp_send_commit(struct hv_tcb *restrict t, struct hv_env *restrict env, const void *data, uint32_t len, uint64_t now)
{
	struct hv_tcp_counters *restrict cnt;
	struct hv_chunk *restrict c;
	uint32_t pto, tf = t->tf;

	if (hv_unlikely(t->tx_tail != NULL || (tf & (TF_SACK | TF_QUICKED)) != TF_SACK || now - t->last_tx_us > HV_RTO_MIN ||
			t->quick != 0 || t->srtt8 == 0)) {
		commit_any(t, env, data, len, now);
		return;
	}
	pto = hv_pto_single(t);
	if (hv_unlikely(pto > HV_RTO_MIN)) { /* else no RTO is shorter */
		commit_any(t, env, data, len, now);
		return;
	}
	hv_set_rtx(t, HV_RTX_TLP, now + pto);
	c = env->free_tx;
	t->tx_head = c;
	env->free_tx = c->next;
	env->n_free_tx--;
	c->next = NULL;
	c->end = len;
	t->tx_tail = c;
	t->snd_nxt += len;
	t->last_tx_us = now;
	t->timed_us = (uint32_t)now;
	t->snd_end = t->snd_nxt;
	t->snd_sml = t->snd_nxt;
	if ((tf & TF_NODELAY) == 0)
		t->fast_edge = t->snd_nxt;
	t->rcv_edge = t->adv_edge;
	/* as ack_sent() and count_out() */
	tf |= (tf & TF_ACK_PEND) != 0 ? TF_PINGPONG : 0;
	t->tf = tf & ~(TF_ACK_PEND | TF_ACK_NOW | TF_PUSH);
	t->last_ack = t->rcv_nxt;
	t->ack_at = HV_NEVER;
	t->segs_out++;
	cnt = t->cnt;
	cnt->segs_out++;
	cnt->octets_out += len;
	memcpy(c->base, data, len); /* last: no register has to survive it */
}

uint32_t hv_tcp_write_room(const struct hv_tcb *t)
{
	uint32_t q = t->snd_end - t->snd_una, room = q < t->sndbuf ? t->sndbuf - q : 0, unsent = t->snd_end - t->snd_nxt;

	if (hv_unlikely((t->tf & TF_LOWAT) != 0)) /* the kernel fills the buffer (up to 64 KB) with which it passes the mark */
		room = unsent < t->notsent_lowat ? hv_min32(room, hv_max32(t->notsent_lowat - unsent, 65536)) : 0;
	return room;
}

uint32_t hv_tcp_write(struct hv_tcb *t, struct hv_env *env, const void *data, uint32_t len, bool more, unsigned *act, uint64_t now)
{
	uint32_t n;

	(void)now;
	if (hv_unlikely((t->tf & TF_DEAD) != 0))
		return 0;
	n = hv_snd_append(t, env, data, hv_min32(len, hv_tcp_write_room(t)));
	if (n != len)
		t->tf |= TF_NOSPACE;
	if (more)
		t->tf |= TF_MORE;
	else
		t->tf &= ~TF_MORE;
	if (t->snd_end != t->snd_nxt)
		*act |= HV_TCP_OUT;
	hv_refresh(t);
	return n;
}

bool hv_tcp_writable(const struct hv_tcb *t)
{
	uint32_t q = t->snd_end - t->snd_una;

	if (q >= t->sndbuf || t->sndbuf - q < q / 2)
		return false;
	if (hv_likely((t->tf & TF_LOWAT) == 0))
		return true;
	return (uint64_t)(t->snd_end - t->snd_nxt) * 2 < t->notsent_lowat;
}

uint32_t hv_tcp_outq(const struct hv_tcb *t)
{
	return t->snd_end - t->snd_una;
}

uint32_t hv_tcp_outq_nsd(const struct hv_tcb *t)
{
	return t->snd_end - t->snd_nxt;
}
