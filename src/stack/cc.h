/*
 * cc.h - congestion control: the hooks of cubic.c, reno.c and hystart.c, chosen by TF_RENO (a branch, not an indirect call).
 *
 * cwnd and ssthresh are in octets. Private to src/stack; ring lock.
 */
#ifndef HV_CC_H
#define HV_CC_H

#include "stack/tcb.h"

void hv_cubic_ack(struct hv_tcb *t, uint32_t acked, uint64_t now);
uint32_t hv_cubic_ssthresh(struct hv_tcb *t);
void hv_cubic_rto(struct hv_tcb *t);
void hv_hystart_ack(struct hv_tcb *t, uint32_t acked, uint32_t rtt);
void hv_reno_ack(struct hv_tcb *t, uint32_t acked);
uint32_t hv_reno_ssthresh(const struct hv_tcb *t);

static inline uint32_t hv_iw(const struct hv_tcb *t)
{
	return HV_IW_SEGS * t->mss; /* RFC 6928; as in Linux ten segments of jumbo frames too, for which it allows two */
}
/* New data was acknowledged outside of fast recovery, and cwnd was what limited us. Slow start is common to both (RFC 5681 3.1); the first
 * one of a connection ends before the bottleneck's queue overflows, if it can be seen coming. rtt: this ACK's sample in us, 0 = none. */
static inline void hv_cc_ack(struct hv_tcb *t, uint32_t acked, uint32_t rtt, uint64_t now)
{
	if (t->cwnd < t->ssthresh) {
		uint32_t n = hv_min32(acked, t->ssthresh - t->cwnd);

		if (t->ssthresh >= HV_SSTHRESH_INF) {
			hv_hystart_ack(t, acked, rtt);
			return;
		}

		t->cwnd += n;
		acked -= n;
		if (acked == 0)
			return;
	}
	if ((t->tf & TF_RENO) != 0)
		hv_reno_ack(t, acked);
	else
		hv_cubic_ack(t, acked, now);
	if (t->cwnd > HV_CWND_MAX)
		t->cwnd = HV_CWND_MAX;
}
/* What ssthresh shall be after a loss or ECN mark. */
static inline uint32_t hv_cc_ssthresh(struct hv_tcb *t)
{
	uint32_t s = (t->tf & TF_RENO) != 0 ? hv_reno_ssthresh(t) : hv_cubic_ssthresh(t);

	return hv_max32(s, 2u * t->mss);
}

#endif
