/*
 * timer.c - deadlines of one connection: retransmission, probes, delayed ACK, keepalive.
 *
 * One retransmission timer (rtx_at with rtx_kind), one for the delayed ACK, one for keepalive; the engine's wheel asks for the earliest
 * and may come early or late. Nothing here is touched by the fast path but rtx_at and ack_at. Ring lock.
 */
#include "stack/cc.h"

/* RFC 8985 7.2 */
static uint32_t pto(const struct hv_tcb *t)
{
	return hv_flight(t) <= t->mss ? hv_pto_single(t) : (t->srtt8 >> 2) + 2000;
}

static bool tlp_possible(const struct hv_tcb *t)
{
	return (t->ca == HV_CA_OPEN || t->ca == HV_CA_CWR) && (t->tf & (TF_SACK | TF_TLP_OUT | TF_IMPORT)) == TF_SACK && t->srtt8 != 0 &&
	       t->sacked_out == 0 && t->nrtx == 0;
}

static uint32_t head_xmit(const struct hv_tcb *t)
{
	return t->rec_n != 0 ? hv_rec(t, 0)->xmit_us : t->timed_us;
}

static uint64_t rto_at(const struct hv_tcb *t, uint64_t now)
{
	uint64_t at = now + hv_rto_backed(t);

	/* so that TCP_USER_TIMEOUT is noticed in time */
	if (hv_unlikely(t->user_timeout_ms != 0) && t->nrtx != 0)
		at = hv_min64(at, t->stall_us + (uint64_t)t->user_timeout_ms * 1000u > now
				      ? t->stall_us + (uint64_t)t->user_timeout_ms * 1000u
				      : now + 1);
	return at;
}

/* Not later than the RTO of the oldest segment would come. */
static inline void arm_probe(struct hv_tcb *t, uint64_t now, bool restart)
{
	int32_t p = (int32_t)hv_min32(pto(t), HV_RTO_MAX), left = (int32_t)hv_rto(t);

	if (!restart) {
		left = hv_seq_diff(head_xmit(t) + hv_rto(t), (uint32_t)now);
		if (left <= 0 && t->rtx_kind == HV_RTX_TLP)
			return;
	}
	if (p > left && left > 0) /* else the oldest has outlived an RTO that was undone, and a probe needn't go at once */
		p = left;
	hv_set_rtx(t, HV_RTX_TLP, now + (uint32_t)p);
}

/* Something was acknowledged, or an event is over: what is to be waited for now? */
void hv_timer_rearm(struct hv_tcb *t, uint64_t now)
{
	if (t->snd_nxt == t->snd_una) {
		if (t->snd_end == t->snd_nxt) {
			hv_set_rtx(t, HV_RTX_OFF, HV_NEVER);
		} else if (hv_seq_diff(t->snd_edge, t->snd_nxt) < (int32_t)hv_min32(t->mss, t->snd_end - t->snd_nxt)) {
			if (t->rtx_kind != HV_RTX_PERSIST) {
				t->stall_us = 0;
				hv_set_rtx(t, HV_RTX_PERSIST, now + hv_rto_backed(t));
			}
		} else if (t->rtx_kind != HV_RTX_PUSH) {
			t->backoff = 0; /* the window has opened */
			hv_set_rtx(t, HV_RTX_PUSH, now + HV_CORK_MAX);
		}
		return;
	}
	if (tlp_possible(t))
		arm_probe(t, now, true); /* RFC 6298 5.3 */
	else
		hv_set_rtx(t, HV_RTX_RTO, rto_at(t, now));
}

/* Something was sent. RFC 6298 5.1: the RTO is started, not restarted; a probe timeout follows the last new data (RFC 8985 7.2). */
void hv_timer_sent(struct hv_tcb *t, uint64_t now)
{
	if (hv_likely(t->rtx_kind == HV_RTX_OFF) && tlp_possible(t)) {
		hv_set_rtx(t, HV_RTX_TLP, now + hv_min32(pto(t), hv_rto(t))); /* nothing older is in flight */
		return;
	}
	switch (t->rtx_kind) {
	case HV_RTX_PERSIST:
		t->backoff = 0; /* it was that of the probes */
		break;
	case HV_RTX_OFF:
	case HV_RTX_PUSH:
		break;
	case HV_RTX_TLP:
		if (tlp_possible(t)) {
			arm_probe(t, now, false);
			return;
		}
		break;
	case HV_RTX_RTO:
		if (t->rtx_at > now && !(tlp_possible(t) && hv_flight(t) > t->mss))
			return;
		break;
	default: /* REO and IMPORT run first and rearm */
		return;
	}
	if (tlp_possible(t))
		arm_probe(t, now, false);
	else
		hv_set_rtx(t, HV_RTX_RTO, rto_at(t, now));
}

uint64_t hv_tcp_deadline(const struct hv_tcb *t)
{
	return hv_min64(hv_min64(t->rtx_at, t->ack_at), t->ka_at);
}

static unsigned timed_out(struct hv_tcb *t)
{
	t->err = ETIMEDOUT;
	t->tf |= TF_DEAD;
	t->rtx_at = t->ack_at = t->ka_at = HV_NEVER;
	t->rtx_kind = HV_RTX_OFF;
	return HV_TCP_TIMEDOUT;
}

/* R2 (RFC 9293 3.8.3) or the user timeout, counted from the first transmission of the oldest octet. */
static bool give_up(const struct hv_tcb *t, unsigned tries, uint64_t now)
{
	if (t->user_timeout_ms != 0)
		return now - t->stall_us >= (uint64_t)t->user_timeout_ms * 1000u;
	/* Tries alone say nothing when a window that opens and shuts ends the backing off again and again: R2 is 100 s at least. */
	return tries >= HV_RETRIES2 && now - t->stall_us >= HV_R2_MIN;
}

static unsigned on_rto(struct hv_tcb *t, uint64_t now)
{
	bool shut;

	if (t->nrtx == 0) {
		uint32_t age = (uint32_t)now - head_xmit(t);

		t->stall_us = now - age;
	}
	/* A peer that has closed its window but goes on acknowledging is alive (RFC 9293 3.8.6.1), and these tries don't count. */
	shut = t->user_timeout_ms == 0 && hv_seq_le(t->snd_edge, t->snd_una) && now - t->last_rx_us <= HV_RTO_MAX;
	if (!shut && give_up(t, t->nrtx, now))
		return timed_out(t);
	t->cnt->rto++;
	if (t->nrtx != 0)
		hv_black_hole(t, now);
	hv_enter_loss(t, now);
	if (t->nrtx < 255 && (!shut || t->nrtx == 0))
		t->nrtx++;
	if (t->backoff < 16)
		t->backoff++;
	t->tf |= TF_HEAD;
	hv_set_rtx(t, HV_RTX_RTO, rto_at(t, now));
	return HV_TCP_OUT;
}

static unsigned on_persist(struct hv_tcb *t, uint64_t now)
{
	uint64_t at;

	if (t->snd_nxt != t->snd_una || t->snd_end == t->snd_nxt) {
		hv_timer_rearm(t, now);
		return 0;
	}
	if (hv_seq_gt(t->snd_edge, t->snd_nxt)) {
		/* The override timeout of SWS avoidance (RFC 9293 3.8.6.2.1): real data goes out, with a timer of its own. */
		t->tf |= TF_PUSH;
		t->probes = 0;
		hv_set_rtx(t, HV_RTX_PERSIST, now + hv_rto_backed(t));
		return HV_TCP_OUT;
	}
	/* A peer that answers may keep its window shut for ever (RFC 9293 3.8.6.1), unless the user has set a limit: that counts from the
	 * first probe on, answers or not. Else whoever answers could pin our send queue. */
	if (t->stall_us == 0)
		t->stall_us = now;
	else if (give_up(t, t->probes, now))
		return timed_out(t);
	t->tf |= TF_PROBE;
	t->cnt->zero_window_probes++;
	if (t->probes < 255)
		t->probes++;
	if (t->backoff < 16)
		t->backoff++;
	at = now + hv_rto_backed(t);
	if (t->user_timeout_ms != 0)
		at = hv_min64(at, t->stall_us + (uint64_t)t->user_timeout_ms * 1000u);
	hv_set_rtx(t, HV_RTX_PERSIST, at > now ? at : now + 1);
	return HV_TCP_OUT;
}

static unsigned on_reo(struct hv_tcb *t, uint64_t now)
{
	struct hv_ackinfo ai;
	uint32_t reo;

	memset(&ai, 0, sizeof ai);
	reo = hv_rack_detect(t, &ai, now);
	if (ai.newly_lost != 0) {
		if (t->ca < HV_CA_RECOVERY)
			hv_enter_recovery(t, now);
		if (t->ca == HV_CA_RECOVERY)
			hv_prr(t, &ai);
	}
	if (reo != 0)
		hv_set_rtx(t, HV_RTX_REO, now + reo);
	else
		hv_timer_rearm(t, now);
	return HV_TCP_OUT;
}

static unsigned on_rtx(struct hv_tcb *t, uint64_t now)
{
	unsigned kind = t->rtx_kind;

	hv_set_rtx(t, HV_RTX_OFF, HV_NEVER);
	switch (kind) {
	case HV_RTX_RTO:
		if (t->snd_nxt == t->snd_una) {
			hv_timer_rearm(t, now);
			return 0;
		}
		return on_rto(t, now);
	case HV_RTX_TLP:
		if (t->snd_nxt == t->snd_una) {
			hv_timer_rearm(t, now);
			return 0;
		}
		t->tf |= TF_TLP;
		t->cnt->tlp++;
		hv_set_rtx(t, HV_RTX_RTO, rto_at(t, now));
		return HV_TCP_OUT;
	case HV_RTX_IMPORT:
		/* What the kernel had in flight may be lost in the move; that says nothing about congestion. Resend the oldest segment; its
		 * ACK lets RACK find the rest. */
		if (t->snd_nxt == t->snd_una) {
			hv_timer_rearm(t, now);
			return 0;
		}
		t->tf |= TF_HEAD;
		hv_set_rtx(t, HV_RTX_RTO, rto_at(t, now));
		return HV_TCP_OUT;
	case HV_RTX_REO:
		return on_reo(t, now);
	case HV_RTX_PERSIST:
		t->rtx_kind = HV_RTX_PERSIST;
		return on_persist(t, now);
	case HV_RTX_PUSH:
		t->tf |= TF_PUSH;
		return HV_TCP_OUT;
	default:
		return 0;
	}
}

/* RFC 9293 3.8.4 */
static unsigned on_keepalive(struct hv_tcb *t, uint64_t now)
{
	uint64_t idle = now > t->last_rx_us ? now - t->last_rx_us : 0, need = (uint64_t)t->ka_idle_s * 1000000u;

	if ((t->tf & TF_KEEPALIVE) == 0) {
		t->ka_at = HV_NEVER;
		return 0;
	}
	if (t->snd_end != t->snd_una || idle < need) { /* not idle: retransmission or the peer itself shows whether it lives */
		t->ka_sent = 0;
		t->ka_at = t->snd_end != t->snd_una ? now + need : t->last_rx_us + need;
		return 0;
	}
	if ((t->user_timeout_ms != 0 && idle >= (uint64_t)t->user_timeout_ms * 1000u && t->ka_sent != 0) ||
	    (t->user_timeout_ms == 0 && t->ka_sent >= t->ka_cnt))
		return timed_out(t);
	t->ka_sent++;
	t->tf |= TF_PROBE;
	t->ka_at = now + (uint64_t)t->ka_intvl_s * 1000000u;
	return HV_TCP_OUT;
}

unsigned hv_tcp_timeout(struct hv_tcb *t, struct hv_env *env, uint64_t now)
{
	unsigned act = 0;

	(void)env;
	if ((t->tf & TF_DEAD) != 0)
		return 0;
	if (t->ack_at <= now) {
		t->ack_at = HV_NEVER;
		if ((t->tf & TF_ACK_PEND) != 0) {
			t->cnt->delayed_acks++;
			t->tf = (t->tf | TF_ACK_NOW) & ~TF_PINGPONG; /* no reply came to ride on */
			act |= HV_TCP_OUT;
		}
	}
	if (t->rtx_at <= now)
		act |= on_rtx(t, now);
	if (t->ka_at <= now && (act & HV_TCP_TIMEDOUT) == 0)
		act |= on_keepalive(t, now);
	hv_refresh(t);
	return act;
}

int hv_tcp_error(const struct hv_tcb *t)
{
	return t->err;
}

unsigned hv_tcp_ack_flush(struct hv_tcb *t, uint64_t now)
{
	if ((t->tf & TF_ACK_PEND) == 0)
		return 0;
	if ((t->quick != 0 && (t->tf & TF_PINGPONG) == 0) || t->ack_at <= now || (t->tf & TF_ACK_NOW) != 0) {
		t->tf |= TF_ACK_NOW;
		return HV_TCP_OUT;
	}
	return 0;
}
