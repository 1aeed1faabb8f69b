/*
 * failover_hold.c - hold-down after losses, and the texts of failover's enumerations: everything of it that needs no kernel.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "failover/handoff.h"
#include "failover/monitor.h"

#define S 1000000u
#define HOLD (2 * S)
#define HOLD_MAX (300 * (uint64_t)S)

static void first_sight_needs_no_hold(void **state)
{
	struct hv_hold h = { 0 };
	uint64_t left = 77;

	(void)state;
	assert_false(hv_hold_ready(&h, false, 5 * S, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, 0);
	assert_true(hv_hold_ready(&h, true, 6 * S, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, 0);
	assert_true(hv_hold_ready(&h, true, 0, HOLD, HOLD_MAX, NULL));
}

static void one_loss_holds_for_the_plain_time(void **state)
{
	struct hv_hold h = { 0 };
	uint64_t left = 0;

	(void)state;
	hv_hold_lost(&h, 100 * S);
	assert_int_equal(h.last_loss_us, 100 * S);
	assert_int_equal(h.losses_10min, 1);
	assert_false(hv_hold_ready(&h, false, 101 * S, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, HOLD);
	assert_false(hv_hold_ready(&h, true, 110 * S, HOLD, HOLD_MAX, &left)); /* counts from here, not from the loss */
	assert_int_equal(left, HOLD);
	assert_false(hv_hold_ready(&h, true, 112 * S - 1, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, 1);
	assert_true(hv_hold_ready(&h, true, 112 * S, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, 0);
}

static void absence_restarts_the_hold(void **state)
{
	struct hv_hold h = { 0 };
	uint64_t left;

	(void)state;
	hv_hold_lost(&h, 100 * S);
	assert_false(hv_hold_ready(&h, true, 101 * S, HOLD, HOLD_MAX, &left));
	assert_false(hv_hold_ready(&h, false, 102 * S, HOLD, HOLD_MAX, &left));
	assert_false(hv_hold_ready(&h, true, 103 * S + 1, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, HOLD);
	assert_true(hv_hold_ready(&h, true, 105 * S + 1, HOLD, HOLD_MAX, &left));
}

static void each_loss_doubles_up_to_the_ceiling(void **state)
{
	struct hv_hold h = { 0 };
	uint64_t left, want = HOLD;

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		hv_hold_lost(&h, 1000 * (uint64_t)S + i * S);
		assert_int_equal(h.losses_10min, i + 1 < 16 ? i + 1 : 16);
		assert_false(hv_hold_ready(&h, false, 1000 * (uint64_t)S + i * S, HOLD, HOLD_MAX, &left));
		assert_int_equal(left, want);
		want = want * 2 < HOLD_MAX ? want * 2 : HOLD_MAX;
	}
}

static void old_losses_stop_counting(void **state)
{
	struct hv_hold h = { 0 };
	uint64_t left;

	(void)state;
	hv_hold_lost(&h, 10 * S);
	hv_hold_lost(&h, 20 * S);
	hv_hold_lost(&h, 30 * S);
	assert_false(hv_hold_ready(&h, false, 609 * (uint64_t)S, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, 4 * HOLD);
	assert_false(hv_hold_ready(&h, false, 611 * (uint64_t)S, HOLD, HOLD_MAX, &left));
	assert_int_equal(left, 2 * HOLD);
	assert_false(hv_hold_ready(&h, false, 5000 * (uint64_t)S, HOLD, HOLD_MAX, &left)); /* but it isn't a first sight any more */
	assert_int_equal(left, HOLD);
}

static void no_hold_when_it_is_switched_off(void **state)
{
	struct hv_hold h = { 0 };

	(void)state;
	hv_hold_lost(&h, 10 * S);
	hv_hold_lost(&h, 20 * S);
	assert_true(hv_hold_ready(&h, true, 21 * S, 0, HOLD_MAX, NULL));
	assert_true(hv_hold_ready(&h, true, 21 * S, HOLD, 0, NULL));
}

static void every_value_has_a_text(void **state)
{
	(void)state;
	for (int i = HV_MOVE_OK; i <= HV_MOVE_SYSCALL; i++) {
		assert_non_null(hv_move_why_text((enum hv_move_why)i));
		assert_string_not_equal(hv_move_why_text((enum hv_move_why)i), "?");
	}
	assert_string_equal(hv_move_why_text((enum hv_move_why)99), "?");
	for (int i = HV_LOSS_NONE; i <= HV_LOSS_OVERRUN; i++)
		assert_string_not_equal(hv_loss_text((enum hv_loss)i), "?");
	assert_string_equal(hv_loss_text((enum hv_loss)99), "?");
	for (int i = HV_VFS_ABSENT; i <= HV_VFS_LOST; i++)
		assert_string_not_equal(hv_vf_state_text((enum hv_vf_state)i), "?");
	assert_true(hv_move_why_permanent(HV_MOVE_MPTCP));
	assert_true(hv_move_why_permanent(HV_MOVE_EPERM));
	assert_false(hv_move_why_permanent(HV_MOVE_STATE));
	assert_false(hv_move_why_permanent(HV_MOVE_SYSCALL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_sight_needs_no_hold),
		cmocka_unit_test(one_loss_holds_for_the_plain_time),
		cmocka_unit_test(absence_restarts_the_hold),
		cmocka_unit_test(each_loss_doubles_up_to_the_ceiling),
		cmocka_unit_test(old_losses_stop_counting),
		cmocka_unit_test(no_hold_when_it_is_switched_off),
		cmocka_unit_test(every_value_has_a_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
