/*
 * enter.h - how hooks call the engine, and what signals have to do with it.
 *
 * Between hv_engine_enter() and hv_engine_leave() the thread may hold the ring lock, own a socket that moves, or stand in a waiter list. A signal handler that
 * ran now could call us again, or leave by siglongjmp(). So the wrapper that sig.c puts around handlers keeps one signal back and blocks the others; leave lets them
 * come. A wait that was cut short says -EINTR; hv_interrupted() knows whether it is to be restarted.
 */
#ifndef HV_PRELOAD_ENTER_H
#define HV_PRELOAD_ENTER_H

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/inside.h"
#include "engine/engine.h"

extern __thread bool hv_sig_norestart __attribute__((tls_model("initial-exec"))); /* a handler without SA_RESTART ran (or was kept) since this was cleared */
void hv_sig_release(void);

/* Something is on the VF: from now on it isn't left there by a signal that nobody catches. */
extern _Atomic bool hv_fatal_ready;
void hv_fatal_init(void);
static inline void hv_fatal_need(void)
{
	if (__builtin_expect(!hv_fatal_ready, 0))
		hv_fatal_init();
}

static inline void hv_engine_enter(void)
{
	hv_inside_depth++;
	__asm__ volatile("" ::: "memory");
}

static inline void hv_engine_leave(void)
{
	__asm__ volatile("" ::: "memory");
	if (--hv_inside_depth == 0 && __builtin_expect(hv_sig_kept, 0))
		hv_sig_release();
}

static inline ssize_t hv_ret(ssize_t r)
{
	if (r < 0) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

#endif
