/* Stalls by cause (tests/impair/stall.c): logs in which somebody is late, nobody is, or nothing explains what the reader had to wait for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../impair/stall.h"

#define RTT 10u /* ms; the RTO is 210 */
#define MSS 1000u

static struct stall_log log_;
static struct stall_report rep;
static double at; /* ms */
static uint32_t handshake[2];

static int fresh(void **state)
{
	(void)state;
	log_.n = 0;
	at = 0;
	handshake[0] = handshake[1] = RTT * 1000;
	return 0;
}

static void ev(enum stall_what what, unsigned side, uint32_t seq, uint32_t len, uint32_t ack)
{
	stall_note(&log_, &(struct stall_event){ .ns = (uint64_t)(at * 1e6), .what = (uint8_t)what, .side = (uint8_t)side, .seq = seq, .len = len, .ack = ack });
}

/* The next events are at this time. */
static void t(double ms)
{
	assert_true(ms >= at);
	at = ms;
}

static void wrote(unsigned side, uint32_t all) { ev(STALL_WROTE, side, all, 0, 0); }
static void rd(unsigned side) { ev(STALL_READ, side, 0, 0, 0); }
static void ack(unsigned side, uint32_t a) { ev(STALL_HEARD, side, 0, 0, a); }
static void sent(unsigned side, uint32_t seq, uint32_t len) { ev(STALL_SENT, side, seq, len, 0); }

static void sack(unsigned side, uint32_t a)
{
	ack(side, a);
	log_.e[log_.n - 1].sack = true;
}

static void lost(unsigned side, uint32_t seq, uint32_t len)
{
	sent(side, seq, len);
	ev(STALL_LOST, side, seq, len, 0);
}

static void ack_lost(unsigned side, uint32_t a)
{
	ev(STALL_SENT, side, 0, 0, a);
	ev(STALL_LOST, side, 0, 0, a);
}

/* One segment from a to b as it should be, the reader included. */
static void one(uint32_t seq)
{
	double from = at;

	wrote(0, seq + MSS);
	sent(0, seq, MSS);
	t(from + 5);
	rd(1);
	t(from + 10);
	ack(0, seq + MSS);
}

static void judge(double from)
{
	const struct stall_log *logs[] = { &log_ };

	stall_judge(logs, 1, 1, (uint64_t)(from * 1e6), (uint64_t)(at * 1e6), handshake, &rep);
}

static void expect(uint32_t within, uint32_t n_lost, uint32_t timeouts, uint32_t late_a, uint32_t late_b, uint32_t other)
{
	judge(0);
	assert_int_equal(rep.within, within);
	assert_int_equal(rep.lost, n_lost);
	assert_int_equal(rep.timeouts, timeouts);
	assert_int_equal(rep.late[0], late_a);
	assert_int_equal(rep.late[1], late_b);
	assert_int_equal(rep.other, other);
	assert_int_equal(rep.why[0] != 0, late_a + late_b + other != 0);
}

static void nothing_stalls(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 20; i++) {
		one(i * MSS);
		t(at + 40);
	}
	expect(0, 0, 0, 0, 0, 0);
}

/* The tail is lost n - 1 times again; the sender tries at the given times, the last one arrives. */
static void tail(const double *when, uint32_t n)
{
	one(0);
	wrote(0, 2 * MSS);
	lost(0, MSS, MSS);
	for (uint32_t i = 0; i < n; i++) {
		t(10 + when[i]);
		if (i + 1 < n)
			lost(0, MSS, MSS);
		else
			sent(0, MSS, MSS);
	}
	t(at + 5);
	rd(1);
	t(at + 5);
	ack(0, 2 * MSS);
}

static void one_timeout(void **state)
{
	(void)state;
	tail((const double[]){ 210 }, 1);
	expect(1, 0, 0, 0, 0, 0);
}

static void each_timeout_was_lost(void **state)
{
	(void)state;
	tail((const double[]){ 210, 630, 1470, 3150 }, 4);
	expect(0, 1, 4, 0, 0, 0);
}

/* By less than another RTO, in each place of the series. */
static void late_sender(void **state)
{
	(void)state;
	tail((const double[]){ 310 }, 1);
	expect(0, 0, 0, 1, 0, 0);
	fresh(NULL);
	tail((const double[]){ 210, 780 }, 2);
	expect(0, 0, 0, 1, 0, 0);
	fresh(NULL);
	tail((const double[]){ 210, 630, 1800, 3480 }, 4);
	expect(0, 0, 0, 1, 0, 0);
}

/* The RTO stays doubled though there was an answer. */
static void backed_off_for_nothing(void **state)
{
	(void)state;
	tail((const double[]){ 210, 630 }, 2);
	wrote(0, 3 * MSS);
	lost(0, 2 * MSS, MSS);
	t(at + 420);
	sent(0, 2 * MSS, MSS);
	t(at + 5);
	rd(1);
	t(at + 5);
	ack(0, 3 * MSS);
	expect(0, 1, 2, 1, 0, 0);
}

static void a_timer_within_its_margin(void **state)
{
	(void)state;
	tail((const double[]){ 230, 670 }, 2);
	expect(0, 1, 2, 0, 0, 0);
}

/* b has everything and answers; the answers are lost, and a may not send more until it hears. */
static void acks_were_lost(void **state)
{
	(void)state;
	one(0);
	wrote(0, 3 * MSS);
	sent(0, MSS, MSS);
	t(15);
	rd(1);
	ack_lost(1, 2 * MSS);
	t(220);
	sent(0, MSS, MSS);
	t(225);
	ack_lost(1, 2 * MSS);
	t(640);
	sent(0, MSS, MSS);
	t(650);
	ack(0, 2 * MSS);
	sent(0, 2 * MSS, MSS);
	t(655);
	rd(1);
	t(660);
	ack(0, 3 * MSS);
	expect(0, 1, 2, 0, 0, 0);
}

/* The same, but b never said anything. */
static void receiver_that_does_not_answer(void **state)
{
	(void)state;
	one(0);
	wrote(0, 3 * MSS);
	sent(0, MSS, MSS);
	t(15);
	rd(1);
	t(220);
	sent(0, MSS, MSS);
	t(640);
	sent(0, MSS, MSS);
	t(650);
	ack(0, 2 * MSS);
	sent(0, 2 * MSS, MSS);
	t(655);
	rd(1);
	t(660);
	ack(0, 3 * MSS);
	expect(0, 0, 0, 0, 0, 1);
}

static void receiver_that_keeps_it(void **state)
{
	(void)state;
	one(0);
	wrote(0, 2 * MSS);
	sent(0, MSS, MSS);
	t(20);
	ack(0, 2 * MSS);
	t(500);
	rd(1);
	expect(0, 0, 0, 0, 0, 1);
}

static void never_sent(void **state)
{
	(void)state;
	one(0);
	wrote(0, 2 * MSS);
	t(200);
	wrote(0, 3 * MSS);
	t(400);
	sent(0, MSS, MSS);
	t(405);
	rd(1);
	expect(0, 0, 0, 1, 0, 0);
}

/* Nothing to send is no reason to send, however long. */
static void idle(void **state)
{
	(void)state;
	one(0);
	t(5000);
	one(MSS);
	judge(4990);
	assert_int_equal(rep.late[0] + rep.late[1] + rep.within + rep.lost + rep.other, 0);
}

static void still_silent_at_the_end(void **state)
{
	(void)state;
	one(0);
	wrote(0, 2 * MSS);
	lost(0, MSS, MSS);
	t(400);
	expect(0, 0, 0, 1, 0, 0);
}

/* b waits for the answer to what it asked for: the question gets lost, then the answer. */
static void both_ends_in_turn(void **state)
{
	(void)state;
	one(0);
	wrote(1, 100);
	lost(1, 0, 100);
	t(220);
	sent(1, 0, 100);
	t(225);
	wrote(0, 2 * MSS);
	lost(0, MSS, MSS);
	log_.e[log_.n - 1].ack = log_.e[log_.n - 2].ack = 100;
	t(435);
	sent(0, MSS, MSS);
	t(440);
	rd(1);
	ack(1, 100);
	t(445);
	ack(0, 2 * MSS);
	expect(0, 1, 2, 0, 0, 0);
}

/* Two of three are lost, with a tail loss probe behind them, and a timeout counts from there; but not from a second probe. */
static void probes(void **state)
{
	(void)state;
	for (int second = 0; second < 2; second++) {
		fresh(NULL);
		one(0);
		wrote(0, 5 * MSS);
		lost(0, MSS, MSS);
		lost(0, 2 * MSS, MSS);
		lost(0, 3 * MSS, MSS);
		t(35);
		lost(0, 3 * MSS, MSS);
		if (second) {
			t(200);
			lost(0, 3 * MSS, MSS);
			t(410);
		} else {
			t(245);
		}
		sent(0, MSS, MSS);
		t(at + 5);
		rd(1);
		t(at + 5);
		ack(0, 2 * MSS);
		expect(!second, 0, 0, (uint32_t)second, 0, 0);
	}
}

/* SACKs about the same flight put the timeout off, later ones don't. */
static void sacks(void **state)
{
	(void)state;
	for (int later = 0; later < 2; later++) {
		fresh(NULL);
		one(0);
		wrote(0, 9 * MSS);
		lost(0, MSS, MSS);
		sent(0, 2 * MSS, MSS);
		t(18);
		sent(0, 3 * MSS, MSS);
		t(20);
		sack(0, MSS);
		t(21);
		lost(0, MSS, MSS);
		t(35);
		sack(0, MSS);
		if (later) {
			t(150);
			sack(0, MSS);
			t(360);
		} else {
			t(245);
		}
		sent(0, MSS, MSS);
		t(at + 5);
		rd(1);
		t(at + 5);
		ack(0, 4 * MSS);
		expect(!later, 0, 0, (uint32_t)later, 0, 0);
	}
}

/* One lost timeout is no excuse for all that follows. */
static void the_rest_has_to_be_explained_too(void **state)
{
	(void)state;
	tail((const double[]){ 210, 630 }, 2);
	/* the last attempt has arrived and was answered; the application reads it much later */
	log_.n -= 2;
	ack(0, 2 * MSS);
	t(1500);
	rd(1);
	expect(0, 0, 0, 0, 0, 1);
}

/* The reader is served all the time, and yet an end is silent with octets of its own in flight. */
static void late_without_a_stall(void **state)
{
	(void)state;
	one(0);
	wrote(1, 100);
	lost(1, 0, 100);
	for (uint32_t i = 1; i < 20; i++) {
		one(i * MSS);
		t(at + 40);
	}
	expect(0, 0, 0, 0, 1, 0);
}

/* A round trip that has grown makes the RTO larger (RFC 6298): by the network's figures, not by what an end says. */
static void rto_follows_the_round_trip(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 100; i++) {
		wrote(0, (i + 1) * MSS);
		sent(0, i * MSS, MSS);
		t(at + 90);
		rd(1);
		t(at + 10);
		ack(0, (i + 1) * MSS);
	}
	wrote(0, 101 * MSS);
	lost(0, 100 * MSS, MSS);
	t(at + 300);
	lost(0, 100 * MSS, MSS);
	t(at + 600);
	sent(0, 100 * MSS, MSS);
	t(at + 90);
	rd(1);
	judge(0);
	assert_int_equal(rep.lost, 1);
	assert_int_equal(rep.timeouts, 2);
	assert_int_equal(rep.late[0] + rep.other, 0);
}

/* A machine that was late in the handshake makes the first RTO of that end larger. */
static void slow_handshake(void **state)
{
	(void)state;
	for (int end = 0; end < 2; end++) {
		fresh(NULL);
		handshake[end] = 150000;
		wrote(0, MSS);
		lost(0, 0, MSS);
		t(450);
		sent(0, 0, MSS);
		t(455);
		rd(1);
		t(460);
		ack(0, MSS);
		expect(end == 0, 0, 0, end == 1, 0, 0);
	}
}

/* What waited for a hole to be filled says nothing about the round trip (RFC 6298 3): that sender is late the second time. */
static void a_hole_is_no_round_trip(void **state)
{
	(void)state;
	one(0);
	wrote(0, 4 * MSS);
	lost(0, MSS, MSS);
	sent(0, 2 * MSS, MSS);
	t(220);
	sent(0, MSS, MSS);
	t(225);
	rd(1);
	t(230);
	ack(0, 3 * MSS);
	lost(0, 3 * MSS, MSS);
	t(540);
	sent(0, 3 * MSS, MSS);
	t(545);
	rd(1);
	t(550);
	ack(0, 4 * MSS);
	expect(1, 0, 0, 1, 0, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, fresh)
	const struct CMUnitTest tests[] = {
		T(nothing_stalls), T(one_timeout), T(each_timeout_was_lost), T(late_sender), T(backed_off_for_nothing), T(a_timer_within_its_margin),
		T(acks_were_lost), T(receiver_that_does_not_answer), T(receiver_that_keeps_it), T(never_sent), T(idle), T(still_silent_at_the_end),
		T(both_ends_in_turn), T(probes), T(sacks), T(the_rest_has_to_be_explained_too), T(late_without_a_stall), T(rto_follows_the_round_trip),
		T(slow_handshake), T(a_hole_is_no_round_trip),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	free(log_.e);
	return r;
}
