/*
 * hystart.c - HyStart++ (RFC 9406): the first slow start of a connection ends when the round trips grow, before the bottleneck's queue
 * overflows.
 *
 * Without it cwnd ends at up to twice what path and queue can hold, and hundreds of segments are lost at once. Owns struct hv_hystart;
 * called through cc.h while ssthresh is infinite: any loss or mark sets it, and that is the end of this, too. Ring lock.
 */
#include "stack/cc.h"

/* Names and values of RFC 9406 4.3 */
#define MIN_RTT_THRESH 4000u
#define MAX_RTT_THRESH 16000u
#define MIN_RTT_DIVISOR 8u
#define N_RTT_SAMPLE 8u
#define CSS_GROWTH_DIVISOR 4u
#define CSS_ROUNDS 5u

static void next_round(struct hv_tcb *t)
{
	struct hv_hystart *h = &t->hystart;

	h->started = true;
	h->round_end = t->snd_nxt;
	h->last_min = h->cur_min;
	h->cur_min = 0;
	h->samples = 0;
}

void hv_hystart_ack(struct hv_tcb *t, uint32_t acked, uint32_t rtt)
{
	struct hv_hystart *h = &t->hystart;
	bool css = h->css_rounds != 0;

	if (!h->started)
		next_round(t);
	if (rtt != 0) {
		if (h->cur_min == 0 || rtt < h->cur_min)
			h->cur_min = rtt;
		if (h->samples < UINT16_MAX)
			h->samples++;
	}
	t->cwnd = hv_min32(t->cwnd + (css ? acked / CSS_GROWTH_DIVISOR : acked), HV_CWND_MAX);
	if (h->samples >= N_RTT_SAMPLE) {
		uint32_t thresh = hv_min32(hv_max32(h->last_min / MIN_RTT_DIVISOR, MIN_RTT_THRESH), MAX_RTT_THRESH);

		if (css && h->cur_min < h->css_base) {
			h->css_rounds = 0; /* it was jitter */
		} else if (!css && h->last_min != 0 && h->cur_min >= h->last_min + thresh) {
			h->css_base = h->cur_min;
			h->css_rounds = CSS_ROUNDS;
		}
	}
	/* What was in flight at the start of the round is acknowledged, perhaps long ago: nobody asks while cwnd isn't what limits the
	 * sender. */
	if (h->round_end - t->snd_una - 1 >= hv_flight(t)) {
		if (h->css_rounds != 0 && css && --h->css_rounds == 0)
			t->ssthresh = t->cwnd;
		next_round(t);
	}
}
