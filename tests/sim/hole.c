/*
 * hole.c - a path MTU black hole: from some time on what is larger than the path vanishes, and no ICMP says so (RFC 2923, RFC 8899).
 *
 * The network is good otherwise. So the octet at SND.UNA gets through as soon as it is cut small enough, and that has to happen within so
 * many timeouts as src/stack/pmtu.c means to take: two in vain, which chance could explain, then one for each size that is tried. A move
 * forgets what was found out: an image doesn't carry it.
 */
#include "sim.h"

#include "stack/tcb.h"

#define IN_VAIN 2u
#define SIZES 2u /* Ethernet's behind jumbo frames, and what everybody carries */

void hole_setup(struct world *w)
{
	uint32_t which = prng_in(&w->rng, 1, 3), room = w->side[0].img.pmtu, least = w->v6 ? 1280 : 1260; /* no path is suspected of less */

	w->n_dark = 0;
	for (uint32_t i = 0; i < 2; i++) {
		struct link_conf *c = &w->link[i].c;
		*c = (struct link_conf){ .rate_bps = c->rate_bps < 20000000 ? 20000000 : c->rate_bps, .queue = c->queue, .delay_us = c->delay_us,
			.jitter_us = c->jitter_us, .dup = c->dup, .reorder = c->reorder, .ce = c->ce };
		if ((which >> i & 1) == 0)
			continue;
		c->mtu = prng_in(&w->rng, 0, 2) == 0 || room <= least ? least : prng_in(&w->rng, least, room);
		c->mtu_at = w->now + (prng_in(&w->rng, 0, 1) != 0 ? 0 : prng_log(&w->rng, 0, 3000000));
		c->silent = true;
	}
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Does it carry the octet that everything waits for? */
static bool oldest(const struct world *w, uint32_t from, const uint8_t *frame, uint32_t len)
{
	uint32_t l3 = frame[12] == 0x81 ? 18 : 14, l4 = l3 + (w->v6 ? 40 : 20), doff = (uint32_t)(frame[l4 + 12] >> 4) * 4;
	const struct side *s = &w->side[from];

	return s->h.live && s->h.tcb->snd_una - get32(frame + l4 + 4) < len - l4 - doff;
}

void hole_swallows(struct world *w, uint32_t from, const uint8_t *frame)
{
	struct hole *o = &w->side[from].hole;
	const struct hv_tcb *t = w->side[from].h.tcb;

	if ((o->waits && o->fast == w->side[from].h.cnt.fast_rexmit) || !oldest(w, from, frame, 65535))
		return;
	/* A fast retransmission, because something smaller behind it has got through, has timeouts of its own. */
	o->fast = w->side[from].h.cnt.fast_rexmit;
	o->waits = true;
	o->since = w->now;
	/* The first timeout comes an RTO from now, or after a tail loss probe, and each takes twice as long as the one before. A later trial of
	 * full-sized segments is over after the first in vain. */
	o->may = hv_rto_backed(t) * (1u << (t->bh_prev != 0 ? 2 : IN_VAIN + SIZES)) + (t->srtt8 >> 3);
}

void hole_passes(struct world *w, uint32_t from, const uint8_t *frame, uint32_t len)
{
	if (oldest(w, from, frame, len))
		w->side[from].hole.waits = false;
}

void hole_forget(struct side *s)
{
	s->hole.waits = false;
}

void hole_judge(struct world *w)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct hole *o = &w->side[i].hole;
		const struct hv_tcb *t = w->side[i].h.tcb;
		if (o->waits && hv_seq_le(t->snd_edge, t->snd_una)) /* tries while the window is shut prove nothing */
			o->waits = false;
		if (o->waits && w->now - o->since > o->may)
			world_fail(w, "%u: nothing at SND.UNA has got through a black hole for %lu us, it may take %lu (MTU %u, MSS %u)", i,
			    (unsigned long)(w->now - o->since), (unsigned long)o->may, w->link[i].c.mtu, t->mss);
	}
}
