/*
 * rtt.c - round-trip time and retransmission timeout (RFC 6298), in microseconds.
 *
 * Owns srtt8, rttvar4, min_rtt. Samples come from transmit records (never from retransmitted ones, Karn): a millisecond timestamp says
 * nothing about a network of 30 us. Only when all that was acknowledged had been retransmitted a timestamp is better than nothing: ts_rtt()
 * in ack.c, which calls this under the ring's lock, as input.c does.
 */
#include "stack/tcb.h"

/* Minimum of the current and the previous half window, so that a route change is noticed. */
void hv_rtt_min(struct hv_tcb *t, uint32_t us, uint64_t now)
{
	us = hv_min32(hv_max32(us, 1), HV_RTO_MAX / 2);
	if (now - t->min_rtt_at > HV_MIN_RTT_WINDOW_US / 2) {
		t->min_rtt_prev = t->min_rtt;
		t->min_rtt = us;
		t->min_rtt_at = now;
	} else if (us < t->min_rtt || t->min_rtt == 0) {
		t->min_rtt = us;
	}
}

void hv_rtt_sample(struct hv_tcb *t, uint32_t us, uint64_t now)
{
	us = hv_min32(hv_max32(us, 1), HV_RTO_MAX);
	if (t->srtt8 == 0) {
		t->srtt8 = us << 3;
		t->rttvar4 = us << 1;
	} else {
		hv_rtt_smooth(t, us);
	}
	if (us < t->min_rtt || t->min_rtt == 0 || now - t->min_rtt_at > HV_MIN_RTT_WINDOW_US / 2)
		hv_rtt_min(t, us, now);
}

uint64_t hv_rto_backed(const struct hv_tcb *t)
{
	uint64_t r = (uint64_t)hv_rto(t) << hv_min32(t->backoff, 16);

	return hv_min64(r, HV_RTO_MAX);
}
