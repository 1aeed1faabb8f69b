/*
 * link.c - the network: rate, queue, delay, jitter, loss (independent and in bursts), reordering, duplication, corruption, ACK thinning,
 * blackouts, ECN marks, and a path that becomes narrower, with ICMP or without.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static bool dark(const struct world *w, uint64_t t)
{
	for (uint32_t i = 0; i < w->n_dark; i++)
		if (t >= w->dark_from[i] && t < w->dark_to[i])
			return true;
	return false;
}

static bool capable(const uint8_t *frame)
{
	const uint8_t *ip = frame + (frame[12] == 0x81 ? 18 : 14);

	return (ip[0] >> 4 == 4 ? ip[1] & 3 : ip[1] >> 4 & 3) != 0;
}

/* A segment without data, SYN, FIN or SACK blocks, the kind that middleboxes thin out. */
static bool pure_ack(const struct world *w, const uint8_t *frame, uint32_t len)
{
	uint32_t l3 = frame[12] == 0x81 ? 18 : 14, l4 = l3 + (w->v6 ? 40 : 20), doff = (uint32_t)(frame[l4 + 12] >> 4) * 4;

	return l4 + doff == len && doff <= 32 && (frame[l4 + 13] & SEG_FIN) == 0;
}

static void mark_ce(uint8_t *frame)
{
	uint32_t l3 = frame[12] == 0x81 ? 18 : 14;
	uint8_t *ip = frame + l3;

	if (ip[0] >> 4 == 4) {
		uint16_t sum;
		ip[1] |= 3;
		ip[10] = ip[11] = 0;
		sum = host_ref_csum(ip, 20, 0);
		ip[10] = (uint8_t)(sum >> 8);
		ip[11] = (uint8_t)sum;
	} else {
		ip[1] |= 0x30;
	}
}

/* ICMP "too big" goes to the sender's kernel, which tells the stack. */
static void too_big(struct world *w, uint32_t from, uint32_t mtu)
{
	struct side *s = &w->side[from];

	if (s->icmp_mtu != 0)
		return;
	s->icmp_mtu = mtu;
	world_push(w, w->now + w->link[from].c.delay_us, EV_PMTU, from);
}

static void deliver(struct world *w, uint32_t from, const uint8_t *frame, uint32_t len, uint64_t at)
{
	struct link_state *l = &w->link[from];
	bool damage = prng_ppm(&w->rng, l->c.corrupt);

	if (l->c.jitter_us != 0)
		at += prng_in(&w->rng, 0, l->c.jitter_us);
	if (prng_ppm(&w->rng, l->c.reorder))
		at += prng_in(&w->rng, 1, l->c.delay_us / 2 + 2000);
	if (damage) {
		/* One bit, under the protection of a checksum: IPv6 headers have none of their own. */
		uint32_t l3 = frame[12] == 0x81 ? 18 : 14, lo = w->v6 ? l3 + 40 : l3, at_octet = prng_in(&w->rng, lo, len - 1);
		uint8_t *copy = malloc(len);
		if (copy == NULL)
			abort();
		memcpy(copy, frame, len);
		copy[at_octet] ^= (uint8_t)(1u << prng_in(&w->rng, 0, 7));
		world_push_frame(w, at, 1 - from, copy, len, true);
		free(copy);
		return;
	}
	world_push_frame(w, at, 1 - from, frame, len, false);
}

void link_send(struct world *w, uint32_t from, const uint8_t *frame, uint32_t len)
{
	struct link_state *l = &w->link[from];
	uint64_t start = l->free_at > w->now ? l->free_at : w->now, backlog = start - w->now;

	if (w->pcap != NULL)
		pcap_write(w->pcap, w->now, frame, len);
	if (backlog * l->c.rate_bps / 8000000u > l->c.queue) {
		l->lost++;
		return; /* queue full */
	}
	l->free_at = start + (uint64_t)(len + 24) * 8000000u / l->c.rate_bps;
	if (l->bad && w->now - l->last_at > 20000) /* bursts of loss end with time too,
	    or a lone retransmission meets the same one for ever */
		l->bad = false;
	bool dense = w->now - l->last_at < 10000; /* thinning needs a row of ACKs; a lone probe gets through */
	l->last_at = w->now;
	if (l->bad ? prng_ppm(&w->rng, l->c.ge_good) : prng_ppm(&w->rng, l->c.ge_bad))
		l->bad = !l->bad;
	if (dark(w, w->now) || prng_ppm(&w->rng, l->c.loss) || (l->bad && prng_ppm(&w->rng, l->c.ge_loss)) ||
	    (dense && l->c.thin != 0 && pure_ack(w, frame, len) && prng_ppm(&w->rng, l->c.thin))) {
		l->lost++;
		return;
	}
	if (l->c.mtu != 0 && w->now >= l->c.mtu_at && len - (frame[12] == 0x81 ? 18u : 14u) > l->c.mtu) {
		l->lost++;
		if (l->c.silent)
			hole_swallows(w, from, frame);
		else
			too_big(w, from, l->c.mtu);
		return;
	}
	if (l->c.silent)
		hole_passes(w, from, frame, len);
	if (capable(frame) && prng_ppm(&w->rng, l->c.ce)) {
		uint8_t *copy = malloc(len);
		if (copy == NULL)
			abort();
		memcpy(copy, frame, len);
		mark_ce(copy);
		deliver(w, from, copy, len, l->free_at + l->c.delay_us);
		free(copy);
		return;
	}
	deliver(w, from, frame, len, l->free_at + l->c.delay_us);
	if (prng_ppm(&w->rng, l->c.dup))
		deliver(w, from, frame, len, l->free_at + l->c.delay_us + prng_in(&w->rng, 0, 3000));
}
