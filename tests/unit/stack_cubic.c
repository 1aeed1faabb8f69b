/*
 * stack_cubic.c - cubic.c against RFC 9438 in floating point: growth, convergence, timeouts, and time that doesn't count.
 */
#include "stack/cc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MSS 1000u
#define SEC 1000000u

static struct hv_tcb tcb, *const t = &tcb;
static uint64_t now;

static int setup(void **state)
{
	(void)state;
	memset(t, 0, sizeof *t);
	t->mss = MSS;
	t->ssthresh = MSS;
	now = 1000ull * SEC;
	return 0;
}

/* A loss, as recovery.c goes about it. */
static void lose(void)
{
	t->ssthresh = hv_cc_ssthresh(t);
	t->cwnd = t->ssthresh;
}

static double cube(double x)
{
	return x * x * x;
}

static double cube_root(double x)
{
	double r = x > 1 ? x : 1;

	for (unsigned i = 0; i < 200; i++)
		r -= (cube(r) - x) / (3 * r * r);
	return r;
}

/* A round trip in which all of cwnd is acknowledged, a segment at a time. */
static void round_trip(uint32_t rtt)
{
	uint32_t n = t->cwnd / MSS;

	t->srtt8 = rtt * 8;
	for (uint32_t i = 0; i < n; i++) {
		now += rtt / n;
		hv_cc_ack(t, MSS, rtt, now);
	}
}

static void near(double is, double want, double part)
{
	if (is < want * (1 - part) || is > want * (1 + part))
		fail_msg("%g instead of %g", is, want);
}

/* 4.2, 4.4, 4.5: concave up to W_max, where it dwells, then convex. Long round trips: Reno would be slower. */
static void growth(void **state)
{
	double k;
	uint64_t start;

	(void)state;
	t->cwnd = 1000 * MSS;
	lose();
	assert_int_equal(t->cwnd, 700 * MSS);
	assert_int_equal(t->cubic.w_max, 1000 * MSS);
	k = cube_root(300 / 0.4);
	start = now;
	for (unsigned i = 0; i < 300; i++) {
		round_trip(100000);
		near(t->cwnd / (double)MSS, 1000 + 0.4 * cube((double)(now - start) / SEC - k), 0.02);
	}
	assert_true(t->cwnd > 3000 * MSS);
}

/* 4.3: a short round trip; as fast as Reno would be, with alpha 9/17 up to the window before the loss, and 1 from there on. */
static void friendly(void **state)
{
	double est = 70;

	(void)state;
	t->cwnd = 100 * MSS;
	lose();
	for (unsigned i = 0; i < 150; i++) {
		est += est < 100 ? 9 / 17.0 : 1;
		round_trip(1000);
		near(t->cwnd / (double)MSS, est, 0.02);
	}
	assert_true(t->cwnd > 180 * MSS);
}

/* 4.2: what lies below cwnd is no reason to grow. */
static void no_growth_below(void **state)
{
	(void)state;
	t->cwnd = 10000 * MSS;
	lose();
	round_trip(1000);
	near(t->cwnd / (double)MSS, 7000 + 9 / 17.0, 0.0005); /* the estimate's half segment, not a part of cwnd */
}

/* 4.7: who loses below W_max gives way to new flows, and only then. */
static void fast_convergence(void **state)
{
	(void)state;
	t->cwnd = 100 * MSS;
	lose();
	assert_int_equal(t->cubic.w_max, 100 * MSS);
	t->cwnd = 90 * MSS;
	lose();
	assert_int_equal(t->cubic.w_max, 76500);
	assert_int_equal(t->cwnd, 63 * MSS);
	t->cwnd = 80 * MSS; /* more than W_max, if less than the last time */
	lose();
	assert_int_equal(t->cubic.w_max, 80 * MSS);
	t->cwnd = 80 * MSS;
	lose();
	assert_int_equal(t->cubic.w_max, 80 * MSS);
}

/* 4.8: after a timeout K = 0 and W_max = cwnd at the end of slow start. Until then slow start as ever. */
static void timeout(void **state)
{
	(void)state;
	t->cwnd = 200 * MSS;
	t->ssthresh = hv_cc_ssthresh(t);
	hv_cubic_rto(t);
	t->cwnd = MSS;
	assert_int_equal(t->ssthresh, 140 * MSS);
	while (t->cwnd < t->ssthresh)
		round_trip(1000);
	hv_cc_ack(t, MSS, 1000, now);
	assert_int_equal(t->cubic.k_ms, 0);
	near(t->cubic.origin, 140 * MSS, 0.01);
	assert_int_equal(t->cubic.cwnd_prior, 200 * MSS);
}

/* Nothing is known of the path's limit: 5 % per round trip at least. */
static void unknown(void **state)
{
	(void)state;
	t->cwnd = 500 * MSS;
	for (unsigned i = 0; i < 10; i++)
		round_trip(1000);
	near(t->cwnd / (double)MSS, 500 * 1.6289, 0.01);
	lose(); /* now it is */
	round_trip(1000);
	near(t->cwnd, t->ssthresh, 0.001);
}

/* 5.8: time in which cwnd wasn't what limited the sender doesn't count. */
static void pauses(void **state)
{
	double k;
	uint64_t start, away = 0;

	(void)state;
	t->cwnd = 1000 * MSS;
	lose();
	k = cube_root(300 / 0.4);
	start = now;
	for (unsigned i = 0; i < 200; i++) {
		round_trip(100000);
		near(t->cwnd / (double)MSS, 1000 + 0.4 * cube((double)(now - start - away) / SEC - k), 0.02);
		if (i % 20 == 0) {
			now += 7 * SEC;
			away += 7 * SEC;
		}
	}
}

/* The same within a data centre: bursts of a few round trips that are much shorter than a millisecond, and pauses whose length in
 * milliseconds, rounded, is more than what has passed. */
static void short_bursts(void **state)
{
	double est = 700;

	(void)state;
	t->cwnd = 1000 * MSS;
	lose();
	now += 990;
	for (unsigned i = 0; i < 50; i++) {
		for (unsigned k = 0; k < 4; k++, est += 9 / 17.0)
			round_trip(20);
		now += 100 * 1000 - 100;
	}
	near(t->cwnd / (double)MSS, est, 0.02);
}

/* Two months in which cwnd wasn't needed are more milliseconds than 32 bits hold. They don't count either. */
static void months(void **state)
{
	(void)state;
	t->cwnd = 1000 * MSS;
	lose();
	for (unsigned i = 0; i < 3; i++)
		round_trip(10000);
	now += 60ull * 86400 * SEC;
	for (unsigned i = 0; i < 10; i++)
		round_trip(10000);
	near(t->cwnd / (double)MSS, 707, 0.02);
}

/* 100 segments are acknowledged, and others follow them. */
static void slow_start_round(uint32_t rtt)
{
	for (unsigned i = 0; i < 100; i++) {
		t->snd_una += MSS;
		t->snd_nxt = t->snd_una + 100 * MSS;
		hv_cc_ack(t, MSS, rtt, now);
	}
}

/* RFC 9406 4.2: a round is over when what was in flight at its start is acknowledged, though nobody looked while 3 GB went out that cwnd
 * didn't limit: growing round trips are seen. */
static void slow_start_after_long(void **state)
{
	(void)state;
	t->cwnd = 100 * MSS;
	t->ssthresh = HV_SSTHRESH_INF;
	for (unsigned i = 0; i < 3; i++)
		slow_start_round(20000);
	t->snd_una += 3u << 30;
	slow_start_round(20000);
	assert_int_equal(t->hystart.css_rounds, 0);
	slow_start_round(30000);
	assert_int_not_equal(t->hystart.css_rounds, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
	const struct CMUnitTest tests[] = { T(growth), T(friendly), T(no_growth_below), T(fast_convergence), T(timeout),
		T(unknown), T(pauses), T(short_bursts), T(months), T(slow_start_after_long) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
