/*
 * io.h - what the data hooks share: waiting, timeouts, cancellation, arguments that only the kernel may judge.
 */
#ifndef HV_PRELOAD_IO_H
#define HV_PRELOAD_IO_H

#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/single_threaded.h>
#include <sys/uio.h>

#include "base/sys.h"
#include "engine/engine.h"
#include "preload/enter.h"
#include "preload/fault.h"
#include "preload/fdtab.h"
#include "preload/real.h"

static inline void hv_testcancel(void)
{
	if (!__libc_single_threaded)
		pthread_testcancel();
}

/* Same for a vector; counts its octets. */
static inline bool hv_bad_iov(const struct iovec *v, size_t n, size_t most, size_t *total)
{
	*total = 0;
	if (hv_bad(v, n * sizeof *v, HV_TRY_ALL))
		return true;
	for (size_t i = 0; i < n; i++) {
		if (hv_bad(v[i].iov_base, v[i].iov_len, most))
			return true;
		*total += v[i].iov_len;
	}
	return *total > (size_t)SSIZE_MAX;
}

/* The policy's look at a kernel-tier socket. */
static inline void hv_touch(struct hv_sock *s, int fd, enum hv_dir dir)
{
	if (atomic_load_explicit(&s->pinned, memory_order_relaxed))
		return;
	hv_engine_enter();
	hv_sock_touch(s, fd, dir);
	if (hv_sock_vf(s))
		hv_fatal_need();
	hv_engine_leave();
}

/* The end of a read in the kernel, which may be the moment that a promotion has waited for. */
static inline void hv_read_done(struct hv_sock *s, ssize_t n)
{
	hv_engine_enter();
	hv_kernel_leave(s, n);
	if (hv_sock_vf(s))
		hv_fatal_need();
	hv_engine_leave();
}

/* What a call says that had moved `done` octets before n came of it. */
static inline ssize_t hv_in_all(struct hv_sock *s, ssize_t done, ssize_t n)
{
	if (done == 0)
		return n;
	if (n >= 0)
		return done + n;
	hv_error_hold(s, (int)-n);
	return done;
}

static inline void hv_to_kernel(struct hv_sock *s, enum hv_why why)
{
	if (!hv_sock_vf(s))
		return;
	hv_engine_enter();
	hv_sock_demote(s, why);
	hv_engine_leave();
}

static inline void hv_keep_in_kernel(struct hv_sock *s, enum hv_why why)
{
	hv_engine_enter();
	hv_sock_pin(s, why);
	hv_engine_leave();
}

/* Moves the socket to the kernel and holds it there until hv_kernel_leave(). */
static inline void hv_kernel_hold(struct hv_sock *s, enum hv_why why)
{
	do
		hv_to_kernel(s, why);
	while (!hv_kernel_enter(s));
}

/* One wait of a blocking data call. *deadline is 0 before the first. 0: try again; HV_AGAIN: a signal came, a call that has moved nothing yet is restarted;
 * else the call's error. */
#define HV_AGAIN 1
int hv_block(struct hv_sock *s, uint32_t events, int64_t *deadline, _Atomic int64_t *timeo);

/* A wait was interrupted: is the call to be restarted? */
bool hv_interrupted(bool norestart);

#endif
