/*
 * calls.c - a wide sweep of socket calls, flags and errors on hot sockets, printed so that a run on the kernel and one under the library can be compared.
 * Usage: see drive.c; the move is usually "hot".
 */
#include "calls.h"

const struct drive_case drive_cases[] = {
#define CALL_ENTRY(name, fn) { name, fn },
	CALL_CASES(CALL_ENTRY)
#undef CALL_ENTRY
	{ NULL, NULL },
};
