/*
 * cubic.c - RFC 9438 in integers.
 *
 * W(t) = C (t - K)^3 + W_max with C = 0.4 segments/s^3 and beta = 0.7. Windows in octets, time since the epoch in ms. Owns
 * struct hv_cubic; called through cc.h.
 */
#include "stack/cc.h"

/* 25 days: a gap that may be more milliseconds than cubic_ms can tell. */
#define EPOCH_MAX (1ull << 41)

/* Integer cube root, exact to the floor. */
static uint32_t cbrt64(uint64_t v)
{
	uint64_t r = 0;

	for (int s = 63; s >= 0; s -= 3) {
		uint64_t b;

		r <<= 1;
		b = 3 * r * (r + 1) + 1;
		if (v >> s >= b) {
			v -= b << s;
			r++;
		}
	}
	return (uint32_t)r;
}

static void epoch_start(struct hv_tcb *t, uint64_t now)
{
	struct hv_cubic *c = &t->cubic;

	c->epoch_us = now;
	c->est_acc = 0;
	c->w_est = t->cwnd;
	if (t->cwnd < c->w_max) {
		/* K = cbrt((W_max - cwnd) / C) s; in ms: cbrt(segments * 2.5 * 10^9) */
		uint64_t milli = (uint64_t)(c->w_max - t->cwnd) * 1000u / t->mss;

		c->k_ms = cbrt64(milli * 2500000u);
		c->origin = c->w_max;
	} else {
		c->k_ms = 0;
		c->origin = t->cwnd;
	}
}

static uint32_t w_cubic(const struct hv_tcb *t, uint64_t ms)
{
	const struct hv_cubic *c = &t->cubic;
	uint64_t d = ms < c->k_ms ? c->k_ms - ms : ms - c->k_ms, off;

	if (d > 131072)
		d = 131072;
	off = d * d * d / 25000u * t->mss / 100000u; /* 0.4 * (d / 1000)^3 segments */
	if (off > HV_CWND_MAX)
		off = HV_CWND_MAX;
	if (ms < c->k_ms)
		return off < c->origin ? c->origin - (uint32_t)off : t->mss;
	return c->origin + (uint32_t)off;
}

void hv_cubic_ack(struct hv_tcb *t, uint32_t acked, uint64_t now)
{
	struct hv_cubic *c = &t->cubic;
	uint32_t target, now_ms = (uint32_t)(now / 1000u), gap = now_ms - t->cubic_ms;
	uint64_t inc;

	if (c->epoch_us == 0 || now - c->epoch_us > EPOCH_MAX)
		epoch_start(t, now);
	else if (gap > (t->srtt8 >> 2) / 1000u + HV_DELACK / 1000u)
		/* RFC 9438 5.8: nothing to send, or not enough to need cwnd: no time to grow in. The gap, in ms, may be rounded up. */
		c->epoch_us = hv_min64(c->epoch_us + (uint64_t)gap * 1000u, now);
	t->cubic_ms = now_ms;
	/* one RTT ahead (RFC 9438 4.2), between cwnd and 1.5 cwnd */
	target = w_cubic(t, (now - c->epoch_us + (t->srtt8 >> 3)) / 1000u);
	if (target > t->cwnd + t->cwnd / 2)
		target = t->cwnd + t->cwnd / 2;
	/* Reno-friendly estimate: alpha = 3 (1 - beta) / (1 + beta) = 9/17 until it has reached the window before the loss, then 1 */
	inc = (uint64_t)acked * t->mss;
	if (c->w_est < c->cwnd_prior)
		inc = inc * 9 / 17;
	inc += c->est_acc;
	c->w_est += (uint32_t)(inc / t->cwnd);
	c->est_acc = (uint32_t)(inc % t->cwnd);
	/* as Linux: 5 % per RTT at least while no loss has shown yet what the path can hold */
	if (c->w_max == 0)
		target = hv_max32(target, t->cwnd + t->cwnd / 20);
	if (target > t->cwnd)
		t->cwnd += (uint32_t)((uint64_t)(target - t->cwnd) * hv_min32(acked, t->cwnd) / t->cwnd);
	if (c->w_est > t->cwnd)
		t->cwnd = c->w_est;
}

/* RFC 9438 4.6, which lets those use cwnd instead of FlightSize who don't let it grow unused. */
uint32_t hv_cubic_ssthresh(struct hv_tcb *t)
{
	struct hv_cubic *c = &t->cubic;

	/* fast convergence, RFC 9438 4.7: W_max may be what fast convergence has made of it the last time */
	c->w_max = t->cwnd < c->w_max ? (uint32_t)((uint64_t)t->cwnd * 17 / 20) : t->cwnd;
	c->cwnd_prior = t->cwnd;
	c->epoch_us = 0;
	return (uint32_t)((uint64_t)t->cwnd * 7 / 10);
}

/* RFC 9438 4.8: the next epoch begins with K = 0 and W_max = cwnd, as the first one does. */
void hv_cubic_rto(struct hv_tcb *t)
{
	t->cubic.w_max = 0;
}
