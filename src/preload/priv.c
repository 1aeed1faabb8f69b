/*
 * priv.c - calls after which the process may be without CAP_NET_ADMIN: servers that begin as root, and go on as somebody else.
 *
 * Moving a connection needs that capability in either direction. The library doesn't keep back what the program wants to get rid of (glibc changes the user of all threads,
 * ours too): what is on the VF goes to the kernel before, and stays there unless the privilege is still there afterwards, or comes back.
 */
#include "preload/io.h"
#include "preload/proc.h"

#define CHANGES(call)                            \
	do {                                     \
		if (hv_aside() || hv_borrowed()) \
			return call;             \
		change();                        \
		int r_ = call;                   \
		changed();                       \
		return r_;                       \
	} while (0)

static void change(void)
{
	int e = errno;

	hv_engine_enter();
	hv_engine_privileges_change();
	hv_engine_leave();
	errno = e;
}

static void changed(void)
{
	int e = errno;

	hv_engine_enter();
	hv_engine_privileges_changed();
	hv_engine_leave();
	errno = e;
}

HV_EXPORT int setuid(uid_t u)
{
	CHANGES(REAL_LAZY(setuid)(u));
}

HV_EXPORT int seteuid(uid_t u)
{
	CHANGES(REAL_LAZY(seteuid)(u));
}

HV_EXPORT int setreuid(uid_t r, uid_t e)
{
	CHANGES(REAL_LAZY(setreuid)(r, e));
}

HV_EXPORT int setresuid(uid_t r, uid_t e, uid_t s)
{
	CHANGES(REAL_LAZY(setresuid)(r, e, s));
}

HV_EXPORT int capset(void *header, const void *data)
{
	CHANGES(REAL_LAZY(capset)(header, data));
}
