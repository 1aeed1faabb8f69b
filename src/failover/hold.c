/*
 * hold.c - how long a VF that came back must be stable before it is trusted: pure arithmetic, the time is an argument.
 */
#include <string.h>

#include "failover/monitor.h"

#define WINDOW_US 600000000u /* losses count for ten minutes */
#define TIMES (sizeof((struct hv_hold *)0)->loss_times / sizeof((struct hv_hold *)0)->loss_times[0])

static uint32_t recent(const struct hv_hold *h, uint64_t now_us)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < TIMES && i < h->nloss; i++)
		if (now_us - h->loss_times[i] < WINDOW_US)
			n++;
	return n;
}

void hv_hold_lost(struct hv_hold *h, uint64_t now_us)
{
	h->loss_times[h->nloss % TIMES] = now_us;
	/* Folded, so that it neither overflows nor looks like fewer entries than there are. */
	h->nloss = h->nloss + 1 < 2 * TIMES ? h->nloss + 1 : TIMES;
	h->last_loss_us = now_us;
	h->first_seen_us = 0;
	h->losses_10min = recent(h, now_us);
}

bool hv_hold_ready(struct hv_hold *h, bool present, uint64_t now_us, uint64_t hold_us, uint64_t max_us, uint64_t *left_us)
{
	uint64_t need = h->nloss != 0 ? hold_us : 0, seen;

	h->losses_10min = recent(h, now_us);
	for (uint32_t i = 1; i < h->losses_10min && need < max_us; i++)
		need *= 2;
	if (need > max_us)
		need = max_us;
	if (!present) {
		h->first_seen_us = 0;
		if (left_us != NULL)
			*left_us = need;
		return false;
	}
	if (h->first_seen_us == 0)
		h->first_seen_us = now_us != 0 ? now_us : 1;
	seen = now_us > h->first_seen_us ? now_us - h->first_seen_us : 0;
	if (left_us != NULL)
		*left_us = seen >= need ? 0 : need - seen;
	return seen >= need;
}
