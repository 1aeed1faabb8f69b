/*
 * stack_seq.c - src/stack/seq.h with sequence numbers of 8 bits: every function, every combination of values, against arithmetic on
 * integers that don't wrap. Nothing in seq.h depends on the width, so what holds for 8 bits holds for 32.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define HV_SEQ_TYPES
typedef uint8_t hv_seq_t;
typedef int8_t hv_seqdiff_t;
#include "stack/seq.h"

#define HALF 128

/* Positions on a line; the sequence number of one is its lowest 8 bits. */
static hv_seq_t sn(int pos)
{
	return (hv_seq_t)(pos & 255);
}

static unsigned long wrong;

static void expect(bool ok)
{
	wrong += !ok;
}

static void comparisons(void **state)
{
	(void)state;
	for (int a = 256; a < 512; a++)
		for (int b = a - HALF + 1; b < a + HALF; b++) {
			expect(hv_seq_diff(sn(a), sn(b)) == a - b);
			expect(hv_seq_lt(sn(a), sn(b)) == (a < b));
			expect(hv_seq_le(sn(a), sn(b)) == (a <= b));
			expect(hv_seq_gt(sn(a), sn(b)) == (a > b));
			expect(hv_seq_ge(sn(a), sn(b)) == (a >= b));
			expect(hv_seq_max(sn(a), sn(b)) == sn(a > b ? a : b));
			expect(hv_seq_min(sn(a), sn(b)) == sn(a < b ? a : b));
		}
	assert_int_equal(wrong, 0);
}

/* Any interval shorter than the whole space, any number. */
static void intervals(void **state)
{
	(void)state;
	for (int lo = 0; lo < 256; lo++)
		for (int len = 0; len < 256; len++)
			for (int a = lo; a < lo + 256; a++)
				expect(hv_seq_in(sn(a), sn(lo), sn(lo + len)) == (a < lo + len));
	assert_int_equal(wrong, 0);
}

/* Text against a boundary, as long as everything lies within half of the space. */
static void trimming(void **state)
{
	(void)state;
	for (int at = 256; at < 512; at++)
		for (int seq = at - HALF + 1; seq < at + HALF; seq++)
			for (int len = 0; seq + len < at + HALF && len < HALF; len++) {
				int before = 0, behind = 0;
				for (int i = seq; i < seq + len; i++) { /* octet by octet */
					before += i < at;
					behind += i >= at;
				}
				expect(hv_seq_before(sn(seq), sn(len), sn(at)) == before);
				expect(hv_seq_behind(sn(seq), sn(len), sn(at)) == behind);
			}
	assert_int_equal(wrong, 0);
}

/* Text: some octet is new, and the segment begins at the right edge at the latest (what doesn't fit is cut off later, its ACK counts).
 * Without text: Last.ACK.sent <= SEG.SEQ <= right edge. */
static void acceptability(void **state)
{
	(void)state;
	for (int nxt = 256; nxt < 512; nxt++)
		for (int wnd = 0; wnd < 32; wnd++)
			for (int held = 0; held < 8; held++)
				for (int seq = nxt - 40; seq < nxt + 72; seq++)
					for (int len = 0; len < 24; len++) {
						int edge = nxt + wnd;
						bool ok = false;
						for (int i = seq; i < seq + len && !ok; i++)
							ok = i >= nxt && seq <= edge;
						if (len == 0)
							ok = seq >= nxt - held && seq <= edge;
						expect(hv_seq_acceptable(sn(seq), sn(seq + len), sn(nxt - held), sn(nxt), sn(edge)) == ok);
					}
	assert_int_equal(wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(comparisons), cmocka_unit_test(intervals), cmocka_unit_test(trimming),
		cmocka_unit_test(acceptability) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
