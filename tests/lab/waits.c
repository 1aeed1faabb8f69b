/*
 * waits.c - every kind of wait on a socket, while the socket moves between kernel and VF. Usage: see drive.c.
 *
 * Each case arms a wait, makes the event happen by a script of the peer, and requires one wake-up with the right result and nothing after it.
 */
#include "waits.h"

const struct drive_case drive_cases[] = {
#define WAIT_ENTRY(name, fn) { name, fn },
	WAIT_CASES(WAIT_ENTRY)
#undef WAIT_ENTRY
	{ NULL, NULL },
};
