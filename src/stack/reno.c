/*
 * reno.c - RFC 5681 congestion avoidance with appropriate byte counting (RFC 3465).
 *
 * Pure arithmetic on cwnd; called through cc.h.
 */
#include "stack/cc.h"

void hv_reno_ack(struct hv_tcb *t, uint32_t acked)
{
	/* one MSS per window; est_acc keeps the remainder */
	uint64_t acc = (uint64_t)t->cubic.est_acc + (uint64_t)acked;

	while (acc >= t->cwnd) {
		acc -= t->cwnd;
		t->cwnd += t->mss;
	}
	t->cubic.est_acc = (uint32_t)acc;
}

uint32_t hv_reno_ssthresh(const struct hv_tcb *t)
{
	/* RFC 5681 3.1 (4) halves FlightSize, because cwnd might have grown unused. Here it doesn't, see hv_cwnd_limited(). */
	return t->cwnd / 2;
}
