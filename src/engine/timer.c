/*
 * timer.c - when each promoted socket next wants attention: a binary heap of lazy deadlines.
 *
 * A socket's key is never later than its true deadline; data calls only move it when the deadline gets earlier. A due entry is re-evaluated
 * and put back, so the hot path costs one compare. Lock held throughout.
 */
#include "engine/internal.h"

static void swap(uint32_t a, uint32_t b)
{
	struct hv_sock *t = G.heap[a];
	G.heap[a] = G.heap[b];
	G.heap[b] = t;
	G.heap[a]->p->heap_idx = a;
	G.heap[b]->p->heap_idx = b;
}

static void up(uint32_t i)
{
	while (i > 1 && G.heap[i]->p->heap_key < G.heap[i / 2]->p->heap_key) {
		swap(i, i / 2);
		i /= 2;
	}
}

static void down(uint32_t i)
{
	for (;;) {
		uint32_t c = 2 * i, m = i;
		if (c <= G.heap_n && G.heap[c]->p->heap_key < G.heap[m]->p->heap_key)
			m = c;
		if (c + 1 <= G.heap_n && G.heap[c + 1]->p->heap_key < G.heap[m]->p->heap_key)
			m = c + 1;
		if (m == i)
			return;
		swap(i, m);
		i = m;
	}
}

/* Makes room for every VF-tier socket before it is promoted, so that arming a timer can't fail. */
bool hv_timer_reserve(void)
{
	uint32_t n = G.vf_count + atomic_load(&G.vf_users) + 1;

	if (n + 1 < G.heap_cap)
		return true;
	uint32_t cap = G.heap_cap != 0 ? G.heap_cap * 2 : 1024;
	struct hv_sock **h = hv_map(cap * sizeof *h);
	if (h == NULL)
		return false;
	if (G.heap != NULL) {
		memcpy(h, G.heap, (G.heap_n + 1) * sizeof *h);
		hv_unmap(G.heap, G.heap_cap * sizeof *h);
	}
	G.heap = h;
	G.heap_cap = cap;
	return true;
}

void hv_timer_update(struct hv_sock *s, uint64_t key)
{
	struct hv_sock_priv *p = s->p;

	if (p->heap_idx == 0) {
		if (G.heap_n + 1 >= G.heap_cap) /* not on the VF yet, or not any more */
			return;
		p->heap_key = key;
		p->heap_idx = ++G.heap_n;
		G.heap[p->heap_idx] = s;
		up(p->heap_idx);
	} else if (key < p->heap_key) {
		p->heap_key = key;
		up(p->heap_idx);
	} else {
		return;
	}
	if (key < atomic_load_explicit(&G.svc_wake_us, memory_order_relaxed) && p->heap_idx == 1) {
		atomic_store_explicit(&G.svc_wake_us, key, memory_order_relaxed);
		hv_service_kick();
	}
}

void hv_timer_del(struct hv_sock *s)
{
	uint32_t i = s->p->heap_idx;

	if (i == 0)
		return;
	s->p->heap_idx = 0;
	if (i == G.heap_n) {
		G.heap_n--;
		return;
	}
	G.heap[i] = G.heap[G.heap_n--];
	G.heap[i]->p->heap_idx = i;
	up(i);
	down(i);
}

uint64_t hv_sock_deadline(const struct hv_sock *s)
{
	const struct hv_sock_priv *p = s->p;
	uint64_t d = p->active_us + (uint64_t)hv_conf.idle_ms * 1000u;

	if (p->tcb != NULL) {
		uint64_t t = hv_tcp_deadline(p->tcb);
		if (t < d)
			d = t;
	} else if (p->alone_us != 0 && p->alone_us < d) {
		d = p->alone_us;
	}
	if (p->settle_us != 0 && p->settle_us < d)
		d = p->settle_us;
	if (p->demote_pending)
		d = p->next_retry_us;
	return d;
}

static void settle(struct hv_sock *s, uint64_t now_us)
{
	struct hv_sock_priv *p = s->p;
	bool left = false;
	int err = 0;
	struct hv_tcp_image img;

	unsigned acts = hv_late_collect(s, now_us, &left, &err);
	if (acts != 0)
		hv_sock_apply(s, acts, now_us);
	if (!hv_sock_vf(s))
		return;
	if (p->late != NULL && !left) { /* the reader is slow: the stack has no room for all of them yet */
		p->settle_us = now_us + 25000;
		return;
	}
	if (left) {
		hv_demote_locked(s, HV_WHY_PROTOCOL, false);
		return;
	}
	hv_tcp_export(p->tcb, &img, now_us);
	int r = err < 0 ? err : hv_settle(&p->park, img.snd_una, img.rcv_nxt);
	if (r < 0) {
		hv_log(HV_LOG_DEBUG, "settle: %s: error %d; demoting", p->park.step != NULL ? p->park.step : "?", -r);
		hv_demote_locked(s, HV_WHY_NOT_NOW, false);
		return;
	}
	p->settle_us = r == 0 ? 0 : now_us + 25000;
}

void hv_timer_run(uint64_t now_us)
{
	/* bounded: each socket is looked at once per call, a re-armed one is later than now */
	for (uint32_t budget = G.heap_n; budget != 0 && G.heap_n != 0 && G.heap[1]->p->heap_key <= now_us; budget--) {
		struct hv_sock *s = G.heap[1];
		struct hv_sock_priv *p = s->p;

		if (p->demote_pending) {
			if (p->next_retry_us <= now_us && hv_demote_locked(s, p->pend_why, p->pend_lost) == 0)
				continue;
			if (s->type == SOCK_STREAM && p->orphan_us != 0 && p->orphan_us <= now_us) {
				hv_log(HV_LOG_WARN, "a connection that the program has closed could not be given back to the kernel for two minutes (%s: error %d); dropped",
				    p->park.step != NULL ? p->park.step : "?", -p->park.err);
				HV_COUNT(orphans_lost);
				hv_sock_abandon_locked(s);
				continue;
			}
		} else {
			if (p->settle_us != 0 && p->settle_us <= now_us) {
				settle(s, now_us);
				if (!hv_sock_vf(s))
					continue;
			}
			if (p->tcb != NULL && hv_tcp_deadline(p->tcb) <= now_us) {
				uint64_t rto = G.tcp.rto;
				unsigned acts = hv_tcp_timeout(p->tcb, &G.env, now_us);
				if (HV_UNLIKELY(G.tcp.rto != rto || p->path_us <= now_us))
					acts |= hv_path_look(s, now_us);
				if (hv_sock_vf(s))
					hv_sock_apply(s, acts, now_us);
				if (!hv_sock_vf(s))
					continue;
			}
			bool udp = s->type != SOCK_STREAM;
			if (udp && p->alone_us != 0 && p->alone_us <= now_us && !hv_udp_alone(s, now_us) && hv_demote_locked(s, HV_WHY_SIBLING, false) == 0)
				continue;
			if (p->active_us + (uint64_t)hv_conf.idle_ms * 1000u <= now_us) {
				if (udp && p->udp.count != 0)
					p->active_us = now_us;
				else if (hv_demote_locked(s, HV_WHY_IDLE, false) == 0)
					continue;
			}
		}
		uint64_t d = hv_sock_deadline(s);
		p->heap_key = d > now_us ? d : now_us + 1;
		down(p->heap_idx);
	}
}
