/*
 * relief.c - readers who are behind must not starve the ring.
 *
 * Octets that nobody has read yet stay in the buffers that the device wrote them to. Each connection is bounded by its SO_RCVBUF, but
 * hundreds of sleeping readers together would hold every buffer, and then nobody receives anything any more. So when they hold three
 * quarters, those that hold most go back to the kernel with what they haven't read, until half is free: the kernel's own accounting
 * (tcp_mem, rmem) bounds it there. Lock held.
 */
#include "engine/internal.h"

#define PER_TURN 32u /* 10-100 us each: the lock is let go in between */

static uint32_t held(const struct hv_sock *s)
{
	return s->type == SOCK_STREAM ? hv_tcp_rx_held(s->p->tcb) : s->p->udp.head != NULL ? s->p->udp.slots * s->p->udp.head->cap : 0;
}

static uint32_t held_by_readers(void)
{
	uint32_t here = G.env.n_free_rx + hv_vf_rx_posted(G.vf);

	return here < G.env.rx_total ? G.env.rx_total - here : 0;
}

bool hv_relief_wanted(void)
{
	return held_by_readers() > G.env.rx_total - G.env.rx_total / 4;
}

/* A turn of it. True: more is to be done. */
bool hv_relief(void)
{
	uint32_t most = 0, moved = 0;

	if (G.vf == NULL || !hv_ring_ready() || held_by_readers() <= G.env.rx_total / 2)
		return false;
	for (const struct hv_sock *s = G.vf_socks; s != NULL; s = s->p->v_next)
		if (!s->p->demote_pending && held(s) > most)
			most = held(s);
	if (most == 0)
		return false;
	for (struct hv_sock *s = G.vf_socks, *next; s != NULL && moved < PER_TURN && held_by_readers() > G.env.rx_total / 2; s = next) {
		next = s->p->v_next;
		if (s->p->demote_pending || held(s) < most - most / 4)
			continue;
		s->p->slow = true;
		hv_demote_locked(s, HV_WHY_SLOW_READER, false);
		moved++;
		if (next != NULL && !hv_sock_vf(next)) /* what the ring still held has sent it back, too */
			break;
	}
	hv_vf_refill(G.vf, &G.env);
	return true;
}
