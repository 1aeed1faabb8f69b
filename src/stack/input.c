/*
 * input.c - an arriving segment: prediction first, then RFC 9293 3.10.7.4 in its order with RFC 5961 and PAWS.
 *
 * Prediction takes data with or without a new ACK and pure ACKs on a connection without losses in either direction. Whatever leaves
 * ESTABLISHED is not processed at all: HV_TCP_DEMOTE, and the kernel gets the segment. Ring lock.
 */
#include "stack/cc.h"

#define PSH_MASK 0xfffffff7u

/* Late octets come in one piece of any length. What the peer sends is bounded by the path, not by what it can take itself. */
static HV_COLD void learn_rcv_mss(struct hv_tcb *t, uint32_t len)
{
	t->rcv_mss = (uint16_t)hv_min32(hv_min32(len, hv_max32(t->mss_clamp, t->pmtu)), UINT16_MAX);
	t->wnd_keep = hv_wnd_keep(t);
}

/* No conversation: no reply is likely to come that the ACK could ride on. PSH ends what the sender had, so that it may be waiting for
 * this ACK with cwnd or Nagle's rule against it, and in quick mode it waits in any case: both get it as soon as the reader has taken
 * everything, see read_ack_due(), or a millisecond later. */
static __attribute__((noinline)) void ack_soon(struct hv_tcb *t, uint32_t flags, uint64_t now)
{
	uint64_t at = now + (t->quick != 0 || (flags & HV_PSH) != 0 ? HV_QUICKACK_US : HV_DELACK);

	t->ack_at = hv_min64(t->ack_at, at);
}

/* Octets up to rcv_nxt have to be acknowledged: every second full segment at once (RFC 9293 3.8.6.3). */
static HV_INLINE unsigned ack_owed(struct hv_tcb *t, uint32_t rcv_nxt, uint32_t tf, uint32_t flags, uint64_t now)
{
	if (rcv_nxt - t->last_ack > t->rcv_mss) {
		t->tf = tf | TF_ACK_PEND | TF_ACK_NOW;
		return HV_TCP_OUT;
	}
	t->tf = tf | TF_ACK_PEND;
	if (hv_unlikely((tf & TF_PINGPONG) == 0))
		ack_soon(t, flags, now);
	else if (t->ack_at == HV_NEVER)
		t->ack_at = now + HV_DELACK;
	return 0;
}

static inline unsigned ack_in_order(struct hv_tcb *t, uint32_t len, uint32_t flags, uint64_t now)
{
	if (hv_unlikely(len > t->rcv_mss))
		learn_rcv_mss(t, len);
	return ack_owed(t, t->rcv_nxt, t->tf, flags, now);
}

/* A challenge ACK, throttled as RFC 5961 section 7 wants it: one in half a second. */
static void challenge(struct hv_tcb *t, uint64_t now)
{
	if (now < t->challenge_at)
		return;
	t->challenge_at = now + HV_CHALLENGE_US;
	t->cnt->challenge_acks++;
	t->tf |= TF_ACK_NOW;
}

static unsigned demote(struct hv_tcb *t, uint64_t *counter)
{
	(void)t;
	(*counter)++;
	return HV_TCP_DEMOTE;
}

static unsigned drop(const struct hv_tcb *t)
{
	return HV_TCP_DROP | ((t->tf & TF_ACK_NOW) != 0 ? HV_TCP_OUT : 0);
}

static void ecn_in(struct hv_tcb *t, const struct hv_seg *seg)
{
	if ((t->tf & TF_ECN) == 0)
		return;
	if ((seg->flags & HV_CWR) != 0)
		t->tf &= ~TF_ECE;
	if (seg->ce) {
		t->tf |= TF_ECE;
		hv_quick(t); /* let the sender hear of it at once */
	}
}

static HV_COLD unsigned input_slow(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, uint64_t now)
{
	uint32_t end = seg->seq + seg->len + ((seg->flags & HV_FIN) != 0), ack_max;
	unsigned act = 0;

	t->segs_in++;
	t->cnt->segs_in++;
	if (hv_unlikely((t->tf & TF_DEAD) != 0))
		return HV_TCP_DROP;
	t->pure_in += seg->len == 0;

	/* PAWS (RFC 7323 5.3 R1). A stamp older than 24 days of silence proves nothing. */
	if (seg->has_ts && (t->tf & (TF_TS | TF_TS_KNOWN)) == (TF_TS | TF_TS_KNOWN) && hv_seq_lt(seg->tsval, t->ts_recent) &&
	    now - t->ts_recent_at < HV_PAWS_IDLE_US && (seg->flags & HV_RST) == 0) {
		t->cnt->paws_drops++;
		if (seg->len != 0)
			t->tf |= TF_ACK_NOW;
		else
			challenge(t, now);
		return drop(t);
	}

	/* First, the sequence number. */
	if (!hv_seq_acceptable(seg->seq, end, t->last_ack, t->rcv_nxt, t->rcv_edge)) {
		t->cnt->bad_seq++;
		if ((seg->flags & HV_RST) != 0)
			return HV_TCP_DROP;
		if ((seg->flags & HV_SYN) != 0) {
			challenge(t, now);
			return drop(t);
		}
		if (seg->len != 0) {
			if (hv_seq_le(end, t->rcv_nxt)) {
				hv_quick(t);
				if ((t->tf & TF_SACK) != 0) {
					t->dsack.start = seg->seq;
					t->dsack.end = seg->seq + seg->len;
					t->ndsack = 1;
				}
			}
			t->tf |= TF_ACK_NOW;
		} else {
			challenge(t, now);
			/* Keepalive and window probes ask for an answer each, but two ends that disagree must not answer each other for
			 * ever. */
			if (seg->seq == t->rcv_nxt - 1 && now >= t->probe_ack_at) {
				t->probe_ack_at = now + HV_PROBE_ACK_US;
				t->tf |= TF_ACK_NOW;
			}
		}
		hv_refresh(t);
		return drop(t);
	}

	/* Second, RST: exactly RCV.NXT or a challenge (RFC 5961 3.2). */
	if ((seg->flags & HV_RST) != 0) {
		if (seg->seq == t->rcv_nxt)
			return demote(t, &t->cnt->demote_rst);
		challenge(t, now);
		return drop(t);
	}
	/* Fourth, SYN: a challenge whatever its number (RFC 5961 4.2). */
	if ((seg->flags & HV_SYN) != 0) {
		challenge(t, now);
		return drop(t);
	}
	/* Fifth, ACK (RFC 5961 5.2). The kernel may have sent what we haven't. */
	if ((seg->flags & HV_ACK) == 0)
		return HV_TCP_DROP;
	ack_max = (t->tf & TF_IMPORT) != 0 ? hv_seq_max(t->snd_nxt, t->import_end) : t->snd_nxt;
	if (hv_seq_gt(seg->ack, ack_max) || hv_seq_lt(seg->ack, t->snd_una - t->max_wnd)) {
		t->cnt->bad_ack++;
		challenge(t, now);
		return drop(t);
	}
	/* Sixth and eighth, URG and FIN: theirs is the kernel. A FIN behind a hole too: it takes over the out-of-order octets. */
	if ((seg->flags & HV_URG) != 0)
		return demote(t, &t->cnt->demote_other);
	if ((seg->flags & HV_FIN) != 0)
		return demote(t, &t->cnt->demote_fin);

	/* TS.Recent (RFC 7323 4.3 (2), 5.3 R3) */
	if ((t->tf & TF_TS) != 0 && seg->has_ts && hv_seq_le(seg->seq, t->last_ack) &&
	    ((t->tf & TF_TS_KNOWN) == 0 || hv_seq_ge(seg->tsval, t->ts_recent) || now - t->ts_recent_at >= HV_PAWS_IDLE_US)) {
		t->ts_recent = seg->tsval;
		t->ts_recent_at = now;
		t->tf |= TF_TS_KNOWN;
	}
	ecn_in(t, seg);
	if (now - t->last_rx_us > hv_rto(t))
		t->quick = HV_MAX_QUICKACKS;
	t->last_rx_us = now;
	t->ka_sent = 0;
	act |= hv_ack(t, env, seg, now);
	if (seg->len != 0) {
		uint32_t before = t->rcv_nxt;

		if (t->rx_tail != NULL)
			t->rcv_tsecr = seg->tsecr; /* bulk: see hv_rcv_autotune() */
		act |= hv_rcv_data(t, env, seg, now);
		t->cnt->octets_in += t->rcv_nxt - before;
		if (t->rcv_nxt != before)
			(void)ack_in_order(t, seg->len, seg->flags, now);
	}
	hv_refresh(t);
	if (hv_may_send(t))
		act |= HV_TCP_OUT;
	return act;
}

/* ---- prediction ----
 * predicted() is what RFC 9293 3.10.7.4 comes to for such a segment. usual() and predicted_usual() are the same once more for what
 * conversations consist of, with every condition decided first, so that what is left runs straight on. */
static inline void ts_update(struct hv_tcb *t, const struct hv_seg *seg, uint64_t now)
{
	/* without timestamps both are 0 */
	if (hv_unlikely(seg->tsval != t->ts_recent) && t->last_ack == t->rcv_nxt) {
		t->ts_recent = seg->tsval;
		t->ts_recent_at = now;
	}
}

/* As update_window() in ack.c, and before the rest of the ACK: timers and WRITABLE depend on it. A retransmission may be older than the
 * segment that the window is from. */
static HV_INLINE void window_update(struct hv_tcb *t, const struct hv_seg *seg, uint32_t acked, bool usual)
{
	uint32_t wnd = seg->wnd << t->snd_wscale, edge = seg->ack + wnd;

	if (hv_likely(acked != 0 || hv_seq_gt(seg->seq, t->snd_wl1)) ||
	    (seg->seq == t->snd_wl1 && (hv_seq_gt(edge, t->snd_edge) || wnd == 0))) {
		t->snd_edge = edge;
		t->snd_wl1 = seg->seq;
		if (!usual && hv_unlikely(wnd > t->max_wnd))
			hv_max_wnd(t, wnd);
	}
}

static __attribute__((noinline)) unsigned predicted(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, uint64_t now, uint32_t acked)
{
	uint32_t len = seg->len, flight = hv_flight(t);
	unsigned act = 0;

	t->segs_in++;
	t->cnt->segs_in++;
	t->cnt->predicted++;
	ts_update(t, seg, now);
	if (hv_unlikely(now - t->last_rx_us > HV_RTO_MIN) && now - t->last_rx_us > hv_rto(t))
		t->quick = HV_MAX_QUICKACKS;
	t->last_rx_us = now;

	/* deliver first ... */
	if (len != 0) {
		if (t->rx_tail != NULL)
			t->rcv_tsecr = seg->tsecr;
		act = hv_rcv_inorder(t, env, seg, seg->data, len);
		if (hv_likely((act & HV_TCP_DROP) == 0)) {
			act |= HV_TCP_READABLE;
			t->cnt->octets_in += len;
			act |= ack_in_order(t, len, seg->flags, now);
		}
	} else {
		t->pure_in++;
	}
	/* ... then account */
	if (t->rec_n != 0 || (acked == 0 && (hv_unlikely(t->rtx_kind >= HV_RTX_PERSIST) || (t->tf & (TF_NOSPACE | TF_LOWAT)) != 0))) {
		/* without a new ACK the window alone may matter: to a sender that waits for it, to a writer that waits for room */
		act |= hv_ack(t, env, seg, now);
		hv_refresh(t);
	} else {
		window_update(t, seg, acked, false);
		if (acked != 0) {
			bool watch = hv_space_watch(t), was_writable = !hv_unlikely(watch) || hv_tcp_writable(t);

			hv_rtt_sample(t, (uint32_t)now - t->timed_us, now);
			t->snd_una += acked;
			t->bytes_acked += acked;
			hv_snd_acked(t, env, acked);
			t->backoff = 0;
			t->nrtx = 0;
			if (hv_cwnd_limited(t, flight))
				hv_cc_ack(t, acked, hv_max32((uint32_t)now - t->timed_us, 1), now);
			if (hv_unlikely(watch)) {
				if (t->sndbuf < t->sndbuf_max)
					hv_snd_autotune(t);
				act |= hv_space_event(t, was_writable);
			}
			if (hv_likely(t->snd_una == t->snd_end))
				hv_set_rtx(t, HV_RTX_OFF, HV_NEVER);
			else
				hv_timer_rearm(t, now);
		}
		t->fast_edge = hv_fast_edge(t);
	}
	if (hv_may_send(t))
		act |= HV_TCP_OUT;
	return act;
}

/* Nothing unread, nothing unsent, nothing special to do; one message in flight at most, which the segment acknowledges as a whole, if at
 * all. */
static HV_INLINE bool usual(const struct hv_tcb *t, const struct hv_seg *seg, uint64_t now, uint32_t len, uint32_t acked)
{
	const uint32_t special = TF_FAST_STOP | TF_ACK_NOW | TF_NOSPACE | TF_LOWAT | TF_CWND_LIM;

	if (((t->tf & special) | t->rec_n) != 0 || now - t->last_rx_us > HV_RTO_MIN || seg->wnd << t->snd_wscale > t->max_wnd)
		return false;
	if (len != 0 && (t->rx_charge != 0 || seg->buf == NULL || len > t->rcv_mss))
		return false;
	if (acked != 0) {
		const struct hv_chunk *c = t->tx_head;
		uint32_t twice = 2 * (acked + t->mss); /* far from filling cwnd or the send buffer */

		return c->end == acked && c->next == NULL && !c->on_wire && twice <= t->cwnd && twice <= t->sndbuf &&
		       hv_rtt_usual(t, (uint32_t)now - t->timed_us, now);
	}
	return t->snd_end == t->snd_nxt;
}

static HV_INLINE unsigned predicted_usual(
    struct hv_tcb *restrict t, struct hv_env *restrict env, const struct hv_seg *restrict seg, uint64_t now, uint32_t len, uint32_t acked)
{
	struct hv_tcp_counters *restrict cnt = t->cnt;
	uint32_t rcv_nxt = t->rcv_nxt, una = t->snd_una, tf = t->tf;
	unsigned act = 0;

	t->segs_in++;
	cnt->segs_in++;
	cnt->predicted++;
	ts_update(t, seg, now);
	t->last_rx_us = now;
	if (len != 0) {
		struct hv_buf *restrict b = seg->buf;

		b->data = b->base + (seg->data - b->base);
		b->len = len;
		b->seq = rcv_nxt;
		b->next = NULL;
		t->rx_head = b;
		t->rx_charge = b->cap;
		t->rx_tail = b;
		rcv_nxt += len;
		t->rcv_nxt = rcv_nxt;
		t->bytes_in += len;
		cnt->octets_in += len;
		act = HV_TCP_KEPT | HV_TCP_READABLE | ack_owed(t, rcv_nxt, tf, seg->flags, now);
	} else {
		t->pure_in++;
	}
	window_update(t, seg, acked, true);
	if (acked != 0) {
		struct hv_chunk *restrict c = t->tx_head;

		hv_rtt_smooth(t, (uint32_t)now - t->timed_us);
		t->tx_head = NULL;
		c->off = 0;
		c->end = 0;
		c->next = env->free_tx;
		t->tx_tail = NULL;
		env->free_tx = c;
		env->n_free_tx++;
		una += acked;
		t->snd_una = una;
		t->bytes_acked += acked;
		t->backoff = 0;
		t->nrtx = 0;
		hv_set_rtx(t, HV_RTX_OFF, HV_NEVER);
	}
	if (acked != 0 || (tf & TF_NODELAY) != 0 || !hv_seq_gt(t->snd_sml, una))
		t->fast_edge = hv_seq_min(t->snd_edge, una + hv_min32(t->cwnd, t->sndbuf));
	return act;
}

unsigned hv_tcp_input(struct hv_tcb *t, struct hv_env *env, struct hv_seg *seg, uint64_t now)
{
	uint32_t word, acked = seg->ack - t->snd_una, len = seg->len;

	memcpy(&word, &seg->flags, 4);
	if (hv_unlikely((((word & PSH_MASK) ^ t->pred) | (seg->seq ^ t->rcv_nxt)) != 0 || acked > hv_flight(t) ||
			len > t->rcv_edge - t->rcv_nxt || hv_seq_lt(seg->tsval, t->ts_recent) || (acked | len) == 0))
		return input_slow(t, env, seg, now);
	if (acked == 0) {
		if (hv_likely(usual(t, seg, now, len, 0)))
			return predicted_usual(t, env, seg, now, len, 0);
	} else if (len == 0) {
		if (hv_likely(usual(t, seg, now, 0, acked)))
			return predicted_usual(t, env, seg, now, 0, acked);
	} else {
		if (hv_likely(usual(t, seg, now, len, acked)))
			return predicted_usual(t, env, seg, now, len, acked);
	}
	return predicted(t, env, seg, now, acked);
}

/* Octets that the kernel acknowledged after it was frozen. Nobody will send them again, so they go before whatever can be had again. */
unsigned hv_tcp_late(struct hv_tcb *t, struct hv_env *env, uint32_t seq, const uint8_t *data, uint32_t len, uint64_t now)
{
	struct hv_seg seg;
	uint32_t end = seq + len, before = t->rcv_nxt, wnd;
	unsigned act = HV_TCP_READABLE;

	if (len == 0 || hv_seq_le(end, t->rcv_nxt))
		return 0;
	if (hv_seq_gt(seq, t->rcv_nxt))
		return HV_TCP_DROP;
	memset(&seg, 0, sizeof seg);
	data += t->rcv_nxt - seq;
	len = end - t->rcv_nxt;
	wnd = t->rcv_edge - t->rcv_nxt;
	if ((hv_rcv_inorder(t, env, &seg, data, len) & HV_TCP_DROP) != 0) {
		uint32_t n = hv_rcv_late(t, env, data, len);

		if (n != len)
			act = HV_TCP_DROP | (n != 0 ? HV_TCP_READABLE : 0);
	}
	/* The kernel has acknowledged them, with a window as before at least. */
	t->last_ack = hv_seq_max(t->last_ack, hv_seq_min(end, t->rcv_nxt));
	t->rcv_edge = hv_seq_max(t->rcv_edge, t->rcv_nxt + wnd);
	t->cnt->octets_in += t->rcv_nxt - before;
	if (t->ooo_head != NULL)
		hv_rcv_pull(t, env);
	if (t->last_ack != t->rcv_nxt)
		(void)ack_in_order(t, len, 0, now);
	hv_refresh(t);
	return act | (hv_may_send(t) ? HV_TCP_OUT : 0);
}
